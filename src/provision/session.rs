//! The time in which this replica provisions: from the first list until something ends it.
//! Nothing of it outlives it, so that dropping it stops every write.

use std::{collections::HashMap, convert::Infallible, future, sync::Arc};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::watch::Receiver;
use tracing::{info, warn};

use super::{
    Provisioner,
    asking::{self, Asking},
    notices::{Notice, Notices},
    observed::Observed,
    queue::{Queue, Verdict},
    step::{Circumstances, step},
    write::{End, Work, Writer, Written},
};
use scaler_core::{
    names::InferenceSetKey,
    provision::{Action, Plan},
};

/// How many InferenceSets are worked on at a time.
const WORKERS: usize = 10;

pub(super) struct Session<'a> {
    provisioner: &'a Provisioner,
    writer: Writer,
    observed: Observed,
    /// Whether everything is known, and provisioning goes on.
    provisions: bool,
    /// What was last said to be missing.
    said_missing: Vec<&'static str>,
    queue: Queue,
    asking: Asking,
    certificates: Receiver<Option<Arc<str>>>,
    notices: Notices,
    /// Where the API server refuses what we make, what it said.
    rejections: HashMap<InferenceSetKey, Notice>,
    /// The InferenceSets whose ScaledObject was found or made newer than the watch has shown it.
    unseen: HashMap<InferenceSetKey, Unseen>,
    working: FuturesUnordered<BoxFuture<'static, Written>>,
}

/// A ScaledObject that the watch has yet to show. The watch alone says what there is: an answer
/// may come long after the object has changed again, or has gone.
#[derive(Debug)]
struct Unseen {
    version: u64,
    /// There was something to look at meanwhile.
    is_postponed: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(provisioner: &'a Provisioner) -> Self {
        let Provisioner { store, instance, metrics, writes_per_second, .. } = provisioner;
        Self {
            writer: Writer::new(store.client().clone(), instance.clone(), *writes_per_second),
            observed: Observed::new(store),
            provisions: false,
            said_missing: Vec::new(),
            queue: Queue::default(),
            asking: Asking::new(provisioner.wake_sources.clone()),
            certificates: provisioner.certificates.clone(),
            notices: Notices::new(metrics.clone()),
            rejections: HashMap::new(),
            unseen: HashMap::new(),
            working: FuturesUnordered::new(),
            provisioner,
        }
    }

    /// Never ends by itself.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            if self.provisions && !self.queue.has_ready() {
                self.asking.publish();
            }
            let may_start = self.provisions && self.queue.has_ready() && self.working.len() < WORKERS;
            tokio::select! {
                () = future::ready(()), if may_start => {
                    self.start_next();
                    // Thousands may be ready at once; others share this thread.
                    tokio::task::consume_budget().await;
                }
                Some(written) = self.working.next() => self.finish(written),
                () = self.observed.changed() => self.observe(),
                sets = self.asking.answered() => sets.into_iter().for_each(|set| self.queue.add(set)),
                Ok(()) = self.certificates.changed() => {
                    info!("the certificates that ScaledObjects name are known, or others");
                    self.observed.all().into_iter().for_each(|set| self.queue.add(set));
                }
                () = self.queue.end_of_pause() => {}
            }
        }
    }

    /// Takes in what has changed in the cluster.
    fn observe(&mut self) {
        self.observed.take().into_iter().for_each(|set| self.queue.add(set));
        let view = self.observed.view();
        let (missing, version) = (view.missing(), view.scaled_objects.version());
        drop(view);
        self.unseen.retain(|set, unseen| {
            let is_shown = unseen.version <= version;
            if is_shown && unseen.is_postponed {
                self.queue.add(set.clone());
            }
            !is_shown
        });
        let provisions = missing.is_empty();
        if self.provisions != provisions {
            if provisions {
                info!("everything is listed, provisioning");
            }
            self.provisioner.metrics.provisioning.set(provisions.into());
            self.provisions = provisions;
        }
        if self.said_missing != missing {
            if !provisions {
                info!(missing = missing.join(", "), "nothing is provisioned until everything is known");
            }
            self.said_missing = missing;
        }
    }

    /// Plans for the next InferenceSet, and starts what has to be written.
    fn start_next(&mut self) {
        let Some(set) = self.queue.start() else { return };
        if let Some(unseen) = self.unseen.get_mut(&set) {
            unseen.is_postponed = true;
            return self.queue.postpone(&set);
        }
        let certificates = self.certificates.borrow().clone();
        let circumstances = Circumstances {
            scaler_address: &self.provisioner.scaler_address,
            certificates: certificates.as_deref(),
        };
        let step = step(&self.observed.view(), &set, &self.asking.known(&set), circumstances);
        let Some(step) = step else {
            self.asking.ask(&set, None);
            self.rejections.remove(&set);
            self.notices.replace(&set, Vec::new());
            return self.queue.finish(&set, Verdict::Done);
        };
        if self.asking.ask(&set, step.asks) {
            self.queue.add_after(&set, asking::PATIENCE);
        }
        let mut notices = step.notices;
        if is_nothing(&step.plan) {
            self.rejections.remove(&set);
        }
        notices.extend(self.rejections.get(&set).cloned());
        let untold = self.notices.replace(&set, notices);
        if is_nothing(&step.plan) && untold.is_empty() {
            return self.queue.finish(&set, Verdict::Done);
        }
        let work = Work { set, plan: step.plan, untold, subject: step.subject };
        self.working.push(self.writer.clone().carry_out(work).boxed());
    }

    fn finish(&mut self, written: Written) {
        let Written { set, end, told, subject } = written;
        self.notices.told(&set, &told);
        let verdict = match end {
            End::Done | End::Applied { .. } => {
                if let Some(rejection) = self.rejections.remove(&set) {
                    self.notices.retract(&set, &rejection);
                }
                if let End::Applied { version } = end {
                    self.await_version(&set, version);
                }
                Verdict::Done
            }
            End::Conflict { name, version } => {
                info!(inference_set = %set, scaled_object = name, "changed meanwhile, planning anew");
                version.into_iter().for_each(|version| self.await_version(&set, version));
                Verdict::Conflict
            }
            End::Failed(error) => {
                warn!(inference_set = %set, error = %crate::error_chain(&error), "not provisioned, will try again");
                if let Some(note) = error.rejection() {
                    self.rejections.insert(set.clone(), Notice { subject, reason: "ProvisionFailed", note });
                }
                Verdict::Failed
            }
        };
        self.queue.finish(&set, verdict);
    }

    /// What the watch still says of the time before `version` is not planned upon.
    fn await_version(&mut self, set: &InferenceSetKey, version: u64) {
        if version > self.observed.view().scaled_objects.version() {
            self.unseen.insert(set.clone(), Unseen { version, is_postponed: false });
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.provisioner.metrics.provisioning.set(0);
    }
}

fn is_nothing(plan: &Plan) -> bool {
    plan.surplus.is_empty() && matches!(plan.action, Action::Nothing | Action::Conflict(_))
}
