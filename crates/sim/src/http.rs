//! A small HTTP/1.1 server with keep-alive: one function from a path and a query to an answer,
//! or to none, as of a server that hangs.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    /// A metrics page.
    #[must_use]
    pub fn page(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, body: body.into() }
    }

    #[must_use]
    pub fn status(status: StatusCode) -> Self {
        Self { status, body: Bytes::from_static(status.canonical_reason().unwrap_or_default().as_bytes()) }
    }
}

/// What servers have answered so far: the model server's side of every scrape.
#[derive(Debug, Default)]
pub struct Meter {
    filtered: AtomicU64,
    plain: AtomicU64,
    bytes: AtomicU64,
}

/// A reading of a [`Meter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrapes {
    /// Requests for a part of the page (`?name[]=…`).
    pub filtered: u64,
    /// Requests for a whole page.
    pub plain: u64,
    /// Bytes of all answers' bodies.
    pub bytes: u64,
}

impl Meter {
    pub(super) fn count(&self, query: Option<&str>, bytes: usize) {
        let kind = if query.is_some_and(|query| !query.is_empty()) { &self.filtered } else { &self.plain };
        kind.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    #[must_use]
    pub fn read(&self) -> Scrapes {
        Scrapes {
            filtered: self.filtered.load(Ordering::Relaxed),
            plain: self.plain.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// Serves `listener` until `stop` is cancelled; connections that are open then are cut, as
/// those of a pod that goes away are.
pub async fn serve<R>(listener: TcpListener, respond: R, meter: Arc<Meter>, stop: CancellationToken)
where
    R: Fn(&str, Option<&str>) -> Option<Answer> + Clone + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        // Out of descriptors, most likely: the next accept waits for one.
        let Ok((stream, _)) = accepted else { continue };
        // Answers are one small write each: nothing to gain by collecting them.
        let _ = stream.set_nodelay(true);
        let (respond, meter) = (respond.clone(), meter.clone());
        connections.spawn(async move {
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (path, query) = (request.uri().path(), request.uri().query());
                let answer = respond(path, query);
                meter.count(query, answer.as_ref().map_or(0, |answer| answer.body.len()));
                async move {
                    let Some(answer) = answer else { return std::future::pending().await };
                    let response = Response::builder()
                        .status(answer.status)
                        .header(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
                        .body(Full::new(answer.body));
                    Ok::<_, Infallible>(response.unwrap_or_default())
                }
            });
            // A client that goes away is no news.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The values of `key` in a query string, percent-decoded, in order.
#[must_use]
pub fn query_values(query: &str, key: &str) -> Vec<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| percent_decoded(name) == key).map(|(_, value)| percent_decoded(value)).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(byte) = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            decoded.push(byte);
            rest = &after[2..];
        } else {
            decoded.push(if *first == b'+' { b' ' } else { *first });
            rest = after;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn query_values_are_decoded_and_picked_by_key() {
        let query = "name[]=a%3Ab&name%5B%5D=c:d&other=e&name[]=%zz+%4";
        assert_eq!(query_values(query, "name[]"), ["a:b", "c:d", "%zz %4"]);
        assert_eq!(query_values("", "name[]"), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn requests_are_answered_over_one_connection_and_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (meter, stop) = (Arc::new(Meter::default()), CancellationToken::new());
        let respond = |path: &str, query: Option<&str>| match path {
            "/metrics" => Some(Answer::page(format!("{path} {query:?}"))),
            "/hangs" => None,
            _ => Some(Answer::status(StatusCode::NOT_FOUND)),
        };
        let server = serve(listener, respond, meter.clone(), stop.clone());
        let client = async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let get = async |path: &str| client.get(format!("http://{address}{path}")).send().await.unwrap();
            assert_eq!(get("/metrics").await.text().await.unwrap(), "/metrics None");
            assert_eq!(get("/metrics?a=b").await.text().await.unwrap(), "/metrics Some(\"a=b\")");
            assert_eq!(get("/elsewhere").await.status(), 404);
            let hanging =
                client.get(format!("http://{address}/hangs")).timeout(Duration::from_millis(20)).send();
            assert!(hanging.await.is_err_and(|error| error.is_timeout()));
            stop.cancel();
        };
        tokio::join!(server, client);
        assert_eq!(meter.read(), Scrapes { filtered: 1, plain: 3, bytes: 13 + 20 + 9 });
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the listener is gone");
    }
}
