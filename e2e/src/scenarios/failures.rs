//! Whatever is restarted or halted, nothing scales wrongly, and KEDA's streams come back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Scenario, alone,
    zero::{TRIGGER, to_zero},
};
use crate::{
    api::{DEPLOYMENT, LEASE, number, text},
    helm::RELEASE,
    keda::NAMESPACE,
    models::Model,
    stage::{LATER, SOON, Stage},
};

pub(super) const ALL: &[Scenario] = &[
    alone(
        "scaler-killed",
        "killed, the stream is back within 5 s; three kills in a row scale nothing",
        |stage| killed(stage).boxed(),
    ),
    alone("scaler-rollout", "a rolling update of the scaler", |stage| rollout(stage).boxed()),
    alone(
        "leader-killed",
        "without a leader a model still wakes; the other replica takes over what only one does",
        |stage| leader_killed(stage).boxed(),
    ),
    alone("keda-restarted", "KEDA's operator is restarted", |stage| keda_restarted(stage).boxed()),
    alone("api-server-restarted", "the API server is restarted", |stage| api_server_restarted(stage).boxed()),
    alone("etcd-halted", "etcd hangs for ten seconds", |stage| etcd_halted(stage).boxed()),
];

/// The most that a stream may be gone after an abrupt end.
const BACK: Duration = Duration::from_secs(5);

/// Two replicas under a load that keeps them.
async fn loaded(stage: &Stage) -> Result<std::sync::Arc<Model>> {
    let model = stage.annotated("demo", 5, &[]).await?;
    stage.ready("demo").await?;
    model.wait_in_all(18.0);
    stage.wants("demo", 2, LATER).await?;
    stage.has("demo", 2).await?;
    stage.hpa_says("demo", 9.0, 10.0).await?;
    Ok(model)
}

/// It still works: more load, more replicas.
async fn still_works(stage: &Stage, model: &Model) -> Result<()> {
    stage.steady("demo", 2, stage.metric_is("demo", 18.0)).await?;
    model.wait_in_all(35.0);
    stage.wants("demo", 4, LATER).await.map(drop)
}

async fn killed(stage: Stage) -> Result<()> {
    let model = loaded(&stage).await?;
    let world = &stage.world;
    for kill in 0..3 {
        world.streams_are_open(SOON).await?;
        let streams = world.streams().await?;
        let (serving, _) = streams.iter().max_by_key(|(_, open)| **open).context("no pod")?;
        let begun = Instant::now();
        world.kubelet.kill(serving).await?;
        let back = stage.steady("demo", 2, world.streams_are_open(LATER)).await?;
        let took = back - begun;
        // KEDA waits twice as long after each abrupt end, until a stream has ended well.
        let which = ["", " (again)", " (a third time)"][kill];
        let figure = format!("scaler killed{which} → KEDA's streams are back");
        stage.figure(&figure, "ms", &[took.as_secs_f64() * 1000.0]);
        ensure!(kill > 0 || took <= BACK, "the streams were back only after {took:?}");
    }
    stage.steady("demo", 2, world.scaler_available(2)).await?;
    still_works(&stage, &model).await
}

async fn rollout(stage: Stage) -> Result<()> {
    let model = loaded(&stage).await?;
    let begun = Instant::now();
    let restarted = json!({"spec": {"template": {"metadata": {"annotations": {"e2e/restarted": "now"}}}}});
    stage.api().merge(&DEPLOYMENT.named(NAMESPACE, RELEASE), restarted).await?;
    stage.steady("demo", 2, stage.world.scaler_available(2)).await?;
    stage.figure("rolling update of two replicas", "s", &[begun.elapsed().as_secs_f64()]);
    stage.steady("demo", 2, stage.world.streams_are_open(SOON)).await?;
    still_works(&stage, &model).await
}

async fn leader_killed(stage: Stage) -> Result<()> {
    let lease = LEASE.named(NAMESPACE, "keda-kaito-scaler");
    let processes = stage.world.kubelet.processes();
    let leader = stage.api().until(&lease, "is held by a pod that runs", SOON, |lease| {
        let holder = text(lease.ok_or("not there")?, "/spec/holderIdentity");
        let leader = holder.rsplit_once('_').map(|(leader, _)| leader.to_owned());
        leader.filter(|leader| processes.contains_key(leader)).ok_or(holder)
    });
    let leader = leader.await?;
    stage.inference_set("asleep", 0, &[]).await?;
    let gateway = stage.endpoint_picker("asleep").await?;
    gateway.hold(0);
    stage.scaled_object("asleep", to_zero(None), &TRIGGER).await?;
    stage.ready("asleep").await?;
    let knows = |target: &serde_json::Value| number(target, "/replicas") == Some(0);
    stage.target("asleep", "knows its gateway", knows).await?;
    let begun = Instant::now();
    stage.world.kubelet.kill(&leader).await?;
    gateway.hold(1);
    let woken = stage.wants("asleep", 1, LATER).await?;
    let waited = woken.saturating_duration_since(begun).as_secs_f64();
    stage.figure("leader killed, and a model is asked for → it wakes", "s", &[waited]);
    // That takes no Lease: the next leader is 15 s away.
    ensure!(waited < 10.0, "the wake-up waited for a new leader: {waited} s");
    let model = stage.annotated("demo", 5, &[]).await?;
    stage.ready("demo").await?;
    stage.figure("leader killed → a new InferenceSet is Ready", "s", &[begun.elapsed().as_secs_f64()]);
    stage.world.scaler_available(2).await?;
    model.wait_in_all(18.0);
    stage.wants("demo", 2, LATER).await.map(drop)
}

async fn keda_restarted(stage: Stage) -> Result<()> {
    let model = loaded(&stage).await?;
    let begun = Instant::now();
    stage.steady("demo", 2, stage.world.keda.restart_operator(stage.api())).await?;
    stage.steady("demo", 2, stage.world.streams_are_open(SOON)).await?;
    stage.figure("KEDA's operator restarted → its stream is back", "s", &[begun.elapsed().as_secs_f64()]);
    still_works(&stage, &model).await
}

async fn api_server_restarted(stage: Stage) -> Result<()> {
    let model = loaded(&stage).await?;
    stage.steady("demo", 2, stage.world.excused(stage.world.plane.restart_api_server())).await?;
    still_works(&stage, &model).await
}

async fn etcd_halted(stage: Stage) -> Result<()> {
    let model = loaded(&stage).await?;
    let halted = async {
        stage.world.plane.pause_etcd()?;
        // This is how long it hangs, and no condition.
        sleep(Duration::from_secs(10)).await;
        stage.world.plane.resume_etcd()
    };
    stage.steady("demo", 2, halted).await?;
    still_works(&stage, &model).await
}
