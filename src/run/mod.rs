//! Wiring: what `run` starts, in which order, and in which order it stops.

pub mod cluster;
mod notices;
pub(crate) mod scrapers;
mod teller;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use prometheus_client::collector::Collector;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use self::{
    cluster::{Cluster, ClusterOptions},
    notices::GateCollector,
    scrapers::Scrapers,
};
use crate::{
    aggregator::{Aggregator, Inbox},
    cluster::{
        client::{self, ConnectError},
        directory::Directory,
    },
    discovery::file::{self, EndpointsFile, FileError},
    metrics::Metrics,
    pki,
    readiness::{Gate, Gates},
    record::{RecordError, RecordOptions, Recorder},
    scrape::{ClientError, DEFAULT_MAX_BODY, PageClient, ScrapePool},
    serve::{
        admin::Admin,
        health,
        listener::{Limits, Listener, Observe, Security, Serving},
        scaler::Scaler,
    },
    targets::Targets,
    wake::{Reader, SourcePool},
};
use clock::Clock;
use keda_proto::{FILE_DESCRIPTOR_SET, external_scaler_server::ExternalScalerServer};
use scaler_core::{fleet::tenancy::Tenancy, wake::pace::Pace};

/// What `run` is told.
#[derive(Clone, Debug)]
pub struct RunOptions {
    pub source: Source,
    pub bind_address: IpAddr,
    /// Where the pages for people and Prometheus are; `None` is the bind address.
    pub metrics_bind_address: Option<IpAddr>,
    /// Each port may be 0: any that is free.
    pub grpc_port: u16,
    pub metrics_port: u16,
    pub grpc_health_port: u16,
    /// For how long to serve on, unready, before clients are told to go elsewhere.
    pub shutdown_delay: Duration,
    /// How long the first call for a target waits for its first round of scrapes.
    pub first_round: Duration,
    /// How often wake-up sources are read.
    pub wake_pace: Pace,
    /// Certificate authorities, besides the system's, that vouch for wake-up sources over https
    /// (PEM).
    pub wake_authorities: Option<PathBuf>,
    /// The largest page that is read, in bytes.
    pub page_limit: usize,
    /// Where traffic is recorded, if it is.
    pub record: Option<RecordOptions>,
}

/// Where endpoints come from, and with that how KEDA is served.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, and plaintext on a loopback address.
    File(PathBuf),
    /// The cluster, and mutual TLS with certificates from its Secrets.
    Cluster(Box<ClusterOptions>),
}

impl RunOptions {
    /// Plaintext on loopback, any ports, no delay on shutdown: for tests and the demo.
    #[must_use]
    pub fn for_file(endpoints_file: PathBuf) -> Self {
        Self {
            source: Source::File(endpoints_file),
            bind_address: Ipv4Addr::LOCALHOST.into(),
            metrics_bind_address: None,
            grpc_port: 0,
            metrics_port: 0,
            grpc_health_port: 0,
            shutdown_delay: Duration::ZERO,
            first_round: Duration::from_millis(900),
            wake_pace: Pace::default(),
            wake_authorities: None,
            page_limit: DEFAULT_MAX_BODY,
            record: None,
        }
    }
}

/// Why nothing was started.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("plaintext is served only on a loopback address, and --bind-address is {0}")]
    InsecureAddress(IpAddr),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    #[error("failed to listen on {address} for {what}")]
    Listen { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("failed to make the HTTP client")]
    Client { source: ClientError },
    #[error(transparent)]
    WakeClient(ClientError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("failed to describe the protocol for reflection")]
    Reflection { source: tonic_reflection::server::Error },
}

/// The engine at work. Ends only through [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    shutdown_delay: Duration,
    life: Life,
    /// The gRPC listener, once there is something to serve it with.
    serving: JoinHandle<Option<Arc<Serving>>>,
    health_serving: Serving,
    /// Ends the streams.
    drain: CancellationToken,
    /// Resolves when a part has ended by itself that the process can't do without.
    broken: CancellationToken,
    aggregator: JoinHandle<Scrapers>,
    aggregator_cancel: CancellationToken,
}

/// What every part is started with.
#[derive(Clone, Debug)]
struct Life {
    clock: Clock,
    gates: Gates,
    tasks: TaskTracker,
    /// Ends what writes to the cluster.
    writers: CancellationToken,
    /// Ends everything that is not ended in an order of its own.
    cancel: CancellationToken,
}

impl Life {
    fn begin() -> Self {
        let cancel = CancellationToken::new();
        Self {
            clock: Clock::start(),
            gates: Gates::new(),
            tasks: TaskTracker::new(),
            writers: cancel.child_token(),
            cancel,
        }
    }
}

/// How long clients may take to leave, once told to.
const GRACE: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
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
            cluster = Some((client::connect(&options.access).await?, options.as_ref().clone()));
        }
    }
    let sockets = Sockets::bind(&options)?;
    let addresses = sockets.addresses;
    let client = page_client(&options)?;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|source| StartError::Reflection { source })?;

    let record = Recorder::begin(options.record.clone(), tasks).await?;

    // From here on nothing fails.
    let (commands, command_inbox) = mpsc::unbounded_channel();
    // Whoever writes the file decides what is in it; there are no tenants to keep apart.
    let tenancy = cluster.as_ref().map_or(Tenancy::AnyNamespace, |(_, options)| options.tenancy);
    let targets = Targets::new(commands, clock, tenancy);
    let directory = Directory::default();
    let cluster = cluster
        .map(|(client, options)| cluster::begin(client, options, fleet_events, directory.clone(), &life));
    let metrics = Metrics::with_collectors(targets.clone(), clock, collectors(cluster.as_ref(), &life));

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
        .recording(record)
        .telling(cluster.as_ref().map(|cluster| cluster.troubles.clone()));
    let (questions, question_inbox) = mpsc::channel(1);
    let inbox = Inbox { fleet, commands: command_inbox, questions: question_inbox, reports, sources };
    let broken = CancellationToken::new();
    let aggregating = aggregator.run(inbox, aggregator_cancel.clone());
    let aggregator = tasks.spawn(supervised(aggregating, broken.clone()));
    if let Some(discovery) = file_discovery {
        tasks.spawn(supervised(discovery, broken.clone()));
    }

    let drain = CancellationToken::new();
    let scaler = Scaler::new(targets, clock, metrics.clone(), options.first_round, drain.clone());
    let service = tonic::service::Routes::new(ExternalScalerServer::new(scaler)).add_service(reflection);
    let opening = Opening {
        socket: sockets.grpc,
        service: service.prepare(),
        gate: life.gates.gate("listener", "what is served"),
        broken: broken.clone(),
        served: CancellationToken::new(),
        tasks: tasks.clone(),
    };
    if let Some(cluster) = &cluster {
        let served = opening.served.clone();
        let port = addresses.grpc.port();
        tasks.spawn(cluster.provision(port, served, metrics.clone(), life.writers.clone()));
        tasks.spawn(cluster.probe(client.clone(), directory, &life));
    }
    let serving = if cluster.is_some() {
        tasks.spawn(opening.open(cluster, cancel.clone()))
    } else {
        // Nothing to wait for: whoever started this can connect when it returns.
        let opened = opening.open(None, cancel.clone()).await;
        tasks.spawn(std::future::ready(opened))
    };
    let health_serving = serve_health(sockets.health, &life);
    let admin = Admin { metrics, readiness: life.gates.readiness(), questions };
    serve_pages(sockets.metrics, admin, &life);
    info!(grpc = %addresses.grpc, metrics = %addresses.metrics, health = %addresses.health, "started");
    Ok(Running {
        addresses,
        shutdown_delay: options.shutdown_delay,
        life,
        serving,
        health_serving,
        drain,
        broken,
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
fn collectors(cluster: Option<&Cluster>, life: &Life) -> Vec<Box<dyn Collector>> {
    let mut collectors: Vec<_> = cluster.map(Cluster::collector).into_iter().collect();
    collectors.push(Box::new(GateCollector(life.gates.readiness())));
    collectors
}

/// Runs `part`; where it panics, `broken` is cancelled.
async fn supervised<T>(part: impl Future<Output = T>, broken: CancellationToken) -> T {
    let guard = broken.drop_guard();
    let ended = part.await;
    // Reached only where it ended by itself: a panic drops the guard armed.
    guard.disarm();
    ended
}

/// gRPC health, which follows readiness.
fn serve_health(socket: TcpListener, life: &Life) -> Serving {
    let (reporter, service) = health::service();
    let reporting = health::report(reporter, life.gates.readiness());
    life.tasks.spawn(life.cancel.clone().run_until_cancelled_owned(reporting));
    let (security, observer, limits) = (Security::Plaintext, Arc::new(()), Limits::default());
    Listener { socket, security, service, observer, limits }.serve()
}

/// The pages for people, probes and Prometheus.
fn serve_pages(socket: TcpListener, admin: Admin, life: &Life) {
    let stopped = life.cancel.clone().cancelled_owned();
    life.tasks.spawn(async move {
        // It retries what can go wrong with accepting, and ends only when told to.
        drop(axum::serve(socket, admin.routes()).with_graceful_shutdown(stopped).await);
    });
}

/// The gRPC listener before it opens.
struct Opening {
    socket: TcpSocket,
    service: tonic::service::Routes,
    gate: Gate,
    broken: CancellationToken,
    /// Cancelled once the listener is open.
    served: CancellationToken,
    tasks: TaskTracker,
}

impl Opening {
    /// Opens the listener once there is something to serve it with; `None` where that never
    /// came.
    async fn open(self, mut cluster: Option<Cluster>, cancel: CancellationToken) -> Option<Arc<Serving>> {
        let (security, observer): (_, Arc<dyn Observe>) = match &mut cluster {
            None => (Security::Plaintext, Arc::new(())),
            Some(cluster) => {
                let certified = cancel.run_until_cancelled(cluster.certified()).await;
                (Security::Tls(certified.flatten()?), cluster.presented.clone())
            }
        };
        let socket = match listen("gRPC", self.socket) {
            Ok(socket) => socket,
            Err(error) => {
                error!(error = crate::error_chain(&error), "nothing can be served");
                self.broken.cancel();
                return None;
            }
        };
        let (service, limits) = (self.service, Limits::default());
        let serving = Arc::new(Listener { socket, security, service, observer, limits }.serve());
        let (watched, broken) = (serving.clone(), self.broken);
        self.tasks.spawn(async move {
            watched.ended().await;
            broken.cancel();
        });
        self.gate.open();
        self.served.cancel();
        Some(serving)
    }
}

#[derive(Clone, Copy, Debug)]
struct Addresses {
    grpc: SocketAddr,
    metrics: SocketAddr,
    health: SocketAddr,
}

/// Every socket. The one for gRPC is bound and does not listen yet.
struct Sockets {
    grpc: TcpSocket,
    metrics: TcpListener,
    health: TcpListener,
    addresses: Addresses,
}

impl Sockets {
    fn bind(options: &RunOptions) -> Result<Self, StartError> {
        let metrics_address = options.metrics_bind_address.unwrap_or(options.bind_address);
        let grpc = bind("gRPC", options.bind_address, options.grpc_port)?;
        let metrics = bind("metrics", metrics_address, options.metrics_port)?;
        let health = bind("gRPC health", options.bind_address, options.grpc_health_port)?;
        let addresses = Addresses {
            grpc: local_address(&grpc),
            metrics: local_address(&metrics),
            health: local_address(&health),
        };
        let (metrics, health) = (listen("metrics", metrics)?, listen("gRPC health", health)?);
        Ok(Self { grpc, metrics, health, addresses })
    }
}

/// A socket that is bound and does not listen yet.
fn bind(what: &'static str, address: IpAddr, port: u16) -> Result<TcpSocket, StartError> {
    let address = SocketAddr::new(address, port);
    let bound = |address: SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for the connections of its predecessor to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    let everywhere = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    bound(address)
        .or_else(|error: io::Error| match error.kind() {
            // A node may have IPv6 switched off.
            kind if everywhere && kind != io::ErrorKind::AddrInUse => {
                bound(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
            }
            _ => Err(error),
        })
        .map_err(|source| StartError::Listen { what, address, source })
}

fn listen(what: &'static str, socket: TcpSocket) -> Result<TcpListener, StartError> {
    let address = local_address(&socket);
    socket.listen(BACKLOG).map_err(|source| StartError::Listen { what, address, source })
}

/// The address of a bound socket; one that is bound has one.
fn local_address(socket: &TcpSocket) -> SocketAddr {
    socket.local_addr().unwrap_or_else(|_| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))
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

    /// Resolves when a part has ended by itself that the process can't do without.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Stops: unready, no more writes, then serving on for the shutdown delay (until KEDA's Service has taken
    /// this pod out), then GOAWAY, the streams end with OK, no more is accepted, scrapers and
    /// aggregator last.
    pub async fn stop(self) {
        self.life.gates.go_away();
        self.life.writers.cancel();
        if self.serving.is_finished() {
            tokio::time::sleep(self.shutdown_delay).await;
        } else {
            // It waits for certificates; nobody was served yet.
            self.life.cancel.cancel();
        }
        if let Ok(Some(serving)) = self.serving.await {
            serving.goaway().await;
            self.drain.cancel();
            let grpc = serving.stop(GRACE).await;
            info!(?grpc, "the gRPC listener has stopped");
        }
        self.aggregator_cancel.cancel();
        if let Ok(scrapers) = self.aggregator.await {
            scrapers.shutdown().await;
        }
        self.life.cancel.cancel();
        self.health_serving.stop(GRACE).await;
        self.life.tasks.close();
        // A client that reads a page slowly must not keep the process.
        if tokio::time::timeout(GRACE, self.life.tasks.wait()).await.is_err() {
            info!(tasks = self.life.tasks.len(), "stopped before every task had ended");
        } else {
            info!("stopped");
        }
    }
}
