//! The table of families, and of how their series overlap. Read from pages of vLLM 0.25 to 0.33,
//! and from what the other engines document.

use super::families::{
    Concept::{DownloadRemaining, Held, KvUsage, Rejections, Running, SleepState, Waiting, WaitingByReason},
    Engine::{self, Dynamo, Kaito, LlamaCpp, LmDeploy, Sglang, TensorRtLlm, Tgi, Triton, Vllm},
    Family, Merge, Overlap,
    Unit::{
        Bytes, BytesPerSecond, Events, Ratio, Requests, Seconds, State, Tokens, TokensPerSecond, UnixTime,
    },
};
use super::{
    super::exposition::Kind::{self, Counter, Gauge, Histogram},
    families::{Concept, Unit},
};

pub(super) static OVERLAPS: &[Overlap] = &[
    // Each scheduler of a tensor-parallel group prints the queue that all of them share, where all
    // are asked to; data-parallel ones (`dp_rank`) have queues of their own. With priorities on,
    // the total stands beside a series for each priority.
    Overlap {
        engine: Sglang,
        same_over: &["tp_rank", "pp_rank", "moe_ep_rank"],
        total_where_empty: "priority",
    },
];

const fn row(engine: Engine, name: &'static str, kind: Kind, unit: Unit) -> Family {
    let merge = Merge::Sum;
    Family { name, formerly: None, engine, kind, unit, merge, concept: None, removed: false }
}

const fn vllm(name: &'static str, kind: Kind, unit: Unit) -> Family {
    row(Vllm, name, kind, unit)
}

const fn sglang(name: &'static str, kind: Kind, unit: Unit) -> Family {
    row(Sglang, name, kind, unit)
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

    const fn removed(self) -> Self {
        Self { removed: true, ..self }
    }
}

pub(super) static TABLE: &[Family] = &[
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
    vllm("vllm:corrupted_requests", Counter, Requests),
    vllm("vllm:prompt_tokens", Counter, Tokens),
    vllm("vllm:prompt_tokens_by_source", Counter, Tokens),
    vllm("vllm:prompt_tokens_cached", Counter, Tokens),
    vllm("vllm:prompt_tokens_cached_by_source", Counter, Tokens),
    vllm("vllm:generation_tokens", Counter, Tokens),
    vllm("vllm:prefix_cache_queries", Counter, Tokens).was("vllm:gpu_prefix_cache_queries"),
    vllm("vllm:prefix_cache_hits", Counter, Tokens).was("vllm:gpu_prefix_cache_hits"),
    vllm("vllm:external_prefix_cache_queries", Counter, Tokens),
    vllm("vllm:external_prefix_cache_hits", Counter, Tokens),
    vllm("vllm:mm_cache_queries", Counter, Events),
    vllm("vllm:mm_cache_hits", Counter, Events),
    vllm("vllm:spec_decode_num_drafts", Counter, Events),
    vllm("vllm:spec_decode_num_draft_tokens", Counter, Tokens),
    vllm("vllm:spec_decode_num_accepted_tokens", Counter, Tokens),
    vllm("vllm:spec_decode_num_accepted_tokens_per_pos", Counter, Tokens),
    vllm("vllm:estimated_flops_per_gpu", Counter, Events),
    vllm("vllm:estimated_read_bytes_per_gpu", Counter, Bytes),
    vllm("vllm:estimated_write_bytes_per_gpu", Counter, Bytes),
    vllm("vllm:kv_offload_total_bytes", Counter, Bytes),
    vllm("vllm:kv_offload_total_time", Counter, Seconds),
    vllm("vllm:nixl_num_failed_transfers", Counter, Events),
    vllm("vllm:nixl_num_failed_notifications", Counter, Events),
    vllm("vllm:nixl_num_kv_expired_reqs", Counter, Requests),
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
    vllm("vllm:request_max_num_generation_tokens", Histogram, Tokens),
    vllm("vllm:request_prefill_kv_computed_tokens", Histogram, Tokens),
    vllm("vllm:request_params_max_tokens", Histogram, Tokens),
    vllm("vllm:request_params_n", Histogram, Events),
    vllm("vllm:request_num_preemptions", Histogram, Events),
    vllm("vllm:iteration_tokens_total", Histogram, Tokens),
    vllm("vllm:kv_block_lifetime_seconds", Histogram, Seconds),
    vllm("vllm:kv_block_idle_before_evict_seconds", Histogram, Seconds),
    vllm("vllm:kv_block_reuse_gap_seconds", Histogram, Seconds),
    vllm("vllm:kv_offload_size", Histogram, Bytes),
    vllm("vllm:nixl_xfer_time_seconds", Histogram, Seconds),
    vllm("vllm:nixl_post_time_seconds", Histogram, Seconds),
    vllm("vllm:nixl_bytes_transferred", Histogram, Bytes),
    vllm("vllm:nixl_num_descriptors", Histogram, Events),
    vllm("vllm:num_requests_swapped", Gauge, Requests).removed(),
    vllm("vllm:cpu_cache_usage_perc", Gauge, Ratio).max().removed(),
    row(Kaito, "kaito_ratelimit_rejected", Counter, Requests).tells(Rejections),
    row(Kaito, "kaito_model_download_remaining_seconds", Gauge, Seconds).max().tells(DownloadRemaining),
    row(Kaito, "kaito_model_download_speed_bytes_per_second", Gauge, BytesPerSecond),
    sglang("sglang:num_queue_reqs", Gauge, Requests).tells(Waiting),
    sglang("sglang:num_running_reqs", Gauge, Requests).tells(Running),
    sglang("sglang:token_usage", Gauge, Ratio).max().tells(KvUsage),
    sglang("sglang:num_queue_rejected_requests", Counter, Requests).tells(Rejections),
    sglang("sglang:num_grammar_queue_reqs", Gauge, Requests),
    sglang("sglang:num_paused_reqs", Gauge, Requests),
    sglang("sglang:num_used_tokens", Gauge, Tokens),
    sglang("sglang:gen_throughput", Gauge, TokensPerSecond),
    sglang("sglang:cache_hit_rate", Gauge, Ratio).max(),
    sglang("sglang:prompt_tokens", Counter, Tokens),
    sglang("sglang:generation_tokens", Counter, Tokens),
    sglang("sglang:cached_tokens", Counter, Tokens),
    sglang("sglang:num_requests", Counter, Requests),
    sglang("sglang:num_aborted_requests", Counter, Requests),
    sglang("sglang:num_retracted_requests", Counter, Requests),
    sglang("sglang:time_to_first_token_seconds", Histogram, Seconds),
    sglang("sglang:inter_token_latency_seconds", Histogram, Seconds),
    sglang("sglang:e2e_request_latency_seconds", Histogram, Seconds),
    sglang("sglang:queue_time_seconds", Histogram, Seconds),
    row(TensorRtLlm, "trtllm_num_requests_waiting", Gauge, Requests).tells(Waiting),
    row(TensorRtLlm, "trtllm_num_requests_running", Gauge, Requests).tells(Running),
    row(TensorRtLlm, "trtllm_kv_cache_utilization", Gauge, Ratio).max().tells(KvUsage),
    row(TensorRtLlm, "trtllm_request_success", Counter, Requests),
    row(TensorRtLlm, "trtllm_e2e_request_latency_seconds", Histogram, Seconds),
    row(Tgi, "tgi_queue_size", Gauge, Requests).tells(Waiting),
    row(Tgi, "tgi_batch_current_size", Gauge, Requests).tells(Running),
    row(Tgi, "tgi_request_success", Counter, Requests),
    row(Tgi, "tgi_request_duration", Histogram, Seconds),
    row(Tgi, "tgi_request_mean_time_per_token_duration", Histogram, Seconds),
    row(LlamaCpp, "llamacpp:requests_deferred", Gauge, Requests).tells(Waiting),
    row(LlamaCpp, "llamacpp:requests_processing", Gauge, Requests).tells(Running),
    row(LlamaCpp, "llamacpp:kv_cache_usage_ratio", Gauge, Ratio).max().tells(KvUsage),
    row(LlamaCpp, "llamacpp:prompt_tokens", Counter, Tokens),
    row(LlamaCpp, "llamacpp:tokens_predicted", Counter, Tokens),
    row(LlamaCpp, "llamacpp:prompt_tokens_seconds", Gauge, TokensPerSecond),
    row(LlamaCpp, "llamacpp:predicted_tokens_seconds", Gauge, TokensPerSecond),
    row(LmDeploy, "lmdeploy:num_requests_waiting", Gauge, Requests).tells(Waiting),
    row(LmDeploy, "lmdeploy:num_requests_running", Gauge, Requests).tells(Running),
    row(LmDeploy, "lmdeploy:gpu_cache_usage_perc", Gauge, Ratio).max().tells(KvUsage),
    row(LmDeploy, "lmdeploy:prompt_tokens", Counter, Tokens),
    row(LmDeploy, "lmdeploy:generation_tokens", Counter, Tokens),
    row(LmDeploy, "lmdeploy:e2e_request_latency_seconds", Histogram, Seconds),
    row(Triton, "nv_inference_pending_request_count", Gauge, Requests).tells(Waiting),
    row(Triton, "nv_inference_request_success", Counter, Requests),
    row(Triton, "nv_inference_request_failure", Counter, Requests),
    row(Dynamo, "dynamo_frontend_queued_requests", Gauge, Requests).tells(Waiting),
    row(Dynamo, "dynamo_frontend_active_requests", Gauge, Requests)
        .was("dynamo_frontend_inflight_requests")
        .tells(Held),
    row(Dynamo, "dynamo_frontend_requests", Counter, Requests),
    row(Dynamo, "dynamo_frontend_output_tokens", Counter, Tokens),
    row(Dynamo, "dynamo_frontend_time_to_first_token_seconds", Histogram, Seconds),
    row(Dynamo, "dynamo_frontend_inter_token_latency_seconds", Histogram, Seconds),
    row(Dynamo, "dynamo_frontend_request_duration_seconds", Histogram, Seconds),
];
