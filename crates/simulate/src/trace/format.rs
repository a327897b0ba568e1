//! The formats of traces, and how one is told from the first line of a file.

use std::fmt;

/// A format of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Azure's LLM inference traces of 2023 and 2024: `TIMESTAMP`, `ContextTokens`,
    /// `GeneratedTokens`.
    Azure,
    /// `BurstGPT`: Timestamp in seconds, Request tokens, Response tokens and more.
    BurstGpt,
    /// Mooncake's JSON lines: timestamp in milliseconds, `input_length`, `output_length`,
    /// `hash_ids` of 512-token blocks.
    Mooncake,
    /// Seconds, prompt tokens and answer tokens, with or without the header `t,in,out`.
    Csv,
    /// Windows with a rate of arrivals and the lengths' mean, median and 95th percentile.
    Rates,
    /// What Prometheus answers to `query_range` for vLLM's counters.
    Prometheus,
    /// What `run --record` writes: a JSON line for each target and minute.
    Record,
}

impl Format {
    pub const ALL: [Self; 7] =
        [Self::Azure, Self::BurstGpt, Self::Mooncake, Self::Csv, Self::Rates, Self::Prometheus, Self::Record];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Azure => "azure",
            Self::BurstGpt => "burstgpt",
            Self::Mooncake => "mooncake",
            Self::Csv => "csv",
            Self::Rates => "rates",
            Self::Prometheus => "prometheus",
            Self::Record => "record",
        }
    }

    /// What its first line looks like.
    #[must_use]
    pub const fn first_line(self) -> &'static str {
        match self {
            Self::Azure => "TIMESTAMP,ContextTokens,GeneratedTokens",
            Self::BurstGpt => "Timestamp,Model,Request tokens,Response tokens,…",
            Self::Mooncake => {
                r#"{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": […]}"#
            }
            Self::Csv => "t,in,out",
            Self::Rates => "t_s,rate_rps,…,in_mean,…,out_mean,…",
            Self::Prometheus => r#"{"status":"success","data":{"resultType":"matrix",…"#,
            Self::Record => r#"{"time":"2026-11-25T10:03:00Z","target":…,"arrivals":…"#,
        }
    }

    /// The format whose files begin with this line, if any does.
    #[must_use]
    pub fn of_first_line(line: &str) -> Option<Self> {
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.starts_with('{') {
            return if line.contains("\"input_length\"") {
                Some(Self::Mooncake)
            } else if line.contains("\"arrivals\"") {
                Some(Self::Record)
            } else if line.contains("\"status\"") || line.contains("\"resultType\"") {
                Some(Self::Prometheus)
            } else {
                None
            };
        }
        let names: Vec<String> = fields(line).map(str::to_ascii_lowercase).collect();
        let has = |wanted: &[&str]| wanted.iter().all(|name| names.iter().any(|own| own == name));
        if has(&["timestamp", "contexttokens", "generatedtokens"]) {
            Some(Self::Azure)
        } else if has(&["timestamp", "request tokens", "response tokens"]) {
            Some(Self::BurstGpt)
        } else if has(&["t_s", "rate_rps"]) {
            Some(Self::Rates)
        } else if has(&["t", "in", "out"]) || is_headless_csv(line) {
            Some(Self::Csv)
        } else {
            None
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is no format's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no format of a trace; there are azure, burstgpt, mooncake, csv, rates, prometheus and record", .0.escape_debug())]
pub struct UnknownFormat(pub String);

impl std::str::FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// The fields of a line of CSV, without blanks and quotation marks around them. None of the
/// formats has commas within a field.
pub fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|field| field.trim().trim_matches('"').trim())
}

/// Whether a line is three numbers: a trace without a header.
#[must_use]
pub fn is_headless_csv(line: &str) -> bool {
    let mut numbers = 0;
    for field in fields(line) {
        if field.parse::<f64>().is_err() {
            return false;
        }
        numbers += 1;
    }
    numbers == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_first_line() {
        for (line, format) in [
            ("TIMESTAMP,ContextTokens,GeneratedTokens", Some(Format::Azure)),
            ("\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens\r", Some(Format::Azure)),
            ("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type", Some(Format::BurstGpt)),
            (
                "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
                Some(Format::BurstGpt),
            ),
            (
                r#"{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [0]}"#,
                Some(Format::Mooncake),
            ),
            ("t,in,out", Some(Format::Csv)),
            ("in, out, t", Some(Format::Csv)),
            ("0.5,100,20", Some(Format::Csv)),
            ("t_s,rate_rps,cv_rate_weighted,clients,in_mean,in_p50,in_p95,out_mean", Some(Format::Rates)),
            (r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, Some(Format::Prometheus)),
            (r#"{"time":"2026-11-25T10:03:00Z","target":"a/b","arrivals":3}"#, Some(Format::Record)),
            ("0.5,100", None),
            ("time,requests", None),
            ("{}", None),
            ("", None),
        ] {
            assert_eq!(Format::of_first_line(line), format, "{line}");
        }
    }

    #[test]
    fn formats_have_the_names_that_the_command_line_takes() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        let error = "xml\n".parse::<Format>().unwrap_err().to_string();
        assert!(error.starts_with(r"`xml\n` is no format of a trace; there are azure, burstgpt"), "{error}");
    }
}
