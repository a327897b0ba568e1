//! One page → one [`PodSample`].

use std::{collections::HashMap, fmt};

use super::{
    super::exposition::{self, Kind, LabelText, Line},
    families::engine_of,
    sample::{Histogram, Lack, PodDemand, PodSample, Reading},
    similar::families_of,
    tally::{Tallies, Tally},
    usage::Nature,
    wanted::{Asked, Wanted},
};
use crate::{endpoint::page_choice::PageKind, steps};

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
/// Counts are summed over the series of a page, ratios take the largest, and series that count
/// the same requests count once ([`Overlap`](super::Overlap)); histograms are added up bucket by
/// bucket. A value that is not finite in any series makes the whole reading unknown, for the sum
/// of something and an unknown is not the something.
#[must_use]
pub fn read_page(page: &[u8], wanted: &Wanted, kind: PageKind) -> PageRead {
    let mut tallies = Tallies::new(wanted.families.len());
    let mut awake = None;
    let report = exposition::select(page, &wanted.selector, |selected| {
        let family = &wanted.families[selected.family];
        tallies.add(&selected, family, &wanted.hasher);
        if family.is_sleep_state && selected.sample.labels.get("sleep_state").is_some_and(is_awake) {
            // A pod with one engine awake serves.
            awake = Some(awake.unwrap_or(false) || selected.sample.value > 0.5);
        }
    });
    tallies.finish();

    let reader = Reader { wanted, tallies: &tallies };
    let mut sample = PodSample {
        readings: Vec::with_capacity(wanted.asked.len()),
        demand: reader.demand(),
        awake,
        download_remaining: reader.first(&wanted.demand.download_remaining).filter(|left| *left >= 0.0),
        engine: reader.shows_engine(),
        similar: Vec::new(),
        remarks: None,
    };
    let mut missing = Vec::new();
    for asked in &wanted.asked {
        if let Some(nature) = reader.nature(asked) {
            sample.remarks_mut().natures.push((asked.name.clone(), nature));
        }
        match reader.reading(asked) {
            Found::Reading(reading) => sample.readings.push((asked.name.clone(), reading)),
            Found::Unknown(lack) => sample.remarks_mut().lacking.push((asked.name.clone(), lack)),
            Found::Nothing => missing.push(asked),
        }
    }
    let is_metrics = tallies.any_seen() || looks_like_metrics(page);
    if kind == PageKind::Plain && is_metrics && (!missing.is_empty() || !sample.engine) {
        missing = read_types(page, wanted, missing, &mut sample);
        look_around(page, wanted, &missing, &mut sample);
    }
    let lacks_running = !reader.any_seen(&wanted.demand.running);
    PageRead {
        missing: missing.len() + usize::from(lacks_running),
        rejected: report.rejected,
        is_metrics,
        sample,
    }
}

fn is_awake(state: LabelText<'_>) -> bool {
    state.as_bytes() == b"awake"
}

/// Whether a page on which nothing wanted was found is a metrics page nevertheless. Looks no
/// further than the first line that the format knows.
fn looks_like_metrics(page: &[u8]) -> bool {
    let known = |line: &Line<'_>| !matches!(line, Line::Rejected(_) | Line::Comment);
    page.iter().all(u8::is_ascii_whitespace) || exposition::lines(page).any(|line| known(&line))
}

/// What an answer is that is no metrics page. `Display` goes on after "the answer is".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotMetrics {
    Json,
    Html,
    Other,
}

impl NotMetrics {
    /// Tells by how it starts.
    #[must_use]
    pub fn of(answer: &[u8]) -> Self {
        match answer.trim_ascii_start().first() {
            Some(b'{' | b'[') => Self::Json,
            Some(b'<') => Self::Html,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for NotMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => {
                "JSON, not a metrics page: TensorRT-LLM serve has its metrics page at /prometheus/metrics \
                 (metricPath, annotation metric-path)"
            }
            Self::Html => "HTML, not a metrics page: look to the path and the port (metricPath, metricPort)",
            Self::Other => "not a metrics page",
        })
    }
}

/// Takes in what the TYPE lines of a page say of metrics that have no samples, in one pass for all
/// `missing` ones, and gives back those that still have no reading.
///
/// A labelled family prints no series before something has happened, only its TYPE: of a counter
/// or a histogram it is known then that nothing has happened yet.
fn read_types<'w>(
    page: &[u8],
    wanted: &'w Wanted,
    mut missing: Vec<&'w Asked>,
    sample: &mut PodSample,
) -> Vec<&'w Asked> {
    if missing.is_empty() {
        return missing;
    }
    let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, asked) in missing.iter().enumerate() {
        for name in asked.names.iter().map(|name| wanted.families[*name].name.as_str()) {
            by_name.entry(name).or_default().push(index);
        }
    }
    let mut kinds: Vec<Option<Kind>> = vec![None; missing.len()];
    for (name, kind) in exposition::types(page) {
        steps::take(name.len());
        for name in [Some(name), name.strip_suffix("_total")].into_iter().flatten() {
            for index in by_name.get(name).into_iter().flatten() {
                kinds[*index].get_or_insert(kind);
            }
        }
    }
    let mut kinds = kinds.into_iter();
    missing.retain(|asked| {
        let Some(kind) = kinds.next().flatten() else { return true };
        let reading = match kind {
            Kind::Counter if asked.value => Reading::Value(0.0),
            Kind::Histogram if asked.histogram => Reading::Histogram(Histogram::default()),
            _ => {
                let name = asked.name.family();
                let known = sample.nature(&asked.name).is_some();
                match Nature::declared(name, name, kind).filter(|_| !known) {
                    // As what it is asked for there is none, and there will not be.
                    Some(nature) if asked.histogram || nature != Nature::Gauge => {
                        sample.remarks_mut().natures.push((asked.name.clone(), nature));
                    }
                    _ if known => {}
                    _ => sample.remarks_mut().lacking.push((asked.name.clone(), Lack::NoSeries)),
                }
                return true;
            }
        };
        sample.readings.push((asked.name.clone(), reading));
        false
    });
    missing
}

/// What a page has instead of what is wanted.
fn look_around(page: &[u8], wanted: &Wanted, missing: &[&Asked], sample: &mut PodSample) {
    /// Named of a page without an engine; more are counted.
    const NAMED: usize = 5;
    /// What every program exports that uses this or that library.
    const OF_ANY_PROGRAM: [&str; 5] = ["python_", "process_", "go_", "http_", "promhttp_"];

    let families = families_of(page);
    // What is there in another shape needs no other name.
    let without_nature = missing.iter().filter(|asked| sample.nature(&asked.name).is_none());
    let missing: Vec<&str> = without_nature.map(|asked| asked.name.family()).collect();
    sample.similar = wanted.similar.similar_names(&families, &missing);
    if !sample.engine && sample.download_remaining.is_none() {
        let own = |family: &&&str| !OF_ANY_PROGRAM.iter().any(|start| family.starts_with(start));
        let named = families.iter().filter(own).take(NAMED).map(|name| (*name).to_owned()).collect();
        let more = families.iter().filter(own).count().saturating_sub(NAMED);
        sample.remarks_mut().families = (named, more);
    }
}

enum Found<T> {
    Reading(T),
    /// It is there, but its value says nothing.
    Unknown(Lack),
    Nothing,
}

struct Reader<'a> {
    wanted: &'a Wanted,
    tallies: &'a Tallies,
}

impl Reader<'_> {
    fn reading(&self, asked: &Asked) -> Found<Reading> {
        for index in &asked.names {
            let Some(tally) = self.tallies.get(*index) else { continue };
            if asked.histogram {
                match tally.histogram(asked.buckets) {
                    Ok(Some(histogram)) => return Found::Reading(Reading::Histogram(histogram)),
                    Ok(None) => {}
                    Err(lack) => return Found::Unknown(lack),
                }
            }
            if asked.value && tally.number().is_some() {
                return self.value(*index).map_or_else(
                    || Found::Unknown(tally.lack().unwrap_or(Lack::NotANumber)),
                    |value| Found::Reading(Reading::Value(value)),
                );
            }
            if let Some(lack) = tally.lack() {
                return Found::Unknown(lack);
            }
        }
        if !self.any_seen(&asked.stand_ins) {
            return Found::Nothing;
        }
        self.first(&asked.stand_ins)
            .map_or(Found::Unknown(Lack::NotANumber), |value| Found::Reading(Reading::Value(value)))
    }

    /// What a metric is by the page, where the table does not have it and it is no plain level.
    fn nature(&self, asked: &Asked) -> Option<Nature> {
        let index = *asked.names.first()?;
        if !self.wanted.families[index].is_foreign {
            return None;
        }
        let tally = self.tallies.get(index)?;
        // Samples of a histogram's parts alone are as good as its TYPE.
        let parts_alone = asked.value && tally.number().is_none() && tally.sum.is_some();
        let nature = tally.nature.or(parts_alone.then_some(Nature::Histogram))?;
        (nature != Nature::Gauge || asked.histogram).then_some(nature)
    }

    fn demand(&self) -> PodDemand {
        let families = &self.wanted.demand;
        let waiting = if self.any_seen(&families.waiting) {
            self.first(&families.waiting)
        } else {
            self.first(&families.waiting_by_reason)
        };
        let running = if self.any_seen(&families.running) {
            self.first(&families.running)
        } else {
            let held = self.first(&families.held);
            held.zip(waiting).map(|(held, waiting)| (held - waiting).max(0.0))
        };
        PodDemand {
            waiting,
            running,
            rejected_total: families.rejections.iter().filter_map(|index| self.value(*index)).sum(),
        }
    }

    /// The value of the first family of `indices` that the page has.
    fn first(&self, indices: &[usize]) -> Option<f64> {
        let number = |index: &&usize| self.tallies.get(**index).and_then(Tally::number).is_some();
        self.value(*indices.iter().find(number)?)
    }

    /// The finite value of one family.
    fn value(&self, index: usize) -> Option<f64> {
        let value = self.tallies.get(index)?.number().filter(|value| value.is_finite())?;
        Some(if self.wanted.families[index].never_negative { value.max(0.0) } else { value })
    }

    fn any_seen(&self, indices: &[usize]) -> bool {
        indices.iter().any(|index| self.tallies.get(*index).is_some_and(Tally::seen))
    }

    /// A family of an engine shows that one is up; so does a metric of the user's own, which
    /// comes from whatever the user runs in its place.
    fn shows_engine(&self) -> bool {
        let is_there = |index: usize| self.tallies.get(index).is_some_and(Tally::has_samples);
        let families = self.wanted.families.iter().enumerate();
        let of_an_engine =
            families.filter(|(_, family)| family.shows_engine).any(|(index, _)| is_there(index));
        let of_the_user = || {
            let own = |asked: &&Asked| engine_of(asked.name.family()).is_none();
            self.wanted.asked.iter().filter(own).any(|asked| asked.names.iter().any(|index| is_there(*index)))
        };
        of_an_engine || of_the_user()
    }
}
