//! Everything that is scraped, behind the one interface that the aggregator knows.

use super::{Fetch, GatewayPlan, GatewayPool, PageClient, ScrapeId, ScrapePlan, ScrapePool, ScrapeReport};
use crate::{aggregator::Scraper, core::names::InferenceSetKey};

/// The endpoints' tasks and the gateways' tasks.
#[derive(Debug)]
pub struct Scrapers<F = PageClient> {
    pub pods: ScrapePool<F>,
    pub gateways: GatewayPool<F>,
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
        self.gateways.restart_broken();
    }

    fn apply_gateway(&mut self, set: &InferenceSetKey, plan: Option<GatewayPlan>) {
        self.gateways.apply(set, plan);
    }
}

impl<F: Fetch> Scrapers<F> {
    /// Ends all tasks and waits until none is left.
    pub async fn shutdown(self) {
        self.pods.shutdown().await;
        self.gateways.shutdown().await;
    }
}
