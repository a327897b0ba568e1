//! The Horizontal Pod Autoscaler's part.

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
