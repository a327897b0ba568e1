//! The time in which this replica provisions: from the first list until something ends it.
//! Nothing of it outlives it, so that dropping it stops every write.

use std::{collections::HashMap, convert::Infallible, future, sync::Arc};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::watch::Receiver;
use tracing::{info, warn};

use super::{
    Provisioner,
    asking::{self, Asking},
    index::Index,
    notices::{Notice, Notices},
    queue::{Queue, Verdict},
    served::Served,
    step::{Circumstances, step},
    watch::watch,
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
    served: &'a Served,
    writer: Writer,
    index: Index,
    queue: Queue,
    asking: Asking,
    certificates: Receiver<Option<Arc<str>>>,
    notices: Notices,
    /// Where the API server refuses what we make, what it said.
    rejections: HashMap<InferenceSetKey, Notice>,
    working: FuturesUnordered<BoxFuture<'static, Written>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(provisioner: &'a Provisioner, served: &'a Served) -> Self {
        let Provisioner { client, instance, metrics, writes_per_second, .. } = provisioner;
        Self {
            writer: Writer::new(
                client.clone(),
                served.scaled_objects.clone(),
                instance.clone(),
                *writes_per_second,
            ),
            index: Index::new(served),
            queue: Queue::default(),
            asking: Asking::new(provisioner.wake_sources.clone()),
            certificates: provisioner.certificates.clone(),
            notices: Notices::new(metrics.clone()),
            rejections: HashMap::new(),
            working: FuturesUnordered::new(),
            provisioner,
            served,
        }
    }

    /// Never ends by itself.
    pub(super) async fn run(mut self) -> Infallible {
        let mut changes = watch(&self.provisioner.client, self.served);
        let mut announced = false;
        loop {
            if !announced && self.index.is_complete() {
                info!("everything is listed, provisioning");
                announced = true;
            }
            if announced && !self.queue.has_ready() {
                self.asking.publish();
            }
            let may_start = announced && self.queue.has_ready() && self.working.len() < WORKERS;
            tokio::select! {
                () = future::ready(()), if may_start => {
                    self.start_next();
                    // Thousands may be ready at once; others share this thread.
                    tokio::task::consume_budget().await;
                }
                Some(written) = self.working.next() => self.finish(written),
                Some(change) = changes.next() => {
                    for set in change.apply(&mut self.index) {
                        self.queue.add(set);
                    }
                }
                sets = self.asking.answered() => sets.into_iter().for_each(|set| self.queue.add(set)),
                Ok(()) = self.certificates.changed() => {
                    info!("the certificates that ScaledObjects name are known, or others");
                    self.index.inference_sets.concerned().for_each(|set| self.queue.add(set));
                }
                () = self.queue.end_of_pause() => {}
            }
        }
    }

    /// Plans for the next InferenceSet, and starts what has to be written.
    fn start_next(&mut self) {
        let Some(set) = self.queue.start() else { return };
        let certificates = self.certificates.borrow().clone();
        let circumstances = Circumstances {
            served: self.served,
            scaler_address: &self.provisioner.scaler_address,
            certificates: certificates.as_deref(),
        };
        let Some(step) = step(&self.index, &set, &self.asking.known(&set), circumstances) else {
            self.asking.ask(&set, None);
            self.rejections.remove(&set);
            self.notices.replace(&set, Vec::new());
            return self.queue.finish(&set, Verdict::Done);
        };
        if self.asking.ask(&set, step.asks) {
            self.queue.add_after(set.clone(), asking::PATIENCE);
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
            End::Done | End::Applied(_) => {
                if let Some(rejection) = self.rejections.remove(&set) {
                    self.notices.retract(&set, &rejection);
                }
                if let End::Applied(object) = end {
                    // So that what the watch still says of the time before is not planned upon.
                    let touched = self.index.scaled_objects.observe(*object);
                    self.add_others(&set, touched);
                }
                Verdict::Done
            }
            End::Conflict { name, now } => {
                info!(inference_set = %set, scaled_object = name, "changed meanwhile, planning anew");
                let touched = match now {
                    Some(object) => self.index.scaled_objects.observe(*object),
                    None => self.index.scaled_objects.remove(&set.namespace, &name),
                };
                self.add_others(&set, touched);
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

    /// For `set` itself the verdict says whether to go on.
    fn add_others(&mut self, set: &InferenceSetKey, touched: Vec<InferenceSetKey>) {
        for other in touched.into_iter().filter(|it| it != set) {
            self.queue.add(other);
        }
    }
}

fn is_nothing(plan: &Plan) -> bool {
    plan.surplus.is_empty() && matches!(plan.action, Action::Nothing | Action::Conflict(_))
}
