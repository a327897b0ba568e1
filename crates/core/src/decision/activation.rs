//! Activation: whether anybody asks for the model (0↔1), as opposed to how many replicas
//! that takes (1↔N).

use crate::{config::trigger::ActivationRule, time::Moment};

/// Demand over all replicas and the gateway, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Requests waiting, running and queued at the gateway, and those refused over the last
    /// 30 s: the sum of what is known.
    pub amount: f64,
    /// Requests that are running; part of `amount`.
    pub running: f64,
    /// Sources whose demand is known: replicas, and the gateway.
    pub known: u32,
    /// Replicas that should serve and whose demand is not known.
    pub unknown: u32,
    /// Replicas on their way.
    pub in_flight: u32,
    /// `spec.replicas`.
    pub replicas: u32,
}

/// The answer to IsActive, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Active(Cause),
    Inactive,
    /// There are replicas and nothing is known of any: an error to KEDA, not `false`.
    Unknown,
}

/// Why a target is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Demand is above the threshold.
    Demand,
    /// It was within the hold time.
    Held,
    /// It is not above the threshold, but requests are still running.
    Running,
    /// Replicas are on their way: a loading model is not zeroed by its own silence.
    InFlight,
    /// Some replicas are unknown, and may well be busy.
    PartlyUnknown,
}

impl Activity {
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Active(_))
    }
}

/// The state of one target's activation. Owned by the aggregator.
#[derive(Clone, Copy, Debug)]
pub struct Activation {
    rule: ActivationRule,
    /// Until when a target stays active without new demand; `None` while it is idle.
    held_until: Option<Moment>,
    edges: u64,
    last_demand: Option<Moment>,
}

impl Activation {
    /// A target starts as if demand had just ended: it can be inactive only after one whole
    /// hold time has shown no demand. A restart of ours must not send anything to zero.
    #[must_use]
    pub fn new(rule: ActivationRule, now: Moment) -> Self {
        Self { rule, held_until: Some(now + rule.hold), edges: 0, last_demand: None }
    }

    /// How many times demand rose above the threshold while the target was not active
    /// by demand.
    #[must_use]
    pub fn edges(&self) -> u64 {
        self.edges
    }

    /// Takes in the demand at `now` and says whether the target is active.
    pub fn step(&mut self, now: Moment, demand: &Demand) -> Activity {
        if demand.amount > self.rule.threshold {
            if self.held_until.is_none_or(|until| until <= now) {
                self.edges += 1;
            }
            self.held_until = Some(now + self.rule.hold);
            self.last_demand = Some(now);
            return Activity::Active(Cause::Demand);
        }
        // With no replica there is nothing to be unknown: whatever can be known is known.
        let unknown = demand.replicas > 0 && demand.unknown > 0;
        if unknown && self.held_until.is_some() {
            // Silence is no evidence of idleness: the hold time starts when all is known.
            self.held_until = Some(now + self.rule.hold);
        }
        if demand.replicas > 0 && demand.in_flight > 0 {
            return Activity::Active(Cause::InFlight);
        }
        if unknown {
            return if demand.known > 0 { Activity::Active(Cause::PartlyUnknown) } else { Activity::Unknown };
        }
        match self.held_until {
            // With no replica there is nothing to keep up: a hold would wake every sleeping
            // model when we restart.
            Some(until) if now < until && demand.replicas > 0 => Activity::Active(Cause::Held),
            Some(_) if demand.running > 0.0 => Activity::Active(Cause::Running),
            Some(until) if now < until => Activity::Inactive,
            _ => {
                self.held_until = None;
                Activity::Inactive
            }
        }
    }

    /// When demand was last above the threshold.
    #[must_use]
    pub fn last_demand(&self) -> Option<Moment> {
        self.last_demand
    }

    /// When the answer changes by time alone, if it does.
    #[must_use]
    pub fn next_change(&self) -> Option<Moment> {
        self.held_until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const HOLD: u64 = 30;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_000_000 + seconds))
    }

    fn activation(threshold: f64) -> Activation {
        Activation::new(ActivationRule { threshold, hold: Duration::from_secs(HOLD) }, at(0))
    }

    fn known(amount: f64, replicas: u32) -> Demand {
        Demand { amount, known: replicas.max(1), replicas, ..Demand::default() }
    }

    #[test]
    fn a_target_lives_through_its_day() {
        use Activity::{Active, Inactive, Unknown};
        use Cause::{Demand as ByDemand, Held, InFlight, PartlyUnknown, Running};
        let with = |change: fn(&mut Demand)| {
            let mut demand = known(0.0, 2);
            change(&mut demand);
            demand
        };
        let mut activation = activation(5.0);
        // (second, demand, activity, edges so far)
        let day = [
            (1, known(0.0, 2), Active(Held), 0), // just started: held
            (2, known(0.0, 0), Inactive, 0),     // but where nothing runs, nothing is held
            (31, known(0.0, 2), Inactive, 0),
            (40, known(5.0, 0), Inactive, 0), // at the threshold is not above it
            (41, known(6.0, 0), Active(ByDemand), 1),
            (42, with(|d| (d.known, d.in_flight) = (0, 2)), Active(InFlight), 1),
            (100, with(|d| (d.known, d.in_flight) = (0, 2)), Active(InFlight), 1),
            (101, known(50.0, 2), Active(ByDemand), 2), // its hold had run out: a new edge
            (102, known(60.0, 2), Active(ByDemand), 2),
            (110, known(0.0, 2), Active(Held), 2),
            (120, with(|d| (d.known, d.unknown) = (1, 1)), Active(PartlyUnknown), 2),
            (145, known(0.0, 2), Active(Held), 2), // the unknown moved the hold on
            (150, with(|d| (d.known, d.unknown) = (0, 2)), Unknown, 2),
            (179, known(0.0, 2), Active(Held), 2),
            (181, with(|d| (d.amount, d.running) = (1.0, 1.0)), Active(Running), 2),
            (182, known(0.0, 2), Inactive, 2),
            (183, with(|d| (d.known, d.unknown) = (0, 2)), Unknown, 2),
            // At zero replicas nothing is an error.
            (184, Demand { unknown: 1, ..Demand::default() }, Inactive, 2),
            (185, known(9.0, 0), Active(ByDemand), 3),
        ];
        for (second, demand, expected, edges) in day {
            assert_eq!(activation.step(at(second), &demand), expected, "second {second}");
            assert_eq!(activation.edges(), edges, "second {second}");
        }
    }

    fn any_demand() -> impl Strategy<Value = Demand> {
        (0.0..20.0_f64, 0.0..1.0_f64, 0..3_u32, 0..3_u32, 0..3_u32, 0..4_u32).prop_map(
            |(amount, share, known, unknown, in_flight, replicas)| Demand {
                amount,
                running: amount * share,
                known,
                unknown,
                in_flight,
                replicas,
            },
        )
    }

    proptest! {
        #[test]
        fn more_demand_never_turns_active_into_inactive(
            past in proptest::collection::vec((1_u64..60, any_demand()), 0..20),
            last in any_demand(),
            more in 0.0..50.0_f64,
            threshold in 0.0..10.0_f64,
        ) {
            let mut less_demand = activation(threshold);
            let mut now = 0;
            for (gap, demand) in past {
                now += gap;
                less_demand.step(at(now), &demand);
            }
            let mut more_demand = less_demand;
            let busier = Demand { amount: last.amount + more, ..last };
            let before = less_demand.step(at(now + 1), &last);
            let after = more_demand.step(at(now + 1), &busier);
            prop_assert!(!before.is_active() || after.is_active(), "{:?} then {:?}", before, after);
        }

        #[test]
        fn never_an_error_at_zero_replicas_and_never_false_while_something_is_unknown(
            steps in proptest::collection::vec((1_u64..60, any_demand()), 1..30),
        ) {
            let mut activation = activation(1.0);
            let mut now = 0;
            for (gap, demand) in steps {
                now += gap;
                let activity = activation.step(at(now), &demand);
                if demand.replicas == 0 {
                    prop_assert_ne!(activity, Activity::Unknown);
                } else if demand.unknown > 0 {
                    prop_assert_ne!(activity, Activity::Inactive);
                }
            }
        }
    }
}
