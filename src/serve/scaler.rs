//! KEDA's external scaler protocol. Every answer comes from the newest snapshot.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use super::{rpc::Rpc, stream::ActivityStream};
use crate::{
    metrics::Metrics,
    targets::{Refusal, Target, Targets},
};
use clock::Clock;
use keda_proto::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue,
    ScaledObjectRef, external_scaler_server::ExternalScaler,
};
use scaler_core::{
    decision::{
        activation::Activity,
        snapshot::{Snapshot, Unavailable},
    },
    names::MetricName,
};

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scaler {
    targets: Targets,
    clock: Clock,
    metrics: Metrics,
    /// How long calls for a new target wait for its first round of scrapes, all together.
    first_round: Duration,
    /// Cancelled when every stream is to end with OK.
    drain: CancellationToken,
}

type Answer<T> = Result<Response<T>, Status>;
type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Scaler {
    #[must_use]
    pub fn new(
        targets: Targets,
        clock: Clock,
        metrics: Metrics,
        first_round: Duration,
        drain: CancellationToken,
    ) -> Self {
        Self { targets, clock, metrics, first_round, drain }
    }

    fn target(&self, object: &ScaledObjectRef, metric: &str) -> Result<Arc<Target>, Status> {
        // A name that the metadata gives anyway is no other target.
        let given = object.scaler_metadata.get("metricName").map(String::as_str);
        let is_given = |name: &str| given.is_some_and(|given| MetricName::is_told_as(given, name));
        let requested = Some(metric).filter(|name| !name.is_empty() && !is_given(name));
        let requested = requested.filter(|_| !is_policy(object));
        self.targets
            .find_or_register(&object.namespace, &object.name, &object.scaler_metadata, requested)
            .map_err(|refusal| {
                let code = match refusal {
                    Refusal::Invalid(_) => Code::InvalidArgument,
                    Refusal::Forbidden(_) => Code::PermissionDenied,
                    Refusal::TooMany(_) => Code::ResourceExhausted,
                };
                Status::new(code, refusal.to_string())
            })
    }

    /// The newest decision; for a target that nobody asked for before, the first one.
    async fn decision(&self, target: &Target) -> Arc<Snapshot> {
        target.first_round(self.first_round).await;
        target.snapshot()
    }

    async fn is_active(&self, object: &ScaledObjectRef) -> Answer<IsActiveResponse> {
        let target = self.target(object, "")?;
        let snapshot = self.decision(&target).await;
        let result = match snapshot.activity {
            Activity::Active(_) => true,
            Activity::Inactive => false,
            Activity::Unknown => return Err(status(&snapshot.why_activity_is_unknown())),
        };
        Ok(Response::new(IsActiveResponse { result }))
    }

    async fn metrics(&self, request: &GetMetricsRequest) -> Answer<GetMetricsResponse> {
        let object = request
            .scaled_object_ref
            .as_ref()
            .ok_or_else(|| Status::invalid_argument("scaledObjectRef is missing"))?;
        let target = self.target(object, &request.metric_name)?;
        let snapshot = self.decision(&target).await;
        let asked = |name: &str| request.metric_name.is_empty() || name == request.metric_name;
        let mut metric_values = Vec::with_capacity(1);
        for (spec, value) in target.specs.iter().zip(&snapshot.values) {
            if !asked(&spec.name) {
                continue;
            }
            let value = value.as_ref().map_err(status)?.number();
            metric_values.push(MetricValue {
                metric_name: spec.name.clone(),
                metric_value: integer(value),
                metric_value_float: value,
            });
        }
        if metric_values.is_empty() {
            let names: Vec<_> = target.specs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(Status::invalid_argument(format!(
                "metricName is {:?}, but must be one of this trigger's: {}",
                request.metric_name,
                names.join(", ")
            )));
        }
        Ok(Response::new(GetMetricsResponse { metric_values }))
    }

    fn specs(&self, object: &ScaledObjectRef) -> Result<GetMetricSpecResponse, Status> {
        let target = self.target(object, "")?;
        let metric_specs = target
            .specs
            .iter()
            .map(|spec| MetricSpec {
                metric_name: spec.name.clone(),
                // Never 0, which an old reader would divide by.
                target_size: integer(spec.target.ceil()),
                target_size_float: spec.target,
            })
            .collect();
        Ok(GetMetricSpecResponse { metric_specs })
    }
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    async fn is_active(&self, request: Request<ScaledObjectRef>) -> Answer<IsActiveResponse> {
        let rpc = Rpc::unary(&self.metrics, "/externalscaler.ExternalScaler/IsActive");
        rpc.answers(self.is_active(request.get_ref()).await)
    }

    type StreamIsActiveStream = Frames<IsActiveResponse>;

    async fn stream_is_active(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Answer<Self::StreamIsActiveStream> {
        let mut rpc = Rpc::stream(&self.metrics, "/externalscaler.ExternalScaler/StreamIsActive");
        let target = self.target(request.get_ref(), "").inspect_err(|status| rpc.ends_with(status.code()))?;
        let stream = ActivityStream::open(target, self.drain.clone(), self.clock, self.metrics.clone(), rpc);
        Ok(Response::new(stream.frames().boxed()))
    }

    async fn get_metric_spec(&self, request: Request<ScaledObjectRef>) -> Answer<GetMetricSpecResponse> {
        let rpc = Rpc::unary(&self.metrics, "/externalscaler.ExternalScaler/GetMetricSpec");
        rpc.answers(self.specs(request.get_ref()).map(Response::new))
    }

    async fn get_metrics(&self, request: Request<GetMetricsRequest>) -> Answer<GetMetricsResponse> {
        let rpc = Rpc::unary(&self.metrics, "/externalscaler.ExternalScaler/GetMetrics");
        rpc.answers(self.metrics(request.get_ref()).await)
    }

    type StreamMetricSpecStream = Frames<GetMetricSpecResponse>;

    /// The specs follow from the metadata alone, and other metadata is another call; so the
    /// stream says them once, and then stays open until the process goes.
    async fn stream_metric_spec(
        &self,
        request: Request<ScaledObjectRef>,
    ) -> Answer<Self::StreamMetricSpecStream> {
        let mut rpc = Rpc::stream(&self.metrics, "/externalscaler.ExternalScaler/StreamMetricSpec");
        let specs = self.specs(request.get_ref()).inspect_err(|status| rpc.ends_with(status.code()))?;
        let drain = self.drain.clone();
        let ended = async move {
            drain.cancelled().await;
            rpc.ends_with(Code::Ok);
            drop(rpc);
            None
        };
        let frames = stream::once(async { Some(Ok(specs)) }).chain(stream::once(ended));
        Ok(Response::new(frames.filter_map(std::future::ready).boxed()))
    }
}

fn is_policy(object: &ScaledObjectRef) -> bool {
    object.scaler_metadata.get("aggregation").is_some_and(|word| word.eq_ignore_ascii_case("policy"))
}

/// The code by which KEDA and people tell apart what is wrong.
fn status(why: &Unavailable) -> Status {
    match why {
        Unavailable::NoInferenceSet => Status::internal(why.to_string()),
        _ => Status::unavailable(why.to_string()),
    }
}

/// The integer beside a float; saturating, as `as` does.
#[expect(clippy::cast_possible_truncation, reason = "rounded, and saturating is what is wanted")]
fn integer(value: f64) -> i64 {
    value.round() as i64
}
