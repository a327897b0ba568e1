//! All of discovery: what the aggregator is told, and when the process counts as ready.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    api::{FakeApi, OpenWatch},
    inference_set, logs, pod,
};
use crate::{
    core::fleet::{FleetEvent, InferenceSet},
    discovery::kube::Discovery,
    readiness::{Gates, Readiness},
};

const PODS: &str = "/api/v1/pods";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const BETA: &str = "/apis/kaito.sh/v1beta1";
const ALPHA: &str = "/apis/kaito.sh/v1alpha1";
const BETA_SETS: &str = "/apis/kaito.sh/v1beta1/inferencesets";
const ALPHA_SETS: &str = "/apis/kaito.sh/v1alpha1/inferencesets";

struct Rig {
    api: FakeApi,
    events: mpsc::Receiver<FleetEvent>,
    readiness: Readiness,
    cancel: CancellationToken,
    running: JoinSet<()>,
}

impl Rig {
    fn start() -> Self {
        let (client, api) = FakeApi::start();
        let gates = Gates::new();
        let (sender, events) = mpsc::channel(64);
        let cancel = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(Discovery::new(client, &gates).run(sender, cancel.clone()));
        Self { api, events, readiness: gates.readiness(), cancel, running }
    }

    /// With v1beta1, one InferenceSet, and what is given as pods, all told.
    async fn started(pods: &[Value]) -> (Self, OpenWatch, OpenWatch) {
        let mut rig = Self::start();
        rig.api.next(BETA).await.resources(&["workspaces", "inferencesets"]);
        rig.api.next(PODS).await.list("100", pods);
        rig.api.next(BETA_SETS).await.list("100", &[inference_set("demo", 2, "50")]);
        let pods = rig.api.next(PODS).await.watch();
        let sets = rig.api.next(BETA_SETS).await.watch();
        assert!(rig.event().await.starts_with("all: demo 2 "));
        (rig, pods, sets)
    }

    /// The next event in a line; signs of life are passed over.
    async fn event(&mut self) -> String {
        loop {
            match self.events.recv().await.expect("discovery has ended") {
                FleetEvent::Applied(set) => return line(&set),
                FleetEvent::Deleted(key) => return format!("{} gone", key.name),
                FleetEvent::Reset(sets) => {
                    return format!("all: {}", sets.iter().map(line).collect::<Vec<_>>().join(", "));
                }
                FleetEvent::Alive => {}
            }
        }
    }
}

fn line(set: &InferenceSet) -> String {
    let uids: Vec<_> = set.endpoints.iter().map(|endpoint| &*endpoint.uid.0).collect();
    let gateway = set.gateway.as_ref().map(|gateway| format!(" {} @{}", gateway.pool, gateway.address));
    format!("{} {} [{}]{}", set.key.name, set.replicas, uids.join(" "), gateway.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn ready_after_the_first_list_of_both() {
    let mut rig = Rig::start();
    assert_eq!(rig.readiness.waits_for().len(), 2);
    rig.api.next(BETA).await.resources(&["workspaces", "inferencesets"]);
    rig.api.next(PODS).await.list("100", &[pod("demo-a-0", "u-1", "7")]);
    let _pods = rig.api.next(PODS).await.watch();
    let list = rig.api.next(BETA_SETS).await;
    assert_eq!(rig.readiness.waits_for(), ["fleet: the first full list of pods and InferenceSets"]);
    assert!(rig.events.try_recv().is_err(), "half of it is nothing");
    list.list("100", &[inference_set("demo", 2, "50")]);
    assert_eq!(rig.event().await, "all: demo 2 [u-1]");
    assert!(rig.readiness.ready().await);
    rig.cancel.cancel();
    assert!(matches!(rig.running.join_next().await, Some(Ok(()))));
}

#[tokio::test(start_paused = true)]
async fn a_missing_crd_is_waited_for_and_a_better_version_noticed() {
    let (_guard, logged) = logs();
    let mut rig = Rig::start();
    rig.api.next(PODS).await.list("100", &[]);
    let pods = rig.api.next(PODS).await.watch();
    for _ in 0..5 {
        // KAITO before 0.11 has v1beta1, but no InferenceSets in it.
        rig.api.next(BETA).await.resources(&["workspaces"]);
        rig.api.next(ALPHA).await.fail(404, "404 page not found");
    }
    let waits = rig.readiness.waits_for();
    assert!(waits.iter().any(|wait| wait.contains("InferenceSet CRD")), "{waits:?}");
    assert_eq!(logged().matches(" WARN ").count(), 1, "{}", logged());

    rig.api.next(BETA).await.resources(&["workspaces"]);
    rig.api.next(ALPHA).await.resources(&["inferencesets"]);
    rig.api.next(ALPHA_SETS).await.list("100", &[inference_set("demo", 1, "50")]);
    let alpha = rig.api.next(ALPHA_SETS).await.watch();
    assert_eq!(rig.event().await, "all: demo 1 []");
    assert!(rig.readiness.ready().await);

    // KAITO is upgraded. What does not change is not told again.
    pods.bookmark("110");
    alpha.bookmark("110");
    rig.api.next(BETA).await.resources(&["workspaces", "inferencesets"]);
    rig.api
        .next(BETA_SETS)
        .await
        .list("120", &[inference_set("demo", 1, "50"), inference_set("new", 0, "60")]);
    assert_eq!(rig.event().await, "new 0 []");
    assert!(!alpha.bookmark("120"), "the old version is no longer watched");

    // KAITO is uninstalled: what was known is kept, and it is waited for.
    rig.api.next(BETA_SETS).await.fail(404, "404 page not found");
    rig.api.next(BETA).await.fail(404, "404 page not found");
    rig.api.next(ALPHA).await.fail(404, "404 page not found");
    rig.api.next(BETA).await.resources(&["inferencesets"]);
    rig.api.next(BETA_SETS).await.list("130", &[inference_set("demo", 4, "125")]);
    assert_eq!(rig.event().await, "demo 4 []");
    assert_eq!(rig.event().await, "new gone");
}

#[tokio::test(start_paused = true)]
async fn a_pod_made_again_is_another_and_one_missing_from_a_list_is_gone() {
    let (mut rig, pods, _sets) =
        Rig::started(&[pod("demo-a-0", "u-1", "7"), pod("demo-b-0", "u-2", "8")]).await;
    pods.send("DELETED", &pod("demo-a-0", "u-1", "101"));
    assert_eq!(rig.event().await, "demo 2 [u-2]");
    pods.send("ADDED", &pod("demo-a-0", "u-3", "102"));
    assert_eq!(rig.event().await, "demo 2 [u-3 u-2]");
    pods.error(410);
    let list = rig.api.next(PODS).await;
    assert!(timeout(Duration::from_secs(1), rig.event()).await.is_err(), "nothing is gone until it is known");
    list.list("200", &[pod("demo-b-0", "u-4", "190"), pod("demo-c-0", "u-5", "191")]);
    assert_eq!(rig.event().await, "demo 2 [u-4 u-5]");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_of_both_watches_keep_the_fleet_alive() {
    let (mut rig, pods, sets) = Rig::started(&[]).await;
    let mut silence = Duration::ZERO;
    let mut last = Instant::now();
    let mut signs = 0;
    for minute in 0..4 {
        // A server's bookmarks come about once a minute, and not together.
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(pods.bookmark(&format!("2{minute}0")));
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert!(sets.bookmark(&format!("2{minute}5")));
        tokio::task::yield_now().await;
        while let Ok(Some(event)) = timeout(Duration::from_millis(1), rig.events.recv()).await {
            assert_eq!(event, FleetEvent::Alive);
            silence = silence.max(last.elapsed());
            last = Instant::now();
            signs += 1;
        }
    }
    assert!(signs >= 4, "{signs}");
    assert!(silence < Duration::from_secs(90), "{silence:?}");
}

#[tokio::test(start_paused = true)]
async fn inference_sets_alone_do_not_keep_it_alive() {
    let (mut rig, pods, sets) = Rig::started(&[]).await;
    assert_eq!(rig.events.recv().await, Some(FleetEvent::Alive), "the lists are a sign of life");
    drop(pods);
    // The first bookmark may complete what the start of the pods' watch had begun.
    for round in 0..20 {
        rig.api.next(PODS).await.fail(403, "forbidden");
        sets.send("MODIFIED", &inference_set("demo", round, &format!("3{round}")));
        assert_eq!(rig.event().await, format!("demo {round} []"));
    }
    let mut signs = 0;
    for round in 20..40 {
        rig.api.next(PODS).await.fail(403, "forbidden");
        sets.send("MODIFIED", &inference_set("demo", round, &format!("3{round}")));
        match rig.events.recv().await {
            Some(FleetEvent::Alive) => signs += 1,
            Some(event) => assert!(matches!(event, FleetEvent::Applied(_))),
            None => panic!("discovery has ended"),
        }
    }
    assert_eq!(signs, 0);
}

#[tokio::test(start_paused = true)]
async fn the_gateway_is_found_by_the_name_of_its_service() {
    let slice = |service: &str, ip: &str, ready: bool, version: &str| {
        json!({
            "metadata": {
                "namespace": "team-a",
                "name": format!("{service}-x1"),
                "resourceVersion": version,
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}}],
            "ports": [{"name": "http-metrics", "port": 9090}],
        })
    };
    let (mut rig, _pods, sets) = Rig::started(&[]).await;
    let list = rig.api.next(SLICES).await;
    list.asks(&[("labelSelector", Some("kubernetes.io/service-name in (demo-inferencepool-epp)"))]);
    list.list("100", &[slice("demo-inferencepool-epp", "10.0.0.7", false, "90")]);
    let slices = rig.api.next(SLICES).await.watch();
    slices.send("MODIFIED", &slice("demo-inferencepool-epp", "10.0.0.7", true, "101"));
    assert_eq!(rig.event().await, "demo 2 [] demo-inferencepool @10.0.0.7:9090");

    // Another InferenceSet, and several at once, are one more list.
    let mut role = inference_set("chat-decode", 1, "60");
    role["metadata"]["labels"] = json!({"multiroleinference.kaito.sh/created-by": "chat"});
    sets.send("ADDED", &role);
    assert_eq!(rig.event().await, "chat-decode 1 []");
    sets.send("ADDED", &inference_set("code", 1, "61"));
    assert_eq!(rig.event().await, "code 1 []");
    let list = rig.api.next(SLICES).await;
    let names = "chat-inferencepool-epp,code-inferencepool-epp,demo-inferencepool-epp";
    list.asks(&[("labelSelector", Some(&format!("kubernetes.io/service-name in ({names})")))]);
    assert!(timeout(Duration::from_secs(1), rig.event()).await.is_err(), "known gateways are kept meanwhile");
    list.list(
        "200",
        &[
            slice("demo-inferencepool-epp", "10.0.0.7", true, "101"),
            slice("chat-inferencepool-epp", "10.0.0.8", true, "150"),
        ],
    );
    assert_eq!(rig.event().await, "chat-decode 1 [] chat-inferencepool @10.0.0.8:9090");

    // One fewer needs no other watch.
    let slices = rig.api.next(SLICES).await.watch();
    sets.send("DELETED", &inference_set("code", 1, "62"));
    assert_eq!(rig.event().await, "code gone");
    slices.send("DELETED", &slice("chat-inferencepool-epp", "10.0.0.8", true, "201"));
    assert_eq!(rig.event().await, "chat-decode 1 []");
}

#[tokio::test(start_paused = true)]
async fn without_inference_sets_no_slices_are_read() {
    let mut rig = Rig::start();
    rig.api.next(BETA).await.resources(&["inferencesets"]);
    rig.api.next(PODS).await.list("100", &[]);
    rig.api.next(BETA_SETS).await.list("100", &[]);
    let _pods = rig.api.next(PODS).await.watch();
    let sets = rig.api.next(BETA_SETS).await.watch();
    assert_eq!(rig.event().await, "all: ");
    assert!(timeout(Duration::from_secs(60), rig.api.next(SLICES)).await.is_err());
    sets.send("ADDED", &inference_set("demo", 1, "101"));
    rig.api.next(SLICES).await.asks(&[("watch", None)]);
}
