//! One decision about one target: from pods to a [`Snapshot`].

use std::time::Duration;

use super::{
    activation::{Activation, Activity},
    aggregate,
    fill::View,
    policy,
    population::Population,
    readings::Readings,
    snapshot::{Snapshot, Unavailable, Value},
    warning::Stuck,
};
use crate::{
    config::trigger::{Aggregation, Rule, Trigger},
    endpoint::pod::Phase,
    time::Moment,
};

pub use super::population::Observed;

/// For how long the watch may be silent before what it said is no longer believed. An API
/// server sends a bookmark about once a minute.
pub const WATCH_SILENCE: Duration = Duration::from_secs(90);

/// Decides about the target of `trigger` at `now`.
pub fn evaluate(
    trigger: &Trigger,
    observed: &Observed<'_>,
    activation: &mut Activation,
    now: Moment,
) -> Snapshot {
    let readings = Readings::take(trigger, &Population::count(trigger, observed, now), observed);
    let mut activity = activation.step(now, &readings.demand);
    let mut values = values(trigger, &readings);
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
        census: readings.census,
        stuck: readings.absent,
        demand: readings.demand,
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
    pods.chain(observed.missing.iter().map(|missing| missing.since + deadline))
        .chain(activation.next_change())
        .chain((observed.set.replicas > 0).then(|| observed.heard + WATCH_SILENCE))
        .filter(|moment| *moment > now)
        .min()
}

/// The replicas that were not up by their deadline, as [`Snapshot::stuck`] counts them.
#[must_use]
pub fn stuck(trigger: &Trigger, observed: &Observed<'_>, now: Moment) -> Stuck {
    let population = Population::count(trigger, observed, now);
    let pods: Vec<_> =
        population.of(View::Absent).map(|pod| (pod.endpoint.uid.clone(), pod.endpoint.pod.clone())).collect();
    let counted = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    let not_created = population.absent.saturating_sub(counted);
    Stuck { pods, not_created, deadline: trigger.in_flight_deadline }
}

/// One value for each metric spec of the trigger, in their order.
fn values(trigger: &Trigger, readings: &Readings) -> Vec<Result<Value, Unavailable>> {
    let hold = trigger.hold_while_in_flight;
    match (&trigger.rule, &readings.metrics) {
        (Rule::Policy(policy), _) => policy::values(policy, hold, readings),
        (Rule::Single { aggregation: Aggregation::Gate, .. }, _) => vec![aggregate::gate(readings)],
        (Rule::Single { threshold, .. }, Err(settled)) => {
            vec![settled.value(*threshold, readings.census)]
        }
        (Rule::Single { threshold, aggregation, .. }, Ok(metrics)) => metrics
            .iter()
            .map(|reading| aggregate::single(*aggregation, *threshold, hold, reading, readings))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
