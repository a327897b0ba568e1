//! Wiring: what `run` starts, in which order, and in which order it stops.

pub mod cluster;
mod life;
mod notices;
mod opening;
mod options;
mod process;
pub(crate) mod scrapers;
mod sockets;
mod teller;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::collector::Collector;
use tokio::{
    net::TcpListener,
    sync::{
        mpsc,
        oneshot::{self, error::TryRecvError},
    },
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{
    cluster::Cluster,
    life::Life,
    notices::GateCollector,
    opening::Opening,
    scrapers::Scrapers,
    sockets::{Addresses, Sockets},
};
pub use self::{
    options::{RunOptions, Source, StartError},
    process::{End, block_on, until_ended},
};
use crate::{
    aggregator::{Aggregator, Inbox},
    cluster::{client, directory::Directory},
    discovery::file::{self, EndpointsFile},
    metrics::Metrics,
    pki,
    scrape::{PageClient, ScrapePool},
    serve::{
        admin::Admin,
        health,
        listener::{Limits, Listener, Security, Serving},
        scaler::Scaler,
    },
    targets::{self, Targets},
    tasks::Failure,
    wake::{Reader, SourcePool},
};
use keda_proto::{FILE_DESCRIPTOR_SET, external_scaler_server::ExternalScalerServer};
use scaler_core::fleet::tenancy::Tenancy;

/// The engine at work. Ends only through [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    shutdown_delay: Duration,
    life: Life,
    /// The gRPC listener, once there is something to serve it with.
    serving: oneshot::Receiver<Serving>,
    health_serving: Serving,
    /// Ends the streams.
    drain: CancellationToken,
    aggregator: JoinHandle<Option<Scrapers>>,
    aggregator_cancel: CancellationToken,
}

/// How long clients may take to leave, once told to.
const GRACE: Duration = Duration::from_secs(5);
/// How long all of them together may take after a failure: a second after it the process has ended.
const ABANDONED: Duration = Duration::from_millis(250);
/// Scrape reports that may wait for the aggregator; a full queue slows the scrapers down.
const REPORTS: usize = 1024;

/// Starts everything. Nothing runs where this fails. In a cluster the gRPC listener opens
/// later, once certificates and KEDA's authentication object are live; readiness says what it
/// waits for.
pub async fn start(options: RunOptions) -> Result<Running, StartError> {
    let life = Life::begin();
    let (clock, tasks, cancel) = (life.clock, &life.tasks, &life.cancel);
    let (fleet_events, fleet) = mpsc::channel(64);

    // Whatever can fail comes first, and starts nothing that would go on.
    let (mut file_discovery, mut cluster) = (None, None);
    match &options.source {
        Source::File(path) => {
            if !options.bind_address.is_loopback() {
                return Err(StartError::InsecureAddress(options.bind_address));
            }
            let file = EndpointsFile::new(path.clone(), clock);
            file_discovery = Some(file::watch(file, fleet_events.clone(), cancel.clone()).await?);
        }
        Source::Cluster(options) => {
            pki::tls::install_crypto();
            let client = client::connect(&options.access).await?;
            cluster = Some((client, options.as_ref().clone()));
        }
    }
    let sockets = Sockets::bind(&options)?;
    let addresses = sockets.addresses;
    let client = page_client(&options)?;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|source| StartError::Reflection { source })?;

    // From here on nothing fails.
    let (registered, registrations) = mpsc::unbounded_channel();
    // Whoever writes the file decides what is in it; there are no tenants to keep apart.
    let tenancy = cluster.as_ref().map_or(Tenancy::AnyNamespace, |(_, options)| options.tenancy);
    let targets = Targets::new(registered, clock, tenancy);
    let directory = Directory::default();
    let cluster = cluster
        .map(|(client, options)| cluster::begin(client, options, fleet_events, directory.clone(), &life));
    let metrics = Metrics::new(collectors(targets.clone(), cluster.as_ref(), &life));

    let (report_sender, reports) = mpsc::channel(REPORTS);
    let (source_sender, sources) = mpsc::channel(REPORTS);
    let source_pool = SourcePool::new(
        "targets",
        Reader::new(client.clone(), cluster.as_ref().map(Cluster::credentials)),
        clock,
        directory.clone(),
        options.wake_pace,
        metrics.wake_interval.clone(),
        source_sender,
    );
    let scrapers =
        Scrapers { pods: ScrapePool::new(client.clone(), clock, report_sender), sources: source_pool };
    let aggregator_cancel = CancellationToken::new();
    let aggregator = Aggregator::new(clock, scrapers, targets.clone(), metrics.clone())
        .telling(cluster.as_ref().map(|cluster| cluster.troubles.clone()));
    let (asking, debug_requests) = mpsc::channel(1);
    let inbox = Inbox { fleet, registrations, debug_requests, reports, sources };
    let aggregator = tasks.part("aggregator", aggregator.run(inbox, aggregator_cancel.clone()));
    if let Some(discovery) = file_discovery {
        tasks.part("endpoints file", discovery);
    }

    let drain = CancellationToken::new();
    let scaler = Scaler::new(targets, clock, metrics.clone(), options.first_round, drain.clone());
    let service = tonic::service::Routes::new(ExternalScalerServer::new(scaler)).add_service(reflection);
    let opening = Opening {
        socket: sockets.grpc,
        service: service.prepare(),
        gate: life.gates.gate("listener", "what is served"),
        served: CancellationToken::new(),
        tasks: tasks.clone(),
    };
    if let Some(cluster) = &cluster {
        let served = opening.served.clone();
        let port = addresses.grpc.port();
        let provisioning = cluster.provision(port, served, metrics.clone(), life.writers.clone());
        tasks.part("provisioning", provisioning);
        tasks.part("wake source probes", cluster.probe(client.clone(), directory, &life));
    }
    let (opened, serving) = oneshot::channel();
    let waits_for_nothing = cluster.is_none();
    let opening = tasks.job("opening of the gRPC listener", opening.open(cluster, cancel.clone(), opened));
    if waits_for_nothing {
        // Whoever started this can connect when it returns. How it ended is known to `tasks`.
        let _ = opening.await;
    }
    let health_serving = serve_health(sockets.health, &life);
    let admin = Admin { metrics, readiness: life.gates.readiness(), debug_requests: asking };
    serve_pages(sockets.metrics, admin, &life);
    let Addresses { grpc, metrics, health } = addresses;
    info!(%grpc, %metrics, %health, "started");
    Ok(Running {
        addresses,
        shutdown_delay: options.shutdown_delay,
        life,
        serving,
        health_serving,
        drain,
        aggregator,
        aggregator_cancel,
    })
}

/// The client that fetches every page.
fn page_client(options: &RunOptions) -> Result<PageClient, StartError> {
    let client = PageClient::new(options.page_limit).map_err(|source| StartError::Client { source })?;
    client.with_authorities(options.wake_authorities.clone()).map_err(StartError::WakeClient)
}

/// What is read when a page of our own metrics is asked for.
fn collectors(targets: Targets, cluster: Option<&Cluster>, life: &Life) -> Vec<Box<dyn Collector>> {
    let mut collectors = vec![targets::collector(targets)];
    collectors.extend(cluster.map(Cluster::collector));
    collectors.push(Box::new(GateCollector(life.gates.readiness())));
    collectors.push(life.tasks.collector());
    collectors
}

/// gRPC health, which follows readiness.
fn serve_health(socket: TcpListener, life: &Life) -> Serving {
    let (reporter, service) = health::service();
    let reporting = health::report(reporter, life.gates.readiness());
    life.tasks.part("health status", life.cancel.clone().run_until_cancelled_owned(reporting));
    Listener {
        name: "health listener",
        tasks: life.tasks.clone(),
        socket,
        security: Security::Plaintext,
        service,
        observer: Arc::new(()),
        limits: Limits::default(),
    }
    .serve()
}

/// The pages for people, probes and Prometheus.
fn serve_pages(socket: TcpListener, admin: Admin, life: &Life) {
    let stopped = life.cancel.clone().cancelled_owned();
    let routes = admin.routes(life.tasks.clone());
    life.tasks.part("pages", async move {
        // It retries what can go wrong with accepting, and ends only when told to.
        drop(axum::serve(socket, routes).with_graceful_shutdown(stopped).await);
    });
}

impl Running {
    /// Where the gRPC listener is, or will be.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.addresses.grpc
    }

    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.addresses.metrics
    }

    #[must_use]
    pub fn health_address(&self) -> SocketAddr {
        self.addresses.health
    }

    /// Resolves when a part has failed that the process can't do without.
    pub async fn failed(&self) -> Failure {
        self.life.tasks.failed().await
    }

    /// Resolves once the process is ready to be called.
    pub async fn ready(&self) {
        // The gates are kept: they can always open.
        let _ = self.life.gates.readiness().ready().await;
    }

    /// Stops: unready, no more writes, then serving on for the shutdown delay (until KEDA's Service has taken
    /// this pod out), then GOAWAY, the streams end with OK, no more is accepted, scrapers and
    /// aggregator last.
    pub async fn stop(self) {
        let delay = self.shutdown_delay;
        self.end(delay, GRACE).await;
    }

    /// Stops as far as that can be done at once: after a failure, what is left must not be waited
    /// for, and the other replicas answer.
    pub async fn abandon(self) {
        if tokio::time::timeout(ABANDONED, self.end(Duration::ZERO, ABANDONED)).await.is_err() {
            info!("stopped before everything had ended");
        }
    }

    async fn end(mut self, delay: Duration, grace: Duration) {
        let Life { gates, tasks, writers, cancel, .. } = self.life;
        tasks.stopping();
        gates.go_away();
        writers.cancel();
        let serving = match self.serving.try_recv() {
            Ok(serving) => {
                tokio::time::sleep(delay).await;
                Some(serving)
            }
            Err(TryRecvError::Empty) => {
                // It waits for certificates; nobody was served yet.
                cancel.cancel();
                self.serving.await.ok()
            }
            Err(TryRecvError::Closed) => None,
        };
        if let Some(serving) = serving {
            serving.goaway().await;
            self.drain.cancel();
            let grpc = serving.stop(grace).await;
            info!(?grpc, "the gRPC listener has stopped");
        }
        self.aggregator_cancel.cancel();
        if let Ok(Some(scrapers)) = self.aggregator.await {
            scrapers.shutdown().await;
        }
        cancel.cancel();
        self.health_serving.stop(grace).await;
        // A client that reads a page slowly must not keep the process.
        if tokio::time::timeout(grace, tasks.ended()).await.is_err() {
            info!(tasks = tasks.len(), "stopped before every task had ended");
        } else {
            info!("stopped");
        }
    }
}
