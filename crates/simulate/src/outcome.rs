//! What a run cost and who waited.

use serde::Serialize;

/// The result of one run: one trace, one policy, one cold start, one seed. Its JSON is one line
/// of `-o json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The trace's name.
    pub trace: String,
    /// The policy's name.
    pub policy: String,
    /// The policy's settings as `key=value`, comma-separated; empty for the defaults.
    pub setting: String,
    /// The mean time from a pod's creation to its readiness.
    pub cold_start_seconds: f64,
    /// The seed of everything random.
    pub seed: u64,
    /// Requests that were scored.
    pub requests: u64,
    /// The share of the scored requests that met both targets, 0 to 1.
    pub attainment: f64,
    /// The same with the largest allowed number of replicas all the time.
    pub ceiling: f64,
    /// Hours of replicas that existed, loading and draining ones too.
    pub replica_hours: f64,
    /// Hours of replicas that loaded.
    pub loading_hours: f64,
    /// Time to first token in seconds, of the requests that had one.
    pub ttft_p50: f64,
    /// The 95th percentile of it.
    pub ttft_p95: f64,
    /// The 99th percentile of it.
    pub ttft_p99: f64,
    /// Requests that were refused as often as their client tried.
    pub refused: u64,
    /// Requests whose replica went away before it answered them.
    pub lost: u64,
    /// Times that the number of replicas wanted grew.
    pub scale_ups: u64,
    /// Times that it shrank.
    pub scale_downs: u64,
    /// Changes of direction within 10 minutes.
    pub reversals: u64,
    /// More than the line says, for the report.
    #[serde(skip)]
    pub detail: Detail,
}

/// What the report shows beyond the line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// The share that met the target for the first token.
    pub ttft_attainment: f64,
    /// The share that met the target for decoding.
    pub tpot_attainment: f64,
    /// Requests that arrived in the whole run, those of its first minutes too, which are not
    /// scored.
    pub arrived: u64,
    /// Of those: answered.
    pub served: u64,
    /// Of those: refused as often as their client tried.
    pub refused: u64,
    /// Of those: their replica went away.
    pub lost: u64,
    /// Of those: held at the gateway, waiting or running when the run ended.
    pub held: u64,
    /// Hours of replicas that the requests' work alone fills, with no margin, no cold start
    /// and no rounding.
    pub fluid_hours: f64,
    /// Seconds from the first request at zero replicas to its first token, the mean over the
    /// times that it happened.
    pub wake_seconds: Option<f64>,
    /// Preemptions of sequences for want of KV cache.
    pub preemptions: u64,
    /// The run over time, oldest first; at most [`Timeline::MAX_POINTS`] points.
    pub timeline: Timeline,
}

/// A run over time in equal intervals. Their length doubles whenever there would be too many,
/// so that memory is bounded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// Length of an interval in microseconds.
    pub interval_us: u64,
    /// One for each interval.
    pub points: Vec<Point>,
}

impl Timeline {
    /// The most points that are kept.
    pub const MAX_POINTS: usize = 2880;
}

/// One interval of the timeline: means over its seconds, or counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Requests that arrived.
    pub arrivals: u64,
    /// Prompt and answer tokens that arrived.
    pub input_tokens: u64,
    /// Answer tokens of the requests that arrived.
    pub output_tokens: u64,
    /// Requests whose target was missed, counted when it was.
    pub violations: u64,
    /// Mean of `spec.replicas`.
    pub wanted: f64,
    /// Mean of replicas that served.
    pub serving: f64,
    /// Mean of replicas that loaded.
    pub loading: f64,
    /// Mean of requests that waited, at the gateway or at an engine.
    pub queued: f64,
    /// 95th percentile of the time to first token in seconds; 0 where there was none.
    pub ttft_p95: f64,
}
