//! The same API server behind a socket, for a scaler in a process of its own.

use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::{net::TcpListener, task::JoinSet};

use super::ApiServer;

impl ApiServer {
    /// Answers whoever connects, in plaintext, for as long as this is polled.
    pub async fn serve(&self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            // A client that went away again.
            let Ok((stream, _)) = accepted else { continue };
            let server = self.clone();
            let service = service_fn(move |request: http::Request<Incoming>| {
                let server = server.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
                    let body = Body::from(body.unwrap_or_default().to_vec());
                    server.answer(http::Request::from_parts(parts, body)).await
                }
            });
            connections.spawn(async move {
                // What goes wrong on a connection is its client's to tell.
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    }
}
