//! What `run --record` writes: a JSON line for each target and minute.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    draw::Lengths,
    lines::{Line, Lines},
    log::{Findings, LogError},
    row::{BadLine, shown},
    window::{Window, Windows},
};

/// Targets that are named where one has to be chosen.
const NAMED: usize = 10;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Minute {
    time: Timestamp,
    target: String,
    seconds: f64,
    /// `null` where they were unknown: too many replicas could not be read.
    arrivals: Option<f64>,
    prompt_tokens: Option<f64>,
    generation_tokens: Option<f64>,
}

/// A reader of the minutes of one target.
#[derive(Debug)]
pub struct Record {
    lines: Lines,
    /// The first line, which was read to tell the format.
    first: Option<(u64, String)>,
    /// Whose minutes; that of the first line where nobody chose.
    target: Option<String>,
    chosen: bool,
    others: BTreeSet<String>,
    /// Start of the trace and the end of the window given last, in seconds since 1970.
    start: Option<f64>,
    until: f64,
    rate: f64,
    lengths: Option<(Lengths, Lengths)>,
    given: bool,
    ended: bool,
    unknown: u64,
    unmeasured: u64,
    findings: Findings,
}

impl Record {
    #[must_use]
    pub fn new(lines: Lines, first: Option<(u64, String)>, target: Option<String>) -> Self {
        Self {
            lines,
            first,
            chosen: target.is_some(),
            target,
            others: BTreeSet::new(),
            start: None,
            until: 0.0,
            rate: 0.0,
            lengths: None,
            given: false,
            ended: false,
            unknown: 0,
            unmeasured: 0,
            findings: Findings::default(),
        }
    }

    fn read(&mut self) -> Result<Option<Minute>, LogError> {
        loop {
            let (number, minute) = if let Some((number, text)) = self.first.take() {
                (number, parsed(&text))
            } else {
                match self.lines.next_line() {
                    Ok(Some(Line { number, text })) => (number, text.map_err(BadLine::from).and_then(parsed)),
                    Ok(None) => return Ok(None),
                    Err(source) => return Err(LogError::Read { line: self.lines.number() + 1, source }),
                }
            };
            self.findings.lines += 1;
            match minute {
                Ok(minute) => {
                    let target = self.target.get_or_insert_with(|| minute.target.clone());
                    if *target != minute.target {
                        if self.others.len() < NAMED {
                            self.others.insert(minute.target);
                        }
                        continue;
                    }
                    let at = seconds(minute.time);
                    if self.start.is_none() || at + 0.5 >= self.until {
                        return Ok(Some(minute));
                    }
                    self.findings.add_bad(number, BadLine::WindowBackwards);
                }
                Err(bad) => self.findings.add_bad(number, bad),
            }
            self.findings.judge(false)?;
        }
    }

    fn end(&mut self) -> Result<(), LogError> {
        self.ended = true;
        self.findings.judge(true)?;
        let target = self.target.as_deref().unwrap_or_default();
        let others = || self.others.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ");
        if !self.others.is_empty() && !self.chosen {
            let names = format!("{}, {}", shown(target), others());
            return Err(LogError::Content(format!(
                "holds several targets, of which --target chooses one: {names}"
            )));
        }
        if !self.given && !self.others.is_empty() {
            return Err(LogError::Content(format!("has no target {}; it has {}", shown(target), others())));
        }
        if !self.given {
            return Err(LogError::Empty);
        }
        if self.unknown > 0 {
            let note = "minutes of which the arrivals are not known were taken to be like the minute before";
            self.findings.notes.push(format!("{} {note}", self.unknown));
        }
        if self.unmeasured > 0 {
            let note = "minutes before the first finished request were left out: lengths are not known there";
            self.findings.notes.push(format!("{} {note}", self.unmeasured));
        }
        Ok(())
    }
}

fn parsed(text: &str) -> Result<Minute, BadLine> {
    let minute: Minute =
        serde_json::from_str(text).map_err(|error| BadLine::Record(shown(&error.to_string())))?;
    let numbers = [minute.arrivals, minute.prompt_tokens, minute.generation_tokens];
    let fine = |number: f64| (0.0..=1e12).contains(&number);
    let whole_day = 86_400.0;
    let length = minute.seconds > 0.0 && minute.seconds <= whole_day;
    if !length || !numbers.into_iter().flatten().all(fine) {
        return Err(BadLine::Record("a number is negative or too large".to_owned()));
    }
    Ok(minute)
}

fn seconds(time: Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}

impl Windows for Record {
    fn next_window(&mut self) -> Result<Option<Window>, LogError> {
        while !self.ended {
            let Some(minute) = self.read()? else {
                self.end()?;
                break;
            };
            let at = seconds(minute.time);
            if let (Some(prompt), Some(answer)) = (minute.prompt_tokens, minute.generation_tokens) {
                self.lengths = Some((Lengths::of_mean(prompt), Lengths::of_mean(answer)));
            }
            match minute.arrivals {
                Some(arrivals) => self.rate = arrivals / minute.seconds,
                None => self.unknown += 1,
            }
            if self.lengths.is_none() && self.rate > 0.0 {
                self.unmeasured += 1;
                continue;
            }
            let start = *self.start.get_or_insert(at);
            self.until = at + minute.seconds;
            self.given = true;
            return Ok(Some(Window {
                start: at - start,
                length: minute.seconds,
                rate: self.rate,
                cv: 1.0,
                lengths: self.lengths,
            }));
        }
        Ok(None)
    }

    fn findings(&self) -> &Findings {
        &self.findings
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::{super::format::Format, *};

    fn line(minute: u32, target: &str, arrivals: &str, lengths: &str) -> String {
        format!(
            "{{\"time\":\"2026-11-25T10:{minute:02}:00Z\",\"target\":\"{target}\",\"seconds\":60,\"arrivals\":{arrivals},\
             {lengths}\"replicas\":2,\"values\":[]}}\n"
        )
    }

    const KNOWN: &str = "\"promptTokens\":1155.5,\"generationTokens\":211,";
    const UNKNOWN: &str = "\"promptTokens\":null,\"generationTokens\":null,";

    fn record(text: String, target: Option<&str>) -> Record {
        Record::new(Lines::new(Box::new(Cursor::new(text))), None, target.map(str::to_owned))
    }

    fn all(record: &mut Record) -> Result<Vec<(f64, f64)>, LogError> {
        let mut windows = Vec::new();
        while let Some(window) = record.next_window()? {
            assert!(window.lengths.is_some() || window.rate == 0.0);
            windows.push((window.start, window.rate));
        }
        Ok(windows)
    }

    #[test]
    fn minutes_become_windows_and_what_is_unknown_is_not_zero() {
        let text = [
            line(0, "a/b", "60", UNKNOWN),
            line(1, "a/b", "120", KNOWN),
            line(2, "a/b", "null", UNKNOWN),
            line(5, "a/b", "0", UNKNOWN),
        ];
        let mut record = record(text.concat(), None);
        assert_eq!(all(&mut record).unwrap(), [(0.0, 2.0), (60.0, 2.0), (240.0, 0.0)]);
        assert_eq!(
            record.findings().sentences(),
            [
                "1 minutes of which the arrivals are not known were taken to be like the minute before",
                "1 minutes before the first finished request were left out: lengths are not known there"
            ]
        );
    }

    #[test]
    fn what_the_scaler_writes_is_what_is_read() {
        use scaler_core::{
            endpoint::traffic::{RecordLine, Traffic},
            time::Moment,
        };
        let mut text = String::new();
        for (minute, arrivals) in [(0, Some(120.0)), (1, None)] {
            let at = Moment::from_unix(std::time::Duration::from_secs(1_764_064_980 + minute * 60));
            let length = std::time::Duration::from_secs(60);
            let (prompt_tokens, generation_tokens) = (Some(1_155.0), Some(211.5));
            let line = RecordLine {
                namespace: "team-a".into(),
                scaled_object: "phi-4".into(),
                traffic: Traffic { at, length, arrivals, prompt_tokens, generation_tokens },
                replicas: Some(2),
                values: vec![("vllm:num_requests_waiting".into(), None)],
            };
            line.write_to(&mut text);
        }
        assert_eq!(Format::of_first_line(text.lines().next().unwrap()), Some(Format::Record));
        let mut record = record(text, Some("team-a/phi-4"));
        let first = record.next_window().unwrap().unwrap();
        assert_eq!((first.start, first.length, first.rate), (0.0, 60.0, 2.0));
        assert_eq!(first.lengths, Some((Lengths::of_mean(1_155.0), Lengths::of_mean(211.5))));
        assert_eq!(record.next_window().unwrap().map(|window| window.rate), Some(2.0));
    }

    #[test]
    fn of_several_targets_one_is_chosen() {
        let text = line(0, "a/b", "60", KNOWN) + &line(0, "a/\\u001bc", "30", KNOWN);
        let error = all(&mut record(text.clone(), None)).unwrap_err().to_string();
        assert_eq!(error, r"holds several targets, of which --target chooses one: a/b, a/\u{1b}c");
        assert_eq!(all(&mut record(text.clone(), Some("a/b"))).unwrap(), [(0.0, 1.0)]);
        let error = all(&mut record(text, Some("x/y"))).unwrap_err().to_string();
        assert_eq!(
            error,
            r"has no target x/y; it has a/b, a/\u{1b}c".replace("a/b, a/\\u{1b}c", "a/\\u{1b}c, a/b")
        );
    }

    #[test]
    fn bad_minutes_are_named() {
        let good: String = (0..59).map(|minute| line(minute, "a/b", "6", KNOWN)).collect();
        let error = all(&mut record(good + "{}\n", None)).unwrap_err().to_string();
        assert!(error.contains("line 60 is no line of `run --record`: missing field `time`"), "{error}");
        let error = all(&mut record(line(0, "a/b", "-6", KNOWN), None)).unwrap_err().to_string();
        assert!(error.contains("a number is negative or too large"), "{error}");
        assert!(matches!(all(&mut record(String::new(), None)), Err(LogError::Empty)));
    }
}
