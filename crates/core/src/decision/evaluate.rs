//! One decision about one target: from pods to a [`Snapshot`].

use std::{sync::Arc, time::Duration};

use super::{
    activation::{Activation, Activity, Demand},
    policy,
    snapshot::{Basis, Snapshot, Unavailable, Value},
};
use crate::{
    config::trigger::{Aggregation, Rule, Trigger},
    decision::{
        fill::{Census, View, filled_total, histogram_quantile, merge},
        warning::Stuck,
    },
    endpoint::pod::{Phase, Pod, WindowKey},
    fleet::model::InferenceSet,
    names::MetricName,
    page::sample::{Histogram, Reading},
    time::Moment,
};

/// For how long the watch may be silent before what it said is no longer believed. An API
/// server sends a bookmark about once a minute.
pub const WATCH_SILENCE: Duration = Duration::from_secs(90);

/// Everything that is known of an InferenceSet when a decision is made.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub set: &'a InferenceSet,
    pub pods: &'a [Pod],
    /// Since when there have been fewer pods than replicas wanted; `None` while there are not.
    pub short_since: Option<Moment>,
    /// For how long a sample speaks for its pod.
    pub staleness: Duration,
    /// Requests that the gateway holds and has refused for want of a replica; `None` where
    /// there is no gateway or it can't be read.
    pub gateway: Option<f64>,
    /// When the source of all this was last heard from.
    pub heard: Moment,
    /// The newest error of a scrape.
    pub last_error: Option<&'a Arc<str>>,
}

/// Decides about the target of `trigger` at `now`.
pub fn evaluate(
    trigger: &Trigger,
    observed: &Observed<'_>,
    activation: &mut Activation,
    now: Moment,
) -> Snapshot {
    let population = Population::count(trigger, observed, now);
    let demand = population.demand(observed);
    let mut activity = activation.step(now, &demand);
    let mut values = values(trigger, &population, observed, &demand);
    let silence = now.saturating_since(observed.heard);
    // At zero replicas nothing may fail, and there is nothing to scale down by mistake. But
    // where demand was pushed since the watch was last heard, there may be replicas by now.
    let asleep = observed.set.replicas == 0;
    let woken_unseen = asleep && activation.last_demand().is_some_and(|at| at >= observed.heard);
    if silence >= WATCH_SILENCE && (!asleep || (woken_unseen && !activity.is_active())) {
        values.fill(Err(Unavailable::WatchSilent(silence)));
        if asleep {
            activity = Activity::Unknown;
        }
    }
    Snapshot {
        at: now,
        replicas: Some(observed.set.replicas),
        census: population.census,
        stuck: population.absent,
        demand,
        activity,
        values,
    }
}

/// When the decision would change by the passing of time alone: a pod going stale or past
/// its deadline, a hold that ends. At that very moment it has changed.
#[must_use]
pub fn next_change(
    trigger: &Trigger,
    observed: &Observed<'_>,
    activation: &Activation,
    now: Moment,
) -> Option<Moment> {
    let deadline = trigger.in_flight_deadline;
    let pods = observed.pods.iter().filter_map(|pod| match pod.phase(now, observed.staleness) {
        Phase::Serving | Phase::Sleeping => pod.speaks_until(observed.staleness),
        Phase::Pending | Phase::Loading => Some(pod.endpoint.since + deadline),
        Phase::Draining | Phase::Stale => None,
    });
    pods.chain(observed.short_since.map(|since| since + deadline))
        .chain(activation.next_change())
        .chain((observed.set.replicas > 0).then(|| observed.heard + WATCH_SILENCE))
        .filter(|moment| *moment > now)
        .min()
}

/// The replicas that were not up by their deadline, as [`Snapshot::stuck`] counts them.
#[must_use]
pub fn stuck(trigger: &Trigger, observed: &Observed<'_>, now: Moment) -> Stuck {
    let population = Population::count(trigger, observed, now);
    let absent = population.pods.iter().filter(|(view, _)| *view == View::Absent);
    let pods: Vec<_> = absent.map(|(_, pod)| (pod.endpoint.uid.clone(), pod.endpoint.pod.clone())).collect();
    let counted = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    let not_created = population.absent.saturating_sub(counted);
    Stuck { pods, not_created, deadline: trigger.in_flight_deadline }
}

/// The replicas sorted by what they count as.
struct Population<'a> {
    pods: Vec<(View<()>, &'a Pod)>,
    census: Census,
    /// Replicas that were not up by their deadline.
    absent: u32,
}

impl<'a> Population<'a> {
    fn count(trigger: &Trigger, observed: &Observed<'a>, now: Moment) -> Self {
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
        if observed.short_since.is_none_or(young) {
            census.in_flight += not_created;
        } else {
            absent += not_created;
        }
        // Never more than R replicas on their way, however many pods a surge has made.
        let room = census.replicas.saturating_sub(census.known + census.unknown);
        census.in_flight = census.in_flight.min(room);
        Self { pods, census, absent }
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
        demand
    }

    /// The readings of `metric` by the replicas that serve, those of a wrong kind or without
    /// the metric as unknown.
    fn read<'p, T>(&'p self, metric: &MetricName, kind: impl Fn(&'p Pod) -> Option<T>) -> Readings<T> {
        let mut readings =
            Readings { known: Vec::new(), census: self.census, metric: metric.clone(), similar: Vec::new() };
        for (view, pod) in &self.pods {
            if *view != View::Known(()) {
                continue;
            }
            match kind(pod) {
                Some(value) => readings.known.push(value),
                None => {
                    readings.census.known -= 1;
                    readings.census.unknown += 1;
                    if let Some((_, sample)) = pod.latest() {
                        for name in &sample.similar {
                            if !readings.similar.contains(name) {
                                readings.similar.push(name.clone());
                            }
                        }
                    }
                }
            }
        }
        readings
    }
}

/// One metric over the replicas that serve.
struct Readings<T> {
    known: Vec<T>,
    /// The census for this metric: a replica that lacks it is unknown.
    census: Census,
    metric: MetricName,
    similar: Vec<String>,
}

impl<T> Readings<T> {
    /// Fails where nobody has the metric although somebody serves.
    fn present(self, serving: u32, observed: &Observed<'_>) -> Result<Self, Unavailable> {
        if !self.known.is_empty() {
            return Ok(self);
        }
        if serving > 0 {
            return Err(Unavailable::MissingMetric { metric: self.metric, similar: self.similar });
        }
        Err(Unavailable::NoneKnown {
            replicas: self.census.replicas,
            last_error: observed.last_error.cloned(),
        })
    }

    fn representative(self) -> Result<Self, Unavailable> {
        if self.census.mostly_unknown() {
            return Err(Unavailable::MostlyUnknown {
                unknown: self.census.unknown,
                known: self.census.known,
            });
        }
        Ok(self)
    }
}

fn values(
    trigger: &Trigger,
    population: &Population<'_>,
    observed: &Observed<'_>,
    demand: &Demand,
) -> Vec<Result<Value, Unavailable>> {
    let metrics = Metrics { population, observed, demand, hold_in_flight: trigger.hold_while_in_flight };
    match &trigger.rule {
        Rule::Single { metric, threshold, aggregation } => {
            vec![metrics.single(metric, *threshold, *aggregation)]
        }
        Rule::Policy(policy) => policy::values(policy, &metrics),
    }
}

/// The metrics of one decision, each computed when asked for.
pub(super) struct Metrics<'a> {
    population: &'a Population<'a>,
    observed: &'a Observed<'a>,
    demand: &'a Demand,
    hold_in_flight: bool,
}

impl Metrics<'_> {
    pub(super) fn census(&self) -> Census {
        self.population.census
    }

    /// What the replicas' states alone decide, whatever the metric: nothing wanted, all on
    /// their way, none came up. `target` is the spec's.
    pub(super) fn without_reading(&self, target: f64) -> Option<Value> {
        let Census { replicas, known, unknown, in_flight } = self.population.census;
        if replicas == 0 {
            return Some(Value { value: 0.0, basis: Basis::NoReplicas });
        }
        if known + unknown > 0 {
            return None;
        }
        if in_flight > 0 {
            return Some(Value { value: target * f64::from(replicas), basis: Basis::AllInFlight });
        }
        Some(Value { value: 0.0, basis: Basis::AllAbsent })
    }

    fn single(
        &self,
        metric: &MetricName,
        target: f64,
        aggregation: Aggregation,
    ) -> Result<Value, Unavailable> {
        if aggregation == Aggregation::Gate {
            return Ok(self.gate());
        }
        if let Some(value) = self.without_reading(target) {
            return Ok(value);
        }
        match aggregation {
            Aggregation::Sum => self.total(metric, target),
            Aggregation::ServiceAvg => self.mean(metric),
            Aggregation::Max => self.largest(metric),
            Aggregation::WindowedAvg { window } => self.windowed(metric, window, None),
            Aggregation::Quantile { quantile, window } => self.windowed(metric, window, Some(quantile)),
            Aggregation::Gate => Ok(self.gate()),
        }
    }

    /// The filled total of a gauge or counter.
    pub(super) fn total(&self, metric: &MetricName, target: f64) -> Result<Value, Unavailable> {
        let readings = self.plain(metric)?;
        let known: f64 = readings.known.iter().sum::<f64>().max(0.0);
        let value = filled_total(known, target, readings.census);
        let cap = target * f64::from(readings.census.replicas);
        if self.hold_in_flight && readings.census.in_flight > 0 && value > cap {
            return Ok(Value { value: cap, basis: Basis::Capped { known } });
        }
        Ok(Value { value, basis: Basis::Total { known } })
    }

    /// A mean as a total over the replicas, those that are unknown or on their way filled in.
    pub(super) fn as_total(&self, mean: Value, target: f64) -> Value {
        let census = self.census();
        let total = filled_total(mean.value * f64::from(census.known), target, census);
        let cap = target * f64::from(census.replicas);
        let capped = self.hold_in_flight && census.in_flight > 0;
        Value { value: if capped { total.min(cap) } else { total }, basis: mean.basis }
    }

    /// The mean of a gauge over the replicas that serve.
    pub(super) fn mean(&self, metric: &MetricName) -> Result<Value, Unavailable> {
        let readings = self.plain(metric)?.representative()?;
        let mean = readings.known.iter().sum::<f64>() / readings.known.len() as f64;
        Ok(Value { value: mean.max(0.0), basis: Basis::Mean })
    }

    fn largest(&self, metric: &MetricName) -> Result<Value, Unavailable> {
        let readings = self.plain(metric)?.representative()?;
        let largest = readings.known.into_iter().fold(0.0, f64::max);
        Ok(Value { value: largest, basis: Basis::Max })
    }

    fn plain(&self, metric: &MetricName) -> Result<Readings<f64>, Unavailable> {
        let readings = self.population.read(metric, |pod| match pod.latest()?.1.reading(metric)? {
            Reading::Value(value) => Some(*value),
            Reading::Histogram(_) => None,
        });
        if readings.known.is_empty() && self.has_histogram(metric) {
            return Err(Unavailable::WrongKind {
                metric: metric.clone(),
                found: "a histogram",
                needed: "a gauge or counter; use windowed-avg or quantile",
            });
        }
        readings.present(self.population.census.known, self.observed)
    }

    fn has_histogram(&self, metric: &MetricName) -> bool {
        let histogram =
            |pod: &Pod| matches!(pod.latest()?.1.reading(metric)?, Reading::Histogram(_)).then_some(());
        self.population.pods.iter().any(|(_, pod)| histogram(pod).is_some())
    }

    /// The mean, or a quantile, of what a histogram observed over the window, over all
    /// replicas that serve: each replica's increase first, then their sum, so that a busy
    /// replica weighs more and a restarted or removed one is no decrease.
    pub(super) fn windowed(
        &self,
        metric: &MetricName,
        window: Duration,
        quantile: Option<f64>,
    ) -> Result<Value, Unavailable> {
        let key = WindowKey { metric: metric.clone(), span: window };
        let present = self.population.read(metric, |pod| pod.latest()?.1.reading(metric));
        let present = present.present(self.population.census.known, self.observed)?;
        if present.known.iter().all(|reading| matches!(reading, Reading::Value(_))) {
            return Err(Unavailable::WrongKind {
                metric: metric.clone(),
                found: "no histogram",
                needed: "a histogram; use sum, service-avg or max",
            });
        }
        let deltas = self.population.read(metric, |pod| pod.window(&key)?.delta());
        if deltas.known.is_empty() {
            return Err(Unavailable::WindowStarting { metric: metric.clone() });
        }
        let deltas = deltas.representative()?;
        let mut increase = Histogram::default();
        let (mut covered, mut warming_up) = (Duration::MAX, false);
        for delta in &deltas.known {
            merge(&mut increase, &delta.increase);
            covered = covered.min(delta.covered);
            warming_up |= delta.warming_up;
        }
        if increase.count <= 0.0 {
            // A server in which nothing ends may be idle or stuck; its queue tells which.
            return if self.demand.amount > 0.0 {
                Err(Unavailable::NothingEnded { metric: metric.clone(), requests: self.demand.amount })
            } else {
                Ok(Value { value: 0.0, basis: Basis::IdleWindow })
            };
        }
        let value = match quantile {
            None => increase.sum / increase.count,
            Some(quantile) => {
                histogram_quantile(quantile, &increase).ok_or_else(|| Unavailable::WrongKind {
                    metric: metric.clone(),
                    found: "a histogram without buckets",
                    needed: "buckets for a quantile",
                })?
            }
        };
        Ok(Value { value: value.max(0.0), basis: Basis::Window { covered, warming_up } })
    }

    /// 1 where every replica wanted is ready, or past its deadline and so not waited for.
    fn gate(&self) -> Value {
        let ready = self.observed.set.ready_replicas;
        let open = ready + self.population.absent >= self.observed.set.replicas;
        Value { value: f64::from(u8::from(open)), basis: Basis::Gate { ready } }
    }
}

#[cfg(test)]
mod tests;
