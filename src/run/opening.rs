//! The gRPC listener, from a bound socket to an open one.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{cluster::Cluster, sockets::GrpcSocket};
use crate::{
    pki::presented::Presented,
    readiness::Gate,
    serve::listener::{Limits, Listener, Observe, Peer, Security, Serving},
    tasks::{Failure, Tasks},
};

const NAME: &str = "gRPC listener";

/// Tells what the listener's clients present.
struct Clients(Arc<Presented>);

impl Observe for Clients {
    fn opened(&self, peer: &Arc<Peer>) {
        self.0.opened(peer.connection, &peer.certificates);
    }

    fn closed(&self, peer: &Arc<Peer>) {
        self.0.closed(peer.connection);
    }

    fn plaintext_client(&self, address: IpAddr) {
        self.0.plaintext_client(address);
    }
}

/// The gRPC listener before it opens.
pub(super) struct Opening {
    pub socket: GrpcSocket,
    pub service: tonic::service::Routes,
    pub gate: Gate,
    /// Cancelled once the listener is open.
    pub served: CancellationToken,
    pub tasks: Tasks,
}

impl Opening {
    /// Opens the listener once there is something to serve it with, and tells `opened`.
    pub(super) async fn open(
        self,
        mut cluster: Option<Cluster>,
        cancel: CancellationToken,
        opened: oneshot::Sender<Serving>,
    ) {
        let (security, observer): (_, Arc<dyn Observe>) = match &mut cluster {
            None => (Security::Plaintext, Arc::new(())),
            Some(cluster) => {
                let certified = cancel.run_until_cancelled(cluster.certified()).await;
                let Some(config) = certified.flatten() else { return };
                (Security::Tls(config), Arc::new(Clients(cluster.presented.clone())))
            }
        };
        let socket = match self.socket.listen() {
            Ok(socket) => socket,
            Err(error) => {
                return self.tasks.fail(Failure::Failed { part: NAME, error: crate::error_chain(&error) });
            }
        };
        let (service, limits) = (self.service, Limits::default());
        let serving =
            Listener { name: NAME, tasks: self.tasks, socket, security, service, observer, limits }.serve();
        // Whoever started this may have gone; then the listener goes with the process.
        let _ = opened.send(serving);
        self.gate.open();
        self.served.cancel();
    }
}
