//! Supervised tasks: each has a name, and none ends unnoticed.
//!
//! Every task of the program is started here, as one of three kinds:
//!
//! | kind | what it is | a panic | an end |
//! |---|---|---|---|
//! | [part](Tasks::part) | what the process can't do without: discovery, the aggregator, a listener | ends the process | ends the process, unless it is stopping |
//! | [job](Tasks::job) | work that has an end: opening the listener | ends the process | is its end |
//! | [contained](Tasks::contained) work | one connection, one call | costs that connection or call; logged and counted | is its end |
//!
//! A process that goes on without one of its parts is alive and deaf: its probes pass, and what it
//! answers is what was. One that ends is started anew, while another replica answers. A panic in
//! contained work does not end the process, because whoever can make a call could then end it for
//! everybody.
//!
//! The scrapes of an endpoint and of a wake source are tasks of their pools, which start a task that
//! panicked anew: what one page does may cost nobody else anything.

use std::{any::Any, fmt, future::poll_fn, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures::FutureExt;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::Counter, family::Family},
};
use thiserror::Error;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

#[cfg(test)]
pub(crate) mod fault;

/// Why the process has to end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    #[error("{part} panicked: {message}")]
    Panicked { part: &'static str, message: String },
    #[error("{part} has ended by itself")]
    Ended { part: &'static str },
    #[error("{part} failed: {error}")]
    Failed { part: &'static str, error: String },
}

/// What is counted of panics that cost only the work that they happened in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PanicLabels {
    /// The kind of work.
    pub task: &'static str,
}

/// A group of tasks. Cheap to clone; all clones are the same group.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Cancelled once the group's parts are expected to end.
    stopping: CancellationToken,
    /// The first failure. Shared by all groups of the process.
    failure: Arc<watch::Sender<Option<Failure>>>,
    panics: Family<PanicLabels, Counter>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.tracker.len()).finish_non_exhaustive()
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// The first group of a process.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            failure: Arc::new(watch::Sender::new(None)),
            panics: Family::default(),
        }
    }

    /// Another group of the same process: it is waited for by itself, and its parts may end once
    /// `stopping` is cancelled.
    #[must_use]
    pub fn group(&self, stopping: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), stopping, ..self.clone() }
    }

    /// Runs something that the process can't do without. Its value is `None` where it panicked.
    pub fn part<T: Send + 'static>(
        &self,
        name: &'static str,
        part: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let tasks = self.clone();
        self.start(async move {
            let mut supervised = pin!(tasks.supervise(name, part));
            let mut was_stopping = false;
            let ended = poll_fn(|context| {
                // Before, and not after: what ends with this part may have been noticed already, and
                // have stopped everything.
                was_stopping = tasks.stopping.is_cancelled();
                supervised.as_mut().poll(context)
            });
            let ended = ended.await;
            let may_end = was_stopping || (tasks.stopping.is_cancelled() && !tasks.has_failed());
            if ended.is_ok() && !may_end {
                tasks.fail(Failure::Ended { part: name });
            }
            ended.ok().flatten()
        })
    }

    /// Runs something that ends once it is done. Its value is `None` where it panicked.
    pub fn job<T: Send + 'static>(
        &self,
        name: &'static str,
        job: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let tasks = self.clone();
        self.start(async move { tasks.supervise(name, job).await.ok().flatten() })
    }

    /// Runs what serves one peer: a panic costs only this.
    pub fn contained(&self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let panics = self.panics.clone();
        drop(self.start(async move {
            contain(&panics, task, work).await;
        }));
    }

    /// Runs `work` in the task that calls this, contained in the same way; `None` where it
    /// panicked.
    pub async fn run_contained<T>(&self, task: &'static str, work: impl Future<Output = T>) -> Option<T> {
        contain(&self.panics, task, work).await
    }

    /// Ends the process for a reason of a part's own.
    pub fn fail(&self, failure: Failure) {
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                error!(%failure, "the process can't go on");
                *first = Some(failure);
            } else if first.as_ref() != Some(&failure) {
                error!(%failure, "the process can't go on either way");
            }
            is_first
        });
    }

    /// Resolves with the first failure, if one ever comes.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.failure.subscribe();
        loop {
            if let Some(failure) = &*failure.borrow_and_update() {
                return failure.clone();
            }
            // `self` has the sender: this does not fail.
            let _ = failure.changed().await;
        }
    }

    fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// From now on parts may end.
    pub fn stopping(&self) {
        self.stopping.cancel();
    }

    /// Waits until every task of the group has ended, and takes it that no more are started.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// How many tasks of the group run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Exports how many panics were contained.
    #[must_use]
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(PanicCollector(self.panics.clone()))
    }

    fn start<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tracker.spawn(task)
    }

    /// Runs `part` to its end, where it has a value unless a test has made it end.
    async fn supervise<T>(
        &self,
        name: &'static str,
        part: impl Future<Output = T>,
    ) -> Result<Option<T>, Panicked> {
        #[cfg(test)]
        let part = fault::open_to(name, part);
        #[cfg(not(test))]
        let part = part.map(Some);
        match AssertUnwindSafe(part).catch_unwind().await {
            Ok(ended) => Ok(ended),
            Err(panic) => {
                self.fail(Failure::Panicked { part: name, message: message(panic.as_ref()) });
                Err(Panicked)
            }
        }
    }
}

/// A part has panicked, which was reported.
struct Panicked;

#[derive(Debug)]
struct PanicCollector(Family<PanicLabels, Counter>);

impl Collector for PanicCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Panics that cost one connection, call or page, and not the process";
        let kind = self.0.metric_type();
        self.0.encode(encoder.encode_descriptor("keda_kaito_scaler_panics", help, None, kind)?)
    }
}

async fn contain<T>(
    panics: &Family<PanicLabels, Counter>,
    task: &'static str,
    work: impl Future<Output = T>,
) -> Option<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(ended) => Some(ended),
        Err(panic) => {
            error!(task, message = message(panic.as_ref()), "panicked; only this one is lost");
            panics.get_or_create(&PanicLabels { task }).inc();
            None
        }
    }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        future::{pending, ready},
    };

    use prometheus_client::registry::Registry;

    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_or_ends_is_the_failure() {
        for (part, expected) in [
            ("panics", Failure::Panicked { part: "panics", message: "7 of 9".to_owned() }),
            ("ends", Failure::Ended { part: "ends" }),
        ] {
            let tasks = Tasks::new();
            let left = tasks.part(part, async move {
                assert!(part != "panics", "{} of 9", 7);
                part
            });
            assert_eq!(tasks.failed().await, expected);
            assert_eq!(left.await.unwrap(), (part == "ends").then_some("ends"));
        }
    }

    #[tokio::test]
    async fn the_first_failure_stands_and_a_part_of_any_group_can_be_it() {
        let tasks = Tasks::new();
        let group = tasks.group(CancellationToken::new());
        group.part("of the group", ready(()));
        let first = tasks.failed().await;
        assert_eq!(first, Failure::Ended { part: "of the group" });
        tasks.fail(Failure::Failed { part: "another", error: "of no interest".to_owned() });
        assert_eq!((tasks.failed().await, group.failed().await), (first.clone(), first));
    }

    #[tokio::test]
    async fn ends_are_no_failures_while_stopping_nor_of_jobs_and_panics_are() {
        let tasks = Tasks::new();
        assert_eq!(tasks.job("opening", ready(3)).await.unwrap(), Some(3));
        let stop = CancellationToken::new();
        tasks.part("listener", stop.clone().cancelled_owned());
        let group = tasks.group(stop.clone());
        group.part("accepting", stop.clone().cancelled_owned());
        tasks.stopping();
        stop.cancel();
        tasks.ended().await;
        group.ended().await;
        assert_eq!(tasks.failed().now_or_never(), None);
        tasks.job("release", async { panic!("no lease") });
        let message = "no lease".to_owned();
        assert_eq!(tasks.failed().await, Failure::Panicked { part: "release", message });
    }

    #[tokio::test]
    async fn what_is_contained_costs_itself_and_is_counted() {
        let tasks = Tasks::new();
        tasks.contained("call", async { panic!("by this call") });
        tasks.contained("call", ready(()));
        assert_eq!(tasks.run_contained("page", async { std::panic::panic_any(3) }).await, None::<()>);
        assert_eq!(tasks.run_contained("page", ready(4)).await, Some(4));
        tasks.ended().await;
        let mut registry = Registry::default();
        registry.register_collector(tasks.collector());
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        let counts: BTreeSet<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let counted =
            ["call", "page"].map(|task| format!("keda_kaito_scaler_panics_total{{task=\"{task}\"}} 1"));
        assert_eq!(counts, counted.iter().map(String::as_str).collect());
        assert_eq!(tasks.failed().now_or_never(), None);
    }

    #[tokio::test]
    async fn what_a_part_holds_may_panic_in_its_end() {
        struct Fragile;
        impl Drop for Fragile {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let tasks = Tasks::new();
        tasks.part("fragile", async {
            let _held = Fragile;
            tokio::task::yield_now().await;
        });
        let message = "dropped".to_owned();
        assert_eq!(tasks.failed().await, Failure::Panicked { part: "fragile", message });
        tasks.part("steady", pending::<()>());
        assert_eq!(tasks.len(), 1);
    }
}
