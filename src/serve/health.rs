//! gRPC health, on a port of its own and in plaintext, for the kubelet.
//!
//! `liveness` is always SERVING; `readiness` and the empty name are SERVING while the process
//! is ready to be called.

use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::readiness::Readiness;

/// The health service, and a task that keeps it true: it ends when `readiness` can no longer
/// change.
#[must_use]
pub fn service() -> (HealthReporter, Routes) {
    let (reporter, service) = tonic_health::server::health_reporter();
    (reporter, Routes::new(service).prepare())
}

/// Follows `readiness` for as long as it can change.
pub async fn report(reporter: HealthReporter, mut readiness: Readiness) {
    reporter.set_service_status("liveness", ServingStatus::Serving).await;
    loop {
        let status = if readiness.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", "readiness"] {
            reporter.set_service_status(service, status).await;
        }
        if !readiness.changed().await {
            return;
        }
    }
}
