//! The whole path of a sample in virtual time: a page that changes, the real scrape tasks,
//! the real aggregator, the real service over the listener's HTTP/2, and a client at the other
//! end of a duplex pipe. A socket would not do: a paused clock does not wait for one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code,
    service::Routes,
    transport::{Channel, Endpoint as ClientEndpoint, Uri},
};
use tower::ServiceExt;

use super::{listener::connection::http2, scaler::Scaler};
use crate::{
    aggregator::{Aggregator, Inbox},
    cluster::directory::Directory,
    metrics::Metrics,
    run::scrapers::Scrapers,
    scrape::{Fetch, Page, Request, ScrapeError, ScrapePool},
    targets::{self, Targets},
    tasks::Tasks,
    wake::{Reader, SourcePool},
};
use clock::Clock;
use keda_proto::{
    GetMetricsRequest, ScaledObjectRef, external_scaler_client::ExternalScalerClient,
    external_scaler_server::ExternalScalerServer,
};
use scaler_core::{
    fleet::{
        model::{Endpoint, FleetEvent, Gateway, InferenceSet, Readiness},
        tenancy::Tenancy,
    },
    names::{InferenceSetKey, PodUid},
    time::Moment,
    wake::pace::Pace,
};

/// Pages by host and port; where there is none the server hangs.
#[derive(Clone, Debug, Default)]
struct Pages(Arc<Mutex<HashMap<String, String>>>);

impl Pages {
    fn set(&self, host: &str, page: String) {
        self.0.lock().unwrap().insert(host.to_owned(), page);
    }

    fn waiting(&self, host: &str, waiting: u32) {
        self.set(host, sim::fixtures::vllm_page(waiting, 1, 0.5).to_string());
    }

    fn queued(&self, requests: u32) {
        self.queued_at(GATEWAY, "demo", requests);
    }

    fn queued_at(&self, gateway: &str, set: &str, requests: u32) {
        let labels = format!(r#"inference_pool="{set}-inferencepool",fairness_id="",priority="0""#);
        self.set(gateway, format!("llm_d_epp_flow_control_queue_size{{{labels}}} {requests}\n"));
    }
}

impl Fetch for Pages {
    type Connection = ();

    async fn fetch(&self, (): &mut (), request: &Request<'_>) -> Result<Page, ScrapeError> {
        self.read(&request.address.to_string()).await
    }
}

impl Pages {
    async fn read(&self, host: &str) -> Result<Page, ScrapeError> {
        let page = self.0.lock().unwrap().get(host).cloned();
        match page {
            Some(page) => Ok(page.as_bytes().to_vec().into()),
            None => std::future::pending().await,
        }
    }
}

const GATEWAY: &str = "127.0.9.1:9090";
const POD: &str = "127.0.1.1:5000";
/// Longer than any wait in these tests that is to end.
const LONG: Duration = Duration::from_secs(3_600);

/// A running engine with a client.
struct Rig {
    pages: Pages,
    clock: Clock,
    fleet: mpsc::Sender<FleetEvent>,
    drain: CancellationToken,
    client: ExternalScalerClient<Channel>,
    metrics: Metrics,
    _tasks: JoinSet<()>,
}

impl Rig {
    async fn start() -> Self {
        let clock = Clock::start();
        let pages = Pages::default();
        let (registered, registrations) = mpsc::unbounded_channel();
        let (fleet, fleet_inbox) = mpsc::channel(8);
        let (report_sender, reports) = mpsc::channel(8);
        let (source_sender, sources) = mpsc::channel(8);
        let targets = Targets::new(registered, clock, Tenancy::OwnNamespace);
        let metrics = Metrics::new(vec![targets::collector(targets.clone())]);
        let source_pool = SourcePool::new(
            "targets",
            Reader::new(pages.clone(), None),
            clock,
            Directory::default(),
            Pace::default(),
            metrics.wake_interval.clone(),
            source_sender,
        );
        let scrapers =
            Scrapers { pods: ScrapePool::new(pages.clone(), clock, report_sender), sources: source_pool };
        let aggregator = Aggregator::new(clock, scrapers, targets.clone(), metrics.clone());
        let (_, debug_requests) = mpsc::channel(1);
        let inbox = Inbox { fleet: fleet_inbox, registrations, debug_requests, reports, sources };
        let mut tasks = JoinSet::new();
        let cancel = CancellationToken::new();
        tasks.spawn(async move {
            aggregator.run(inbox, cancel).await;
        });
        let drain = CancellationToken::new();
        let scaler = Scaler::new(targets, clock, metrics.clone(), Duration::from_millis(900), drain.clone());
        let (near, far) = tokio::io::duplex(64 * 1024);
        tasks.spawn(async move {
            let service = Routes::new(ExternalScalerServer::new(scaler)).prepare();
            let served = service_fn(move |request: http::Request<Incoming>| service.clone().oneshot(request));
            http2(Tasks::new()).serve_connection(TokioIo::new(far), served).await.unwrap();
        });
        let mut near = Some(TokioIo::new(near));
        let connector = tower::service_fn(move |_: Uri| {
            std::future::ready(near.take().ok_or_else(|| std::io::Error::other("one connection only")))
        });
        let channel =
            ClientEndpoint::from_static("http://duplex").connect_with_connector(connector).await.unwrap();
        let client = ExternalScalerClient::new(channel);
        Self { pages, clock, fleet, drain, client, metrics, _tasks: tasks }
    }

    async fn discover(&self, replicas: u32, ready: Option<Readiness>) {
        let endpoint = ready.map(|readiness| Endpoint {
            uid: PodUid("uid-1".into()),
            pod: "demo-a-0".into(),
            address: Some(POD.parse().unwrap()),
            readiness,
            since: self.clock.now(),
        });
        let set = InferenceSet {
            key: InferenceSetKey::new("team-a", "demo"),
            replicas,
            ready_replicas: replicas,
            endpoints: endpoint.into_iter().collect(),
            gateway: Some(Gateway::at(GATEWAY.parse().unwrap(), "demo-inferencepool")),
        };
        self.fleet.send(FleetEvent::Applied(set)).await.unwrap();
    }

    async fn is_active(&mut self) -> Result<bool, tonic::Status> {
        Ok(self.client.is_active(object(&[])).await?.into_inner().result)
    }

    async fn value(&mut self, extra: &[(&str, &str)]) -> Result<f64, tonic::Status> {
        let request = GetMetricsRequest {
            scaled_object_ref: Some(object(extra)),
            metric_name: "vllm:num_requests_waiting".into(),
        };
        let mut values = self.client.get_metrics(request).await?.into_inner().metric_values;
        assert_eq!(values.len(), 1);
        let value = values.remove(0);
        #[expect(clippy::cast_possible_truncation, reason = "small test values")]
        let rounded = value.metric_value_float.round() as i64;
        assert_eq!(value.metric_value, rounded, "both fields say the same");
        Ok(value.metric_value_float)
    }
}

fn object(extra: &[(&str, &str)]) -> ScaledObjectRef {
    let mut scaler_metadata = HashMap::from([
        ("scalerAddress".to_owned(), "keda-kaito-scaler-svc.keda.svc.cluster.local:10450".to_owned()),
        ("inferenceSetNamespace".to_owned(), "team-a".to_owned()),
        ("inferenceSetName".to_owned(), "demo".to_owned()),
        ("metricName".to_owned(), "vllm:num_requests_waiting".to_owned()),
        ("threshold".to_owned(), "10".to_owned()),
    ]);
    for (key, value) in extra {
        if value.is_empty() {
            scaler_metadata.remove(*key);
        } else {
            scaler_metadata.insert((*key).to_owned(), (*value).to_owned());
        }
    }
    ScaledObjectRef { name: "demo".into(), namespace: "team-a".into(), scaler_metadata }
}

#[tokio::test(start_paused = true)]
async fn demand_at_zero_reaches_keda_within_one_scrape() {
    let mut rig = Rig::start().await;
    rig.pages.queued(0);
    rig.discover(0, None).await;
    let mut stream = rig.client.stream_is_active(object(&[])).await.unwrap().into_inner();
    let quiet = timeout(Duration::from_secs(60), stream.message()).await;
    assert!(quiet.is_err(), "nobody asks, and a start of ours wakes nothing");
    assert!(!rig.is_active().await.unwrap());

    let asked = rig.clock.now();
    rig.pages.queued(1);
    assert!(stream.message().await.unwrap().unwrap().result);
    let waited = rig.clock.now().saturating_since(asked);
    assert!(waited <= Duration::from_millis(100), "{waited:?} is more than one scrape");
    assert!(rig.is_active().await.unwrap(), "an IsActive after a push agrees with it");
    assert!(rig.metrics.page().unwrap().contains("pushes_total{cause=\"edge\"} 1"));

    // Unanswered, it is repeated every 2 s; answered, never.
    let pushed = rig.clock.now();
    stream.message().await.unwrap().unwrap();
    assert_eq!(rig.clock.now().saturating_since(pushed).as_secs(), 2);
    rig.discover(1, Some(Readiness::NotReady)).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(timeout(Duration::from_secs(60), stream.message()).await.is_err(), "quiet once answered");
}

#[tokio::test(start_paused = true)]
async fn asleep_for_five_minutes_and_loading_for_five_the_stream_lives_and_no_call_fails() {
    let mut rig = Rig::start().await;
    rig.pages.queued(0);
    rig.discover(0, None).await;
    let mut stream = rig.client.stream_is_active(object(&[])).await.unwrap().into_inner();
    let frames = Arc::new(Mutex::new(Vec::new()));
    let mut reading = JoinSet::new();
    let (seen, clock) = (frames.clone(), rig.clock);
    reading.spawn(async move {
        while let Some(frame) = stream.next().await {
            seen.lock().unwrap().push((clock.now(), frame.map(|frame| frame.result)));
        }
        seen.lock().unwrap().push((clock.now(), Ok(false)));
    });
    // As KEDA and the HPA ask.
    let poll = async |rig: &mut Rig, seconds: u64, value: f64, active: bool| {
        for _ in 0..seconds / 15 {
            tokio::time::sleep(Duration::from_secs(15)).await;
            rig.fleet.send(FleetEvent::Alive).await.unwrap();
            assert_eq!((rig.value(&[]).await.unwrap(), rig.is_active().await.unwrap()), (value, active));
        }
    };
    poll(&mut rig, 300, 0.0, false).await;
    let asked = rig.clock.now();
    rig.pages.queued(3);
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.discover(1, Some(Readiness::NotReady)).await;
    rig.pages.queued(0);
    // The one replica loads: its server hangs. Hold, active, and no error.
    poll(&mut rig, 300, 10.0, true).await;
    let served = rig.clock.now();
    rig.pages.waiting(POD, 4);
    rig.discover(1, Some(Readiness::Ready)).await;
    poll(&mut rig, 30, 4.0, true).await;
    let frames = frames.lock().unwrap();
    let before: Vec<_> = frames.iter().filter(|(at, _)| *at <= served).collect();
    let [(woken, Ok(true))] = before[..] else {
        panic!("one push, no repetition once it was heard, no error and no end: {before:?}")
    };
    assert!(*woken > asked && *woken <= asked + Duration::from_millis(100), "{woken:?} {asked:?}");
    assert!(frames.iter().all(|(_, frame)| frame.is_ok()), "and later only a clean end");
}

/// KEDA zeroes a model whose cooldown is over at the first poll that finds it inactive.
#[tokio::test(start_paused = true)]
async fn a_model_that_may_go_to_zero_from_now_on_is_active_for_its_hold_time() {
    let mut rig = Rig::start().await;
    let idle = sim::fixtures::vllm_page(0, 0, 0.5).to_string();
    rig.pages.set(POD, idle.clone());
    rig.discover(1, Some(Readiness::Ready)).await;
    let hold = Duration::from_secs(31);
    let opted_in = || object(&[("wakeReplicas", "1")]);
    for object in [object(&[]), opted_in()] {
        let asked =
            async |rig: &mut Rig| rig.client.is_active(object.clone()).await.unwrap().into_inner().result;
        assert!(asked(&mut rig).await, "new, or only just opted in");
        tokio::time::sleep(hold).await;
        assert!(!asked(&mut rig).await, "a hold time without demand");
    }
    // A scaler that has just started knows nothing of what was.
    let mut restarted = Rig::start().await;
    restarted.pages.set(POD, idle);
    restarted.discover(1, Some(Readiness::Ready)).await;
    assert!(restarted.client.is_active(opted_in()).await.unwrap().into_inner().result);
}

#[tokio::test(start_paused = true)]
async fn a_picker_that_hangs_delays_nobody_else_and_fails_no_call() {
    const HUNG: &str = "127.0.9.2:9090";
    let mut rig = Rig::start().await;
    rig.pages.queued(0);
    rig.discover(0, None).await;
    rig.fleet
        .send(FleetEvent::Applied(InferenceSet {
            key: InferenceSetKey::new("team-a", "hung"),
            replicas: 0,
            ready_replicas: 0,
            endpoints: vec![],
            gateway: Some(Gateway::at(HUNG.parse().unwrap(), "hung-inferencepool")),
        }))
        .await
        .unwrap();
    let hung = [("inferenceSetName", "hung")];
    let mut hungs = rig.client.stream_is_active(object(&hung)).await.unwrap().into_inner();
    let mut others = rig.client.stream_is_active(object(&[])).await.unwrap().into_inner();
    for _ in 0..20 {
        // Each time at another point of the hung one's wait and of its pause.
        let quiet = Duration::from_millis(4_130);
        assert!(timeout(quiet, others.message()).await.is_err(), "nobody asks");
        rig.fleet.send(FleetEvent::Alive).await.unwrap();
        assert_eq!(rig.value(&hung).await.unwrap(), 0.0);
        assert!(!rig.client.is_active(object(&hung)).await.unwrap().into_inner().result);
        let asked = rig.clock.now();
        rig.pages.queued(1);
        assert!(others.message().await.unwrap().unwrap().result);
        let waited = rig.clock.now().saturating_since(asked);
        assert!(waited <= Duration::from_millis(100), "{waited:?} is more than one scrape");
        rig.pages.queued(0);
    }
    let answers = rig.clock.now();
    rig.pages.queued_at(HUNG, "hung", 1);
    assert!(hungs.message().await.unwrap().unwrap().result, "it answers, and its model wakes");
    let waited = rig.clock.now().saturating_since(answers);
    // The wait for the answer that does not come, and the pause after it.
    assert!(waited <= Duration::from_secs(2), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_cleanly_once_its_replicas_serve_and_once_it_is_drained() {
    let mut rig = Rig::start().await;
    rig.pages.waiting(POD, 2);
    rig.discover(1, Some(Readiness::Ready)).await;
    let opened = rig.clock.now();
    let keep_alive = async |rig: &Rig| loop {
        tokio::time::sleep(Duration::from_secs(30)).await;
        rig.fleet.send(FleetEvent::Alive).await.unwrap();
    };
    let mut client = rig.client.clone();
    let frames = async {
        let stream = client.stream_is_active(object(&[])).await.unwrap().into_inner();
        stream.map(|frame| frame.unwrap().result).collect::<Vec<_>>().await
    };
    let frames = tokio::select! {
        frames = timeout(LONG, frames) => frames.unwrap(),
        () = keep_alive(&rig) => unreachable!(),
    };
    assert_eq!(frames, [true], "one on open");
    let lived = rig.clock.now().saturating_since(opened).as_secs();
    assert!((60..=76).contains(&lived), "{lived} s");

    // The next one lives on, until the process goes.
    let mut second = rig.client.stream_is_active(object(&[])).await.unwrap().into_inner();
    assert!(second.message().await.unwrap().unwrap().result);
    let quiet = tokio::select! {
        ended = timeout(LONG, second.message()) => ended.is_err(),
        () = keep_alive(&rig) => unreachable!(),
    };
    assert!(quiet);
    rig.drain.cancel();
    assert!(second.message().await.unwrap().is_none(), "ends with OK");
}

#[tokio::test(start_paused = true)]
async fn codes_tell_apart_what_is_wrong() {
    let mut rig = Rig::start().await;
    // Nothing has been heard of the cluster yet.
    assert_eq!(rig.value(&[]).await.unwrap_err().code(), Code::Unavailable);

    rig.discover(1, Some(Readiness::Ready)).await;
    let cases: [(&[(&str, &str)], Code, &[&str]); 7] = [
        (
            &[("threshold", "ten"), ("aggregation", "average")],
            Code::InvalidArgument,
            &["threshold", "\"ten\"", "aggregation", "average"],
        ),
        (&[("inferenceSetName", "")], Code::InvalidArgument, &["inferenceSetName is missing"]),
        (&[("treshold", "5")], Code::InvalidArgument, &["treshold", "threshold"]),
        (
            &[("metricName", "vllm:kv_cache_usage_perc"), ("threshold", "80")],
            Code::InvalidArgument,
            &["threshold", "80"],
        ),
        (
            &[("inferenceSetNamespace", "team-b")],
            Code::PermissionDenied,
            &["team-b", "--allow-cross-namespace"],
        ),
        (&[("inferenceSetName", "nobody")], Code::Internal, &["does not exist"]),
        (&[], Code::Unavailable, &["none of 1 replicas could be read"]),
    ];
    for (extra, code, parts) in cases {
        let status = rig.client.is_active(object(extra)).await.unwrap_err();
        assert_eq!(status.code(), code, "{extra:?}: {status}");
        for part in parts {
            assert!(status.message().contains(part), "{part:?} is not in {}", status.message());
        }
    }
    // A page that lacks the metric, and has one that is meant.
    rig.pages.waiting(POD, 3);
    // The scrape that hangs has to run into its timeout first.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let misspelt = "vllm:num_request_waiting";
    let request = GetMetricsRequest {
        scaled_object_ref: Some(object(&[("metricName", misspelt)])),
        metric_name: misspelt.into(),
    };
    let status = rig.client.get_metrics(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let hint = "did you mean vllm:num_requests_waiting";
    assert!(status.message().contains(hint), "{}", status.message());
}

#[tokio::test(start_paused = true)]
async fn the_first_call_waits_for_one_round_and_every_later_one_for_nothing() {
    let mut rig = Rig::start().await;
    rig.pages.waiting(POD, 7);
    rig.discover(1, Some(Readiness::Ready)).await;
    let before = rig.clock.now();
    assert_eq!(rig.value(&[]).await.unwrap(), 7.0);
    assert_eq!(rig.clock.now(), before, "the page came at once");
    let missing = Duration::from_millis(900);
    let mut other = rig.client.clone();
    rig.fleet.send(FleetEvent::Applied(hanging(rig.clock.now()))).await.unwrap();
    let status = other.is_active(object(&[("inferenceSetName", "hangs")])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(rig.clock.now().saturating_since(before), missing);
    let again = other.is_active(object(&[("inferenceSetName", "hangs")])).await.unwrap_err();
    assert_eq!(again.code(), Code::Unavailable);
}

fn hanging(since: Moment) -> InferenceSet {
    InferenceSet {
        key: InferenceSetKey::new("team-a", "hangs"),
        replicas: 1,
        ready_replicas: 1,
        endpoints: vec![Endpoint {
            uid: PodUid("uid-2".into()),
            pod: "hangs-a-0".into(),
            address: Some("127.0.1.2:5000".parse().unwrap()),
            readiness: Readiness::Ready,
            since,
        }],
        gateway: None,
    }
}

#[tokio::test(start_paused = true)]
async fn specs_need_no_fleet_and_are_pushed_as_they_are_answered() {
    let mut rig = Rig::start().await;
    let policy = r#"[{"name":"vllm:num_requests_waiting","type":"gauge","upthreshold":0.5,"downthreshold":0},
                     {"name":"vllm:kv_cache_usage_perc","type":"gauge","upthreshold":0.8,"downthreshold":0.1}]"#;
    let policy = [("aggregation", "policy"), ("policy", policy), ("metricName", ""), ("threshold", "")];
    let and = [&policy[..], &[("combinePolicy", "AND")]].concat();
    let max = [&policy[..], &[("combinePolicy", "MAX")]].concat();
    let cases: [(&[(&str, &str)], &[(&str, f64, i64)]); 3] = [
        (&[], &[("vllm:num_requests_waiting", 10.0, 10)]),
        (&and, &[("policy", 1.0, 1)]),
        (&max, &[("vllm:num_requests_waiting", 0.5, 1), ("vllm:kv_cache_usage_perc", 0.8, 1)]),
    ];
    for (extra, expected) in cases {
        let answered = rig.client.get_metric_spec(object(extra)).await.unwrap().into_inner();
        let specs: Vec<_> = answered
            .metric_specs
            .iter()
            .map(|spec| (spec.metric_name.as_str(), spec.target_size_float, spec.target_size))
            .collect();
        assert_eq!(specs, expected);
        let mut stream = rig.client.stream_metric_spec(object(extra)).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap(), answered);
        assert!(timeout(LONG, stream.message()).await.is_err(), "they never change, so it stays open");
    }
    // What a request asks for by the name of a spec is that spec's value.
    rig.pages.waiting(POD, 6);
    rig.discover(1, Some(Readiness::Ready)).await;
    let mut asked = BTreeMap::new();
    for name in ["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"] {
        let request = GetMetricsRequest { scaled_object_ref: Some(object(&max)), metric_name: name.into() };
        let values = rig.client.get_metrics(request).await.unwrap().into_inner().metric_values;
        asked.insert(name, values[0].metric_value_float);
    }
    assert_eq!(asked["vllm:num_requests_waiting"], 6.0);
    assert_eq!(asked["vllm:kv_cache_usage_perc"], 0.5);
    rig.drain.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_metric_with_labels_is_asked_for_by_the_name_that_keda_was_told() {
    let mut rig = Rig::start().await;
    let labelled = ("metricName", r#"vllm:num_requests_waiting_by_reason{reason="capacity"}"#);
    let reference = object(&[labelled]);
    let specs = rig.client.get_metric_spec(reference.clone()).await.unwrap().into_inner().metric_specs;
    let told = specs[0].metric_name.clone();
    assert_eq!(told, "vllm:num_requests_waiting_by_reason-capacity-d24a3776");
    rig.pages.set(
        POD,
        "vllm:num_requests_running 1\nvllm:num_requests_waiting_by_reason{reason=\"capacity\"} 7\n\
         vllm:num_requests_waiting_by_reason{reason=\"deferred\"} 30\n"
            .to_owned(),
    );
    rig.discover(1, Some(Readiness::Ready)).await;
    let request = GetMetricsRequest { scaled_object_ref: Some(reference.clone()), metric_name: told.clone() };
    let values = rig.client.get_metrics(request).await.unwrap().into_inner().metric_values;
    assert_eq!((values[0].metric_name.as_str(), values[0].metric_value_float), (told.as_str(), 7.0));
    let other = GetMetricsRequest { scaled_object_ref: Some(reference), metric_name: "x-y".to_owned() };
    assert_eq!(rig.client.get_metrics(other).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn rpcs_are_counted_under_the_names_that_dashboards_read() {
    let mut rig = Rig::start().await;
    rig.pages.waiting(POD, 6);
    rig.discover(1, Some(Readiness::Ready)).await;
    rig.value(&[]).await.unwrap();
    rig.value(&[("threshold", "x")]).await.unwrap_err();
    let stream = rig.client.stream_is_active(object(&[])).await.unwrap();
    drop(stream);
    rig.is_active().await.unwrap();
    let page = rig.metrics.page().unwrap();
    let method = "grpc_method=\"/externalscaler.ExternalScaler/GetMetrics\"";
    for line in [
        format!("grpc_server_handled_total{{grpc_type=\"unary\",{method},grpc_code=\"OK\"}} 1"),
        format!("grpc_server_handled_total{{grpc_type=\"unary\",{method},grpc_code=\"InvalidArgument\"}} 1"),
        format!("grpc_server_handling_seconds_count{{grpc_type=\"unary\",{method}}} 2"),
        "keda_kaito_scaler_target_value{namespace=\"team-a\",scaledobject=\"demo\",inferenceset=\"demo\",metric=\"vllm:num_requests_waiting\",aggregation=\"sum\"} 6".into(),
        "keda_kaito_scaler_endpoints{phase=\"Serving\"} 1".into(),
        "keda_kaito_scaler_scrapes_total{outcome=\"ok\"} 1".into(),
    ] {
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
}
