//! The readings of one decision: each metric of a trigger, read once over the replicas. The result holds plain values and no replica, so that
//! whatever is made of it ([`super::aggregate`], [`super::policy`]) is a function of numbers.

use std::{sync::Arc, time::Duration};

use super::{
    activation::Demand,
    fill::{Census, View, merge},
    population::{Observed, Population},
    snapshot::Unavailable,
};
use crate::{
    config::trigger::{Aggregation, PolicyKind, Rule, Trigger},
    endpoint::pod::{Pod, WindowKey},
    names::MetricName,
    page::{
        sample::{Histogram, Lack, Reading},
        usage::{self, Misuse, Nature, Usage},
    },
};

/// What one decision is made of.
#[derive(Debug)]
pub(super) struct Readings {
    pub census: Census,
    /// Replicas that were not up by their deadline.
    pub absent: u32,
    /// `status.readyReplicas`.
    pub ready: u32,
    pub demand: Demand,
    /// One for each metric of the trigger, in its order; none for a gate. An error where no
    /// replica is there to be read: then their states decide, whatever the metric.
    pub metrics: Result<Vec<MetricReading>, Settled>,
}

/// What the replicas' states alone decide.
#[derive(Clone, Copy, Debug)]
pub(super) enum Settled {
    /// No replica is wanted.
    NoReplicas,
    /// Every replica is on its way.
    AllInFlight,
    /// No replica came up by its deadline.
    AllAbsent,
}

/// One metric over the replicas that serve.
#[derive(Debug)]
pub(super) struct MetricReading {
    pub metric: MetricName,
    /// The census for this metric: a replica that lacks it is unknown.
    pub census: Census,
    pub measured: Result<Measured, Unavailable>,
    /// Why a replica is unknown, where more are than not.
    pub reason: Option<Arc<str>>,
}

/// What the replicas that have a metric say of it.
#[derive(Debug)]
pub(super) enum Measured {
    Level(Level),
    Window(Window),
}

/// One number of each replica.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Level {
    /// Over the replicas that serve.
    pub sum: f64,
    /// Of those, and at least 0.
    pub largest: f64,
    /// Over the replicas that sleep.
    pub asleep: f64,
}

/// What the histograms of the replicas that serve observed over a window: each replica's increase
/// first, then their sum, so that a busy replica weighs more and a restarted or removed one is no
/// decrease.
#[derive(Debug)]
pub(super) struct Window {
    pub increase: Histogram,
    /// The least that a replica has of it.
    pub covered: Duration,
    pub warming_up: bool,
    /// Replicas in which nothing was observed and that do not say how many requests they hold.
    pub silent: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self { increase: Histogram::default(), covered: Duration::MAX, warming_up: false, silent: 0 }
    }
}

impl Readings {
    /// Reads what `trigger` needs of `population`.
    pub(super) fn take(trigger: &Trigger, population: &Population<'_>, observed: &Observed<'_>) -> Self {
        let metrics = match settled(population.census) {
            Some(settled) => Err(settled),
            None => Ok(Reader { population }.metrics(&trigger.rule)),
        };
        Self {
            census: population.census,
            absent: population.absent,
            ready: observed.set.ready_replicas,
            demand: population.demand(&trigger.rule, observed),
            metrics,
        }
    }
}

fn settled(census: Census) -> Option<Settled> {
    let Census { replicas, known, unknown, asleep, in_flight } = census;
    if replicas == 0 {
        return Some(Settled::NoReplicas);
    }
    if known > 0 || unknown > 0 || asleep > 0 {
        return None;
    }
    Some(if in_flight > 0 { Settled::AllInFlight } else { Settled::AllAbsent })
}

impl MetricReading {
    pub(super) fn measured(&self) -> Result<&Measured, Unavailable> {
        self.measured.as_ref().map_err(Clone::clone)
    }
}

pub(super) fn not_a_level(metric: &MetricName) -> Unavailable {
    let (nature, usage) = (Nature::Histogram, Usage::Level);
    Unavailable::Misused(Misuse { metric: metric.clone(), nature, usage })
}

pub(super) fn not_a_histogram(metric: &MetricName) -> Unavailable {
    Unavailable::WrongKind {
        metric: metric.clone(),
        found: "no histogram",
        needed: "a histogram; use sum, service-avg or max",
    }
}

/// Reads metrics over the replicas of a target.
struct Reader<'p, 'a> {
    population: &'p Population<'a>,
}

impl<'a> Reader<'_, 'a> {
    fn metrics(&self, rule: &Rule) -> Vec<MetricReading> {
        match rule {
            Rule::Single { metric, aggregation, .. } => match *aggregation {
                Aggregation::Gate => Vec::new(),
                Aggregation::Sum | Aggregation::ServiceAvg | Aggregation::Max => {
                    vec![self.level(metric)]
                }
                Aggregation::WindowedAvg { window } | Aggregation::Quantile { window, .. } => {
                    vec![self.window(metric, window)]
                }
            },
            Rule::Policy(policy) => policy
                .metrics
                .iter()
                .map(|metric| match metric.kind {
                    PolicyKind::Gauge => self.level(&metric.name),
                    PolicyKind::Histogram { window, .. } => self.window(&metric.name, window),
                })
                .collect(),
        }
    }

    /// A gauge.
    fn level(&self, metric: &MetricName) -> MetricReading {
        let mut histograms = 0_u32;
        let (found, level) = self.levels(metric, |pod| match pod.latest()?.1.reading(metric)? {
            Reading::Value(value) => Some(*value),
            Reading::Histogram(_) => {
                histograms += 1;
                None
            }
        });
        let measured = if found.census.known == 0 && histograms > 0 {
            Err(not_a_level(metric))
        } else if found.has_remarks {
            self.check(metric, Usage::Level)
                .and_then(|()| self.present(&found))
                .map(|()| Measured::Level(level))
        } else {
            self.present(&found).map(|()| Measured::Level(level))
        };
        self.reading(&found, measured)
    }

    /// Adds up what `read` gives of each replica.
    fn levels(
        &self,
        metric: &MetricName,
        mut read: impl FnMut(&'a Pod) -> Option<f64>,
    ) -> (Found<'a>, Level) {
        let mut level = Level::default();
        let found = self.each(metric, |pod| {
            let value = read(pod)?;
            level.sum += value;
            level.largest = level.largest.max(value);
            Some(())
        });
        level.asleep = self.population.of(View::Asleep).filter_map(read).sum();
        (found, level)
    }

    /// What a histogram observed over a window.
    fn window(&self, metric: &MetricName, span: Duration) -> MetricReading {
        let mut histograms = 0_u32;
        let present = self.each(metric, |pod| {
            let reading = pod.latest()?.1.reading(metric)?;
            histograms += u32::from(matches!(reading, Reading::Histogram(_)));
            Some(())
        });
        let key = WindowKey { metric: metric.clone(), span };
        let mut window = Window::default();
        let deltas = self.each(metric, |pod| {
            let delta = pod.window(&key)?.delta()?;
            window.silent += u32::from(delta.increase.count <= 0.0 && !pod.tells_demand());
            merge(&mut window.increase, &delta.increase);
            window.covered = window.covered.min(delta.covered);
            window.warming_up |= delta.warming_up;
            Some(())
        });
        let measured =
            self.check(metric, Usage::Window).and_then(|()| self.present(&present)).and_then(|()| {
                if present.census.known > 0 && histograms == 0 {
                    return Err(not_a_histogram(metric));
                }
                if present.census.known > 0 && deltas.census.known == 0 {
                    return Err(Unavailable::WindowStarting { metric: metric.clone() });
                }
                Ok(Measured::Window(window))
            });
        self.reading(&deltas, measured)
    }

    /// Goes over the replicas that serve; those of which `read` gives nothing are unknown for
    /// this metric.
    fn each(&self, metric: &MetricName, mut read: impl FnMut(&'a Pod) -> Option<()>) -> Found<'a> {
        let census = self.population.census;
        let mut found = Found { metric: metric.clone(), census, has_remarks: false, lacking: Vec::new() };
        for pod in self.population.of(View::Known) {
            found.has_remarks |= pod.latest().is_some_and(|(_, sample)| sample.remarks.is_some());
            if read(pod).is_none() {
                found.census.known -= 1;
                found.census.unknown += 1;
                found.lacking.push(pod);
            }
        }
        found
    }

    /// Fails where a page says that `metric` is nothing that can be read for `usage`.
    fn check(&self, metric: &MetricName, usage: Usage) -> Result<(), Unavailable> {
        let nature = self.population.of(View::Known).find_map(|pod| pod.latest()?.1.nature(metric));
        let checked = nature.map_or(Ok(()), |nature| usage::check(metric, nature, usage));
        checked.map_err(Unavailable::Misused)
    }

    fn reading(&self, found: &Found<'_>, measured: Result<Measured, Unavailable>) -> MetricReading {
        let lacking = || {
            let count = found.lacking.len();
            (count > 0).then(|| format!("{count} can be read and have no {}", found.metric).into())
        };
        let reason =
            found.census.mostly_unknown().then(|| self.population.obstacle().or_else(lacking)).flatten();
        MetricReading { metric: found.metric.clone(), census: found.census, measured, reason }
    }

    /// Fails where nobody has the metric although somebody serves, and where nobody can be read
    /// who is to serve.
    fn present(&self, found: &Found<'_>) -> Result<(), Unavailable> {
        let Census { replicas, known, unknown, asleep, .. } = self.population.census;
        if found.census.known > 0 {
            return Ok(());
        }
        if known > 0 {
            let metric = found.metric.clone();
            return Err(match found.lack() {
                Some(lack) => Unavailable::Lacking { metric, lack },
                None => Unavailable::MissingMetric { metric, similar: found.similar() },
            });
        }
        if unknown > 0 {
            let reason = self.population.obstacle();
            return Err(Unavailable::NoneKnown { replicas: replicas.saturating_sub(asleep), reason });
        }
        // All that are there sleep.
        Ok(())
    }
}

/// How far a metric was found.
struct Found<'a> {
    metric: MetricName,
    census: Census,
    /// Whether a page says more of some metric than its reading.
    has_remarks: bool,
    /// Replicas that serve without it.
    lacking: Vec<&'a Pod>,
}

impl Found<'_> {
    /// Why a page that has something of it gives no reading.
    fn lack(&self) -> Option<Lack> {
        self.lacking.iter().find_map(|pod| pod.latest()?.1.lack(&self.metric))
    }

    /// Names on the pages of the replicas that lack it which resemble it, each once.
    fn similar(&self) -> Vec<String> {
        let mut similar: Vec<String> = Vec::new();
        for (_, sample) in self.lacking.iter().filter_map(|pod| pod.latest()) {
            for name in &sample.similar {
                if !similar.contains(name) {
                    similar.push(name.clone());
                }
            }
        }
        similar
    }
}
