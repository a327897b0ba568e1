//! What `/debug/targets` answers, and how it is asked for.

use serde::Serialize;
use tokio::sync::oneshot;

/// A request for everything that is known of every target, for people. The answer takes time in
/// proportion to targets and endpoints.
#[derive(Debug)]
pub struct DebugRequest(pub oneshot::Sender<Vec<DescribedTarget>>);

/// One target. The field names are an interface that tests and dashboards rely on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DescribedTarget {
    pub namespace: String,
    pub scaled_object: String,
    pub inference_set: String,
    pub metric: String,
    pub aggregation: &'static str,
    /// What KEDA gets; `None` while it gets an error.
    pub value: Option<f64>,
    pub active: bool,
    pub replicas: Option<u32>,
    pub known: u32,
    pub unknown: u32,
    pub in_flight: u32,
    /// Replicas whose engine sleeps.
    pub asleep: u32,
    /// The decision record.
    pub why: String,
    /// When `true` was last pushed, RFC 3339.
    pub last_push: Option<String>,
    pub endpoints: Vec<DescribedEndpoint>,
}

/// One endpoint of a target.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DescribedEndpoint {
    pub pod: String,
    pub uid: String,
    pub address: Option<String>,
    pub phase: &'static str,
    /// What it last said of the target's metric.
    pub value: Option<f64>,
    /// Age of that.
    pub age_seconds: Option<f64>,
    pub page: Option<&'static str>,
    pub last_error: Option<String>,
}
