//! One reading of one endpoint of a source: its page, with a token where it wants one and may
//! have it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::timeout;
use url::Url;

use super::Credentials;
use crate::scrape::{Fetch, Page, PageClient, Peer, Request, ScrapeError};
use scaler_core::{
    config::trigger::Protocol,
    page::picker::{GatewayPage, GatewaySample},
    wake::{Fault, Source, Withheld},
};

/// Reads pages for everybody. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader<F = PageClient> {
    fetch: F,
    /// Without them nobody is shown a token.
    credentials: Option<Credentials>,
    page: Arc<GatewayPage>,
}

/// One endpoint of a source, and what is remembered of it from reading to reading.
#[derive(Debug)]
pub struct SourceEndpoint<F: Fetch = PageClient> {
    source: Source,
    dial: Result<Dial, Fault>,
    connection: F::Connection,
    /// It has answered 401 or 403 to a request without a token, so the next one has one.
    wants_token: Option<u16>,
}

/// Where an endpoint is, who it has to be, and what is asked of it.
#[derive(Debug)]
struct Dial {
    address: SocketAddr,
    peer: Peer,
    url: Url,
}

impl Dial {
    /// Over https the certificate has to be valid for the Service's name, whichever of its pods
    /// is dialled.
    fn new(source: &Source, address: SocketAddr) -> Result<Self, Fault> {
        let (text, peer) = match source.protocol {
            // Anew from its parts, for a URL has no room for the scope of an IPv6 address.
            Protocol::Http => {
                let host = SocketAddr::new(address.ip(), address.port());
                (format!("http://{host}/metrics"), Peer::Anybody)
            }
            Protocol::Https => {
                let name = source.server_name();
                let name =
                    name.ok_or_else(|| Fault::Certificate("only a Service has a name to verify".into()))?;
                (format!("https://{name}:{}/metrics", address.port()), Peer::Verified(name.into()))
            }
        };
        let url = Url::parse(&text).map_err(|error| Fault::Passing(error.to_string().into()))?;
        Ok(Self { address, peer, url })
    }
}

impl<F: Fetch> SourceEndpoint<F> {
    /// The endpoint of `source` at `address`.
    #[must_use]
    pub fn new(source: Source, address: SocketAddr) -> Self {
        let dial = Dial::new(&source, address);
        Self { source, dial, connection: F::Connection::default(), wants_token: None }
    }

    /// Fetches its page, with `authorization` as the header of that name.
    async fn fetch(
        &mut self,
        fetch: &F,
        authorization: Option<&HeaderValue>,
        limit: Duration,
    ) -> Result<Result<Page, ScrapeError>, Fault> {
        let Dial { address, peer, url } = self.dial.as_ref().map_err(Clone::clone)?;
        let namespace = self.source.service().map_or("", |port| &port.service.namespace);
        let request = Request { address: *address, peer, url, namespace, authorization };
        let fetched = timeout(limit, fetch.fetch(&mut self.connection, &request)).await;
        Ok(fetched.unwrap_or(Err(ScrapeError::TimedOut(limit))))
    }
}

impl<F: Fetch> Reader<F> {
    #[must_use]
    pub fn new(fetch: F, credentials: Option<Credentials>) -> Self {
        Self { fetch, credentials, page: Arc::default() }
    }

    /// What its user is told of `fault`.
    #[must_use]
    pub fn explain(&self, fault: &Fault, source: &Source) -> String {
        let account = self.credentials.as_ref().and_then(Credentials::account);
        fault.explain(source, account)
    }

    /// Reads the series of each of `pools` at `endpoint`, in their order. `limit` is for one
    /// request.
    ///
    /// A source is asked without a token first, and shown one only once it has asked for it:
    /// one that serves everybody never sees any.
    pub async fn read(
        &self,
        endpoint: &mut SourceEndpoint<F>,
        pools: &[Arc<str>],
        limit: Duration,
    ) -> Result<Vec<GatewaySample>, Fault> {
        let page = self.get_page(endpoint, pools, limit).await?;
        self.page.read(&page, pools).ok_or(Fault::NoSignals)
    }

    async fn get_page(
        &self,
        endpoint: &mut SourceEndpoint<F>,
        pools: &[Arc<str>],
        limit: Duration,
    ) -> Result<Page, Fault> {
        let status = match endpoint.wants_token {
            Some(status) => status,
            None => match endpoint.fetch(&self.fetch, None, limit).await? {
                Err(ScrapeError::Status(status @ (401 | 403))) => *endpoint.wants_token.insert(status),
                other => return other.map_err(fault),
            },
        };
        let header = match &self.credentials {
            Some(credentials) => credentials.header(&endpoint.source, pools).await,
            None => Err(Withheld::NoAccount),
        };
        let header = header.map_err(|why| {
            // It may no longer want one by the next time.
            endpoint.wants_token = None;
            Fault::Withheld { status, why }
        })?;
        let read = match endpoint.fetch(&self.fetch, Some(&header), limit).await? {
            Err(ScrapeError::Status(401)) => Err(Fault::TokenRefused),
            Err(ScrapeError::Status(403)) => Err(Fault::Forbidden),
            Err(ScrapeError::Status(500)) => Err(Fault::CannotReview),
            other => other.map_err(fault),
        };
        // Most pickers answer 500 to a token that is no longer good.
        if let (Err(Fault::TokenRefused | Fault::CannotReview), Some(credentials)) =
            (&read, &self.credentials)
        {
            credentials.refused(&header).await;
        }
        read
    }
}

/// What it means that there was no page.
fn fault(error: ScrapeError) -> Fault {
    match error {
        ScrapeError::Status(status) if status >= 500 || matches!(status, 408 | 429) => {
            Fault::Passing(error.to_string().into())
        }
        ScrapeError::Status(status) | ScrapeError::Redirect(status) => Fault::Status(status),
        ScrapeError::Certificate(problem) => Fault::Certificate(problem.into()),
        ScrapeError::NotHttp(_) | ScrapeError::NotMetrics(_) | ScrapeError::TooLarge { .. } => {
            Fault::NoSignals
        }
        ScrapeError::TimedOut(_)
        | ScrapeError::Stalled
        | ScrapeError::Crowded
        | ScrapeError::Refused
        | ScrapeError::Connect(_)
        | ScrapeError::Broken => Fault::Passing(error.to_string().into()),
    }
}
