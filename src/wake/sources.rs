//! One task a source, shared by all who read it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep, sleep_until},
};
use tracing::{error, info, warn};

use super::{Reader, SourceEndpoint};
use crate::{
    cluster::directory::{Directory, FollowedPort},
    scrape::{Fetch, PageClient},
};
use clock::Clock;
use scaler_core::{
    endpoint::cadence::{Cadence, unit_fraction},
    page::picker::GatewaySample,
    time::Moment,
    wake::{Fault, Missing, Place, Source, pace::Pace},
};

/// What is read of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// The InferencePools whose series are read. Not empty.
    pub pools: Arc<[Arc<str>]>,
    /// One of its readers has no replica: it is read often.
    pub asleep: bool,
}

/// What came of reading a source.
#[derive(Debug)]
pub struct SourceReport {
    pub source: Source,
    /// When the page was read, or the reading failed.
    pub at: Moment,
    /// From this reading to the next.
    pub interval: Duration,
    /// For each pool of the plan.
    pub outcome: Result<Vec<(Arc<str>, GatewaySample)>, Fault>,
}

/// How long a request may take.
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// The shortest time between two tries that fail. A picker whose address changes is tried at
/// once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Owns one task for each source. None of its methods waits, except `shutdown`. Dropping it
/// ends all tasks.
#[derive(Debug)]
pub struct SourcePool<F = PageClient> {
    /// Whose readings these are, for logs.
    name: &'static str,
    reader: Reader<F>,
    clock: Clock,
    reports: mpsc::Sender<SourceReport>,
    directory: Directory,
    pace: Pace,
    in_force: Arc<InForce>,
    running: HashMap<Source, Running>,
    asleep: usize,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    plan: watch::Sender<SourcePlan>,
    task: AbortHandle,
}

/// The intervals that tasks follow. They look here before each wait, so that a change costs
/// nothing.
#[derive(Debug)]
struct InForce {
    asleep: AtomicU64,
    awake: AtomicU64,
    exported: Gauge<f64, AtomicU64>,
}

impl InForce {
    fn of(&self, asleep: bool) -> Duration {
        Duration::from_nanos(if asleep { &self.asleep } else { &self.awake }.load(Relaxed))
    }

    /// Gives back the interval of those asleep that was in force before.
    fn set(&self, asleep: Duration, awake: Duration) -> Duration {
        let nanos = |interval: Duration| u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        self.awake.store(nanos(awake), Relaxed);
        self.exported.set(asleep.as_secs_f64());
        Duration::from_nanos(self.asleep.swap(nanos(asleep), Relaxed))
    }
}

impl<F: Fetch> SourcePool<F> {
    /// A pool without sources. `exported` shows the interval in force for those asleep, in
    /// seconds. A full `reports` channel slows the readings down.
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
        let in_force = InForce { asleep: AtomicU64::new(0), awake: AtomicU64::new(0), exported };
        in_force.set(pace.asleep, pace.awake);
        Self {
            name,
            reader,
            clock,
            reports,
            directory,
            pace,
            in_force: Arc::new(in_force),
            running: HashMap::new(),
            asleep: 0,
            tasks: JoinSet::new(),
        }
    }

    /// Starts to read `source`, follows another plan, or ends, with `None`.
    pub fn apply(&mut self, source: &Source, plan: Option<SourcePlan>) {
        let was_asleep = self.running.get(source).is_some_and(|running| running.plan.borrow().asleep);
        let is_asleep = plan.as_ref().is_some_and(|plan| plan.asleep);
        self.asleep = self.asleep + usize::from(is_asleep) - usize::from(was_asleep);
        match (self.running.get(source), plan) {
            (None, None) => {}
            (Some(running), Some(plan)) => {
                running.plan.send_if_modified(|current| {
                    let news = *current != plan;
                    *current = plan;
                    news
                });
                self.restart_broken();
            }
            (Some(running), None) => {
                running.task.abort();
                self.running.remove(source);
            }
            (None, Some(plan)) => {
                let plan = watch::Sender::new(plan);
                let task = self.start(source, plan.subscribe());
                self.running.insert(source.clone(), Running { plan, task });
            }
        }
        self.keep_pace();
    }

    fn keep_pace(&self) {
        let (asleep, awake) = (self.asleep, self.running.len() - self.asleep);
        let interval = self.pace.asleep_interval(asleep, awake);
        let before = self.in_force.set(interval, self.pace.awake_interval(awake));
        let was_stretched = before > self.pace.asleep;
        if was_stretched != (interval > self.pace.asleep) {
            let (name, budget) = (self.name, self.pace.budget);
            if was_stretched {
                info!(name, asleep, ?interval, "wake-up sources are read as often as they are to be again");
            } else {
                warn!(
                    name,
                    asleep,
                    ?interval,
                    budget,
                    "wake-up sources are read less often, to stay within the budget"
                );
            }
        }
    }

    /// Starts anew the tasks that have ended by themselves: a bug, which must not cost a
    /// sleeping model its wake-up.
    pub fn restart_broken(&mut self) {
        let mut broken = false;
        while let Some(ended) = self.tasks.try_join_next() {
            broken |= ended.is_err_and(|error| error.is_panic());
        }
        if !broken {
            return;
        }
        let ended = self.running.iter().filter(|(_, running)| running.task.is_finished());
        let ended: Vec<_> =
            ended.map(|(source, running)| (source.clone(), running.plan.subscribe())).collect();
        for (source, plans) in ended {
            error!(%source, "the task of a wake-up source panicked and is started anew");
            let task = self.start(&source, plans);
            if let Some(running) = self.running.get_mut(&source) {
                running.task = task;
            }
        }
    }

    fn start(&mut self, source: &Source, plans: watch::Receiver<SourcePlan>) -> AbortHandle {
        let task = Task {
            source: source.clone(),
            reader: self.reader.clone(),
            clock: self.clock,
            port: source.service().map(|port| self.directory.follow(port)),
            in_force: self.in_force.clone(),
            endpoint: None,
            was_read: None,
        };
        // Many that are found in one moment are not read in one moment.
        let within = self.pace.first_within(self.running.len());
        let delay = within.mul_f64(unit_fraction(crate::scrape::seed(source)));
        self.tasks.spawn(task.run(delay, plans, self.reports.clone()))
    }

    /// Ends all tasks and waits until none is left.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

/// The reading of one source.
struct Task<F: Fetch> {
    source: Source,
    reader: Reader<F>,
    clock: Clock,
    /// Where it answers, unless that is an address of its own.
    port: Option<FollowedPort>,
    in_force: Arc<InForce>,
    endpoint: Option<(SocketAddr, SourceEndpoint<F>)>,
    /// Whether the last reading went well; `None` before the first.
    was_read: Option<bool>,
}

/// Where a source is, as far as is known.
type Found = Result<SocketAddr, Fault>;

impl<F: Fetch> Task<F> {
    async fn run(
        mut self,
        delay: Duration,
        mut plans: watch::Receiver<SourcePlan>,
        reports: mpsc::Sender<SourceReport>,
    ) {
        sleep(delay).await;
        let seed = crate::scrape::seed(&self.source);
        let mut plan = plans.borrow_and_update().clone();
        let mut interval = self.in_force.of(plan.asleep);
        let mut cadence = Cadence::new(self.clock.now(), interval, seed);
        loop {
            let in_force = self.in_force.of(plan.asleep);
            if in_force != interval {
                interval = in_force;
                cadence = Cadence::new(self.clock.now(), interval, seed);
            }
            let found = self.look_up();
            let report = self.read(found.clone(), &plan, interval).await;
            let failed = report.outcome.is_err();
            if reports.send(report).await.is_err() {
                return;
            }
            let now = self.clock.now();
            let mut due = cadence.next(now, false);
            if failed {
                due = due.max(now + PATIENCE);
            }
            let due = self.clock.instant(due);
            tokio::select! {
                changed = plans.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    plan = plans.borrow_and_update().clone();
                }
                () = self.moved(&found) => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn look_up(&mut self) -> Found {
        match &self.source.place {
            Place::Address(address) => Ok(*address),
            Place::Service(_) => match self.port.as_mut().and_then(FollowedPort::find) {
                Some(Ok(addresses)) => addresses.first().copied().ok_or(Fault::Missing(Missing::Endpoint)),
                Some(Err(missing)) => Err(Fault::Missing(missing)),
                None => Err(Fault::NotLookedUp),
            },
        }
    }

    /// Resolves when the source is somewhere else than `before`.
    async fn moved(&mut self, before: &Found) {
        loop {
            match &mut self.port {
                Some(port) => port.moved().await,
                None => std::future::pending().await,
            }
            if self.look_up() != *before {
                return;
            }
        }
    }

    async fn read(&mut self, found: Found, plan: &SourcePlan, interval: Duration) -> SourceReport {
        let outcome = match found {
            Ok(address) => {
                let kept = self.endpoint.take().filter(|(before, _)| *before == address);
                let new = || (address, SourceEndpoint::new(self.source.clone(), address));
                let (_, endpoint) = self.endpoint.insert(kept.unwrap_or_else(new));
                self.reader.read(endpoint, &plan.pools, TIMEOUT).await
            }
            Err(fault) => Err(fault),
        };
        let outcome = outcome.map(|samples| plan.pools.iter().cloned().zip(samples).collect());
        self.log(outcome.as_ref().err());
        SourceReport { source: self.source.clone(), at: self.clock.now(), interval, outcome }
    }

    /// Logs the edges alone.
    fn log(&mut self, fault: Option<&Fault>) {
        let source = &self.source;
        match fault {
            // It starts, or is being looked up.
            Some(Fault::NotLookedUp | Fault::Missing(Missing::Endpoint)) if self.was_read.is_none() => return,
            Some(fault) if self.was_read != Some(false) => {
                let fault = self.reader.explain(fault, source);
                warn!(%source, fault, "a wake-up source can't be read: demand at zero replicas is unseen");
            }
            None if self.was_read == Some(false) => info!(%source, "a wake-up source can be read again"),
            _ => {}
        }
        self.was_read = Some(fault.is_none());
    }
}
