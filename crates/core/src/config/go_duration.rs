//! Durations as Go writes them: `3s`, `1m30s`, `500ms`, `1.5h`.
//!
//! ```text
//! duration = "0" | 1*( number unit )
//! number   = digits [ "." [ digits ] ] | "." digits
//! unit     = "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h"
//! ```
//! The grammar is that of Go's `time.ParseDuration` without its sign: nothing here lasts for
//! less than no time. What is finer than a nanosecond is cut off, as Go does.

use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Go counts a duration in signed 64-bit nanoseconds: about 292 years.
const LONGEST_NANOS: u64 = i64::MAX.unsigned_abs();

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoDurationError {
    #[error("a duration is a number with a unit (ns, us, ms, s, m, h), such as 500ms, 3s or 1m30s")]
    Malformed,
    #[error("a duration can't be negative")]
    Negative,
    #[error("a duration can't be longer than 292 years")]
    TooLong,
}

/// Reads `text` as Go's `time.ParseDuration` does.
pub fn parse(text: &str) -> Result<Duration, GoDurationError> {
    if text.starts_with('-') {
        return Err(GoDurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(GoDurationError::Malformed);
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let (term, after) = term(rest)?;
        nanos = nanos
            .checked_add(term)
            .filter(|&nanos| nanos <= LONGEST_NANOS)
            .ok_or(GoDurationError::TooLong)?;
        rest = after;
    }
    Ok(Duration::from_nanos(nanos))
}

/// One number with its unit, in nanoseconds, and what follows it.
fn term(text: &str) -> Result<(u64, &str), GoDurationError> {
    let (whole, after) = digits(text);
    let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(GoDurationError::Malformed);
    }
    let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let (unit, after) = after.split_at(end);
    let nanos_per_unit: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3_600 * NANOS_PER_SECOND,
        _ => return Err(GoDurationError::Malformed),
    };
    let whole = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| GoDurationError::TooLong)? };
    let nanos = nanos_per_unit
        .checked_mul(whole)
        .and_then(|nanos| nanos.checked_add(fraction_of(nanos_per_unit, fraction)))
        .ok_or(GoDurationError::TooLong)?;
    Ok((nanos, after))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `unit` × 0.`digits`, cut off.
fn fraction_of(unit: u64, digits: &str) -> u64 {
    // Digit by digit from the left the remainder would have to be kept exactly; as one
    // fraction it fits: 15 digits times an hour's nanoseconds stay below 2^128, and a
    // sixteenth digit is worth less than a nanosecond.
    let (mut numerator, mut denominator) = (0_u128, 1_u128);
    for digit in digits.bytes().take(15) {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    u64::try_from(u128::from(unit) * numerator / denominator).unwrap_or(u64::MAX)
}

/// Writes `duration` in the shortest form that [`parse`] reads back: `1h30m`, `1.5s`, `500ms`.
///
/// Unlike Go's `String` it leaves zero parts out (`5m`, not `5m0s`).
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    let seconds = duration.as_secs();
    if seconds == 0 && nanos > 0 {
        let (per_unit, unit) = match nanos {
            1_000_000.. => (1_000_000, "ms"),
            1_000.. => (1_000, "us"),
            _ => (1, "ns"),
        };
        return format!("{}{unit}", decimal(u64::from(nanos), per_unit));
    }
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let part = |count: u64, unit: &str| if count > 0 { format!("{count}{unit}") } else { String::new() };
    let mut text = part(hours, "h") + &part(minutes, "m");
    if seconds > 0 || nanos > 0 || text.is_empty() {
        text += &decimal(seconds * NANOS_PER_SECOND + u64::from(nanos), NANOS_PER_SECOND);
        text.push('s');
    }
    text
}

/// `value` ÷ `per_unit` (a power of ten) without trailing zeros.
fn decimal(value: u64, per_unit: u64) -> String {
    let width = per_unit.ilog10() as usize;
    let text = format!("{}.{:0width$}", value / per_unit, value % per_unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("+5s", 5_000_000_000),
            ("3s", 3_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            ("43800h", 43_800 * 3_600 * 1_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("2us", 2_000),
            ("2µs", 2_000),
            ("2μs", 2_000),
            ("7ns", 7),
            ("1.9ns", 1),
            ("1h1h", 7_200_000_000_000),
            ("0.000000000000000000001h", 0),
            ("0.33333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        use GoDurationError::{Malformed, Negative, TooLong};
        for (text, error) in [
            ("", Malformed),
            ("+", Malformed),
            ("3", Malformed),
            ("3 s", Malformed),
            ("s", Malformed),
            (".s", Malformed),
            ("1.2.3s", Malformed),
            ("1d", Malformed),
            ("1S", Malformed),
            ("1m 30s", Malformed),
            ("five seconds", Malformed),
            ("-3s", Negative),
            ("9223372036854775808ns", TooLong),
            ("2562048h", TooLong),
            ("99999999999999999999h", TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn writes_the_shortest_form() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5us"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m"),
            (3_600_000_000_000, "1h"),
            (3_600_000_000_001, "1h0.000000001s"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(nanos in 0..=LONGEST_NANOS) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn never_panics(text in "[-+.0-9nuµmsh]{0,24}|\\PC{0,24}") {
            let _ = parse(&text);
        }
    }
}
