//! What the targets of one endpoint want of its page, compiled once for many scrapes.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::{
    super::{
        exposition::{Kind, Selector},
        names::MetricName,
    },
    families::{
        Concept, Engine, Merge, aliases, engine_of, family, is_under_ray, known_families, with_ray_prefix,
    },
};
use crate::{
    config::trigger::{Shape, WantedMetric},
    page::sample::PodSample,
};

/// The union of what the targets of one endpoint want, together with what activation and the
/// lifecycle of an endpoint need in any case. Two of these are equal where they were made of
/// the same metrics. Share it in an `Arc`.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub(super) asked: Vec<Asked>,
    pub(super) families: Vec<WantedFamily>,
    /// Indices of what is in `families` follow the same order.
    pub(super) selector: Selector,
    pub(super) demand: DemandFamilies,
    query: String,
}

/// One metric by the name under which targets ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub name: MetricName,
    pub value: bool,
    pub histogram: bool,
    pub buckets: bool,
    /// Indices into `families`: the name itself, then its aliases. The first one that a page
    /// has is read; they are the same thing, so they never add up.
    pub names: Vec<usize>,
    /// Indices of what stands in where none of `names` is there.
    pub stand_ins: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct WantedFamily {
    pub name: String,
    pub merge: Merge,
    /// Whether its presence shows that a model server is up.
    pub shows_engine: bool,
    pub is_sleep_state: bool,
    /// A family of the table never goes below zero; a lower value is a glitch of its server.
    pub never_negative: bool,
}

/// Indices into `families` of what every scrape reads, whatever is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct DemandFamilies {
    /// The names of all engines; a page has those of one.
    pub waiting: Vec<usize>,
    pub waiting_by_reason: Vec<usize>,
    pub running: Vec<usize>,
    /// These add up.
    pub rejections: Vec<usize>,
    pub download_remaining: Vec<usize>,
}

impl Wanted {
    /// Compiles the union of `metrics`.
    #[must_use]
    pub fn new(metrics: impl IntoIterator<Item = WantedMetric>) -> Self {
        let mut metrics: Vec<_> = metrics.into_iter().collect();
        metrics.sort();
        let mut families = Vec::new();
        let demand = DemandFamilies::all(&mut families);
        let mut asked: Vec<Asked> = Vec::new();
        for WantedMetric { name, shape } in metrics {
            if asked.last().is_none_or(|last| last.name != name) {
                asked.push(Asked::new(name, &mut families));
            }
            let Some(last) = asked.last_mut() else { continue };
            match shape {
                Shape::Value => last.value = true,
                Shape::Histogram { buckets } => {
                    last.histogram = true;
                    last.buckets |= buckets;
                }
            }
        }
        let selector = Selector::new(families.iter().map(|family| &family.name));
        let query = query(&asked);
        Self { asked, families, selector, demand, query }
    }

    /// The query that asks a server for these samples and no others: `name[]=…&name[]=…`.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The metrics that targets ask for and that `sample` has no reading of.
    pub fn missing<'a>(&'a self, sample: &'a PodSample) -> impl Iterator<Item = &'a MetricName> {
        self.asked.iter().map(|asked| &asked.name).filter(|name| sample.reading(name).is_none())
    }
}

/// Compiled unions, so that all who want the same share one: it is a search with tables, and
/// most triggers of a cluster ask for the same few metrics.
#[derive(Debug, Default)]
pub struct SharedWanted(HashMap<Vec<WantedMetric>, Weak<Wanted>>);

impl SharedWanted {
    /// The union of `metrics`, compiled unless somebody still holds it.
    pub fn of(&mut self, metrics: impl IntoIterator<Item = WantedMetric>) -> Arc<Wanted> {
        let mut metrics: Vec<_> = metrics.into_iter().collect();
        metrics.sort();
        metrics.dedup();
        if let Some(wanted) = self.0.get(&metrics).and_then(Weak::upgrade) {
            return wanted;
        }
        self.0.retain(|_, wanted| wanted.strong_count() > 0);
        let wanted = Arc::new(Wanted::new(metrics.iter().cloned()));
        self.0.insert(metrics, Arc::downgrade(&wanted));
        wanted
    }
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        // Everything else follows from this.
        self.asked == other.asked
    }
}

impl Eq for Wanted {}

impl Asked {
    fn new(name: MetricName, families: &mut Vec<WantedFamily>) -> Self {
        let mut names = vec![intern(name.as_str(), families)];
        names.extend(aliases(name.as_str()).iter().map(|alias| intern(alias, families)));
        let stand_ins = match family(name.as_str()).and_then(|family| family.concept) {
            Some(Concept::Waiting) => all_names(Concept::WaitingByReason, families),
            _ => Vec::new(),
        };
        Self { name, value: false, histogram: false, buckets: false, names, stand_ins }
    }
}

impl DemandFamilies {
    fn all(families: &mut Vec<WantedFamily>) -> Self {
        // The sleep state needs no index: the reader knows it by its flag.
        all_names(Concept::SleepState, families);
        Self {
            waiting: all_names(Concept::Waiting, families),
            waiting_by_reason: all_names(Concept::WaitingByReason, families),
            running: all_names(Concept::Running, families),
            rejections: all_names(Concept::Rejections, families),
            download_remaining: all_names(Concept::DownloadRemaining, families),
        }
    }
}

/// The indices of every name that any engine has for `concept`.
fn all_names(concept: Concept, families: &mut Vec<WantedFamily>) -> Vec<usize> {
    let known = known_families().iter().filter(|family| family.concept == Some(concept));
    let names: Vec<String> = known
        .flat_map(|family| [Some(family.name.to_owned()), with_ray_prefix(family.name)])
        .flatten()
        .collect();
    names.iter().map(|name| intern(name, families)).collect()
}

/// The index of `name` in `families`, where it is added if need be.
fn intern(name: &str, families: &mut Vec<WantedFamily>) -> usize {
    if let Some(index) = families.iter().position(|family| family.name == name) {
        return index;
    }
    let known = family(name);
    families.push(WantedFamily {
        name: name.to_owned(),
        merge: known.map_or(Merge::Sum, |family| family.merge),
        shows_engine: engine_of(name).is_some_and(|engine| engine != Engine::Kaito),
        is_sleep_state: known.is_some_and(|family| family.concept == Some(Concept::SleepState)),
        never_negative: known.is_some_and(|family| family.concept != Some(Concept::DownloadRemaining)),
    });
    families.len() - 1
}

/// The sample names of the filtered page. They are those of the engines whose families are
/// asked for (vLLM where it is none that we know); a name that a server does not know costs
/// it a lookup.
fn query(asked: &[Asked]) -> String {
    let mut names: Vec<String> = Vec::new();
    for metric in asked {
        let asked_name = metric.name.as_str();
        let same_prefix = |alias: &String| is_under_ray(alias) == is_under_ray(asked_name);
        let aliases = aliases(asked_name).into_iter().filter(same_prefix);
        for name in std::iter::once(asked_name.to_owned()).chain(aliases) {
            if metric.value {
                names.extend(value_samples(&name));
            }
            if metric.histogram {
                names.extend(["_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
            }
            if metric.buckets {
                names.push(format!("{name}_bucket"));
            }
        }
    }
    let asked_engines: Vec<(Engine, bool)> = asked
        .iter()
        .filter_map(|metric| Some((engine_of(metric.name.as_str())?, is_under_ray(metric.name.as_str()))))
        .filter(|(engine, _)| *engine != Engine::Kaito)
        .collect();
    let engines = if asked_engines.is_empty() { vec![(Engine::Vllm, false)] } else { asked_engines };
    for family in known_families() {
        let needed = matches!(
            family.concept,
            Some(
                Concept::Waiting
                    | Concept::WaitingByReason
                    | Concept::Running
                    | Concept::Rejections
                    | Concept::SleepState
            )
        );
        if !needed {
            continue;
        }
        if family.engine == Engine::Kaito {
            names.extend(value_samples(family.name));
        }
        for (_, under_ray) in engines.iter().filter(|(engine, _)| *engine == family.engine) {
            let name = under_ray.then(|| with_ray_prefix(family.name)).flatten();
            names.extend(value_samples(name.as_deref().unwrap_or(family.name)));
        }
    }
    names.sort();
    names.dedup();
    names.iter().map(|name| format!("name[]={name}")).collect::<Vec<_>>().join("&")
}

/// The names that the samples of a one-number family may have.
fn value_samples(name: &str) -> Vec<String> {
    let with_total = || format!("{name}_total");
    match family(name).map(|family| family.kind) {
        _ if name.ends_with("_total") => vec![name.to_owned()],
        Some(Kind::Gauge) => vec![name.to_owned()],
        Some(Kind::Counter) => vec![with_total()],
        _ => vec![name.to_owned(), with_total()],
    }
}
