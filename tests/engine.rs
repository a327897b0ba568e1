//! The whole program over real sockets, with endpoints from a file: every kind of model
//! server, hostile ones among them, and a shutdown in order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::HashMap, fmt::Write as _, fs, net::SocketAddr, path::Path, time::Duration};

use keda_kaito_scaler::run::{self, RunOptions, Running};
use keda_proto::{GetMetricsRequest, ScaledObjectRef, external_scaler_client::ExternalScalerClient};
use serde_json::Value;
use sim::{
    fixtures::{Behaviour, Fixture, sglang_page, vllm_page},
    hostile::Hostile,
};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// An InferenceSet of these servers, all Ready.
fn endpoints_file(folder: &Path, sets: &[(&str, &[SocketAddr])]) -> std::path::PathBuf {
    let mut text = String::from("inferenceSets: [");
    for (name, servers) in sets {
        let replicas = servers.len();
        write!(text, "{{namespace: team-a, name: {name}, replicas: {replicas}, endpoints: [").unwrap();
        for (index, address) in servers.iter().enumerate() {
            write!(text, "{{pod: {name}-{index}-0, address: \"{address}\", phase: Ready}}, ").unwrap();
        }
        text.push_str("]}, ");
    }
    text.push(']');
    let (draft, path) = (folder.join("draft"), folder.join("endpoints.yaml"));
    fs::write(&draft, text).unwrap();
    fs::rename(&draft, &path).unwrap();
    path
}

async fn start(folder: &TempDir, sets: &[(&str, &[SocketAddr])]) -> (Running, ExternalScalerClient<Channel>) {
    let path = endpoints_file(folder.path(), sets);
    let running = run::start(RunOptions::for_file(path)).await.unwrap();
    let channel = connect(running.grpc_address()).await;
    (running, ExternalScalerClient::new(channel))
}

async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn object(name: &str, metric: &str) -> ScaledObjectRef {
    let metadata = [
        ("inferenceSetNamespace", "team-a"),
        ("inferenceSetName", name),
        ("metricName", metric),
        ("threshold", "10"),
        ("scrapeInterval", "100ms"),
        ("scrapeTimeout", "300ms"),
    ];
    let scaler_metadata: HashMap<_, _> =
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    ScaledObjectRef { name: name.into(), namespace: "team-a".into(), scaler_metadata }
}

async fn value(
    client: &mut ExternalScalerClient<Channel>,
    name: &str,
    metric: &str,
) -> Result<f64, tonic::Status> {
    let request =
        GetMetricsRequest { scaled_object_ref: Some(object(name, metric)), metric_name: metric.to_owned() };
    Ok(client.get_metrics(request).await?.into_inner().metric_values[0].metric_value_float)
}

async fn debug_targets(running: &Running) -> Value {
    let url = format!("http://{}/debug/targets", running.metrics_address());
    let body = reqwest::get(url).await.unwrap().text().await.unwrap();
    serde_json::from_str(&body).unwrap()
}

/// Asks again and again until `wanted` holds.
async fn until<T>(mut ask: impl AsyncFnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "it never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const WAITING: &str = "vllm:num_requests_waiting";

#[tokio::test]
async fn every_kind_of_server_is_read_by_the_page_that_suits_it() {
    let page = vllm_page(4, 1, 0.5);
    let loading = "# TYPE kaito_model_download_remaining_seconds gauge\n";
    assert!(!page.contains(loading));
    let kinds: [(&str, Behaviour, &str, &str); 4] = [
        ("vllm", Behaviour::Vllm { page: page.clone() }, WAITING, "filtered"),
        ("several", Behaviour::VllmSeveralApiServers { page: page.clone() }, WAITING, "plain"),
        ("exact", Behaviour::ExactPath { page: page.clone() }, WAITING, "plain"),
        (
            "sglang",
            Behaviour::VllmSeveralApiServers { page: sglang_page(4, 1, 0.5) },
            "sglang:num_queue_reqs",
            "plain",
        ),
    ];
    let mut fixtures = Vec::new();
    for (name, behaviour, metric, page) in kinds {
        fixtures.push((name, Fixture::start(behaviour).await.unwrap(), metric, page));
    }
    let addresses: Vec<_> = fixtures.iter().map(|(name, server, ..)| (*name, [server.address()])).collect();
    let sets: Vec<_> = addresses.iter().map(|(name, servers)| (*name, &servers[..])).collect();
    let folder = TempDir::new().unwrap();
    let (running, mut client) = start(&folder, &sets).await;
    for (name, _, metric, page) in &fixtures {
        assert_eq!(value(&mut client, name, metric).await.unwrap(), 4.0, "{name}");
        let targets = debug_targets(&running).await;
        let target = targets.as_array().unwrap().iter().find(|target| target["scaledObject"] == *name);
        assert_eq!(target.unwrap()["endpoints"][0]["page"], *page, "{name}");
    }
    running.stop().await;
}

/// Each of them costs its own value and shows its reason; a healthy server beside it, and
/// healthy InferenceSets, lose nothing.
#[tokio::test]
async fn a_hostile_server_costs_only_its_own_value() {
    let healthy = Fixture::start(Behaviour::Vllm { page: vllm_page(12, 2, 0.5) }).await.unwrap();
    let bystander = Fixture::start(Behaviour::Vllm { page: vllm_page(3, 2, 0.5) }).await.unwrap();
    let victim = Fixture::start(Behaviour::Vllm { page: vllm_page(99, 2, 0.5) }).await.unwrap();
    let hostile = [
        ("hangs", Behaviour::Hangs, "no complete answer within 300ms"),
        ("resets", Behaviour::ResetsMidBody, "connection broke"),
        ("endless", Behaviour::Hostile(Hostile::Endless), "larger than"),
        ("garbage", Behaviour::NoHttp, "not valid HTTP"),
        ("nonsense", Behaviour::NoMetrics, "not a metrics page"),
        ("redirects", Behaviour::Redirects { to: victim.address() }, "redirect"),
        ("fails", Behaviour::Status(500), "status 500"),
        ("drops", Behaviour::DropsUnanswered, "connection broke"),
    ];
    let mut fixtures = Vec::new();
    for (name, behaviour, reason) in hostile {
        fixtures.push((name, Fixture::start(behaviour).await.unwrap(), reason));
    }
    let pairs: Vec<_> =
        fixtures.iter().map(|(name, server, _)| (*name, [healthy.address(), server.address()])).collect();
    let mut sets: Vec<_> = pairs.iter().map(|(name, servers)| (*name, &servers[..])).collect();
    let alone = [bystander.address()];
    sets.push(("bystander", &alone));
    let folder = TempDir::new().unwrap();
    let (running, mut client) = start(&folder, &sets).await;
    for (name, _, reason) in &fixtures {
        // Twelve known of one replica; the other is unknown and counts as on target.
        assert_eq!(value(&mut client, name, WAITING).await.unwrap(), 20.0, "{name}");
        let reasoned = until(
            async || {
                let targets = debug_targets(&running).await;
                let target = targets.as_array().unwrap().iter().find(|t| t["scaledObject"] == *name).cloned();
                target.unwrap()["endpoints"][1]["lastError"].as_str().unwrap_or_default().to_owned()
            },
            |error| !error.is_empty(),
        );
        let error = reasoned.await;
        assert!(error.contains(reason), "{name}: {error}");
    }
    assert_eq!(value(&mut client, "bystander", WAITING).await.unwrap(), 3.0);
    assert_eq!(victim.hits().filtered + victim.hits().plain, 0, "a redirect is never followed");
    running.stop().await;
}

#[tokio::test]
async fn the_file_is_followed_while_it_runs() {
    let first = Fixture::start(Behaviour::Vllm { page: vllm_page(4, 1, 0.5) }).await.unwrap();
    let second = Fixture::start(Behaviour::Vllm { page: vllm_page(5, 1, 0.5) }).await.unwrap();
    let folder = TempDir::new().unwrap();
    let (running, mut client) = start(&folder, &[("demo", &[first.address()])]).await;
    assert_eq!(value(&mut client, "demo", WAITING).await.unwrap(), 4.0);
    endpoints_file(folder.path(), &[("demo", &[first.address(), second.address()])]);
    let ask = async || value(&mut client, "demo", WAITING).await.unwrap();
    until(ask, |value| *value == 9.0).await;
    // A broken file changes nothing, and the next good one is taken.
    fs::write(folder.path().join("endpoints.yaml"), "inferenceSets: [").unwrap();
    endpoints_file(folder.path(), &[("demo", &[second.address()])]);
    let ask = async || value(&mut client, "demo", WAITING).await.unwrap();
    until(ask, |value| *value == 5.0).await;
    running.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_streams_with_ok_and_then_accepts_no_more() {
    let server = Fixture::start(Behaviour::Vllm { page: vllm_page(4, 1, 0.5) }).await.unwrap();
    let folder = TempDir::new().unwrap();
    let (running, mut client) = start(&folder, &[("demo", &[server.address()])]).await;
    let mut stream = client.stream_is_active(object("demo", WAITING)).await.unwrap().into_inner();
    assert!(timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap().result);
    // KEDA before 2.21 never makes this call; everything else here is as for those.
    let answered = client.get_metric_spec(object("demo", WAITING)).await.unwrap().into_inner();
    assert!(!answered.metric_specs.is_empty());
    let mut specs = client.stream_metric_spec(object("demo", WAITING)).await.unwrap().into_inner();
    assert_eq!(specs.message().await.unwrap(), Some(answered));
    let (grpc, metrics) = (running.grpc_address(), running.metrics_address());
    let ready = reqwest::get(format!("http://{metrics}/readyz")).await.unwrap();
    assert_eq!(ready.status(), 200);
    let stopping = running.stop();
    let (ended, specs_ended, ()) =
        timeout(PATIENCE, async { tokio::join!(stream.message(), specs.message(), stopping) }).await.unwrap();
    assert!(ended.unwrap().is_none(), "the stream ends with OK");
    assert!(specs_ended.unwrap().is_none());
    assert!(tokio::net::TcpStream::connect(grpc).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn unready_comes_first_and_calls_are_served_on_during_the_delay() {
    let server = Fixture::start(Behaviour::Vllm { page: vllm_page(4, 1, 0.5) }).await.unwrap();
    let folder = TempDir::new().unwrap();
    let path = endpoints_file(folder.path(), &[("demo", &[server.address()])]);
    let options = RunOptions { shutdown_delay: Duration::from_millis(600), ..RunOptions::for_file(path) };
    let running = run::start(options).await.unwrap();
    let mut client = ExternalScalerClient::new(connect(running.grpc_address()).await);
    let metrics = running.metrics_address();
    let stopping = running.stop();
    tokio::pin!(stopping);
    assert!(futures::poll!(&mut stopping).is_pending());
    let during = async {
        let ready = reqwest::get(format!("http://{metrics}/readyz")).await.unwrap();
        assert_eq!(ready.status(), 503);
        assert!(ready.text().await.unwrap().contains("going away"));
        value(&mut client, "demo", WAITING).await.unwrap()
    };
    let served = tokio::select! {
        served = during => served,
        () = &mut stopping => panic!("stopped before the delay was over"),
    };
    assert_eq!(served, 4.0);
    timeout(PATIENCE, stopping).await.unwrap();
}

#[tokio::test]
async fn health_and_reflection_answer() {
    let folder = TempDir::new().unwrap();
    let (running, _client) = start(&folder, &[]).await;
    let mut health = HealthClient::new(connect(running.health_address()).await);
    for service in ["", "liveness", "readiness"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = until(
            async || health.check(request.clone()).await,
            |answer| answer.as_ref().is_ok_and(|answer| answer.get_ref().status == 1),
        );
        answer.await.unwrap();
    }
    let unknown = HealthCheckRequest { service: "other".into() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);

    let mut reflection = ServerReflectionClient::new(connect(running.grpc_address()).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.message().await.unwrap());
    assert!(answer.contains("externalscaler.ExternalScaler"), "{answer}");
    running.stop().await;
}
