//! The samples of one family on one page, added up as they come.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use super::{
    super::exposition::{LabelText, Labels, Part, Selected},
    families::{Merge, Overlap},
    sample::{Histogram, Lack},
    usage::Nature,
    wanted::WantedFamily,
};
use crate::steps;

/// How much of labels is looked at for one page where series are told apart, in bytes. Four
/// thousand series with a hundred bytes of labels are a tenth of it.
const LABEL_BYTES: usize = 4 * 1024 * 1024;

/// The families of a page that have samples, by their index in the wanted ones. A page has few of
/// the many names that all engines have.
#[derive(Debug)]
pub(super) struct Tallies {
    /// For each wanted family its place below, plus one; 0 where it has no samples.
    places: Vec<u16>,
    tallies: Vec<Tally>,
    label_bytes_left: usize,
}

/// One family.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Of samples called `x`.
    value: Option<f64>,
    /// Of samples called `x_total`.
    total: Option<f64>,
    pub(super) sum: Option<f64>,
    count: Option<f64>,
    /// Upper bound and count, in rising order.
    buckets: Vec<(f64, f64)>,
    /// Where in `buckets` the next one is expected: label sets print the same bounds in the
    /// same order.
    next_bucket: usize,
    /// Where series count the same requests: each of those that might.
    overlapping: Option<Box<Overlapping>>,
    /// Why the rest does not count.
    lack: Option<Lack>,
    /// What the page says that it is, where nobody knows otherwise.
    pub(super) nature: Option<Nature>,
}

impl Tallies {
    pub(super) fn new(wanted: usize) -> Self {
        Self { places: vec![0; wanted], tallies: Vec::with_capacity(8), label_bytes_left: LABEL_BYTES }
    }

    /// Every sample was added.
    pub(super) fn finish(&mut self) {
        self.tallies.iter_mut().for_each(Tally::finish);
    }

    /// Whether the page has samples of any.
    pub(super) fn any_seen(&self) -> bool {
        !self.tallies.is_empty()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Tally> {
        let place = usize::from(*self.places.get(index)?);
        self.tallies.get(place.checked_sub(1)?)
    }

    /// Adds one sample of the family `index`, which is `family`.
    pub(super) fn add(&mut self, selected: &Selected<'_>, family: &WantedFamily, hasher: &RandomState) {
        let place = &mut self.places[selected.family];
        if *place == 0 {
            let mut tally = Tally::default();
            if family.is_foreign {
                let declared = selected.declared();
                tally.nature = declared.and_then(|(of, kind)| Nature::declared(&family.name, of, kind));
            }
            self.tallies.push(tally);
            // More than 65,534 families are not wanted of anybody.
            *place = u16::try_from(self.tallies.len()).unwrap_or(u16::MAX);
        }
        let Some(tally) = self.tallies.get_mut(usize::from(*place) - 1) else { return };
        let labels = selected.sample.labels;
        if let Some(matchers) = &family.labels {
            if !take_from(&mut self.label_bytes_left, (labels.byte_len() + 1) * matchers.len()) {
                tally.lack = Some(Lack::TooManySeries);
                return;
            }
            let value_of = |label: &str| labels.get(label).map(LabelText::unescape);
            if !matchers.match_labels(value_of) {
                tally.lack = tally.lack.or(Some(Lack::OtherLabels));
                return;
            }
        }
        if let (Some(overlap), Part::Value | Part::Total) = (family.overlap, selected.part) {
            let left = &mut self.label_bytes_left;
            if !take_from(left, labels.byte_len() + 1) || !tally.add_overlapping(selected, overlap, hasher) {
                tally.lack = Some(Lack::TooManySeries);
            }
            return;
        }
        tally.add(selected, family.merge);
    }
}

fn take_from(left: &mut usize, amount: usize) -> bool {
    steps::take(amount);
    match left.checked_sub(amount) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => {
            *left = 0;
            false
        }
    }
}

impl Tally {
    fn add(&mut self, selected: &Selected<'_>, merge: Merge) {
        let value = selected.sample.value;
        let into = match selected.part {
            Part::Value => &mut self.value,
            Part::Total => &mut self.total,
            Part::Sum => &mut self.sum,
            Part::Count => &mut self.count,
            Part::Bucket => return self.add_bucket(selected),
        };
        *into = Some(match *into {
            None => value,
            Some(before) => match merge {
                Merge::Sum => before + value,
                Merge::Max => larger(before, value),
            },
        });
    }

    fn add_bucket(&mut self, selected: &Selected<'_>) {
        let Some(bound) = selected.sample.labels.get("le").and_then(LabelText::to_f64) else { return };
        if bound.is_nan() {
            return;
        }
        // Both zeros are one bound.
        let bound = bound + 0.0;
        let expected =
            self.buckets.get(self.next_bucket).is_some_and(|(known, _)| known.total_cmp(&bound).is_eq());
        let index = if expected {
            self.next_bucket
        } else {
            steps::take(self.buckets.len().max(1).ilog2() as usize + 1);
            match self.buckets.binary_search_by(|(known, _)| known.total_cmp(&bound)) {
                Ok(index) => index,
                Err(_) if self.buckets.len() >= Lack::MOST_BOUNDS => {
                    self.lack = Some(Lack::TooManyBounds);
                    return;
                }
                Err(index) => {
                    self.buckets.insert(index, (bound, 0.0));
                    index
                }
            }
        };
        self.buckets[index].1 += selected.sample.value;
        self.next_bucket = if index + 1 == self.buckets.len() { 0 } else { index + 1 };
    }

    fn add_overlapping(&mut self, selected: &Selected<'_>, overlap: &Overlap, hasher: &RandomState) -> bool {
        self.overlapping.get_or_insert_default().add(selected, overlap, hasher)
    }

    /// Whether the family has samples, of whatever labels.
    pub(super) fn has_samples(&self) -> bool {
        self.seen() || self.lack.is_some()
    }

    /// Whether it has samples that are asked for.
    pub(super) fn seen(&self) -> bool {
        self.number().is_some() || self.sum.is_some() || !self.buckets.is_empty()
    }

    /// Why it has no reading, though there are samples.
    pub(super) fn lack(&self) -> Option<Lack> {
        self.lack.filter(|lack| *lack != Lack::OtherLabels || !self.seen())
    }

    /// Its one number; `None` where it has none, NaN where it is unknown.
    pub(super) fn number(&self) -> Option<f64> {
        self.value.or(self.total)
    }

    /// Every sample was added.
    fn finish(&mut self) {
        if let Some(overlapping) = self.overlapping.take() {
            (self.value, self.total) = (overlapping.sum(true), overlapping.sum(false));
        }
        if self.lack == Some(Lack::TooManySeries) {
            self.value = Some(f64::NAN);
        }
    }

    /// `Ok(None)` where it is no histogram, or not all of one that is asked for.
    pub(super) fn histogram(&self, buckets: bool) -> Result<Option<Histogram>, Lack> {
        if let Some(lack @ (Lack::TooManyBounds | Lack::TooManySeries)) = self.lack
            && (buckets || lack == Lack::TooManySeries)
        {
            return Err(lack);
        }
        let (Some(sum), Some(count)) = (self.sum, self.count) else { return Ok(None) };
        if buckets && self.buckets.is_empty() {
            return Ok(None);
        }
        if !sum.is_finite() || !count.is_finite() || self.buckets.iter().any(|(_, n)| !n.is_finite()) {
            return Err(Lack::NotANumber);
        }
        let mut bounds = if buckets { self.buckets.clone() } else { Vec::new() };
        if bounds.last().is_some_and(|(bound, _)| *bound != f64::INFINITY) {
            bounds.push((f64::INFINITY, count));
        }
        Ok(Some(Histogram { count, sum, buckets: bounds }))
    }
}

/// The larger of two; unknown where one of them is, which `f64::max` would forget.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_finite() && b.is_finite() { a.max(b) } else { f64::NAN }
}

/// Series of which some count the same requests, as an [`Overlap`] says.
#[derive(Debug, Default)]
struct Overlapping {
    /// The largest of the series that say the same, by the number of what tells them apart.
    largest: HashMap<u64, Series>,
}

#[derive(Clone, Copy, Debug)]
struct Series {
    /// The number of the labels without those of the overlap.
    group: u64,
    /// The label that totals leave empty is empty.
    is_total: bool,
    /// It is called `x`, not `x_total`.
    is_plain: bool,
    value: f64,
}

impl Overlapping {
    /// False where there are too many.
    fn add(&mut self, selected: &Selected<'_>, overlap: &Overlap, hasher: &RandomState) -> bool {
        let is_plain = selected.part == Part::Value;
        let (group, part) = numbers(selected.sample.labels, overlap, hasher);
        let is_total = part.is_none();
        let series = Series { group, is_total, is_plain, value: selected.sample.value };
        let number = group ^ part.unwrap_or(0).rotate_left(32) ^ u64::from(is_plain);
        if self.largest.len() >= Lack::MOST_SERIES && !self.largest.contains_key(&number) {
            return false;
        }
        let same = self.largest.entry(number).or_insert(series);
        same.value = larger(same.value, series.value);
        true
    }

    /// Over the groups: the total where there is one, else the parts.
    fn sum(&self, is_plain: bool) -> Option<f64> {
        steps::take(self.largest.len());
        let mut groups: HashMap<u64, (Option<f64>, f64)> = HashMap::new();
        for series in self.largest.values().filter(|series| series.is_plain == is_plain) {
            let (total, parts) = groups.entry(series.group).or_default();
            if series.is_total { *total = Some(series.value) } else { *parts += series.value }
        }
        if groups.is_empty() {
            return None;
        }
        Some(groups.values().map(|(total, parts)| total.unwrap_or(*parts)).sum())
    }
}

/// A number for the labels of a series without those of the overlap, in whatever order they
/// stand, and one for the value of the label that totals leave empty, where it is not.
fn numbers(labels: Labels<'_>, overlap: &Overlap, hasher: &RandomState) -> (u64, Option<u64>) {
    let (mut group, mut part) = (0_u64, None);
    for label in labels {
        let (name, value) = (label.name.as_bytes(), label.value.as_bytes());
        if name == overlap.total_where_empty.as_bytes() {
            part = (!value.is_empty()).then(|| hasher.hash_one(value));
        } else if !value.is_empty() && !overlap.same_over.iter().any(|same| same.as_bytes() == name) {
            group = group.wrapping_add(hasher.hash_one((name, value)));
        }
    }
    (group, part)
}
