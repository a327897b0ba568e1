//! What a task needs of HTTP: one page by GET, and why there was none.

use std::{fmt::Debug, net::SocketAddr, time::Duration};

use http::HeaderValue;
use url::Url;

use super::{
    answer::AnswerError,
    large::{LARGE, TIME_TO_COME},
    page::Page,
    tls::Peer,
};
use scaler_core::page::NotMetrics;

/// Fetches pages. A trait so that a task can be driven through virtual time.
pub trait Fetch: Clone + Send + Sync + 'static {
    /// What is kept of one fetch for the next. The default is that there was none.
    type Connection: Debug + Default + Send;

    /// Fetches what `request` asks for, over the connection that is kept where that leads to
    /// the same address and the same server. Does not bound its own time: the caller drops the
    /// future when the scrape's time is over, and with it the connection that was in use.
    ///
    /// # Errors
    /// Where there is no complete answer with status 200.
    fn fetch(
        &self,
        connection: &mut Self::Connection,
        request: &Request<'_>,
    ) -> impl Future<Output = Result<Page, ScrapeError>> + Send;
}

/// One page of one server.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where the server is. Nothing is ever looked up by name.
    pub address: SocketAddr,
    pub peer: &'a Peer,
    /// Its path and query are what is asked for; its host is what the server is called.
    pub url: &'a Url,
    /// Whose share of memory and time the page takes, should it be large.
    pub namespace: &'a str,
    /// The header of that name.
    pub authorization: Option<&'a HeaderValue>,
}

/// Why a scrape got no sample.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    #[error("no complete answer within {0:?}")]
    TimedOut(Duration),
    #[error("connection refused")]
    Refused,
    #[error("failed to connect: {0}")]
    Connect(String),
    #[error("the connection broke before the answer was complete")]
    Broken,
    #[error("the certificate can't be verified: {0}")]
    Certificate(String),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("answered with status {0}, a redirect, which is never followed")]
    Redirect(u16),
    #[error("the page is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error(
        "the page is larger than {} KiB, and those of its namespace take as much memory and time as they may",
        LARGE / 1024
    )]
    Crowded,
    #[error("the page is larger than {} KiB, and the rest of it did not come within {TIME_TO_COME:?}", LARGE / 1024)]
    Stalled,
    #[error("the answer is not valid HTTP: {0}")]
    NotHttp(String),
    #[error("the answer is {0}")]
    NotMetrics(NotMetrics),
}

impl From<AnswerError> for ScrapeError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::TooLarge { limit } => Self::TooLarge { limit },
            AnswerError::NotHttp(why) => Self::NotHttp(why.into_owned()),
            AnswerError::CutOff => Self::Broken,
        }
    }
}

/// How a scrape ended, as a closed set: the label of our own metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Ok,
    TimedOut,
    Refused,
    Connect,
    Broken,
    Status,
    Redirect,
    TooLarge,
    NotHttp,
    NotMetrics,
}

impl Outcome {
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::TimedOut,
        Self::Refused,
        Self::Connect,
        Self::Broken,
        Self::Status,
        Self::Redirect,
        Self::TooLarge,
        Self::NotHttp,
        Self::NotMetrics,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::Connect => "connect_failed",
            Self::Broken => "connection_broken",
            Self::Status => "bad_status",
            Self::Redirect => "redirect",
            Self::TooLarge => "too_large",
            Self::NotHttp => "not_http",
            Self::NotMetrics => "not_metrics",
        }
    }
}

impl From<&ScrapeError> for Outcome {
    fn from(error: &ScrapeError) -> Self {
        match error {
            ScrapeError::TimedOut(_) | ScrapeError::Stalled => Self::TimedOut,
            ScrapeError::Refused => Self::Refused,
            ScrapeError::Connect(_) | ScrapeError::Certificate(_) => Self::Connect,
            ScrapeError::Broken => Self::Broken,
            ScrapeError::Status(_) => Self::Status,
            ScrapeError::Redirect(_) => Self::Redirect,
            ScrapeError::TooLarge { .. } | ScrapeError::Crowded => Self::TooLarge,
            ScrapeError::NotHttp(_) => Self::NotHttp,
            ScrapeError::NotMetrics(_) => Self::NotMetrics,
        }
    }
}
