//! From 0 to 1 replica and back, woken by what a gateway holds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{FutureExt, future::try_join_all};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use super::{Scenario, beside};
use crate::{
    api::{EVENT, HPA, INFERENCE_SET, Objects, SCALED_OBJECT, condition, number, text},
    models::Health,
    stage::{LATER, SOON, Stage},
};

pub(super) const ALL: &[Scenario] = &[
    beside("wake-up", "50 wake-ups from zero, pushed", |stage| wake_up(stage).boxed()),
    beside(
        "scale-to-zero",
        "annotated: to zero only once its picker shows its metrics for a token, and awake again",
        |stage| annotated(stage).boxed(),
    ),
    beside("wake-up-after-errors", "errors that KEDA got meanwhile do not cost the push", |stage| {
        after_errors(stage).boxed()
    }),
    beside("reactivation", "the HPA's memory inflates a wake-up, unless there is a behavior", |stage| {
        reactivation(stage).boxed()
    }),
];

/// As little delay on the way down as KEDA allows.
pub(super) fn to_zero(behavior: Option<Value>) -> Value {
    let mut spec =
        json!({"minReplicaCount": 0, "maxReplicaCount": 5, "pollingInterval": 1, "cooldownPeriod": 1});
    if let Some(behavior) = behavior {
        spec["advanced"] = json!({"horizontalPodAutoscalerConfig": {"behavior": behavior}});
    }
    spec
}

pub(super) const TRIGGER: [(&str, &str); 3] =
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

async fn annotated(stage: Stage) -> Result<()> {
    let gateway = stage.endpoint_picker("demo").await?;
    gateway.ask_for_token(true);
    gateway.hold(0);
    let more = [("scale-to-zero", "true"), ("cooldown-period", "1"), ("polling-interval", "1")];
    stage.annotated("demo", 5, &more).await?;
    stage.ready("demo").await?;
    // Whoever asks gets no token without a pool that names the picker: nothing would wake the model.
    stage
        .api()
        .until_all(EVENT, &stage.namespace, "an event NoWakeSource", LATER, |events| {
            let seen: Vec<_> =
                events.values().map(|event| (text(event, "/reason"), text(event, "/note"))).collect();
            seen.iter()
                .any(|(reason, _)| reason == "NoWakeSource")
                .then_some(())
                .ok_or_else(|| format!("{seen:?}"))
        })
        .await?;
    has_minimum(&stage, 1).await?;
    ensure!(gateway.refused() > 0, "nobody asked the picker");

    let picker = json!({"kind": "Service", "name": "demo-inferencepool-epp", "port": {"number": 9002}});
    let begun = Instant::now();
    stage
        .api()
        .apply(&json!({
            "apiVersion": "inference.networking.k8s.io/v1",
            "kind": "InferencePool",
            "metadata": {"name": "demo-inferencepool", "namespace": stage.namespace},
            "spec": {"endpointPickerRef": picker},
        }))
        .await?;
    has_minimum(&stage, 0).await?;
    stage.figure("a pool names the picker → minReplicaCount 0", "s", &[begun.elapsed().as_secs_f64()]);
    let begun = Instant::now();
    stage.wants("demo", 0, LATER).await?;
    stage.figure("then → 0 replicas (activationHold 30 s)", "s", &[begun.elapsed().as_secs_f64()]);
    gateway.hold(1);
    let (shown, woken) = tokio::join!(gateway.shown(), stage.wants("demo", 1, LATER));
    stage.figure(
        "requests seen behind a token → replicas 1",
        "ms",
        &[woken?.saturating_duration_since(shown).as_secs_f64() * 1000.0],
    );
    Ok(())
}

async fn has_minimum(stage: &Stage, minimum: i64) -> Result<()> {
    let object = SCALED_OBJECT.named(&stage.namespace, "demo");
    stage
        .api()
        .until(&object, &format!("has minReplicaCount {minimum}"), LATER, |object| {
            let seen = number(object.ok_or("not there")?, "/spec/minReplicaCount");
            (seen == Some(minimum)).then_some(()).ok_or_else(|| format!("{seen:?}"))
        })
        .await
}

/// KEDA builds its scaler anew after each error, and its stream has to outlive that. It polls every 30 s
/// here, so that a wake-up within two is a push.
async fn after_errors(stage: Stage) -> Result<()> {
    stage.inference_set("demo", 1, &[]).await?;
    let gateway = stage.endpoint_picker("demo").await?;
    gateway.hold(0);
    stage.has("demo", 1).await?;
    let mut spec = to_zero(None);
    spec["pollingInterval"] = 30.into();
    let model = stage.model("demo");
    model.run_on_each(1.0, 0.1);
    stage.scaled_object("demo", spec, &TRIGGER).await?;
    stage.ready("demo").await?;
    let hpa = HPA.named(&stage.namespace, "keda-hpa-demo");
    for (health, expected) in [(Health::Hangs, "False"), (Health::Serves, "True")] {
        model.set_health("demo-w0-0", health);
        let what = format!("has ScalingActive {expected}");
        let active = stage.api().until(&hpa, &what, SOON, |hpa| {
            let (status, why) = condition(hpa.ok_or("not there")?, "ScalingActive");
            (status == expected).then_some(()).ok_or(why)
        });
        active.await?;
    }
    model.run_on_each(0.0, 0.0);
    stage.wants("demo", 0, LATER).await?;
    gateway.hold(1);
    let (shown, woken) = tokio::join!(timeout(LATER, gateway.shown()), stage.wants("demo", 1, LATER));
    let took = woken?.saturating_duration_since(shown.context("nobody read the gateway's page")?);
    stage.figure("requests seen at the gateway → replicas 1", "ms", &[took.as_secs_f64() * 1000.0]);
    ensure!(took < Duration::from_secs(2), "it took {took:?}: that was no push");
    Ok(())
}
