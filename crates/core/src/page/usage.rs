//! As what a metric can be read: one check for triggers, annotations and pages.

use std::fmt;

use super::{
    super::exposition::{Kind, Part},
    families::{Unit, family},
};
use crate::names::MetricName;

/// What a metric is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    /// Its value at one moment, such as the length of a queue.
    Level,
    /// What it observed over a window: its mean or a quantile.
    Window,
}

/// What the samples under one name are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nature {
    Gauge,
    /// It only grows.
    Counter,
    Histogram,
    Summary,
    /// `x_sum`, `x_count` or `x_bucket` of a histogram or summary `x`.
    PartOf(&'static str),
    /// A point in time, in seconds since 1970.
    Timestamp,
    /// Always 1: the labels say it.
    Info,
    /// 0 or 1 for each of several states.
    State,
}

/// A metric that is read as something that it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misuse {
    pub metric: MetricName,
    pub nature: Nature,
    pub usage: Usage,
}

/// Whether a metric that is of this `nature` can be read for `usage`.
///
/// # Errors
/// Where its value would be a number that means nothing.
pub fn check(metric: &MetricName, nature: Nature, usage: Usage) -> Result<(), Misuse> {
    let fits = match usage {
        Usage::Level => nature == Nature::Gauge,
        Usage::Window => nature == Nature::Histogram,
    };
    if fits { Ok(()) } else { Err(Misuse { metric: metric.clone(), nature, usage }) }
}

/// Whether `metric` can be read as a level, as far as the families' table tells. That a window
/// needs a histogram is no mistake that makes wrong numbers: see [`super::doubt()`].
///
/// # Errors
/// Where its value would be a number that means nothing.
pub fn check_level(metric: &MetricName, usage: Usage) -> Result<(), Misuse> {
    match (usage, Nature::known(metric.family())) {
        (Usage::Level, Some(nature)) => check(metric, nature, usage),
        _ => Ok(()),
    }
}

impl Nature {
    /// What the samples called `name` are, as the families' table has it.
    #[must_use]
    pub fn known(name: &str) -> Option<Self> {
        if let Some(family) = family(name) {
            return Some(match (family.unit, family.kind) {
                (Unit::UnixTime, _) => Self::Timestamp,
                (Unit::State, _) if family.name.ends_with("_info") => Self::Info,
                (Unit::State, _) => Self::State,
                (_, Kind::Counter) => Self::Counter,
                (_, Kind::Histogram) => Self::Histogram,
                (_, Kind::Summary) => Self::Summary,
                (_, Kind::Gauge | Kind::Untyped) => Self::Gauge,
            });
        }
        if name.strip_suffix("_created").is_some_and(|of| family(of).is_some()) {
            return Some(Self::Timestamp);
        }
        let histogram = |of: &str| family(of).is_some_and(|family| family.kind == Kind::Histogram);
        part_of(name, histogram).then_some(Self::PartOf("histogram"))
    }

    /// What the samples called `name` are, where the TYPE line of `family` above them says that
    /// it is a `kind`; `None` where that line says nothing of them.
    #[must_use]
    pub fn declared(name: &str, family: &str, kind: Kind) -> Option<Self> {
        // Some servers type a counter by the name of its samples, some without `_total`.
        let stem = |name: &'_ str| name.strip_suffix(Part::Total.suffix()).map_or(name.len(), str::len);
        let own = name[..stem(name)] == family[..stem(family)];
        match kind {
            Kind::Counter if own => Some(Self::Counter),
            Kind::Gauge if own => Some(match Self::by_name(name) {
                Some(nature @ (Self::Timestamp | Self::Info)) => nature,
                _ => Self::Gauge,
            }),
            Kind::Histogram if own => Some(Self::Histogram),
            Kind::Summary if own => Some(Self::Summary),
            Kind::Histogram if part_of(name, |of| of == family) => Some(Self::PartOf("histogram")),
            Kind::Summary if part_of(name, |of| of == family) => Some(Self::PartOf("summary")),
            _ => None,
        }
    }

    /// What the samples called `name` are by the customs of naming; `None` where these leave it
    /// open.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&["_created", "_timestamp", "_timestamp_seconds", "_start_time_seconds"]) {
            Some(Self::Timestamp)
        } else if ends(&["_info"]) {
            Some(Self::Info)
        } else if ends(&["_total"]) {
            Some(Self::Counter)
        } else if ends(&["_bucket"]) {
            Some(Self::PartOf("histogram"))
        } else {
            None
        }
    }
}

/// Whether `name` is a sum, count or bucket of a family of which `is_family` holds.
fn part_of(name: &str, is_family: impl Fn(&str) -> bool) -> bool {
    [Part::Sum, Part::Count, Part::Bucket]
        .iter()
        .any(|part| name.strip_suffix(part.suffix()).is_some_and(&is_family))
}

impl fmt::Display for Nature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gauge => f.write_str("a gauge"),
            Self::Counter => f.write_str("a counter, which only grows"),
            Self::Histogram => f.write_str("a histogram"),
            Self::Summary => f.write_str("a summary"),
            Self::PartOf(whole) => write!(f, "a part of a {whole}, which only grows"),
            Self::Timestamp => f.write_str("a point in time, in seconds since 1970"),
            Self::Info => f.write_str("an info, always 1"),
            Self::State => f.write_str("a state, 0 or 1"),
        }
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, nature, usage } = self;
        write!(f, "{metric} is {nature}")?;
        let of_histogram = "windowed-avg or quantile (in a list of metrics type histogram)";
        match (usage, nature) {
            (Usage::Level, Nature::Histogram) => write!(f, ": use {of_histogram}"),
            (Usage::Level, Nature::PartOf("histogram")) => {
                let whole = metric.family().rsplit_once('_').map_or("", |(whole, _)| whole);
                write!(f, ": name {whole}, with {of_histogram}")
            }
            (Usage::Level, _) => f.write_str(": that is no level to scale on"),
            (Usage::Window, _) => {
                f.write_str(", and windowed-avg and quantile (type histogram) need a histogram")
            }
        }
    }
}

impl std::error::Error for Misuse {}
