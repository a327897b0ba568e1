//! From 1 to N replicas and back.

use anyhow::Result;
use futures::FutureExt;
use tokio::time::Instant;

use super::{Scenario, beside};
use crate::world::{LATER, Stage};

pub const ALL: &[Scenario] =
    &[beside("one-to-many", "replicas follow the queue from 1 to 4 and back", |stage| {
        one_to_many(stage).boxed()
    })];

async fn one_to_many(stage: Stage) -> Result<()> {
    let model = stage.annotated("demo", 5, &[]).await?;
    stage.ready("demo").await?;
    stage.has("demo", 1).await?;
    stage.metric_is("demo", 0.0).await?;

    let begun = Instant::now();
    model.wait_in_all(38.0);
    let wanted = stage.wants("demo", 4, LATER).await?;
    stage.figure(
        "38 wait → 4 replicas wanted (HPA sync 1 s)",
        "ms",
        &[(wanted - begun).as_secs_f64() * 1000.0],
    );
    stage.has("demo", 4).await?;
    // However many share the queue, the metrics API says what their pages say together.
    stage.metric_is("demo", 38.0).await?;
    stage.hpa_says("demo", 9.5, 10.0).await?;

    let begun = Instant::now();
    model.wait_in_all(0.0);
    let wanted = stage.wants("demo", 1, LATER).await?;
    stage.figure(
        "nobody waits → 1 replica wanted (HPA sync 1 s)",
        "ms",
        &[(wanted - begun).as_secs_f64() * 1000.0],
    );
    stage.has("demo", 1).await
}
