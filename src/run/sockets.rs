//! The sockets of the three listeners.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::{TcpListener, TcpSocket};

use super::{RunOptions, StartError};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub grpc: SocketAddr,
    pub metrics: SocketAddr,
    pub health: SocketAddr,
}

/// Every socket. The one for gRPC is bound and does not listen yet.
pub(super) struct Sockets {
    pub grpc: TcpSocket,
    pub metrics: TcpListener,
    pub health: TcpListener,
    pub addresses: Addresses,
}

impl Sockets {
    pub(super) fn bind(options: &RunOptions) -> Result<Self, StartError> {
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

pub(super) fn listen(what: &'static str, socket: TcpSocket) -> Result<TcpListener, StartError> {
    let address = local_address(&socket);
    socket.listen(BACKLOG).map_err(|source| StartError::Listen { what, address, source })
}

/// The address of a bound socket; one that is bound has one.
fn local_address(socket: &TcpSocket) -> SocketAddr {
    socket.local_addr().unwrap_or_else(|_| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))
}
