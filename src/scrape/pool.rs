//! A pool of tasks: one for each thing that is scraped.

use std::{
    collections::{HashMap, hash_map},
    fmt::{self, Debug},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::sleep,
};
use tracing::error;

/// Makes the tasks of a pool.
pub(crate) trait Work {
    /// What a task is for.
    type Key: Clone + Debug + Eq + Hash;
    /// How it goes about that.
    type Plan: PartialEq;

    /// The task for `key`. It follows the newest of `plans`, and ends where there are no more.
    /// `number` is its own, and its successor's after a panic.
    fn task(
        &self,
        key: &Self::Key,
        number: u64,
        plans: watch::Receiver<Self::Plan>,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// Owns one task for each key. None of its methods waits, except `shutdown`; they
/// must be called from within the runtime. Dropping it ends all tasks.
pub(crate) struct TaskPool<W: Work> {
    work: W,
    running: HashMap<W::Key, Running<W::Plan>>,
    tasks: JoinSet<()>,
    started: u64,
}

struct Running<P> {
    plan: watch::Sender<P>,
    task: AbortHandle,
    number: u64,
}

/// After a panic, so that one that always panics costs little.
const PAUSE: Duration = Duration::from_secs(1);

impl<W: Work> TaskPool<W> {
    /// A pool without tasks.
    pub(crate) fn new(work: W) -> Self {
        Self { work, running: HashMap::new(), tasks: JoinSet::new(), started: 0 }
    }

    /// Starts the task for `key`, or has it follow another plan from now on. The same plan again
    /// changes nothing.
    pub(crate) fn apply(&mut self, key: W::Key, plan: W::Plan) {
        self.restart_broken();
        match self.running.entry(key) {
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
                let (plan, plans) = watch::channel(plan);
                self.started += 1;
                let task = self.tasks.spawn(self.work.task(vacant.key(), self.started, plans));
                vacant.insert(Running { plan, task, number: self.started });
            }
        }
    }

    /// Ends the task for `key` at once, in the middle of a request too.
    pub(crate) fn remove(&mut self, key: &W::Key) {
        if let Some(running) = self.running.remove(key) {
            running.task.abort();
        }
        self.restart_broken();
    }

    /// The number of the task for `key`.
    pub(crate) fn number(&self, key: &W::Key) -> Option<u64> {
        self.running.get(key).map(|running| running.number)
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    /// Ends all tasks and waits until none is left.
    pub(crate) async fn shutdown(mut self) {
        self.running.clear();
        self.tasks.shutdown().await;
    }

    /// Takes note of tasks that ended. Called by `apply` and `remove`; cheap where there is
    /// nothing to do.
    pub(crate) fn restart_broken(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            if let Err(error) = ended {
                self.restart(&error);
            }
        }
    }

    /// A task that was removed ended as it should; one that panicked is a bug, which must cost
    /// neither the process nor what the task was for: it is logged and started anew.
    fn restart(&mut self, error: &JoinError) -> bool {
        if !error.is_panic() {
            return false;
        }
        let is_it = |id: Id, running: &Running<W::Plan>| running.task.id() == id;
        let Some((key, running)) = self.running.iter_mut().find(|(_, running)| is_it(error.id(), running))
        else {
            return false;
        };
        error!(?key, %error, "a scrape task panicked and is started anew");
        let task = self.work.task(key, running.number, running.plan.subscribe());
        running.task = self.tasks.spawn(async {
            sleep(PAUSE).await;
            task.await;
        });
        true
    }
}

impl<W: Work> Debug for TaskPool<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPool").field("tasks", &self.running.len()).finish_non_exhaustive()
    }
}

/// The seed of the place that what is scraped has on the interval. The same in every process,
/// so that it can be told from a log.
pub(crate) fn seed(key: &impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}
