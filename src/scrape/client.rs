//! Pages over HTTP: a connection of its own for each endpoint in plaintext, and a general
//! client for the rest.

use std::{error::Error as StdError, io, net::SocketAddr, time::Duration};

use http::HeaderValue;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header, redirect};

use super::{
    fetch::{Fetch, ScrapeError},
    http1::{self, Request, Resting, plain_address},
    page::{Buffers, Page},
};

/// How much of a page is read unless told otherwise, in bytes. A pod with eight engines has a
/// page of 300 KB.
pub const DEFAULT_MAX_BODY: usize = 8 * 1024 * 1024;

pub(crate) const USER_AGENT: &str = concat!("keda-kaito-scaler/", env!("CARGO_PKG_VERSION"));
/// Plain text, so that a server that also speaks OpenMetrics does not choose that.
pub(crate) const ACCEPT: &str = "text/plain;version=0.0.4";

/// Longer than the longest scrape interval, so that an endpoint keeps its one connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Fetches pages from pods. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PageClient {
    /// For TLS. It has a pool of connections of its own.
    general: Client,
    buffers: Buffers,
    max_body: usize,
}

/// What is kept for a server.
#[derive(Debug, Default)]
pub struct Connection {
    plain: Option<Resting>,
    /// The last fetch through the general client was answered, so that its pool most likely
    /// holds a connection.
    pooled: bool,
}

#[cfg(test)]
impl Connection {
    /// A connection is kept, and nothing has come on it.
    pub(super) fn is_alive(&self) -> bool {
        self.plain.as_ref().is_some_and(Resting::is_alive)
    }
}

/// The client could not be made: the TLS backend did not start.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up the HTTP client")]
pub struct ClientError(#[from] reqwest::Error);

impl PageClient {
    /// A client that reads at most `max_body` bytes of a page.
    pub fn new(max_body: usize) -> Result<Self, ClientError> {
        let mut headers = header::HeaderMap::new();
        headers.insert(header::ACCEPT, header::HeaderValue::from_static(ACCEPT));
        let general = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(headers)
            .http1_only()
            // A page is where the pod is, nowhere else: not behind a proxy that the
            // environment names, and not where the pod says it is.
            .no_proxy()
            .redirect(redirect::Policy::none())
            // Retries are decided below, where it is known whether anything was answered.
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            // A pod is addressed by its IP, for which no authority vouches; whose IP it is
            // comes from the watch on the Kubernetes API.
            .tls_danger_accept_invalid_certs(true)
            .build()?;
        Ok(Self { general, buffers: Buffers::default(), max_body })
    }

    /// Fetches `url`, which is at `address`, in plaintext, with `authorization` as the header of
    /// that name.
    pub(crate) async fn fetch_plain(
        &self,
        connection: &mut Connection,
        (address, url): (SocketAddr, &Url),
        authorization: Option<&HeaderValue>,
    ) -> Result<Page, ScrapeError> {
        let request = Request { address, url, authorization };
        http1::get(&mut connection.plain, &request, self.max_body, &self.buffers).await
    }

    /// Fetches what `request` asks for, through the client that it belongs to.
    pub(crate) async fn fetch_general(
        &self,
        connection: &mut Connection,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Page, ScrapeError> {
        let reused = std::mem::take(&mut connection.pooled);
        let fetched = self.fetch_pooled(request, reused).await;
        connection.pooled = matches!(fetched, Ok(_) | Err(ScrapeError::Status(_) | ScrapeError::Redirect(_)));
        fetched
    }

    async fn fetch_pooled(
        &self,
        request: impl Fn() -> RequestBuilder,
        reused: bool,
    ) -> Result<Page, ScrapeError> {
        let mut response = get(request, reused).await?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(ScrapeError::Redirect(status.as_u16())),
            status => return Err(ScrapeError::Status(status.as_u16())),
        }
        let too_large = ScrapeError::TooLarge { limit: self.max_body };
        if response.content_length().is_some_and(|length| length > self.max_body as u64) {
            return Err(too_large);
        }
        let mut buffer = self.buffers.take();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if buffer.bytes.len() + chunk.len() > self.max_body {
                return Err(too_large);
            }
            buffer.bytes.extend_from_slice(&chunk);
        }
        let body = 0..buffer.bytes.len();
        Ok(buffer.into_page(body))
    }
}

impl Fetch for PageClient {
    type Connection = Connection;

    async fn fetch(&self, connection: &mut Connection, url: &Url) -> Result<Page, ScrapeError> {
        if let Some(address) = plain_address(url) {
            return self.fetch_plain(connection, (address, url), None).await;
        }
        // Boxed, for it is large and rare, and each task has room for it set aside.
        Box::pin(self.fetch_general(connection, || self.general.get(url.clone()))).await
    }
}

async fn get(request: impl Fn() -> RequestBuilder, reused: bool) -> Result<Response, ScrapeError> {
    match request().send().await.map_err(|error| classify(&error)) {
        // The server closed the kept connection while the request was on its way: that
        // says nothing about the page. The pool has dropped it, the next one is fresh.
        Err(ScrapeError::Broken) if reused => request().send().await.map_err(|error| classify(&error)),
        other => other,
    }
}

/// Puts an error into a class by what lies at its root.
fn classify(error: &reqwest::Error) -> ScrapeError {
    let mut root: &(dyn StdError + 'static) = error;
    let connecting = error.is_connect();
    loop {
        if let Some(io) = root.downcast_ref::<io::Error>() {
            if let Some(rustls::Error::InvalidCertificate(problem)) = held_tls_error(io) {
                return ScrapeError::Certificate(problem.to_string());
            }
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return ScrapeError::Refused,
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                    if !connecting =>
                {
                    return ScrapeError::Broken;
                }
                _ => {}
            }
        }
        if let Some(http) = root.downcast_ref::<hyper::Error>() {
            if http.is_incomplete_message() || http.is_canceled() || http.is_closed() {
                return ScrapeError::Broken;
            }
            if http.is_parse() {
                return ScrapeError::NotHttp(http.to_string());
            }
        }
        match root.source() {
            Some(source) => root = source,
            None => break,
        }
    }
    if connecting { ScrapeError::Connect(root.to_string()) } else { ScrapeError::Broken }
}

/// The TLS error inside: what an IO error holds is not its source, and one may hold another.
fn held_tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let held = error.get_ref()?;
    held.downcast_ref().or_else(|| held_tls_error(held.downcast_ref()?))
}
