//! What an InferenceSet's annotations come to, given the InferenceSet.

use super::{Annotations, Source, Warning, parse};
use crate::{config::problem::Problems, wake::Readability};

/// What has to be known of an InferenceSet besides its annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `spec.nodeCountLimit`; 0 is none.
    pub node_count_limit: u32,
    /// The nodes that one replica takes: `status.targetNodeCount` of a child Workspace that
    /// has one. `None` until a Workspace says so.
    pub nodes_per_replica: Option<u32>,
    /// What is known of the source that would wake it at zero replicas.
    pub wake: Wake,
    /// Whether its ScaledObject goes to zero as it is.
    pub goes_to_zero: bool,
    /// Whether its ScaledObject was made by the replaced scaler and is still to be taken over.
    pub adopting: bool,
    /// `spec.roles[].replicas` of the `MultiRoleInference`, where it fixes them.
    pub fixed_replicas: Option<u32>,
}

/// What came of trying to read a wake-up source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Nothing yet; `overdue` where that should long have changed.
    Untried {
        overdue: bool,
    },
    Tried(Readability),
}

impl Default for Wake {
    fn default() -> Self {
        Self::Untried { overdue: false }
    }
}

/// What to do for an InferenceSet.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It doesn't ask for autoscaling: what we made for it goes.
    Off,
    /// How far it may scale shows only once a Workspace exists; its event will tell.
    Waiting,
    /// Nothing is made or changed, and events say why: at least one reason. What was made
    /// before stays.
    Refused(Vec<Refusal>),
    Provision {
        spec: ScalingSpec,
        warnings: Vec<Warning>,
    },
}

/// Everything that a ScaledObject is built from, apart from whom it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingSpec {
    pub annotations: Annotations,
    pub replicas: Replicas,
}

/// How far a ScaledObject scales. `min` is not above `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    pub min: u32,
    pub max: u32,
    /// Whether it goes to zero where nobody asks.
    pub to_zero: bool,
}

/// Why nothing is provisioned. Each becomes a Warning event.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    InvalidConfig(Problems),
    #[error("{prefix}min-replicas is {min}, above the {max} replicas that are possible at most")]
    InvalidReplicaRange { prefix: &'static str, min: u32, max: u32 },
    #[error("how far to scale is not known: set {prefix}max-replicas, or spec.nodeCountLimit")]
    NoReplicaLimit { prefix: &'static str },
    #[error(
        "the role's replicas are set to {replicas}, which would be put back whenever they change: leave \
         spec.roles[].replicas out to have the role autoscaled"
    )]
    ReplicasFixed { replicas: u32 },
}

impl Refusal {
    /// The event's reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::InvalidConfig(_) => "InvalidConfig",
            Self::InvalidReplicaRange { .. } => "InvalidReplicaRange",
            Self::NoReplicaLimit { .. } => "NoReplicaLimit",
            Self::ReplicasFixed { .. } => "ReplicasFixed",
        }
    }
}

/// Decides what is to be done for an InferenceSet with these annotations. For the child of a
/// `MultiRoleInference` the annotations are its parent's.
#[must_use]
pub fn decide<'a>(
    source: Source,
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    facts: &Facts,
) -> Decision {
    let fixed = facts.fixed_replicas.map(|replicas| Refusal::ReplicasFixed { replicas });
    let (annotations, mut warnings) = match parse(source, annotations, facts.adopting) {
        Ok(None) => return Decision::Off,
        Ok(Some(parsed)) => parsed,
        Err(problems) => {
            return Decision::Refused([Refusal::InvalidConfig(problems)].into_iter().chain(fixed).collect());
        }
    };
    let mut refusals = Vec::from_iter(fixed);
    let prefix = source.prefix();
    let possible = possible(facts);
    let min = annotations.min_replicas;
    let max = match (annotations.max_replicas, possible) {
        (Some(max), _) => Some(max),
        (None, Some((possible, _))) => Some(possible),
        (None, None) if facts.node_count_limit > 0 => None,
        (None, None) => {
            refusals.push(Refusal::NoReplicaLimit { prefix });
            None
        }
    };
    if let Some(max) = max.filter(|&max| min > max) {
        refusals.push(Refusal::InvalidReplicaRange { prefix, min, max });
    }
    if !refusals.is_empty() {
        return Decision::Refused(refusals);
    }
    let Some(max) = max else { return Decision::Waiting };
    if let (Some(asked), Some((possible, nodes_per_replica))) = (annotations.max_replicas, possible)
        && asked > possible
    {
        let annotation = format!("{prefix}max-replicas");
        warnings.push(Warning::MaxReplicasOutOfReach { annotation, asked, possible, nodes_per_replica });
    }
    let to_zero = annotations.scale_to_zero && may_sleep(facts);
    if annotations.scale_to_zero
        && let Some(why) = sleepless(&facts.wake)
    {
        let annotation = format!("{prefix}scale-to-zero");
        let floor = if to_zero { 0 } else { min };
        warnings.push(Warning::NoWakeSource { annotation, floor, why });
    }
    Decision::Provision {
        spec: ScalingSpec { annotations, replicas: Replicas { min, max, to_zero } },
        warnings,
    }
}

/// Whether zero replicas are no trap: something would wake the model. As long as that is not
/// known, things stay as they are: after a restart of ours, or with a new leader, a model that
/// sleeps is not woken and one that is awake is not put to sleep.
fn may_sleep(facts: &Facts) -> bool {
    match &facts.wake {
        Wake::Tried(readability) => *readability == Readability::Readable,
        Wake::Untried { .. } => facts.goes_to_zero,
    }
}

/// What is to be said of a wake-up source that can't be relied upon.
#[must_use]
pub fn sleepless(wake: &Wake) -> Option<String> {
    match wake {
        Wake::Tried(Readability::Readable) | Wake::Untried { overdue: false } => None,
        Wake::Tried(Readability::Unreadable(obstacle)) => Some(obstacle.to_string()),
        Wake::Untried { overdue: true } => {
            Some("whether the wake-up source can be read is not known after a minute".to_owned())
        }
    }
}

/// The replicas that nodeCountLimit has room for, and the nodes that each takes; `None` where
/// there is no limit, or it can't be told yet.
fn possible(facts: &Facts) -> Option<(u32, u32)> {
    let nodes_per_replica = facts.nodes_per_replica.filter(|&nodes| nodes > 0)?;
    let limit = (facts.node_count_limit > 0).then_some(facts.node_count_limit)?;
    Some(((limit / nodes_per_replica).max(1), nodes_per_replica))
}
