//! What a decision is tested with: replicas in every state, and the decision over them.

use super::*;
use crate::{
    decision::activation::Cause,
    endpoint::{
        page_choice::PageKind,
        pod::{Pod, WindowKey},
    },
    fleet::{
        model::{Endpoint, InferenceSet, Readiness},
        shortage::Missing,
    },
    names::{InferenceSetKey, MetricName, PodUid},
    page::sample::{Histogram, PodDemand, PodSample, Reading},
};

const STALENESS: Duration = Duration::from_secs(5);
const NOW: Moment = Moment::from_unix(Duration::from_secs(1_000_000));

fn metric(name: &str) -> MetricName {
    MetricName::parse(name).unwrap()
}

fn waiting() -> MetricName {
    metric("vllm:num_requests_waiting")
}

/// A trigger on the total of waiting requests, target 10, with `extra` on top.
fn trigger(extra: &[(&str, &str)]) -> Trigger {
    let mut metadata = vec![
        ("inferenceSetNamespace", "team-a"),
        ("inferenceSetName", "demo"),
        ("metricName", "vllm:num_requests_waiting"),
        ("threshold", "10"),
    ];
    metadata.retain(|(key, _)| !extra.iter().any(|(other, _)| key == other));
    metadata.extend(extra);
    metadata.retain(|(_, value)| !value.is_empty());
    Trigger::parse(metadata, None).unwrap()
}

/// What one replica looks like.
#[derive(Clone, Copy)]
enum Is {
    /// Serves, with this many waiting and no one running.
    Waiting(f64),
    /// Serves, with this many running and no one waiting.
    Running(f64),
    /// Serves, but its page lacks the metric.
    Lacking,
    /// Its engine sleeps, with this many waiting.
    Asleep(f64),
    /// Its last sample is older than the staleness limit.
    Stale,
    /// Ready, but never read.
    Unread,
    /// Not ready and never served, for these many seconds.
    Loading(u64),
    /// Without an address.
    Pending,
    Draining,
}

fn pod(index: usize, is: Is) -> Pod {
    let (readiness, age) = match is {
        Is::Loading(age) => (Readiness::NotReady, age),
        Is::Pending => (Readiness::NotReady, 10),
        Is::Draining => (Readiness::Terminating, 10_000),
        _ => (Readiness::Ready, 10_000),
    };
    let mut pod = Pod::new(Endpoint {
        uid: PodUid(format!("uid-{index}").into()),
        pod: format!("demo-{index}").into(),
        address: (!matches!(is, Is::Pending)).then(|| "127.0.0.1:5000".parse().unwrap()),
        readiness,
        since: NOW - Duration::from_secs(age),
    });
    let (at, waiting_now, running) = match is {
        Is::Waiting(waiting) | Is::Asleep(waiting) => (NOW, Some(waiting), 0.0),
        Is::Running(running) => (NOW, Some(0.0), running),
        Is::Lacking => (NOW, None, 0.0),
        Is::Stale => (NOW - STALENESS - Duration::from_secs(1), Some(50.0), 50.0),
        Is::Draining => (NOW, Some(99.0), 99.0),
        Is::Unread | Is::Loading(_) | Is::Pending => return pod,
    };
    let readings = waiting_now.map(|value| (waiting(), Reading::Value(value))).into_iter().collect();
    let demand = PodDemand { waiting: waiting_now, running: Some(running), rejected_total: 0.0 };
    let awake = matches!(is, Is::Asleep(_)).then_some(false);
    let sample = PodSample { readings, demand, awake, engine: true, ..PodSample::default() };
    pod.sampled(at, PageKind::Filtered, sample);
    pod
}

fn set(replicas: u32) -> InferenceSet {
    InferenceSet {
        key: InferenceSetKey::new("team-a", "demo"),
        replicas,
        ready_replicas: replicas,
        endpoints: vec![],
        gateway: None,
    }
}

fn observed<'a>(set: &'a InferenceSet, pods: &'a [Pod]) -> Observed<'a> {
    Observed { set, pods, missing: &[], staleness: STALENESS, gateway: None, heard: NOW }
}

/// Decides for a target whose hold time is long over.
fn decide(trigger: &Trigger, observed: &Observed<'_>) -> Snapshot {
    let long_ago = NOW - Duration::from_secs(10_000);
    let mut activation = Activation::new(trigger.activation, long_ago);
    evaluate(trigger, observed, &mut activation, NOW)
}

fn value(snapshot: &Snapshot) -> Result<f64, String> {
    snapshot.values[0].as_ref().map(|value| value.number()).map_err(ToString::to_string)
}

fn queue_time() -> MetricName {
    metric("vllm:request_queue_time_seconds")
}

/// A pod with a window of queue times, read at each second of `samples` before now.
fn queueing(index: usize, samples: &[(u64, f64, f64)], demand: f64) -> Pod {
    let demand = PodDemand { waiting: Some(demand), running: Some(0.0), rejected_total: 0.0 };
    queueing_with(index, samples, demand)
}

fn queueing_with(index: usize, samples: &[(u64, f64, f64)], demand: PodDemand) -> Pod {
    let mut pod = pod(index, Is::Unread);
    pod.keep_windows(&[WindowKey { metric: queue_time(), span: Duration::from_secs(300) }]);
    for &(before, count, sum) in samples {
        let buckets = vec![(1.0, count / 2.0), (3.0, count), (f64::INFINITY, count)];
        let histogram = Histogram { count, sum, buckets };
        let sample = PodSample {
            readings: vec![(queue_time(), Reading::Histogram(histogram))],
            demand,
            engine: true,
            ..PodSample::default()
        };
        pod.sampled(NOW - Duration::from_secs(before), PageKind::Filtered, sample);
    }
    pod
}

mod demand;
mod metrics;
mod numbers;
mod pages;
mod unknown;
