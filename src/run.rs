//! Wiring: what `run` starts, in which order, and in which order it stops.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    aggregator::{Aggregator, GatewaySettings, Inbox},
    clock::Clock,
    core::tenancy::Tenancy,
    discovery::file::{self, EndpointsFile, FileError},
    metrics::Metrics,
    proto::{FILE_DESCRIPTOR_SET, external_scaler_server::ExternalScalerServer},
    readiness::Gates,
    scrape::{DEFAULT_MAX_BODY, GatewayPool, PageClient, ScrapePool, Scrapers},
    serve::{
        admin::Admin,
        health,
        listener::{Limits, Listener, Security, Serving},
        scaler::Scaler,
    },
    targets::Targets,
};

/// What `run` is told.
#[derive(Clone, Debug)]
pub struct RunOptions {
    pub endpoints_file: PathBuf,
    pub bind_address: IpAddr,
    /// Each port may be 0: any that is free.
    pub grpc_port: u16,
    pub metrics_port: u16,
    pub grpc_health_port: u16,
    /// Serve without TLS; only on a loopback address.
    pub insecure_grpc: bool,
    /// For how long to serve on, unready, before clients are told to go elsewhere.
    pub shutdown_delay: Duration,
    /// How long the first call for a target waits for its first round of scrapes.
    pub first_round: Duration,
    pub gateway: GatewaySettings,
    /// The largest page that is read, in bytes.
    pub page_limit: usize,
}

impl RunOptions {
    /// Plaintext on loopback, any ports, no delay on shutdown: for tests and the demo.
    #[must_use]
    pub fn for_file(endpoints_file: PathBuf) -> Self {
        Self {
            endpoints_file,
            bind_address: Ipv4Addr::LOCALHOST.into(),
            grpc_port: 0,
            metrics_port: 0,
            grpc_health_port: 0,
            insecure_grpc: true,
            shutdown_delay: Duration::ZERO,
            first_round: Duration::from_millis(900),
            gateway: GatewaySettings::default(),
            page_limit: DEFAULT_MAX_BODY,
        }
    }
}

/// Why nothing was started.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("there is no TLS without a cluster: give --insecure-grpc to serve plaintext on loopback")]
    NoTls,
    #[error("--insecure-grpc serves only a loopback address, and --bind-address is {0}")]
    InsecureAddress(IpAddr),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("failed to listen on {address} for {what}")]
    Listen { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("failed to make the HTTP client")]
    Client { source: crate::scrape::ClientError },
    #[error("failed to describe the protocol for reflection")]
    Reflection { source: tonic_reflection::server::Error },
}

/// The engine at work. Ends only through [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    grpc: SocketAddr,
    metrics: SocketAddr,
    health: SocketAddr,
    shutdown_delay: Duration,
    gates: Gates,
    serving: Serving,
    health_serving: Serving,
    /// Ends the streams.
    drain: CancellationToken,
    /// Ends discovery and the pages for people.
    cancel: CancellationToken,
    tasks: TaskTracker,
    aggregator: JoinHandle<Scrapers>,
    aggregator_cancel: CancellationToken,
}

/// How long clients may take to leave, once told to.
const GRACE: Duration = Duration::from_secs(5);
/// Scrape reports that may wait for the aggregator; a full queue slows the scrapers down.
const REPORTS: usize = 1024;

/// Starts everything. Nothing runs where this fails.
pub async fn start(options: RunOptions) -> Result<Running, StartError> {
    if !options.insecure_grpc {
        return Err(StartError::NoTls);
    }
    if !options.bind_address.is_loopback() {
        return Err(StartError::InsecureAddress(options.bind_address));
    }
    let clock = Clock::start();
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let gates = Gates::new();

    let (fleet_events, fleet) = mpsc::channel(64);
    let endpoints_file = EndpointsFile::new(options.endpoints_file.clone(), clock);
    let discovery = file::watch(endpoints_file, fleet_events, cancel.clone()).await?;

    let grpc = bind("gRPC", options.bind_address, options.grpc_port).await?;
    let metrics_socket = bind("metrics", options.bind_address, options.metrics_port).await?;
    let health_socket = bind("gRPC health", options.bind_address, options.grpc_health_port).await?;
    let addresses = [&grpc, &metrics_socket, &health_socket].map(local_address);

    let (command_sender, commands) = mpsc::unbounded_channel();
    // Whoever writes the file decides what is in it; there are no tenants to keep apart.
    let targets = Targets::new(command_sender.clone(), clock, Tenancy::AnyNamespace);
    let metrics = Metrics::new(targets.clone(), clock);

    let (report_sender, reports) = mpsc::channel(REPORTS);
    let (gateway_sender, gateways) = mpsc::channel(64);
    let client = PageClient::new(options.page_limit).map_err(|source| StartError::Client { source })?;
    let scrapers = Scrapers {
        pods: ScrapePool::new(client.clone(), clock, report_sender),
        gateways: GatewayPool::new(client, clock, gateway_sender),
    };

    let drain = CancellationToken::new();
    let scaler = Scaler::new(targets.clone(), clock, metrics.clone(), options.first_round, drain.clone());
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|source| StartError::Reflection { source })?;
    let service = tonic::service::Routes::new(ExternalScalerServer::new(scaler)).add_service(reflection);

    // From here on nothing fails.
    let aggregator_cancel = CancellationToken::new();
    let aggregator = Aggregator::new(clock, scrapers, targets, metrics.clone(), options.gateway);
    let inbox = Inbox { fleet, commands, reports, gateways };
    let aggregator = tasks.spawn(aggregator.run(inbox, aggregator_cancel.clone()));
    tasks.spawn(discovery);
    let serving = listener(grpc, service.prepare()).serve();
    let (reporter, health_service) = health::service();
    tasks.spawn({
        let (readiness, cancel) = (gates.readiness(), cancel.clone());
        async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = health::report(reporter, readiness) => {}
            }
        }
    });
    let health_serving = listener(health_socket, health_service).serve();
    let admin = Admin { metrics, readiness: gates.readiness(), commands: command_sender }.routes();
    let stopped = cancel.clone().cancelled_owned();
    tasks.spawn(async move {
        // Serving ends with an error only where the listener breaks; axum retries those.
        drop(axum::serve(metrics_socket, admin).with_graceful_shutdown(stopped).await);
    });
    let [grpc, metrics, health] = addresses;
    info!(%grpc, %metrics, %health, "serving");
    Ok(Running {
        grpc,
        metrics,
        health,
        shutdown_delay: options.shutdown_delay,
        gates,
        serving,
        health_serving,
        drain,
        cancel,
        tasks,
        aggregator,
        aggregator_cancel,
    })
}

fn listener(socket: TcpListener, service: tonic::service::Routes) -> Listener<tonic::service::Routes> {
    Listener {
        socket,
        security: Security::Plaintext,
        service,
        observer: Arc::new(()),
        limits: Limits::default(),
    }
}

async fn bind(what: &'static str, address: IpAddr, port: u16) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(address, port);
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { what, address, source })
}

/// The address a bound socket listens on; one that is bound has one.
fn local_address(socket: &TcpListener) -> SocketAddr {
    socket.local_addr().unwrap_or_else(|_| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))
}

impl Running {
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    #[must_use]
    pub fn health_address(&self) -> SocketAddr {
        self.health
    }

    /// Resolves when a part that the process can't do without has ended by itself.
    pub async fn broken(&self) {
        self.serving.ended().await;
    }

    /// Stops: unready, then serving on for the shutdown delay (until KEDA's Service has taken
    /// this pod out), then GOAWAY, the streams end with OK, no more is accepted, scrapers and
    /// aggregator last.
    pub async fn stop(self) {
        self.gates.go_away();
        tokio::time::sleep(self.shutdown_delay).await;
        self.serving.goaway().await;
        self.drain.cancel();
        let grpc = self.serving.stop(GRACE).await;
        self.aggregator_cancel.cancel();
        if let Ok(scrapers) = self.aggregator.await {
            scrapers.shutdown().await;
        }
        self.cancel.cancel();
        self.health_serving.stop(GRACE).await;
        self.tasks.close();
        self.tasks.wait().await;
        info!(?grpc, "stopped");
    }
}
