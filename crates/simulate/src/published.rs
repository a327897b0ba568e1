//! The published comparison: every trace of the data folder with every policy, as a table and
//! a picture for the documentation.

mod markdown;

use std::{collections::BTreeMap, path::Path, sync::Arc};

pub use self::markdown::{between_markers, tables};
use crate::{
    compare::{Comparison, Source},
    fluid,
    outcome::Outcome,
    policies::{Choice, PolicyError, TABLE},
    preset::{Preset, PresetError},
    trace::{
        Trace, TraceError,
        file::{Options, TraceFile},
        scaled::{BadFactor, Part, Scaling},
    },
    world::{ColdStart, SECOND, Slo, World},
};

/// A trace as it is published: which part of it, for which engine, scaled to which size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replayed {
    /// What the table calls it.
    pub name: &'static str,
    /// In the data folder.
    pub file: &'static str,
    pub model: &'static str,
    /// Hours that are left out at its start, and hours that are replayed.
    pub hours: Option<(u32, u32)>,
    /// Replicas that it needs on average once it is scaled.
    pub need: f64,
    pub max_replicas: u32,
    /// Whether it may sleep.
    pub to_zero: bool,
    /// Seconds; 2 where prompts can be served in that.
    pub ttft: u64,
    /// Whether it is traffic as it was recorded, which the means are over.
    pub recorded: bool,
}

const STEADY: Replayed = Replayed {
    name: "",
    file: "",
    model: "8b@a100x2",
    hours: None,
    need: 5.0,
    max_replicas: 24,
    to_zero: false,
    ttft: 2,
    recorded: true,
};

/// What is published.
pub const TRACES: [Replayed; 9] = [
    Replayed { name: "azure", file: "azure-llm-2023-conv.csv.gz", ..STEADY },
    Replayed {
        name: "azure-large",
        file: "azure-llm-2023-conv.csv.gz",
        model: "70b@h100x4",
        need: 20.0,
        max_replicas: 60,
        ..STEADY
    },
    // One prompt in a hundred has over 80,000 tokens, which take 5 s alone.
    Replayed { name: "mooncake", file: "mooncake-fast25-conversation.jsonl.gz", ttft: 10, ..STEADY },
    Replayed {
        name: "m-small",
        file: "servegen-m-small-10min.csv.gz",
        model: "70b@a100x4",
        hours: Some((24, 3)),
        ..STEADY
    },
    Replayed {
        name: "m-mid",
        file: "servegen-m-mid-10min.csv.gz",
        model: "70b@h100x4",
        hours: Some((48, 4)),
        need: 3.0,
        ..STEADY
    },
    Replayed { name: "deepseek-r1", file: "servegen-deepseek-r1-10min.csv.gz", ..STEADY },
    Replayed {
        name: "bursts",
        file: "stress-bursts.csv",
        model: "70b@h100x8",
        need: 3.0,
        recorded: false,
        ..STEADY
    },
    Replayed {
        name: "from-zero",
        file: "stress-from-zero.csv",
        model: "70b@h100x4",
        need: 1.0,
        to_zero: true,
        recorded: false,
        ..STEADY
    },
    Replayed {
        name: "days",
        file: "stress-days.csv",
        model: "70b@a100x4",
        need: 2.0,
        recorded: false,
        ..STEADY
    },
];

/// The cold starts, in seconds.
pub const COLD_STARTS: [u64; 2] = [100, 300];

/// What is compared, and whether each with all the settings that a sweep tries; those that do
/// not exist are left out.
const POLICIES: [(&str, bool); 11] = [
    ("latency", true),
    ("demand", true),
    ("waiting", true),
    ("waiting-k8s", false),
    ("concurrency", true),
    ("kv", false),
    ("queue-kv", true),
    ("velocity", true),
    ("slo-loop", true),
    ("static", true),
    ("clairvoyant", true),
];

/// Why nothing is published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Factor(#[from] BadFactor),
    #[error(transparent)]
    Preset(#[from] PresetError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// A trace under the name of the table.
#[derive(Debug)]
struct Named {
    name: &'static str,
    file: TraceFile,
}

/// A trace's name and requests.
#[derive(Debug)]
struct Renamed {
    name: &'static str,
    trace: TraceFile,
}

impl Trace for Renamed {
    fn name(&self) -> &str {
        self.name
    }

    fn open(&self) -> Result<crate::trace::RequestStream, TraceError> {
        self.trace.open()
    }
}

impl Source for Named {
    fn of_seed(&self, seed: u64) -> Arc<dyn Trace> {
        Arc::new(Renamed { name: self.name, trace: self.file.with_seed(seed) })
    }
}

/// Every policy that there is, by its default and by the settings of its sweep.
pub fn policies() -> Result<Vec<Choice>, PolicyError> {
    let mut choices = Vec::new();
    for (name, swept) in POLICIES {
        if TABLE.iter().any(|entry| entry.name == name) {
            let default: Choice = name.parse()?;
            if swept {
                choices.extend(default.sweep().into_iter().filter(|choice| !choice.setting().is_empty()));
            }
            choices.insert(choices.len(), default);
        }
    }
    Ok(choices)
}

/// Replays one trace with every cold start and policy.
pub fn replay(
    replayed: &Replayed,
    data: &Path,
    threads: usize,
    mut each: impl FnMut(Outcome),
) -> Result<(), PublishError> {
    let engine = Preset::named(replayed.model)?.engine().map_err(PresetError::from)?;
    let cold_starts =
        COLD_STARTS.map(|seconds| ColdStart { mean_us: seconds * SECOND, spread: 0.2, node: None });
    let world = World {
        slo: Slo { ttft_us: replayed.ttft * SECOND, ..Slo::default() },
        cold_start: cold_starts[0],
        min_replicas: u32::from(!replayed.to_zero),
        max_replicas: replayed.max_replicas,
        ..World::new(engine)
    };
    let hours = |hours: u32| f64::from(hours) * 3_600.0;
    let part = replayed.hours.map_or_else(Part::default, |(skipped, length)| Part {
        skipped: hours(skipped),
        length: hours(length),
    });
    let open = |scale: f64| -> Result<TraceFile, PublishError> {
        let scaling = Scaling::of(scale, 1.0)?;
        let options = Options { part, scaling, seed: 1, ..Options::default() };
        Ok(TraceFile::new(&data.join(replayed.file), options)?)
    };
    let mean = fluid::mean_replicas(&world, &open(1.0)?)?;
    let trace = Named { name: replayed.name, file: open(replayed.need / mean)? };
    let comparison = Comparison {
        traces: &[&trace],
        world,
        cold_starts: cold_starts.to_vec(),
        policies: policies()?,
        seeds: vec![1],
        annotations: Arc::new(BTreeMap::new()),
    };
    comparison.run(threads, |outcome| {
        each(outcome);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trace_is_in_the_data_folder_and_every_model_a_preset() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        for replayed in TRACES {
            assert!(data.join(replayed.file).is_file(), "{}", replayed.file);
            Preset::named(replayed.model).unwrap();
        }
    }

    #[test]
    fn each_policy_runs_at_its_default_and_no_setting_runs_twice() {
        let names: Vec<String> = policies().unwrap().iter().map(ToString::to_string).collect();
        for name in
            ["waiting", "waiting:threshold=2", "waiting-k8s", "concurrency", "kv", "static", "clairvoyant"]
        {
            assert_eq!(names.iter().filter(|own| *own == name).count(), 1, "{name} in {names:?}");
        }
    }
}
