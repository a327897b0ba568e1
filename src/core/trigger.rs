//! Trigger metadata: what a user (or the provisioner) writes into a ScaledObject's
//! `external-push` trigger, parsed into one typed spec.

use std::time::Duration;

use super::names::{InferenceSetKey, MetricName};

/// One trigger, parsed and checked: everything that decides what is scraped, which value
/// KEDA gets and when the target is active.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Keys `inferenceSetNamespace`, `inferenceSetName`.
    pub inference_set: InferenceSetKey,
    pub page: PageSource,
    pub rule: Rule,
    /// Key `scrapeInterval`, 100 ms to 60 s, default 1 s.
    pub scrape_interval: Duration,
    /// Key `inFlightDeadline`, default 900 s: a replica that has been on its way for longer
    /// counts as absent.
    pub in_flight_deadline: Duration,
    /// Key `holdWhileInFlight`: no scale-up is asked for while replicas are on their way.
    pub hold_while_in_flight: bool,
    pub activation: ActivationRule,
    /// Key `wakeSource`: `SERVICE:PORT` in the InferenceSet's namespace.
    pub wake_source: Option<WakeSource>,
}

/// Where on a pod the metrics page is. Part of an endpoint's identity as a scrape target:
/// two triggers that name the same page share its scrapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PageSource {
    /// Key `metricProtocol`, default http.
    pub protocol: Protocol,
    /// Key `metricPort`. `None` means the pod's own serving port: both where the key is
    /// absent and where it holds 80, which in the old contract named the Service's port.
    pub port: Option<u16>,
    /// Key `metricPath`, default `/metrics`. Starts with a slash.
    pub path: String,
    /// Key `scrapeTimeout`, default 3 s.
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http,
    /// The server's certificate is not verified: a pod is addressed by its IP, for which no
    /// certificate authority vouches. The watch on the Kubernetes API says whose IP it is.
    Https,
}

/// How the value (or values) that KEDA gets come about.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// One metric, one value.
    Single {
        /// Key `metricName`, or the name that a GetMetrics request carries.
        metric: MetricName,
        /// Key `threshold`: the target per replica (AverageValue). Finite, above 0.
        threshold: f64,
        aggregation: Aggregation,
    },
    /// Several metrics, combined (`aggregation: policy`).
    Policy(Policy),
}

/// Key `aggregation`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregation {
    /// The total over all replicas, unknown ones filled in.
    Sum,
    /// The mean over the replicas that serve.
    ServiceAvg,
    /// The largest value over the replicas that serve.
    Max,
    /// A histogram's mean over the last `window` (key `metricCacheWindow`, default 300 s).
    WindowedAvg { window: Duration },
    /// A histogram's `quantile` (in (0, 1], default 0.95) over the last `window`.
    Quantile { quantile: f64, window: Duration },
    /// 1 where all replicas are ready (or past their deadline), else 0.
    Gate,
}

/// Several metrics with an up and a down threshold each, and how they combine.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Key `combinePolicy`, default AND.
    pub combine: Combine,
    /// Key `policy`, a JSON list. Never empty.
    pub metrics: Vec<PolicyMetric>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    And,
    Or,
    Max,
}

/// One entry of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyMetric {
    pub name: MetricName,
    pub kind: PolicyKind,
    /// Scale up above this. Finite.
    pub up_threshold: f64,
    /// Scale down below this. Finite, not above `up_threshold`.
    pub down_threshold: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PolicyKind {
    /// The mean over the replicas that serve.
    Gauge,
    /// The mean (or `quantile`) of what was observed over the last `window`.
    Histogram { window: Duration, quantile: Option<f64> },
}

/// When a target counts as active.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationRule {
    /// Key `activationThreshold`, default 0: active while demand is above it. Not negative.
    pub threshold: f64,
    /// Key `activationHold`, default 30 s: inactive only after demand was not above the
    /// threshold for this long.
    pub hold: Duration,
}

/// A Service that holds requests while there is no replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeSource {
    pub service: String,
    pub port: u16,
}
