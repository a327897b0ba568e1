//! The readings of one endpoint of a source.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{
    Reader, SourceEndpoint,
    load::Load,
    sources::{EndpointReading, SourceNews, SourceReport},
};
use crate::scrape::{Fetch, Scrape, Task, Work, seed};
use clock::Clock;
use scaler_core::{
    endpoint::cadence::{Cadence, unit_fraction},
    time::Moment,
    wake::{Fault, Source},
};

/// How long a request may take.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// The shortest time between two readings that fail.
const PATIENCE: Duration = Duration::from_secs(1);

/// How an endpoint is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndpointPlan {
    pub(super) pools: Arc<[Arc<str>]>,
    pub(super) asleep: bool,
    /// While none of the source's readers sleeps.
    pub(super) interval: Duration,
    /// How many of them the source has.
    pub(super) endpoints: usize,
}

/// Makes the tasks of one source's endpoints.
pub(super) struct Endpoints<F> {
    pub(super) source: Source,
    pub(super) reader: Reader<F>,
    pub(super) clock: Clock,
    pub(super) load: Arc<Load>,
    pub(super) reports: mpsc::Sender<SourceReport>,
}

impl<F: Fetch> Work for Endpoints<F> {
    type Key = SocketAddr;
    type Plan = EndpointPlan;

    fn task(
        &self,
        address: &SocketAddr,
        _: u64,
        plans: watch::Receiver<EndpointPlan>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let endpoint = Endpoint {
            source: self.source.clone(),
            address: *address,
            reader: self.reader.clone(),
            server: SourceEndpoint::new(self.source.clone(), *address),
            clock: self.clock,
            load: self.load.clone(),
            was_read: None,
        };
        let seed = seed(&(&self.source, address));
        // Many that are found in one moment are not read in one moment.
        let delay = self.load.first_within().mul_f64(unit_fraction(seed));
        Task::new(endpoint, plans, self.reports.clone(), self.clock, seed).run(delay)
    }
}

struct Endpoint<F: Fetch> {
    source: Source,
    address: SocketAddr,
    reader: Reader<F>,
    server: SourceEndpoint<F>,
    clock: Clock,
    load: Arc<Load>,
    /// Whether the last reading went well; `None` before the first.
    was_read: Option<bool>,
}

impl<F: Fetch> Scrape for Endpoint<F> {
    type Plan = EndpointPlan;
    type Report = SourceReport;

    async fn scrape(&mut self, plan: &EndpointPlan) -> SourceReport {
        let outcome = self.reader.read(&mut self.server, &plan.pools, TIMEOUT).await;
        let outcome = outcome.map(|samples| plan.pools.iter().cloned().zip(samples).collect());
        self.log(outcome.as_ref().err());
        let (at, interval) = (self.clock.now(), self.interval(plan));
        let reading = EndpointReading { endpoint: self.address, at, interval, outcome };
        SourceReport { source: self.source.clone(), news: SourceNews::Read(reading) }
    }

    fn interval(&self, plan: &EndpointPlan) -> Duration {
        self.load.interval(plan.asleep, plan.interval, plan.endpoints)
    }

    fn next(&self, _: &EndpointPlan, cadence: &mut Cadence, now: Moment) -> Moment {
        let next = cadence.next(now, false);
        if self.was_read == Some(false) { next.max(now + PATIENCE) } else { next }
    }

    fn is_void(_: &EndpointPlan, _: &EndpointPlan) -> bool {
        false
    }

    fn adopt(&mut self, plan: &EndpointPlan, new: &EndpointPlan, _: Moment) -> bool {
        new.pools != plan.pools || (new.asleep && !plan.asleep)
    }
}

impl<F: Fetch> Endpoint<F> {
    /// Logs the edges alone.
    fn log(&mut self, fault: Option<&Fault>) {
        let (source, endpoint) = (&self.source, self.address);
        match fault {
            Some(fault) if self.was_read != Some(false) => {
                let fault = self.reader.explain(fault, source);
                warn!(%source, %endpoint, fault, "a wake source can't be read: demand at zero replicas is unseen");
            }
            None if self.was_read == Some(false) => {
                info!(%source, %endpoint, "a wake source can be read again");
            }
            _ => {}
        }
        self.was_read = Some(fault.is_none());
    }
}
