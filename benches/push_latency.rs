//! From a sample that shows demand to the frame on KEDA's stream: through the aggregator's
//! inbox, the decision, the snapshot, the watch and the stream.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clock::Clock;
use criterion::{Criterion, criterion_group, criterion_main};
use futures::StreamExt;
use keda_kaito_scaler::{
    aggregator::{Aggregator, Inbox, Scraper},
    metrics::Metrics,
    scrape::{ScrapeId, ScrapePlan, ScrapeReport},
    serve::scaler::Scaler,
    targets::Targets,
    wake::{SourcePlan, SourceReport},
};
use keda_proto::{ScaledObjectRef, external_scaler_server::ExternalScaler};
use scaler_core::{
    fleet::{
        model::{FleetEvent, Gateway, InferenceSet},
        tenancy::Tenancy,
    },
    names::InferenceSetKey,
    page::picker::GatewaySample,
    wake::Source,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::Request;

/// Scrapes nothing: the bench says what was seen.
#[derive(Debug)]
struct Nothing;

impl Scraper for Nothing {
    fn apply(&mut self, _: ScrapeId, _: ScrapePlan) {}
    fn remove(&mut self, _: &ScrapeId) {}
    fn is_current(&self, _: &ScrapeReport) -> bool {
        true
    }
    fn tend(&mut self) {}
    fn apply_source(&mut self, _: &Source, _: Option<SourcePlan>) {}
}

fn object() -> ScaledObjectRef {
    let metadata = [
        ("inferenceSetNamespace", "team-a"),
        ("inferenceSetName", "demo"),
        ("metricName", "vllm:num_requests_waiting"),
        ("threshold", "10"),
        ("activationHold", "0s"),
    ];
    ScaledObjectRef {
        name: "demo".into(),
        namespace: "team-a".into(),
        scaler_metadata: metadata.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn push_latency(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let set = InferenceSetKey::new("team-a", "demo");
    let source = Source::at(([127, 0, 0, 1], 9090).into());
    let pool = "demo-inferencepool";
    let (readings, sources) = mpsc::channel(8);
    let mut tasks = JoinSet::new();
    let (clock, mut frames) = runtime.block_on(async {
        let clock = Clock::start();
        let (registered, registrations) = mpsc::unbounded_channel();
        let (fleet, fleet_inbox) = mpsc::channel(8);
        let (_, reports) = mpsc::channel(8);
        let targets = Targets::new(registered, clock, Tenancy::OwnNamespace);
        let metrics = Metrics::default();
        let aggregator = Aggregator::new(clock, Nothing, targets.clone(), metrics.clone());
        let (_, debug_requests) = mpsc::channel(1);
        let inbox = Inbox { fleet: fleet_inbox, registrations, debug_requests, reports, sources };
        tasks.spawn(async move {
            aggregator.run(inbox, CancellationToken::new()).await;
        });
        let asleep = InferenceSet {
            key: set.clone(),
            replicas: 0,
            ready_replicas: 0,
            endpoints: vec![],
            gateway: Some(Gateway { pool: pool.into(), picker: Some(source.clone()) }),
        };
        fleet.send(FleetEvent::Applied(asleep)).await.expect("the aggregator runs");
        let drain = CancellationToken::new();
        let scaler = Scaler::new(targets, clock, metrics, Duration::from_millis(900), drain);
        let stream = ExternalScaler::stream_is_active(&scaler, Request::new(object())).await;
        (clock, stream.expect("a stream").into_inner())
    });
    let say = |queued: f64| {
        let sample = GatewaySample { queued: Some(queued), refused_total: 0.0 };
        let (at, interval) = (clock.now(), Duration::from_millis(100));
        SourceReport { source: source.clone(), at, interval, outcome: Ok(vec![(pool.into(), sample)]) }
    };
    // A frame is awaited by a task of its own, as the transport does.
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let reader = async move {
        while let Some(Ok(frame)) = frames.next().await {
            assert!(frame.result);
            if arrived.send(Instant::now()).is_err() {
                return;
            }
        }
    };
    let _entered = runtime.enter();
    tasks.spawn(reader);
    let readings = Arc::new(readings);
    c.bench_function("push_latency/sample to frame", |b| {
        b.iter_custom(|iterations| {
            runtime.block_on(async {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    // Inactive first; then the sample that counts.
                    readings.send(say(0.0)).await.expect("the aggregator runs");
                    let sample = say(1.0);
                    let sent = Instant::now();
                    readings.send(sample).await.expect("the aggregator runs");
                    let frame = arrivals.recv().await.expect("a frame");
                    total += frame.duration_since(sent);
                }
                total
            })
        });
    });
}

criterion_group!(benches, push_latency);
criterion_main!(benches);
