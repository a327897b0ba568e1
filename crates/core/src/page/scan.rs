//! A page family by family, merged over series: what the `scan` command prints.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Serialize, Serializer};

use crate::exposition::{self, Kind, LabelText, Line, Part, Sample, lines, unescape};

/// Every family of a page, in page order.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    pub families: Vec<FamilySummary>,
    /// Lines that break the grammar, and samples that their family's TYPE does not provide for
    /// (a histogram's bucket without `le`).
    pub rejected: usize,
}

/// One family, its series merged. Serialises to the object that `scan` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FamilySummary {
    /// The name on the TYPE line; the sample's own where there is none.
    pub metric: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Distinct label sets, `le` (and a summary's `quantile`) left out.
    pub series: usize,
    #[serde(flatten)]
    pub merged: Merged,
}

/// A family's series, merged.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Merged {
    /// A gauge, counter or untyped family: the sum over its series, 0 where it has none.
    Value { value: Number },
    /// Counts and sums added up, bucket by bucket. A bucket is known by the number that its `le`
    /// is, and shown by how that is printed first.
    Histogram { count: Number, sum: Number, buckets: Vec<(String, Number)> },
    /// Counts and sums added up. Quantiles of several series have no common quantile; shown is
    /// the largest, below which that share of every series lies.
    Summary { count: Number, sum: Number, quantiles: Vec<(String, Number)> },
}

/// A number as JSON can hold it: whole ones without a decimal point, and as strings those that
/// JSON has no number for (`"NaN"`, `"+Inf"`, `"-Inf"`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Number(pub f64);

/// Reads `page` and merges each family. With `only`, the families of these names alone, by the
/// family's or, of a counter, the samples' name, whichever the page's TYPE line has; a name that
/// the page lacks is left out.
#[must_use]
pub fn scan(page: &[u8], only: &[String]) -> Scan {
    let mut reading = Reading::new(types(page));
    for line in lines(page) {
        match line {
            Line::Type { name, kind } => {
                reading.family(name, kind);
            }
            Line::Sample(sample) => reading.add(&sample),
            Line::Rejected(_) => reading.rejected += 1,
            Line::Help { .. } | Line::Eof | Line::Comment => {}
        }
    }
    let stem = |name: &str| name.strip_suffix(Part::Total.suffix()).unwrap_or(name).to_owned();
    let is_counter = |family: &FamilySummary| matches!(family.kind, Kind::Counter | Kind::Untyped);
    let wanted = |family: &FamilySummary| {
        let is_it = |name: &String| {
            *name == family.metric || (is_counter(family) && stem(name) == stem(&family.metric))
        };
        only.is_empty() || only.iter().any(is_it)
    };
    Scan {
        families: reading.families.into_iter().map(Family::finish).filter(wanted).collect(),
        rejected: reading.rejected,
    }
}

/// The type of each typed family; the first TYPE line of a name counts. Read before the samples,
/// so that these may come in any order.
fn types(page: &[u8]) -> BTreeMap<&str, Kind> {
    let mut types = BTreeMap::new();
    for (name, kind) in exposition::types(page) {
        types.entry(name).or_insert(kind);
    }
    types
}

/// A page while it is read.
struct Reading<'p> {
    types: BTreeMap<&'p str, Kind>,
    families: Vec<Family<'p>>,
    index: BTreeMap<&'p str, usize>,
    /// Whose the newest sample was. Most samples have the same name as the one before.
    newest: Option<Owner<'p>>,
    rejected: usize,
}

/// What all samples of one name belong to.
#[derive(Clone, Copy)]
struct Owner<'p> {
    name: &'p str,
    /// Index into the families.
    family: usize,
    part: Part,
}

/// A label set without what tells the points of one series apart.
type Series<'p> = Vec<(LabelText<'p>, LabelText<'p>)>;

/// A family while its page is read.
struct Family<'p> {
    name: &'p str,
    kind: Kind,
    /// Each with its labels sorted.
    series: BTreeSet<Series<'p>>,
    /// That of the newest sample, in page order. A histogram prints the points of one series together.
    newest_series: Series<'p>,
    value: f64,
    sum: f64,
    /// `None` until the page gives one.
    count: Option<f64>,
    /// A histogram's buckets or a summary's quantiles.
    points: Vec<Point<'p>>,
    /// Where each point is, once there are too many to go through them.
    places: HashMap<PointKey<'p>, usize>,
    /// Where the next point is likely to be: series print theirs in one order.
    next_point: usize,
}

/// One bucket or quantile.
struct Point<'p> {
    /// As it is printed first.
    label: LabelText<'p>,
    key: PointKey<'p>,
    value: f64,
}

/// What tells points apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum PointKey<'p> {
    /// The bits of a number: `1` and `1.0` are one bound.
    Number(u64),
    /// What is printed in place of a number.
    Text(LabelText<'p>),
}

impl<'p> From<LabelText<'p>> for PointKey<'p> {
    fn from(label: LabelText<'p>) -> Self {
        // Both zeros are one.
        label.to_f64().map_or(Self::Text(label), |number| Self::Number((number + 0.0).to_bits()))
    }
}

impl<'p> Reading<'p> {
    fn new(types: BTreeMap<&'p str, Kind>) -> Self {
        Self { types, families: Vec::new(), index: BTreeMap::new(), newest: None, rejected: 0 }
    }

    /// The index of the family of this name, made where the page has it for the first time.
    fn family(&mut self, name: &'p str, kind: Kind) -> usize {
        let index = *self.index.entry(name).or_insert(self.families.len());
        if index == self.families.len() {
            let kind = self.types.get(name).copied().unwrap_or(kind);
            self.families.push(Family::new(name, kind));
        }
        index
    }

    fn add(&mut self, sample: &Sample<'p>) {
        let owner = match self.newest {
            Some(owner) if owner.name == sample.name => owner,
            _ => self.owner(sample.name),
        };
        self.newest = Some(owner);
        if !self.families[owner.family].add(owner.part, sample) {
            self.rejected += 1;
        }
    }

    /// The family that samples of this name belong to, and as what. A family with exactly this
    /// name comes first: `x_count` may be a gauge beside a histogram `x`.
    fn owner(&mut self, name: &'p str) -> Owner<'p> {
        if let Some(kind) = self.types.get(name).copied() {
            return Owner { name, family: self.family(name, kind), part: Part::Value };
        }
        for part in [Part::Bucket, Part::Sum, Part::Count, Part::Total] {
            if let Some(family) = name.strip_suffix(part.suffix())
                && let Some(kind) = self.types.get(family).copied()
                && has_part(kind, part)
            {
                return Owner { name, family: self.family(family, kind), part };
            }
        }
        Owner { name, family: self.family(name, Kind::Untyped), part: Part::Value }
    }
}

/// Whether samples of a typed family carry this part's suffix. Of counters only OpenMetrics
/// types the name without `_total`.
fn has_part(kind: Kind, part: Part) -> bool {
    match part {
        Part::Value => true,
        Part::Total => kind == Kind::Counter,
        Part::Bucket => kind == Kind::Histogram,
        Part::Sum | Part::Count => matches!(kind, Kind::Histogram | Kind::Summary),
    }
}

impl<'p> Family<'p> {
    fn new(name: &'p str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            series: BTreeSet::new(),
            newest_series: Vec::new(),
            value: 0.0,
            sum: 0.0,
            count: None,
            points: Vec::new(),
            places: HashMap::new(),
            next_point: 0,
        }
    }

    /// Adds a sample; `false` where the family's type does not provide for it.
    fn add(&mut self, part: Part, sample: &Sample<'p>) -> bool {
        let value = sample.value;
        match (self.kind, part) {
            (Kind::Counter | Kind::Gauge | Kind::Untyped, _) => self.value += value,
            (_, Part::Sum) => self.sum += value,
            (_, Part::Count) => *self.count.get_or_insert(0.0) += value,
            (Kind::Histogram, Part::Bucket) => {
                let Some(le) = sample.labels.get("le") else { return false };
                *self.point(le, 0.0) += value;
            }
            (Kind::Summary, Part::Value) => {
                let Some(quantile) = sample.labels.get("quantile") else { return false };
                let largest = self.point(quantile, f64::NAN);
                *largest = largest.max(value);
            }
            _ => return false,
        }
        self.add_series(sample);
        true
    }

    fn add_series(&mut self, sample: &Sample<'p>) {
        let is_summary = self.kind == Kind::Summary;
        let tells_series = |name: &[u8]| name != b"le" && !(is_summary && name == b"quantile");
        let labels = || {
            let labels = sample.labels.iter().filter(|label| tells_series(label.name.as_bytes()));
            labels.map(|label| (label.name, label.value))
        };
        if !self.series.is_empty() && labels().eq(self.newest_series.iter().copied()) {
            return;
        }
        self.newest_series.clear();
        self.newest_series.extend(labels());
        let mut series = self.newest_series.clone();
        series.sort_unstable();
        self.series.insert(series);
    }

    /// The value of a bucket or quantile, made where the page has it for the first time.
    fn point(&mut self, at: LabelText<'p>, initially: f64) -> &mut f64 {
        let index = match self.points.get(self.next_point) {
            Some(point) if point.label == at => self.next_point,
            _ => self.place_of(at, initially),
        };
        self.next_point = if index + 1 == self.points.len() { 0 } else { index + 1 };
        &mut self.points[index].value
    }

    fn place_of(&mut self, label: LabelText<'p>, initially: f64) -> usize {
        /// So many are gone through faster than they are hashed; a real family has some twenty.
        const FEW: usize = 64;

        let key = PointKey::from(label);
        let few = self.points.len() <= FEW;
        let found = if few {
            self.points.iter().position(|point| point.key == key)
        } else {
            self.places.get(&key).copied()
        };
        if let Some(index) = found {
            return index;
        }
        self.points.push(Point { label, key, value: initially });
        if !few || self.points.len() > FEW {
            let known = self.places.len();
            let new = self.points.iter().enumerate().skip(known);
            self.places.extend(new.map(|(index, point)| (point.key, index)));
        }
        self.points.len() - 1
    }

    fn finish(self) -> FamilySummary {
        let everything =
            || self.points.iter().find(|point| point.key == PointKey::Number(f64::INFINITY.to_bits()));
        let count = self.count.or_else(|| everything().map(|point| point.value));
        let count = Number(count.unwrap_or(0.0));
        let sum = Number(self.sum);
        let points = self
            .points
            .iter()
            .map(|point| (point.label.unescape().into_owned(), Number(point.value)))
            .collect();
        let merged = match self.kind {
            Kind::Counter | Kind::Gauge | Kind::Untyped => Merged::Value { value: Number(self.value) },
            Kind::Histogram => Merged::Histogram { count, sum, buckets: points },
            Kind::Summary => Merged::Summary { count, sum, quantiles: points },
        };
        FamilySummary {
            metric: unescape(self.name).into_owned(),
            kind: self.kind,
            series: self.series.len(),
            merged,
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Up to here every whole number is exact.
        const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        match self.0 {
            value if value.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("+Inf"),
            f64::NEG_INFINITY => serializer.serialize_str("-Inf"),
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
            value if value.fract() == 0.0 && value.abs() < EXACT => serializer.serialize_i64(value as i64),
            value => serializer.serialize_f64(value),
        }
    }
}

#[cfg(test)]
mod tests;
