//! Which series of a family are meant, and which of them count the same requests.

use super::*;
use crate::page::sample::Lack;

const BY_REASON: &str = "vllm:num_requests_running{engine=\"0\"} 1\n\
    vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"capacity\"} 7\n\
    vllm:num_requests_waiting_by_reason{engine=\"0\",reason=\"deferred\"} 30\n\
    vllm:num_requests_waiting_by_reason{engine=\"1\",reason=\"capacity\"} 4\n";

#[test]
fn only_the_series_with_these_labels_count() {
    for (matchers, expected) in [
        (r#"{reason="capacity"}"#, Some(11.0)),
        (r#"{reason!="capacity"}"#, Some(30.0)),
        (r#"{reason=~"cap.*|def"}"#, Some(11.0)),
        (r#"{reason!~"cap.*"}"#, Some(30.0)),
        (r#"{engine="1"}"#, Some(4.0)),
        (r#"{reason="capacity",engine="0"}"#, Some(7.0)),
        (r#"{tenant=""}"#, Some(41.0)),
        (r#"{reason="capacit"}"#, None),
    ] {
        let metric = format!("vllm:num_requests_waiting_by_reason{matchers}");
        assert_eq!(reading(BY_REASON, &metric), expected, "{metric}");
        // Ray's prefix is an alias here as well.
        let under_ray = BY_REASON.replace("vllm:", "ray_vllm_");
        assert_eq!(reading(&under_ray, &metric), expected, "{metric} under Ray");
    }
}

#[test]
fn labels_that_no_series_has_are_unknown_and_never_zero() {
    let metric = name(r#"vllm:num_requests_waiting_by_reason{reason="capacit"}"#);
    for kind in [Plain, Filtered] {
        let read = read(BY_REASON, &[value(metric.as_str())], kind);
        assert_eq!(read.sample.reading(&metric), None);
        assert_eq!(read.sample.lack(&metric), Some(Lack::OtherLabels));
        assert_eq!(read.missing, 0, "the plain page would say the same");
        // Demand knows every series.
        assert_eq!(read.sample.demand.waiting, Some(41.0));
    }
    // Not even of a counter, which is zero while it has no series at all.
    let counter = "vllm:num_requests_running 1\n# TYPE c_total counter\nc_total{code=\"500\"} 3\n";
    assert_eq!(reading(counter, r#"c_total{code="503"}"#), None);
    assert_eq!(reading(counter, r#"c{code="500"}"#), Some(3.0));
    let none = "vllm:num_requests_running 1\n# TYPE c_total counter\n";
    assert_eq!(reading(none, r#"c_total{code="503"}"#), Some(0.0));
}

#[test]
fn one_family_can_be_wanted_by_several_labels_and_without() {
    let metric = |reason: &str| format!("vllm:num_requests_waiting_by_reason{{reason=\"{reason}\"}}");
    let (capacity, deferred) = (metric("capacity"), metric("deferred"));
    let all = "vllm:num_requests_waiting_by_reason";
    let wanted = [value(&capacity), value(&deferred), value(all)];
    let sample = read(BY_REASON, &wanted, Plain).sample;
    for (metric, expected) in [(&*capacity, 11.0), (&*deferred, 30.0), (all, 41.0)] {
        assert_eq!(sample.reading(&name(metric)), Some(&Reading::Value(expected)), "{metric}");
    }
    assert_eq!(sample.demand.waiting, Some(41.0));
    // The server is asked for names of samples; which of them are meant is told apart here.
    assert_eq!(Wanted::new(wanted).query(), Wanted::new([value(all)]).query());
}

#[test]
fn histograms_have_labels_too() {
    let page = "vllm:num_requests_running 1\n\
        h_bucket{stage=\"a\",le=\"1\"} 1\nh_bucket{stage=\"a\",le=\"+Inf\"} 2\nh_sum{stage=\"a\"} 3\n\
        h_count{stage=\"a\"} 2\nh_bucket{stage=\"b\",le=\"1\"} 10\nh_bucket{stage=\"b\",le=\"+Inf\"} 20\n\
        h_sum{stage=\"b\"} 30\nh_count{stage=\"b\"} 20\n";
    let metric = r#"h{stage="b"}"#;
    let read = read(page, &[histogram(metric, true)], Plain);
    let expected = Histogram { count: 20.0, sum: 30.0, buckets: vec![(1.0, 10.0), (f64::INFINITY, 20.0)] };
    assert_eq!(read.sample.reading(&name(metric)), Some(&Reading::Histogram(expected)));
}

/// The value of `metric`, and waiting and running by the page.
fn counted(page: &str, metric: &str) -> (Option<f64>, Option<f64>, Option<f64>) {
    let demand = read(page, &[], Plain).sample.demand;
    (reading(page, metric), demand.waiting, demand.running)
}

#[test]
fn a_total_beside_its_parts_is_counted_once() {
    // With priorities on, SGLang prints the total with an empty priority.
    let page = "sglang:num_running_reqs{model_name=\"m\",priority=\"\",tp_rank=\"0\"} 8\n\
        sglang:num_running_reqs{model_name=\"m\",priority=\"0\",tp_rank=\"0\"} 6\n\
        sglang:num_running_reqs{model_name=\"m\",priority=\"10\",tp_rank=\"0\"} 2\n\
        sglang:num_queue_reqs{model_name=\"m\",priority=\"\",tp_rank=\"0\"} 12\n\
        sglang:num_queue_reqs{model_name=\"m\",priority=\"0\",tp_rank=\"0\"} 9\n\
        sglang:num_queue_reqs{tp_rank=\"0\",priority=\"10\",model_name=\"m\"} 3\n";
    let queue = "sglang:num_queue_reqs";
    assert_eq!(counted(page, queue), (Some(12.0), Some(12.0), Some(8.0)));
    // Parts whose total is not there add up, and who names one gets it.
    let parts: String = page
        .lines()
        .filter(|line| !line.contains("priority=\"\""))
        .fold(String::new(), |page, line| page + line + "\n");
    assert_eq!(counted(&parts, queue), (Some(12.0), Some(12.0), Some(8.0)));
    assert_eq!(reading(page, r#"sglang:num_queue_reqs{priority="10"}"#), Some(3.0));
    // Another model's total is no total of this one's parts.
    let two_models = format!("{parts}sglang:num_queue_reqs{{model_name=\"n\",priority=\"\"}} 100\n");
    assert_eq!(reading(&two_models, queue), Some(112.0));
}

#[test]
fn ranks_that_share_a_queue_print_it_once() {
    let of_ranks = |labels: &[&str], value: &str| -> String {
        ["num_running_reqs", "num_queue_reqs"]
            .iter()
            .flat_map(|name| labels.iter().map(move |labels| format!("sglang:{name}{{{labels}}} {value}\n")))
            .collect()
    };
    let tensor: Vec<String> = (0..4).map(|tp| format!("pp_rank=\"0\",tp_rank=\"{tp}\"")).collect();
    let tensor: Vec<&str> = tensor.iter().map(String::as_str).collect();
    let queue = "sglang:num_queue_reqs";
    for (what, page, expected) in [
        ("tensor parallel", of_ranks(&tensor, "7"), 7.0),
        (
            "pipeline and expert parallel",
            of_ranks(&["pp_rank=\"0\"", "pp_rank=\"1\"", "pp_rank=\"1\",moe_ep_rank=\"1\""], "7"),
            7.0,
        ),
        ("data parallel", of_ranks(&["dp_rank=\"0\"", "dp_rank=\"1\""], "7"), 14.0),
        (
            "both",
            of_ranks(
                &[
                    "dp_rank=\"0\",tp_rank=\"0\"",
                    "dp_rank=\"0\",tp_rank=\"1\"",
                    "dp_rank=\"1\",tp_rank=\"2\"",
                    "dp_rank=\"1\",tp_rank=\"3\"",
                ],
                "7",
            ),
            14.0,
        ),
        (
            "ranks that are read at different moments",
            format!("{}{}", of_ranks(&tensor[..1], "6"), of_ranks(&tensor[1..], "7")),
            7.0,
        ),
        (
            "one rank is not a number",
            of_ranks(&tensor, "7") + &of_ranks(&["tp_rank=\"9\",pp_rank=\"0\""], "NaN"),
            f64::NAN,
        ),
    ] {
        let expected = Some(expected).filter(|value| value.is_finite());
        assert_eq!(counted(&page, queue), (expected, expected, expected), "{what}");
    }
    // Counters of refusals as well: a rank that refuses nothing prints zero.
    let refused = "sglang:num_queue_rejected_requests_total{reason=\"queue_full\",tp_rank=\"0\"} 5\n\
        sglang:num_queue_rejected_requests_total{reason=\"queue_full\",tp_rank=\"1\"} 0\n\
        sglang:num_queue_rejected_requests_total{reason=\"waiting_timeout\",tp_rank=\"0\"} 2\n";
    assert_eq!(read(refused, &[], Plain).sample.demand.rejected_total, 7.0);
    // What has nothing to do with SGLang adds up.
    let own = "vllm:num_requests_running 1\nmy_queue{tp_rank=\"0\"} 3\nmy_queue{tp_rank=\"1\"} 3\n";
    assert_eq!(reading(own, "my_queue"), Some(6.0));
}
