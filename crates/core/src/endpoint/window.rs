//! What a cumulative counter or histogram did over the last while, for one endpoint.
//!
//! Deltas are taken per endpoint and only then added up: a difference of totals over a
//! changing set of pods would read a removed pod as work undone.

use std::{collections::VecDeque, time::Duration};

use crate::{page::sample::Histogram, time::Moment};

/// Slots that a window's span is divided into. The window's start is known to 1/32 of its
/// span, and its memory does not depend on the scrape interval.
const SLOTS: u32 = 32;

/// Share of the span that a window must cover before it no longer counts as warming up.
const WARM_SHARE: f64 = 0.8;

/// A sliding window over one endpoint's histogram (or counter: a histogram without buckets
/// whose `count` is the counter).
#[derive(Clone, Debug)]
pub struct Window {
    span: Duration,
    /// Oldest first; each holds the cumulative value at the slot's last sample, corrected
    /// for resets, so that it never falls.
    slots: VecDeque<(Moment, Histogram)>,
    /// What was counted before the last reset.
    base: Histogram,
    last_raw: Histogram,
}

/// What a window saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Observations, their sum and the buckets over the time covered. The buckets are
    /// cumulative over bounds, as on a page.
    pub increase: Histogram,
    /// The time between the two samples that were compared, above zero.
    pub covered: Duration,
    /// Less than 80% of the span is covered yet.
    pub warming_up: bool,
}

impl Window {
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self { span, slots: VecDeque::new(), base: Histogram::default(), last_raw: Histogram::default() }
    }

    #[must_use]
    pub fn span(&self) -> Duration {
        self.span
    }

    /// Takes in the cumulative value `raw` as read at `at`. Samples must come in order; one
    /// that is not newer than the last is dropped.
    pub fn push(&mut self, at: Moment, raw: &Histogram) {
        if self.slots.back().is_some_and(|(last, _)| *last >= at) {
            return;
        }
        if is_reset(&self.last_raw, raw) {
            self.base = plus(&self.base, &self.last_raw);
        }
        self.last_raw.clone_from(raw);
        let corrected = plus(&self.base, raw);

        // The newest slot moves along with the newest sample until it is one slot's width
        // past the one before it; so the newest sample is always there.
        let width = self.span / SLOTS;
        let slots = self.slots.len();
        let replaces_newest =
            slots >= 2 && self.slots[slots - 1].0.saturating_since(self.slots[slots - 2].0) < width;
        if replaces_newest {
            self.slots.pop_back();
        }
        self.slots.push_back((at, corrected));
        while self.slots.len() > 2 && at.saturating_since(self.slots[0].0) > self.span {
            self.slots.pop_front();
        }
        // Two samples further apart than the span say nothing about the span.
        if self.slots.len() == 2 && at.saturating_since(self.slots[0].0) > self.span * 2 {
            self.slots.pop_front();
        }
    }

    /// The change over the window, or `None` before there are two samples.
    #[must_use]
    pub fn delta(&self) -> Option<Delta> {
        let (from, oldest) = self.slots.front()?;
        let (to, newest) = self.slots.back()?;
        if self.slots.len() < 2 {
            return None;
        }
        let covered = to.saturating_since(*from);
        Some(Delta {
            increase: minus(newest, oldest),
            covered,
            warming_up: covered.as_secs_f64() < self.span.as_secs_f64() * WARM_SHARE,
        })
    }
}

/// A cumulative value that falls means that the server started anew.
fn is_reset(before: &Histogram, now: &Histogram) -> bool {
    now.count < before.count || now.sum < before.sum
}

fn plus(a: &Histogram, b: &Histogram) -> Histogram {
    combine(a, b, |x, y| x + y)
}

fn minus(a: &Histogram, b: &Histogram) -> Histogram {
    combine(a, b, |x, y| (x - y).max(0.0))
}

/// Combines two histograms bound by bound. Where the bounds differ (a server restarted as
/// another version) the right side's buckets are left out: `count` and `sum` still hold.
fn combine(a: &Histogram, b: &Histogram, op: impl Fn(f64, f64) -> f64) -> Histogram {
    let buckets = if a.buckets.is_empty() {
        b.buckets.iter().map(|&(le, n)| (le, op(0.0, n))).collect()
    } else if same_bounds(a, b) {
        a.buckets.iter().zip(&b.buckets).map(|(&(le, x), &(_, y))| (le, op(x, y))).collect()
    } else {
        a.buckets.clone()
    };
    Histogram { count: op(a.count, b.count), sum: op(a.sum, b.sum), buckets }
}

fn same_bounds(a: &Histogram, b: &Histogram) -> bool {
    a.buckets.len() == b.buckets.len()
        && a.buckets.iter().zip(&b.buckets).all(|(x, y)| x.0.total_cmp(&y.0).is_eq())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_000 + seconds))
    }

    fn counted(count: f64, sum: f64) -> Histogram {
        Histogram { count, sum, buckets: vec![] }
    }

    fn window(span: u64, samples: &[(u64, f64, f64)]) -> Window {
        let mut window = Window::new(Duration::from_secs(span));
        for &(when, count, sum) in samples {
            window.push(at(when), &counted(count, sum));
        }
        window
    }

    #[test]
    fn one_sample_is_no_delta() {
        assert_eq!(window(60, &[]).delta(), None);
        assert_eq!(window(60, &[(0, 5.0, 5.0)]).delta(), None);
    }

    #[test]
    fn two_samples_answer_and_say_that_they_warm_up() {
        let delta = window(60, &[(0, 5.0, 10.0), (1, 8.0, 25.0)]).delta().unwrap();
        assert_eq!(delta.increase, counted(3.0, 15.0));
        assert!(delta.warming_up);
        assert_eq!(delta.covered, Duration::from_secs(1));
    }

    #[test]
    fn a_full_window_forgets_what_is_older_than_its_span() {
        let samples: Vec<_> = (0..200).map(|s: u32| (u64::from(s), f64::from(s), f64::from(2 * s))).collect();
        let delta = window(60, &samples).delta().unwrap();
        assert!(!delta.warming_up);
        let covered = delta.covered.as_secs_f64();
        assert!((57.0..=60.0).contains(&covered), "{covered}");
        assert!((delta.increase.count - covered).abs() < 1e-9);
    }

    #[test]
    fn a_reset_is_no_negative_work() {
        // 10 → 14, restart, 0 → 3: four and three more.
        let delta = window(60, &[(0, 10.0, 10.0), (1, 14.0, 14.0), (2, 0.0, 0.0), (3, 3.0, 3.0)]).delta();
        assert_eq!(delta.unwrap().increase, counted(7.0, 7.0));
    }

    #[test]
    fn samples_out_of_order_are_dropped() {
        let delta = window(60, &[(5, 10.0, 10.0), (7, 12.0, 12.0), (6, 99.0, 99.0), (7, 99.0, 99.0)]).delta();
        assert_eq!(delta.unwrap().increase, counted(2.0, 2.0));
    }

    #[test]
    fn a_long_silence_does_not_stretch_the_window() {
        assert_eq!(window(60, &[(0, 10.0, 10.0), (1_000, 500.0, 500.0)]).delta(), None);
    }

    #[test]
    fn buckets_are_differenced_bound_by_bound() {
        let page = |counts: [f64; 3]| Histogram {
            count: counts[2],
            sum: counts[2],
            buckets: [0.1, 1.0, f64::INFINITY].into_iter().zip(counts).collect(),
        };
        let mut window = Window::new(Duration::from_secs(60));
        window.push(at(0), &page([1.0, 2.0, 3.0]));
        window.push(at(1), &page([2.0, 5.0, 9.0]));
        let buckets = window.delta().unwrap().increase.buckets;
        assert_eq!(buckets, vec![(0.1, 1.0), (1.0, 3.0), (f64::INFINITY, 6.0)]);
    }

    proptest! {
        /// Against a naive sum over every sample, for runs shorter than the span.
        #[test]
        fn agrees_with_a_naive_sum_of_increases(
            steps in proptest::collection::vec((1_u64..5, 0_u32..50), 2..80),
        ) {
            let mut window = Window::new(Duration::from_secs(1_000));
            let (mut now, mut naive, mut last) = (0, 0_u32, None);
            for (gap, raw) in steps {
                now += gap;
                window.push(at(now), &counted(f64::from(raw), 0.0));
                naive += match last {
                    None => 0,
                    Some(last) if raw < last => raw,
                    Some(last) => raw - last,
                };
                last = Some(raw);
            }
            prop_assert_eq!(window.delta().unwrap().increase.count, f64::from(naive));
            prop_assert!(window.slots.len() <= SLOTS as usize + 3);
        }
    }
}
