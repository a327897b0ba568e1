//! What the aggregator publishes for one target, and what every answer to KEDA is read from.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use super::activation::{Activity, Cause, Demand};
use crate::{
    decision::fill::Census,
    names::MetricName,
    page::{sample::Lack, usage::Misuse},
    time::Moment,
};

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

/// A number for KEDA, finite and not negative, and how it came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    number: f64,
    pub basis: Basis,
}

impl Value {
    /// The only way to a value: KEDA and the HPA read infinity and NaN as 0, and scale down.
    ///
    /// # Errors
    /// Where `number` is not finite, or is negative.
    pub fn new(number: f64, basis: Basis) -> Result<Self, Unavailable> {
        if number.is_finite() && number >= 0.0 {
            // Without the sign that a zero may have.
            Ok(Self { number: number.abs(), basis })
        } else {
            Err(Unavailable::OutOfRange(number))
        }
    }

    #[must_use]
    pub fn number(self) -> f64 {
        self.number
    }
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
    /// Every replica that is there sleeps: hold.
    AllAsleep,
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
    #[error("none of {replicas} replicas could be read{}", Because(.reason))]
    NoneKnown { replicas: u32, reason: Option<Arc<str>> },
    #[error(
        "{unknown} of {} replicas are unknown, too many for the rest to speak for them{}",
        unknown.saturating_add(*known),
        Because(.reason)
    )]
    MostlyUnknown { unknown: u32, known: u32, reason: Option<Arc<str>> },
    #[error("no replica has the metric {metric}{}", DidYouMean(.similar))]
    MissingMetric { metric: MetricName, similar: Vec<String> },
    #[error("{metric} can't be read: {lack}")]
    Lacking { metric: MetricName, lack: Lack },
    #[error("{0}")]
    Misused(Misuse),
    #[error("{metric} is {found}, and the aggregation needs {needed}")]
    WrongKind { metric: MetricName, found: &'static str, needed: &'static str },
    #[error("the window of {metric} needs two samples and has fewer")]
    WindowStarting { metric: MetricName },
    /// `requests`: how many are held, where that is known.
    #[error("no request ended within the window of {metric}, and {} held", AreHeld(.requests))]
    NothingEnded { metric: MetricName, requests: Option<f64> },
    #[error("{unknown} of {replicas} replicas do not say how many requests they hold")]
    DemandUnknown { unknown: u32, replicas: u32 },
    #[error(
        "the value comes to {0}, which is no number for KEDA: a metric or a threshold is out of all proportion"
    )]
    OutOfRange(f64),
}

struct Because<'a>(&'a Option<Arc<str>>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

struct AreHeld<'a>(&'a Option<f64>);

impl fmt::Display for AreHeld<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(requests) => write!(f, "{requests} are"),
            None => f.write_str("it is not known how many are"),
        }
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

    /// Why the activity is unknown where it is: what keeps every value from being known, else
    /// that demand is not.
    #[must_use]
    pub fn why_activity_is_unknown(&self) -> Unavailable {
        let errors = self.values.iter().filter_map(|value| value.as_ref().err());
        match self.values.iter().all(Result::is_err).then(|| errors.cloned().next()).flatten() {
            Some(unavailable) => unavailable,
            None => {
                Unavailable::DemandUnknown { unknown: self.demand.unknown, replicas: self.census.replicas }
            }
        }
    }

    /// A metric of the trigger that is read as something that it is not.
    #[must_use]
    pub fn misuse(&self) -> Option<&Misuse> {
        self.values.iter().find_map(|value| match value {
            Err(Unavailable::Misused(misuse)) => Some(misuse),
            _ => None,
        })
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
                Ok(value) => text.push_str(&value.basis.describe(value.number, self.census)),
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
            Activity::Unknown => format!("activity unknown: the demand of {unknown} replicas is unknown"),
        }
    }
}

impl Basis {
    fn describe(self, value: f64, census: Census) -> String {
        let Census { replicas, known, unknown, in_flight, asleep } = census;
        // Writing to a String cannot fail.
        let population = || {
            let mut text = format!("{known} of {replicas} replicas");
            if unknown > 0 {
                let _ = write!(text, ", {unknown} unknown");
            }
            if in_flight > 0 {
                let _ = write!(text, ", {in_flight} on their way");
            }
            if asleep > 0 {
                let _ = write!(text, ", {asleep} asleep");
            }
            text
        };
        match self {
            Self::NoReplicas => "0: no replica is wanted".into(),
            Self::Total { known } if unknown == 0 && in_flight == 0 && asleep == 0 => {
                format!("{known} over {}", population())
            }
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
            Self::AllAsleep => {
                format!("{value}: hold, {asleep} of {replicas} replicas sleep and none serves")
            }
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
