//! Everything that is scraped, behind the one interface that the aggregator knows.

use crate::{
    aggregator::Scraper,
    scrape::{Fetch, PageClient, ScrapeId, ScrapePlan, ScrapePool, ScrapeReport},
    wake::{SourceClient, SourceFetch, SourcePlan, SourcePool},
};
use scaler_core::wake::Source;

/// The endpoints' tasks and the wake-up sources' tasks.
#[derive(Debug)]
pub struct Scrapers<F = PageClient, G = SourceClient> {
    pub pods: ScrapePool<F>,
    pub sources: SourcePool<G>,
}

impl<F: Fetch, G: SourceFetch> Scraper for Scrapers<F, G> {
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

impl<F: Fetch, G: SourceFetch> Scrapers<F, G> {
    /// Ends all tasks and waits until none is left.
    pub async fn shutdown(self) {
        self.pods.shutdown().await;
        self.sources.shutdown().await;
    }
}
