//! Who reads which source: one task a source, and under it one for each of its endpoints.

use std::{
    future::pending,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{
    Reader,
    endpoint::{EndpointPlan, Endpoints},
    load::{Load, Share},
};
use crate::{
    cluster::directory::{Directory, FollowedPort},
    scrape::{Fetch, PageClient, TaskPool, Work},
};
use clock::Clock;
use scaler_core::{
    page::picker::GatewaySample,
    time::Moment,
    wake::{Fault, MOST_ENDPOINTS, Missing, Place, Source, pace::Pace},
};

/// What is read of a source, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// The InferencePools whose series are read. Not empty.
    pub pools: Arc<[Arc<str>]>,
    /// One of its readers has no replica: it is read as often as the pace allows.
    pub asleep: bool,
    /// From one reading of an endpoint to the next while none sleeps, if the budget allows.
    /// Above zero.
    pub interval: Duration,
}

/// What became known of a source.
#[derive(Debug)]
pub struct SourceReport {
    pub source: Source,
    pub news: SourceNews,
}

/// What is new of a source.
#[derive(Debug)]
pub enum SourceNews {
    /// Where it answers from now on. What comes of readings of other endpoints is of the past.
    Found(Result<Arc<[SocketAddr]>, Fault>),
    /// What came of reading one endpoint.
    Read(EndpointReading),
}

/// What came of reading one endpoint.
#[derive(Debug)]
pub struct EndpointReading {
    pub endpoint: SocketAddr,
    /// When the page was read, or the reading failed.
    pub at: Moment,
    /// From this reading to the next.
    pub interval: Duration,
    /// For each pool of the plan.
    pub outcome: Result<Vec<(Arc<str>, GatewaySample)>, Fault>,
}

/// Owns one task for each source. None of its methods waits, except `tend` and `shutdown`.
/// Dropping it ends all tasks.
#[derive(Debug)]
pub struct SourcePool<F: Fetch = PageClient>(TaskPool<Sources<F>>);

impl<F: Fetch> SourcePool<F> {
    /// A pool without sources. `name` says in logs whose readings these are; `exported` shows
    /// the interval in force for those asleep, in seconds. A full `reports` channel slows the
    /// readings down.
    #[must_use]
    pub fn new(
        name: &'static str,
        reader: Reader<F>,
        clock: Clock,
        directory: Directory,
        pace: Pace,
        exported: Gauge<f64, AtomicU64>,
        reports: mpsc::Sender<SourceReport>,
    ) -> Self {
        let load = Load::new(name, pace, exported);
        Self(TaskPool::new(Sources { reader, clock, directory, load, reports }))
    }

    /// Starts to read `source`, follows another plan, or ends, with `None`.
    pub fn apply(&mut self, source: &Source, plan: Option<SourcePlan>) {
        match plan {
            Some(plan) => self.0.apply(source.clone(), plan),
            None => self.0.remove(source),
        }
    }

    /// Starts anew the tasks that panicked. `apply` does the same.
    pub fn restart_broken(&mut self) {
        self.0.restart_broken();
    }

    /// Waits until a task has panicked, and starts it anew. Loses nothing where it is dropped.
    pub async fn tend(&mut self) {
        self.0.tend().await;
    }

    /// Ends all tasks and waits until none is left.
    pub async fn shutdown(self) {
        self.0.shutdown().await;
    }
}

/// Makes the tasks of sources.
struct Sources<F> {
    reader: Reader<F>,
    clock: Clock,
    directory: Directory,
    load: Arc<Load>,
    reports: mpsc::Sender<SourceReport>,
}

impl<F: Fetch> Work for Sources<F> {
    type Key = Source;
    type Plan = SourcePlan;

    fn task(
        &self,
        source: &Source,
        _: u64,
        plans: watch::Receiver<SourcePlan>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let endpoints = Endpoints {
            source: source.clone(),
            reader: self.reader.clone(),
            clock: self.clock,
            load: self.load.clone(),
            reports: self.reports.clone(),
        };
        let task = SourceTask {
            source: source.clone(),
            reader: self.reader.clone(),
            port: source.service().map(|port| self.directory.follow(port)),
            share: Share::new(self.load.clone()),
            endpoints: TaskPool::new(endpoints),
            reports: self.reports.clone(),
            was_found: None,
        };
        task.run(plans)
    }
}

/// Follows where one source answers, and has each of its endpoints read.
struct SourceTask<F: Fetch> {
    source: Source,
    reader: Reader<F>,
    /// Where it answers, unless that is an address of its own.
    port: Option<FollowedPort>,
    share: Share,
    endpoints: TaskPool<Endpoints<F>>,
    reports: mpsc::Sender<SourceReport>,
    /// Whether it last led somewhere; `None` before that is known.
    was_found: Option<bool>,
}

/// The endpoints of a source, as far as they are known.
type Found = Result<Arc<[SocketAddr]>, Fault>;

impl<F: Fetch> SourceTask<F> {
    async fn run(mut self, mut plans: watch::Receiver<SourcePlan>) {
        let mut told = None;
        loop {
            let found = self.look_up();
            let read = found.as_ref().map_or(&[][..], |all| &all[..all.len().min(MOST_ENDPOINTS)]);
            if told.as_ref() != Some(&found) {
                // In this order nothing that an endpoint says comes after the word that it is
                // none any more, or before the word that it is one.
                self.end_all_but(read);
                self.log(found.as_ref().err());
                let news = SourceNews::Found(found.clone());
                if self.reports.send(SourceReport { source: self.source.clone(), news }).await.is_err() {
                    return;
                }
                told = Some(found.clone());
            }
            let SourcePlan { pools, asleep, interval } = plans.borrow_and_update().clone();
            self.share.set(asleep, interval, read.len());
            let plan = EndpointPlan { pools, asleep, interval, endpoints: read.len() };
            for endpoint in read {
                self.endpoints.apply(*endpoint, plan.clone());
            }
            tokio::select! {
                changed = plans.changed() => if changed.is_err() { return },
                () = moved(&mut self.port) => {}
                () = self.endpoints.tend() => {}
            }
        }
    }

    fn look_up(&mut self) -> Found {
        match &self.source.place {
            Place::Address(address) => Ok([*address].into()),
            Place::Service(_) => match self.port.as_mut().and_then(FollowedPort::find) {
                Some(found) => found.map_err(Fault::Missing),
                None => Err(Fault::NotLookedUp),
            },
        }
    }

    fn end_all_but(&mut self, read: &[SocketAddr]) {
        let gone: Vec<_> =
            self.endpoints.keys().filter(|endpoint| !read.contains(endpoint)).copied().collect();
        for endpoint in gone {
            self.endpoints.remove(&endpoint);
        }
    }

    /// Logs the edges alone.
    fn log(&mut self, fault: Option<&Fault>) {
        let source = &self.source;
        match fault {
            // It starts, or is being looked up.
            Some(Fault::NotLookedUp | Fault::Missing(Missing::Endpoint)) if self.was_found.is_none() => {
                return;
            }
            Some(fault) if self.was_found != Some(false) => {
                let fault = self.reader.explain(fault, source);
                warn!(%source, fault, "a wake source can't be read: demand at zero replicas is unseen");
            }
            None if self.was_found == Some(false) => info!(%source, "a wake source is there again"),
            _ => {}
        }
        self.was_found = Some(fault.is_none());
    }
}

/// Waits until the port answers elsewhere.
async fn moved(port: &mut Option<FollowedPort>) {
    match port {
        Some(port) => port.moved().await,
        None => pending().await,
    }
}
