//! From the text of a page to what KEDA and its users are told.

use super::*;
use crate::page::{Wanted, read_page};

/// What comes of one replica that is Ready and has this plain page.
fn decided(trigger: &Trigger, page: &str) -> Snapshot {
    let wanted = Wanted::new(trigger.wanted_metrics());
    let read = read_page(page.as_bytes(), &wanted, PageKind::Plain);
    let mut pod = pod(0, Is::Unread);
    pod.sampled(NOW, PageKind::Plain, read.sample);
    decide(trigger, &observed(&set(1), &[pod]))
}

#[test]
fn what_a_page_lacks_is_told_as_it_is() {
    let running = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0.0\n";
    for (metric, page, expected) in [
        (
            "vllm:num_requests_waiting",
            "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\"} NaN\n",
            "vllm:num_requests_waiting can't be read: its value is not a number",
        ),
        ("my_depth", "# TYPE my_depth gauge\n", "my_depth can't be read: it has no series yet"),
        (
            "my_depth{tenant=\"a\"}",
            "my_depth{tenant=\"b\"} 3\n",
            "my_depth{tenant=\"a\"} can't be read: none of its series has these labels",
        ),
        ("my_depth", "", "no replica has the metric my_depth"),
        (
            "my_total",
            "# TYPE my_total counter\nmy_total 1843021\n",
            "my_total is a counter, which only grows: that is no level to scale on",
        ),
        (
            "my_latency",
            "# TYPE my_latency histogram\nmy_latency_bucket{le=\"+Inf\"} 3\nmy_latency_sum 4.5\nmy_latency_count 3\n",
            "my_latency is a histogram: use windowed-avg or quantile (in a list of metrics type histogram)",
        ),
        (
            "my_latency_count",
            "# TYPE my_latency histogram\nmy_latency_count 3\n",
            "my_latency_count is a part of a histogram, which only grows: name my_latency, with windowed-avg or \
             quantile (in a list of metrics type histogram)",
        ),
    ] {
        for aggregation in ["sum", "service-avg", "max"] {
            let trigger = trigger(&[("metricName", metric), ("aggregation", aggregation)]);
            let snapshot = decided(&trigger, &format!("{running}{page}"));
            assert_eq!(value(&snapshot).unwrap_err(), expected, "{aggregation}");
        }
    }
    let trigger = trigger(&[("metricName", "my_depth"), ("aggregation", "windowed-avg")]);
    let snapshot = decided(&trigger, &format!("{running}# TYPE my_depth gauge\nmy_depth 3\n"));
    assert_eq!(
        value(&snapshot).unwrap_err(),
        "my_depth is a gauge, and windowed-avg and quantile (type histogram) need a histogram"
    );
}

#[test]
fn a_page_of_no_known_server_is_told_by_what_it_has() {
    let page = "num_requests_waiting{model=\"x\"} 8.0\nnpu_cache_usage_perc{model=\"x\"} 0.5\n\
        num_requests_running{model=\"x\"} 2\n";
    assert_eq!(
        value(&decided(&trigger(&[]), page)).unwrap_err(),
        "none of 1 replicas could be read: its page is of no known model server: it has num_requests_waiting, \
         npu_cache_usage_perc, num_requests_running; did you mean num_requests_waiting?"
    );
    // Asked for by its name it is whatever it says.
    let own = trigger(&[("metricName", "num_requests_waiting")]);
    assert_eq!(value(&decided(&own, page)), Ok(8.0));
}

#[test]
fn requests_that_several_series_count_are_counted_once() {
    let queue = trigger(&[("metricName", "sglang:num_queue_reqs")]);
    let page = |name: &str| -> String {
        let ranks = (0..4).map(|rank| format!("sglang:{name}{{pp_rank=\"0\",tp_rank=\"{rank}\"}} N\n"));
        ranks.collect()
    };
    let both = page("num_running_reqs").replace('N', "4") + &page("num_queue_reqs").replace('N', "7");
    let snapshot = decided(&queue, &both);
    assert_eq!((value(&snapshot), snapshot.demand.amount), (Ok(7.0), 11.0));
}

#[test]
fn some_series_of_a_family_can_be_what_scales() {
    let capacity = trigger(&[("metricName", r#"vllm:num_requests_waiting_by_reason{reason="capacity"}"#)]);
    let page = "vllm:num_requests_running 1\nvllm:num_requests_waiting_by_reason{reason=\"capacity\"} 11\n\
        vllm:num_requests_waiting_by_reason{reason=\"deferred\"} 30\n";
    let snapshot = decided(&capacity, page);
    // Whatever scales, all that wait are demand.
    assert_eq!((value(&snapshot), snapshot.demand.amount), (Ok(11.0), 42.0));
}
