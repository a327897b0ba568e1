//! What the targets of one endpoint want of its page, compiled once for many scrapes.

use std::{
    collections::{HashMap, HashSet},
    hash::RandomState,
    sync::{Arc, Weak},
};

use super::{
    super::{
        exposition::{Kind, Selector},
        names::{LabelMatchers, MetricName},
    },
    families::{
        Concept, Engine, Merge, Overlap, aliases, engine_of, family, is_under_ray, known_families, overlap,
        with_ray_prefix,
    },
    similar::Memo,
    usage::Nature,
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
    pub(super) similar: Arc<Memo>,
    /// For telling series apart by their labels.
    pub(super) hasher: RandomState,
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
    /// Which of its series are wanted; `None` where all are.
    pub labels: Option<Arc<LabelMatchers>>,
    pub merge: Merge,
    /// Where it adds up: which of its series do not.
    pub overlap: Option<&'static Overlap>,
    /// What it is has to be read off the page: the table does not have it.
    pub is_foreign: bool,
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
    /// Waiting and running in one number.
    pub held: Vec<usize>,
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
        let mut families = Families::default();
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
        let families = families.list;
        let selector = Selector::new(families.iter().map(|family| &family.name));
        let query = query(&asked);
        let (similar, hasher) = (Arc::default(), RandomState::new());
        Self { asked, families, selector, demand, similar, hasher, query }
    }

    /// The query that asks a server for these samples and no others: `name[]=…&name[]=…`.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The metrics that targets ask for and that `sample` has no reading of.
    pub fn missing<'a>(&'a self, sample: &'a PodSample) -> impl Iterator<Item = &'a MetricName> {
        let read: HashSet<&MetricName> = sample.readings.iter().map(|(name, _)| name).collect();
        self.asked.iter().map(|asked| &asked.name).filter(move |name| !read.contains(name))
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
    fn new(name: MetricName, families: &mut Families) -> Self {
        let (family_name, labels) = (name.family(), name.labels());
        let mut names = vec![families.intern(family_name, labels)];
        names.extend(aliases(family_name).iter().map(|alias| families.intern(alias, labels)));
        let stand_ins = match family(family_name).and_then(|family| family.concept) {
            Some(Concept::Waiting) => families.all_names(Concept::WaitingByReason, labels),
            _ => Vec::new(),
        };
        Self { name, value: false, histogram: false, buckets: false, names, stand_ins }
    }
}

impl DemandFamilies {
    fn all(families: &mut Families) -> Self {
        let mut all_names = |concept| families.all_names(concept, None);
        // The sleep state needs no index: the reader knows it by its flag.
        all_names(Concept::SleepState);
        Self {
            waiting: all_names(Concept::Waiting),
            waiting_by_reason: all_names(Concept::WaitingByReason),
            running: all_names(Concept::Running),
            held: all_names(Concept::Held),
            rejections: all_names(Concept::Rejections),
            download_remaining: all_names(Concept::DownloadRemaining),
        }
    }
}

/// Families while they are collected, each once.
#[derive(Debug, Default)]
struct Families {
    list: Vec<WantedFamily>,
    /// By name and labels.
    index: HashMap<(String, Option<String>), usize>,
}

impl Families {
    /// The indices of every name that any engine has, or had, for `concept`.
    fn all_names(&mut self, concept: Concept, labels: Option<&Arc<LabelMatchers>>) -> Vec<usize> {
        let known = known_families().iter().filter(|family| family.concept == Some(concept));
        let names: Vec<String> = known
            .flat_map(|family| {
                let formerly = family.formerly.map(str::to_owned);
                [Some(family.name.to_owned()), formerly, with_ray_prefix(family.name)]
            })
            .flatten()
            .collect();
        names.iter().map(|name| self.intern(name, labels)).collect()
    }

    /// The index of the series of `name` with these `labels`, which are added if need be.
    fn intern(&mut self, name: &str, labels: Option<&Arc<LabelMatchers>>) -> usize {
        let list = &mut self.list;
        let key = (name.to_owned(), labels.map(|labels| labels.to_string()));
        *self.index.entry(key).or_insert_with(|| {
            let known = family(name);
            let merge = known.map_or(Merge::Sum, |family| family.merge);
            list.push(WantedFamily {
                name: name.to_owned(),
                labels: labels.cloned(),
                merge,
                overlap: overlap(name).filter(|_| merge == Merge::Sum),
                is_foreign: Nature::known(name).is_none(),
                shows_engine: engine_of(name).is_some_and(|engine| engine != Engine::Kaito),
                is_sleep_state: labels.is_none()
                    && known.is_some_and(|family| family.concept == Some(Concept::SleepState)),
                never_negative: known
                    .is_some_and(|family| family.concept != Some(Concept::DownloadRemaining)),
            });
            list.len() - 1
        })
    }
}

/// The sample names of the filtered page. They are those of the engines whose families are
/// asked for (vLLM where it is none that we know); a name that a server does not know costs
/// it a lookup.
fn query(asked: &[Asked]) -> String {
    let mut names: Vec<String> = Vec::new();
    for metric in asked {
        let asked_name = metric.name.family();
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
        .filter_map(|metric| Some((engine_of(metric.name.family())?, is_under_ray(metric.name.family()))))
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
                    | Concept::Held
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
