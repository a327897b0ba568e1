//! The series of counters and histograms, told apart.

use std::fmt::Write as _;

use super::*;
use crate::page::sample::{Cumulative, Lack};

const RUNNING: &str = "vllm:num_requests_running 1\n";

fn counter(metric: &str) -> WantedMetric {
    WantedMetric { name: name(metric), shape: Shape::Counter }
}

fn series(page: &str, wanted: &[WantedMetric], metric: &str) -> Cumulative {
    match read(page, wanted, Plain).sample.reading(&name(metric)) {
        Some(Reading::Counter(series) | Reading::Histogram(series)) => series.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_counter_is_read_series_by_series() {
    let metric = "vllm:request_success_total";
    let page = "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\"} 7\n\
        vllm:request_success_total{engine=\"0\",finished_reason=\"length\"} 2\n\
        vllm:request_success_total{engine=\"1\",finished_reason=\"stop\"} 30\n";
    let before = series(page, &[counter(metric)], metric);
    assert_eq!((before.count(), before.series.len(), before.bounds.len()), (39.0, 3, 0));
    assert!(before.series.is_sorted_by_key(|series| series.id));
    // Known again in whatever order labels and lines stand, and whatever else is wanted.
    let turned = "vllm:request_success_total{finished_reason=\"stop\",engine=\"1\"} 31\n\
        vllm:request_success_total{finished_reason=\"stop\",engine=\"0\"} 7\n";
    let wanted = [counter(metric), histogram("vllm:time_to_first_token_seconds", true), value("my_depth")];
    let after = series(turned, &wanted, metric);
    for one in &after.series {
        let was = before.series.iter().find(|was| was.id == one.id).expect("it was there");
        assert_eq!(one.count - was.count, if one.count == 31.0 { 1.0 } else { 0.0 });
    }
    // The same family by its former name and under Ray Serve.
    let aliased = "ray_vllm_request_success_total{engine=\"0\",finished_reason=\"stop\"} 8\n";
    let aliased = series(aliased, &[counter(metric)], metric);
    assert!(before.series.iter().any(|series| series.id == aliased.series[0].id));
}

#[test]
fn a_counter_can_be_read_as_a_value_too() {
    let page = format!("{RUNNING}my_total{{a=\"1\"}} 3\nmy_total{{a=\"2\"}} 4\n");
    let both = [counter("my_total"), value("my_total")];
    assert_eq!(series(&page, &both, "my_total").count(), 7.0);
    assert_eq!(reading(&page, "my_total"), Some(7.0));
    assert!(
        Wanted::new([counter("vllm:generation_tokens")]).query().contains("vllm:generation_tokens_total")
    );
    assert_ne!(Wanted::new([counter("my_total")]), Wanted::new([value("my_total")]));
    // No series yet, and it is known that nothing has happened.
    let none = format!("{RUNNING}# TYPE my_total counter\n");
    assert_eq!(series(&none, &[counter("my_total")], "my_total"), Cumulative::default());
}

#[test]
fn a_histogram_is_read_series_by_series() {
    let page = "h_bucket{e=\"0\",le=\"0.1\"} 1\nh_bucket{e=\"0\",le=\"+Inf\"} 3\n\
        h_sum{e=\"0\"} 0.5\nh_count{e=\"0\"} 3\n\
        h_bucket{le=\"+Inf\",e=\"1\"} 30\nh_bucket{le=\"0.1\",e=\"1\"} 10\n\
        h_sum{e=\"1\"} 5\nh_count{e=\"1\"} 30\n";
    let read = series(page, &[histogram("h", true)], "h");
    assert_eq!(read.bounds, [0.1, f64::INFINITY]);
    let mut one: Vec<_> =
        read.series.iter().map(|series| (series.count, series.sum, series.buckets.clone())).collect();
    one.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(one, [(3.0, 0.5, vec![1.0, 3.0]), (30.0, 5.0, vec![10.0, 30.0])]);
    let mean = series(page, &[histogram("h", false)], "h");
    assert_eq!((mean.bounds.len(), mean.series.len(), mean.count()), (0, 2, 33.0));
}

#[test]
fn series_that_say_the_same_are_one() {
    let metric = "sglang:generation_tokens_total";
    let page = "sglang:generation_tokens_total{dp_rank=\"0\",tp_rank=\"0\"} 5\n\
        sglang:generation_tokens_total{dp_rank=\"0\",tp_rank=\"1\"} 5\n\
        sglang:generation_tokens_total{dp_rank=\"1\",tp_rank=\"0\"} 7\n";
    let read = series(page, &[counter(metric)], metric);
    assert_eq!((read.count(), read.series.len()), (12.0, 2));
}

#[test]
fn more_series_than_are_told_apart_are_unknown_with_that_reason() {
    let page = |count: usize, of: &str| {
        let mut page = RUNNING.to_owned();
        for n in 0..count {
            writeln!(page, "{}", of.replace('N', &n.to_string())).unwrap();
        }
        page
    };
    let most = Cumulative::MOST_SERIES;
    let counters = |count| read(page(count, "my_total{n=\"N\"} 1"), &[counter("my_total")], Plain);
    let known = counters(most).sample;
    assert!(matches!(known.reading(&name("my_total")), Some(Reading::Counter(all)) if all.count() == 256.0));
    let many = counters(most + 1);
    assert_eq!(many.sample.reading(&name("my_total")), None);
    assert_eq!(many.sample.lack(&name("my_total")), Some(Lack::TooManySeries));
    assert_eq!(many.missing, 0, "the plain page would say the same");

    // A histogram, by its series and by its buckets.
    let one = "h_sum{n=\"N\"} 1\nh_count{n=\"N\"} 1";
    let histograms = |count| read(page(count, one), &[histogram("h", false)], Plain).sample;
    assert!(histograms(most).reading(&name("h")).is_some());
    assert_eq!(histograms(most + 1).lack(&name("h")), Some(Lack::TooManySeries));
    let buckets: String =
        (0..64).map(|le| format!("h_bucket{{n=\"N\",le=\"{le}\"}} 1\n")).collect::<Vec<_>>().concat();
    let wide = |count| read(page(count, &format!("{buckets}{one}")), &[histogram("h", true)], Plain).sample;
    assert!(wide(Cumulative::MOST_BUCKETS / 64).reading(&name("h")).is_some());
    assert_eq!(wide(Cumulative::MOST_BUCKETS / 64 + 1).lack(&name("h")), Some(Lack::TooManySeries));
}

#[test]
fn refusals_are_told_apart_as_far_as_they_can_be() {
    let refused = |page: &str| read(page, &[], Plain).sample.rejected;
    let page = "vllm:admission_rejections_total{reason=\"a\"} 3\nvllm:admission_rejections_total{reason=\"b\"} 4\n\
        kaito_ratelimit_rejected_total 5\n";
    assert_eq!(refused(page).series.len(), 3);
    // Without labels two families would be one.
    let bare = refused("vllm:admission_rejections_total 3\nkaito_ratelimit_rejected_total 5\n");
    assert_eq!((bare.series.len(), bare.count()), (2, 8.0));
    // One that is no number is left out, and is known again when it is one.
    let broken = refused(&page.replace("\"a\"} 3", "\"a\"} NaN"));
    assert_eq!((broken.series.len(), broken.count()), (2, 9.0));
    let mut many = String::new();
    for n in 0..Cumulative::MOST_SERIES + 44 {
        writeln!(many, "kaito_ratelimit_rejected_total{{n=\"{n}\"}} 1").unwrap();
    }
    let many = refused(&many);
    assert_eq!((many.series.len(), many.count()), (Cumulative::MOST_SERIES + 1, 300.0));
}
