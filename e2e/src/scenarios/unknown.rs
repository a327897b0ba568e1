//! Unknown is not zero: replicas that load, hang, reset or lie.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;

use super::{Scenario, beside};
use crate::{
    api::{HPA, condition, number},
    models::Health,
    stage::{LATER, SOON, Stage},
};

pub(super) const ALL: &[Scenario] = &[
    beside("loading", "replicas that load neither dilute the queue nor let it be scaled down", |stage| {
        loading(stage).boxed()
    }),
    beside(
        "sick-replicas",
        "three of four replicas hang, reset or lie, and nothing is scaled down",
        |stage| sick(stage).boxed(),
    ),
    beside("all-unknown", "nothing is known: the HPA holds, and goes on when something is", |stage| {
        all_unknown(stage).boxed()
    }),
];

const ROUNDS: Duration = Duration::from_millis(3500);
const HOUR: Duration = Duration::from_secs(3600);

async fn loading(stage: Stage) -> Result<()> {
    let model = stage.annotated("demo", 5, &[]).await?;
    stage.ready("demo").await?;
    stage.has("demo", 1).await?;
    model.starts_up_in(HOUR);
    model.wait_on("demo-w0-0", 22.0);
    stage.wants("demo", 3, LATER).await?;
    // Two that load count as on target: 10 + 10 beside the first one's.
    stage.metric_is("demo", 30.0).await?;
    stage.holds("demo", 3, ROUNDS).await?;
    // Even with little on the one that serves, those that load are no reason to go down.
    model.wait_on("demo-w0-0", 12.0);
    stage.metric_is("demo", 30.0).await?;
    stage.holds("demo", 3, ROUNDS).await?;
    model.starts_up_in(Duration::ZERO);
    stage.wants("demo", 2, LATER).await?;
    stage.metric_is("demo", 12.0).await
}

async fn sick(stage: Stage) -> Result<()> {
    let model = stage.model("demo");
    model.wait_on_each(10.0);
    stage.annotated_with("demo", 4, 6, &[]).await?;
    stage.ready("demo").await?;
    stage.has("demo", 4).await?;
    stage.hpa_says("demo", 10.0, 10.0).await?;
    let pods = model.serving();
    let unknown = |count: i64| move |target: &serde_json::Value| number(target, "/unknown") == Some(count);
    for (pod, health) in pods[1..].iter().zip([Health::Hangs, Health::Resets, Health::Lies]) {
        model.set_health(pod, health);
    }
    stage.steady("demo", 4, stage.target("demo", "three replicas are unknown", unknown(3))).await?;
    // The one that answers is above the target, then below: unknown ones argue for neither.
    for (waiting, value) in [(12.0, 40.0), (6.0, 36.0)] {
        model.wait_on(&pods[0], waiting);
        stage.steady("demo", 4, stage.metric_is("demo", value)).await?;
        stage.holds("demo", 4, ROUNDS).await?;
    }
    for pod in &pods[1..] {
        model.set_health(pod, Health::Hangs);
    }
    stage.holds("demo", 4, ROUNDS).await?;
    for pod in &pods {
        model.set_health(pod, Health::Serves);
        model.wait_on(pod, 1.0);
    }
    stage.wants("demo", 1, LATER).await.map(drop)
}

async fn all_unknown(stage: Stage) -> Result<()> {
    let model = stage.annotated("demo", 4, &[]).await?;
    stage.ready("demo").await?;
    stage.has("demo", 1).await?;
    model.wait_in_all(18.0);
    stage.wants("demo", 2, LATER).await?;
    stage.has("demo", 2).await?;
    let pods = model.serving();
    for pod in &pods {
        model.set_health(pod, Health::Hangs);
    }
    // What they would say if they could is no reason to go down.
    model.wait_in_all(0.0);
    let hpa = HPA.named(&stage.namespace, "keda-hpa-demo");
    let active = async |wanted: &str| {
        let what = format!("has ScalingActive {wanted}");
        let reported = stage.api().until(&hpa, &what, SOON, |hpa| {
            let (status, why) = condition(hpa.ok_or("not there")?, "ScalingActive");
            (status == wanted).then_some(()).ok_or(why)
        });
        stage.steady("demo", 2, reported).await
    };
    active("False").await?;
    stage.holds("demo", 2, ROUNDS).await?;
    model.wait_in_all(18.0);
    for pod in &pods {
        model.set_health(pod, Health::Serves);
    }
    active("True").await?;
    stage.steady("demo", 2, stage.metric_is("demo", 18.0)).await?;
    model.wait_in_all(35.0);
    stage.wants("demo", 4, LATER).await.map(drop)
}
