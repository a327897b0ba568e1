//! Trigger metadata: what a user (or the provisioner) writes into a ScaledObject's
//! `external-push` trigger, parsed into one typed spec.
//!
//! ```text
//! key                     value                             default
//! inferenceSetName        name of an InferenceSet           (required)
//! inferenceSetNamespace   its namespace                     (required)
//! metricName              a family on the pods' page        (required, but not for policy)
//!                         NAME{label="value", label=~"…"} for some of its series
//! aggregation             sum | service-avg | max | windowed-avg | quantile | gate | policy
//!                                                           sum
//! threshold               number > 0                        (required for sum; 1)
//! metricCacheWindow       duration, 1s..24h                 5m
//! quantile                number in (0, 1]                  0.95
//! policy                  JSON list of entries, see `policy`   (required for policy)
//! combinePolicy           AND | OR | MAX                    AND
//! metricSource            modelpod                          modelpod
//! metricProtocol          http | https                      http
//! metricPort              1..65535; 80 is the pod's own     the pod's own
//! metricPath              starts with /                     /metrics
//! scrapeTimeout           duration, 1ms..1m                 3s
//! scrapeInterval          duration, 100ms..1m               1s
//! inFlightDeadline        duration, 0s..24h                 15m
//! holdWhileInFlight       true | false                      false
//! activationThreshold     number ≥ 0                        0
//! activationHold          duration, 0s..24h                 30s
//! wakeSource              [http[s]://]SERVICE:PORT          KAITO's endpoint picker
//! wakeReplicas            whole number from 1               1
//! ```
//! A duration is Go's (`1m30s`) or a whole number of seconds. Words are taken in any
//! capitals. Keys that are KEDA's (`scalerAddress`, `caCert` and such, everything ending in
//! `FromEnv`) and the old `scalerName` are left alone, and so is every other unknown key,
//! unless it looks like a slip for one of these.

mod arguments;
mod describe;
mod parse;
pub mod policy;

#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

pub use arguments::parse_arguments;
pub(super) use parse::{A_PATH, A_PORT, path, port};
pub use parse::{KEYS, unknown_keys};

use crate::{
    names::{InferenceSetKey, MetricName},
    page::{self, Doubt, usage::Usage},
};

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
    /// Key `wakeSource`: a Service in the InferenceSet's namespace.
    pub wake_source: Option<WakeSource>,
    /// Key `wakeReplicas`, at least 1: as many as KEDA writes on a push, which is
    /// minReplicaCount where idleReplicaCount is set. A push is repeated until as many are
    /// wanted.
    pub wake_replicas: u32,
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

impl PageSource {
    pub const DEFAULT_PATH: &str = "/metrics";
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
}

impl Default for PageSource {
    fn default() -> Self {
        Self {
            protocol: Protocol::Http,
            port: None,
            path: Self::DEFAULT_PATH.to_owned(),
            timeout: Self::DEFAULT_TIMEOUT,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
        /// Key `threshold`: the target, per replica for a total. Finite, above 0.
        threshold: f64,
        aggregation: Aggregation,
    },
    /// Several metrics, combined (`aggregation: policy`).
    Policy(Policy),
}

impl Rule {
    /// The word that stands under the key `aggregation`.
    #[must_use]
    pub fn aggregation(&self) -> &'static str {
        match self {
            Self::Policy(_) => "policy",
            Self::Single { aggregation, .. } => match aggregation {
                Aggregation::Sum => "sum",
                Aggregation::ServiceAvg => "service-avg",
                Aggregation::Max => "max",
                Aggregation::WindowedAvg { .. } => "windowed-avg",
                Aggregation::Quantile { .. } => "quantile",
                Aggregation::Gate => "gate",
            },
        }
    }
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

impl ActivationRule {
    pub const DEFAULT_HOLD: Duration = Duration::from_secs(30);
}

impl Default for ActivationRule {
    fn default() -> Self {
        Self { threshold: 0.0, hold: Self::DEFAULT_HOLD }
    }
}

/// A Service that holds requests while there is no replica, in the InferenceSet's namespace.
/// `Display` writes what [`WakeSource::parse`] reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WakeSource {
    /// With https the certificate is verified, for `SERVICE.NAMESPACE.svc`.
    pub protocol: Protocol,
    pub service: String,
    /// The Service's port.
    pub port: u16,
}

impl fmt::Display for WakeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Http => "",
            Protocol::Https => "https://",
        };
        write!(f, "{scheme}{}:{}", self.service, self.port)
    }
}

/// One metric as KEDA is told of it: GetMetricSpec lists these, GetMetrics is asked for them.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSpec {
    pub name: String,
    /// `targetSizeFloat`. Finite, above 0.
    pub target: f64,
}

/// A family that a trigger needs from every page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WantedMetric {
    pub name: MetricName,
    pub shape: Shape,
}

/// As what a family is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// A gauge, counter or untyped family.
    Value,
    /// A histogram's count and sum, and its buckets where a quantile is asked for.
    Histogram { buckets: bool },
}

impl Trigger {
    pub const DEFAULT_SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
    pub const DEFAULT_IN_FLIGHT_DEADLINE: Duration = Duration::from_secs(900);

    /// What GetMetricSpec answers; never empty. It depends on the metadata alone, so that it
    /// can be answered before anything was scraped.
    #[must_use]
    pub fn metric_specs(&self) -> Vec<MetricSpec> {
        match &self.rule {
            Rule::Single { metric, threshold, .. } => {
                vec![MetricSpec { name: metric.spec_name().into_owned(), target: *threshold }]
            }
            Rule::Policy(Policy { combine: Combine::And | Combine::Or, .. }) => {
                vec![MetricSpec { name: Policy::METRIC_NAME.to_owned(), target: 1.0 }]
            }
            Rule::Policy(Policy { combine: Combine::Max, metrics }) => metrics
                .iter()
                .map(|metric| MetricSpec {
                    name: metric.name.spec_name().into_owned(),
                    target: metric.up_threshold,
                })
                .collect(),
        }
    }

    /// What is doubtful about the metrics that the trigger names: they can be asked for, but most
    /// likely not with what was meant.
    #[must_use]
    pub fn doubts(&self) -> Vec<Doubt> {
        match &self.rule {
            Rule::Single { metric, aggregation, .. } => {
                aggregation.usage().and_then(|usage| page::doubt(metric, usage)).into_iter().collect()
            }
            Rule::Policy(policy) => policy.doubts(),
        }
    }

    /// What the trigger's value needs from every page; empty for a gate. What activation
    /// needs is scraped in any case and not listed.
    #[must_use]
    pub fn wanted_metrics(&self) -> Vec<WantedMetric> {
        match &self.rule {
            Rule::Single { metric, aggregation, .. } => {
                let shape = match aggregation {
                    Aggregation::Sum | Aggregation::ServiceAvg | Aggregation::Max => Shape::Value,
                    Aggregation::WindowedAvg { .. } => Shape::Histogram { buckets: false },
                    Aggregation::Quantile { .. } => Shape::Histogram { buckets: true },
                    Aggregation::Gate => return Vec::new(),
                };
                vec![WantedMetric { name: metric.clone(), shape }]
            }
            Rule::Policy(policy) => policy
                .metrics
                .iter()
                .map(|metric| WantedMetric { name: metric.name.clone(), shape: metric.kind.shape() })
                .collect(),
        }
    }
}

impl Policy {
    /// The metric's name towards KEDA where a policy gives one value (AND, OR). It is part of
    /// the HPA's metric name (`s0-policy`), so changing it would reset running HPAs.
    pub const METRIC_NAME: &str = "policy";

    /// What is doubtful about its metrics.
    #[must_use]
    pub fn doubts(&self) -> Vec<Doubt> {
        self.metrics.iter().filter_map(|metric| page::doubt(&metric.name, metric.kind.usage())).collect()
    }
}

impl Aggregation {
    /// What the metric is read for; `None` where it is not read.
    #[must_use]
    pub fn usage(self) -> Option<Usage> {
        match self {
            Self::Sum | Self::ServiceAvg | Self::Max => Some(Usage::Level),
            Self::WindowedAvg { .. } | Self::Quantile { .. } => Some(Usage::Window),
            Self::Gate => None,
        }
    }
}

impl PolicyKind {
    /// What the metric is read for.
    #[must_use]
    pub fn usage(self) -> Usage {
        match self {
            Self::Gauge => Usage::Level,
            Self::Histogram { .. } => Usage::Window,
        }
    }

    #[must_use]
    pub fn shape(self) -> Shape {
        match self {
            Self::Gauge => Shape::Value,
            Self::Histogram { quantile, .. } => Shape::Histogram { buckets: quantile.is_some() },
        }
    }
}
