//! What a cumulative counter or histogram did over the last while, for one endpoint.
//!
//! Increases are taken for each series of each endpoint, and only then added up: a difference of
//! totals over changing series, or over a changing set of pods, would read one that is gone as
//! work undone, and the lifetime of one that stayed as work just done.

use std::{collections::VecDeque, time::Duration};

use crate::{
    page::sample::{Cumulative, Histogram, Series},
    time::Moment,
};

/// Slots that a window's span is divided into. The window's start is known to 1/32 of its
/// span, and its memory does not depend on the scrape interval.
const SLOTS: u32 = 32;

/// Share of the span that a window must cover before it no longer counts as warming up.
const WARM_SHARE: f64 = 0.8;

/// Series that are remembered at most, those included that are no longer on the page.
const KEPT: usize = 2 * Cumulative::MOST_SERIES;

/// A sliding window over one endpoint's histogram or counter.
#[derive(Clone, Debug)]
pub struct Window {
    span: Duration,
    bounds: Vec<f64>,
    /// Oldest first; each holds what was added up until the slot's last sample.
    slots: VecDeque<(Moment, Sums)>,
    /// All increases since the first sample; it never falls.
    total: Sums,
    /// The newest value of each series, in rising order of their ids. Those that are no longer on
    /// the page are kept: they may come back as they were.
    last: Vec<Series>,
}

/// Increases, added up.
#[derive(Clone, Debug, Default)]
struct Sums {
    count: f64,
    sum: f64,
    /// One for each bound of the window; none where the bounds were others.
    buckets: Vec<f64>,
}

/// What a window saw.
#[derive(Clone, Copy, Debug)]
pub struct Delta<'a> {
    bounds: &'a [f64],
    oldest: &'a Sums,
    newest: &'a Sums,
    /// The time between the two samples that were compared, above zero.
    pub covered: Duration,
    /// Less than 80% of the span is covered yet.
    pub warming_up: bool,
}

impl Window {
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self { span, bounds: Vec::new(), slots: VecDeque::new(), total: Sums::default(), last: Vec::new() }
    }

    #[must_use]
    pub fn span(&self) -> Duration {
        self.span
    }

    /// Takes in what a page that was read at `at` has. Samples must come in order; one that is
    /// not newer than the last is dropped.
    pub fn push(&mut self, at: Moment, page: &Cumulative) {
        if self.slots.back().is_some_and(|(last, _)| *last >= at) {
            return;
        }
        if !page.series.is_empty() {
            self.follow_bounds(&page.bounds);
        }
        self.follow_series(&page.series);

        // The newest slot moves along with the newest sample until it is one slot's width
        // past the one before it; so the newest sample is always there.
        let width = self.span / SLOTS;
        let slots = self.slots.len();
        let replaces_newest =
            slots >= 2 && self.slots[slots - 1].0.saturating_since(self.slots[slots - 2].0) < width;
        // Its memory is used again.
        let replaced = if replaces_newest { self.slots.pop_back() } else { None };
        let mut sums = replaced.map_or_else(Sums::default, |(_, sums)| sums);
        sums.set(&self.total);
        self.slots.push_back((at, sums));
        while self.slots.len() > 2 && at.saturating_since(self.slots[0].0) > self.span {
            self.slots.pop_front();
        }
        // Two samples further apart than the span say nothing about the span.
        if self.slots.len() == 2 && at.saturating_since(self.slots[0].0) > self.span * 2 {
            self.slots.pop_front();
        }
    }

    /// A server that is another version may have other bounds: of these nothing is known yet,
    /// unless there was no series before.
    fn follow_bounds(&mut self, bounds: &[f64]) {
        let same = self.bounds.len() == bounds.len()
            && self.bounds.iter().zip(bounds).all(|(x, y)| x.total_cmp(y).is_eq());
        if same {
            return;
        }
        self.bounds = bounds.to_vec();
        let before = if self.last.is_empty() { bounds.len() } else { 0 };
        for (_, sums) in &mut self.slots {
            sums.buckets = vec![0.0; before];
        }
        for series in &mut self.last {
            series.buckets = Vec::new();
        }
        self.total.buckets = vec![0.0; bounds.len()];
    }

    /// Adds up the increases of all series since the last page.
    fn follow_series(&mut self, series: &[Series]) {
        // Before the first page nothing is known of what they counted.
        let first = self.slots.is_empty();
        let mut place = 0;
        for now in series {
            while self.last.get(place).is_some_and(|before| before.id < now.id) {
                place += 1;
            }
            match self.last.get_mut(place) {
                Some(before) if before.id == now.id => {
                    self.total.add_increase(before, now);
                    (before.count, before.sum) = (now.count, now.sum);
                    before.buckets.clone_from(&now.buckets);
                }
                _ => {
                    // It was not there a page ago, so it began at 0 since then.
                    if !first {
                        self.total.add(now);
                    }
                    self.last.insert(place, now.clone());
                }
            }
        }
        if self.last.len() > KEPT {
            self.last.retain(|kept| series.binary_search_by_key(&kept.id, |now| now.id).is_ok());
        }
    }

    /// The change over the window, or `None` before there are two samples.
    #[must_use]
    pub fn delta(&self) -> Option<Delta<'_>> {
        let (from, oldest) = self.slots.front()?;
        let (to, newest) = self.slots.back()?;
        if self.slots.len() < 2 {
            return None;
        }
        let covered = to.saturating_since(*from);
        let warming_up = covered.as_secs_f64() < self.span.as_secs_f64() * WARM_SHARE;
        // Of other bounds nothing can be said before there are two samples with these.
        let known = oldest.buckets.len() == self.bounds.len();
        let bounds = if known { &self.bounds[..] } else { &[] };
        Some(Delta { bounds, oldest, newest, covered, warming_up })
    }
}

impl Sums {
    fn set(&mut self, to: &Self) {
        (self.count, self.sum) = (to.count, to.sum);
        self.buckets.clone_from(&to.buckets);
    }

    fn add(&mut self, series: &Series) {
        self.count += series.count.max(0.0);
        self.sum += series.sum.max(0.0);
        for (sum, bucket) in self.buckets.iter_mut().zip(&series.buckets) {
            *sum += bucket.max(0.0);
        }
    }

    fn add_increase(&mut self, before: &Series, now: &Series) {
        // A cumulative value that falls means that the server, or this part of it, started anew.
        if now.count < before.count || now.sum < before.sum {
            return self.add(now);
        }
        self.count += now.count - before.count;
        self.sum += now.sum - before.sum;
        if before.buckets.len() == now.buckets.len() {
            let pairs = before.buckets.iter().zip(&now.buckets);
            for (sum, (before, now)) in self.buckets.iter_mut().zip(pairs) {
                *sum += (now - before).max(0.0);
            }
        }
    }
}

impl Delta<'_> {
    /// What a counter counted, or the observations of a histogram.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.newest.count - self.oldest.count
    }

    /// The sum of what a histogram observed.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.newest.sum - self.oldest.sum
    }

    /// Upper bounds, in rising order, each with the observations at or below it.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, f64)> {
        let pairs = self.newest.buckets.iter().zip(&self.oldest.buckets);
        self.bounds.iter().zip(pairs).map(|(bound, (newest, oldest))| (*bound, newest - oldest))
    }

    /// What a counter counted in each second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.count() / self.covered.as_secs_f64()
    }

    /// All of it as a histogram.
    #[must_use]
    pub fn increase(&self) -> Histogram {
        Histogram { count: self.count(), sum: self.sum(), buckets: self.buckets().collect() }
    }
}

#[cfg(test)]
mod tests;
