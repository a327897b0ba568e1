//! Everything that is scraped, behind the one interface that the aggregator knows.

use crate::{
    aggregator::Scraper,
    scrape::{Fetch, PageClient, ScrapeId, ScrapePlan, ScrapePool, ScrapeReport},
    wake::{SourcePlan, SourcePool},
};
use scaler_core::wake::Source;

/// The endpoints' tasks and the wake-up sources' tasks.
#[derive(Debug)]
pub(crate) struct Scrapers<F: Fetch = PageClient> {
    pub pods: ScrapePool<F>,
    pub sources: SourcePool<F>,
}

impl<F: Fetch> Scraper for Scrapers<F> {
    fn apply(&mut self, id: ScrapeId, plan: ScrapePlan) {
        self.pods.apply(id, plan);
    }

    fn remove(&mut self, id: &ScrapeId) {
        self.pods.remove(id);
    }

    fn is_current(&self, report: &ScrapeReport) -> bool {
        self.pods.is_current(report)
    }

    fn tend(&mut self) {
        self.pods.restart_broken();
        self.sources.restart_broken();
    }

    fn apply_source(&mut self, source: &Source, plan: Option<SourcePlan>) {
        self.sources.apply(source, plan);
    }
}

impl<F: Fetch> Scrapers<F> {
    /// Ends all tasks and waits until none is left.
    pub(crate) async fn shutdown(self) {
        self.pods.shutdown().await;
        self.sources.shutdown().await;
    }
}
