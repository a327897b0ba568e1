//! Where the aggregator hears from, and how much of it one turn takes in.

use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, UnboundedReceiver, error::TryRecvError};

use crate::{
    scrape::ScrapeReport,
    targets::{DebugRequest, Target},
    wake::SourceReport,
};
use scaler_core::fleet::model::FleetEvent;

/// How much of each kind a turn takes in.
pub(super) const BATCH: usize = 256;

/// The queues of all that the aggregator is told.
#[derive(Debug)]
pub struct Inbox {
    pub fleet: Receiver<FleetEvent>,
    /// The targets that calls have registered.
    pub registrations: UnboundedReceiver<Arc<Target>>,
    pub debug_requests: Receiver<DebugRequest>,
    pub reports: Receiver<ScrapeReport>,
    pub sources: Receiver<SourceReport>,
}

/// What one turn takes in: at most [`BATCH`] of each.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub fleet: Vec<FleetEvent>,
    pub registrations: Vec<Arc<Target>>,
    pub sources: Vec<SourceReport>,
    pub reports: Vec<ScrapeReport>,
    pub debug_request: Option<DebugRequest>,
}

impl Batch {
    /// Whether there may be more of something.
    pub(super) fn is_full(&self) -> bool {
        let longest = [self.fleet.len(), self.registrations.len(), self.sources.len(), self.reports.len()];
        longest.into_iter().max() >= Some(BATCH)
    }
}

impl Inbox {
    /// Waits until something has come; for ever where nobody can send any more. Loses nothing where
    /// it is dropped.
    pub(super) async fn wait(&mut self, batch: &mut Batch) {
        let Self { fleet, registrations, debug_requests, reports, sources } = self;
        tokio::select! {
            biased;
            1.. = fleet.recv_many(&mut batch.fleet, BATCH) => {}
            1.. = registrations.recv_many(&mut batch.registrations, BATCH) => {}
            1.. = sources.recv_many(&mut batch.sources, BATCH) => {}
            1.. = reports.recv_many(&mut batch.reports, BATCH) => {}
            Some(request) = debug_requests.recv() => batch.debug_request = Some(request),
            else => std::future::pending().await,
        }
    }

    /// Takes from the other queues what is there as well.
    pub(super) fn fill(&mut self, batch: &mut Batch) {
        fill(&mut batch.fleet, || self.fleet.try_recv());
        fill(&mut batch.registrations, || self.registrations.try_recv());
        fill(&mut batch.sources, || self.sources.try_recv());
        fill(&mut batch.reports, || self.reports.try_recv());
        if batch.debug_request.is_none() {
            batch.debug_request = self.debug_requests.try_recv().ok();
        }
    }
}

fn fill<T>(batch: &mut Vec<T>, mut next: impl FnMut() -> Result<T, TryRecvError>) {
    while batch.len() < BATCH
        && let Ok(next) = next()
    {
        batch.push(next);
    }
}
