//! The policies that can be replayed, by name. To add one: implement [`Policy`] in a file of
//! its own under `policies/` and give it a line in [`TABLE`].

mod annotated;
mod clairvoyant;
mod fixed;
mod scaled_object;
mod settings;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

pub use self::{
    annotated::{Annotated, IN_FLIGHT},
    clairvoyant::Clairvoyant,
    fixed::Static,
    settings::{Settings, SettingsError, parse_time_us},
};
use crate::{
    hpa::Behavior,
    policy::{Policy, Scaling},
    trace::{Trace, TraceError},
    world::{SECOND, World},
};

/// What a policy is made from beside its settings.
#[derive(Clone, Debug)]
pub struct Context {
    /// The world that it decides in.
    pub world: World,
    /// What will be replayed: only for those that know the future.
    pub trace: Arc<dyn Trace>,
    /// The annotations of `--annotations`, whole keys.
    pub annotations: Arc<BTreeMap<String, String>>,
}

/// Why a policy can't be made.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// There is none of that name.
    #[error("{name:?} is no policy; there are {}", names().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The settings are not what the policy takes.
    #[error("policy {policy}: {source}")]
    Settings {
        /// The policy's name.
        policy: &'static str,
        /// What is wrong with them.
        source: SettingsError,
    },
    /// What the annotations say can't be provisioned.
    #[error("policy {policy}: {why}")]
    Annotations {
        /// The policy's name.
        policy: &'static str,
        /// What provisioning says.
        why: String,
    },
    /// The trace can't be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Makes a policy for one run.
type Make = fn(&mut Settings, &Context) -> Result<Box<dyn Policy>, Fault>;

/// What goes wrong while a policy is made; [`Choice::make`] adds its name.
#[derive(Debug)]
pub enum Fault {
    /// See [`PolicyError::Settings`].
    Settings(SettingsError),
    /// See [`PolicyError::Annotations`].
    Annotations(String),
    /// See [`PolicyError::Trace`].
    Trace(TraceError),
}

impl From<SettingsError> for Fault {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error)
    }
}

impl From<TraceError> for Fault {
    fn from(error: TraceError) -> Self {
        Self::Trace(error)
    }
}

/// One policy that can be replayed.
#[derive(Debug)]
pub struct Entry {
    /// What it goes by.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// Settings that `--sweep` tries.
    pub sweep: &'static [&'static str],
    make: Make,
}

/// Every policy.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "waiting",
        about: "requests that wait, with the steps that annotations without a behavior give",
        sweep: &["threshold=1", "threshold=2", "threshold=5", "threshold=10", "threshold=20"],
        make: |settings, context| annotated(settings, context, &[("threshold", "10")], None),
    },
    Entry {
        name: "waiting-k8s",
        about: "requests that wait, with Kubernetes' own default behavior",
        sweep: &["threshold=1", "threshold=2", "threshold=5", "threshold=10", "threshold=20"],
        make: |settings, context| {
            annotated(settings, context, &[("threshold", "10")], Some(Behavior::kubernetes_default))
        },
    },
    Entry {
        name: "concurrency",
        about: "requests that wait or run, with Kubernetes' own default behavior",
        sweep: &[
            "threshold=4",
            "threshold=8",
            "threshold=16",
            "threshold=32",
            "threshold=64",
            "threshold=128",
        ],
        make: |settings, context| {
            let defaults = [("metricName", IN_FLIGHT), ("threshold", "32")];
            annotated(settings, context, &defaults, Some(Behavior::kubernetes_default))
        },
    },
    Entry {
        name: "kv",
        about: "the share of the KV cache in use, with Kubernetes' own default behavior",
        sweep: &["target=0.2", "target=0.4", "target=0.6", "target=0.8", "target=0.9"],
        make: |settings, context| {
            let target = settings.number("target", 0.8, 0.001..=1.0)?;
            let metrics = format!(
                r#"[{{"name": "vllm:kv_cache_usage_perc", "type": "gauge", "upthreshold": {target}, "downthreshold": {target}}}]"#
            );
            let defaults = [("metrics", &*metrics), ("combinepolicy", "MAX")];
            annotated(settings, context, &defaults, Some(Behavior::kubernetes_default))
        },
    },
    Entry {
        name: "annotations",
        about: "what the file given by --annotations provisions",
        sweep: &[],
        make: |settings, context| {
            if context.annotations.is_empty() {
                return Err(Fault::Annotations("it needs --annotations FILE".to_owned()));
            }
            annotated(settings, context, &[], None)
        },
    },
    Entry {
        name: "static",
        about: "as many replicas all the time: n, or times what the trace needs on average",
        sweep: &["times=1", "times=1.2", "times=1.4", "times=1.7", "times=2", "times=2.5", "times=3"],
        make: |settings, context| Ok(Box::new(Static::new(settings, context)?)),
    },
    Entry {
        name: "clairvoyant",
        about: "knows the future and starts replicas 1.2 cold starts ahead",
        sweep: &[
            "headroom=-0.1",
            "headroom=0",
            "headroom=0.1",
            "headroom=0.2",
            "headroom=0.3",
            "headroom=0.5",
            "headroom=1",
        ],
        make: |settings, context| Ok(Box::new(Clairvoyant::new(settings, context)?)),
    },
];

/// A policy by name with its settings, as `NAME` or `NAME:key=value,key=value`.
#[derive(Clone, Debug)]
pub struct Choice {
    entry: &'static Entry,
    settings: Settings,
}

impl Choice {
    /// The policy's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// Its settings as they were given.
    #[must_use]
    pub fn setting(&self) -> String {
        self.settings.to_string()
    }

    /// Makes the policy for one run.
    pub fn make(&self, context: &Context) -> Result<Box<dyn Policy>, PolicyError> {
        let policy = self.entry.name;
        let mut settings = self.settings.clone();
        let made = (self.entry.make)(&mut settings, context).map_err(|fault| match fault {
            Fault::Settings(source) => PolicyError::Settings { policy, source },
            Fault::Annotations(why) => PolicyError::Annotations { policy, why },
            Fault::Trace(error) => PolicyError::Trace(error),
        })?;
        settings.finish().map_err(|source| PolicyError::Settings { policy, source })?;
        Ok(made)
    }

    /// This policy with each of the settings that a sweep tries, those that were given kept.
    #[must_use]
    pub fn sweep(&self) -> Vec<Self> {
        let with = |swept: &&str| {
            let mut settings: Settings = swept.parse().ok()?;
            settings.extend(&self.settings);
            Some(Self { entry: self.entry, settings })
        };
        let swept: Vec<_> = self.entry.sweep.iter().filter_map(with).collect();
        if swept.is_empty() { vec![self.clone()] } else { swept }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry.name)?;
        let setting = self.setting();
        if setting.is_empty() { Ok(()) } else { write!(f, ":{setting}") }
    }
}

impl FromStr for Choice {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let (name, settings) = text.split_once(':').unwrap_or((text, ""));
        // What the incumbents are called for short.
        let name = match name {
            "incumbent" => "waiting",
            "k8s-default" => "waiting-k8s",
            name => name,
        };
        let entry = TABLE
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| PolicyError::Unknown { name: name.to_owned() })?;
        let settings =
            settings.parse().map_err(|source| PolicyError::Settings { policy: entry.name, source })?;
        Ok(Self { entry, settings })
    }
}

/// The name of every policy.
#[must_use]
pub fn names() -> Vec<&'static str> {
    TABLE.iter().map(|entry| entry.name).collect()
}

/// A policy that goes through the scaler: `defaults` and the settings are annotations without
/// what stands before them, and those of the file come in between. `behavior` replaces what
/// provisioning would write.
fn annotated(
    settings: &mut Settings,
    context: &Context,
    defaults: &[(&str, &str)],
    behavior: Option<fn(u32, u32) -> Behavior>,
) -> Result<Box<dyn Policy>, Fault> {
    let mut annotations: BTreeMap<String, String> =
        defaults.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    if defaults.is_empty() {
        let prefix = scaler_core::config::annotations::PREFIX;
        let ours = context
            .annotations
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
        annotations.extend(ours);
    }
    annotations.extend(settings.take_rest());
    let mut policy = Annotated::new(&annotations, &context.world).map_err(Fault::Annotations)?;
    if let Some(behavior) = behavior {
        let Behavior { min_replicas, max_replicas, .. } = policy.scaling().behavior;
        policy.replace_behavior(behavior(min_replicas, max_replicas));
    }
    Ok(Box::new(policy))
}

/// The ScaledObject around a policy that is not provisioned.
#[must_use]
pub fn plain_scaling(world: &World) -> Scaling {
    Scaling {
        behavior: Behavior::kubernetes_default(world.min_replicas.max(1), world.max_replicas),
        min_replicas: world.min_replicas,
        polling_interval_us: 15 * SECOND,
        cooldown_us: 300 * SECOND,
        push: true,
    }
}
