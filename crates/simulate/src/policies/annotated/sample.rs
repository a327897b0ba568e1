//! From a simulated page to what a scrape of it gives.

use scaler_core::{
    config::trigger::{Shape, Trigger, WantedMetric},
    page::sample::{Cumulative, Histogram, PodDemand, PodSample, Reading},
};

use crate::page::{Page, Times, bounds};

/// A metric that no server exports: requests that wait or run.
pub const IN_FLIGHT: &str = "num_requests_running_and_waiting";

/// What a scrape of `page` gives for `trigger`.
pub(super) fn sample(page: &Page, trigger: &Trigger) -> PodSample {
    let wanted = trigger.wanted_metrics();
    let readings = wanted.into_iter().filter_map(|WantedMetric { name, shape }| {
        let reading = reading(page, name.as_str(), shape)?;
        Some((name, reading))
    });
    PodSample {
        readings: readings.collect(),
        demand: PodDemand { waiting: Some(f64::from(page.waiting)), running: Some(f64::from(page.running)) },
        rejected: Cumulative::of_count(page.rejected as f64),
        engine: true,
        ..PodSample::default()
    }
}

fn reading(page: &Page, name: &str, shape: Shape) -> Option<Reading> {
    match shape {
        Shape::Value => value(page, name).map(Reading::Value),
        Shape::Counter => value(page, name).map(|count| Reading::Counter(Cumulative::of_count(count))),
        Shape::Histogram { buckets } => {
            histogram(page, name, buckets).map(|read| Reading::Histogram(read.into()))
        }
    }
}

fn value(page: &Page, name: &str) -> Option<f64> {
    let name = name.strip_suffix("_total").unwrap_or(name);
    Some(match name {
        IN_FLIGHT => f64::from(page.running) + f64::from(page.waiting),
        "vllm:num_requests_waiting" => f64::from(page.waiting),
        "vllm:num_requests_running" => f64::from(page.running),
        "vllm:kv_cache_usage_perc" | "vllm:gpu_cache_usage_perc" => page.kv_usage,
        "vllm:prompt_tokens" => page.prompt_tokens as f64,
        "vllm:prompt_tokens_cached" => page.prompt_tokens_cached as f64,
        "vllm:generation_tokens" => page.generation_tokens as f64,
        "vllm:request_success" => page.succeeded as f64,
        "vllm:num_preemptions" => page.preemptions as f64,
        "kaito_ratelimit_rejected" => page.rejected as f64,
        _ => return None,
    })
}

fn histogram(page: &Page, name: &str, buckets: bool) -> Option<Histogram> {
    let of_tokens = |count: u64, sum: u64| Histogram {
        count: count as f64,
        sum: sum as f64,
        // Their buckets are not modelled.
        buckets: Vec::new(),
    };
    Some(match name {
        "vllm:time_to_first_token_seconds" => {
            times(&page.time_to_first_token, &bounds::TIME_TO_FIRST_TOKEN, buckets)
        }
        "vllm:inter_token_latency_seconds" | "vllm:time_per_output_token_seconds" => {
            times(&page.inter_token, &bounds::INTER_TOKEN, buckets)
        }
        "vllm:request_queue_time_seconds" => times(&page.queue_time, &bounds::REQUEST, buckets),
        "vllm:e2e_request_latency_seconds" => times(&page.end_to_end, &bounds::REQUEST, buckets),
        "vllm:request_prompt_tokens" if !buckets => of_tokens(page.succeeded, page.prompt_tokens_of_answered),
        "vllm:request_generation_tokens" if !buckets => {
            of_tokens(page.succeeded, page.generation_tokens_of_answered)
        }
        "vllm:iteration_tokens_total" if !buckets => of_tokens(page.steps, page.step_tokens),
        _ => return None,
    })
}

fn times<const BUCKETS: usize>(
    times: &Times<BUCKETS>,
    bounds: &[f64; BUCKETS],
    with_buckets: bool,
) -> Histogram {
    let mut buckets = Vec::new();
    if with_buckets {
        let mut below = 0;
        buckets.extend(bounds.iter().zip(times.buckets).map(|(bound, count)| {
            below += count;
            (*bound, below as f64)
        }));
        buckets.push((f64::INFINITY, times.count as f64));
    }
    Histogram { count: times.count as f64, sum: times.sum_us as f64 / 1e6, buckets }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative_and_in_seconds() {
        let mut page = Page::default();
        page.queue_time.buckets[0] = 2;
        page.queue_time.buckets[2] = 1;
        (page.queue_time.count, page.queue_time.sum_us) = (4, 9_000_000);
        let shape = Shape::Histogram { buckets: true };
        let Some(Reading::Histogram(read)) = reading(&page, "vllm:request_queue_time_seconds", shape) else {
            panic!("it is there");
        };
        let read = read.total();
        assert_eq!((read.count, read.sum, read.buckets.len()), (4.0, 9.0, 22));
        assert_eq!(read.buckets[..4], [(0.3, 2.0), (0.5, 2.0), (0.8, 3.0), (1.0, 3.0)]);
        assert_eq!(read.buckets[21], (f64::INFINITY, 4.0));
    }

    #[test]
    fn histograms_go_by_their_families_names() {
        let page = Page::default();
        let named = [
            "vllm:time_to_first_token_seconds",
            "vllm:inter_token_latency_seconds",
            "vllm:time_per_output_token_seconds",
            "vllm:request_queue_time_seconds",
            "vllm:e2e_request_latency_seconds",
        ];
        for name in named {
            assert!(histogram(&page, name, true).is_some(), "{name}");
            assert!(scaler_core::page::family(name).is_some() || name.contains("per_output"), "{name}");
        }
        for name in
            ["vllm:request_prompt_tokens", "vllm:request_generation_tokens", "vllm:iteration_tokens_total"]
        {
            let of = |buckets| histogram(&page, name, buckets).is_some();
            assert_eq!((of(false), of(true)), (true, false), "{name}");
        }
    }

    #[test]
    fn values_go_by_their_families_names() {
        let page = Page { running: 3, waiting: 4, kv_usage: 0.5, succeeded: 9, ..Page::default() };
        let cases = [
            (IN_FLIGHT, Some(7.0)),
            ("vllm:num_requests_waiting", Some(4.0)),
            ("vllm:kv_cache_usage_perc", Some(0.5)),
            ("vllm:request_success_total", Some(9.0)),
            ("vllm:request_success", Some(9.0)),
            ("vllm:unheard_of", None),
        ];
        for (name, expected) in cases {
            assert_eq!(value(&page, name), expected, "{name}");
        }
    }
}
