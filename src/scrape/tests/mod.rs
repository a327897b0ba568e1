//! The tasks under a paused clock with a scripted fetch, and over real sockets.

mod sockets;
mod tasks;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{ScrapeId, ScrapePlan};
use scaler_core::{
    config::trigger::{PageSource, Protocol, Shape, WantedMetric},
    names::{InferenceSetKey, MetricName, PodUid},
    page::Wanted,
};

fn id(uid: &str) -> ScrapeId {
    page_of(uid, Protocol::Http)
}

fn page_of(uid: &str, protocol: Protocol) -> ScrapeId {
    let page = PageSource { protocol, port: None, path: "/metrics".into(), timeout: Duration::from_secs(3) };
    ScrapeId { set: InferenceSetKey::new("team-a", "demo"), uid: PodUid(uid.into()), page: Arc::new(page) }
}

fn wanted(metrics: &[&str]) -> Arc<Wanted> {
    let metric = |name: &&str| WantedMetric { name: MetricName::parse(name).unwrap(), shape: Shape::Value };
    Arc::new(Wanted::new(metrics.iter().map(metric)))
}

/// Every second, with 3 s for an answer, of a pod that is Ready.
fn plan(address: SocketAddr) -> ScrapePlan {
    ScrapePlan {
        address,
        wanted: wanted(&["vllm:num_requests_waiting"]),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(3),
        ready: true,
    }
}
