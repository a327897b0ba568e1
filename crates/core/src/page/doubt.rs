//! Metrics that can be asked for, but most likely not with what was meant.

use std::fmt;

use super::{
    families::{Engine, engine_of, family, known_families, with_vllm_prefix},
    similar::{ALIKE, Budget, likeness},
    usage::{Misuse, Nature, Usage, check},
};
use crate::names::MetricName;

/// Why a metric will most likely never be found, or not be what its user thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// No version that is in use has it any more.
    Removed { metric: MetricName, engine: Engine },
    /// It has an engine's prefix, and is none of its families as far as these are known.
    Unknown { metric: MetricName, engine: Engine, similar: Option<&'static str> },
    /// It is a family's name without the engine's prefix.
    NoPrefix { metric: MetricName, similar: &'static str },
    /// By its name it is nothing that can be read so.
    Seems(Misuse),
    /// The families' table knows that a window will never have a value.
    NoHistogram(Misuse),
}

/// What is doubtful about reading `metric` for `usage`, as far as it can be told without a page.
#[must_use]
pub fn doubt(metric: &MetricName, usage: Usage) -> Option<Doubt> {
    let name = metric.family();
    if let Some(family) = family(name) {
        if family.removed {
            return Some(Doubt::Removed { metric: metric.clone(), engine: family.engine });
        }
        let nature = Nature::known(name)?;
        return check(metric, nature, usage).err().map(Doubt::NoHistogram);
    }
    if let Some(nature) = Nature::known(name) {
        return check(metric, nature, usage).err().map(Doubt::NoHistogram);
    }
    if let Some(engine) = engine_of(name) {
        let similar = most_similar(name, engine);
        if similar.is_some() || engine.is_complete() {
            return Some(Doubt::Unknown { metric: metric.clone(), engine, similar });
        }
    }
    let bare = |known: &'static str| known.split_once(':').is_some_and(|(_, bare)| bare == name);
    if let Some(family) = known_families().iter().find(|family| bare(family.name)) {
        return Some(Doubt::NoPrefix { metric: metric.clone(), similar: family.name });
    }
    let nature = Nature::by_name(name)?;
    check(metric, nature, usage).err().map(Doubt::Seems)
}

/// The family of `engine` that `name` was most likely meant to be.
fn most_similar(name: &str, engine: Engine) -> Option<&'static str> {
    // A slip is looked for in the family's name: samples of counters end in `_total`.
    let stem = with_vllm_prefix(name.strip_suffix("_total").unwrap_or(name));
    let mut budget = Budget::default();
    let of_engine = known_families().iter().filter(|family| family.engine == engine && !family.removed);
    let scored = of_engine.filter_map(|family| {
        let score = likeness(&stem, family.name, &mut budget)?;
        (score >= ALIKE).then_some((score, family.name))
    });
    scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, name)| name)
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed { metric, engine } => {
                write!(f, "{engine} no longer has {metric}: there will be no value")
            }
            Self::Unknown { metric, engine, similar: Some(similar) } => {
                write!(f, "{metric} is no known metric of {engine}: did you mean {similar}?")
            }
            Self::Unknown { metric, engine, similar: None } => write!(
                f,
                "{metric} is no known metric of {engine}: unless its version has it there will be no value"
            ),
            Self::NoPrefix { metric, similar } => {
                write!(f, "{metric} has no engine's prefix: did you mean {similar}?")
            }
            Self::Seems(misuse) => write!(f, "by its name {misuse}"),
            Self::NoHistogram(misuse) => write!(f, "{misuse}: there will be no value"),
        }
    }
}
