//! Counts an RPC when it starts and when it ends, however it ends.

use tokio::time::Instant;
use tonic::Code;

use crate::metrics::{Metrics, RpcCodeLabels, RpcLabels};

/// Made at the start of an RPC; its end is counted when this is dropped, as `Canceled` where
/// nobody said otherwise: then the client went away.
#[derive(Debug)]
pub(super) struct Rpc {
    metrics: Metrics,
    labels: RpcLabels,
    started: Instant,
    code: Code,
}

impl Rpc {
    pub(super) fn unary(metrics: &Metrics, method: &'static str) -> Self {
        Self::start(metrics, RpcLabels { grpc_type: "unary", grpc_method: method })
    }

    pub(super) fn stream(metrics: &Metrics, method: &'static str) -> Self {
        Self::start(metrics, RpcLabels { grpc_type: "stream", grpc_method: method })
    }

    fn start(metrics: &Metrics, labels: RpcLabels) -> Self {
        metrics.rpcs_started.get_or_create(&labels).inc();
        Self { metrics: metrics.clone(), labels, started: Instant::now(), code: Code::Cancelled }
    }

    pub(super) fn ends_with(&mut self, code: Code) {
        self.code = code;
    }

    /// Counts the RPC by what it answers.
    pub(super) fn answers<T>(mut self, answer: Result<T, tonic::Status>) -> Result<T, tonic::Status> {
        self.ends_with(answer.as_ref().map_or_else(tonic::Status::code, |_| Code::Ok));
        answer
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        let RpcLabels { grpc_type, grpc_method } = self.labels;
        let labels = RpcCodeLabels { grpc_type, grpc_method, grpc_code: name(self.code) };
        self.metrics.rpcs_handled.get_or_create(&labels).inc();
        self.metrics.rpc_duration.get_or_create(&self.labels).observe(self.started.elapsed().as_secs_f64());
    }
}

/// A code's name as Go's gRPC prints it, which the existing dashboards read.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
