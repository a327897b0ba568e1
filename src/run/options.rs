//! What `run` is told, and why it may start nothing.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use thiserror::Error;

use super::cluster::ClusterOptions;
use crate::{
    cluster::client::ConnectError,
    discovery::file::FileError,
    scrape::{ClientError, DEFAULT_MAX_BODY},
};
use scaler_core::wake::pace::Pace;

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
    /// `flag` says where.
    #[error("{flag}: failed to listen on {address} for {what}")]
    Listen { flag: &'static str, what: &'static str, address: SocketAddr, source: io::Error },
    #[error("{one} and {other} are both {port}, but must be different ports")]
    SamePort { one: &'static str, other: &'static str, port: u16 },
    #[error("failed to make the HTTP client")]
    Client { source: ClientError },
    #[error(transparent)]
    WakeClient(ClientError),
    #[error("failed to describe the protocol for reflection")]
    Reflection { source: tonic_reflection::server::Error },
}
