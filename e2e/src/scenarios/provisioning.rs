//! From annotations to an HPA that works.

use anyhow::Result;
use futures::FutureExt;
use tokio::time::Instant;

use super::{Scenario, beside};
use crate::{
    api::{SCALED_OBJECT, condition},
    world::{SOON, Stage},
};

pub const ALL: &[Scenario] =
    &[beside("annotations", "the older annotations come to an HPA that says 0/10 (avg)", |stage| {
        annotations(stage).boxed()
    })];

async fn annotations(stage: Stage) -> Result<()> {
    let begun = Instant::now();
    let model = stage
        .inference_set(
            "demo",
            1,
            &[
                ("auto-provision", "true"),
                ("metricName", "vllm:num_requests_waiting"),
                ("threshold", "10"),
                ("max-replicas", "5"),
            ],
        )
        .await?;
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
