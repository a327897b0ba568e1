//! The Horizontal Pod Autoscaler's arithmetic for external metrics with an AverageValue
//! target, after Kubernetes' `replica_calculator.go` and `horizontal.go`.
//!
//! ```text
//! per metric   desired = ceil(total / target), unless total / (target × status.replicas)
//!              lies within the tolerance: then desired = status.replicas
//! over all     the largest; an unknown metric forbids scaling down
//! in time      not above the lowest (up) or below the highest (down) recommendation of the
//!              stabilization window
//! in steps     not further than the policies allow within their periods
//! ```

use std::time::Duration;

use scaler_core::time::Moment;

/// `spec.behavior` with the limits around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// At least 1: an HPA does not go to zero.
    pub min_replicas: u32,
    pub max_replicas: u32,
    pub up: Rules,
    pub down: Rules,
}

/// One direction's rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub stabilization_window: Duration,
    pub policies: Vec<StepPolicy>,
    pub select: Select,
    /// Deviations of the ratio from 1 up to this are left alone; 0.1 by default.
    pub tolerance: f64,
}

/// How far one period may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPolicy {
    pub step: Step,
    pub period: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Pods(u32),
    Percent(u32),
}

/// Which of several policies counts: the one that allows most, least, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    Max,
    Min,
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

/// One metric as the HPA got it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The sum over the metric's samples; `None` where the call failed.
    pub total: Option<f64>,
    /// AverageValue. Above 0.
    pub target: f64,
}

/// The HPA of one scale target: its behavior, and what it remembers.
#[derive(Clone, Debug)]
pub struct Hpa {
    behavior: Behavior,
    /// What the metrics asked for, before stabilization.
    recommendations: Vec<(Moment, u32)>,
    scale_ups: Vec<(Moment, u32)>,
    scale_downs: Vec<(Moment, u32)>,
}

impl Hpa {
    #[must_use]
    pub const fn new(behavior: Behavior) -> Self {
        Self { behavior, recommendations: vec![], scale_ups: vec![], scale_downs: vec![] }
    }

    /// One sync: the new `spec.replicas`, which is the old one where nothing is to change.
    /// At zero replicas the HPA is inert.
    pub fn sync(&mut self, spec_replicas: u32, status_replicas: u32, metrics: &[Metric], now: Moment) -> u32 {
        let Behavior { min_replicas, max_replicas, .. } = self.behavior;
        if spec_replicas == 0 {
            return 0;
        }
        let desired = if spec_replicas > max_replicas {
            max_replicas
        } else if spec_replicas < min_replicas {
            min_replicas
        } else {
            match self.proposal(spec_replicas, status_replicas, metrics) {
                Some(proposal) => {
                    let stabilized = self.stabilized(spec_replicas, proposal, now);
                    self.limited(spec_replicas, stabilized, now)
                }
                None => spec_replicas,
            }
        };
        if desired > spec_replicas {
            self.scale_ups.push((now, desired - spec_replicas));
        } else if desired < spec_replicas {
            self.scale_downs.push((now, spec_replicas - desired));
        }
        self.forget(now);
        desired
    }

    /// The largest proposal; `None` where the metrics do not allow one.
    fn proposal(&self, spec_replicas: u32, status_replicas: u32, metrics: &[Metric]) -> Option<u32> {
        let proposals = metrics.iter().filter_map(|metric| {
            let total = metric.total?;
            Some(self.proposal_of_one(total, metric.target, status_replicas))
        });
        let largest = proposals.max()?;
        let some_unknown = metrics.iter().any(|metric| metric.total.is_none());
        (!some_unknown || largest >= spec_replicas).then_some(largest)
    }

    fn proposal_of_one(&self, total: f64, target: f64, status_replicas: u32) -> u32 {
        let ratio = total / (target * f64::from(status_replicas));
        let within = (1.0 - self.behavior.down.tolerance..=1.0 + self.behavior.up.tolerance).contains(&ratio);
        if within { status_replicas } else { ceiling(total / target) }
    }

    fn stabilized(&mut self, current: u32, proposal: u32, now: Moment) -> u32 {
        let within = |window: Duration| {
            let since = now - window;
            self.recommendations.iter().filter(move |(made, _)| *made > since).map(|(_, replicas)| *replicas)
        };
        let lowest = within(self.behavior.up.stabilization_window).fold(proposal, u32::min);
        let highest = within(self.behavior.down.stabilization_window).fold(proposal, u32::max);
        self.recommendations.push((now, proposal));
        current.max(lowest).min(highest)
    }

    fn limited(&self, current: u32, wanted: u32, now: Moment) -> u32 {
        let Behavior { min_replicas, max_replicas, up, down } = &self.behavior;
        if wanted > current {
            let allowed = self.limits(up, current, now, |start, step| match step {
                Step::Pods(pods) => start + f64::from(pods),
                // Rounded up, or a small target would never grow.
                Step::Percent(percent) => (start * (1.0 + f64::from(percent) / 100.0)).ceil(),
            });
            let furthest = match up.select {
                Select::Max => allowed.reduce(f64::max),
                Select::Min => allowed.reduce(f64::min),
                Select::Disabled => None,
            };
            let limit = furthest.map_or(current, whole).max(current).min(*max_replicas);
            wanted.min(limit)
        } else {
            let allowed = self.limits(down, current, now, |start, step| match step {
                Step::Pods(pods) => start - f64::from(pods),
                Step::Percent(percent) => (start * (1.0 - f64::from(percent) / 100.0)).trunc(),
            });
            let furthest = match down.select {
                Select::Max => allowed.reduce(f64::min),
                Select::Min => allowed.reduce(f64::max),
                Select::Disabled => None,
            };
            let limit = furthest.map_or(current, whole).min(current).max(*min_replicas);
            wanted.max(limit)
        }
    }

    /// Where each policy would allow to go, counted from the replicas at its period's start.
    fn limits(
        &self,
        rules: &Rules,
        current: u32,
        now: Moment,
        limit: impl Fn(f64, Step) -> f64,
    ) -> impl Iterator<Item = f64> {
        rules.policies.iter().map(move |policy| {
            let since = now - policy.period;
            let changed = |events: &[(Moment, u32)]| -> f64 {
                events.iter().filter(|(at, _)| *at > since).map(|(_, change)| f64::from(*change)).sum()
            };
            let start = f64::from(current) - changed(&self.scale_ups) + changed(&self.scale_downs);
            limit(start, policy.step)
        })
    }

    /// Drops what no window and no period reaches any more.
    fn forget(&mut self, now: Moment) {
        let Behavior { up, down, .. } = &self.behavior;
        let window = up.stabilization_window.max(down.stabilization_window);
        let periods = up.policies.iter().chain(&down.policies).map(|policy| policy.period);
        let period = periods.max().unwrap_or_default();
        self.recommendations.retain(|(made, _)| *made + window >= now);
        self.scale_ups.retain(|(at, _)| *at + period >= now);
        self.scale_downs.retain(|(at, _)| *at + period >= now);
    }
}

/// What the metrics alone ask for: `ceil(total / target)`.
#[must_use]
pub fn ceiling(replicas: f64) -> u32 {
    whole(replicas.ceil())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as wanted")]
fn whole(replicas: f64) -> u32 {
    replicas as u32
}

#[cfg(test)]
#[path = "hpa_tests.rs"]
mod tests;
