//! One connection, from admission to its end.

use std::{convert::Infallible, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures::poll;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    rt::Executor,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::oneshot, time::timeout_at};
use tonic::transport::server::TcpConnectInfo;
use tower::{Service, ServiceExt as _};
use tracing::debug;

use super::{Admitted, Arrival, Peer, Refusal, Shared, admission};
use crate::tasks::Tasks;

/// One connection carries a stream for each push trigger of the cluster, so the limit is there
/// to bound memory, not to be met.
const CONCURRENT_STREAMS: u32 = 100_000;

/// A ping after this long without a frame, and the connection's end where no answer comes in
/// [`KEEPALIVE_TIMEOUT`]: a client whose node is gone would otherwise hold its streams for ever.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client may send unread on one stream. Requests are a few hundred bytes.
const STREAM_WINDOW: u32 = 64 << 10;
/// What a client may send unread on all its streams together.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What one stream may hold back for a client that does not read, however large its window.
const SEND_BUFFER: usize = 64 << 10;
/// The metadata of a call; a ScaledObject's trigger travels in the message.
const HEADER_LIST: u32 = 16 << 10;

/// Streams that a client reset before we looked at them. KEDA cancels all it has opened at
/// once where a context ends; endless resets (CVE-2023-44487) still end the connection.
const PENDING_RESETS: usize = 1_000;

/// Serves one peer. `displaced` fires where the peer has to make room before it is admitted.
pub(super) async fn run<S, B>(
    arrival: Arrival,
    displaced: oneshot::Receiver<Infallible>,
    service: S,
    shared: Arc<Shared>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Arrival { stream, address, connection, at } = arrival;
    let local_addr = stream.local_addr().ok();
    let admitted = tokio::select! {
        biased;
        () = shared.steps.stop.cancelled() => Err(Refusal::Stopping),
        admitted = timeout_at(at + shared.limits.admission, admission::admit(stream, &shared.security)) => {
            admitted.unwrap_or(Err(Refusal::TooSlow))
        }
        _ = displaced => Err(Refusal::Displaced),
    };
    let (io, certificates) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => return shared.refused(address, &refusal),
    };
    let peer = Arc::new(Peer { connection, address, certificates });
    let admitted = Admitted::new(shared, Arc::clone(&peer));
    let steps = &admitted.shared.steps;
    let untold = steps.untold.token();

    let tcp_info = TcpConnectInfo { local_addr, remote_addr: Some(address) };
    let served = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&peer));
        request.extensions_mut().insert(tcp_info.clone());
        service.clone().oneshot(request)
    });
    let served = http2(steps.tasks.clone()).serve_connection(TokioIo::new(io), served);
    let mut served = pin!(served);
    let ended = tokio::select! {
        biased;
        () = steps.cut.cancelled() => None,
        () = steps.goaway.cancelled() => {
            served.as_mut().graceful_shutdown();
            // This poll writes the GOAWAY, ahead of all that the streams say from here on.
            let at_once = poll!(served.as_mut());
            drop(untold);
            match at_once {
                Poll::Ready(ended) => Some(ended),
                Poll::Pending => tokio::select! {
                    () = steps.cut.cancelled() => None,
                    ended = served => Some(ended),
                },
            }
        }
        ended = served.as_mut() => Some(ended),
    };
    if let Some(Err(error)) = ended {
        debug!(%address, error = &error as &dyn std::error::Error, "connection ended");
    }
}

/// HTTP/2 as KEDA meets it.
pub(in crate::serve) fn http2(tasks: Tasks) -> http2::Builder<Tracked> {
    let mut builder = http2::Builder::new(Tracked(tasks));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(CONCURRENT_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST)
        .max_pending_accept_reset_streams(PENDING_RESETS);
    builder
}

/// Runs each request as a task that [`super::Serving::stop`] waits for.
#[derive(Clone)]
pub(in crate::serve) struct Tracked(Tasks);

impl<F> Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.0.contained("gRPC call", request);
    }
}
