//! More or less of a log of requests than there was: copies, or a share, of each.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::row::{Held, Row};
use crate::random::Random;

/// A copy arrives up to this much after its original, in microseconds: a burst of one second
/// stays a burst, and no two arrive together because they are copies.
const SPREAD_US: u32 = 10_000_000;

/// How much of a trace is replayed, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Requests for each request of the trace.
    scale: f64,
    /// Seconds for each second of the trace.
    stretch: f64,
}

/// The part of a trace that is replayed, in seconds of its own clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// What is left out at its start, 0 or more.
    pub skipped: f64,
    /// What is replayed from there, above 0; infinite for all of it.
    pub length: f64,
}

impl Default for Part {
    fn default() -> Self {
        Self { skipped: 0.0, length: f64::INFINITY }
    }
}

impl Part {
    /// The part of a span of time that lies within, counted from where it begins; `None` where
    /// nothing does.
    #[must_use]
    pub fn within(self, start: f64, length: f64) -> Option<(f64, f64)> {
        let from = (start - self.skipped).max(0.0);
        let until = (start + length - self.skipped).min(self.length);
        (until > from).then_some((from, until - from))
    }
}

/// A factor that nothing can be multiplied by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} is `{found}`, where a number above 0 and at most {most} is allowed")]
pub struct BadFactor {
    flag: &'static str,
    found: String,
    most: u32,
}

impl Default for Scaling {
    fn default() -> Self {
        Self { scale: 1.0, stretch: 1.0 }
    }
}

impl Scaling {
    /// Of `--scale` and `--stretch`.
    pub fn of(scale: f64, stretch: f64) -> Result<Self, BadFactor> {
        for (flag, factor, most) in [("--scale", scale, 10_000), ("--stretch", stretch, 1_000_000)] {
            if !(factor > 0.0 && factor <= f64::from(most)) {
                return Err(BadFactor { flag, found: factor.to_string(), most });
            }
        }
        Ok(Self { scale, stretch })
    }

    #[must_use]
    pub const fn scale(self) -> f64 {
        self.scale
    }

    #[must_use]
    pub const fn stretch(self) -> f64 {
        self.stretch
    }

    fn stretched(self, us: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, 0 or more")]
        let stretched = (us as f64 * self.stretch + 0.5) as u64;
        if self.stretch == 1.0 { us } else { stretched }
    }
}

/// Repeats or drops rows as a [`Scaling`] says, in the order of their times.
#[derive(Debug)]
pub struct Scaler {
    scaling: Scaling,
    random: Random,
    /// Copies that are still to come.
    later: BinaryHeap<Reverse<Held>>,
    numbered: u64,
}

impl Scaler {
    #[must_use]
    pub fn new(scaling: Scaling, seed: u64) -> Self {
        Self { scaling, random: Random::stream(seed, 0x5C), later: BinaryHeap::new(), numbered: 0 }
    }

    /// Takes a row in.
    pub fn take(&mut self, row: &Row) {
        let whole = self.scaling.scale.floor();
        let one_more = self.random.unit() < self.scaling.scale - whole;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 10,000")]
        let copies = whole as u64 + u64::from(one_more);
        let at = self.scaling.stretched(row.at);
        for copy in 0..copies {
            let delay = if copy == 0 { 0 } else { u64::from(self.random.below(SPREAD_US)) };
            // A copy is another client's request: it shares no prefix with the original's.
            let blocks = row.blocks.iter().map(|block| block.wrapping_add(copy << 48)).collect();
            let row = Row { at: at + delay, prompt: row.prompt, answer: row.answer, blocks };
            self.later.push(Reverse(Held { row, number: self.numbered }));
            self.numbered += 1;
        }
    }

    /// The next row that no later row can precede: one up to the time of the row taken last,
    /// or any at the end.
    pub fn give(&mut self, taken_last: u64, at_end: bool) -> Option<Row> {
        let Reverse(next) = self.later.peek()?;
        if !at_end && next.row.at > self.scaling.stretched(taken_last) {
            return None;
        }
        self.later.pop().map(|Reverse(held)| held.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(scale: f64, stretch: f64, rows: &[Row]) -> Vec<Row> {
        let mut scaler = Scaler::new(Scaling::of(scale, stretch).unwrap(), 1);
        let mut given = Vec::new();
        for row in rows {
            scaler.take(row);
            while let Some(row) = scaler.give(row.at, false) {
                given.push(row);
            }
        }
        while let Some(row) = scaler.give(0, true) {
            given.push(row);
        }
        given
    }

    fn rows(count: u32) -> Vec<Row> {
        let row = |second: u32| Row {
            at: u64::from(second) * 1_000_000,
            prompt: second,
            answer: 1,
            blocks: vec![7],
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn a_scale_of_one_changes_nothing() {
        assert_eq!(scaled(1.0, 1.0, &rows(50)), rows(50));
    }

    #[test]
    fn more_are_copies_that_come_soon_after_and_share_no_prefix() {
        let given = scaled(2.5, 1.0, &rows(1_000));
        assert!((2_430..2_570).contains(&given.len()), "{}", given.len());
        assert!(given.is_sorted_by_key(|row| row.at));
        let originals: Vec<&Row> = given.iter().filter(|row| row.blocks == [7]).collect();
        assert!(originals.iter().copied().eq(&rows(1_000)));
        assert!(given.iter().all(|row| row.at - u64::from(row.prompt) * 1_000_000 < u64::from(SPREAD_US)));
    }

    #[test]
    fn fewer_are_a_share_and_stretched_is_slower() {
        let given = scaled(0.25, 2.0, &rows(1_000));
        assert!((200..300).contains(&given.len()), "{}", given.len());
        assert!(given.iter().all(|row| row.at == u64::from(row.prompt) * 2_000_000));
    }

    #[test]
    fn factors_that_are_none_are_named() {
        for (scale, stretch, message) in [
            (0.0, 1.0, "--scale is `0`, where a number above 0 and at most 10000 is allowed"),
            (f64::NAN, 1.0, "--scale is `NaN`, where a number above 0 and at most 10000 is allowed"),
            (1.0, -2.0, "--stretch is `-2`, where a number above 0 and at most 1000000 is allowed"),
        ] {
            assert_eq!(Scaling::of(scale, stretch).unwrap_err().to_string(), message);
        }
    }
}
