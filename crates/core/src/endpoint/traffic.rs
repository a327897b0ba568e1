//! The traffic that endpoints served, minute by minute: what `run --record` writes and
//! `simulate` replays.

use std::{collections::HashMap, fmt::Write as _, sync::Arc, time::Duration};

use crate::{
    config::trigger::{Shape, WantedMetric},
    names::{MetricName, PodUid},
    page::sample::{Histogram, PodSample, Reading},
    time::Moment,
};

/// How long a line of the record is.
pub const MINUTE: Duration = Duration::from_secs(60);

/// The next start of a minute by the clock on the wall.
#[must_use]
pub fn next_minute(now: Moment) -> Moment {
    let minutes = now.since_unix().as_secs() / MINUTE.as_secs() + 1;
    Moment::from_unix(Duration::from_secs(minutes * MINUTE.as_secs()))
}

/// The families that tell what was answered.
const SUCCESS: &str = "vllm:request_success";
const PROMPT: &str = "vllm:request_prompt_tokens";
const ANSWER: &str = "vllm:request_generation_tokens";

/// Values that a line has at most, and characters of each name in it.
const MOST_VALUES: usize = 16;
const LONGEST_NAME: usize = 256;

/// A meter of the traffic of endpoints that are scraped together. It takes in each sample in
/// constant time, and keeps six numbers an endpoint.
#[derive(Debug)]
pub struct TrafficMeter {
    began: Moment,
    minute_began: Moment,
    pods: HashMap<PodUid, Counters>,
    minute: Sums,
    gateway: Option<f64>,
    /// What the next minute is to be less by, 0 or less: requests that left the gateway in the
    /// minute before, and show at an endpoint only in the next.
    owed: f64,
    names: Names,
}

#[derive(Debug)]
struct Names {
    success: MetricName,
    prompt: MetricName,
    answer: MetricName,
}

/// What an endpoint has counted so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    succeeded: f64,
    held: f64,
    prompt: Total,
    answer: Total,
}

#[derive(Clone, Copy, Debug, Default)]
struct Total {
    count: f64,
    sum: f64,
}

/// What happened within the minute.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    samples: u64,
    arrivals: f64,
    prompt: Total,
    answer: Total,
}

/// The endpoints at the end of a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// `spec.replicas`.
    pub replicas: u32,
    /// Endpoints whose newest sample speaks for them.
    pub known: usize,
    /// Endpoints that should serve and could not be read.
    pub unknown: usize,
}

/// The traffic of a minute. `None` is unknown, not 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// When it began.
    pub at: Moment,
    /// How long it was; the first may be shorter than a minute.
    pub length: Duration,
    /// Requests that came in, 0 or more.
    pub arrivals: Option<f64>,
    /// Mean length of the prompts of the requests that were answered.
    pub prompt_tokens: Option<f64>,
    /// Mean length of their answers.
    pub generation_tokens: Option<f64>,
}

/// The families that a meter reads.
#[must_use]
pub fn wanted() -> [WantedMetric; 3] {
    let histogram = Shape::Histogram { buckets: false };
    [(SUCCESS, Shape::Value), (PROMPT, histogram), (ANSWER, histogram)]
        .map(|(name, shape)| WantedMetric { name: MetricName::known(name), shape })
}

impl TrafficMeter {
    /// A meter that begins at `now`.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        let names = Names {
            success: MetricName::known(SUCCESS),
            prompt: MetricName::known(PROMPT),
            answer: MetricName::known(ANSWER),
        };
        Self {
            began: now,
            minute_began: now,
            pods: HashMap::new(),
            minute: Sums::default(),
            gateway: None,
            owed: 0.0,
            names,
        }
    }

    /// Takes in a sample of an endpoint that was created at `created`.
    pub fn sampled(&mut self, uid: &PodUid, created: Moment, sample: &PodSample) {
        let Some(now) = self.names.counters(sample) else { return };
        let before = match self.pods.get_mut(uid) {
            Some(before) => std::mem::replace(before, now),
            None => {
                self.pods.insert(uid.clone(), now);
                // What an old endpoint counted before is of another time; all that a new one
                // has counted came since.
                if created >= self.began { Counters::default() } else { now }
            }
        };
        let restarted = now.succeeded < before.succeeded;
        let before = if restarted { Counters::default() } else { before };
        self.minute.samples += 1;
        self.minute.arrivals += now.succeeded - before.succeeded + now.held - before.held;
        self.minute.prompt.add(now.prompt, before.prompt);
        self.minute.answer.add(now.answer, before.answer);
    }

    /// Takes in how many requests the gateway holds; `None` where that is unknown.
    pub fn gateway(&mut self, held: Option<f64>) {
        if let (Some(now), Some(before)) = (held, self.gateway) {
            self.minute.arrivals += now - before;
        }
        self.gateway = held.or(self.gateway);
    }

    /// Ends the minute, and forgets the endpoints that are gone.
    pub fn end_minute(
        &mut self,
        now: Moment,
        reached: Reached,
        is_there: impl Fn(&PodUid) -> bool,
    ) -> Traffic {
        self.pods.retain(|uid, _| is_there(uid));
        let sums = std::mem::take(&mut self.minute);
        let at = std::mem::replace(&mut self.minute_began, now);
        // At zero replicas there is nobody to ask, and the gateway says what comes.
        let asleep = reached.replicas == 0 && reached.unknown == 0;
        let spoken_for = sums.samples > 0 && reached.unknown <= reached.known;
        let balance = sums.arrivals + self.owed;
        self.owed = balance.min(0.0);
        Traffic {
            at,
            length: now.saturating_since(at),
            arrivals: (asleep || spoken_for).then_some(balance.max(0.0)),
            prompt_tokens: sums.prompt.mean(),
            generation_tokens: sums.answer.mean(),
        }
    }
}

impl Names {
    /// `None` where the page does not tell.
    fn counters(&self, sample: &PodSample) -> Option<Counters> {
        let Reading::Value(succeeded) = sample.reading(&self.success)? else { return None };
        let held = sample.demand.running? + sample.demand.waiting?;
        let total = |name| match sample.reading(name) {
            Some(Reading::Histogram(read)) => {
                let Histogram { count, sum, .. } = read.total();
                Total { count, sum }
            }
            _ => Total::default(),
        };
        Some(Counters {
            succeeded: *succeeded,
            held,
            prompt: total(&self.prompt),
            answer: total(&self.answer),
        })
    }
}

impl Total {
    fn add(&mut self, now: Self, before: Self) {
        if now.count >= before.count && now.sum >= before.sum {
            self.count += now.count - before.count;
            self.sum += now.sum - before.sum;
        }
    }

    fn mean(self) -> Option<f64> {
        (self.count > 0.0).then_some(self.sum / self.count)
    }
}

/// A line of the record: one ScaledObject's minute.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordLine {
    pub namespace: Arc<str>,
    pub scaled_object: Arc<str>,
    pub traffic: Traffic,
    pub replicas: Option<u32>,
    /// What KEDA was answered at the minute's end, by metric; `None` where it got an error.
    pub values: Vec<(Arc<str>, Option<f64>)>,
}

impl RecordLine {
    /// Appends it as a line of JSON.
    pub fn write_to(&self, text: &mut String) {
        let Traffic { at, length, arrivals, prompt_tokens, generation_tokens } = self.traffic;
        let time =
            at.since_unix().try_into().ok().and_then(|since| jiff::Timestamp::from_duration(since).ok());
        let time = time.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ");
        let _ = write!(text, "{{\"time\":\"{time}\",\"target\":");
        push_string(text, &format!("{}/{}", self.namespace, self.scaled_object));
        let _ = write!(text, ",\"seconds\":{}", length.as_millis() as f64 / 1e3);
        let numbers = [
            ("arrivals", arrivals),
            ("promptTokens", prompt_tokens),
            ("generationTokens", generation_tokens),
        ];
        for (name, number) in numbers {
            let _ = write!(text, ",\"{name}\":");
            push_number(text, number);
        }
        text.push_str(",\"replicas\":");
        push_number(text, self.replicas.map(f64::from));
        text.push_str(",\"values\":[");
        for (index, (metric, value)) in self.values.iter().take(MOST_VALUES).enumerate() {
            text.push_str(if index > 0 { ",{\"metric\":" } else { "{\"metric\":" });
            push_string(text, metric);
            text.push_str(",\"value\":");
            push_number(text, *value);
            text.push('}');
        }
        text.push_str("]}\n");
    }
}

/// A number with at most three digits behind the point, or `null`.
fn push_number(text: &mut String, number: Option<f64>) {
    let _ = match number.filter(|number| number.is_finite()) {
        Some(number) => write!(text, "{}", (number * 1e3).round() / 1e3),
        None => write!(text, "null"),
    };
}

/// Text as JSON has it, cut where it is longer than any name.
fn push_string(text: &mut String, name: &str) {
    let cut: String = name.chars().take(LONGEST_NAME).collect();
    text.push_str(&serde_json::Value::String(cut).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::sample::PodDemand;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_764_064_980 + seconds))
    }

    fn sample(succeeded: f64, running: f64, waiting: f64) -> PodSample {
        let name = |name| MetricName::parse(name).unwrap();
        let histogram = |mean: f64| {
            let (count, sum) = (succeeded, succeeded * mean);
            Reading::Histogram(Histogram { count, sum, ..Histogram::default() }.into())
        };
        PodSample {
            readings: vec![
                (name(SUCCESS), Reading::Value(succeeded)),
                (name(PROMPT), histogram(1_000.0)),
                (name(ANSWER), histogram(200.0)),
            ],
            demand: PodDemand { running: Some(running), waiting: Some(waiting) },
            ..PodSample::default()
        }
    }

    const BOTH: Reached = Reached { replicas: 2, known: 2, unknown: 0 };

    fn uid(name: &str) -> PodUid {
        PodUid(name.into())
    }

    #[test]
    fn arrivals_are_what_was_answered_and_what_came_to_be_held() {
        let mut meter = TrafficMeter::new(at(0));
        // An old endpoint's past does not count, a new one's does.
        meter.sampled(&uid("old"), at(0) - Duration::from_secs(900), &sample(5_000.0, 7.0, 0.0));
        meter.sampled(&uid("old"), at(0) - Duration::from_secs(900), &sample(5_060.0, 9.0, 4.0));
        meter.sampled(&uid("new"), at(5), &sample(3.0, 2.0, 0.0));
        let traffic = meter.end_minute(at(60), BOTH, |_| true);
        assert_eq!((traffic.at, traffic.length), (at(0), Duration::from_secs(60)));
        assert_eq!(traffic.arrivals, Some(60.0 + 6.0 + 5.0));
        assert_eq!((traffic.prompt_tokens, traffic.generation_tokens), (Some(1_000.0), Some(200.0)));
    }

    #[test]
    fn a_restart_is_no_negative_traffic() {
        let mut meter = TrafficMeter::new(at(10));
        meter.sampled(&uid("a"), at(0), &sample(100.0, 5.0, 0.0));
        meter.sampled(&uid("a"), at(0), &sample(2.0, 1.0, 0.0));
        assert_eq!(meter.end_minute(at(60), BOTH, |_| true).arrivals, Some(3.0));
    }

    #[test]
    fn what_moves_from_the_gateway_to_an_endpoint_arrives_once() {
        let mut meter = TrafficMeter::new(at(0));
        let asleep = Reached { replicas: 0, known: 0, unknown: 0 };
        for held in [Some(0.0), Some(3.0), None, Some(5.0)] {
            meter.gateway(held);
        }
        assert_eq!(meter.end_minute(at(60), asleep, |_| true).arrivals, Some(5.0));
        // They leave it at the end of one minute and are seen again at the start of the next.
        meter.gateway(Some(0.0));
        assert_eq!(meter.end_minute(at(120), asleep, |_| true).arrivals, Some(0.0));
        meter.sampled(&uid("a"), at(30), &sample(0.0, 6.0, 0.0));
        let woken = Reached { replicas: 1, known: 1, unknown: 0 };
        assert_eq!(meter.end_minute(at(180), woken, |_| true).arrivals, Some(1.0));
    }

    #[test]
    fn what_could_not_be_read_is_unknown() {
        let mut meter = TrafficMeter::new(at(0));
        let mut silent = |reached| meter.end_minute(at(60), reached, |_| true).arrivals;
        assert_eq!(silent(Reached { replicas: 1, known: 0, unknown: 1 }), None);
        assert_eq!(silent(BOTH), None, "no sample has the families");
        assert_eq!(silent(Reached { replicas: 0, known: 0, unknown: 0 }), Some(0.0));
        meter.sampled(&uid("a"), at(0), &sample(5.0, 0.0, 0.0));
        let traffic = meter.end_minute(at(120), Reached { replicas: 3, known: 1, unknown: 2 }, |_| true);
        assert_eq!(traffic.arrivals, None);
        // A page without the counters does not speak, and does not forget what was counted.
        meter.sampled(&uid("a"), at(0), &PodSample::default());
        meter.sampled(&uid("a"), at(0), &sample(9.0, 0.0, 0.0));
        assert_eq!(meter.end_minute(at(180), BOTH, |_| true).arrivals, Some(4.0));
    }

    #[test]
    fn endpoints_that_are_gone_are_forgotten() {
        let mut meter = TrafficMeter::new(at(0));
        meter.sampled(&uid("a"), at(0), &sample(1.0, 0.0, 0.0));
        meter.end_minute(at(60), BOTH, |_| false);
        assert!(meter.pods.is_empty());
    }

    #[test]
    fn a_line_is_json_whatever_the_names_are() {
        let line = RecordLine {
            namespace: "team-a".into(),
            scaled_object: "phi-4".into(),
            traffic: Traffic {
                at: at(0),
                length: MINUTE,
                arrivals: Some(71.0),
                prompt_tokens: Some(1_155.123_456),
                generation_tokens: None,
            },
            replicas: Some(2),
            values: vec![("vllm:num_requests_waiting".into(), Some(12.0)), ("\"\n\u{1b}".into(), None)],
        };
        let mut text = String::new();
        line.write_to(&mut text);
        assert_eq!(
            text,
            "{\"time\":\"2025-11-25T10:03:00Z\",\"target\":\"team-a/phi-4\",\"seconds\":60,\"arrivals\":71,\
             \"promptTokens\":1155.123,\"generationTokens\":null,\"replicas\":2,\"values\":[{\"metric\":\
             \"vllm:num_requests_waiting\",\"value\":12},{\"metric\":\"\\\"\\n\\u001b\",\"value\":null}]}\n"
        );
        let many = RecordLine { values: vec![("x".repeat(10_000).into(), Some(1.0)); 10_000], ..line };
        text.clear();
        many.write_to(&mut text);
        assert!(
            text.len() < 6_000 && serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            "{}",
            text.len()
        );
    }
}
