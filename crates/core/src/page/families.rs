//! The table of families. Read from vLLM 0.25 to 0.33 and from what the other engines document.

use std::fmt;

use super::super::exposition::Kind;

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
}

/// Whose family it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    Vllm,
    Sglang,
    TensorRtLlm,
    Tgi,
    /// KAITO's wrapper around vLLM: no engine, its families say nothing about one being up.
    Kaito,
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
    BytesPerSecond,
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
            Self::BytesPerSecond => "bytes per second",
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

/// The things that every engine tells in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Concept {
    Waiting,
    /// The same split by reason: stands in where the total is absent.
    WaitingByReason,
    Running,
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
    let by_name = |name: &str| TABLE.iter().find(|f| f.name == name || f.formerly == Some(name));
    let name = with_vllm_prefix(name);
    by_name(&name).or_else(|| by_name(name.strip_suffix("_total")?).filter(|f| f.kind == Kind::Counter))
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
pub(super) fn engine_of(name: &str) -> Option<Engine> {
    const PREFIXES: [(&str, Engine); 6] = [
        (VLLM_PREFIX, Engine::Vllm),
        (RAY_PREFIX, Engine::Vllm),
        ("sglang:", Engine::Sglang),
        ("trtllm_", Engine::TensorRtLlm),
        ("tgi_", Engine::Tgi),
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

fn with_vllm_prefix(name: &str) -> std::borrow::Cow<'_, str> {
    match name.strip_prefix(RAY_PREFIX) {
        Some(rest) => format!("{VLLM_PREFIX}{rest}").into(),
        None => name.into(),
    }
}

const fn vllm(name: &'static str, kind: Kind, unit: Unit) -> Family {
    Family { name, formerly: None, engine: Engine::Vllm, kind, unit, merge: Merge::Sum, concept: None }
}

impl Family {
    const fn was(self, name: &'static str) -> Self {
        Self { formerly: Some(name), ..self }
    }

    const fn max(self) -> Self {
        Self { merge: Merge::Max, ..self }
    }

    const fn tells(self, concept: Concept) -> Self {
        Self { concept: Some(concept), ..self }
    }

    const fn of(self, engine: Engine) -> Self {
        Self { engine, ..self }
    }
}

use self::{
    Concept::{DownloadRemaining, KvUsage, Rejections, Running, SleepState, Waiting, WaitingByReason},
    Engine::{Kaito, Sglang, TensorRtLlm, Tgi},
    Kind::{Counter, Gauge, Histogram},
    Unit::{BytesPerSecond, Events, Ratio, Requests, Seconds, State, Tokens, UnixTime},
};

static TABLE: &[Family] = &[
    vllm("vllm:num_requests_waiting", Gauge, Requests).tells(Waiting),
    vllm("vllm:num_requests_waiting_by_reason", Gauge, Requests).tells(WaitingByReason),
    vllm("vllm:num_requests_running", Gauge, Requests).tells(Running),
    vllm("vllm:kv_cache_usage_perc", Gauge, Ratio).was("vllm:gpu_cache_usage_perc").max().tells(KvUsage),
    vllm("vllm:engine_sleep_state", Gauge, State).max().tells(SleepState),
    vllm("vllm:cache_config_info", Gauge, State).max(),
    vllm("vllm:lora_requests_info", Gauge, UnixTime).max(),
    vllm("vllm:admission_rejections", Counter, Requests).tells(Rejections),
    vllm("vllm:num_preemptions", Counter, Events),
    vllm("vllm:request_success", Counter, Requests),
    vllm("vllm:prompt_tokens", Counter, Tokens),
    vllm("vllm:generation_tokens", Counter, Tokens),
    vllm("vllm:prefix_cache_queries", Counter, Tokens).was("vllm:gpu_prefix_cache_queries"),
    vllm("vllm:prefix_cache_hits", Counter, Tokens).was("vllm:gpu_prefix_cache_hits"),
    vllm("vllm:time_to_first_token_seconds", Histogram, Seconds),
    vllm("vllm:inter_token_latency_seconds", Histogram, Seconds).was("vllm:time_per_output_token_seconds"),
    vllm("vllm:request_time_per_output_token_seconds", Histogram, Seconds),
    vllm("vllm:e2e_request_latency_seconds", Histogram, Seconds),
    vllm("vllm:request_queue_time_seconds", Histogram, Seconds),
    vllm("vllm:request_inference_time_seconds", Histogram, Seconds),
    vllm("vllm:request_prefill_time_seconds", Histogram, Seconds),
    vllm("vllm:request_decode_time_seconds", Histogram, Seconds),
    vllm("vllm:request_prompt_tokens", Histogram, Tokens),
    vllm("vllm:request_generation_tokens", Histogram, Tokens),
    vllm("vllm:iteration_tokens_total", Histogram, Tokens),
    vllm("kaito_ratelimit_rejected", Counter, Requests).tells(Rejections).of(Kaito),
    vllm("kaito_model_download_remaining_seconds", Gauge, Seconds).max().tells(DownloadRemaining).of(Kaito),
    vllm("kaito_model_download_speed_bytes_per_second", Gauge, BytesPerSecond).of(Kaito),
    vllm("sglang:num_queue_reqs", Gauge, Requests).tells(Waiting).of(Sglang),
    vllm("sglang:num_running_reqs", Gauge, Requests).tells(Running).of(Sglang),
    vllm("sglang:token_usage", Gauge, Ratio).max().tells(KvUsage).of(Sglang),
    vllm("trtllm_num_requests_waiting", Gauge, Requests).tells(Waiting).of(TensorRtLlm),
    vllm("trtllm_num_requests_running", Gauge, Requests).tells(Running).of(TensorRtLlm),
    vllm("trtllm_kv_cache_utilization", Gauge, Ratio).max().tells(KvUsage).of(TensorRtLlm),
    vllm("tgi_queue_size", Gauge, Requests).tells(Waiting).of(Tgi),
    vllm("tgi_batch_current_size", Gauge, Requests).tells(Running).of(Tgi),
];
