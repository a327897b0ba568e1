//! The readings of one decision: what the replicas of a target count as, and each metric of its
//! trigger read once over those that serve. The result holds plain values and no replica, so that
//! whatever is made of it ([`super::aggregate`], [`super::policy`]) is a function of numbers.

use std::{sync::Arc, time::Duration};

use super::{
    activation::Demand,
    fill::{Census, View, merge},
    snapshot::Unavailable,
};
use crate::{
    config::trigger::{Aggregation, PolicyKind, Rule, Trigger},
    endpoint::pod::{Phase, Pod, WindowKey},
    fleet::{model::InferenceSet, shortage::Missing},
    names::MetricName,
    page::sample::{Histogram, Reading},
    time::Moment,
};

/// Everything that is known of an InferenceSet when a decision is made.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub set: &'a InferenceSet,
    pub pods: &'a [Pod],
    /// The replicas for which there is no pod, with their times. One that is not listed is
    /// missing since a moment ago.
    pub missing: &'a [Missing],
    /// For how long a sample speaks for its pod.
    pub staleness: Duration,
    /// Requests that the gateway holds and has refused for want of a replica; `None` where
    /// there is no gateway or it can't be read.
    pub gateway: Option<f64>,
    /// When the source of all this was last heard from.
    pub heard: Moment,
}

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

/// What the replicas that have a metric say of it. There is one such replica at least.
#[derive(Debug)]
pub(super) enum Measured {
    /// A gauge or counter: the sum over the replicas, and the largest of them.
    Level { sum: f64, largest: f64 },
    /// What their histograms observed over a window: each replica's increase first, then their
    /// sum, so that a busy replica weighs more and a restarted or removed one is no decrease.
    Window { increase: Histogram, covered: Duration, warming_up: bool },
}

impl Readings {
    /// Reads what `trigger` needs of `population`.
    pub(super) fn take(trigger: &Trigger, population: &Population<'_>, observed: &Observed<'_>) -> Self {
        let metrics = match population.settled() {
            Some(settled) => Err(settled),
            None => Ok(population.metrics(&trigger.rule)),
        };
        Self {
            census: population.census,
            absent: population.absent,
            ready: observed.set.ready_replicas,
            demand: population.demand(observed),
            metrics,
        }
    }
}

impl MetricReading {
    pub(super) fn measured(&self) -> Result<&Measured, Unavailable> {
        self.measured.as_ref().map_err(Clone::clone)
    }
}

pub(super) fn not_a_level(metric: &MetricName) -> Unavailable {
    Unavailable::WrongKind {
        metric: metric.clone(),
        found: "a histogram",
        needed: "a gauge or counter; use windowed-avg or quantile",
    }
}

pub(super) fn not_a_histogram(metric: &MetricName) -> Unavailable {
    Unavailable::WrongKind {
        metric: metric.clone(),
        found: "no histogram",
        needed: "a histogram; use sum, service-avg or max",
    }
}

/// The replicas of a target at one moment, sorted by what they count as.
pub(super) struct Population<'a> {
    pub pods: Vec<(View<()>, &'a Pod)>,
    pub census: Census,
    /// Replicas that were not up by their deadline.
    pub absent: u32,
}

impl<'a> Population<'a> {
    pub(super) fn count(trigger: &Trigger, observed: &Observed<'a>, now: Moment) -> Self {
        let young = |since: Moment| now.saturating_since(since) < trigger.in_flight_deadline;
        let mut census = Census { replicas: observed.set.replicas, ..Census::default() };
        let (mut absent, mut living) = (0, 0);
        let mut pods = Vec::with_capacity(observed.pods.len());
        for pod in observed.pods {
            let view = match pod.phase(now, observed.staleness) {
                Phase::Draining => continue,
                Phase::Serving | Phase::Sleeping => View::Known(()),
                Phase::Stale => View::Unknown,
                Phase::Pending | Phase::Loading if young(pod.endpoint.since) => View::InFlight,
                Phase::Pending | Phase::Loading => View::Absent,
            };
            living += 1;
            match view {
                View::Known(()) => census.known += 1,
                View::Unknown => census.unknown += 1,
                View::InFlight => census.in_flight += 1,
                View::Absent => absent += 1,
            }
            pods.push((view, pod));
        }
        let not_created = census.replicas.saturating_sub(living);
        let overdue = observed.missing.iter().filter(|missing| !young(missing.since));
        let overdue = overdue.map(|missing| missing.replicas).fold(0, u32::saturating_add).min(not_created);
        absent = overdue.saturating_add(absent);
        census.in_flight = census.in_flight.saturating_add(not_created - overdue);
        // Never more than R replicas on their way, however many pods a surge has made.
        let room = census.replicas.saturating_sub(census.known.saturating_add(census.unknown));
        census.in_flight = census.in_flight.min(room);
        Self { pods, census, absent }
    }

    fn settled(&self) -> Option<Settled> {
        let Census { replicas, known, unknown, in_flight } = self.census;
        if replicas == 0 {
            return Some(Settled::NoReplicas);
        }
        if known > 0 || unknown > 0 {
            return None;
        }
        Some(if in_flight > 0 { Settled::AllInFlight } else { Settled::AllAbsent })
    }

    fn demand(&self, observed: &Observed<'_>) -> Demand {
        let mut demand =
            Demand { in_flight: self.census.in_flight, replicas: self.census.replicas, ..Demand::default() };
        for (view, pod) in &self.pods {
            match (view, pod.latest()) {
                (View::Known(()), Some((_, sample))) => {
                    let said = sample.demand;
                    demand.running += said.running.unwrap_or(0.0).max(0.0);
                    demand.amount += said.running.unwrap_or(0.0).max(0.0)
                        + said.waiting.unwrap_or(0.0).max(0.0)
                        + pod.rejections();
                    if said.running.is_some() && said.waiting.is_some() {
                        demand.known += 1;
                    } else {
                        demand.unknown += 1;
                    }
                }
                (View::Unknown, _) => demand.unknown += 1,
                _ => {}
            }
        }
        demand.amount += observed.gateway.unwrap_or(0.0).max(0.0);
        // Counts beyond what a number can hold are a great many requests, and no infinity.
        demand.amount = demand.amount.min(f64::MAX);
        demand.running = demand.running.min(f64::MAX);
        demand
    }

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

    /// A gauge or counter.
    fn level(&self, metric: &MetricName) -> MetricReading {
        let (mut sum, mut largest) = (0.0, 0.0_f64);
        let mut histograms = 0_u32;
        let read = self.each(metric, |pod| match pod.latest()?.1.reading(metric)? {
            Reading::Value(value) => {
                sum += value;
                largest = largest.max(*value);
                Some(())
            }
            Reading::Histogram(_) => {
                histograms += 1;
                None
            }
        });
        let measured = if read.census.known == 0 && histograms > 0 {
            Err(not_a_level(metric))
        } else {
            self.present(&read).map(|()| Measured::Level { sum, largest })
        };
        self.reading(&read, measured)
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
        let (mut increase, mut covered, mut warming_up) = (Histogram::default(), Duration::MAX, false);
        let deltas = self.each(metric, |pod| {
            let delta = pod.window(&key)?.delta()?;
            merge(&mut increase, &delta.increase);
            covered = covered.min(delta.covered);
            warming_up |= delta.warming_up;
            Some(())
        });
        let measured = self.present(&present).and_then(|()| {
            if histograms == 0 {
                return Err(not_a_histogram(metric));
            }
            if deltas.census.known == 0 {
                return Err(Unavailable::WindowStarting { metric: metric.clone() });
            }
            Ok(Measured::Window { increase, covered, warming_up })
        });
        self.reading(&deltas, measured)
    }

    /// Goes over the replicas that serve; those of which `read` gives nothing are unknown for
    /// this metric.
    fn each(&self, metric: &MetricName, mut read: impl FnMut(&'a Pod) -> Option<()>) -> Found<'a> {
        let mut found = Found { metric: metric.clone(), census: self.census, lacking: Vec::new() };
        for (view, pod) in &self.pods {
            if *view == View::Known(()) && read(pod).is_none() {
                found.census.known -= 1;
                found.census.unknown += 1;
                found.lacking.push(pod);
            }
        }
        found
    }

    fn reading(&self, found: &Found<'_>, measured: Result<Measured, Unavailable>) -> MetricReading {
        let lacking = || {
            let count = found.lacking.len();
            (count > 0).then(|| format!("{count} can be read and have no {}", found.metric).into())
        };
        let reason = found.census.mostly_unknown().then(|| self.obstacle().or_else(lacking)).flatten();
        MetricReading { metric: found.metric.clone(), census: found.census, measured, reason }
    }

    /// Fails where nobody has the metric although somebody serves, and where nobody serves.
    fn present(&self, found: &Found<'_>) -> Result<(), Unavailable> {
        if found.census.known > 0 {
            return Ok(());
        }
        if self.census.known > 0 {
            let (metric, similar) = (found.metric.clone(), found.similar());
            return Err(Unavailable::MissingMetric { metric, similar });
        }
        Err(Unavailable::NoneKnown { replicas: self.census.replicas, reason: self.obstacle() })
    }

    /// Why a replica can't be read at present.
    fn obstacle(&self) -> Option<Arc<str>> {
        let unknown = self.pods.iter().filter(|(view, _)| *view == View::Unknown);
        unknown.map(|(_, pod)| pod).find_map(|pod| pod.obstacle())
    }
}

/// How far a metric was found.
struct Found<'a> {
    metric: MetricName,
    census: Census,
    /// Replicas that serve without it.
    lacking: Vec<&'a Pod>,
}

impl Found<'_> {
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
