//! The annotations by which a user asks for an autoscaled InferenceSet.
//!
//! ```text
//! scaledobject.kaito.sh/…   value                                  default
//! auto-provision            true | false                           false
//! min-replicas              whole number; below 1 is 1             1
//! max-replicas              whole number > 1                       from spec.nodeCountLimit
//!
//!   one metric (the older family)
//! metricName                name of a metric, labels if need be    vllm:num_requests_waiting
//! threshold                 number > 0                             (required)
//!
//!   several metrics (the newer family, which wins)
//! metrics                   YAML or JSON list, see trigger::policy (required)
//! combinepolicy             AND | OR | MAX                         AND
//!
//!   the HPA's behavior                                             older | newer
//! evaluationwindow          seconds, 0..3600                       60
//! scaleupcooldown           seconds, 1..1800                       300
//! scaledowncooldown         seconds, 1..1800                       300 and 600 | 300
//! scale-up-pods             whole number ≥ 1                       1
//! scale-down-pods           whole number ≥ 1                       1
//! scale-up-tolerance        number, 0 ≤ x < 1                      0.1
//! scale-down-tolerance      number, 0 ≤ x < 1 | 0 ≤ x < 0.5        0.5 | 0.1
//!
//!   KEDA and this scaler
//! polling-interval          seconds ≥ 1                            15
//! cooldown-period           seconds                                KEDA's (300)
//! scrape-interval           duration, 100ms..1m                    1s
//! metric-port               1..65535                               the replica's own
//! metric-path               starts with one /                      /metrics
//! scaleup-gate-deadline     duration, 0s..24h                      15m
//! scale-to-zero             true | false                           false
//! wake-source               SERVICE:PORT                           KAITO's endpoint picker
//! ```
//! On a `MultiRoleInference` each name has its role before it: `prefill-threshold`.

mod decide;
mod parse;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use decide::{Decision, Facts, Refusal, Replicas, ScalingSpec, Wake, decide, sleepless};
pub use parse::{KEYS, parse};

use super::trigger::{Policy, WakeSource};
use crate::{names::MetricName, page::Doubt};

/// What stands before every annotation.
pub const PREFIX: &str = "scaledobject.kaito.sh/";

/// Whose annotations are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The InferenceSet's own.
    InferenceSet,
    /// Those that a `MultiRoleInference` has for the child InferenceSet of one role.
    Role(Role),
}

/// One of the two roles of a `MultiRoleInference`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Prefill,
    Decode,
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Prefill, Self::Decode];

    /// As KAITO writes it: in `spec.roles[].type` and at the end of the child's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }

    /// The name of the child InferenceSet of this role.
    #[must_use]
    pub fn child_name(self, multi_role_inference: &str) -> String {
        format!("{multi_role_inference}-{}", self.as_str())
    }
}

impl Source {
    /// What stands before the names of the header's table.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::InferenceSet => PREFIX,
            Self::Role(Role::Prefill) => "scaledobject.kaito.sh/prefill-",
            Self::Role(Role::Decode) => "scaledobject.kaito.sh/decode-",
        }
    }
}

/// What a user's annotations say, typed and checked; what it comes to depends on the
/// InferenceSet as well ([`decide`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Annotations {
    pub metrics: Metrics,
    /// At least 1.
    pub min_replicas: u32,
    /// Above 1 where given.
    pub max_replicas: Option<u32>,
    pub behavior: Behavior,
    /// Seconds.
    pub polling_interval: u32,
    /// Seconds; `None` leaves the field to KEDA and to the user.
    pub cooldown_period: Option<u32>,
    pub scrape_interval: Option<Duration>,
    /// The port of the replicas' metrics page, and its path.
    pub metric_port: Option<u16>,
    pub metric_path: Option<String>,
    pub in_flight_deadline: Option<Duration>,
    pub scale_to_zero: bool,
    pub wake_source: Option<WakeSource>,
}

/// What decides over the number of replicas.
#[derive(Clone, Debug, PartialEq)]
pub enum Metrics {
    /// The older family: the metric's total, `threshold` (finite, above 0) for each replica.
    Total { metric: MetricName, threshold: f64 },
    /// The newer family.
    Policy(Policy),
}

/// How fast the HPA may follow, in each direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    pub up: Steps,
    pub down: Steps,
}

/// One direction of an HPA's behavior: at most `pods` in `period`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steps {
    /// `stabilizationWindowSeconds`, 0 to 3600.
    pub window: u32,
    /// A smaller difference between the value and its target is ignored.
    pub tolerance: f64,
    /// At least 1.
    pub pods: u32,
    /// `periodSeconds`, 1 to 1800.
    pub period: u32,
}

/// Something that works, but perhaps not as its user thinks. Each becomes a Warning event.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Warning {
    #[error("{prefix}metrics is used; {prefix}{ignored} stands there too and is ignored")]
    Shadowed { prefix: &'static str, ignored: &'static str },
    #[error("{annotation} is {held}, which Kubernetes doesn't take in an HPA; {used} is used")]
    Clamped { annotation: String, held: String, used: u32 },
    #[error(
        "{annotation} is {asked}, but spec.nodeCountLimit leaves nodes for {possible} only \
         (a replica takes {nodes_per_replica})"
    )]
    MaxReplicasOutOfReach { annotation: String, asked: u32, possible: u32, nodes_per_replica: u32 },
    #[error("{annotation} is true, and the floor stays at {floor}: {why}")]
    NoWakeSource {
        annotation: String,
        /// Replicas that are kept.
        floor: u32,
        why: String,
    },
    #[error("{0}")]
    Doubtful(Doubt),
}

impl Warning {
    /// The event's reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Shadowed { .. } => "AnnotationIgnored",
            Self::Clamped { .. } => "AnnotationClamped",
            Self::MaxReplicasOutOfReach { .. } => "MaxReplicasOutOfReach",
            Self::NoWakeSource { .. } => "NoWakeSource",
            Self::Doubtful(_) => "DoubtfulMetric",
        }
    }
}
