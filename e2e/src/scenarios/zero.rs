//! From 0 to 1 replica and back, woken by what a gateway holds.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{FutureExt, future::try_join_all};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use super::{Scenario, beside};
use crate::{
    api::{INFERENCE_SET, Objects, number},
    world::{LATER, Stage},
};

pub const ALL: &[Scenario] = &[
    beside("wake-up", "50 wake-ups from zero, pushed", |stage| wake_up(stage).boxed()),
    beside("reactivation", "the HPA's memory inflates a wake-up, unless there is a behavior", |stage| {
        reactivation(stage).boxed()
    }),
];

/// As little delay on the way down as KEDA allows.
fn to_zero(behavior: Option<Value>) -> Value {
    let mut spec =
        json!({"minReplicaCount": 0, "maxReplicaCount": 5, "pollingInterval": 1, "cooldownPeriod": 1});
    if let Some(behavior) = behavior {
        spec["advanced"] = json!({"horizontalPodAutoscalerConfig": {"behavior": behavior}});
    }
    spec
}

const TRIGGER: [(&str, &str); 3] =
    [("metricName", "vllm:num_requests_waiting"), ("threshold", "10"), ("activationHold", "0s")];

/// How many models wake up, and how often each.
const MODELS: usize = 5;
const TIMES: usize = 10;

async fn wake_up(stage: Stage) -> Result<()> {
    let tasks = TaskTracker::new();
    let sets = stage.api().mirror(INFERENCE_SET, &tasks);
    let all =
        try_join_all((0..MODELS).map(|number| wake_one(&stage, format!("demo-{number}"), sets.clone())))
            .await?;
    stage.figure("requests seen at the gateway → replicas 1", "ms", &all.concat());
    Ok(())
}

async fn wake_one(stage: &Stage, name: String, mut sets: watch::Receiver<Objects>) -> Result<Vec<f64>> {
    stage.inference_set(&name, 0, &[]).await?;
    let gateway = stage.endpoint_picker(&name).await?;
    gateway.hold(0);
    let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
    let spec = to_zero(Some(behavior));
    stage.scaled_object(&name, spec, &TRIGGER).await?;
    stage.ready(&name).await?;
    stage.target(&name, "knows its gateway", |target| number(target, "/replicas") == Some(0)).await?;
    let key = (stage.namespace.clone(), name.clone());
    let mut wanted = async |replicas: i64| {
        let is_wanted =
            |sets: &Objects| sets.get(&key).and_then(|set| number(set, "/spec/replicas")) == Some(replicas);
        let reached = timeout(LATER, sets.wait_for(is_wanted)).await;
        reached
            .ok()
            .and_then(Result::ok)
            .map(|_| Instant::now())
            .with_context(|| format!("{key:?} never wanted {replicas}"))
    };
    wanted(0).await?;
    let mut took = vec![];
    for _ in 0..TIMES {
        gateway.hold(1);
        let (shown, woken) = tokio::join!(timeout(LATER, gateway.shown()), wanted(1));
        let shown = shown.context("nobody read the gateway's page")?;
        took.push(woken?.saturating_duration_since(shown).as_secs_f64() * 1000.0);
        gateway.hold(0);
        wanted(0).await?;
    }
    Ok(took)
}

async fn reactivation(stage: Stage) -> Result<()> {
    let behavior = json!({"scaleUp": {"stabilizationWindowSeconds": 0}, "scaleDown": {"stabilizationWindowSeconds": 300}});
    let (plain, behaved) =
        tokio::join!(peak_zero_one(&stage, "plain", None), peak_zero_one(&stage, "behaved", Some(behavior)));
    plain?;
    behaved?;
    // Neither the scaler nor KEDA asks for it: it is the HPA that remembers.
    stage.wants("plain", 4, LATER).await?;
    stage.holds("behaved", 1, Duration::from_secs(5)).await
}

/// Up to four replicas, down to none, and awake again within the HPA's five minutes.
async fn peak_zero_one(stage: &Stage, name: &str, behavior: Option<Value>) -> Result<()> {
    let model = stage.inference_set(name, 0, &[]).await?;
    let gateway = stage.endpoint_picker(name).await?;
    gateway.hold(0);
    stage.scaled_object(name, to_zero(behavior), &TRIGGER).await?;
    stage.ready(name).await?;
    gateway.hold(1);
    stage.wants(name, 1, LATER).await?;
    model.wait_in_all(38.0);
    gateway.hold(0);
    stage.wants(name, 4, LATER).await?;
    stage.has(name, 4).await?;
    model.wait_in_all(0.0);
    stage.wants(name, 0, LATER).await?;
    gateway.hold(1);
    let set = INFERENCE_SET.named(&stage.namespace, name);
    stage
        .api()
        .until(&set, "wakes up", LATER, |set| {
            let seen = number(set.ok_or("not there")?, "/spec/replicas");
            (seen > Some(0)).then_some(()).ok_or_else(|| format!("{seen:?}"))
        })
        .await
}
