mod bounds;
mod labels;
mod meaning;

use std::sync::Arc;

use super::{super::names::MetricName, *};
use crate::{
    config::trigger::{Shape, WantedMetric},
    endpoint::page_choice::PageKind::{self, Filtered, Plain},
    page::sample::{Histogram, PodDemand, Reading},
};

const LOADED: &[u8] = include_bytes!("../../../../tests/data/loaded.txt");
const IDLE: &[u8] = include_bytes!("../../../../tests/data/idle-fresh.txt");

fn name(name: &str) -> MetricName {
    MetricName::parse(name).unwrap()
}

fn value(metric: &str) -> WantedMetric {
    WantedMetric { name: name(metric), shape: Shape::Value }
}

fn histogram(metric: &str, buckets: bool) -> WantedMetric {
    WantedMetric { name: name(metric), shape: Shape::Histogram { buckets } }
}

fn read(page: impl AsRef<[u8]>, wanted: &[WantedMetric], kind: PageKind) -> PageRead {
    read_page(page.as_ref(), &Wanted::new(wanted.iter().cloned()), kind)
}

/// The one value that `metric` has on a plain `page`.
fn reading(page: &str, metric: &str) -> Option<f64> {
    match read(page, &[value(metric)], Plain).sample.reading(&name(metric)) {
        Some(Reading::Value(value)) => Some(*value),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

/// The part of a real page that a real server gives to `wanted`'s query.
fn filter(page: &[u8], wanted: &Wanted) -> String {
    let names: Vec<&str> =
        wanted.query().split('&').map(|pair| pair.strip_prefix("name[]=").unwrap()).collect();
    let page = std::str::from_utf8(page).unwrap();
    page.split_inclusive('\n')
        .filter(|line| names.contains(&line.split(['{', ' ']).next().unwrap()))
        .collect()
}

#[test]
fn renamed_families_alias_in_both_directions() {
    let cases: [(&str, &[&str]); 9] = [
        (
            "vllm:gpu_cache_usage_perc",
            &["vllm:kv_cache_usage_perc", "ray_vllm_gpu_cache_usage_perc", "ray_vllm_kv_cache_usage_perc"],
        ),
        (
            "vllm:kv_cache_usage_perc",
            &["vllm:gpu_cache_usage_perc", "ray_vllm_kv_cache_usage_perc", "ray_vllm_gpu_cache_usage_perc"],
        ),
        (
            "ray_vllm_kv_cache_usage_perc",
            &["ray_vllm_gpu_cache_usage_perc", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
        ),
        (
            "vllm:gpu_prefix_cache_hits_total",
            &[
                "vllm:prefix_cache_hits_total",
                "ray_vllm_gpu_prefix_cache_hits_total",
                "ray_vllm_prefix_cache_hits_total",
            ],
        ),
        (
            "vllm:time_per_output_token_seconds",
            &[
                "vllm:inter_token_latency_seconds",
                "ray_vllm_time_per_output_token_seconds",
                "ray_vllm_inter_token_latency_seconds",
            ],
        ),
        ("vllm:num_requests_waiting", &["ray_vllm_num_requests_waiting"]),
        ("vllm:of_a_later_version", &["ray_vllm_of_a_later_version"]),
        ("sglang:token_usage", &[]),
        ("my_queue_depth", &[]),
    ];
    for (asked, expected) in cases {
        assert_eq!(aliases(asked), expected, "{asked}");
    }
}

#[test]
fn units_are_known_by_any_name() {
    let cases = [
        ("vllm:kv_cache_usage_perc", Some(Unit::Ratio)),
        ("vllm:gpu_cache_usage_perc", Some(Unit::Ratio)),
        ("ray_vllm_gpu_cache_usage_perc", Some(Unit::Ratio)),
        ("sglang:token_usage", Some(Unit::Ratio)),
        ("trtllm_kv_cache_utilization", Some(Unit::Ratio)),
        ("vllm:num_requests_waiting", Some(Unit::Requests)),
        ("vllm:prompt_tokens_total", Some(Unit::Tokens)),
        ("vllm:prompt_tokens", Some(Unit::Tokens)),
        ("vllm:time_per_output_token_seconds", Some(Unit::Seconds)),
        ("vllm:num_requests_waiting_total", None),
        ("my_queue_depth", None),
    ];
    for (metric, expected) in cases {
        assert_eq!(unit(metric), expected, "{metric}");
    }
}

#[test]
fn the_table_has_each_name_once() {
    let mut names: Vec<_> =
        known_families().iter().flat_map(|f| [Some(f.name), f.formerly]).flatten().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_query_names_samples_and_only_of_the_engines_asked_for() {
    let query =
        |metrics: &[WantedMetric]| Wanted::new(metrics.iter().cloned()).query().replace("name[]=", "");
    assert_eq!(
        query(&[value("vllm:kv_cache_usage_perc")]),
        "kaito_ratelimit_rejected_total&vllm:admission_rejections_total&vllm:engine_sleep_state\
         &vllm:gpu_cache_usage_perc&vllm:kv_cache_usage_perc&vllm:num_requests_running\
         &vllm:num_requests_waiting&vllm:num_requests_waiting_by_reason"
    );
    let always = query(&[]);
    let added = |metrics: &[WantedMetric]| -> Vec<String> {
        let always: Vec<&str> = always.split('&').collect();
        query(metrics).split('&').filter(|name| !always.contains(name)).map(str::to_owned).collect()
    };
    assert_eq!(
        added(&[histogram("vllm:time_to_first_token_seconds", true)]),
        ["_bucket", "_count", "_sum"].map(|s| format!("vllm:time_to_first_token_seconds{s}"))
    );
    assert_eq!(
        added(&[histogram("vllm:time_to_first_token_seconds", false)]),
        ["_count", "_sum"].map(|s| format!("vllm:time_to_first_token_seconds{s}"))
    );
    assert_eq!(added(&[value("vllm:prompt_tokens")]), ["vllm:prompt_tokens_total"]);
    assert_eq!(added(&[value("vllm:prompt_tokens_total")]), ["vllm:prompt_tokens_total"]);
    assert_eq!(added(&[value("my_depth")]), ["my_depth", "my_depth_total"]);
    assert_eq!(
        query(&[value("sglang:token_usage")]),
        "kaito_ratelimit_rejected_total&sglang:num_queue_rejected_requests_total&sglang:num_queue_reqs\
         &sglang:num_running_reqs&sglang:token_usage"
    );
    assert!(
        query(&[value("ray_vllm_num_requests_waiting")]).contains("ray_vllm_num_requests_running&"),
        "what always is asked for goes by the same prefix"
    );
}

#[test]
fn a_real_page_reads_the_same_filtered_and_plain() {
    let wanted = Wanted::new([
        value("vllm:num_requests_waiting"),
        value("vllm:gpu_cache_usage_perc"),
        value("vllm:prompt_tokens"),
        histogram("vllm:time_to_first_token_seconds", false),
        histogram("vllm:time_per_output_token_seconds", true),
    ]);
    let plain = read_page(LOADED, &wanted, Plain);
    assert_eq!((plain.missing, plain.rejected), (0, 0));
    assert_eq!(
        plain.sample.demand,
        PodDemand { waiting: Some(11.0), running: Some(4.0), rejected_total: 0.0 }
    );
    assert_eq!(plain.sample.awake, Some(true));
    assert!(plain.sample.engine);
    let get = |metric| plain.sample.reading(&name(metric)).unwrap();
    assert_eq!(get("vllm:num_requests_waiting"), &Reading::Value(11.0));
    assert_eq!(get("vllm:gpu_cache_usage_perc"), &Reading::Value(0.000_488_311_054_141_488_1));
    assert_eq!(get("vllm:prompt_tokens"), &Reading::Value(1342.0));
    assert_eq!(
        get("vllm:time_to_first_token_seconds"),
        &Reading::Histogram(Histogram { count: 18.0, sum: 35.025_899_171_829_224, buckets: vec![] })
    );
    let Reading::Histogram(latency) = get("vllm:time_per_output_token_seconds") else { panic!() };
    assert_eq!((latency.count, latency.buckets.len()), (4823.0, 20));
    assert_eq!(latency.buckets.last(), Some(&(f64::INFINITY, 4823.0)));

    let filtered = filter(LOADED, &wanted);
    assert!(filtered.len() < LOADED.len() / 8, "{} bytes", filtered.len());
    assert_eq!(read_page(filtered.as_bytes(), &wanted, Filtered), plain);
}

#[test]
fn an_idle_page_is_a_known_zero() {
    let read = read(IDLE, &[value("vllm:num_requests_waiting")], Plain);
    assert_eq!(read.sample.demand, PodDemand { waiting: Some(0.0), running: Some(0.0), rejected_total: 0.0 });
    assert_eq!(read.sample.reading(&name("vllm:num_requests_waiting")), Some(&Reading::Value(0.0)));
}

#[test]
fn values_merge_over_engines() {
    let page = "\
        vllm:num_requests_running{engine=\"0\"} 4\nvllm:num_requests_running{engine=\"1\"} 2\n\
        vllm:num_requests_waiting{engine=\"0\"} 7\nvllm:num_requests_waiting{engine=\"1\"} 5\n\
        vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n\
        vllm:engine_sleep_state{engine=\"0\",sleep_state=\"awake\"} 0\n\
        vllm:engine_sleep_state{engine=\"0\",sleep_state=\"weights_offloaded\"} 1\n\
        vllm:engine_sleep_state{engine=\"1\",sleep_state=\"awake\"} 1\n\
        vllm:admission_rejections_total{reason=\"a\"} 3\nvllm:admission_rejections_total{reason=\"b\"} 4\n\
        kaito_ratelimit_rejected_total 5\n";
    assert_eq!(reading(page, "vllm:num_requests_waiting"), Some(12.0));
    assert_eq!(reading(page, "vllm:kv_cache_usage_perc"), Some(0.75));
    let sample = read(page, &[], Plain).sample;
    assert_eq!(sample.demand, PodDemand { waiting: Some(12.0), running: Some(6.0), rejected_total: 12.0 });
    assert_eq!(sample.awake, Some(true));
    let asleep =
        page.replace("{engine=\"1\",sleep_state=\"awake\"} 1", "{engine=\"1\",sleep_state=\"awake\"} 0");
    assert_eq!(read(asleep, &[], Plain).sample.awake, Some(false));
    assert_eq!(read("vllm:num_requests_running 1\n", &[], Plain).sample.awake, None);
}

#[test]
fn both_names_of_a_renamed_family_do_not_add_up() {
    let page = "vllm:prefix_cache_hits_total 10\nvllm:gpu_prefix_cache_hits_total 10\n";
    assert_eq!(reading(page, "vllm:prefix_cache_hits"), Some(10.0));
    assert_eq!(reading(page, "vllm:gpu_prefix_cache_hits_total"), Some(10.0));
}

#[test]
fn waiting_is_summed_over_reasons_only_where_the_total_is_absent() {
    let by_reason = "vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 11\n\
                     vllm:num_requests_waiting_by_reason{reason=\"deferred\"} 2\n";
    let with_total = format!("vllm:num_requests_waiting 12\n{by_reason}");
    assert_eq!(reading(by_reason, "vllm:num_requests_waiting"), Some(13.0));
    assert_eq!(read(by_reason, &[], Plain).sample.demand.waiting, Some(13.0));
    assert_eq!(reading(&with_total, "vllm:num_requests_waiting"), Some(12.0));
    assert_eq!(read(with_total, &[], Plain).sample.demand.waiting, Some(12.0));
    // A total that says nothing is not replaced: it is there.
    let broken_total = format!("vllm:num_requests_waiting NaN\n{by_reason}");
    assert_eq!(reading(&broken_total, "vllm:num_requests_waiting"), None);
    assert_eq!(read(broken_total, &[], Plain).sample.demand.waiting, None);
}

#[test]
fn what_is_not_a_finite_number_is_unknown_but_there() {
    let running = "vllm:num_requests_running 1\n";
    for bad in ["NaN", "+Inf", "-Inf"] {
        let page = format!(
            "{running}vllm:kv_cache_usage_perc{{engine=\"0\"}} 0.5\nvllm:kv_cache_usage_perc{{engine=\"1\"}} {bad}\n"
        );
        let read = read(page, &[value("vllm:kv_cache_usage_perc")], Plain);
        assert_eq!(read.sample.reading(&name("vllm:kv_cache_usage_perc")), None, "{bad}");
        assert_eq!(read.missing, 0, "{bad}: the plain page would say the same");
        assert!(read.sample.similar.is_empty());
    }
    assert_eq!(reading("vllm:num_requests_waiting -3\n", "vllm:num_requests_waiting"), Some(0.0));
    assert_eq!(reading("my_gauge -3\n", "my_gauge"), Some(-3.0));
}

#[test]
fn histograms_merge_by_bound_whatever_the_order() {
    let page = "\
        vllm:num_requests_running 1\n\
        h_bucket{engine=\"0\",le=\"0.1\"} 1\nh_bucket{engine=\"0\",le=\"+Inf\"} 3\n\
        h_sum{engine=\"0\"} 0.5\nh_count{engine=\"0\"} 3\n\
        h_bucket{engine=\"1\",le=\"+Inf\"} 30\nh_bucket{engine=\"1\",le=\"0.1\"} 10\nh_bucket{engine=\"1\",le=\"1\"} 20\n\
        h_sum{engine=\"1\"} 5\nh_count{engine=\"1\"} 30\n";
    let merged = |buckets| match read(page, &[histogram("h", buckets)], Plain).sample.reading(&name("h")) {
        Some(Reading::Histogram(histogram)) => histogram.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        merged(true),
        Histogram { count: 33.0, sum: 5.5, buckets: vec![(0.1, 11.0), (1.0, 20.0), (f64::INFINITY, 33.0)] }
    );
    assert_eq!(merged(false), Histogram { count: 33.0, sum: 5.5, buckets: vec![] });
}

#[test]
fn a_histogram_without_what_was_asked_is_missing() {
    let no_buckets = "vllm:num_requests_running 1\nh_sum 5\nh_count 3\n";
    assert_eq!(read(no_buckets, &[histogram("h", true)], Plain).missing, 1);
    assert_eq!(read(no_buckets, &[histogram("h", false)], Plain).missing, 0);
    // Someone else's bound that never got to infinity.
    let cut = "h_bucket{le=\"1\"} 2\nh_sum 5\nh_count 3\n";
    let read = read(cut, &[histogram("h", true)], Plain);
    let Some(Reading::Histogram(h)) = read.sample.reading(&name("h")) else { panic!() };
    assert_eq!(h.buckets, [(1.0, 2.0), (f64::INFINITY, 3.0)]);
}

#[test]
fn one_metric_can_be_wanted_in_two_shapes() {
    let wanted = Wanted::new([value("h"), histogram("h", false), histogram("h", true)]);
    assert_eq!(wanted, Wanted::new([histogram("h", true), value("h")]));
    assert_ne!(wanted, Wanted::new([histogram("h", true)]));
    for sample in ["h_sum", "h_count", "h_bucket", "h", "h_total"] {
        assert!(wanted.query().split('&').any(|pair| pair == format!("name[]={sample}")), "{sample}");
    }
}

#[test]
fn a_labelled_counter_without_series_is_zero_once_the_plain_page_tells() {
    let page = "vllm:num_requests_running 1\n# TYPE my_refusals_total counter\n# TYPE my_gauge gauge\n";
    let wanted = [value("my_refusals_total"), value("my_gauge")];
    let plain = read(page, &wanted, Plain);
    assert_eq!(plain.sample.reading(&name("my_refusals_total")), Some(&Reading::Value(0.0)));
    assert_eq!(plain.sample.reading(&name("my_gauge")), None, "a gauge without series says nothing");
    assert_eq!(plain.missing, 1);
    assert_eq!(read(page, &wanted, Filtered).missing, 2);
}

#[test]
fn a_page_of_a_loading_pod_shows_no_engine() {
    let downloading = "# TYPE kaito_model_download_remaining_seconds gauge\n\
                       kaito_model_download_remaining_seconds 42.5\npython_info 1\n";
    let loading = read(downloading, &[value("vllm:num_requests_waiting")], Plain);
    assert!(!loading.sample.engine && loading.is_metrics);
    assert_eq!(loading.sample.download_remaining, Some(42.5));
    assert_eq!(loading.missing, 2);
    assert!(loading.sample.similar.is_empty(), "nothing to suggest before the engine is up");
    assert_eq!(loading.sample.demand, PodDemand::default());

    let unknown = downloading.replace("42.5", "-1");
    assert_eq!(read(unknown, &[], Plain).sample.download_remaining, None);
    assert!(read("vllm:something_else 1\n", &[value("vllm:something_else")], Plain).sample.engine);
    assert!(read("my_depth 1\n", &[value("my_depth")], Plain).sample.engine, "the user's own server");
}

#[test]
fn other_engines_tell_their_demand_in_their_own_words() {
    let cases = [
        ("sglang:num_queue_reqs 3\nsglang:num_running_reqs 2\n", 3.0, 2.0),
        ("trtllm_num_requests_waiting 3\ntrtllm_num_requests_running 2\n", 3.0, 2.0),
        ("tgi_queue_size 3\ntgi_batch_current_size 2\n", 3.0, 2.0),
        (
            "ray_vllm_num_requests_waiting{engine=\"0\"} 3\nray_vllm_num_requests_running{engine=\"0\"} 2\n",
            3.0,
            2.0,
        ),
    ];
    for (page, waiting, running) in cases {
        let read = read(page, &[], Plain);
        assert_eq!(
            read.sample.demand,
            PodDemand { waiting: Some(waiting), running: Some(running), rejected_total: 0.0 },
            "{page}"
        );
        assert!(read.sample.engine);
        assert_eq!(read.missing, 0);
    }
    assert_eq!(reading("ray_vllm_num_requests_waiting 3\n", "vllm:num_requests_waiting"), Some(3.0));
}

#[test]
fn a_missing_metric_brings_suggestions_from_a_plain_page() {
    let similar = |page: &[u8], metric: &str| read(page, &[value(metric)], Plain).sample.similar;
    let first = |metric: &str| similar(LOADED, metric).into_iter().next();
    let cases = [
        ("vllm:num_request_waiting", Some("vllm:num_requests_waiting")),
        ("vllm_num_requests_waiting", Some("vllm:num_requests_waiting")),
        ("num_requests_waiting", Some("vllm:num_requests_waiting")),
        ("vllm:kv_cache_usage_percent", Some("vllm:kv_cache_usage_perc")),
        ("vllm:time_to_first_token", Some("vllm:time_to_first_token_seconds")),
        // It is there, as a histogram: another name would not help.
        ("vllm:e2e_request_latency_seconds", None),
        ("my_queue_depth", None),
    ];
    for (metric, expected) in cases {
        assert_eq!(first(metric).as_deref(), expected, "{metric}: {:?}", similar(LOADED, metric));
    }
    assert!(similar(LOADED, "vllm:num_requests_waiting").is_empty());
    let sglang = b"sglang:num_queue_reqs 3\nsglang:num_running_reqs 2\n";
    assert_eq!(similar(sglang, "vllm:num_requests_waiting"), ["sglang:num_queue_reqs"]);
    assert!(read(LOADED, &[value("vllm:num_request_waiting")], Filtered).sample.similar.is_empty());
}

#[test]
fn tells_a_metrics_page_from_anything_else() {
    let is_metrics = |page: &str| read(page, &[], Plain).is_metrics;
    for page in [
        "",
        "\n",
        "# EOF\n",
        "# TYPE a gauge\n",
        "a 1\n",
        "junk\u{1}\na 1\n",
        "vllm:num_requests_running 1\n",
    ] {
        assert!(is_metrics(page), "{page:?}");
    }
    for page in ["<!DOCTYPE html>\n<html></html>\n", "{\"detail\":\"Not Found\"}", "# a comment alone\n"] {
        assert!(!is_metrics(page), "{page:?}");
    }
}

#[test]
fn bad_lines_are_counted_and_cost_only_themselves() {
    let page = "vllm:num_requests_running 1\nvllm:num_requests_waiting{a=\"} 3\nvllm:num_requests_waiting{a=\"b\"} 4\n";
    let read = read(page, &[value("vllm:num_requests_waiting")], Plain);
    assert_eq!(read.rejected, 1);
    assert_eq!(read.sample.demand.waiting, Some(4.0));
}

#[test]
fn who_wants_the_same_shares_it_for_as_long_as_anybody_does() {
    let mut shared = SharedWanted::default();
    let (waiting, ttft) = (value(WAITING), histogram("vllm:time_to_first_token_seconds", true));
    let first = shared.of([waiting.clone(), ttft.clone()]);
    let again = shared.of([ttft.clone(), waiting.clone(), ttft.clone()]);
    assert!(Arc::ptr_eq(&first, &again));
    let less = shared.of([waiting.clone()]);
    assert_ne!(less, first);
    assert_eq!(*less, Wanted::new([waiting.clone()]));
    let weak = Arc::downgrade(&less);
    drop(less);
    assert_eq!(weak.strong_count(), 0, "it is not kept for nobody");
    assert_eq!(shared.of([waiting]).query(), Wanted::new([value(WAITING)]).query());
}

const WAITING: &str = "vllm:num_requests_waiting";
