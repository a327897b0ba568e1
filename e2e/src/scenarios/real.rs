//! With a real vLLM, whose queue is real.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Scenario;
use crate::{
    api::{POD, condition, number, text},
    stage::{LATER, Stage},
    vllm::load,
};

pub(crate) const ALL: &[Scenario] = &[Scenario {
    name: "real-vllm",
    shows: "a real vLLM under load that queues: 1 → 2 on its own num_requests_waiting",
    disturbs: false,
    limit: Duration::from_secs(560),
    run: |stage| real(stage).boxed(),
}];

/// More than it works on at once, so that a dozen wait.
const CLIENTS: usize = 16;

async fn real(stage: Stage) -> Result<()> {
    let vllm = stage.world.setup.vllm.clone().context("no vLLM was named")?;
    stage.model("demo").be_real(vllm);
    let begun = Instant::now();
    stage.annotated("demo", 2, &[("threshold", "6")]).await?;
    let pod = POD.named(&stage.namespace, "demo-w0-0");
    let address = stage.api().until(&pod, "is ready", Duration::from_secs(420), |pod| {
        let pod = pod.ok_or("not there")?;
        let (status, why) = condition(pod, "Ready");
        if status == "True" { Ok(text(pod, "/status/podIP")) } else { Err(why) }
    });
    let address = address.await?.parse().context("the pod has no address")?;
    stage.figure("vLLM started", "s", &[begun.elapsed().as_secs_f64()]);
    stage.ready("demo").await?;
    stage
        .target("demo", "is served filtered pages by one replica", |target| {
            number(target, "/known") == Some(1)
                && target.pointer("/endpoints/0/page") == Some(&Value::from("filtered"))
        })
        .await?;
    stage.metric_is("demo", 0.0).await?;

    let (stop, begun) = (CancellationToken::new(), Instant::now());
    let grows = async {
        let wanted = stage.wants("demo", 2, LATER).await;
        stop.cancel();
        wanted
    };
    let (answered, wanted) = tokio::join!(load(address, CLIENTS, stop.clone()), grows);
    stage.figure("load begins → 2 replicas wanted", "s", &[(wanted? - begun).as_secs_f64()]);
    ensure!(answered? < 10_000, "it answered at once, so nothing can have waited");
    stage.wants("demo", 1, LATER).await.map(drop)
}
