//! A log of requests, line by line: sorted as far as bounded memory allows, its bad lines
//! passed over and counted.

use std::{cmp::Reverse, collections::BinaryHeap, io};

use super::{
    lines::{Line, Lines},
    row::{BadLine, Held, Layout, Row},
};

/// Requests that are held back so that those out of order can be sorted.
pub const SORTED: usize = 16_384;
/// Of this many lines one may be bad.
const GOOD_TO_BAD: u64 = 100;
/// Lines before it is judged, before the end, whether too many are bad.
const JUDGED_AFTER: u64 = 10_000;
/// Bad lines that are kept to be named.
const NAMED: usize = 5;

/// What was found in a trace besides its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Lines that should have been requests or windows.
    pub lines: u64,
    /// Those that could not be read, and the first of them.
    pub bad: u64,
    pub first_bad: Vec<(u64, BadLine)>,
    /// Requests without an answer (0 tokens): failed ones, in `BurstGPT`'s logs.
    pub unanswered: u64,
    /// Lines whose time was before that of the line before.
    pub backwards: u64,
    /// The first of them, and the furthest that one went back, in microseconds.
    pub first_backwards: Option<u64>,
    pub furthest_back: u64,
    /// Whatever else is worth a sentence.
    pub notes: Vec<String>,
}

impl Findings {
    /// Counts a bad line.
    pub fn add_bad(&mut self, number: u64, bad: BadLine) {
        self.bad += 1;
        if self.first_bad.len() < NAMED {
            self.first_bad.push((number, bad));
        }
    }

    /// Fails where more than 1 % of the lines so far, or at the end of all lines, are bad.
    pub fn judge(&self, at_end: bool) -> Result<(), LogError> {
        if (at_end || self.lines >= JUDGED_AFTER) && self.bad * GOOD_TO_BAD > self.lines {
            return Err(LogError::TooBad(Box::new(self.clone())));
        }
        Ok(())
    }

    /// What is worth saying before the trace is replayed, a sentence each.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut said: Vec<String> = self
            .first_bad
            .iter()
            .map(|(number, bad)| format!("line {number} {bad}; it was skipped"))
            .collect();
        let unnamed = self.bad - self.first_bad.len() as u64;
        if unnamed > 0 {
            said.push(format!(
                "{unnamed} more lines were skipped like these, {} of {} in all",
                self.bad, self.lines
            ));
        }
        if let Some(first) = self.first_backwards {
            said.push(format!(
                "{} of {} lines go back in time (the first is line {first}, the furthest goes back by {}): they were \
                 sorted",
                self.backwards,
                self.lines,
                duration(self.furthest_back)
            ));
        }
        if self.unanswered > 0 {
            said.push(format!("{} requests have an answer of 0 tokens, and were left out", self.unanswered));
        }
        said.extend(self.notes.iter().cloned());
        said
    }
}

/// Microseconds as a person writes them.
fn duration(us: u64) -> String {
    match us {
        0..1_000_000 => format!("{} ms", us as f64 / 1e3),
        1_000_000..600_000_000 => format!("{:.1} s", us as f64 / 1e6),
        600_000_000.. => format!("{:.0} min", us as f64 / 6e7),
    }
}

/// Why a log ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("failed to read line {line}")]
    Read { line: u64, source: io::Error },
    #[error("{} of {} lines can't be read, more than 1 %: {}", .0.bad, .0.lines, first_of(.0))]
    TooBad(Box<Findings>),
    #[error("has no request in it")]
    Empty,
    /// The content as a whole is not what its format says.
    #[error("{0}")]
    Content(String),
}

fn first_of(findings: &Findings) -> String {
    let named = findings.first_bad.iter().map(|(number, bad)| format!("line {number} {bad}"));
    named.collect::<Vec<_>>().join("; ")
}

/// A reader of rows in the order of their times, which start at 0.
#[derive(Debug)]
pub struct Log {
    lines: Lines,
    layout: Layout,
    /// A first line that was a request and not a header.
    first: Option<(u64, String)>,
    held: BinaryHeap<Reverse<Held>>,
    /// The time of the line read last, of the row given last, and of the first.
    read_last: u64,
    given_last: u64,
    start: Option<u64>,
    ended: bool,
    findings: Findings,
}

impl Log {
    /// A reader of what follows the first line, and of that line too where it is a request.
    #[must_use]
    pub fn new(lines: Lines, layout: Layout, first: Option<(u64, String)>) -> Self {
        Self {
            lines,
            layout,
            first,
            held: BinaryHeap::new(),
            read_last: 0,
            given_last: 0,
            start: None,
            ended: false,
            findings: Findings::default(),
        }
    }

    /// What was found so far.
    #[must_use]
    pub const fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The next row, its time counted from the first.
    pub fn next_row(&mut self) -> Result<Option<Row>, LogError> {
        while !self.ended && self.held.len() < SORTED {
            self.read_one()?;
        }
        let Some(Reverse(Held { mut row, .. })) = self.held.pop() else {
            return if self.start.is_none() { Err(LogError::Empty) } else { Ok(None) };
        };
        self.given_last = row.at;
        row.at -= *self.start.get_or_insert(row.at);
        Ok(Some(row))
    }

    fn read_one(&mut self) -> Result<(), LogError> {
        let (number, row) = if let Some((number, text)) = self.first.take() {
            (number, self.layout.row(&text))
        } else {
            match self.lines.next_line() {
                Ok(Some(Line { number, text })) => {
                    (number, text.map_err(BadLine::from).and_then(|text| self.layout.row(text)))
                }
                Ok(None) => {
                    self.ended = true;
                    return self.findings.judge(true);
                }
                Err(source) => return Err(LogError::Read { line: self.lines.number() + 1, source }),
            }
        };
        self.findings.lines += 1;
        match row {
            Ok(row) if row.answer == 0 => self.findings.unanswered += 1,
            Ok(row) if self.start.is_some() && row.at < self.given_last => {
                let back = BadLine::Backwards(duration(self.given_last - row.at));
                self.findings.add_bad(number, back);
            }
            Ok(row) => {
                if row.at < self.read_last {
                    self.findings.backwards += 1;
                    self.findings.first_backwards.get_or_insert(number);
                    self.findings.furthest_back = self.findings.furthest_back.max(self.read_last - row.at);
                }
                self.read_last = self.read_last.max(row.at);
                self.held.push(Reverse(Held { row, number }));
            }
            Err(bad) => self.findings.add_bad(number, bad),
        }
        self.findings.judge(false)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::{super::format::Format, *};

    fn log(text: String) -> Log {
        let layout = Layout::of(Format::Csv, "t,in,out").unwrap().unwrap().0;
        Log::new(Lines::new(Box::new(Cursor::new(text))), layout, None)
    }

    fn all(log: &mut Log) -> Result<Vec<(u64, u32)>, LogError> {
        let mut rows = Vec::new();
        while let Some(row) = log.next_row()? {
            rows.push((row.at, row.prompt));
        }
        Ok(rows)
    }

    fn good_lines(count: u32) -> String {
        (0..count).map(|second| format!("{second},1,1")).collect::<Vec<_>>().join("\n") + "\n"
    }

    #[test]
    fn times_start_at_the_first_request() {
        let mut log = log("100,1,1\n100.5,2,1\n".to_owned());
        assert_eq!(all(&mut log).unwrap(), [(0, 1), (500_000, 2)]);
        assert_eq!(log.findings().sentences(), [""; 0]);
    }

    #[test]
    fn what_goes_back_is_sorted_and_said() {
        let mut log = log("10,1,1\n12,2,1\n11,3,1\n9.5,4,1\n12,5,1\n".to_owned());
        let rows = all(&mut log).unwrap();
        assert_eq!(rows, [(0, 4), (500_000, 1), (1_500_000, 3), (2_500_000, 2), (2_500_000, 5)]);
        let said = "2 of 5 lines go back in time (the first is line 3, the furthest goes back by 2.5 s): they were sorted";
        assert_eq!(log.findings().sentences(), [said]);
    }

    #[test]
    fn what_goes_back_further_than_is_kept_is_bad() {
        let mut log = log(good_lines(40_000) + "5,1,1\n");
        assert_eq!(all(&mut log).unwrap().len(), 40_000);
        let said = "line 40001 goes back in time by 394 min, further than the lines that are kept for sorting; it was skipped";
        assert_eq!(log.findings().sentences(), [said]);
    }

    #[test]
    fn a_bad_line_is_named_and_skipped() {
        let mut log = log(good_lines(100) + "x,1,1\n");
        assert_eq!(all(&mut log).unwrap().len(), 100);
        let said =
            "line 101 has `x` as the time, where a number of seconds of 0 or more is allowed; it was skipped";
        assert_eq!(log.findings().sentences(), [said]);
    }

    #[test]
    fn more_than_one_percent_of_bad_lines_ends_it() {
        let mut few = log(good_lines(98) + "-1,1,1\n");
        let error = all(&mut few).unwrap_err().to_string();
        let named = "1 of 99 lines can't be read, more than 1 %: line 99 has `-1` as the time, where a number of seconds";
        assert!(error.starts_with(named), "{error}");
        // Long before the end of a long one.
        let mut many = log(good_lines(5_000) + &"x\n".repeat(5_000_000));
        assert!(matches!(all(&mut many), Err(LogError::TooBad(findings)) if findings.lines == 10_000));
    }

    #[test]
    fn failed_requests_are_left_out_and_said() {
        let mut log = log("1,5,0\n2,5,7\n".to_owned());
        assert_eq!(all(&mut log).unwrap(), [(0, 5)]);
        assert_eq!(log.findings().sentences(), ["1 requests have an answer of 0 tokens, and were left out"]);
    }

    #[test]
    fn an_empty_log_is_an_error() {
        assert!(matches!(all(&mut log(String::new())), Err(LogError::Empty)));
        assert!(matches!(all(&mut log("1,5,0\n".to_owned())), Err(LogError::Empty)));
    }
}
