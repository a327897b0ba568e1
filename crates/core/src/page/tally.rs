//! The samples of one family on one page, added up as they come.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use super::{
    super::exposition::{LabelText, Labels, Part, Selected},
    families::{Merge, Overlap},
    sample::{Cumulative, Lack, Series},
    series::{SeriesTally, larger},
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
    found: Vec<Tally>,
    label_bytes_left: usize,
    engine_seen: bool,
}

/// One family.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Of samples called `x`.
    value: Option<f64>,
    /// Of samples called `x_total`.
    total: Option<f64>,
    /// There are sums, counts or buckets: parts of a histogram.
    pub(super) has_parts: bool,
    /// Of a cumulative family: its series.
    series: Option<Box<SeriesTally>>,
    /// Where series count the same requests: each of those that might.
    overlapping: Option<Box<Overlapping>>,
    /// Why the rest does not count.
    lack: Option<Lack>,
    /// What the page says that it is, where nobody knows otherwise.
    pub(super) nature: Option<Nature>,
}

impl Tallies {
    pub(super) fn new(wanted: usize) -> Self {
        Self {
            places: vec![0; wanted],
            found: Vec::with_capacity(8),
            label_bytes_left: LABEL_BYTES,
            engine_seen: false,
        }
    }

    /// Every sample was added.
    pub(super) fn finish(&mut self) {
        self.found.iter_mut().for_each(Tally::finish);
    }

    /// Whether the page has samples of a family that shows that a model server is up.
    pub(super) fn engine_seen(&self) -> bool {
        self.engine_seen
    }

    /// Whether the page has samples of any.
    pub(super) fn any_seen(&self) -> bool {
        !self.found.is_empty()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Tally> {
        let place = usize::from(*self.places.get(index)?);
        self.found.get(place.checked_sub(1)?)
    }

    /// Adds one sample of the family `index`, which is `family`.
    pub(super) fn add(&mut self, selected: &Selected<'_>, family: &WantedFamily, hasher: &RandomState) {
        let place = &mut self.places[selected.family];
        if *place == 0 {
            self.engine_seen |= family.shows_engine;
            let mut tally = Tally::default();
            if family.is_foreign {
                let declared = selected.declared();
                tally.nature = declared.and_then(|(of, kind)| Nature::declared(&family.name, of, kind));
            }
            self.found.push(tally);
            // More than 65,534 families are not wanted of anybody.
            *place = u16::try_from(self.found.len()).unwrap_or(u16::MAX);
        }
        let Some(tally) = self.found.get_mut(usize::from(*place) - 1) else { return };
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
        let left = &mut self.label_bytes_left;
        if family.cumulative {
            if !take_from(left, labels.byte_len() + 1) {
                tally.lack = Some(Lack::TooManySeries);
                return;
            }
            let series = tally.series.get_or_insert_default();
            series.add(selected, family.overlap, family.buckets);
        }
        if let (Some(overlap), Part::Value | Part::Total) = (family.overlap, selected.part) {
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
            Part::Sum | Part::Count | Part::Bucket => {
                self.has_parts = true;
                return;
            }
        };
        *into = Some(match *into {
            None => value,
            Some(before) => match merge {
                Merge::Sum => before + value,
                Merge::Max => larger(before, value),
            },
        });
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
        self.number().is_some() || self.has_parts
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
    pub(super) fn histogram(&self, buckets: bool) -> Result<Option<Cumulative>, Lack> {
        self.cumulative(|series| series.histogram(buckets))
    }

    /// `Ok(None)` where it is no counter.
    pub(super) fn counter(&self) -> Result<Option<Cumulative>, Lack> {
        self.cumulative(SeriesTally::counter)
    }

    fn cumulative(
        &self,
        read: impl FnOnce(&SeriesTally) -> Result<Option<Cumulative>, Lack>,
    ) -> Result<Option<Cumulative>, Lack> {
        if self.lack == Some(Lack::TooManySeries) {
            return Err(Lack::TooManySeries);
        }
        self.series.as_deref().map_or(Ok(None), read)
    }

    /// The series that count something, as far as they are known.
    pub(super) fn known_counts(&self) -> impl Iterator<Item = Series> {
        self.series.iter().flat_map(|series| series.known_counts())
    }
}

/// Series of which some count the same requests, as an [`Overlap`] says.
#[derive(Debug, Default)]
struct Overlapping {
    /// The largest of the series that say the same, by the number of what tells them apart.
    largest: HashMap<u64, One>,
}

#[derive(Clone, Copy, Debug)]
struct One {
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
        let series = One { group, is_total, is_plain, value: selected.sample.value };
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
