//! One page → one [`PodSample`].

use super::{
    super::exposition::{self, Kind, Line, Part, Selected},
    families::Merge,
    similar::similar_names,
    wanted::{Asked, Wanted},
};
use crate::{
    endpoint::page_choice::PageKind,
    page::sample::{Histogram, PodDemand, PodSample, Reading},
};

/// What one page says.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRead {
    pub sample: PodSample,
    /// How many required families the page lacks: the metrics asked for, and the number of
    /// running requests. A family whose value is not a number is there, but gives no reading.
    pub missing: usize,
    /// Lines that name a wanted family and then break the grammar.
    pub rejected: usize,
    /// Whether this is a metrics page at all: a page with bytes but without a single sample
    /// or comment of the format is not.
    pub is_metrics: bool,
}

/// Reads what is `wanted` off `page`.
///
/// Counts are summed over the series of a page, ratios take the largest; histograms are added
/// up bucket by bucket. A value that is not finite in any series makes the whole reading
/// unknown, for the sum of something and an unknown is not the something.
#[must_use]
pub fn read_page(page: &[u8], wanted: &Wanted, kind: PageKind) -> PageRead {
    let mut tallies: Vec<Tally> = vec![Tally::default(); wanted.families.len()];
    let mut awake = None;
    let report = exposition::select(page, &wanted.selector, |selected| {
        let family = &wanted.families[selected.family];
        tallies[selected.family].add(&selected, family.merge);
        if family.is_sleep_state && selected.sample.labels.get("sleep_state").is_some_and(is_awake) {
            // A pod with one engine awake serves.
            awake = Some(awake.unwrap_or(false) || selected.sample.value > 0.5);
        }
    });

    let reader = Reader { wanted, tallies: &tallies };
    let mut sample = PodSample {
        readings: Vec::with_capacity(wanted.asked.len()),
        demand: reader.demand(),
        awake,
        download_remaining: reader.first(&wanted.demand.download_remaining).filter(|left| *left >= 0.0),
        engine: reader.shows_engine(),
        similar: Vec::new(),
    };
    let mut missing = Vec::new();
    for asked in &wanted.asked {
        match reader.reading(asked) {
            Found::Reading(reading) => sample.readings.push((asked.name.clone(), reading)),
            Found::Unknown => {}
            Found::Nothing => missing.push(asked),
        }
    }
    if kind == PageKind::Plain && !missing.is_empty() {
        missing.retain(|asked| match reading_of_no_series(page, asked, wanted) {
            Some(reading) => {
                sample.readings.push((asked.name.clone(), reading));
                false
            }
            None => true,
        });
        if sample.engine {
            sample.similar = similar_names(page, &missing);
        }
    }
    let lacks_running = !reader.any_seen(&wanted.demand.running);
    PageRead {
        missing: missing.len() + usize::from(lacks_running),
        rejected: report.rejected,
        is_metrics: tallies.iter().any(Tally::seen) || looks_like_metrics(page),
        sample,
    }
}

fn is_awake(state: exposition::LabelText<'_>) -> bool {
    state.as_bytes() == b"awake"
}

/// Whether a page on which nothing wanted was found is a metrics page nevertheless. Looks no
/// further than the first line that the format knows.
fn looks_like_metrics(page: &[u8]) -> bool {
    let known = |line: &Line<'_>| !matches!(line, Line::Rejected(_) | Line::Comment);
    page.iter().all(u8::is_ascii_whitespace) || exposition::lines(page).any(|line| known(&line))
}

/// A labelled family prints no series before something has happened, only its TYPE: nothing
/// has happened yet, which is known.
fn reading_of_no_series(page: &[u8], asked: &Asked, wanted: &Wanted) -> Option<Reading> {
    let goes_by = |name: &str| {
        let name_of = |index: &usize| wanted.families[*index].name.as_str();
        asked.names.iter().map(name_of).any(|own| own == name || name.strip_suffix("_total") == Some(own))
    };
    exposition::types(page).find_map(|(name, kind)| match kind {
        Kind::Counter if asked.value && goes_by(name) => Some(Reading::Value(0.0)),
        Kind::Histogram if asked.histogram && goes_by(name) => Some(Reading::Histogram(Histogram::default())),
        _ => None,
    })
}

/// The samples of one family on one page.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// Of samples called `x`.
    value: Option<f64>,
    /// Of samples called `x_total`.
    total: Option<f64>,
    sum: Option<f64>,
    count: Option<f64>,
    /// Upper bound and count, in page order of the first label set.
    buckets: Vec<(f64, f64)>,
    /// Where in `buckets` the next one is expected: label sets print the same bounds in the
    /// same order.
    next_bucket: usize,
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
                // `f64::max` would forget the unknown.
                Merge::Max if !before.is_finite() || !value.is_finite() => f64::NAN,
                Merge::Max => before.max(value),
            },
        });
    }

    fn add_bucket(&mut self, selected: &Selected<'_>) {
        let Some(bound) = selected.sample.labels.get("le").and_then(exposition::LabelText::to_f64) else {
            return;
        };
        let expected =
            self.buckets.get(self.next_bucket).is_some_and(|(known, _)| known.total_cmp(&bound).is_eq());
        let index = if expected {
            Some(self.next_bucket)
        } else {
            self.buckets.iter().position(|(known, _)| known.total_cmp(&bound).is_eq())
        };
        let index = index.unwrap_or_else(|| {
            self.buckets.push((bound, 0.0));
            self.buckets.len() - 1
        });
        self.buckets[index].1 += selected.sample.value;
        self.next_bucket = (index + 1) % self.buckets.len();
    }

    fn seen(&self) -> bool {
        self.value.is_some() || self.total.is_some() || self.sum.is_some() || !self.buckets.is_empty()
    }

    fn number(&self) -> Option<f64> {
        self.value.or(self.total)
    }

    fn histogram(&self, buckets: bool) -> Found<Histogram> {
        let (Some(sum), Some(count)) = (self.sum, self.count) else { return Found::Nothing };
        if buckets && self.buckets.is_empty() {
            return Found::Nothing;
        }
        if !sum.is_finite() || !count.is_finite() || self.buckets.iter().any(|(_, n)| !n.is_finite()) {
            return Found::Unknown;
        }
        let mut sorted = if buckets { self.buckets.clone() } else { Vec::new() };
        sorted.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        if sorted.last().is_some_and(|(bound, _)| *bound != f64::INFINITY) {
            sorted.push((f64::INFINITY, count));
        }
        Found::Reading(Histogram { count, sum, buckets: sorted })
    }
}

enum Found<T> {
    Reading(T),
    /// It is there, but its value says nothing.
    Unknown,
    Nothing,
}

struct Reader<'a> {
    wanted: &'a Wanted,
    tallies: &'a [Tally],
}

impl Reader<'_> {
    fn reading(&self, asked: &Asked) -> Found<Reading> {
        for index in &asked.names {
            let tally = &self.tallies[*index];
            if asked.histogram {
                match tally.histogram(asked.buckets) {
                    Found::Reading(histogram) => return Found::Reading(Reading::Histogram(histogram)),
                    Found::Unknown => return Found::Unknown,
                    Found::Nothing => {}
                }
            }
            if asked.value && tally.number().is_some() {
                return self
                    .value(*index)
                    .map_or(Found::Unknown, |value| Found::Reading(Reading::Value(value)));
            }
        }
        if !self.any_seen(&asked.stand_ins) {
            return Found::Nothing;
        }
        self.first(&asked.stand_ins).map_or(Found::Unknown, |value| Found::Reading(Reading::Value(value)))
    }

    fn demand(&self) -> PodDemand {
        let families = &self.wanted.demand;
        let waiting = if self.any_seen(&families.waiting) {
            self.first(&families.waiting)
        } else {
            self.first(&families.waiting_by_reason)
        };
        PodDemand {
            waiting,
            running: self.first(&families.running),
            rejected_total: families.rejections.iter().filter_map(|index| self.value(*index)).sum(),
        }
    }

    /// The value of the first family of `indices` that the page has.
    fn first(&self, indices: &[usize]) -> Option<f64> {
        let present = indices.iter().find(|index| self.tallies[**index].number().is_some())?;
        self.value(*present)
    }

    /// The finite value of one family.
    fn value(&self, index: usize) -> Option<f64> {
        let value = self.tallies[index].number().filter(|value| value.is_finite())?;
        Some(if self.wanted.families[index].never_negative { value.max(0.0) } else { value })
    }

    fn any_seen(&self, indices: &[usize]) -> bool {
        indices.iter().any(|index| self.tallies[*index].seen())
    }

    /// A family of an engine shows that one is up; so does a metric of the user's own, which
    /// comes from whatever the user runs in its place.
    fn shows_engine(&self) -> bool {
        let of_an_engine = self
            .wanted
            .families
            .iter()
            .zip(self.tallies)
            .any(|(family, tally)| family.shows_engine && tally.seen());
        let of_the_user = || {
            let own = |asked: &&Asked| super::families::engine_of(asked.name.as_str()).is_none();
            self.wanted.asked.iter().filter(own).any(|asked| self.any_seen(&asked.names))
        };
        of_an_engine || of_the_user()
    }
}
