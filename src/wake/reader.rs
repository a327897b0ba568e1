//! One reading of a source: its page, with a token where it wants one and may have it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::timeout;

use super::{Credentials, Dial, SourceClient, SourceFetch};
use crate::scrape::{Page, ScrapeError};
use scaler_core::{
    page::picker::{GatewayPage, GatewaySample},
    wake::{Fault, Source, Withheld},
};

/// Reads pages for everybody. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader<F = SourceClient> {
    fetch: F,
    /// Without them nobody is shown a token.
    credentials: Option<Credentials>,
    page: Arc<GatewayPage>,
}

/// What one source's reader remembers from reading to reading.
#[derive(Debug)]
pub struct Memory<F: SourceFetch = SourceClient> {
    connection: F::Connection,
    /// Where the connection leads.
    address: Option<SocketAddr>,
    /// It has answered 401 or 403 to a request without a token, so the next one has one.
    wants_token: Option<u16>,
}

impl<F: SourceFetch> Default for Memory<F> {
    fn default() -> Self {
        Self { connection: F::Connection::default(), address: None, wants_token: None }
    }
}

impl<F: SourceFetch> Reader<F> {
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

    /// Reads the series of each of `pools`, in their order. `limit` is for one request.
    ///
    /// A source is asked without a token first, and shown one only once it has asked for it:
    /// one that serves everybody never sees any.
    pub async fn read(
        &self,
        source: &Source,
        address: SocketAddr,
        pools: &[Arc<str>],
        limit: Duration,
        memory: &mut Memory<F>,
    ) -> Result<Vec<GatewaySample>, Fault> {
        // Another pod: what the one before it wanted, and the connection to it, are history.
        if memory.address != Some(address) {
            *memory = Memory { address: Some(address), ..Memory::default() };
        }
        let page = self.get_page(Dial { source, address }, pools, limit, memory).await?;
        self.page.read(&page, pools).ok_or(Fault::NoSignals)
    }

    async fn get_page(
        &self,
        dial: Dial<'_>,
        pools: &[Arc<str>],
        limit: Duration,
        memory: &mut Memory<F>,
    ) -> Result<Page, Fault> {
        let status = match memory.wants_token {
            Some(status) => status,
            None => match self.get(dial, None, limit, memory).await {
                Err(ScrapeError::Status(status @ (401 | 403))) => *memory.wants_token.insert(status),
                other => return other.map_err(fault),
            },
        };
        let header = match &self.credentials {
            Some(credentials) => credentials.header(dial.source, pools).await,
            None => Err(Withheld::NoAccount),
        };
        let header = header.map_err(|why| {
            // It may no longer want one by the next time.
            memory.wants_token = None;
            Fault::Withheld { status, why }
        })?;
        let read = match self.get(dial, Some(&header), limit, memory).await {
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

    async fn get(
        &self,
        dial: Dial<'_>,
        authorization: Option<&HeaderValue>,
        limit: Duration,
        memory: &mut Memory<F>,
    ) -> Result<Page, ScrapeError> {
        let fetch = self.fetch.fetch(&mut memory.connection, dial, authorization);
        timeout(limit, fetch).await.map_err(|_| ScrapeError::TimedOut(limit))?
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
        ScrapeError::NotHttp(_) | ScrapeError::NotMetrics | ScrapeError::TooLarge { .. } => Fault::NoSignals,
        ScrapeError::TimedOut(_) | ScrapeError::Refused | ScrapeError::Connect(_) | ScrapeError::Broken => {
            Fault::Passing(error.to_string().into())
        }
    }
}
