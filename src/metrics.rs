//! The program's own metrics, served on `/metrics`.

use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::{
    collector::Collector,
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

/// Handles to every metric that some part of the program moves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub scrapes: Family<ScrapeLabels, Counter>,
    /// `ok` or `failed`.
    pub gateway_scrapes: Family<ScrapeLabels, Counter>,
    pub wake_interval: Gauge<f64, AtomicU64>,
    pub scrape_duration: Histogram,
    pub scraped_bytes: Family<PageLabels, Counter>,
    pub lines_rejected: Counter,
    pub endpoints: Family<PhaseLabels, Gauge>,
    pub pushes: Family<PushLabels, Counter>,
    pub activation_latency: Histogram,
    pub open_streams: Gauge,
    pub rpcs_started: Family<RpcLabels, Counter>,
    pub rpcs_handled: Family<RpcCodeLabels, Counter>,
    pub rpc_duration: Family<RpcLabels, Histogram>,
    pub provisioning: Gauge,
    pub provision_problems: Family<ProblemLabels, Gauge>,
    registry: Arc<Registry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ScrapeLabels {
    /// `ok` or the kind of failure.
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PageLabels {
    pub page: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PhaseLabels {
    pub phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PushLabels {
    /// `edge`: demand rose from nothing, or met no replica; `open`: a stream opened on an
    /// active target; `repeat`: KEDA has not acted yet.
    pub cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RpcLabels {
    pub grpc_type: &'static str,
    pub grpc_method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RpcCodeLabels {
    pub grpc_type: &'static str,
    pub grpc_method: &'static str,
    pub grpc_code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProblemLabels {
    /// The reason of the Warning event.
    pub reason: &'static str,
}

/// The buckets of Go's client library, which the existing dashboards read.
const DURATION_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const ACTIVATION_BUCKETS: [f64; 9] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25];

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Metrics {
    /// Makes and registers every metric. What the `collectors` export is read when a page is
    /// asked for.
    #[must_use]
    pub fn new(collectors: Vec<Box<dyn Collector>>) -> Self {
        let duration = || Histogram::new(DURATION_BUCKETS);
        let mut metrics = Self {
            scrapes: Family::default(),
            gateway_scrapes: Family::default(),
            wake_interval: Gauge::default(),
            scrape_duration: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0,
            ]),
            scraped_bytes: Family::default(),
            lines_rejected: Counter::default(),
            endpoints: Family::default(),
            pushes: Family::default(),
            activation_latency: Histogram::new(ACTIVATION_BUCKETS),
            open_streams: Gauge::default(),
            rpcs_started: Family::default(),
            rpcs_handled: Family::default(),
            rpc_duration: Family::new_with_constructor(duration),
            provisioning: Gauge::default(),
            provision_problems: Family::default(),
            registry: Arc::default(),
        };
        let mut registry = metrics.register();
        for collector in collectors {
            registry.register_collector(collector);
        }
        metrics.registry = Arc::new(registry);
        metrics
    }

    fn register(&self) -> Registry {
        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("keda_kaito_scaler");
        own.register("scrapes", "Scrapes of model servers by outcome", self.scrapes.clone());
        own.register("gateway_scrapes", "Scrapes of gateways by outcome", self.gateway_scrapes.clone());
        own.register_with_unit(
            "wake_interval",
            "Time between two scrapes of a gateway whose InferenceSet has no replica; more than is set where the \
             budget takes it",
            Unit::Seconds,
            self.wake_interval.clone(),
        );
        own.register_with_unit(
            "scrape_duration",
            "Time from request to the end of the page",
            Unit::Seconds,
            self.scrape_duration.clone(),
        );
        own.register_with_unit(
            "scraped",
            "Bytes of pages read, by kind of page",
            Unit::Bytes,
            self.scraped_bytes.clone(),
        );
        own.register(
            "lines_rejected",
            "Lines of pages that are not in the exposition format",
            self.lines_rejected.clone(),
        );
        own.register("endpoints", "Endpoints of targets in use, by phase", self.endpoints.clone());
        own.register("pushes", "Times that true was pushed to KEDA, by cause", self.pushes.clone());
        own.register_with_unit(
            "activation_latency",
            "Time from the sample that showed demand to the frame on KEDA's stream",
            Unit::Seconds,
            self.activation_latency.clone(),
        );
        own.register("open_streams", "StreamIsActive calls that are open", self.open_streams.clone());
        own.register(
            "provisioning",
            "1 while this replica makes ScaledObjects from annotations: it leads, and KEDA and KAITO are there",
            self.provisioning.clone(),
        );
        own.register(
            "provision_problems",
            "InferenceSets that something stands against, by the reason of the Warning event",
            self.provision_problems.clone(),
        );
        own.register(
            "build",
            "The running build",
            Info::new([("version", env!("CARGO_PKG_VERSION")), ("commit", crate::COMMIT)]),
        );
        // These three keep the names and labels that existing dashboards use.
        registry.register("grpc_server_started", "RPCs started", self.rpcs_started.clone());
        registry.register("grpc_server_handled", "RPCs ended, by code", self.rpcs_handled.clone());
        registry.register_with_unit(
            "grpc_server_handling",
            "Time from the start of an RPC to its end",
            Unit::Seconds,
            self.rpc_duration.clone(),
        );
        registry
    }

    /// The page.
    ///
    /// # Errors
    /// Never, by what can be known; the encoder's signature allows it.
    pub fn page(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}
