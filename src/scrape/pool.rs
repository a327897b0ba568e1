//! The set of scrape tasks.

use std::{
    collections::{HashMap, hash_map},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use tracing::error;

use super::{
    Fetch, PageClient, ScrapeId, ScrapePlan, ScrapeReport,
    task::{Endpoint, run},
};
use clock::Clock;

/// Owns one task for each endpoint. None of its methods waits, except `shutdown`; they must be
/// called from within the runtime. Dropping it ends all tasks.
#[derive(Debug)]
pub struct ScrapePool<F = PageClient> {
    fetch: F,
    clock: Clock,
    reports: mpsc::Sender<ScrapeReport>,
    running: HashMap<ScrapeId, Running>,
    tasks: JoinSet<()>,
    started: u64,
}

#[derive(Debug)]
struct Running {
    plan: watch::Sender<ScrapePlan>,
    task: AbortHandle,
    /// Tells the reports of this task from those of an earlier one for the same endpoint.
    number: u64,
}

impl<F: Fetch> ScrapePool<F> {
    /// A pool without endpoints. A full `reports` channel slows the scrapes down.
    #[must_use]
    pub fn new(fetch: F, clock: Clock, reports: mpsc::Sender<ScrapeReport>) -> Self {
        Self { fetch, clock, reports, running: HashMap::new(), tasks: JoinSet::new(), started: 0 }
    }

    /// Starts to scrape an endpoint, or has its task follow another plan from now on. The same
    /// plan again changes nothing.
    pub fn apply(&mut self, id: ScrapeId, plan: ScrapePlan) {
        self.restart_broken();
        match self.running.entry(id) {
            hash_map::Entry::Occupied(running) => {
                running.get().plan.send_if_modified(|current| {
                    let changed = *current != plan;
                    if changed {
                        *current = plan;
                    }
                    changed
                });
            }
            hash_map::Entry::Vacant(vacant) => {
                let id = vacant.key().clone();
                let (sender, plans) = watch::channel(plan);
                self.started += 1;
                let endpoint = Endpoint::new(id, self.fetch.clone(), self.clock, self.started);
                let task = self.tasks.spawn(run(endpoint, plans, self.reports.clone()));
                vacant.insert(Running { plan: sender, task, number: self.started });
            }
        }
    }

    /// Ends the scrapes of an endpoint at once, in the middle of a request too. A report that
    /// is already on its way is not [current](Self::is_current) any more.
    pub fn remove(&mut self, id: &ScrapeId) {
        if let Some(running) = self.running.remove(id) {
            running.task.abort();
        }
        self.restart_broken();
    }

    /// Whether `report` comes from a task that still runs: false for the late answer of an
    /// endpoint that was removed, even if it was added again since.
    #[must_use]
    pub fn is_current(&self, report: &ScrapeReport) -> bool {
        self.running.get(&report.id).is_some_and(|running| running.number == report.task)
    }

    /// How many endpoints are scraped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Ends all tasks and waits until none is left.
    pub async fn shutdown(mut self) {
        self.running.clear();
        self.tasks.shutdown().await;
    }

    /// Takes note of tasks that ended. A task that was removed ended as it should; one that
    /// panicked is a bug, which must cost neither the process nor its endpoint: it is logged
    /// and started anew. Called by `apply` and `remove`; cheap where there is nothing to do.
    pub fn restart_broken(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            let Err(error) = ended else { continue };
            if !error.is_panic() {
                continue;
            }
            let broken = self.running.iter_mut().find(|(_, running)| running.task.id() == error.id());
            let Some((id, running)) = broken else { continue };
            error!(uid = %id.uid, %error, "a scrape task panicked and is started anew");
            let endpoint = Endpoint::new(id.clone(), self.fetch.clone(), self.clock, running.number);
            running.task = self.tasks.spawn(run(endpoint, running.plan.subscribe(), self.reports.clone()));
        }
    }
}

/// The seed of the place that what is scraped has on the interval. The same in every process,
/// so that it can be told from a log.
pub(crate) fn seed(id: &impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(id)
}
