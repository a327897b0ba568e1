//! A hundred models that sleep, woken at once, over real sockets: gateways, the scaler, and
//! KEDA's one connection to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{sync::atomic::Ordering, time::Duration};

use clock::Clock;
use keda_kaito_scaler::run::{self, RunOptions};
use keda_proto::{ScaledObjectRef, external_scaler_client::ExternalScalerClient};
use sim::{
    endpoints_file,
    fleet::{Filtering, Fleet, Health, NAMESPACE, Plan},
};
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::Endpoint;

const SLEEPERS: usize = 100;
/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn object(model: &str) -> ScaledObjectRef {
    let metadata = [
        ("inferenceSetNamespace", NAMESPACE),
        ("inferenceSetName", model),
        ("metricName", "vllm:num_requests_waiting"),
        ("threshold", "10"),
        ("activationHold", "0s"),
    ];
    ScaledObjectRef {
        name: model.to_owned(),
        namespace: NAMESPACE.to_owned(),
        scaler_metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_that_are_woken_at_once_each_get_their_frame() {
    let plan = Plan { inference_sets: SLEEPERS, endpoints_each: 0, gateways: true, pages: Filtering::Works };
    let fleet = Fleet::start(plan, |_| Health::Serves).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endpoints.json");
    endpoints_file::write(&file, &fleet.listing(Clock::wall())).await.unwrap();
    // However busy the machine is, the first call waits for the first reading.
    let options = RunOptions { first_round: LONG, ..RunOptions::for_file(file) };
    let running = run::start(options).await.unwrap();
    let address = format!("http://{}", running.grpc_address());
    let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let keda = ExternalScalerClient::new(channel);

    let mut opening = JoinSet::new();
    for member in &fleet.members {
        let (mut client, object) = (keda.clone(), object(&member.name));
        opening.spawn(async move {
            let stream = client.stream_is_active(object.clone()).await.unwrap().into_inner();
            // Waits for the first reading of the gateway.
            assert!(!client.is_active(object).await.unwrap().into_inner().result, "it sleeps");
            stream
        });
    }
    let mut frames = JoinSet::new();
    for mut stream in opening.join_all().await {
        frames.spawn(async move { stream.message().await });
    }
    assert!(frames.try_join_next().is_none(), "nobody is woken yet");
    for member in &fleet.members {
        member.held.store(1, Ordering::Relaxed);
    }
    let woken = timeout(LONG, frames.join_all()).await.expect("each has its frame");
    for frame in woken {
        assert!(frame.unwrap().unwrap().result);
    }

    let metrics = format!("http://{}/metrics", running.metrics_address());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let page = client.get(metrics).send().await.unwrap().text().await.unwrap();
    let value = |name: &str| -> f64 {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    let name = "keda_kaito_scaler_activation_latency_seconds";
    let (sum, count) = (value(&format!("{name}_sum")), value(&format!("{name}_count")));
    assert_eq!(count, 100.0);
    println!("from sample to frame: {:.2} ms on average", sum / count * 1e3);
    // A busy machine takes its time; a ticker, or a queue behind one slow reader, would take more.
    assert!(sum / count < 1.0, "{sum} s in all");
    // A hundred at 100 ms are more than the budget.
    assert_eq!(value("keda_kaito_scaler_wake_interval_seconds"), 0.2);
    drop(keda);
    running.stop().await;
}
