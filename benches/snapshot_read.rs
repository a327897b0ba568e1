//! What KEDA's poll costs: GetMetrics and then IsActive, answered from memory while decisions
//! are published all the time. The time must grow neither with targets nor with replicas.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clock::Clock;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use keda_kaito_scaler::{
    metrics::Metrics,
    serve::scaler::Scaler,
    targets::{Target, Targets},
};
use keda_proto::{GetMetricsRequest, ScaledObjectRef, external_scaler_server::ExternalScaler};
use scaler_core::{
    decision::{
        activation::Activation,
        evaluate::{Observed, evaluate},
        push::PushState,
        snapshot::Snapshot,
    },
    endpoint::{page_choice::PageKind, pod::Pod},
    fleet::{
        model::{Endpoint, InferenceSet, Readiness},
        tenancy::Tenancy,
    },
    names::{InferenceSetKey, MetricName, PodUid},
    page::sample::{PodDemand, PodSample, Reading},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Request;

const METRIC: &str = "vllm:num_requests_waiting";

fn object(index: usize) -> ScaledObjectRef {
    let metadata = [
        ("scalerAddress", "keda-kaito-scaler-svc.keda.svc.cluster.local:10450"),
        ("inferenceSetNamespace", "team-a"),
        ("inferenceSetName", "demo"),
        ("metricName", METRIC),
        ("threshold", "10"),
    ];
    ScaledObjectRef {
        name: format!("demo-{index}"),
        namespace: "team-a".into(),
        scaler_metadata: metadata.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

/// A decision over `pods` replicas that each have one request waiting.
fn decide(target: &Target, pods: usize, clock: Clock) -> Snapshot {
    let now = clock.now();
    let metric = MetricName::parse(METRIC).expect("a metric name");
    let pod = |index: usize| {
        let mut pod = Pod::new(Endpoint {
            uid: PodUid(index.to_string().into()),
            pod: "demo".into(),
            address: None,
            readiness: Readiness::Ready,
            since: now,
        });
        pod.endpoint.address = Some(([127, 0, 0, 1], 5000).into());
        let sample = PodSample {
            readings: vec![(metric.clone(), Reading::Value(1.0))],
            demand: PodDemand { waiting: Some(1.0), running: Some(0.0), rejected_total: 0.0 },
            engine: true,
            ..PodSample::default()
        };
        pod.sampled(now, PageKind::Filtered, sample);
        pod
    };
    let pods: Vec<_> = (0..pods).map(pod).collect();
    let set = InferenceSet {
        key: InferenceSetKey::new("team-a", "demo"),
        replicas: u32::try_from(pods.len()).expect("few pods"),
        ready_replicas: 0,
        endpoints: vec![],
        gateway: None,
    };
    let observed = Observed {
        set: &set,
        pods: &pods,
        missing: &[],
        staleness: Duration::from_secs(5),
        gateway: None,
        heard: now,
    };
    evaluate(&target.trigger, &observed, &mut Activation::new(target.trigger.activation, now), now)
}

fn snapshot_read(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("snapshot_read");
    for (targets, pods) in [(1, 1), (100, 1), (1_000, 1), (10_000, 1), (1_000, 100), (1_000, 1_000)] {
        let clock = runtime.block_on(async { Clock::start() });
        // Nobody aggregates: decisions are published by the thread below.
        let (registered, _registrations) = mpsc::unbounded_channel();
        let registry = Targets::new(registered, clock, Tenancy::OwnNamespace);
        let metrics = Metrics::default();
        let scaler = Scaler::new(
            registry.clone(),
            clock,
            metrics,
            Duration::from_millis(900),
            CancellationToken::new(),
        );
        let objects: Vec<_> = (0..targets).map(object).collect();
        let registered: Vec<_> = objects
            .iter()
            .map(|o| {
                registry.find_or_register(&o.namespace, &o.name, &o.scaler_metadata, None).expect("valid")
            })
            .collect();
        let decision = decide(&registered[0], pods, clock);
        let publish = move |target: &Target, decision: &Snapshot, edge: u64| {
            target.publish(Arc::new(decision.clone()), PushState { edge, ..PushState::default() });
        };
        for target in &registered {
            publish(target, &decision, 0);
            target.complete_first_round();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let publisher = std::thread::spawn({
            let (stop, registered, decision) = (stop.clone(), registered.clone(), decision.clone());
            move || {
                for (edge, target) in (0_u64..).zip(registered.iter().cycle()) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    publish(target, &decision, edge);
                }
            }
        });
        let requests: Vec<_> = objects
            .iter()
            .map(|o| GetMetricsRequest { scaled_object_ref: Some(o.clone()), metric_name: METRIC.into() })
            .collect();
        let mut next = requests.iter().cycle();
        group.bench_function(
            BenchmarkId::new(format!("{targets} targets"), format!("{pods} replicas")),
            |b| {
                b.iter(|| {
                    let request = next.next().expect("it cycles");
                    let object = request.scaled_object_ref.clone().unwrap_or_default();
                    let pair = async {
                        let metrics =
                            ExternalScaler::get_metrics(&scaler, Request::new(request.clone())).await;
                        let active = ExternalScaler::is_active(&scaler, Request::new(object)).await;
                        (metrics, active)
                    };
                    let (metrics, active) = runtime.block_on(pair);
                    let values = metrics.expect("a value").into_inner().metric_values;
                    assert!(values[0].metric_value_float >= 1.0);
                    assert!(active.expect("an answer").into_inner().result);
                    black_box(values)
                });
            },
        );
        stop.store(true, Ordering::Relaxed);
        publisher.join().expect("the publisher ends");
    }
    group.finish();
}

/// Something to hold the floor: the copy of the request that each call above makes.
fn request_copy(c: &mut Criterion) {
    let request = object(0);
    c.bench_function("snapshot_read/copying the request", |b| {
        b.iter(|| {
            let copy: HashMap<String, String> = request.scaler_metadata.clone();
            black_box(copy)
        });
    });
}

criterion_group!(benches, snapshot_read, request_copy);
criterion_main!(benches);
