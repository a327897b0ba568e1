//! All of discovery: what the aggregator is told, and when the process counts as ready.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Discovery;
use crate::{
    cluster::{
        directory::{Directory, FollowedPort},
        store::Store,
        testing::{LONGEST, OpenWatch, ScriptedApi, inference_set, logs, pod},
    },
    readiness::{Gates, Readiness},
};
use scaler_core::{
    fleet::{
        ObjectName,
        model::{FleetEvent, InferenceSet},
    },
    wake::{Found, Missing, ServicePort},
};

const PODS: &str = "/api/v1/pods";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const BETA: &str = "/apis/kaito.sh/v1beta1";
const ALPHA: &str = "/apis/kaito.sh/v1alpha1";
const BETA_SETS: &str = "/apis/kaito.sh/v1beta1/inferencesets";
const ALPHA_SETS: &str = "/apis/kaito.sh/v1alpha1/inferencesets";

struct Rig {
    api: ScriptedApi,
    events: mpsc::Receiver<FleetEvent>,
    readiness: Readiness,
    directory: Directory,
    /// What somebody reads.
    followed: BTreeMap<ServicePort, FollowedPort>,
    cancel: CancellationToken,
    running: JoinSet<()>,
}

impl Rig {
    fn start() -> Self {
        let (client, api) = ScriptedApi::start();
        let gates = Gates::new();
        let (sender, events) = mpsc::channel(64);
        let cancel = CancellationToken::new();
        let mut running = JoinSet::new();
        let directory = Directory::default();
        let (store, watching) = Store::new(client);
        running.spawn(watching.run(cancel.clone()));
        running.spawn(Discovery::new(store, &gates).run(sender, directory.clone(), cancel.clone()));
        let (readiness, followed) = (gates.readiness(), BTreeMap::new());
        Self { api, events, readiness, directory, followed, cancel, running }
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

    async fn any_event(&mut self) -> FleetEvent {
        let event = timeout(LONGEST, self.events.recv()).await.expect("nothing happens");
        event.expect("discovery has ended")
    }

    /// Where a port of a Service in team-a is, once that is known.
    async fn found(&mut self, service: &str, port: u16) -> Found {
        let port = self.follow(service, port);
        let known = async {
            loop {
                match port.find() {
                    Some(found) => return found,
                    None => port.moved().await,
                }
            }
        };
        timeout(LONGEST, known).await.expect("it stays unknown")
    }

    /// Follows a port from the first time on that it is asked about.
    fn follow(&mut self, service: &str, port: u16) -> &mut FollowedPort {
        let port = ServicePort { service: ObjectName::new("team-a", service), port };
        let directory = &self.directory;
        self.followed.entry(port).or_insert_with_key(|port| directory.follow(port))
    }

    /// The same, once it is something else than `before`.
    async fn found_other(&mut self, service: &str, port_number: u16, before: Found) -> Found {
        let port = self.follow(service, port_number);
        let changed = async {
            while port.find().as_ref() == Some(&before) {
                port.moved().await;
            }
        };
        timeout(LONGEST, changed).await.expect("it stays as it is");
        self.found(service, port_number).await
    }

    /// The next event in a line; signs of life are passed over.
    async fn event(&mut self) -> String {
        loop {
            match self.any_event().await {
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

/// One endpoint.
fn at(address: &str) -> Found {
    Ok([address.parse().unwrap()].into())
}

fn line(set: &InferenceSet) -> String {
    let uids: Vec<_> = set.endpoints.iter().map(|endpoint| &*endpoint.uid.0).collect();
    let picker = set.gateway.as_ref().and_then(|gateway| Some((&gateway.pool, gateway.picker.as_ref()?)));
    let gateway = picker.map(|(pool, picker)| format!(" {pool} @{picker}"));
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
    let quiet = timeout(Duration::from_secs(1), rig.event()).await.is_err();
    assert!(quiet, "nothing is gone until it is known");
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
    assert_eq!(rig.any_event().await, FleetEvent::Alive, "the lists are a sign of life");
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
        match rig.any_event().await {
            FleetEvent::Alive => signs += 1,
            event => assert!(matches!(event, FleetEvent::Applied(_))),
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
    assert_eq!(rig.event().await, "demo 2 [] demo-inferencepool @team-a/demo-inferencepool-epp:9090");
    assert_eq!(rig.found("demo-inferencepool-epp", 9090).await, Err(Missing::Endpoint));
    slices.send("MODIFIED", &slice("demo-inferencepool-epp", "10.0.0.7", true, "101"));
    let found = rig.found_other("demo-inferencepool-epp", 9090, Err(Missing::Endpoint)).await;
    assert_eq!(found, at("10.0.0.7:9090"));

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
    let found = "chat-decode 1 [] chat-inferencepool @team-a/chat-inferencepool-epp:9090";
    assert_eq!(rig.event().await, found);
    assert_eq!(rig.found("code-inferencepool-epp", 9090).await, Err(Missing::Service));

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

#[tokio::test(start_paused = true)]
async fn what_a_trigger_names_is_found_by_its_service() {
    const SERVICES: &str = "/api/v1/services";
    let (mut rig, _pods, _sets) = Rig::started(&[]).await;
    rig.api.next(SLICES).await.list("100", &[]);
    rig.follow("epp", 80);
    let list = rig.api.next(SLICES).await;
    // The first watch, which is made anew for one name more.
    let list = if list.query.contains_key("watch") { rig.api.next(SLICES).await } else { list };
    list.asks(&[("labelSelector", Some("kubernetes.io/service-name in (demo-inferencepool-epp,epp)"))]);
    let labels = json!({"kubernetes.io/service-name": "epp"});
    list.list(
        "200",
        &[json!({
            "metadata": {"namespace": "team-a", "name": "epp-x1", "resourceVersion": "150", "labels": labels},
            "endpoints": [{"addresses": ["10.0.0.9"]}],
            "ports": [{"name": "metrics", "port": 9090}],
        })],
    );
    // Only its Service knows which port 80 is.
    let metadata = json!({"namespace": "team-a", "name": "epp", "resourceVersion": "60"});
    let service = |number: u16, version: &str| {
        let mut metadata = metadata.clone();
        metadata["resourceVersion"] = json!(version);
        json!({"metadata": metadata, "spec": {"ports": [{"name": "metrics", "port": number, "targetPort": 9090}]}})
    };
    rig.api.next(SERVICES).await.list("200", &[service(80, "60")]);
    assert_eq!(rig.found("epp", 80).await, at("10.0.0.9:9090"));
    let services = rig.api.next(SERVICES).await.watch();
    services.send("MODIFIED", &service(81, "201"));
    assert_eq!(rig.found_other("epp", 80, at("10.0.0.9:9090")).await, Err(Missing::Port));
}
