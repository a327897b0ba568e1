//! What Prometheus answers to `query_range` for vLLM's own counters: JSON documents, one after
//! the other in one file.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    io::BufRead,
};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use super::{
    draw::Lengths,
    log::{Findings, LogError},
    row::shown,
    window::{Window, Windows},
};

/// The most points in time that are read: eight months of minutes.
const MOST_TIMES: usize = 350_000;
/// A series with a hole longer than this many steps has not counted on in between.
const LONGEST_HOLE: i64 = 1_000;

const SUCCESS: &str = "vllm:request_success_total";
const PROMPT_SUM: &str = "vllm:request_prompt_tokens_sum";
const PROMPT_COUNT: &str = "vllm:request_prompt_tokens_count";
const ANSWER_SUM: &str = "vllm:request_generation_tokens_sum";
const ANSWER_COUNT: &str = "vllm:request_generation_tokens_count";
const RUNNING: &str = "vllm:num_requests_running";
const WAITING: &str = "vllm:num_requests_waiting";

/// The families that are read, and the one of the four queries that each comes from.
const FAMILIES: [(&str, usize); 7] = [
    (SUCCESS, 0),
    (PROMPT_SUM, 1),
    (PROMPT_COUNT, 1),
    (ANSWER_SUM, 2),
    (ANSWER_COUNT, 2),
    (RUNNING, 3),
    (WAITING, 3),
];
const QUERIES: [&str; 4] = [
    "vllm:request_success_total{SELECTOR}",
    r#"{__name__=~"vllm:request_prompt_tokens_(sum|count)",SELECTOR}"#,
    r#"{__name__=~"vllm:request_generation_tokens_(sum|count)",SELECTOR}"#,
    r#"{__name__=~"vllm:num_requests_(running|waiting)",SELECTOR}"#,
];

/// The four commands that write a day of a model's traffic into dump.json.
#[must_use]
pub fn commands() -> String {
    let mut text = String::new();
    for (index, query) in QUERIES.iter().enumerate() {
        let query = query.replace("SELECTOR", r#"model_name="MODEL""#);
        let into = if index == 0 { ">" } else { ">>" };
        let _ = writeln!(
            text,
            "curl -fsSG \"$PROMETHEUS/api/v1/query_range\" --data-urlencode 'query={query}' \
             -d start=$(date -d -1day +%s) -d end=$(date +%s) -d step=60 {into} dump.json"
        );
    }
    text
}

/// One document.
#[derive(Deserialize)]
struct Answer {
    status: String,
    error: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Folded,
}

/// The series of a document, summed as they are read so that only one is in memory at a time.
#[derive(Debug, Default)]
struct Folded {
    /// Of each family, by time in milliseconds: a counter's increase since the time before, or
    /// a gauge, summed over series.
    families: BTreeMap<&'static str, BTreeMap<i64, f64>>,
    /// The shortest distance between two values of a series, in milliseconds.
    step: Option<i64>,
    series: u64,
    foreign: u64,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl<'de> Deserialize<'de> for Folded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fold;
        impl<'de> Visitor<'de> for Fold {
            type Value = Folded;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the series of a range query (resultType matrix)")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut series: A) -> Result<Folded, A::Error> {
                let mut folded = Folded::default();
                while let Some(one) = series.next_element()? {
                    folded.add(&one);
                    if folded.families.values().any(|times| times.len() > MOST_TIMES) {
                        let message = format!("more than {MOST_TIMES} points in time; take a longer step");
                        return Err(serde::de::Error::custom(message));
                    }
                }
                Ok(folded)
            }
        }
        deserializer.deserialize_seq(Fold)
    }
}

impl Folded {
    fn add(&mut self, series: &Series) {
        let name = series.metric.get("__name__").map_or("", String::as_str);
        let Some((family, query)) = FAMILIES.into_iter().find(|(family, _)| *family == name) else {
            self.foreign += 1;
            return;
        };
        self.series += 1;
        #[expect(clippy::cast_possible_truncation, reason = "saturates; a time far off is its own hole")]
        let values = series.values.iter().filter_map(|(at, text)| {
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)?;
            Some(((at * 1e3).round() as i64, value))
        });
        let values: Vec<(i64, f64)> = values.collect();
        let own = values.windows(2).map(|pair| pair[1].0 - pair[0].0).filter(|step| *step > 0).min();
        self.step = self.step.into_iter().chain(own).min();
        let times = self.families.entry(family).or_default();
        if query == 3 {
            for (at, value) in values {
                *times.entry(at).or_default() += value;
            }
            return;
        }
        // The first value says what was counted before it, which is of another time.
        if let Some((first, _)) = values.first() {
            times.entry(*first).or_default();
        }
        for pair in values.windows(2) {
            let ((from, before), (until, after)) = (pair[0], pair[1]);
            // A counter that fell has started anew.
            let increase = if after >= before { after - before } else { after };
            let steps = own.map_or(1, |own| (until - from) / own).max(1);
            if steps > LONGEST_HOLE {
                times.entry(until).or_default();
                continue;
            }
            for index in 1..=steps {
                *times.entry(from + (until - from) * index / steps).or_default() += increase / steps as f64;
            }
        }
    }

    fn merge(&mut self, other: Self) {
        for (family, times) in other.families {
            let own = self.families.entry(family).or_default();
            for (at, value) in times {
                *own.entry(at).or_default() += value;
            }
        }
        self.step = self.step.into_iter().chain(other.step).min();
        self.series += other.series;
        self.foreign += other.foreign;
    }
}

/// The windows of a dump: one for each of its steps.
#[derive(Debug)]
pub struct Dump {
    windows: std::vec::IntoIter<Window>,
    findings: Findings,
}

impl Dump {
    /// Reads a whole dump. It takes memory by the number of its steps, whatever the number of
    /// its series.
    pub fn read(reader: impl BufRead) -> Result<Self, LogError> {
        let mut folded = Folded::default();
        for (index, answer) in serde_json::Deserializer::from_reader(reader).into_iter::<Answer>().enumerate()
        {
            let content = |text: String| LogError::Content(format!("its JSON document {} {text}", index + 1));
            let answer = answer.map_err(|error| {
                content(format!("is no answer to query_range: {}", shown(&error.to_string())))
            })?;
            if answer.status != "success" {
                let error = answer.error.unwrap_or_default();
                return Err(content(format!("is an error of Prometheus: {}", shown(&error))));
            }
            let data = answer.data.ok_or_else(|| content("has no data".to_owned()))?;
            folded.merge(data.result);
        }
        windows(&folded)
    }
}

fn windows(folded: &Folded) -> Result<Dump, LogError> {
    let missing: Vec<&str> = FAMILIES
        .iter()
        .map(|(family, _)| *family)
        .filter(|family| !folded.families.contains_key(family))
        .collect();
    if !missing.is_empty() {
        let dump = commands();
        let missing = missing.join(", ");
        return Err(LogError::Content(format!(
            "has no series of {missing}. These commands make a whole one:\n{dump}"
        )));
    }
    let Some(step) = folded.step else { return Err(LogError::Empty) };
    let of = |family: &str, at: i64| folded.families.get(family).and_then(|times| times.get(&at)).copied();
    let times: Vec<i64> = folded.families[SUCCESS].keys().copied().collect();
    let mut findings = Findings { lines: times.len() as u64, ..Findings::default() };
    let (mut windows, mut lengths) = (Vec::new(), None);
    let (mut owed, mut leading) = (0.0, 0_u64);
    for pair in times.windows(2) {
        let (from, until) = (pair[0], pair[1]);
        // A long hole is a silence of Prometheus, not of clients; nothing is known of it.
        if until - from > step * LONGEST_HOLE {
            findings.notes.push(format!("a hole of {} minutes has no traffic", (until - from) / 60_000));
            continue;
        }
        let held = |at| Some(of(RUNNING, at)? + of(WAITING, at)?);
        let change = held(until).zip(held(from)).map_or(0.0, |(now, before)| now - before);
        // Requests that were held and are gone without an answer (aborted) make it negative:
        // the next arrivals pay for it.
        let balance = of(SUCCESS, until).unwrap_or_default() + change + owed;
        let arrivals = balance.max(0.0);
        owed = balance.min(0.0);
        let mean = |sum, count| {
            let count = of(count, until)?;
            (count > 0.0).then_some(of(sum, until)? / count)
        };
        if let (Some(prompt), Some(answer)) = (mean(PROMPT_SUM, PROMPT_COUNT), mean(ANSWER_SUM, ANSWER_COUNT))
        {
            lengths = Some((Lengths::of_mean(prompt), Lengths::of_mean(answer)));
        }
        if lengths.is_none() && arrivals > 0.0 {
            leading += 1;
            continue;
        }
        let length = (until - from) as f64 / 1e3;
        let start = (from - times[0]) as f64 / 1e3;
        windows.push(Window { start, length, rate: arrivals / length, cv: 1.0, lengths });
    }
    if leading > 0 {
        let note = "steps before the first finished request were left out: lengths are not known there";
        findings.notes.push(format!("{leading} {note}"));
    }
    if folded.foreign > 0 {
        findings.notes.push(format!("{} series of other families were passed over", folded.foreign));
    }
    if windows.iter().all(|window| window.rate == 0.0) {
        return Err(LogError::Empty);
    }
    Ok(Dump { windows: windows.into_iter(), findings })
}

impl Windows for Dump {
    fn next_window(&mut self) -> Result<Option<Window>, LogError> {
        Ok(self.windows.next())
    }

    fn findings(&self) -> &Findings {
        &self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document with series of a family: labels and values at minutes 0, 1, 2, …
    fn document(series: &[(&str, &str, &[f64])]) -> String {
        let mut text = String::from(r#"{"status":"success","data":{"resultType":"matrix","result":["#);
        for (index, (family, pod, values)) in series.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(text, r#"{comma}{{"metric":{{"__name__":"{family}","pod":"{pod}"}},"values":["#);
            for (minute, value) in values.iter().enumerate() {
                let comma = if minute > 0 { "," } else { "" };
                let _ = write!(text, r#"{comma}[{},"{value}"]"#, 1_764_000_000 + minute * 60);
            }
            text.push_str("]}");
        }
        text + "]}}\n"
    }

    fn whole(success: &[(&str, &str, &[f64])]) -> String {
        let steps = 4;
        let counting = |by: f64| (0..steps).map(|step| f64::from(step) * by).collect::<Vec<_>>();
        let (thousand, hundred, ten) = (counting(1_000.0), counting(100.0), counting(10.0));
        [
            document(success),
            document(&[(PROMPT_SUM, "a", &thousand), (PROMPT_COUNT, "a", &ten)]),
            document(&[(ANSWER_SUM, "a", &hundred), (ANSWER_COUNT, "a", &ten)]),
            document(&[(RUNNING, "a", &[5.0, 5.0, 8.0, 0.0]), (WAITING, "a", &[0.0, 0.0, 3.0, 0.0])]),
        ]
        .concat()
    }

    fn rates(text: &str) -> Result<Vec<f64>, LogError> {
        let mut dump = Dump::read(text.as_bytes())?;
        let mut rates = Vec::new();
        while let Some(window) = dump.next_window()? {
            rates.push((window.rate * 60.0).round());
        }
        Ok(rates)
    }

    #[test]
    fn arrivals_are_what_was_answered_and_what_came_to_be_held() {
        let text = whole(&[
            // The second pod restarts: its counter falls to 4.
            (SUCCESS, "a", &[1_000.0, 1_060.0, 1_120.0, 1_180.0]),
            (SUCCESS, "b", &[500.0, 530.0, 4.0, 34.0]),
        ]);
        let dump = Dump::read(text.as_bytes()).unwrap();
        let first = dump.windows.as_slice()[0].clone();
        assert_eq!(first.lengths, Some((Lengths::of_mean(100.0), Lengths::of_mean(10.0))));
        assert_eq!((first.start, first.length), (0.0, 60.0));
        assert_eq!(rates(&text).unwrap(), [90.0, 64.0 + 6.0, 90.0 - 11.0]);
    }

    #[test]
    fn what_a_dump_lacks_is_named_with_the_commands_that_make_one() {
        let error = rates(&document(&[(SUCCESS, "a", &[1.0, 2.0])])).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "has no series of vllm:request_prompt_tokens_sum, vllm:request_prompt_tokens_count"
            ),
            "{error}"
        );
        assert_eq!(error.matches("curl -fsSG").count(), 4, "{error}");
    }

    #[test]
    fn an_error_of_prometheus_is_shown() {
        let text = r#"{"status":"error","errorType":"bad_data","error":"exceeded maximum resolution"}"#;
        let error = rates(text).unwrap_err().to_string();
        assert_eq!(error, "its JSON document 1 is an error of Prometheus: exceeded maximum resolution");
        let error = rates("{\"status\":\"success\",\"data\":{\"result\":5}}").unwrap_err().to_string();
        assert!(
            error.starts_with("its JSON document 1 is no answer to query_range: invalid type"),
            "{error}"
        );
    }

    #[test]
    fn a_dump_without_traffic_is_empty() {
        let flat = [7.0; 4];
        let mut text = whole(&[(SUCCESS, "a", &flat)]);
        text = text.replace(
            &document(&[(RUNNING, "a", &[5.0, 5.0, 8.0, 0.0]), (WAITING, "a", &[0.0, 0.0, 3.0, 0.0])]),
            "",
        );
        text += &document(&[(RUNNING, "a", &[0.0; 4]), (WAITING, "a", &[0.0; 4])]);
        assert!(matches!(rates(&text), Err(LogError::Empty)));
    }
}
