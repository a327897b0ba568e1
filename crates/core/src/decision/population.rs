//! The replicas of a target at one moment: what each counts as, and what demand they show.

use std::{sync::Arc, time::Duration};

use super::{
    activation::Demand,
    fill::{Census, View},
};
use crate::{
    config::trigger::{Aggregation, PolicyKind, Rule, Trigger},
    endpoint::pod::{Phase, Pod, WindowKey},
    fleet::{model::InferenceSet, shortage::Missing},
    names::MetricName,
    page::sample::Reading,
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

/// The replicas of a target at one moment, sorted by what they count as.
pub(super) struct Population<'a> {
    pub pods: Vec<(View, &'a Pod)>,
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
                Phase::Serving => View::Known,
                Phase::Sleeping => View::Asleep,
                Phase::Stale => View::Unknown,
                Phase::Pending | Phase::Loading if young(pod.endpoint.since) => View::InFlight,
                Phase::Pending | Phase::Loading => View::Absent,
            };
            living += 1;
            match view {
                View::Known => census.known += 1,
                View::Asleep => census.asleep += 1,
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
        // Never more than R replicas on their way, however many pods a surge has made.
        let there = census.known.saturating_add(census.unknown).saturating_add(census.asleep);
        let room = census.replicas.saturating_sub(there);
        census.in_flight = census.in_flight.saturating_add(not_created - overdue).min(room);
        Self { pods, census, absent }
    }

    pub(super) fn of(&self, wanted: View) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(move |(view, _)| *view == wanted).map(|(_, pod)| *pod)
    }

    /// What the replicas and the gateway show of demand. A replica whose page does not say how
    /// many requests it holds shows it by the trigger's own metrics.
    pub(super) fn demand(&self, rule: &Rule, observed: &Observed<'_>) -> Demand {
        let mut demand =
            Demand { in_flight: self.census.in_flight, replicas: self.census.replicas, ..Demand::default() };
        for (view, pod) in &self.pods {
            match (view, pod.latest()) {
                (View::Known | View::Asleep, Some((_, sample))) => {
                    let said = sample.demand;
                    let running = said.running.unwrap_or(0.0).max(0.0);
                    let mut held = running + said.waiting.unwrap_or(0.0).max(0.0);
                    let mut known = pod.tells_demand();
                    if !known && let Some(own) = own_metric(rule, pod) {
                        held = held.max(own);
                        known = true;
                    }
                    demand.running += running;
                    demand.amount += held + pod.rejections();
                    if known {
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

    /// Why a replica can't be read at present.
    pub(super) fn obstacle(&self) -> Option<Arc<str>> {
        self.of(View::Unknown).find_map(Pod::obstacle)
    }
}

/// The demand that a replica shows by the metrics of a trigger itself: their values added up, and
/// of a histogram the requests that ended within its window. `None` where none of them is known,
/// which a histogram in which nothing ended is not: such a server is idle, or stuck.
fn own_metric(rule: &Rule, pod: &Pod) -> Option<f64> {
    let level = |metric: &MetricName| match pod.latest()?.1.reading(metric)? {
        Reading::Value(value) => Some(value.max(0.0)).filter(|_| {
            // What is no level shows no demand either.
            pod.latest().is_some_and(|(_, sample)| sample.nature(metric).is_none())
        }),
        Reading::Histogram(_) => None,
    };
    let ended = |metric: &MetricName, span: Duration| {
        let key = WindowKey { metric: metric.clone(), span };
        let ended = pod.window(&key)?.delta()?.increase.count;
        (ended > 0.0).then_some(ended)
    };
    match rule {
        Rule::Single { metric, aggregation, .. } => match *aggregation {
            Aggregation::Sum | Aggregation::ServiceAvg | Aggregation::Max => level(metric),
            Aggregation::WindowedAvg { window } | Aggregation::Quantile { window, .. } => {
                ended(metric, window)
            }
            Aggregation::Gate => None,
        },
        Rule::Policy(policy) => policy
            .metrics
            .iter()
            .filter_map(|metric| match metric.kind {
                PolicyKind::Gauge => level(&metric.name),
                PolicyKind::Histogram { window, .. } => ended(&metric.name, window),
            })
            .reduce(|sum, more| sum + more),
    }
}
