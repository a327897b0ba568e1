//! Pages of wake-up sources over HTTP.

use std::{
    fmt::Debug,
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

use crate::scrape::{ACCEPT, Connection, Page, PageClient, ScrapeError, USER_AGENT};
use scaler_core::{config::trigger::Protocol, wake::Source};

/// A source and where it answers.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    pub source: &'a Source,
    pub address: SocketAddr,
}

/// Fetches pages of sources. A trait so that a source's task can be driven through virtual time.
pub trait SourceFetch: Clone + Send + Sync + 'static {
    /// What is kept of one fetch for the next from the same address. The default is that there
    /// was none.
    type Connection: Debug + Default + Send;

    /// Fetches `/metrics`, with `authorization` as the header of that name and without the
    /// header where it is `None`. Does not bound its own time.
    ///
    /// # Errors
    /// Where there is no complete answer with status 200.
    fn fetch(
        &self,
        connection: &mut Self::Connection,
        dial: Dial<'_>,
        authorization: Option<&HeaderValue>,
    ) -> impl Future<Output = Result<Page, ScrapeError>> + Send;
}

/// Fetches pages over http, and over https with the server's certificate verified. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct SourceClient {
    pages: PageClient,
    /// For https. Without it there is no authority to verify a certificate with.
    verifying: Option<Client>,
    names: Names,
}

#[derive(Debug, Error)]
pub enum SourceClientError {
    #[error("failed to read the certificate authorities in {path}")]
    ReadAuthorities { path: PathBuf, source: std::io::Error },
    #[error("{path} holds no certificate authorities that can be used")]
    NoAuthorities { path: PathBuf },
    #[error("failed to set up the TLS client of wake-up sources")]
    Client { source: reqwest::Error },
}

const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

impl SourceClient {
    /// A client that reads as much of a page as `pages` does, and believes the authorities of
    /// the system and those in the file `authorities` (PEM).
    pub fn new(pages: PageClient, authorities: Option<PathBuf>) -> Result<Self, SourceClientError> {
        let names = Names::default();
        let failed = |source| SourceClientError::Client { source };
        let more = match authorities {
            Some(path) => {
                let pem = std::fs::read(&path)
                    .map_err(|source| SourceClientError::ReadAuthorities { path: path.clone(), source })?;
                let authorities = Certificate::from_pem_bundle(&pem).unwrap_or_default();
                if authorities.is_empty() {
                    return Err(SourceClientError::NoAuthorities { path });
                }
                authorities
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
        Ok(Self { pages, verifying, names })
    }

    /// The client and the URL for a Service over https.
    fn verified(&self, dial: Dial<'_>) -> Result<(&Client, Url), ScrapeError> {
        let unverified = |problem: &str| ScrapeError::Certificate(problem.to_owned());
        let name =
            dial.source.server_name().ok_or_else(|| unverified("only a Service has a name to verify"))?;
        let client = self.verifying.as_ref();
        let client =
            client.ok_or_else(|| unverified("there is no certificate authority to verify it with"))?;
        let url = url(&format!("https://{name}:{}/metrics", dial.address.port()))?;
        self.names.0.pin().insert(name, dial.address.ip());
        Ok((client, url))
    }
}

fn url(text: &str) -> Result<Url, ScrapeError> {
    Url::parse(text).map_err(|error| ScrapeError::Connect(error.to_string()))
}

fn builder() -> ClientBuilder {
    let mut headers = header::HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
    Client::builder()
        .user_agent(USER_AGENT)
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
    type Connection = Connection;

    async fn fetch(
        &self,
        connection: &mut Connection,
        dial: Dial<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Page, ScrapeError> {
        if dial.source.protocol == Protocol::Http {
            // Anew from its parts, for a URL has no room for the scope of an IPv6 address.
            let host = SocketAddr::new(dial.address.ip(), dial.address.port());
            let url = url(&format!("http://{host}/metrics"))?;
            return self.pages.fetch_plain(connection, (dial.address, &url), authorization).await;
        }
        let (client, url) = self.verified(dial)?;
        let request = || {
            let request = client.get(url.clone());
            match authorization {
                Some(token) => request.header(header::AUTHORIZATION, token),
                None => request,
            }
        };
        // Boxed, for it is large and rare, and each task has room for it set aside.
        Box::pin(self.pages.fetch_general(connection, request)).await
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
