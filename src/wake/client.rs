//! Pages of wake-up sources over HTTP.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use papaya::HashMap;
use reqwest::{
    Certificate, Client, ClientBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header, redirect,
};
use thiserror::Error;

use crate::{
    core::{trigger::Protocol, wake::Source},
    scrape::{self, ScrapeError},
};

/// A source and where it answers.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    pub source: &'a Source,
    pub address: SocketAddr,
}

/// Fetches pages of sources. A trait so that a source's task can be driven through virtual time.
pub trait SourceFetch: Clone + Send + Sync + 'static {
    /// Fetches `/metrics` into `body`, which it clears first, with `authorization` as the header
    /// of that name and without the header where it is `None`. Does not bound its own time.
    ///
    /// `reused` says that the caller's last fetch from there went well.
    ///
    /// # Errors
    /// Where there is no complete answer with status 200.
    fn fetch(
        &self,
        dial: Dial<'_>,
        authorization: Option<&HeaderValue>,
        reused: bool,
        body: &mut Vec<u8>,
    ) -> impl Future<Output = Result<(), ScrapeError>> + Send;
}

/// Fetches pages over http, and over https with the server's certificate verified. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct SourceClient {
    plain: Client,
    /// Without it there is no authority to verify a certificate with.
    verifying: Option<Client>,
    names: Names,
    max_body: usize,
}

#[derive(Debug, Error)]
pub enum SourceClientError {
    #[error("failed to read the certificate authorities in {path}")]
    ReadAuthorities { path: PathBuf, source: std::io::Error },
    #[error("{path} holds no certificate authorities that can be used")]
    Authorities { path: PathBuf, source: reqwest::Error },
    #[error("failed to set up the HTTP client of wake-up sources")]
    Client { source: reqwest::Error },
}

const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

impl SourceClient {
    /// A client that reads at most `max_body` bytes of a page and believes the authorities of
    /// the system and those in the file `authorities` (PEM).
    pub fn new(max_body: usize, authorities: Option<PathBuf>) -> Result<Self, SourceClientError> {
        let names = Names::default();
        let failed = |source| SourceClientError::Client { source };
        let plain = builder().tls_certs_only([]).build().map_err(failed)?;
        let more = match authorities {
            Some(path) => {
                let pem = std::fs::read(&path)
                    .map_err(|source| SourceClientError::ReadAuthorities { path: path.clone(), source })?;
                Certificate::from_pem_bundle(&pem)
                    .map_err(|source| SourceClientError::Authorities { path, source })?
            }
            None => Vec::new(),
        };
        let resolving = || builder().https_only(true).dns_resolver(Arc::new(names.clone()));
        // An image without any authority of the system still has those of the file.
        let verifying = match resolving().tls_certs_merge(more.clone()).build() {
            Ok(client) => Some(client),
            Err(_) if more.is_empty() => None,
            Err(_) => Some(resolving().tls_certs_only(more).build().map_err(failed)?),
        };
        Ok(Self { plain, verifying, names, max_body })
    }

    fn of(&self, dial: Dial<'_>) -> Result<(&Client, String), ScrapeError> {
        // Anew from its parts, for a URL has no room for the scope of an IPv6 address.
        let host = SocketAddr::new(dial.address.ip(), dial.address.port());
        match (dial.source.protocol, dial.source.server_name()) {
            (Protocol::Http, _) => Ok((&self.plain, format!("http://{host}/metrics"))),
            (Protocol::Https, Some(name)) => {
                let client = self.verifying.as_ref().ok_or_else(|| {
                    ScrapeError::Certificate("there is no certificate authority to verify it with".to_owned())
                })?;
                self.names.0.pin().insert(name.clone(), host.ip());
                Ok((client, format!("https://{name}:{}/metrics", host.port())))
            }
            (Protocol::Https, None) => {
                Err(ScrapeError::Certificate("only a Service has a name to verify".to_owned()))
            }
        }
    }
}

fn builder() -> ClientBuilder {
    let mut headers = header::HeaderMap::new();
    // Plain text, so that a server that also speaks OpenMetrics does not choose that.
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4"));
    Client::builder()
        .user_agent(concat!("keda-kaito-scaler/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .http1_only()
        // A source is where its Service is, nowhere else; least of all with a token.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
}

impl SourceFetch for SourceClient {
    async fn fetch(
        &self,
        dial: Dial<'_>,
        authorization: Option<&HeaderValue>,
        reused: bool,
        body: &mut Vec<u8>,
    ) -> Result<(), ScrapeError> {
        let (client, url) = self.of(dial)?;
        let url = Url::parse(&url).map_err(|error| ScrapeError::Connect(error.to_string()))?;
        let request = || {
            let request = client.get(url.clone());
            match authorization {
                Some(token) => request.header(header::AUTHORIZATION, token),
                None => request,
            }
        };
        scrape::read_page(request, reused, self.max_body, body).await
    }
}

/// The address of each Service that is read over https: its pod is dialled, and its certificate
/// is verified for the Service's name.
#[derive(Clone, Debug, Default)]
struct Names(Arc<HashMap<String, IpAddr>>);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.0.pin().get(name.as_str()).copied();
        Box::pin(async move {
            let ip = found.ok_or("not the name of a Service that is read")?;
            // The port is the URL's.
            let addresses: Addrs = Box::new(std::iter::once(SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}
