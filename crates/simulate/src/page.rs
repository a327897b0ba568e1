//! What a replica's metrics page says, as values.

/// Bucket bounds in seconds as vLLM prints them; +Inf is implied.
pub mod bounds {
    /// `vllm:time_to_first_token_seconds`.
    pub const TIME_TO_FIRST_TOKEN: [f64; 22] = [
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
        40.0, 80.0, 160.0, 640.0, 2560.0,
    ];
    /// `vllm:inter_token_latency_seconds`.
    pub const INTER_TOKEN: [f64; 19] = [
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
        80.0,
    ];
    /// `vllm:request_queue_time_seconds` and the like.
    pub const REQUEST: [f64; 21] = [
        0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
        480.0, 960.0, 1920.0, 7680.0,
    ];
}

/// A histogram with fixed bounds, of times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times<const BUCKETS: usize> {
    /// Observations in each bucket, not cumulative; those above the last bound are only in
    /// `count`.
    pub buckets: [u64; BUCKETS],
    /// Observations so far.
    pub count: u64,
    /// Their sum in microseconds.
    pub sum_us: u64,
}

impl<const BUCKETS: usize> Default for Times<BUCKETS> {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, sum_us: 0 }
    }
}

/// The gauges and counters of one replica at one moment, named after vLLM's families.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// `vllm:num_requests_running`.
    pub running: u32,
    /// `vllm:num_requests_waiting`.
    pub waiting: u32,
    /// `vllm:kv_cache_usage_perc`, 0 to 1.
    pub kv_usage: f64,
    /// `vllm:prompt_tokens_total`: of prompts whose prefill is done, cached ones included.
    pub prompt_tokens: u64,
    /// `vllm:prompt_tokens_cached_total`: those of them that the prefix cache gave.
    pub prompt_tokens_cached: u64,
    /// `vllm:generation_tokens_total`.
    pub generation_tokens: u64,
    /// `vllm:request_success_total`.
    pub succeeded: u64,
    /// `vllm:request_prompt_tokens_sum`, of answered requests.
    pub prompt_tokens_of_answered: u64,
    /// `vllm:request_generation_tokens_sum`, of answered requests.
    pub generation_tokens_of_answered: u64,
    /// `vllm:iteration_tokens_total_count`: engine steps.
    pub steps: u64,
    /// `vllm:iteration_tokens_total_sum`: tokens that the steps computed, of prompts and answers.
    pub step_tokens: u64,
    /// `vllm:num_preemptions_total`.
    pub preemptions: u64,
    /// `kaito_ratelimit_rejected_total`.
    pub rejected: u64,
    /// `vllm:time_to_first_token_seconds`; its count is that of first tokens.
    pub time_to_first_token: Times<22>,
    /// `vllm:inter_token_latency_seconds`.
    pub inter_token: Times<19>,
    /// `vllm:request_queue_time_seconds`.
    pub queue_time: Times<21>,
    /// `vllm:e2e_request_latency_seconds`.
    pub end_to_end: Times<21>,
}
