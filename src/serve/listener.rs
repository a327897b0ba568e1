//! The gRPC listener: TCP, TLS where asked for, HTTP/2, and a shutdown that tells every
//! client to leave before its streams end.
//!
//! KEDA keeps one connection for everything, so a connection has no age limit and practically
//! no stream limit. Whoever has not yet said anything valid costs nobody else anything: each
//! admission runs in a task of its own and within [`Limits`].
//!
//! The steps of a shutdown are the caller's, in this order: [`Serving::goaway`] (every
//! connection has been told to go elsewhere for new calls), then end the open streams, then
//! [`Serving::stop`]. Ending streams first would make KEDA reopen them right here.

mod admission;
pub(super) mod connection;

use std::{
    collections::{BTreeSet, VecDeque},
    convert::Infallible,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::Instant,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tower::Service;
use tracing::{debug, warn};

use crate::tasks::Tasks;

pub use admission::Refusal;

/// How many addresses are remembered as having spoken plaintext to the TLS port.
const REMEMBERED_ADDRESSES: usize = 1024;

/// The pause after an accept that failed for want of file descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// What wraps a connection.
#[derive(Clone)]
pub enum Security {
    Plaintext,
    /// The configuration is taken anew for each handshake; connections that are up keep theirs.
    /// It must offer `h2` by ALPN.
    Tls(Arc<ArcSwap<ServerConfig>>),
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plaintext => "Plaintext",
            Self::Tls(_) => "Tls",
        })
    }
}

/// The client at the other end of an admitted connection. Every request carries it as an
/// extension of type `Arc<Peer>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Counts up from 0 with each connection of this listener that was accepted.
    pub connection: u64,
    pub address: SocketAddr,
    /// The verified chain as the client sent it, its leaf first; empty in plaintext.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// What peers may cost before they are admitted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time from accept to the end of the HTTP/2 preface, TLS handshake included.
    pub admission: Duration,
    /// How many peers may be that far at a time. One more and the oldest of them is dropped:
    /// silent peers then push out each other, while KEDA's handshake, a few milliseconds long,
    /// gets through. It also bounds the file descriptors that they can hold.
    pub pending: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { admission: Duration::from_secs(2), pending: 512 }
    }
}

/// Hears of what happens to connections. Called from the connections' tasks: it must not block.
pub trait Observe: Send + Sync + 'static {
    /// The peer was admitted: its calls can come.
    fn opened(&self, _peer: &Arc<Peer>) {}
    /// A connection that was reported as opened has ended.
    fn closed(&self, _peer: &Arc<Peer>) {}
    /// The peer was turned away.
    fn refused(&self, _address: SocketAddr, _refusal: &Refusal) {}
    /// A client speaks plaintext HTTP/2 to the TLS port: it does not know that it needs
    /// certificates. Reported once for an address, until that address gets in over TLS.
    fn plaintext_client(&self, _address: IpAddr) {}
}

/// Observes nothing.
impl Observe for () {}

/// A bound socket and what is to be served on it.
pub struct Listener<S> {
    /// Under which it fails.
    pub name: &'static str,
    pub tasks: Tasks,
    pub socket: TcpListener,
    pub security: Security,
    pub service: S,
    pub observer: Arc<dyn Observe>,
    pub limits: Limits,
}

impl<S> fmt::Debug for Listener<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, socket, security, limits, .. } = self;
        f.debug_struct("Listener")
            .field("name", name)
            .field("socket", socket)
            .field("security", security)
            .field("limits", limits)
            .finish_non_exhaustive()
    }
}

impl<S, B> Listener<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Starts to accept, in tasks on the current runtime.
    #[must_use]
    pub fn serve(self) -> Serving {
        let shared = Arc::new(Shared {
            security: self.security,
            observer: self.observer,
            limits: self.limits,
            steps: Steps::new(&self.tasks),
            speaking_plaintext: Mutex::default(),
        });
        shared.steps.tasks.part(self.name, accept(self.socket, self.service, Arc::clone(&shared)));
        Serving { shared }
    }
}

/// A listener at work. Dropping it without [`Serving::stop`] leaves the listener running.
#[derive(Debug)]
pub struct Serving {
    shared: Arc<Shared>,
}

/// How the last connections ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every client had left.
    Drained,
    /// The time was up and these many connections were cut.
    Cut { connections: usize },
}

impl Serving {
    /// Tells every client to use another connection for its next calls (HTTP/2 GOAWAY); calls
    /// and streams that are open stay open. Resolves once all that are connected have been told,
    /// so that whatever is sent on their streams afterwards comes after it; does not wait for
    /// a peer that reads nothing.
    ///
    /// A connection that comes later is told the same on arrival: the calls it sent along are
    /// answered, then it has to dial again, by when the Service leads elsewhere.
    pub async fn goaway(&self) {
        self.shared.steps.goaway.cancel();
        self.shared.steps.untold.close();
        self.shared.steps.untold.wait().await;
    }

    /// Stops accepting, drops peers that are not admitted yet, and waits for the connections to
    /// end, at most `grace` long; then cuts those that are left. Includes [`Self::goaway`].
    pub async fn stop(&self, grace: Duration) -> Stopped {
        let steps = &self.shared.steps;
        steps.goaway.cancel();
        steps.stop.cancel();
        if tokio::time::timeout(grace, steps.tasks.ended()).await.is_ok() {
            return Stopped::Drained;
        }
        let connections = self.connections();
        steps.cut.cancel();
        steps.tasks.ended().await;
        Stopped::Cut { connections }
    }

    /// The number of admitted connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.steps.admitted.len()
    }
}

/// What all tasks of one listener share.
#[derive(Debug)]
struct Shared {
    security: Security,
    observer: Arc<dyn Observe>,
    limits: Limits,
    steps: Steps,
    speaking_plaintext: Mutex<BTreeSet<IpAddr>>,
}

impl fmt::Debug for dyn Observe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observe")
    }
}

impl Shared {
    fn refused(&self, address: SocketAddr, refusal: &Refusal) {
        debug!(%address, error = refusal as &dyn std::error::Error, "peer refused");
        self.observer.refused(address, refusal);
        if matches!(refusal, Refusal::PlaintextClient) {
            let mut known = self.speaking_plaintext.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED_ADDRESSES {
                known.clear();
            }
            let is_new = known.insert(address.ip());
            drop(known);
            if is_new {
                warn!(address = %address.ip(), "client speaks plaintext to the TLS port");
                self.observer.plaintext_client(address.ip());
            }
        }
    }

    fn opened(&self, peer: &Arc<Peer>) {
        self.speaking_plaintext.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer.address.ip());
        self.observer.opened(peer);
    }
}

/// The steps of a shutdown, and who is still to take them.
#[derive(Debug)]
struct Steps {
    goaway: CancellationToken,
    /// A token for each connection that was not told to go away yet.
    untold: TaskTracker,
    /// A token for each admitted connection.
    admitted: TaskTracker,
    /// No peer is let in any more.
    stop: CancellationToken,
    /// What is still connected is cut.
    cut: CancellationToken,
    /// The accept loop, every connection, every request.
    tasks: Tasks,
}

impl Steps {
    fn new(tasks: &Tasks) -> Self {
        let stop = CancellationToken::new();
        Self {
            goaway: CancellationToken::new(),
            untold: TaskTracker::new(),
            admitted: TaskTracker::new(),
            tasks: tasks.group(stop.clone()),
            stop,
            cut: CancellationToken::new(),
        }
    }
}

/// Held by a connection from its admission to its end.
struct Admitted {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    _counted: TaskTrackerToken,
}

impl Admitted {
    fn new(shared: Arc<Shared>, peer: Arc<Peer>) -> Self {
        shared.opened(&peer);
        Self { _counted: shared.steps.admitted.token(), shared, peer }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shared.observer.closed(&self.peer);
    }
}

/// The place of a peer among those that are not admitted yet: dropping the sender ends it.
type Place = oneshot::Sender<Infallible>;

/// Makes room for one more by dropping the oldest, where there is none.
fn make_room(pending: &mut VecDeque<Place>, limit: usize) {
    if pending.len() >= limit {
        pending.retain(|place| !place.is_closed());
    }
    if pending.len() >= limit {
        pending.pop_front();
    }
}

async fn accept<S, B>(socket: TcpListener, service: S, shared: Arc<Shared>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut pending: VecDeque<Place> = VecDeque::new();
    let mut next_connection = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.steps.stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if ended_before_accept(&error) => continue,
            Err(error) => {
                warn!(%error, "failed to accept a connection");
                pending.pop_front();
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        make_room(&mut pending, shared.limits.pending);
        let (place, displaced) = oneshot::channel();
        pending.push_back(place);
        let arrival = Arrival { stream, address, connection: next_connection, at: Instant::now() };
        next_connection += 1;
        let connection = connection::run(arrival, displaced, service.clone(), Arc::clone(&shared));
        shared.steps.tasks.contained("gRPC connection", connection);
    }
}

/// A peer that was accepted and has said nothing yet.
struct Arrival {
    stream: TcpStream,
    address: SocketAddr,
    connection: u64,
    at: Instant,
}

/// Errors of accept(2) that belong to the connection, not to the listener.
fn ended_before_accept(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests;
