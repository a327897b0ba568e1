//! What is known of the families that model servers export.

use std::{borrow::Cow, collections::HashMap, fmt, sync::LazyLock};

use super::{super::exposition::Kind, table::TABLE};

/// A family that a model server (or KAITO around it) exports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// Its present name, without the `_total` of a counter's samples.
    pub name: &'static str,
    /// The name that it had in older versions.
    pub formerly: Option<&'static str>,
    pub engine: Engine,
    pub kind: Kind,
    pub unit: Unit,
    /// How the series of one page become one value.
    pub merge: Merge,
    /// What it tells us, where we use it for more than the metric that a user names.
    pub concept: Option<Concept>,
    /// No version that is in use exports it any more.
    pub removed: bool,
}

/// Whose family it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    Vllm,
    Sglang,
    TensorRtLlm,
    Tgi,
    LlamaCpp,
    LmDeploy,
    Triton,
    /// The HTTP frontend of NVIDIA Dynamo: no engine itself, it stands before some.
    Dynamo,
    /// KAITO's wrapper around vLLM: no engine, its families say nothing about one being up.
    Kaito,
}

impl Engine {
    /// Whether the table has every family of the versions that it speaks of, so that another name
    /// is most likely a slip.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::Vllm | Self::Kaito)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vllm => "vLLM",
            Self::Sglang => "SGLang",
            Self::TensorRtLlm => "TensorRT-LLM",
            Self::Tgi => "TGI",
            Self::LlamaCpp => "llama.cpp",
            Self::LmDeploy => "LMDeploy",
            Self::Triton => "Triton",
            Self::Dynamo => "Dynamo",
            Self::Kaito => "KAITO",
        })
    }
}

/// What a family's values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A part of the whole, 0 to 1, whatever the name says: not percent.
    Ratio,
    Requests,
    Tokens,
    Seconds,
    /// Seconds since the Unix epoch.
    UnixTime,
    Bytes,
    BytesPerSecond,
    TokensPerSecond,
    /// Times that something happened.
    Events,
    /// Always 0 or 1: the labels say it.
    State,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ratio => "ratio (0 to 1)",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Seconds => "seconds",
            Self::UnixTime => "seconds since 1970",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes per second",
            Self::TokensPerSecond => "tokens per second",
            Self::Events => "events",
            Self::State => "state (0 or 1)",
        })
    }
}

/// How the series of a gauge or counter on one page become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Counts add up over engines and label sets.
    Sum,
    /// Of a pod with several engines the fullest one counts; of times the newest.
    Max,
}

/// How an engine's series overlap: which of those of one family count the same requests, so that
/// adding them up would count these twice. Holds for every family of the engine that adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    pub engine: Engine,
    /// Series that differ in these labels alone say the same thing: the largest one counts. What
    /// differs in any other label adds up.
    pub same_over: &'static [&'static str],
    /// A series in which this label is empty or absent is the total of the series that are like
    /// it but for this label: where it is there, they do not count.
    pub total_where_empty: &'static str,
}

/// The things that every engine tells in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Concept {
    Waiting,
    /// The same split by reason: stands in where the total is absent.
    WaitingByReason,
    Running,
    /// Requests held, waiting and running together.
    Held,
    KvUsage,
    /// One series per sleep state; 1 where the engine is in it.
    SleepState,
    /// Requests refused, cumulative.
    Rejections,
    /// Seconds until the model is downloaded; negative where unknown.
    DownloadRemaining,
}

/// Under Ray Serve vLLM's families go by this prefix instead of `vllm:`.
const RAY_PREFIX: &str = "ray_vllm_";
const VLLM_PREFIX: &str = "vllm:";

/// Every family in the table.
#[must_use]
pub fn known_families() -> &'static [Family] {
    TABLE
}

/// The family that `name` names: by its present or former name, with or without `_total`, and
/// with either of vLLM's prefixes.
#[must_use]
pub fn family(name: &str) -> Option<&'static Family> {
    static BY_NAME: LazyLock<HashMap<&str, &Family>> = LazyLock::new(|| {
        let names = |family: &'static Family| [Some(family.name), family.formerly].into_iter().flatten();
        TABLE.iter().flat_map(|family| names(family).map(move |name| (name, family))).collect()
    });
    let by_name = |name: &str| BY_NAME.get(name).copied();
    let name = with_vllm_prefix(name);
    by_name(&name).or_else(|| by_name(name.strip_suffix("_total")?).filter(|f| f.kind == Kind::Counter))
}

/// How the series of the family that `name` names overlap; `None` where they do not.
#[must_use]
pub fn overlap(name: &str) -> Option<&'static Overlap> {
    let engine = engine_of(name)?;
    super::table::OVERLAPS.iter().find(|overlap| overlap.engine == engine)
}

/// The unit of the family that `name` names; `None` where the table does not have it.
#[must_use]
pub fn unit(name: &str) -> Option<Unit> {
    family(name).map(|family| family.unit)
}

/// Whether the values of replicas add up to something: counts do, shares of a whole do not.
/// Of a family that the table lacks, the name tells.
#[must_use]
pub fn adds_up(name: &str) -> bool {
    const SHARES: [&str; 5] = ["_perc", "_percent", "_ratio", "_usage", "_utilization"];
    match family(name) {
        Some(family) => family.merge == Merge::Sum && family.unit != Unit::Ratio,
        None => !SHARES.iter().any(|ending| name.ends_with(ending)),
    }
}

/// The other names under which a page may hold what `name` means, likeliest first: the name
/// after or before a renaming, and vLLM's names under Ray Serve (or the other way round).
/// Never a family of another engine.
#[must_use]
pub fn aliases(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if let Some(family) = family(name) {
        let bare = with_vllm_prefix(name);
        let suffix = if bare == family.name || Some(&*bare) == family.formerly { "" } else { "_total" };
        names.extend([Some(family.name), family.formerly].into_iter().flatten().filter_map(|other| {
            let printed = format!("{other}{suffix}");
            // The prefix that was asked for comes first.
            if name.starts_with(RAY_PREFIX) { with_ray_prefix(&printed) } else { Some(printed) }
        }));
    }
    let other_prefix: Vec<String> = names
        .iter()
        .filter_map(|name| match name.strip_prefix(RAY_PREFIX) {
            Some(rest) => Some(format!("{VLLM_PREFIX}{rest}")),
            None => with_ray_prefix(name),
        })
        .collect();
    names.extend(other_prefix);
    let mut seen = Vec::with_capacity(names.len());
    names.retain(|candidate| {
        let new = candidate != name && !seen.contains(candidate);
        seen.push(candidate.clone());
        new
    });
    names
}

/// The families of other engines that tell the same as `name`: not to be read in its place,
/// but worth a "did you mean".
pub fn same_concept(name: &str) -> impl Iterator<Item = &'static Family> {
    let asked = family(name).and_then(|f| Some((f.engine, f.concept?)));
    TABLE.iter().filter(move |f| {
        asked.is_some_and(|(engine, concept)| f.engine != engine && f.concept == Some(concept))
    })
}

/// The engine whose family `name` is, by its prefix: also for families that are not in the
/// table.
#[must_use]
pub fn engine_of(name: &str) -> Option<Engine> {
    const PREFIXES: [(&str, Engine); 10] = [
        (VLLM_PREFIX, Engine::Vllm),
        (RAY_PREFIX, Engine::Vllm),
        ("sglang:", Engine::Sglang),
        ("trtllm_", Engine::TensorRtLlm),
        ("tgi_", Engine::Tgi),
        ("llamacpp:", Engine::LlamaCpp),
        ("lmdeploy:", Engine::LmDeploy),
        ("nv_inference_", Engine::Triton),
        ("dynamo_frontend_", Engine::Dynamo),
        ("kaito_", Engine::Kaito),
    ];
    PREFIXES.iter().find_map(|(prefix, engine)| name.starts_with(prefix).then_some(*engine))
}

/// Whether `name` is one of vLLM's under Ray Serve.
pub(super) fn is_under_ray(name: &str) -> bool {
    name.starts_with(RAY_PREFIX)
}

/// vLLM's name under Ray Serve; `None` for what is not vLLM's.
pub(super) fn with_ray_prefix(name: &str) -> Option<String> {
    Some(format!("{RAY_PREFIX}{}", name.strip_prefix(VLLM_PREFIX)?))
}

/// A name under Ray Serve as vLLM itself has it; any other as it is.
pub(super) fn with_vllm_prefix(name: &str) -> Cow<'_, str> {
    match name.strip_prefix(RAY_PREFIX) {
        Some(rest) => format!("{VLLM_PREFIX}{rest}").into(),
        None => name.into(),
    }
}
