//! The whole provisioner against an API server in memory, under a paused clock.

mod adopt;
mod lead;
mod lifecycle;
mod load;
mod others;
mod renewals;
mod report;
mod sleep;

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Provisioner, WakeSources};
use crate::{
    cluster::store::Store,
    metrics::Metrics,
    pki::{self, store::Standing},
};
use scaler_core::{
    names::InferenceSetKey,
    wake::{Answers, Asked, Obstacle, Readability},
};
use sim::api_server::ApiServer;

const ADDRESS: &str = "keda-kaito-scaler-svc.keda.svc.cluster.local:10450";

/// A provisioner and the cluster it works on.
struct World {
    server: ApiServer,
    store: Store,
    metrics: Metrics,
    leader: watch::Sender<bool>,
    /// Which wake-up sources are to be tried, and what came of it.
    asked: watch::Receiver<Arc<Asked>>,
    answers: watch::Sender<Arc<Answers>>,
    standing: watch::Sender<Standing>,
    /// KEDA can reach the scaler from when this is sent to.
    live: Option<oneshot::Sender<()>>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

/// A cluster with KEDA and the KAITO of today.
fn cluster() -> ApiServer {
    let server = ApiServer::with_chart_rbac();
    install_keda(&server);
    install_kaito(&server, "kaito.sh/v1alpha1");
    install_kaito(&server, "kaito.sh/v1beta1");
    server.install("kaito.sh/v1alpha1", "MultiRoleInference", "multiroleinferences");
    server
}

fn install_keda(server: &ApiServer) {
    server.install("keda.sh/v1alpha1", "ScaledObject", "scaledobjects");
}

fn install_kaito(server: &ApiServer, version: &str) {
    server.install(version, "InferenceSet", "inferencesets");
    server.install(version, "Workspace", "workspaces");
}

impl World {
    /// A provisioner that neither leads nor can be reached.
    fn idle(server: &ApiServer) -> Self {
        let (leader, leads) = watch::channel(false);
        let (live, is_live) = oneshot::channel();
        let metrics = Metrics::default();
        let (asking, asked) = watch::channel(Arc::default());
        let answers = watch::Sender::default();
        let standing = watch::Sender::default();
        let (naming, certificates) = watch::channel(None);
        let (store, watching) = Store::new(server.client());
        let provisioner = Provisioner {
            store: store.clone(),
            scaler_address: ADDRESS.to_owned(),
            certificates,
            instance: Some("scaler-0".to_owned()),
            metrics: metrics.clone(),
            wake_sources: WakeSources { asked: asking, answers: answers.subscribe() },
            writes_per_second: Provisioner::WRITES_PER_SECOND,
        };
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let live_at_last = async { drop(is_live.await) };
        tasks.spawn(pki::renewals::follow(standing.subscribe(), naming));
        tasks.spawn(watching.run(cancel.clone()));
        tasks.spawn(provisioner.run(live_at_last, leads, cancel.clone()));
        let (server, live) = (server.clone(), Some(live));
        Self { server, store, metrics, leader, asked, answers, standing, live, cancel, tasks }
    }

    /// A provisioner that provisions.
    fn leading(server: &ApiServer) -> Self {
        let mut world = Self::idle(server);
        world.live.take().unwrap().send(()).unwrap();
        world.leader.send_replace(true);
        world
    }

    /// Answers for demo's wake-up source, or, with `None`, takes the answer back.
    fn answer(&self, readability: Option<Readability>) {
        let demo = InferenceSetKey::new("team-a", "demo");
        let answers = readability.map(|readability| (demo, readability)).into_iter().collect();
        self.answers.send_replace(Arc::new(answers));
    }

    /// The Secrets hold certificates of that name.
    fn certificates(&self, name: &str) {
        self.standing.send_modify(|standing| standing.found_by_keda = Some(name.into()));
    }

    /// The ScaledObject of `demo`.
    fn scaled_object(&self) -> Option<Value> {
        self.server.get("ScaledObject", "team-a", "demo")
    }

    async fn made(&self) -> Value {
        self.server.until(|server| server.get("ScaledObject", "team-a", "demo").is_some()).await;
        self.scaled_object().unwrap()
    }

    /// Waits until `path` of demo's ScaledObject holds `value`.
    async fn holds(&self, path: &str, value: &Value) {
        let held = |server: &ApiServer| {
            let object = server.get("ScaledObject", "team-a", "demo");
            object.is_some_and(|object| object.pointer(path) == Some(value))
        };
        self.server.until(held).await;
    }

    async fn events(&self, count: usize) -> Vec<String> {
        self.server.until(|server| server.events().len() >= count).await;
        self.server.events()
    }

    /// Gives it time for whatever it might still do; the paused clock only moves on while
    /// everything rests.
    async fn rest(&self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    /// What the metrics say of one reason.
    fn problems(&self, reason: &str) -> String {
        let page = self.metrics.page().unwrap();
        let series = format!("keda_kaito_scaler_provision_problems{{reason=\"{reason}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_default().to_owned()
    }

    async fn stop(mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// An InferenceSet of team-a that asks for autoscaling, up to five replicas unless `more`
/// says otherwise.
fn inference_set(name: &str, more: &[(&str, &str)]) -> Value {
    let mut annotations = json!({
        "scaledobject.kaito.sh/auto-provision": "true",
        "scaledobject.kaito.sh/threshold": "10",
        "scaledobject.kaito.sh/max-replicas": "5",
    });
    for (key, text) in more {
        annotations[format!("scaledobject.kaito.sh/{key}")] = (*text).into();
    }
    json!({
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "InferenceSet",
        "metadata": {"name": name, "namespace": "team-a", "uid": format!("uid-of-{name}"), "annotations": annotations},
        "spec": {"replicas": 1},
    })
}

fn workspace(name: &str, nodes: u32) -> Value {
    json!({
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name, "namespace": "team-a", "labels": {"inferenceset.kaito.sh/created-by": "demo"}},
        "status": {"targetNodeCount": nodes},
    })
}

/// Changes an annotation of an InferenceSet; an empty text takes it away.
fn annotate(server: &ApiServer, name: &str, key: &str, text: &str) {
    server.edit("InferenceSet", "team-a", name, |object| {
        let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
        let key = format!("scaledobject.kaito.sh/{key}");
        if text.is_empty() {
            annotations.remove(&key);
        } else {
            annotations.insert(key, text.into());
        }
    });
}
