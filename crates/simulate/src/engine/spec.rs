//! What a replica's hardware and settings allow.

use std::str::FromStr;

/// The cost model and the limits of one replica.
///
/// An engine step takes a, and c for each sequence in the batch, b for each prompt token that
/// is prefilled, d for each token of the batch's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSpec {
    /// a: a step with nothing in it, in nanoseconds.
    pub a_ns: u64,
    /// c: what each sequence of the batch adds to a step, in nanoseconds.
    pub c_ns: u64,
    /// b: what each prompt token that is computed in a step adds to it, in nanoseconds.
    pub b_ns: u64,
    /// d: what each token of the batch's context adds to a step, in picoseconds; 0 where a
    /// step's cost does not depend on the context.
    pub d_ps: u64,
    /// Tokens that the KV cache holds, at least 1.
    pub kv_tokens: u64,
    /// vLLM's `--max-num-seqs`, the largest batch; at least 1.
    pub max_seqs: u32,
    /// vLLM's `--max-num-batched-tokens`: tokens of one step, those of decodes first; at
    /// least 1.
    pub chunk: u32,
    /// KAITO answers 429 while more requests than this wait.
    pub max_waiting: u32,
}

impl EngineSpec {
    /// The spec of a step `a + c · batch + b · prompt tokens`, the three in milliseconds, with
    /// vLLM's usual limits: 256 sequences, 2,048 tokens a step, 429 above 256 waiting.
    #[must_use]
    pub const fn of_milliseconds(a: f64, c: f64, b: f64, kv_tokens: u64) -> Self {
        Self {
            a_ns: nanoseconds(a),
            c_ns: nanoseconds(c),
            b_ns: nanoseconds(b),
            d_ps: 0,
            kv_tokens,
            max_seqs: 256,
            chunk: 2048,
            max_waiting: 256,
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
const fn nanoseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e6 + 0.5) as u64
}

/// Why a text is no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineSpecError {
    /// A part is not `key=value`.
    #[error(
        "{0:?} is not key=value; an engine reads a=20ms,c=0.3ms,b=0.19ms,kv=187000[,seqs=256,chunk=2048,waiting=256,d=0ns]"
    )]
    NotKeyValue(String),
    /// A key that an engine does not have.
    #[error(
        "an engine has no {0:?}; it has a, b, c and d (times), kv, seqs, chunk and waiting (whole numbers)"
    )]
    UnknownKey(String),
    /// A value that its key does not allow.
    #[error("{key}={value:?}: {allowed}")]
    Value {
        /// Which key.
        key: String,
        /// What it held.
        value: String,
        /// What it may hold.
        allowed: &'static str,
    },
    /// A key without which there is no engine.
    #[error("an engine needs {0}=")]
    Missing(&'static str),
}

const A_TIME: &str = "a time of 0 to 10 s, as in 20ms, 300us or 60000ns";
const A_NUMBER: &str = "a whole number from 1 to 4,000,000,000";

impl FromStr for EngineSpec {
    type Err = EngineSpecError;

    fn from_str(text: &str) -> Result<Self, EngineSpecError> {
        let (mut a, mut b, mut c, mut kv) = (None, None, None, None);
        let mut spec = Self::of_milliseconds(0.0, 0.0, 0.0, 1);
        for part in text.split(',') {
            let Some((key, value)) = part.trim().split_once('=') else {
                return Err(EngineSpecError::NotKeyValue(part.to_owned()));
            };
            let wrong =
                |allowed| EngineSpecError::Value { key: key.to_owned(), value: value.to_owned(), allowed };
            let time = || picoseconds(value).ok_or_else(|| wrong(A_TIME));
            let number = || match value.parse::<u32>() {
                Ok(number @ 1..=4_000_000_000) => Ok(number),
                _ => Err(wrong(A_NUMBER)),
            };
            match key {
                "a" => a = Some(time()? / 1000),
                "b" => b = Some(time()? / 1000),
                "c" => c = Some(time()? / 1000),
                "d" => spec.d_ps = time()?,
                "kv" => kv = Some(u64::from(number()?)),
                "seqs" => {
                    spec.max_seqs = number()?;
                    spec.max_waiting = spec.max_seqs;
                }
                "chunk" => spec.chunk = number()?,
                "waiting" => spec.max_waiting = number()?,
                _ => return Err(EngineSpecError::UnknownKey(key.to_owned())),
            }
        }
        spec.a_ns = a.ok_or(EngineSpecError::Missing("a"))?;
        spec.b_ns = b.ok_or(EngineSpecError::Missing("b"))?;
        spec.c_ns = c.ok_or(EngineSpecError::Missing("c"))?;
        spec.kv_tokens = kv.ok_or(EngineSpecError::Missing("kv"))?;
        Ok(spec)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10 s in picoseconds")]
fn picoseconds(text: &str) -> Option<u64> {
    let units = [("ns", 1e3), ("us", 1e6), ("µs", 1e6), ("ms", 1e9), ("s", 1e12)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let time = number.parse::<f64>().ok()? * unit;
    (0.0..=1e13).contains(&time).then_some((time + 0.5) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_read_from_text() {
        let spec: EngineSpec =
            "a=20ms,c=0.3ms,b=190us,kv=187000,seqs=128,chunk=4096,d=0.5ns".parse().unwrap();
        let wanted = EngineSpec {
            a_ns: 20_000_000,
            c_ns: 300_000,
            b_ns: 190_000,
            d_ps: 500,
            kv_tokens: 187_000,
            max_seqs: 128,
            chunk: 4096,
            max_waiting: 128,
        };
        assert_eq!(spec, wanted);
    }

    #[test]
    fn what_is_no_engine_is_named() {
        let cases = [
            ("a=20ms", "needs b="),
            ("a", "not key=value"),
            ("a=20,b=1ms", "a=\"20\": a time of"),
            ("a=-1ms", "a time of"),
            ("kv=0", "kv=\"0\": a whole number"),
            ("q=1", "no \"q\""),
        ];
        for (text, message) in cases {
            let error = text.parse::<EngineSpec>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
