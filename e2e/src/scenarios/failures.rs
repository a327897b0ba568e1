//! Whatever is restarted or halted, nothing scales wrongly, and KEDA's streams come back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Scenario, alone};
use crate::{
    api::{DEPLOYMENT, LEASE, text},
    helm::RELEASE,
    keda::NAMESPACE,
    models::Model,
    world::{LATER, SOON, Stage},
};

pub const ALL: &[Scenario] = &[
    alone("scaler-killed", "three kills in a row: the stream is back within 5 s each time", |stage| {
        killed(stage).boxed()
    }),
    alone("scaler-rollout", "a rolling update of the scaler", |stage| rollout(stage).boxed()),
    alone("leader-killed", "the other replica takes over what only one does", |stage| {
        leader_killed(stage).boxed()
    }),
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
    for _ in 0..3 {
        let streams = world.streams().await?;
        let open: u64 = streams.values().sum();
        ensure!(open > 0, "KEDA has no stream open: {streams:?}");
        let (serving, _) = streams.iter().max_by_key(|(_, open)| **open).context("no pod")?;
        let begun = Instant::now();
        world.kubelet.kill(serving).await?;
        let back = stage.steady("demo", 2, world.streams_are_back(open, LATER)).await?;
        let took = back - begun;
        stage.figure("scaler killed → KEDA's streams are back", "ms", &[took.as_secs_f64() * 1000.0]);
        ensure!(took <= BACK, "the streams were back only after {took:?}");
    }
    stage.steady("demo", 2, world.scaler_available(2)).await?;
    still_works(&stage, &model).await
}

async fn rollout(stage: Stage) -> Result<()> {
    let model = loaded(&stage).await?;
    let open: u64 = stage.world.streams().await?.values().sum();
    let begun = Instant::now();
    let restarted = json!({"spec": {"template": {"metadata": {"annotations": {"e2e/restarted": "now"}}}}});
    stage.api().merge(&DEPLOYMENT.named(NAMESPACE, RELEASE), restarted).await?;
    stage.steady("demo", 2, stage.world.scaler_available(2)).await?;
    stage.figure("rolling update of two replicas", "s", &[begun.elapsed().as_secs_f64()]);
    stage.steady("demo", 2, stage.world.streams_are_back(open, SOON)).await?;
    still_works(&stage, &model).await
}

async fn leader_killed(stage: Stage) -> Result<()> {
    let lease = LEASE.named(NAMESPACE, "keda-kaito-scaler");
    let holder = stage.api().get(&lease).await?.context("no Lease")?;
    let holder = text(&holder, "/spec/holderIdentity");
    let (leader, _) = holder.rsplit_once('_').context("the Lease has no holder")?;
    let begun = Instant::now();
    stage.world.kubelet.kill(leader).await?;
    let model = stage.annotated("demo", 5, &[]).await?;
    stage.ready("demo").await?;
    stage.figure("leader killed → a new InferenceSet is Ready", "s", &[begun.elapsed().as_secs_f64()]);
    stage.world.scaler_available(2).await?;
    model.wait_in_all(18.0);
    stage.wants("demo", 2, LATER).await.map(drop)
}

async fn keda_restarted(stage: Stage) -> Result<()> {
    let model = loaded(&stage).await?;
    let open: u64 = stage.world.streams().await?.values().sum();
    let begun = Instant::now();
    stage.steady("demo", 2, stage.world.keda.restart_operator(stage.api())).await?;
    stage.steady("demo", 2, stage.world.streams_are_back(open.min(1), SOON)).await?;
    stage.figure("KEDA's operator restarted → its stream is back", "s", &[begun.elapsed().as_secs_f64()]);
    still_works(&stage, &model).await
}

async fn api_server_restarted(stage: Stage) -> Result<()> {
    let model = loaded(&stage).await?;
    stage.steady("demo", 2, stage.world.plane.restart_api_server()).await?;
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
