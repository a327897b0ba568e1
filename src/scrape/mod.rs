//! Scrapes endpoints: one task for each, a filtered page where the server gives one.
//!
//! ```text
//! ScrapePool ─ScrapePlan─► TaskPool ─► Task: scraping ⇄ resting ─► Fetch ─► page ─► ScrapeReport
//! wake::SourcePool ──────► TaskPool ─► Task: the same                   (PageClient)
//! ```
//! [`ScrapePool`] starts, updates and ends the tasks and never waits; what they find comes as
//! [`ScrapeReport`]s over one channel. A task has one request out at a time and sleeps in
//! between; what it decides (when to scrape, which page) is in `core`. Wake sources are read by
//! the same kind of pool and task, through the same client.

mod answer;
mod client;
mod fetch;
mod http1;
mod large;
mod page;
mod pod;
mod pool;
mod stream;
mod task;
#[cfg(test)]
mod tests;
mod tls;
mod urls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

pub(crate) use self::pool::seed;
pub use self::{
    answer::{Answer, AnswerError, Complete, MAX_FRAMING, MAX_HEAD},
    client::{Connection, DEFAULT_MAX_BODY, PageClient},
    fetch::{Fetch, Outcome, Request, ScrapeError},
    page::Page,
    pod::ScrapePool,
    tls::{ClientError, Peer},
};
use scaler_core::{
    config::trigger::PageSource,
    endpoint::page_choice::PageKind,
    names::{InferenceSetKey, PodUid},
    page::{Wanted, sample::PodSample},
    time::Moment,
};

/// What is scraped: one page of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScrapeId {
    /// The InferenceSet that the pod serves.
    pub set: InferenceSetKey,
    pub uid: PodUid,
    pub page: Arc<PageSource>,
}

/// How it is scraped.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapePlan {
    pub address: SocketAddr,
    pub wanted: Arc<Wanted>,
    /// From the start of one scrape to the start of the next. Above zero.
    pub interval: Duration,
    /// For one scrape, with all that it fetches. Independent of the interval.
    pub timeout: Duration,
    /// The pod is Ready. A change means that the server behind the address changed its ways,
    /// so what was learnt of it is forgotten.
    pub ready: bool,
}

/// What came of one scrape.
#[derive(Debug)]
pub struct ScrapeReport {
    pub id: ScrapeId,
    pub started: Moment,
    /// When the page was read, or the scrape failed.
    pub at: Moment,
    /// What the page was read for: a metric that is wanted only since is not in the sample,
    /// which does not mean that the page lacks it.
    pub wanted: Arc<Wanted>,
    pub outcome: Result<Scraped, ScrapeError>,
    task: u64,
}

/// A scrape that went well.
#[derive(Clone, Debug, PartialEq)]
pub struct Scraped {
    pub sample: PodSample,
    pub page: PageKind,
    /// Size of the page.
    pub bytes: usize,
    /// Lines that name a wanted family and are no samples.
    pub rejected: usize,
}

impl ScrapeReport {
    /// A report of no task: for tests of what is done with reports.
    #[cfg(test)]
    pub(crate) fn new(
        id: ScrapeId,
        started: Moment,
        at: Moment,
        wanted: Arc<Wanted>,
        outcome: Result<Scraped, ScrapeError>,
    ) -> Self {
        Self { id, started, at, wanted, outcome, task: 0 }
    }

    /// How the scrape ended, for a label.
    #[must_use]
    pub fn outcome_label(&self) -> Outcome {
        self.outcome.as_ref().map_or_else(Outcome::from, |_| Outcome::Ok)
    }

    /// How long the scrape took.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.at.saturating_since(self.started)
    }
}
