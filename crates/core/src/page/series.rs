//! The series of one cumulative family (a counter or a histogram) on one page, each told apart by
//! its labels: what a counter did between two pages is known of each series alone. One that starts
//! anew or is gone is no change of the others.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
};

use super::{
    super::exposition::{LabelText, Labels, Part, Selected},
    families::Overlap,
    sample::{Cumulative, Lack, Series},
};
use crate::steps;

/// As many series are searched one by one.
const FEW: usize = 8;

/// The series of one family while a page is read.
#[derive(Debug, Default)]
pub(super) struct SeriesTally {
    /// In the order of the page.
    bounds: Vec<f64>,
    /// The place of each bound, by its bits.
    places: HashMap<u64, usize>,
    /// Where in `bounds` the next one is expected: series print the same bounds in the same order.
    next_bound: usize,
    series: Vec<Sums>,
    index: HashMap<u64, usize>,
    /// The series of the line before.
    last: usize,
    /// What is beyond the bound, as if it were one series.
    rest: f64,
    lack: Option<Lack>,
}

/// One series, added up over its lines.
#[derive(Debug, Default)]
struct Sums {
    number: u64,
    /// The number of the labels without those of an overlap: series of one group say together
    /// what the group did.
    group: u64,
    /// The label that totals leave empty is empty.
    is_total: bool,
    /// Of samples called `x`.
    value: Option<f64>,
    /// Of samples called `x_total`.
    total: Option<f64>,
    sum: Option<f64>,
    count: Option<f64>,
    /// As many as the series has printed of `bounds`.
    buckets: Vec<f64>,
}

impl SeriesTally {
    /// Adds one sample. `buckets`: whether they are wanted.
    pub(super) fn add(&mut self, selected: &Selected<'_>, overlap: Option<&Overlap>, buckets: bool) {
        let is_number = matches!(selected.part, Part::Value | Part::Total);
        let bound = match selected.part {
            Part::Bucket if !buckets => return,
            Part::Bucket => match self.bound(selected.sample.labels) {
                Some(bound) => Some(bound),
                None => return,
            },
            _ => None,
        };
        let value = selected.sample.value;
        let Some(place) = self.place(selected.sample.labels, overlap.filter(|_| is_number)) else {
            self.lack = Some(Lack::TooManySeries);
            if is_number && value.is_finite() {
                self.rest += value;
            }
            return;
        };
        let cells = self.bounds.len().saturating_mul(self.series.len());
        let sums = &mut self.series[place];
        let into = match selected.part {
            Part::Value => &mut sums.value,
            Part::Total => &mut sums.total,
            Part::Sum => &mut sums.sum,
            Part::Count => &mut sums.count,
            Part::Bucket => {
                if cells > Cumulative::MOST_BUCKETS {
                    self.lack = Some(Lack::TooManySeries);
                    return;
                }
                let bound = bound.unwrap_or_default();
                if sums.buckets.len() <= bound {
                    sums.buckets.resize(bound + 1, 0.0);
                }
                sums.buckets[bound] += value;
                return;
            }
        };
        *into = Some(match *into {
            None => value,
            // Series of an overlap say the same; a line that stands there twice does not.
            Some(before) if overlap.is_some() && is_number => larger(before, value),
            Some(before) => before + value,
        });
    }

    /// The place of a bucket's bound; `None` where it has none, or there are too many.
    fn bound(&mut self, labels: Labels<'_>) -> Option<usize> {
        let bound = labels.get("le").and_then(LabelText::to_f64).filter(|bound| !bound.is_nan())?;
        // Both zeros are one bound.
        let bound = bound + 0.0;
        let expected = self.bounds.get(self.next_bound).is_some_and(|known| known.total_cmp(&bound).is_eq());
        let place = if expected {
            self.next_bound
        } else {
            let full = self.bounds.len() >= Lack::MOST_BOUNDS;
            match self.places.get(&bound.to_bits()) {
                Some(place) => *place,
                None if full => {
                    self.lack = self.lack.or(Some(Lack::TooManyBounds));
                    return None;
                }
                None => {
                    self.bounds.push(bound);
                    self.places.insert(bound.to_bits(), self.bounds.len() - 1);
                    self.bounds.len() - 1
                }
            }
        };
        self.next_bound = if place + 1 == self.bounds.len() { 0 } else { place + 1 };
        Some(place)
    }

    /// The place of the series with these labels; `None` where there are too many.
    fn place(&mut self, labels: Labels<'_>, overlap: Option<&Overlap>) -> Option<usize> {
        let (group, part) = numbers(labels, overlap);
        let number = group ^ part.unwrap_or(0).rotate_left(32);
        if self.series.get(self.last).is_some_and(|sums| sums.number == number) {
            return Some(self.last);
        }
        let next = self.series.len();
        // A family mostly has a handful of series, which are found faster without an index.
        let known = if next <= FEW {
            self.series.iter().position(|sums| sums.number == number)
        } else {
            self.index.get(&number).copied()
        };
        self.last = match known {
            Some(place) => place,
            None if next >= Cumulative::MOST_SERIES => return None,
            None => {
                if next == FEW {
                    self.index = self.series.iter().map(|sums| sums.number).zip(0..).collect();
                }
                if next >= FEW {
                    self.index.insert(number, next);
                }
                self.series.push(Sums { number, group, is_total: part.is_none(), ..Sums::default() });
                next
            }
        };
        Some(self.last)
    }

    /// The counter that the samples are; `None` where they are none.
    pub(super) fn counter(&self) -> Result<Option<Cumulative>, Lack> {
        if self.lack == Some(Lack::TooManySeries) {
            return Err(Lack::TooManySeries);
        }
        let series = self.counts();
        if series.iter().any(|series| !series.count.is_finite()) {
            return Err(Lack::NotANumber);
        }
        Ok((!series.is_empty()).then(|| Cumulative::new(Vec::new(), series)))
    }

    /// The counter as far as it is known: without series that are no number, and those beyond the
    /// bound as one.
    pub(super) fn known_counts(&self) -> impl Iterator<Item = Series> {
        let rest = Series { id: u64::MAX, count: self.rest, ..Series::default() };
        let beyond = (self.lack == Some(Lack::TooManySeries)).then_some(rest);
        self.counts().into_iter().filter(|series| series.count.is_finite()).chain(beyond)
    }

    /// A series for each group: its total where there is one, else its parts.
    fn counts(&self) -> Vec<Series> {
        let plain = self.series.iter().any(|sums| sums.value.is_some());
        let numbers = self.series.iter().filter_map(|sums| {
            let number = if plain { sums.value } else { sums.total };
            number.map(|number| (sums, if number < 0.0 { 0.0 } else { number }))
        });
        steps::take(self.series.len());
        if self.series.iter().all(|sums| sums.is_total) {
            let whole = |(sums, count): (&Sums, f64)| Series { id: sums.group, count, ..Series::default() };
            return numbers.map(whole).collect();
        }
        let mut groups: HashMap<u64, (Option<f64>, f64)> = HashMap::with_capacity(self.series.len());
        for (sums, number) in numbers {
            let (total, parts) = groups.entry(sums.group).or_default();
            if sums.is_total { *total = Some(number) } else { *parts += number }
        }
        groups
            .into_iter()
            .map(|(id, (total, parts))| Series { id, count: total.unwrap_or(parts), ..Series::default() })
            .collect()
    }

    /// The histogram that the samples are; `None` where they are none, or not all of one that is
    /// asked for.
    pub(super) fn histogram(&self, buckets: bool) -> Result<Option<Cumulative>, Lack> {
        if let Some(lack) = self.lack
            && (buckets || lack != Lack::TooManyBounds)
        {
            return Err(lack);
        }
        let lacks = |part: fn(&Sums) -> Option<f64>| !self.series.iter().any(|sums| part(sums).is_some());
        if lacks(|sums| sums.sum) || lacks(|sums| sums.count) || (buckets && self.bounds.is_empty()) {
            return Ok(None);
        }
        let mut order: Vec<usize> = if buckets { (0..self.bounds.len()).collect() } else { Vec::new() };
        order.sort_by(|a, b| self.bounds[*a].total_cmp(&self.bounds[*b]));
        let mut bounds: Vec<f64> = order.iter().map(|place| self.bounds[*place]).collect();
        let infinite = bounds.last() == Some(&f64::INFINITY);
        if buckets && !infinite {
            bounds.push(f64::INFINITY);
        }
        steps::take(bounds.len() * self.series.len());
        let mut series = Vec::with_capacity(self.series.len());
        for sums in &self.series {
            let (sum, count) = (sums.sum.unwrap_or(0.0), sums.count.unwrap_or(0.0));
            let of = |place: &usize| sums.buckets.get(*place).copied().unwrap_or(0.0);
            let mut counts: Vec<f64> = order.iter().map(of).collect();
            if buckets && !infinite {
                counts.push(count);
            }
            if !sum.is_finite() || !count.is_finite() || counts.iter().any(|count| !count.is_finite()) {
                return Err(Lack::NotANumber);
            }
            series.push(Series { id: sums.number, count, sum, buckets: counts });
        }
        Ok(Some(Cumulative::new(bounds, series)))
    }
}

/// The larger of two; unknown where one of them is, which `f64::max` would forget.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a.is_finite() && b.is_finite() { a.max(b) } else { f64::NAN }
}

/// The same in every process.
pub(super) fn fixed_hash(of: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(of)
}

/// The id of the series with these labels.
pub(super) fn series_id(labels: Labels<'_>) -> u64 {
    numbers(labels, None).0
}

/// A number for the labels of a series, in whatever order they stand, without the bound of a
/// bucket and without the labels of an overlap; and one for the value of the label that totals
/// leave empty, where it is not. The same on every page and in every process, so that series are
/// known again; two that collide are taken for one, at the cost of whoever made them so.
fn numbers(labels: Labels<'_>, overlap: Option<&Overlap>) -> (u64, Option<u64>) {
    let (mut group, mut part) = (0_u64, None);
    for label in labels {
        let (name, value) = (label.name.as_bytes(), label.value.as_bytes());
        if name == b"le" || value.is_empty() {
            continue;
        }
        if let Some(overlap) = overlap {
            if name == overlap.total_where_empty.as_bytes() {
                part = Some(fixed_hash(value));
                continue;
            }
            if overlap.same_over.iter().any(|same| same.as_bytes() == name) {
                continue;
            }
        }
        group = group.wrapping_add(fixed_hash((name, value)));
    }
    (group, part)
}
