//! A line of a log of requests → one request, or what is wrong with the line.

use std::cmp::Ordering;

use jiff::{Timestamp, civil::DateTime};
use serde::Deserialize;

use super::{
    format::{Format, fields, is_headless_csv},
    lines::Unreadable,
};

/// The most tokens that a prompt or an answer may have.
pub const MOST_TOKENS: u32 = 10_000_000;
/// The latest time of a relative clock: a hundred years, in seconds.
const LATEST: f64 = 3.2e9;

/// One request as a line of a trace has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it arrived, in microseconds by the trace's own clock.
    pub at: u64,
    pub prompt: u32,
    pub answer: u32,
    /// Its prompt's blocks, named so that equal names in equal places are equal prefixes.
    pub blocks: Vec<u64>,
}

/// A row by its time, and by its number where times are equal.
#[derive(Debug)]
pub struct Held {
    pub row: Row,
    /// Of its line, or of the copy.
    pub number: u64,
}

impl Held {
    const fn key(&self) -> (u64, u64) {
        (self.row.at, self.number)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("has no field {0}")]
    Missing(String),
    #[error("has `{found}` as {field}, where {allowed} is allowed")]
    Field { field: &'static str, found: String, allowed: &'static str },
    #[error("is not a JSON object with timestamp, input_length and output_length: {0}")]
    Json(String),
    #[error("goes back in time by {0}, further than the lines that are kept for sorting")]
    Backwards(String),
    #[error("is no line of `run --record`: {0}")]
    Record(String),
    #[error("starts before the line before it")]
    WindowBackwards,
}

/// A header that lacks a column of its format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the first line has no column {column}, which a trace of the format {format} has: {}", .format.first_line())]
pub struct MissingColumn {
    pub format: Format,
    pub column: &'static str,
}

/// How the lines of one log are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Comma separated: where the columns are, and what the time is.
    Columns {
        time: usize,
        prompt: usize,
        answer: usize,
        clock: Clock,
    },
    MooncakeJson,
}

/// What a time of a trace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Seconds from a start.
    Seconds,
    /// A date and a time of day.
    Date,
}

impl Layout {
    /// The layout of a log of requests that begins with `line`, and whether that line is a
    /// header rather than a request; `None` for formats that are no logs of requests.
    pub fn of(format: Format, line: &str) -> Result<Option<(Self, bool)>, MissingColumn> {
        let (columns, clock) = match format {
            Format::Azure => (["TIMESTAMP", "ContextTokens", "GeneratedTokens"], Clock::Date),
            Format::BurstGpt => (["Timestamp", "Request tokens", "Response tokens"], Clock::Seconds),
            Format::Csv if is_headless_csv(line) => {
                let layout = Self::Columns { time: 0, prompt: 1, answer: 2, clock: Clock::Seconds };
                return Ok(Some((layout, false)));
            }
            Format::Csv => (["t", "in", "out"], Clock::Seconds),
            Format::Mooncake => return Ok(Some((Self::MooncakeJson, false))),
            Format::Rates | Format::Prometheus | Format::Record => return Ok(None),
        };
        let line = line.trim_start_matches('\u{feff}');
        let place = |column: &'static str| {
            let place = fields(line).position(|name| name.eq_ignore_ascii_case(column));
            place.ok_or(MissingColumn { format, column })
        };
        let [time, prompt, answer] = columns;
        Ok(Some((
            Self::Columns { time: place(time)?, prompt: place(prompt)?, answer: place(answer)?, clock },
            true,
        )))
    }

    /// Reads one line.
    pub fn row(&self, line: &str) -> Result<Row, BadLine> {
        match self {
            Self::Columns { time, prompt, answer, clock } => {
                let (mut at, mut tokens) = (None, [None; 2]);
                for (index, field) in fields(line).enumerate() {
                    if index == *time {
                        at = Some(field);
                    } else if index == *prompt {
                        tokens[0] = Some(field);
                    } else if index == *answer {
                        tokens[1] = Some(field);
                    }
                }
                let missing = |what: &str, place: usize| BadLine::Missing(format!("{} ({what})", place + 1));
                let at = at.ok_or_else(|| missing("the time", *time))?;
                let [in_tokens, out_tokens] = tokens;
                Ok(Row {
                    at: match clock {
                        Clock::Seconds => seconds(at)?,
                        Clock::Date => date(at)?,
                    },
                    prompt: count(
                        "the prompt's tokens",
                        in_tokens.ok_or_else(|| missing("the prompt's tokens", *prompt))?,
                    )?,
                    answer: count(
                        "the answer's tokens",
                        out_tokens.ok_or_else(|| missing("the answer's tokens", *answer))?,
                    )?,
                    blocks: Vec::new(),
                })
            }
            Self::MooncakeJson => mooncake(line),
        }
    }
}

/// Text from a trace as a message shows it: short, and without control characters.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}

fn count(field: &'static str, text: &str) -> Result<u32, BadLine> {
    let whole = text.parse::<u32>().ok().or_else(|| {
        // BurstGPT's files were written from floats: `472.0`.
        let number = text.parse::<f64>().ok()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..=MOST_TOKENS")]
        let whole = (number.fract() == 0.0 && (0.0..=f64::from(MOST_TOKENS)).contains(&number))
            .then_some(number as u32);
        whole
    });
    whole.filter(|count| *count <= MOST_TOKENS).ok_or_else(|| BadLine::Field {
        field,
        found: shown(text),
        allowed: "a whole number from 0 to 10,000,000",
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to LATEST seconds")]
fn microseconds(seconds: f64) -> u64 {
    (seconds * 1e6 + 0.5) as u64
}

fn seconds(text: &str) -> Result<u64, BadLine> {
    let parsed = text.parse::<f64>().ok().filter(|seconds| (0.0..=LATEST).contains(seconds));
    parsed.map(microseconds).ok_or_else(|| BadLine::Field {
        field: "the time",
        found: shown(text),
        allowed: "a number of seconds of 0 or more",
    })
}

/// `2023-11-16 18:15:46.6805900`, or with an offset: `2024-05-10 00:00:00.009930+00:00`.
fn date(text: &str) -> Result<u64, BadLine> {
    let with_offset = || text.parse::<Timestamp>().ok();
    let without =
        || text.parse::<DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|at| at.timestamp());
    let at = with_offset().or_else(without).and_then(|at| u64::try_from(at.as_microsecond()).ok());
    at.ok_or_else(|| BadLine::Field {
        field: "the time",
        found: shown(text),
        allowed: "a date and time such as 2023-11-16 18:15:46.68",
    })
}

#[derive(Deserialize)]
struct MooncakeLine {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

fn mooncake(line: &str) -> Result<Row, BadLine> {
    let parsed: MooncakeLine =
        serde_json::from_str(line).map_err(|error| BadLine::Json(shown(&error.to_string())))?;
    let MooncakeLine { timestamp, input_length: prompt, output_length: answer, hash_ids: blocks } = parsed;
    if !(0.0..=LATEST * 1e3).contains(&timestamp) {
        return Err(BadLine::Field {
            field: "the timestamp",
            found: timestamp.to_string(),
            allowed: "a number of milliseconds of 0 or more",
        });
    }
    if prompt.max(answer) > MOST_TOKENS {
        return Err(BadLine::Field {
            field: "a length",
            found: prompt.max(answer).to_string(),
            allowed: "a whole number from 0 to 10,000,000",
        });
    }
    Ok(Row { at: microseconds(timestamp / 1e3), prompt, answer, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(format: Format, header: &str) -> Layout {
        Layout::of(format, header).unwrap().unwrap().0
    }

    fn row(at: u64, prompt: u32, answer: u32) -> Row {
        Row { at, prompt, answer, blocks: Vec::new() }
    }

    const SECOND: u64 = 1_000_000;

    #[test]
    fn each_format_has_its_columns_and_its_clock() {
        let azure = layout(Format::Azure, Format::Azure.first_line());
        let at = 1_700_158_546 * SECOND + 680_590;
        assert_eq!(azure.row("2023-11-16 18:15:46.6805900,374,44"), Ok(row(at, 374, 44)));
        assert_eq!(azure.row("2023-11-16 18:15:46.680590+00:00,374,44"), Ok(row(at, 374, 44)), "as in 2024");
        let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type";
        let burst = layout(Format::BurstGpt, burst);
        assert_eq!(burst.row("5,ChatGPT,472,18,490,Conversation log"), Ok(row(5 * SECOND, 472, 18)));
        let sessions =
            "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type";
        let sessions = layout(Format::BurstGpt, sessions);
        assert_eq!(sessions.row("5.25,,1.5,GPT-4,472.0,18,490,API log"), Ok(row(5_250_000, 472, 18)));
        let plain = layout(Format::Csv, "out, in, \"t\"");
        assert_eq!(plain.row("20,100,\"0.5\""), Ok(row(SECOND / 2, 100, 20)));
        assert_eq!(Layout::of(Format::Csv, "0.5,100,20").unwrap().map(|(_, header)| header), Some(false));
        let mooncake = layout(Format::Mooncake, "");
        let line = r#"{"timestamp": 1500, "input_length": 600, "output_length": 5, "hash_ids": [0, 7]}"#;
        assert_eq!(mooncake.row(line), Ok(Row { blocks: vec![0, 7], ..row(3 * SECOND / 2, 600, 5) }));
        assert_eq!(Layout::of(Format::Rates, "t_s,rate_rps"), Ok(None));
    }

    #[test]
    fn a_bad_line_says_what_it_holds_and_what_is_allowed() {
        let plain = layout(Format::Csv, "t,in,out");
        let azure = layout(Format::Azure, Format::Azure.first_line());
        let mooncake = layout(Format::Mooncake, "");
        for (layout, line, message) in [
            (&plain, "-1,5,5", "has `-1` as the time, where a number of seconds of 0 or more is allowed"),
            (&plain, "NaN,5,5", "has `NaN` as the time, where a number of seconds of 0 or more is allowed"),
            (
                &plain,
                "1e300,5,5",
                "has `1e300` as the time, where a number of seconds of 0 or more is allowed",
            ),
            (&plain, "1,5", "has no field 3 (the answer's tokens)"),
            (
                &plain,
                "1,many,5",
                "has `many` as the prompt's tokens, where a whole number from 0 to 10,000,000 is allowed",
            ),
            (
                &plain,
                "1,5,1.5",
                "has `1.5` as the answer's tokens, where a whole number from 0 to 10,000,000 is allowed",
            ),
            (
                &plain,
                "1,5,4294967296",
                "has `4294967296` as the answer's tokens, where a whole number from 0 to 10,000,000 is allowed",
            ),
            (
                &azure,
                "yesterday,1,1",
                "has `yesterday` as the time, where a date and time such as 2023-11-16 18:15:46.68 is allowed",
            ),
            (
                &azure,
                "\u{1b}[31m,1,1",
                r"has `\u{1b}[31m` as the time, where a date and time such as 2023-11-16 18:15:46.68 is allowed",
            ),
            (
                &mooncake,
                r#"{"timestamp": -3, "input_length": 1, "output_length": 1}"#,
                "has `-3` as the timestamp, where a number of milliseconds of 0 or more is allowed",
            ),
        ] {
            assert_eq!(layout.row(line).unwrap_err().to_string(), message);
        }
        let error = mooncake.row("{\"timestamp\": 0}").unwrap_err().to_string();
        assert!(
            error.starts_with("is not a JSON object with timestamp") && error.contains("input_length"),
            "{error}"
        );
        let long = plain.row(&format!("{},1,1", "x".repeat(10_000))).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn a_header_without_a_column_names_it() {
        let error = Layout::of(Format::Azure, "TIMESTAMP,ContextTokens").unwrap_err().to_string();
        assert_eq!(
            error,
            "the first line has no column GeneratedTokens, which a trace of the format azure has: \
             TIMESTAMP,ContextTokens,GeneratedTokens"
        );
    }
}
