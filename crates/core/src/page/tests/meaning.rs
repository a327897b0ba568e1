//! What a page's families are, and what is said where they give no reading.

use super::*;
use crate::page::{
    sample::Hints,
    usage::{Nature, Usage, check, check_level},
};

#[test]
fn what_is_no_level_is_known_by_the_table() {
    for (metric, expected) in [
        ("vllm:num_requests_waiting", None),
        ("vllm:num_requests_waiting_by_reason{reason=\"capacity\"}", None),
        ("vllm:kv_cache_usage_perc", None),
        ("ray_vllm_gpu_cache_usage_perc", None),
        ("my_depth", None),
        ("vllm:of_a_later_version", None),
        (
            "vllm:generation_tokens_total",
            Some("is a counter, which only grows: that is no level to scale on"),
        ),
        ("vllm:generation_tokens", Some("is a counter")),
        ("ray_vllm_generation_tokens_total", Some("is a counter")),
        ("vllm:gpu_prefix_cache_hits_total", Some("is a counter")),
        ("kaito_ratelimit_rejected_total", Some("is a counter")),
        ("sglang:num_queue_rejected_requests_total", Some("is a counter")),
        ("vllm:request_success_total{finished_reason=\"stop\"}", Some("\"stop\"} is a counter")),
        ("vllm:lora_requests_info", Some("is a point in time, in seconds since 1970: that is no level")),
        ("vllm:prompt_tokens_created", Some("is a point in time")),
        ("vllm:cache_config_info", Some("is an info, always 1")),
        ("vllm:engine_sleep_state", Some("is a state, 0 or 1")),
        (
            "vllm:time_to_first_token_seconds",
            Some("is a histogram: use windowed-avg or quantile (in a list of metrics type histogram)"),
        ),
        ("vllm:time_per_output_token_seconds", Some("is a histogram")),
        ("vllm:iteration_tokens_total", Some("is a histogram")),
        (
            "vllm:time_to_first_token_seconds_count",
            Some(
                "is a part of a histogram, which only grows: name vllm:time_to_first_token_seconds, with windowed-avg",
            ),
        ),
        ("ray_vllm_time_to_first_token_seconds_sum", Some("name ray_vllm_time_to_first_token_seconds, with")),
        ("vllm:iteration_tokens_total_bucket", Some("name vllm:iteration_tokens_total, with")),
    ] {
        let said = check_level(&name(metric), Usage::Level).err().map(|misuse| misuse.to_string());
        match (said, expected) {
            (Some(said), Some(expected)) => assert!(said.contains(expected), "{metric}: {said}"),
            (said, expected) => assert_eq!(said.as_deref(), expected, "{metric}"),
        }
        assert_eq!(
            check_level(&name(metric), Usage::Window),
            Ok(()),
            "{metric}: no wrong number comes of it"
        );
    }
}

#[test]
fn every_family_of_the_table_is_something() {
    for family in known_families() {
        let nature = Nature::known(family.name).unwrap();
        let level = check(&name(family.name), nature, Usage::Level).is_ok();
        let window = check(&name(family.name), nature, Usage::Window).is_ok();
        assert!(!(level && window), "{}", family.name);
        if matches!(family.concept, Some(Concept::Waiting | Concept::Running | Concept::KvUsage)) {
            assert!(level, "{}", family.name);
        }
    }
}

#[test]
fn a_page_says_what_its_families_are() {
    for (comments, sample, metric, expected) in [
        ("# TYPE my gauge\n", "my 1\n", "my", None),
        ("# TYPE my untyped\n", "my 1\n", "my", None),
        ("", "my 1\n", "my", None),
        ("# HELP my counter\n# TYPE my counter\n", "my 1\n", "my", Some(Nature::Counter)),
        ("# TYPE my_total counter\n", "my_total 1\n", "my_total", Some(Nature::Counter)),
        ("# TYPE my_total counter\n", "my_total 1\n", "my", Some(Nature::Counter)),
        ("# TYPE my counter\n", "my_total 1\n", "my", Some(Nature::Counter)),
        ("# TYPE my counter\n", "my_total{a=\"b\"} 1\n", "my{a=\"b\"}", Some(Nature::Counter)),
        ("# TYPE my_info gauge\n", "my_info 1\n", "my_info", Some(Nature::Info)),
        ("# TYPE my_created gauge\n", "my_created 1\n", "my_created", Some(Nature::Timestamp)),
        ("# TYPE my histogram\n", "my_sum 1\nmy_count 1\n", "my", Some(Nature::Histogram)),
        ("", "my_sum 1\nmy_count 1\n", "my", Some(Nature::Histogram)),
        ("# TYPE my histogram\n", "my_count 1\n", "my_count", Some(Nature::PartOf("histogram"))),
        ("# TYPE my summary\n", "my{quantile=\"0.5\"} 1\n", "my", Some(Nature::Summary)),
        ("# TYPE my summary\n", "my_sum 1\n", "my_sum", Some(Nature::PartOf("summary"))),
        // A TYPE line of somebody else says nothing.
        ("# TYPE other counter\n", "my 1\n", "my", None),
        ("# TYPE my_count gauge\n", "my_count 1\n", "my_count", None),
        ("# TYPE my histogram\n", "", "my", Some(Nature::Histogram)),
        // The table knows better.
        ("# TYPE vllm:num_requests_waiting counter\n", "vllm:num_requests_waiting 1\n", WAITING, None),
    ] {
        let page = format!("vllm:num_requests_running 1\n{comments}{sample}");
        let read = read(&page, &[value(metric)], Plain);
        assert_eq!(read.sample.nature(&name(metric)), expected, "{page}");
        assert!(read.sample.similar.is_empty(), "{page}: {:?}", read.sample.similar);
    }
}

#[test]
fn why_there_is_no_reading_is_told_in_words() {
    let running = "vllm:num_requests_running 1\n";
    for (page, metric, expected) in [
        ("vllm:num_requests_waiting NaN\n", WAITING, Some("its value is not a number")),
        ("# TYPE my gauge\n", "my", Some("it has no series yet")),
        ("my{a=\"b\"} 1\n", "my{a=\"c\"}", Some("none of its series has these labels")),
        ("vllm:num_requests_waiting 1\n", WAITING, None),
        ("", WAITING, None),
    ] {
        let sample = read(format!("{running}{page}"), &[value(metric)], Plain).sample;
        let said = sample.lack(&name(metric)).map(|lack| lack.to_string());
        assert_eq!(said.as_deref(), expected, "{page}");
    }
}

#[test]
fn a_filtered_page_repeats_what_the_plain_one_said() {
    let plain = "vllm:num_requests_running 1\n# TYPE my gauge\nvllm:num_requests_waiting 1\n# TYPE h histogram\nh_sum 1\nh_count 1\n";
    let wanted = Wanted::new([value("my"), value("h"), value("vllm:num_request_waiting")]);
    let mut hints = Hints::default();
    let mut first = read_page(plain.as_bytes(), &wanted, Plain).sample;
    hints.follow(Plain, &mut first, &wanted);
    let filtered = "vllm:num_requests_running 2\n";
    let mut next = read_page(filtered.as_bytes(), &wanted, Filtered).sample;
    assert_eq!((next.remarks.is_some(), next.similar.is_empty()), (false, true));
    hints.follow(Filtered, &mut next, &wanted);
    assert_eq!((&next.remarks, &next.similar), (&first.remarks, &first.similar));
    // Once everything is there nothing of it holds any more.
    let all = "vllm:num_requests_running 1\nmy 1\nh 1\nvllm:num_request_waiting 1\n";
    let mut whole = read_page(all.as_bytes(), &wanted, Filtered).sample;
    hints.follow(Filtered, &mut whole, &wanted);
    assert_eq!(whole.remarks, None);
    let mut later = read_page(filtered.as_bytes(), &wanted, Filtered).sample;
    hints.follow(Filtered, &mut later, &wanted);
    assert_eq!((later.remarks, later.similar.len()), (None, 0));
}

#[test]
fn a_page_of_no_known_server_says_what_it_has() {
    let why = |page: &str| read(page, &[value(WAITING)], Plain).sample.why_no_engine();
    for (page, expected) in [
        (
            "num_requests_waiting{model=\"x\"} 8.0\nnpu_cache_usage_perc{model=\"x\"} 0.5\nnum_requests_running{model=\"x\"} 2\n",
            Some(
                "its page is of no known model server: it has num_requests_waiting, \
                 npu_cache_usage_perc, num_requests_running; did you mean num_requests_waiting?",
            ),
        ),
        (
            "# TYPE e2e_request_latency_seconds histogram\ne2e_request_latency_seconds_sum 3\n",
            Some("its page is of no known model server: it has e2e_request_latency_seconds"),
        ),
        (
            "a 1\nb 1\nc 1\nd 1\ne 1\nf 1\ng 1\npython_info 1\n",
            Some("its page is of no known model server: it has a, b, c, d, e and 2 more"),
        ),
        ("python_info 1\n", Some("its page has no family of a model server")),
        ("kaito_model_download_remaining_seconds 42.4\n", Some("downloading, 42 s left")),
        ("vllm:something 1\n", None),
    ] {
        // Of a page that is only about to be looked for: the running requests say nothing.
        let page = page.replace("vllm:something", "vllm:num_requests_running");
        assert_eq!(why(&page).as_deref(), expected, "{page}");
    }
}

#[test]
fn what_is_no_metrics_page_is_named() {
    for (answer, expected) in [
        ("[]", NotMetrics::Json),
        ("\n {\"detail\":\"Not Found\"}", NotMetrics::Json),
        ("<!DOCTYPE html>", NotMetrics::Html),
        ("not found", NotMetrics::Other),
        ("", NotMetrics::Other),
    ] {
        assert_eq!(NotMetrics::of(answer.as_bytes()), expected, "{answer}");
    }
    assert!(
        NotMetrics::Json.to_string().contains("/prometheus/metrics (metricPath, annotation metric-path)")
    );
}

#[test]
fn a_name_that_no_engine_has_is_doubted() {
    for (metric, usage, expected) in [
        (
            "vllm:num_request_waiting",
            Usage::Level,
            Some(
                "vllm:num_request_waiting is no known metric of vLLM: did you mean vllm:num_requests_waiting?",
            ),
        ),
        (
            "ray_vllm_num_request_waiting",
            Usage::Level,
            Some("is no known metric of vLLM: did you mean vllm:num_requests_waiting?"),
        ),
        ("vllm:generation_token_total", Usage::Level, Some("did you mean vllm:generation_tokens?")),
        (
            "vllm:something_new",
            Usage::Level,
            Some(
                "vllm:something_new is no known metric of vLLM: unless its version has it there will be no value",
            ),
        ),
        ("sglang:num_queue_req", Usage::Level, Some("SGLang: did you mean sglang:num_queue_reqs?")),
        ("sglang:something_new", Usage::Level, None),
        ("vllm:num_requests_swapped", Usage::Level, Some("vLLM no longer has vllm:num_requests_swapped")),
        ("vllm:cpu_cache_usage_perc", Usage::Level, Some("vLLM no longer has")),
        (
            "num_requests_waiting",
            Usage::Level,
            Some("no engine's prefix: did you mean vllm:num_requests_waiting?"),
        ),
        (
            "my_requests_total",
            Usage::Level,
            Some("by its name my_requests_total is a counter, which only grows"),
        ),
        ("my_build_info", Usage::Level, Some("by its name my_build_info is an info")),
        ("my_depth", Usage::Level, None),
        ("my_count", Usage::Level, None),
        ("vllm:gpu_cache_usage_perc", Usage::Level, None),
        ("vllm:num_requests_waiting", Usage::Level, None),
        (
            "vllm:num_requests_waiting",
            Usage::Window,
            Some(
                "is a gauge, and windowed-avg and quantile (type histogram) need a histogram: there will be no value",
            ),
        ),
        ("vllm:time_to_first_token_seconds", Usage::Window, None),
        ("my_latency_seconds", Usage::Window, None),
        ("my_requests_total", Usage::Window, Some("by its name")),
    ] {
        let said = doubt(&name(metric), usage).map(|doubt| doubt.to_string());
        match (said, expected) {
            (Some(said), Some(expected)) => assert!(said.contains(expected), "{metric}: {said}"),
            (said, expected) => assert_eq!(said.as_deref(), expected, "{metric}"),
        }
    }
}

#[test]
fn other_engines_are_known_by_their_own_names() {
    for (page, waiting, running) in [
        ("llamacpp:requests_processing 4\nllamacpp:requests_deferred 6\n", Some(6.0), Some(4.0)),
        (
            "lmdeploy:num_requests_running{engine=\"0\"} 4\nlmdeploy:num_requests_running{engine=\"1\"} 1\nlmdeploy:num_requests_waiting{engine=\"0\"} 6\n",
            Some(6.0),
            Some(5.0),
        ),
        ("nv_inference_pending_request_count{model=\"m\",version=\"1\"} 6\n", Some(6.0), None),
        // The frontend counts as active what is queued there too.
        ("dynamo_frontend_queued_requests 6\ndynamo_frontend_active_requests 10\n", Some(6.0), Some(4.0)),
        (
            "dynamo_frontend_queued_requests 6\ndynamo_frontend_inflight_requests 10\ndynamo_frontend_active_requests 10\n",
            Some(6.0),
            Some(4.0),
        ),
        ("dynamo_frontend_active_requests 10\n", None, None),
    ] {
        let sample = read(page, &[], Plain).sample;
        assert!(sample.engine, "{page}");
        assert_eq!((sample.demand.waiting, sample.demand.running), (waiting, running), "{page}");
    }
}
