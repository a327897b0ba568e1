//! What the aggregator publishes for one target, and what every answer to KEDA is read from.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use super::activation::{Activity, Cause, Demand};
use crate::{decision::fill::Census, names::MetricName, time::Moment};

/// One decision about one target. Immutable; replaced whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub at: Moment,
    /// `spec.replicas`, or `None` while the InferenceSet is not known.
    pub replicas: Option<u32>,
    pub census: Census,
    /// Replicas that were not up by their deadline, and count as absent.
    pub stuck: u32,
    pub demand: Demand,
    pub activity: Activity,
    /// One for each metric spec of the trigger, in their order.
    pub values: Vec<Result<Value, Unavailable>>,
}

/// A value for KEDA and how it came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// Finite, not negative.
    pub value: f64,
    pub basis: Basis,
}

/// How a value came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Basis {
    /// No replica is wanted: a known zero.
    NoReplicas,
    /// A total over the replicas; `known` is their sum before unknown ones were filled in.
    Total {
        known: f64,
    },
    /// As `Total`, but not more than the target for each replica while some are on their way.
    Capped {
        known: f64,
    },
    /// Over the replicas that serve.
    Mean,
    Max,
    /// Over the window's increase; `covered` is how much of it there is.
    Window {
        covered: Duration,
        warming_up: bool,
    },
    /// No request ended in the window and none is there.
    IdleWindow,
    /// Every replica is on its way: hold.
    AllInFlight,
    /// No replica has ever served within its deadline: all count as absent.
    AllAbsent,
    /// Replicas ready (or past their deadline) against replicas wanted.
    Gate {
        ready: u32,
    },
    /// Several metrics said: more, fewer, or hold.
    Policy(Direction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Hold,
    Down,
}

/// Why there is no value. KEDA gets it as an error and keeps the replicas as they are.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Unavailable {
    #[error("nothing has been heard of the cluster yet")]
    NotSynced,
    #[error("the InferenceSet does not exist")]
    NoInferenceSet,
    #[error("the watch on the cluster has been silent for {} s", .0.as_secs())]
    WatchSilent(Duration),
    #[error("none of {replicas} replicas could be read{}", Because(.last_error))]
    NoneKnown { replicas: u32, last_error: Option<Arc<str>> },
    #[error("{unknown} of {} replicas could not be read, too many to speak for the rest", unknown + known)]
    MostlyUnknown { unknown: u32, known: u32 },
    #[error("no replica has the metric {metric}{}", DidYouMean(.similar))]
    MissingMetric { metric: MetricName, similar: Vec<String> },
    #[error("{metric} is {found}, and the aggregation needs {needed}")]
    WrongKind { metric: MetricName, found: &'static str, needed: &'static str },
    #[error("the window of {metric} needs two samples and has fewer")]
    WindowStarting { metric: MetricName },
    #[error("no request ended within the window of {metric}, and {requests} are held")]
    NothingEnded { metric: MetricName, requests: f64 },
}

struct Because<'a>(&'a Option<Arc<str>>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

struct DidYouMean<'a>(&'a [String]);

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, " (did you mean {}?)", self.0.join(" or "))
    }
}

impl Snapshot {
    /// The snapshot of a target before anything is known of its InferenceSet.
    #[must_use]
    pub fn unknown(at: Moment, specs: usize, why: &Unavailable) -> Self {
        Self {
            at,
            replicas: None,
            census: Census::default(),
            stuck: 0,
            demand: Demand::default(),
            activity: Activity::Unknown,
            values: vec![Err(why.clone()); specs],
        }
    }

    /// The decision record: one sentence on the value and one on activation.
    #[must_use]
    pub fn why(&self) -> String {
        let mut text = String::new();
        for value in &self.values {
            if !text.is_empty() {
                text.push_str("; ");
            }
            match value {
                Ok(value) => text.push_str(&value.basis.describe(value.value, self.census)),
                Err(unavailable) => text.push_str(&unavailable.to_string()),
            }
        }
        text.push_str("; ");
        text.push_str(&self.describe_activity());
        text
    }

    fn describe_activity(&self) -> String {
        let Demand { amount, in_flight, unknown, .. } = self.demand;
        match self.activity {
            Activity::Active(Cause::Demand) => format!("active: demand {amount}"),
            Activity::Active(Cause::Held) => "active: held after the last demand".into(),
            Activity::Active(Cause::Running) => "active: requests are still running".into(),
            Activity::Active(Cause::InFlight) => format!("active: {in_flight} replicas on their way"),
            Activity::Active(Cause::PartlyUnknown) => {
                format!("active: the demand of {unknown} replicas is unknown")
            }
            Activity::Inactive => "inactive: no demand".into(),
            Activity::Unknown => "activity unknown".into(),
        }
    }
}

impl Basis {
    fn describe(self, value: f64, census: Census) -> String {
        let Census { replicas, known, unknown, in_flight } = census;
        // Writing to a String cannot fail.
        let population = || {
            let mut text = format!("{known} of {replicas} replicas");
            if unknown > 0 {
                let _ = write!(text, ", {unknown} unknown");
            }
            if in_flight > 0 {
                let _ = write!(text, ", {in_flight} on their way");
            }
            text
        };
        match self {
            Self::NoReplicas => "0: no replica is wanted".into(),
            Self::Total { known } if unknown + in_flight == 0 => format!("{known} over {}", population()),
            Self::Total { known } => format!("{value}: {known} over {}, filled in at target", population()),
            Self::Capped { known } => {
                format!("{value}: {known} over {}, held while replicas are on their way", population())
            }
            Self::Mean => format!("{value}: mean over {}", population()),
            Self::Max => format!("{value}: largest over {}", population()),
            Self::Window { covered, warming_up } => format!(
                "{value}: over the last {} s of {}{}",
                covered.as_secs(),
                population(),
                if warming_up { ", warming up" } else { "" }
            ),
            Self::IdleWindow => "0: no request in the window".into(),
            Self::AllInFlight => format!("{value}: hold, all of {replicas} replicas are on their way"),
            Self::AllAbsent => format!("0: none of {replicas} replicas came up within its deadline"),
            Self::Gate { ready } => format!("{value}: {ready} of {replicas} replicas are ready"),
            Self::Policy(direction) => format!(
                "{value}: {} over {}",
                match direction {
                    Direction::Up => "scale up",
                    Direction::Hold => "hold",
                    Direction::Down => "scale down",
                },
                population()
            ),
        }
    }
}
