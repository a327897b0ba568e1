//! The Horizontal Pod Autoscaler's arithmetic for external metrics, after Kubernetes'
//! `replica_calculator.go` and `horizontal.go`, bookkeeping included.
//!
//! ```text
//! per metric   AverageValue: ceil(total / target), unless total / (target × status.replicas)
//!              lies within the tolerance: then status.replicas
//!              Value: ceil(total / target × ready pods), unless total / target does: then
//!              spec.replicas
//! over all     the largest; an unknown metric forbids scaling down
//! in time      not above the lowest (up) or below the highest (down) recommendation of the
//!              stabilization window
//! in steps     not further than the policies allow, counted from the replicas at the start of
//!              each policy's period
//! ```

use std::time::Duration;

/// `spec.behavior` of an HPA with the limits around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// At least 1: an HPA does not go to zero.
    pub min_replicas: u32,
    /// At least `min_replicas`.
    pub max_replicas: u32,
    /// `scaleUp`.
    pub up: Rules,
    /// `scaleDown`.
    pub down: Rules,
}

/// One direction's rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// `stabilizationWindowSeconds`.
    pub stabilization_window: Duration,
    /// The steps that are allowed; at least one.
    pub policies: Vec<StepPolicy>,
    /// Which of the policies counts.
    pub select: Select,
    /// Deviations of the ratio from 1 up to this are left alone; 0.1 by default.
    pub tolerance: f64,
}

/// How far one period may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPolicy {
    /// How far.
    pub step: Step,
    /// `periodSeconds`.
    pub period: Duration,
}

/// The type and value of a step policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many pods.
    Pods(u32),
    /// So many per cent of the replicas at the period's start.
    Percent(u32),
}

/// Which of several policies counts: the one that allows most, least, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The policy that allows the largest change.
    Max,
    /// The policy that allows the smallest change.
    Min,
    /// No change in this direction.
    Disabled,
}

impl Behavior {
    /// What Kubernetes applies where nothing is written.
    #[must_use]
    pub fn kubernetes_default(min_replicas: u32, max_replicas: u32) -> Self {
        let period = Duration::from_secs(15);
        let policy = |step| StepPolicy { step, period };
        Self {
            min_replicas,
            max_replicas,
            up: Rules {
                stabilization_window: Duration::ZERO,
                policies: vec![policy(Step::Percent(100)), policy(Step::Pods(4))],
                select: Select::Max,
                tolerance: 0.1,
            },
            down: Rules {
                stabilization_window: Duration::from_secs(300),
                policies: vec![policy(Step::Percent(100))],
                select: Select::Max,
                tolerance: 0.1,
            },
        }
    }
}

/// One external metric as the HPA got it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The sum over the metric's samples; `None` where the call failed.
    pub total: Option<f64>,
    /// What it is held against.
    pub target: Target,
}

/// The target of an external metric; above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// `AverageValue`: the total divided by the replicas should be this.
    AverageValue(f64),
    /// `Value`: the total itself should be this.
    Value(f64),
}

/// What the HPA sees of its scale target at one sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleTarget {
    /// `spec.replicas`.
    pub spec_replicas: u32,
    /// `status.replicas`.
    pub status_replicas: u32,
    /// Ready pods that `status.selector` matches.
    pub ready_pods: u32,
}

/// The HPA of one scale target: its behavior, and what the controller remembers of it.
///
/// Times are given as the duration since any fixed moment.
#[derive(Clone, Debug)]
pub struct Hpa {
    behavior: Behavior,
    /// What the metrics asked for, before stabilization.
    recommendations: Vec<(Duration, u32)>,
    scale_ups: ScaleEvents,
    scale_downs: ScaleEvents,
}

impl Hpa {
    /// An HPA that has not synced yet.
    #[must_use]
    pub fn new(behavior: Behavior) -> Self {
        let (scale_ups, scale_downs) = (ScaleEvents::default(), ScaleEvents::default());
        Self { behavior, recommendations: Vec::new(), scale_ups, scale_downs }
    }

    /// One sync: the new `spec.replicas`, which is the old one where nothing is to change.
    /// At zero replicas the HPA is inert.
    pub fn sync(&mut self, target: ScaleTarget, metrics: &[Metric], now: Duration) -> u32 {
        let Behavior { min_replicas, max_replicas, .. } = self.behavior;
        let current = target.spec_replicas;
        // Whatever there was at the first sync counts as asked for.
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
        if current == 0 {
            return 0;
        }
        let desired = if current > max_replicas {
            max_replicas
        } else if current < min_replicas {
            min_replicas
        } else {
            match self.proposal(target, metrics) {
                Some(proposal) => {
                    let stabilized = self.stabilized(current, proposal, now);
                    self.limited(current, stabilized, now)
                }
                None => current,
            }
        };
        if desired > current {
            self.scale_ups.store(desired - current, &self.behavior.up, now);
        } else if desired < current {
            self.scale_downs.store(current - desired, &self.behavior.down, now);
        }
        desired
    }

    /// The largest proposal; `None` where the metrics do not allow one.
    fn proposal(&self, target: ScaleTarget, metrics: &[Metric]) -> Option<u32> {
        let known = metrics.iter().filter_map(|metric| Some((metric.total?, metric.target)));
        let largest = known.map(|(total, held_to)| self.proposal_of_one(total, held_to, target)).max()?;
        let some_unknown = metrics.iter().any(|metric| metric.total.is_none());
        (!some_unknown || largest >= target.spec_replicas).then_some(largest)
    }

    fn proposal_of_one(&self, total: f64, held_to: Target, target: ScaleTarget) -> u32 {
        let tolerated = 1.0 - self.behavior.down.tolerance..=1.0 + self.behavior.up.tolerance;
        let total = milli(total);
        match held_to {
            Target::AverageValue(average) => {
                let average = milli(average);
                let ratio = total / (average * f64::from(target.status_replicas));
                if tolerated.contains(&ratio) { target.status_replicas } else { ceiling(total / average) }
            }
            Target::Value(value) => {
                let ratio = total / milli(value);
                if tolerated.contains(&ratio) {
                    target.spec_replicas
                } else {
                    ceiling(ratio * f64::from(target.ready_pods))
                }
            }
        }
    }

    fn stabilized(&mut self, current: u32, proposal: u32, now: Duration) -> u32 {
        let (up, down) = (self.behavior.up.stabilization_window, self.behavior.down.stabilization_window);
        let within = |window| {
            self.recommendations.iter().filter(move |(made, _)| *made + window > now).map(|(_, asked)| *asked)
        };
        let lowest = within(up).fold(proposal, u32::min);
        let highest = within(down).fold(proposal, u32::max);
        // One that neither window reaches makes room for the new one.
        match self.recommendations.iter().rposition(|(made, _)| *made + up < now && *made + down < now) {
            Some(old) => self.recommendations[old] = (now, proposal),
            None => self.recommendations.push((now, proposal)),
        }
        current.max(lowest).min(highest)
    }

    fn limited(&self, current: u32, wanted: u32, now: Duration) -> u32 {
        let Behavior { min_replicas, max_replicas, up, down } = &self.behavior;
        let bounded = |limit: i64| u32::try_from(limit.max(0)).unwrap_or(u32::MAX);
        if wanted > current {
            let allowed = self.limits(up, current, now, |start, step| match step {
                Step::Pods(pods) => start + i64::from(pods),
                // Rounded up, or a small target would never grow.
                Step::Percent(percent) => whole((start as f64 * (1.0 + f64::from(percent) / 100.0)).ceil()),
            });
            let furthest = match up.select {
                Select::Max => allowed.max(),
                Select::Min => allowed.min(),
                Select::Disabled => None,
            };
            wanted.min(furthest.map_or(current, bounded).max(current).min(*max_replicas))
        } else {
            let allowed = self.limits(down, current, now, |start, step| match step {
                Step::Pods(pods) => start - i64::from(pods),
                Step::Percent(percent) => whole(start as f64 * (1.0 - f64::from(percent) / 100.0)),
            });
            let furthest = match down.select {
                Select::Max => allowed.min(),
                Select::Min => allowed.max(),
                Select::Disabled => None,
            };
            wanted.max(furthest.map_or(current, bounded).min(current).max(*min_replicas))
        }
    }

    /// Where each policy would allow to go, counted from the replicas at its period's start.
    fn limits(
        &self,
        rules: &Rules,
        current: u32,
        now: Duration,
        limit: impl Fn(i64, Step) -> i64,
    ) -> impl Iterator<Item = i64> {
        rules.policies.iter().map(move |policy| {
            let added = self.scale_ups.within(policy.period, now);
            let deleted = self.scale_downs.within(policy.period, now);
            limit(i64::from(current) - added + deleted, policy.step)
        })
    }
}

/// The changes of one direction. The controller does not drop what no period reaches any more:
/// a new change takes the place of the last such one, as counted by its own direction's periods,
/// so that the other direction's longer periods may find less than there was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ScaleEvents(Vec<ScaleEvent>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ScaleEvent {
    at: Duration,
    change: u32,
    outdated: bool,
}

impl ScaleEvents {
    fn within(&self, period: Duration, now: Duration) -> i64 {
        self.0.iter().filter(|event| event.at + period > now).map(|event| i64::from(event.change)).sum()
    }

    fn store(&mut self, change: u32, rules: &Rules, now: Duration) {
        let longest = rules.policies.iter().map(|policy| policy.period).max().unwrap_or_default();
        for event in &mut self.0 {
            event.outdated |= event.at + longest < now;
        }
        let new = ScaleEvent { at: now, change, outdated: false };
        match self.0.iter().rposition(|event| event.outdated) {
            Some(outdated) => self.0[outdated] = new,
            None => self.0.push(new),
        }
    }
}

/// What the metrics alone ask for: `ceil(total / target)`.
#[must_use]
pub fn ceiling(replicas: f64) -> u32 {
    u32::try_from(whole(replicas.ceil()).clamp(0, i64::from(i32::MAX))).unwrap_or(0)
}

/// A quantity as KEDA hands it over and the HPA reads it: in whole thousandths.
fn milli(value: f64) -> f64 {
    (value * 1000.0).trunc()
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, as wanted")]
fn whole(number: f64) -> i64 {
    number as i64
}

#[cfg(test)]
mod tests;
