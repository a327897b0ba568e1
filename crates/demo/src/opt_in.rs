//! How the demo's model comes to its ScaledObject: by its annotations, as in a cluster. The
//! provisioner itself works on an API server in memory, and lets the model sleep only once the
//! gateway was read.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::scenario::{Scenario, WAITING_TARGET};
use clock::Clock;
use keda_kaito_scaler::{
    cluster::{directory::Directory, store::Store},
    metrics::Metrics,
    provision::{Provisioner, WakeSources},
    scrape::{DEFAULT_MAX_BODY, PageClient},
    wake::{PROBE_INTERVAL, Prober, Reader, SourcePool},
};
use scaler_core::{
    fleet::services::pool_name,
    names::InferenceSetKey,
    provision,
    wake::{Source, pace::Pace},
};
use sim::{api_server::ApiServer, keda};

/// Far more than memory and one reading of the gateway take.
const PATIENCE: Duration = Duration::from_secs(10);
/// KEDA's stand-in is told where the engine is, and does not look it up.
const SCALER_ADDRESS: &str = "keda-kaito-scaler-svc.keda.svc.cluster.local:10450";

/// Annotates the model's InferenceSet, and waits for the ScaledObject that lets it sleep. Its
/// times are the scenario's, which are compressed.
pub(crate) async fn scaled_object(
    scenario: &Scenario,
    gateway: SocketAddr,
    clock: Clock,
) -> Result<keda::ScaledObject> {
    let Scenario { key, scaled_object, .. } = scenario;
    let server = ApiServer::new();
    server.install("kaito.sh/v1beta1", "InferenceSet", "inferencesets");
    server.install("kaito.sh/v1beta1", "Workspace", "workspaces");
    server.install("kaito.sh/v1alpha1", "MultiRoleInference", "multiroleinferences");
    server.install(provision::API_VERSION, provision::KIND, "scaledobjects");
    server.put(annotated(key, scaled_object.max_replicas));

    let (asking, asked) = watch::channel(Arc::default());
    let answers = watch::Sender::default();
    let (store, watching) = Store::new(server.client());
    let provisioner = Provisioner {
        // Served in plaintext: there are none.
        certificates: watch::channel(None).1,
        store,
        scaler_address: SCALER_ADDRESS.to_owned(),
        instance: None,
        metrics: Metrics::default(),
        wake_sources: WakeSources { asked: asking, answers: answers.subscribe() },
        writes_per_second: Provisioner::WRITES_PER_SECOND,
    };
    let directory = directory(key, gateway);
    let reader = Reader::new(PageClient::new(DEFAULT_MAX_BODY)?, None);
    let (reporting, reports) = mpsc::channel(1);
    let pool = SourcePool::new(
        "demo",
        reader.clone(),
        clock,
        directory.clone(),
        Pace { asleep: PROBE_INTERVAL, awake: PROBE_INTERVAL, ..Pace::default() },
        Gauge::default(),
        reporting,
    );
    let prober = Prober::new(reader, (pool, reports), directory.pools(), asked, answers);

    let (_leading, leads) = watch::channel(true);
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(watching.run(cancel.clone()));
    tasks.spawn(prober.run(cancel.clone()));
    tasks.spawn(provisioner.run(std::future::ready(()), leads, cancel.clone()));
    let made = || server.get(provision::KIND, &key.namespace, &key.name);
    let sleeps = |_: &ApiServer| made().is_some_and(|made| made["spec"]["minReplicaCount"] == 0);
    timeout(PATIENCE, server.until(sleeps)).await.context("no ScaledObject that goes to zero was made")?;
    cancel.cancel();
    while tasks.join_next().await.is_some() {}
    followed(&made().unwrap_or_default(), scaled_object.clone())
}

/// The InferenceSet, opted in.
fn annotated(key: &InferenceSetKey, max_replicas: u32) -> Value {
    json!({
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "InferenceSet",
        "metadata": {"name": &*key.name, "namespace": &*key.namespace, "uid": "demo", "annotations": {
            "scaledobject.kaito.sh/auto-provision": "true",
            "scaledobject.kaito.sh/scale-to-zero": "true",
            "scaledobject.kaito.sh/threshold": WAITING_TARGET.to_string(),
            "scaledobject.kaito.sh/max-replicas": max_replicas.to_string(),
        }},
        "spec": {
            "replicas": 0,
            "labelSelector": {"matchLabels": {"apps": &*key.name}},
            "template": {"inference": {"preset": {"name": "phi-4"}}},
        },
    })
}

/// Where the Service that KAITO names for the picker answers.
fn directory(key: &InferenceSetKey, gateway: SocketAddr) -> Directory {
    let pool = pool_name(&key.name);
    let picker = Source::picker(&key.namespace, &pool);
    let directory = Directory::default();
    if let Some(port) = picker.service() {
        directory.tell(port.clone(), Some(Ok([gateway].into())));
    }
    directory.tell_pool(key.clone(), Some(pool.into()));
    directory
}

/// The ScaledObject that was made, with the demo's own times, and its second trigger, which the
/// provisioner leaves to the user.
fn followed(made: &Value, mut object: keda::ScaledObject) -> Result<keda::ScaledObject> {
    let replicas = |field: &str| made["spec"][field].as_u64().and_then(|count| u32::try_from(count).ok());
    object.min_replicas = replicas("minReplicaCount").context("no minReplicaCount")?;
    object.max_replicas = replicas("maxReplicaCount").context("no maxReplicaCount")?;
    let trigger = &made["spec"]["triggers"][0];
    let ours = object.triggers.first_mut().context("no trigger")?;
    ours.push = trigger["type"] == "external-push";
    for (key, text) in trigger["metadata"].as_object().into_iter().flatten() {
        let text = text.as_str().context("metadata that is no text")?;
        ours.metadata.insert(key.clone(), text.to_owned());
    }
    Ok(object)
}
