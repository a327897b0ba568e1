//! Pages over HTTP: one shared client for all endpoints.

use std::{error::Error as StdError, io, time::Duration};

use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header, redirect};

use super::fetch::{Fetch, ScrapeError};

/// How much of a page is read unless told otherwise, in bytes. A pod with eight engines has a
/// page of 300 KB.
pub const DEFAULT_MAX_BODY: usize = 8 * 1024 * 1024;

/// Longer than the longest scrape interval, so that an endpoint keeps its one connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Fetches pages from pods. Cheap to clone; every clone shares one set of connections.
#[derive(Clone, Debug)]
pub struct PageClient {
    client: Client,
    max_body: usize,
}

/// The client could not be made: the TLS backend did not start.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up the HTTP client")]
pub struct ClientError(#[from] reqwest::Error);

impl PageClient {
    /// A client that reads at most `max_body` bytes of a page.
    pub fn new(max_body: usize) -> Result<Self, ClientError> {
        let mut headers = header::HeaderMap::new();
        // Plain text, so that a server that also speaks OpenMetrics does not choose that.
        headers.insert(header::ACCEPT, header::HeaderValue::from_static("text/plain;version=0.0.4"));
        let client = Client::builder()
            .user_agent(concat!("keda-kaito-scaler/", env!("CARGO_PKG_VERSION")))
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
        Ok(Self { client, max_body })
    }
}

impl Fetch for PageClient {
    async fn fetch(&self, url: &Url, reused: bool, body: &mut Vec<u8>) -> Result<(), ScrapeError> {
        read_page(|| self.client.get(url.clone()), reused, self.max_body, body).await
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

/// Reads a page of at most `max_body` bytes into `body`; see [`Fetch::fetch`].
pub(crate) async fn read_page(
    request: impl Fn() -> RequestBuilder,
    reused: bool,
    max_body: usize,
    body: &mut Vec<u8>,
) -> Result<(), ScrapeError> {
    body.clear();
    let mut response = get(request, reused).await?;
    match response.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => return Err(ScrapeError::Redirect(status.as_u16())),
        status => return Err(ScrapeError::Status(status.as_u16())),
    }
    let too_large = ScrapeError::TooLarge { limit: max_body };
    if response.content_length().is_some_and(|length| length > max_body as u64) {
        return Err(too_large);
    }
    while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
        if body.len() + chunk.len() > max_body {
            return Err(too_large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(())
}

/// Puts an error into a class by what lies at its root.
fn classify(error: &reqwest::Error) -> ScrapeError {
    let mut root: &(dyn StdError + 'static) = error;
    let connecting = error.is_connect();
    loop {
        if let Some(io) = root.downcast_ref::<io::Error>() {
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
        if let Some(rustls::Error::InvalidCertificate(problem)) = root.downcast_ref::<rustls::Error>() {
            return ScrapeError::Certificate(problem.to_string());
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
