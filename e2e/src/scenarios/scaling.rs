//! From 1 to N replicas and back.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;
use tokio::time::Instant;

use super::{Scenario, alone, beside};
use crate::{
    control_plane::{FAST_SYNC, REAL_SYNC},
    stage::{AT_ONCE, LATER, Stage},
};

pub(super) const ALL: &[Scenario] = &[
    beside("one-to-many", "replicas follow the queue from 1 to 4 and back", |stage| {
        one_to_many(stage).boxed()
    }),
    beside("policies", "several metrics, combined by AND, OR and MAX", |stage| policies(stage).boxed()),
    beside("status-behind", "a status that lags behind spec.replicas misleads nobody", |stage| {
        status_behind(stage).boxed()
    }),
    alone("real-sync", "the same at the HPA's real period of 15 s", |stage| real_sync(stage).boxed()),
];

async fn one_to_many(stage: Stage) -> Result<()> {
    up_and_down(&stage, "HPA sync 1 s").await
}

/// The controllers are restarted for it, and once more for those that come after.
async fn real_sync(stage: Stage) -> Result<()> {
    stage.world.plane.set_hpa_sync(REAL_SYNC).await?;
    let result = up_and_down(&stage, "HPA sync 15 s").await;
    stage.world.plane.set_hpa_sync(FAST_SYNC).await?;
    result
}

async fn up_and_down(stage: &Stage, sync: &str) -> Result<()> {
    let model = stage.annotated("demo", 5, &[]).await?;
    stage.ready("demo").await?;
    stage.has("demo", 1).await?;
    stage.metric_is("demo", 0.0).await?;

    let begun = Instant::now();
    model.wait_in_all(38.0);
    let wanted = stage.wants("demo", 4, LATER).await?;
    stage.figure(
        &format!("38 wait → 4 replicas wanted ({sync})"),
        "ms",
        &[(wanted - begun).as_secs_f64() * 1000.0],
    );
    stage.has("demo", 4).await?;
    // However many share the queue, the metrics API says what their pages say together.
    stage.metric_is("demo", 38.0).await?;

    let begun = Instant::now();
    model.wait_in_all(0.0);
    let wanted = stage.wants("demo", 1, LATER).await?;
    stage.figure(
        &format!("nobody waits → 1 replica wanted ({sync})"),
        "ms",
        &[(wanted - begun).as_secs_f64() * 1000.0],
    );
    stage.has("demo", 1).await
}

/// A queue and a cache, both with a threshold for each direction.
const METRICS: &str = r#"[
    {"name": "vllm:num_requests_waiting", "type": "gauge", "upthreshold": 10, "downthreshold": 1},
    {"name": "vllm:kv_cache_usage_perc", "type": "gauge", "upthreshold": 0.8, "downthreshold": 0.1}
]"#;

async fn combined(stage: &Stage, name: &str, policy: &str, max: &str) -> Result<()> {
    let mut annotations = vec![
        ("auto-provision", "true"),
        ("metrics", METRICS),
        ("combinepolicy", policy),
        ("max-replicas", max),
    ];
    annotations.extend(AT_ONCE);
    stage.inference_set(name, 1, &annotations).await?;
    stage.ready(name).await?;
    stage.has(name, 1).await
}

/// Three rounds of the HPA.
const ROUNDS: Duration = Duration::from_millis(3500);

async fn policies(stage: Stage) -> Result<()> {
    let and = async {
        combined(&stage, "and", "AND", "2").await?;
        let model = stage.model("and");
        model.run_on_each(1.0, 0.5);
        model.wait_on_each(20.0);
        stage.holds("and", 1, ROUNDS).await?;
        model.run_on_each(8.0, 0.9);
        stage.wants("and", 2, LATER).await?;
        stage.has("and", 2).await?;
        // One of the two is in between: neither up nor down.
        model.wait_on_each(0.0);
        stage.holds("and", 2, ROUNDS).await?;
        model.run_on_each(0.0, 0.01);
        stage.wants("and", 1, LATER).await
    };
    let or = async {
        combined(&stage, "or", "OR", "4").await?;
        let model = stage.model("or");
        model.run_on_each(1.0, 0.05);
        model.wait_on_each(20.0);
        // Twice, and twice again.
        stage.wants("or", 4, LATER).await?;
        stage.has("or", 4).await?;
        model.wait_on_each(0.0);
        stage.wants("or", 1, LATER).await
    };
    let max = async {
        combined(&stage, "max", "MAX", "5").await?;
        let model = stage.model("max");
        model.run_on_each(1.0, 0.2);
        model.wait_in_all(28.0);
        stage.wants("max", 3, LATER).await?;
        stage.has("max", 3).await?;
        model.run_on_each(8.0, 0.7);
        stage.metric_named_is("max", "kv_cache_usage_perc", 2.1).await?;
        model.wait_in_all(0.0);
        // Nobody waits, but the caches are nearly full: the larger wish of the two is to stay.
        stage.holds("max", 3, ROUNDS).await?;
        model.run_on_each(0.0, 0.0);
        stage.wants("max", 1, LATER).await
    };
    let (and, or, max) = tokio::join!(and, or, max);
    and.and(or).and(max).map(drop)
}

async fn status_behind(stage: Stage) -> Result<()> {
    combined(&stage, "demo", "OR", "4").await?;
    let model = stage.model("demo");
    model.hold_status(true);
    model.run_on_each(1.0, 0.5);
    model.wait_on_each(20.0);
    stage.wants("demo", 2, LATER).await?;
    // The HPA reads one replica from the status, and compares what it wants with two.
    model.wait_on_each(5.0);
    stage.holds("demo", 2, ROUNDS).await?;
    model.hold_status(false);
    stage.has("demo", 2).await?;
    stage.holds("demo", 2, ROUNDS).await
}
