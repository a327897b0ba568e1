//! From annotations to an HPA that works.

use anyhow::Result;
use futures::FutureExt;
use serde_json::json;
use tokio::time::Instant;

use super::{Scenario, beside};
use crate::{
    api::{EVENT, INFERENCE_SET, SCALED_OBJECT, condition, number, text},
    stage::{AT_ONCE, LATER, PREFIX, SOON, Stage},
};

pub(super) const ALL: &[Scenario] = &[
    beside("annotations", "the older annotations come to an HPA that says 0/10 (avg)", |stage| {
        annotations(stage).boxed()
    }),
    beside("annotations-wrong", "what is wrong shows as an event, and a fix takes effect", |stage| {
        wrong(stage).boxed()
    }),
    beside("roles", "prefill and decode of a MultiRoleInference scale by themselves", |stage| {
        roles(stage).boxed()
    }),
    beside(
        "several-nodes",
        "a replica of two nodes is one endpoint, and nodeCountLimit counts nodes",
        |stage| several_nodes(stage).boxed(),
    ),
];

async fn annotations(stage: Stage) -> Result<()> {
    let begun = Instant::now();
    let wanted = [
        ("auto-provision", "true"),
        ("metricName", "vllm:num_requests_waiting"),
        ("threshold", "10"),
        ("max-replicas", "5"),
    ];
    let model = stage.inference_set("demo", 1, &wanted).await?;
    stage.ready("demo").await?;
    stage.figure("annotated → ScaledObject Ready", "ms", &[begun.elapsed().as_secs_f64() * 1000.0]);
    stage.hpa_says("demo", 0.0, 10.0).await?;
    stage.figure("annotated → HPA says 0/10 (avg)", "ms", &[begun.elapsed().as_secs_f64() * 1000.0]);

    model.wait_in_all(3.0);
    stage.metric_is("demo", 3.0).await?;
    let object = SCALED_OBJECT.named(&stage.namespace, "demo");
    stage
        .api()
        .until(&object, "is Active while requests wait", SOON, |object| {
            let (status, why) = condition(object.ok_or("not there")?, "Active");
            (status == "True").then_some(()).ok_or(why)
        })
        .await?;
    stage.hpa_says("demo", 3.0, 10.0).await
}

async fn wrong(stage: Stage) -> Result<()> {
    stage
        .inference_set("demo", 1, &[("auto-provision", "true"), ("threshold", "ten"), ("max-replicas", "5")])
        .await?;
    stage
        .api()
        .until_all(EVENT, &stage.namespace, "an event InvalidConfig names the threshold", SOON, |events| {
            let seen: Vec<_> =
                events.values().map(|event| (text(event, "/reason"), text(event, "/note"))).collect();
            let is_told = |(reason, note): &(String, String)| {
                reason == "InvalidConfig" && note.contains("scaledobject.kaito.sh/threshold is \"ten\"")
            };
            seen.iter().any(is_told).then_some(()).ok_or_else(|| format!("{seen:?}"))
        })
        .await?;
    let set = INFERENCE_SET.named(&stage.namespace, "demo");
    let fix = json!({"metadata": {"annotations": {format!("{PREFIX}threshold"): "7"}}});
    stage.api().merge(&set, fix).await?;
    stage.ready("demo").await?;
    stage.hpa_says("demo", 0.0, 7.0).await
}

async fn roles(stage: Stage) -> Result<()> {
    let mut annotations = serde_json::Map::new();
    for (role, threshold) in [("prefill", "4"), ("decode", "16")] {
        let own = [("auto-provision", "true"), ("threshold", threshold), ("max-replicas", "4")];
        for (key, value) in own.iter().chain(&AT_ONCE) {
            annotations.insert(format!("{PREFIX}{role}-{key}"), json!(value));
        }
    }
    stage
        .api()
        .apply(&json!({
            "apiVersion": "kaito.sh/v1alpha1",
            "kind": "MultiRoleInference",
            "metadata": {"name": "demo", "namespace": stage.namespace, "annotations": annotations},
            "spec": {
                "labelSelector": {"matchLabels": {"apps": "demo"}},
                "model": {"name": "phi-4-mini-instruct"},
                "roles": [{"type": "prefill"}, {"type": "decode"}],
            },
        }))
        .await?;
    for role in ["prefill", "decode"] {
        let child = format!("demo-{role}");
        stage.inference_set(&child, 1, &[]).await?;
        let labels =
            json!({"multiroleinference.kaito.sh/created-by": "demo", "kaito.sh/inference-role": role});
        let set = INFERENCE_SET.named(&stage.namespace, &child);
        stage.api().merge(&set, json!({"metadata": {"labels": labels}})).await?;
    }
    stage.ready("demo-prefill").await?;
    stage.ready("demo-decode").await?;
    stage.hpa_says("demo-decode", 0.0, 16.0).await?;
    stage.model("demo-prefill").wait_in_all(8.0);
    stage.model("demo-decode").wait_in_all(8.0);
    stage.wants("demo-prefill", 2, LATER).await?;
    stage.has("demo-prefill", 2).await?;
    stage.hpa_says("demo-decode", 8.0, 16.0).await?;
    stage.wants("demo-decode", 1, SOON).await.map(drop)
}

async fn several_nodes(stage: Stage) -> Result<()> {
    let model = stage.model("demo");
    model.spans(2);
    let mut annotations = vec![("auto-provision", "true"), ("threshold", "10")];
    annotations.extend(AT_ONCE);
    stage.inference_set("demo", 1, &annotations).await?;
    let set = INFERENCE_SET.named(&stage.namespace, "demo");
    stage.api().merge(&set, json!({"spec": {"nodeCountLimit": 7}})).await?;
    stage.ready("demo").await?;
    // Seven nodes are enough for three replicas of two.
    let object = SCALED_OBJECT.named(&stage.namespace, "demo");
    stage
        .api()
        .until(&object, "has maxReplicaCount 3", SOON, |object| {
            let seen = number(object.ok_or("not there")?, "/spec/maxReplicaCount");
            (seen == Some(3)).then_some(()).ok_or_else(|| format!("{seen:?}"))
        })
        .await?;
    model.wait_in_all(100.0);
    stage.wants("demo", 3, LATER).await?;
    stage.has("demo", 3).await?;
    let pods = stage.api().list(crate::api::POD, &stage.namespace).await?.len();
    anyhow::ensure!(pods == 6, "{pods} pods instead of 6");
    stage
        .target("demo", "has 3 endpoints that serve", |target| {
            let endpoints = target.pointer("/endpoints").and_then(serde_json::Value::as_array);
            endpoints.is_some_and(|endpoints| {
                endpoints.len() == 3
                    && endpoints.iter().all(|endpoint| text(endpoint, "/pod").ends_with("-0"))
            }) && number(target, "/known") == Some(3)
        })
        .await?;
    stage.metric_is("demo", 100.0).await
}
