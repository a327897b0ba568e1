//! What a wake-up survives: KEDA, this scaler and the gateway's endpoint picker (EPP) restarted,
//! rolled or hanging, over real sockets. Every target here is asleep, so a push alone wakes it:
//! KEDA polls once when it starts, and not again while a test lasts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::HashMap, fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use clock::Clock;
use keda_kaito_scaler::run::{self, RunOptions, Running};
use keda_proto::{ScaledObjectRef, external_scaler_client::ExternalScalerClient};
use sim::{
    endpoints_file::{self, EndpointsFile, GatewayAddress, InferenceSet},
    fixtures::{Behaviour, Fixture},
    gateway,
    hpa::Behavior,
    keda::{self, Cause, Event, Journal, Scale, ScaledObject, Trigger},
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// KEDA polls when it starts; its next poll is after the end of any test.
const NEVER: Duration = Duration::from_secs(86_400);
const NAMESPACE: &str = "team-a";

/// Waits until `holds`.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut ticks = interval(Duration::from_millis(5));
    let held = async {
        while !holds() {
            ticks.tick().await;
        }
    };
    assert!(timeout(PATIENCE, held).await.is_ok(), "{what}: it never came to that");
}

/// A model that sleeps, behind a picker of its own.
struct Model {
    name: &'static str,
    picker: Fixture,
    scale: Scale,
    /// What KEDA did, over all its lives.
    journal: Journal,
}

impl Model {
    async fn asleep(name: &'static str) -> Self {
        let picker = Fixture::start(page(name, 0, 0)).await.unwrap();
        Self { name, picker, scale: Scale::new(0), journal: Journal::default() }
    }

    fn holds(&self, requests: usize) {
        self.picker.become_one_that(page(self.name, requests, 0));
    }

    fn metadata(&self) -> HashMap<String, String> {
        let metadata = [
            ("inferenceSetNamespace", NAMESPACE),
            ("inferenceSetName", self.name),
            ("metricName", "vllm:num_requests_waiting"),
            ("threshold", "10"),
        ];
        metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    /// Asks as KEDA polls: at zero replicas a call never fails, whatever its picker does.
    async fn is_active(&self, scaler: &Running) -> bool {
        let address = format!("http://{}", scaler.grpc_address());
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let object = ScaledObjectRef {
            name: self.name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            scaler_metadata: self.metadata(),
        };
        ExternalScalerClient::new(channel).is_active(object).await.unwrap().into_inner().result
    }

    async fn is_inactive(&self, scaler: &Running) {
        assert!(!self.is_active(scaler).await, "{}", self.name);
    }

    /// Waits until KEDA has met this.
    async fn event(&self, what: &str, wanted: impl Fn(&Event) -> bool) {
        let seen = || self.journal.since(0).iter().any(|(_, event)| wanted(event));
        until(&format!("{}: {what}", self.name), seen).await;
    }

    /// Waits until a push has woken it.
    async fn woken(&self) {
        self.event("wake-up", |event| matches!(event, Event::Scaled { from: 0, .. })).await;
        let cause = self.journal.latest(|event| match event {
            Event::Scaled { cause, .. } => Some(*cause),
            _ => None,
        });
        assert_eq!((cause, self.scale.replicas()), (Some(Cause::Push), 1), "{}", self.name);
    }

    fn streams_opened(&self) -> usize {
        let entries = self.journal.since(0);
        entries.iter().filter(|(_, event)| matches!(event, Event::StreamOpened { .. })).count()
    }

    fn still_sleeps(&self) {
        let pushed = self.journal.latest(|event| match event {
            Event::Pushed { active: true, .. } | Event::Scaled { .. } => Some(event.clone()),
            _ => None,
        });
        assert_eq!((pushed, self.scale.replicas()), (None, 0), "{}", self.name);
    }

    fn no_call_failed(&self) {
        let failed = self.journal.latest(|event| match event {
            Event::CallFailed { error, .. } => Some(error.clone()),
            _ => None,
        });
        assert_eq!(failed, None, "{}", self.name);
    }
}

/// Waits until a line of the scaler's own metrics is as `wanted`.
async fn says(scaler: &Running, wanted: impl Fn(&str) -> bool) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/metrics", scaler.metrics_address());
    let mut ticks = interval(Duration::from_millis(20));
    let said = async {
        while !client.get(&url).send().await.unwrap().text().await.unwrap().lines().any(&wanted) {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, said).await.expect("the scaler's metrics never say so");
}

/// Waits until the scaler has tried to read a picker and could not.
async fn failed_to_read(scaler: &Running) {
    let failed = |line: &str| {
        line.starts_with("keda_kaito_scaler_gateway_scrapes_total{") && line.contains("outcome=\"failed\"")
    };
    says(scaler, failed).await;
}

/// A picker's page: requests that it holds, and requests that it has refused since its start.
fn page(model: &str, held: usize, refused: u64) -> Behaviour {
    let pool = format!("{model}-inferencepool");
    let mut page = gateway::page(&pool, Some(held), 0);
    let labels = format!("inference_pool=\"{pool}\",error_code=\"ServiceUnavailable\"");
    writeln!(page, "llm_d_epp_request_error_total{{{labels}}} {refused}").unwrap();
    Behaviour::ExactPath { page: page.into() }
}

/// The cluster: which models there are, and where their pickers answer.
struct Cluster {
    folder: TempDir,
}

impl Cluster {
    async fn of(models: &[&Model]) -> Self {
        let cluster = Self { folder: tempfile::tempdir().unwrap() };
        cluster.says(models).await;
        cluster
    }

    async fn says(&self, models: &[&Model]) {
        let set = |model: &&Model| InferenceSet {
            namespace: NAMESPACE.to_owned(),
            name: model.name.to_owned(),
            replicas: model.scale.replicas(),
            ready_replicas: 0,
            endpoints: vec![],
            gateway: Some(GatewayAddress { address: model.picker.address() }),
        };
        let file = EndpointsFile { inference_sets: models.iter().map(set).collect() };
        endpoints_file::write(&self.folder.path().join("endpoints.json"), &file).await.unwrap();
    }

    async fn scaler(&self) -> Running {
        // However busy the machine is, the first call waits for the first reading.
        let file = self.folder.path().join("endpoints.json");
        run::start(RunOptions { first_round: PATIENCE, ..RunOptions::for_file(file) }).await.unwrap()
    }
}

/// The Service in front of the scaler: new connections go to the pod that is ready.
struct Service {
    address: SocketAddr,
    ready: watch::Sender<SocketAddr>,
    /// Ends the connections that go to the pod that is ready now.
    connections: Arc<std::sync::Mutex<CancellationToken>>,
    _forwarding: JoinSet<()>,
}

impl Service {
    async fn before(scaler: &Running) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ready, backend) = watch::channel(scaler.grpc_address());
        let connections = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let (current, mut forwarding) = (connections.clone(), JoinSet::new());
        forwarding.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let (backend, cut) = (*backend.borrow(), current.lock().unwrap().clone());
                open.spawn(async move {
                    // A pod that is not there ends the connection, as does the end of either side.
                    if let Ok(mut server) = TcpStream::connect(backend).await {
                        drop(cut.run_until_cancelled(copy_bidirectional(&mut client, &mut server)).await);
                    }
                });
            }
        });
        Self { address, ready, connections, _forwarding: forwarding }
    }

    /// From now on new connections go to `scaler`.
    fn leads_to(&self, scaler: &Running) {
        self.ready.send_replace(scaler.grpc_address());
    }

    /// Whoever was connected is cut off in the middle, as by the end of a node.
    fn cut(&self) {
        let mut connections = self.connections.lock().unwrap();
        std::mem::replace(&mut *connections, CancellationToken::new()).cancel();
    }
}

/// KEDA, until it is dropped.
struct Keda {
    _tasks: JoinSet<()>,
}

impl Keda {
    /// Starts and waits until it knows every model: each has its stream, and was polled.
    async fn start(models: &[&Model], scaler: SocketAddr) -> Self {
        let mut tasks = JoinSet::new();
        let mut before = vec![];
        for model in models {
            let object = ScaledObject {
                namespace: NAMESPACE.to_owned(),
                name: model.name.to_owned(),
                triggers: vec![Trigger { push: true, metadata: model.metadata() }],
                min_replicas: 0,
                max_replicas: 5,
                cooldown: NEVER,
                polling_interval: NEVER,
                sync_period: NEVER,
                behavior: Behavior::kubernetes_default(1, 5),
            };
            let (scale, journal) = (model.scale.clone(), model.journal.clone());
            before.push(journal.since(0).len());
            tasks.spawn(async move {
                keda::run(object, scaler, scale, journal, Clock::start(), CancellationToken::new())
                    .await
                    .unwrap();
            });
        }
        for (model, before) in models.iter().zip(before) {
            for (what, is_wanted) in [
                ("stream", (|event| matches!(event, Event::StreamOpened { .. })) as fn(&Event) -> bool),
                ("poll", |event| matches!(event, Event::Polled { .. } | Event::CallFailed { .. })),
            ] {
                let seen = || model.journal.since(before).iter().any(|(_, event)| is_wanted(event));
                until(&format!("{}: {what}", model.name), seen).await;
            }
        }
        Self { _tasks: tasks }
    }
}

#[tokio::test]
async fn keda_restarted_wakes_what_was_asked_for_meanwhile() {
    let (asked, quiet) = (Model::asleep("asked").await, Model::asleep("quiet").await);
    let models = [&asked, &quiet];
    let scaler = Cluster::of(&models).await.scaler().await;
    let first = Keda::start(&models, scaler.grpc_address()).await;
    drop(first);
    asked.holds(1);
    let known = async { while !asked.is_active(&scaler).await {} };
    timeout(PATIENCE, known).await.expect("the scaler knows it");
    let second = Keda::start(&models, scaler.grpc_address()).await;
    // Its first poll or the stream's first frame, whichever comes first; the frame comes anyway, as
    // soon as the stream is open.
    says(&scaler, |line| line == "keda_kaito_scaler_pushes_total{cause=\"open\"} 1").await;
    asked.event("push", |event| *event == Event::Pushed { trigger: 0, active: true }).await;
    asked.event("wake-up", |event| matches!(event, Event::Scaled { from: 0, to: 1, .. })).await;
    quiet.still_sleeps();
    for model in models {
        model.no_call_failed();
    }
    drop(second);
    scaler.stop().await;
}

#[tokio::test]
async fn a_scaler_that_ends_in_the_middle_costs_no_wake_up_and_wakes_nobody_else() {
    let (asked, quiet) = (Model::asleep("asked").await, Model::asleep("quiet").await);
    let models = [&asked, &quiet];
    let cluster = Cluster::of(&models).await;
    let first = cluster.scaler().await;
    let service = Service::before(&first).await;
    let keda = Keda::start(&models, service.address).await;
    for model in models {
        model.still_sleeps();
    }

    let second = cluster.scaler().await;
    service.leads_to(&second);
    service.cut();
    for model in models {
        model.event("error", |event| matches!(event, Event::StreamEnded { error: Some(_), .. })).await;
    }
    // While KEDA waits before it opens the streams again.
    asked.holds(1);
    asked.woken().await;
    // Its stream is open again, and has said nothing.
    until("the other stream is open again", || quiet.streams_opened() == 2).await;
    quiet.is_inactive(&second).await;
    quiet.still_sleeps();
    drop(keda);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_rollout_ends_streams_well_and_loses_no_wake_up() {
    let (before, during) = (Model::asleep("before").await, Model::asleep("during").await);
    let models = [&before, &during];
    let cluster = Cluster::of(&models).await;
    let old = cluster.scaler().await;
    let service = Service::before(&old).await;
    let keda = Keda::start(&models, service.address).await;

    let new = cluster.scaler().await;
    service.leads_to(&new);
    // The old one still serves whom it has.
    before.holds(1);
    before.woken().await;
    // As on SIGTERM.
    old.stop().await;
    during.event("end", |event| matches!(event, Event::StreamEnded { .. })).await;
    during.holds(1);
    during.woken().await;
    for model in models {
        model.no_call_failed();
        let ended_badly = model.journal.latest(|event| match event {
            Event::StreamEnded { error, .. } => error.clone(),
            _ => None,
        });
        assert_eq!(ended_badly, None, "KEDA's backoff starts anew only where a stream ended with OK");
    }
    drop(keda);
    new.stop().await;
}

#[tokio::test]
async fn a_picker_that_restarts_elsewhere_wakes_nobody_until_somebody_asks() {
    let mut model = Model::asleep("demo").await;
    // It has refused requests before: that it did is no demand now.
    model.picker.become_one_that(page("demo", 0, 40));
    let cluster = Cluster::of(&[&model]).await;
    let scaler = cluster.scaler().await;
    let keda = Keda::start(&[&model], scaler.grpc_address()).await;

    // Gone: nobody answers, and no call fails.
    model.picker = Fixture::start(page("demo", 0, 0)).await.unwrap();
    failed_to_read(&scaler).await;
    model.is_inactive(&scaler).await;

    // Back under another address, its counters at 0, and then at 7: less than before, and more.
    cluster.says(&[&model]).await;
    until("the new picker is read", || model.picker.hits().plain >= 3).await;
    model.is_inactive(&scaler).await;
    model.still_sleeps();
    model.picker.become_one_that(page("demo", 0, 7));
    model.woken().await;
    model.no_call_failed();
    assert_eq!(model.streams_opened(), 1);
    drop(keda);
    scaler.stop().await;
}

#[tokio::test]
async fn a_picker_that_hangs_keeps_nobody_else_from_waking() {
    let (hung, other) = (Model::asleep("hung").await, Model::asleep("other").await);
    let models = [&hung, &other];
    let cluster = Cluster::of(&models).await;
    let scaler = cluster.scaler().await;
    let keda = Keda::start(&models, scaler.grpc_address()).await;

    hung.picker.become_one_that(Behaviour::Hangs);
    let before = hung.picker.hits().plain;
    until("it is read", || hung.picker.hits().plain > before).await;
    other.holds(1);
    other.woken().await;
    hung.is_inactive(&scaler).await;
    hung.still_sleeps();
    hung.holds(1);
    hung.woken().await;
    for model in models {
        model.no_call_failed();
        assert_eq!(model.streams_opened(), 1, "{}", model.name);
    }
    drop(keda);
    scaler.stop().await;
}
