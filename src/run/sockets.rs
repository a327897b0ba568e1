//! The sockets of the three listeners.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::{TcpListener, TcpSocket};

use super::options::{RunOptions, Source, StartError};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub grpc: SocketAddr,
    pub metrics: SocketAddr,
    pub health: SocketAddr,
}

/// Every socket.
pub(super) struct Sockets {
    pub grpc: GrpcSocket,
    pub metrics: TcpListener,
    pub health: TcpListener,
    pub addresses: Addresses,
}

/// What one listener is for, and the flags that say where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    what: &'static str,
    address_flag: &'static str,
    port_flag: &'static str,
    address: SocketAddr,
}

/// The socket for gRPC.
#[derive(Debug)]
pub(super) enum GrpcSocket {
    Listening(TcpListener),
    /// Bound, and refusing connections: in a cluster nothing is served without certificates.
    Bound(TcpSocket, Place),
}

impl GrpcSocket {
    pub(super) fn listen(self) -> Result<TcpListener, StartError> {
        match self {
            Self::Listening(listener) => Ok(listener),
            Self::Bound(socket, place) => place.listen(socket),
        }
    }
}

impl Sockets {
    /// Takes every address. Whatever can fail now does: only a listener for gRPC that opens later
    /// can still find that another process was faster.
    pub(super) fn bind(options: &RunOptions) -> Result<Self, StartError> {
        let [grpc, metrics, health] = places(options);
        for (one, other) in [(grpc, metrics), (grpc, health), (metrics, health)] {
            if one.overlaps(other) {
                let (one, other) = (one.port_flag, other.port_flag);
                return Err(StartError::SamePort { one, other, port: grpc.address.port() });
            }
        }
        let (grpc_socket, metrics_socket, health_socket) = (grpc.bind()?, metrics.bind()?, health.bind()?);
        let addresses = Addresses {
            grpc: local_address(&grpc_socket),
            metrics: local_address(&metrics_socket),
            health: local_address(&health_socket),
        };
        let grpc = match options.source {
            Source::File(_) => GrpcSocket::Listening(grpc.listen(grpc_socket)?),
            Source::Cluster(_) => GrpcSocket::Bound(grpc_socket, grpc),
        };
        let (metrics, health) = (metrics.listen(metrics_socket)?, health.listen(health_socket)?);
        Ok(Self { grpc, metrics, health, addresses })
    }
}

/// The places of gRPC, of the pages and of gRPC health.
fn places(options: &RunOptions) -> [Place; 3] {
    let everything = (options.bind_address, "--bind-address");
    let pages =
        options.metrics_bind_address.map_or(everything, |address| (address, "--metrics-bind-address"));
    let place = |what, (address, address_flag), port_flag, port| Place {
        what,
        address_flag,
        port_flag,
        address: SocketAddr::new(address, port),
    };
    [
        place("gRPC", everything, "--grpc-port", options.grpc_port),
        place("metrics", pages, "--metrics-port", options.metrics_port),
        place("gRPC health", everything, "--grpc-health-port", options.grpc_health_port),
    ]
}

impl Place {
    /// Whether both can't be had at once.
    fn overlaps(self, other: Self) -> bool {
        let (one, other) = (self.address, other.address);
        let same_address = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
        one.port() != 0 && one.port() == other.port() && same_address
    }

    /// A socket that is bound and does not listen yet.
    fn bind(self) -> Result<TcpSocket, StartError> {
        let bound = |address: SocketAddr| {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A restart must not wait for the connections of its predecessor to be forgotten.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(socket)
        };
        let everywhere = self.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        bound(self.address)
            .or_else(|error: io::Error| match error.kind() {
                // A node may have IPv6 switched off.
                kind if everywhere && kind != io::ErrorKind::AddrInUse => {
                    bound(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.address.port()))
                }
                _ => Err(error),
            })
            .map_err(|source| self.failed(source))
    }

    fn listen(self, socket: TcpSocket) -> Result<TcpListener, StartError> {
        socket.listen(BACKLOG).map_err(|source| self.failed(source))
    }

    fn failed(self, source: io::Error) -> StartError {
        let Self { what, address_flag, port_flag, address } = self;
        let flag = if source.kind() == io::ErrorKind::AddrNotAvailable { address_flag } else { port_flag };
        StartError::Listen { flag, what, address, source }
    }
}

/// The address of a bound socket; one that is bound has one.
fn local_address(socket: &TcpSocket) -> SocketAddr {
    socket.local_addr().unwrap_or_else(|_| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn one_port_can_be_had_once_on_an_address() {
        let at = |address: &str, port| {
            let what = "gRPC";
            let address = SocketAddr::new(address.parse().unwrap(), port);
            Place { what, address_flag: "--bind-address", port_flag: "--grpc-port", address }
        };
        for (one, other, overlap) in [
            (at("127.0.0.1", 1), at("127.0.0.1", 1), true),
            (at("127.0.0.1", 1), at("127.0.0.1", 2), false),
            (at("127.0.0.1", 1), at("127.0.0.2", 1), false),
            (at("127.0.0.1", 1), at("0.0.0.0", 1), true),
            (at("::", 1), at("127.0.0.1", 1), true),
            (at("127.0.0.1", 0), at("127.0.0.1", 0), false),
        ] {
            assert_eq!((one.overlaps(other), other.overlaps(one)), (overlap, overlap), "{one:?} {other:?}");
        }
    }

    /// Two that are bound and do not listen can have one address; the first to listen keeps it.
    #[tokio::test]
    async fn an_address_that_is_lost_before_the_listener_opens_is_named() {
        let mut options = RunOptions::for_file(PathBuf::new());
        let first = places(&options)[0].bind().unwrap();
        options.grpc_port = local_address(&first).port();
        let place = places(&options)[0];
        let second = place.bind().unwrap();
        let _first = first.listen(1).unwrap();
        let error = GrpcSocket::Bound(second, place).listen().unwrap_err();
        let said = crate::error_chain(&error);
        let expected =
            format!("--grpc-port: failed to listen on 127.0.0.1:{} for gRPC: Address", options.grpc_port);
        assert!(said.starts_with(&expected), "{said}");
    }
}
