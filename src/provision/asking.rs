//! What is asked, and known, of the sources that would wake sleeping models. Others try them:
//! here the questions go out on one channel, and the answers come in on another.

use std::{
    collections::{BTreeMap, HashMap},
    future::pending,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use scaler_core::{
    config::{annotations::Wake, trigger::WakeSource},
    names::InferenceSetKey,
    wake::{Answers, Asked},
};

/// A question that has had no answer for as long as this is worth an event.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The ends of the two channels.
#[derive(Clone, Debug)]
pub struct WakeSources {
    pub asked: watch::Sender<Arc<Asked>>,
    pub answers: watch::Receiver<Arc<Answers>>,
}

/// Whether the wake-up source of an InferenceSet can be read: the one that is named for it, if
/// one is, else the picker that KAITO's naming gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question(pub Option<WakeSource>);

/// The questions of one session.
#[derive(Debug)]
pub(super) struct Asking {
    channels: WakeSources,
    asked: Asked,
    since: HashMap<InferenceSetKey, Instant>,
    /// What was answered when it was last looked.
    seen: Arc<Answers>,
    unpublished: bool,
}

impl Asking {
    pub(super) fn new(mut channels: WakeSources) -> Self {
        let seen = channels.answers.borrow_and_update().clone();
        Self { channels, asked: BTreeMap::new(), since: HashMap::new(), seen, unpublished: false }
    }

    /// What is known of the wake-up source of `set`.
    pub(super) fn known(&self, set: &InferenceSetKey) -> Wake {
        match self.seen.get(set) {
            Some(readability) => Wake::Tried(readability.clone()),
            None => Wake::Untried {
                overdue: self.since.get(set).is_some_and(|since| since.elapsed() >= PATIENCE),
            },
        }
    }

    /// Asks about `set` from now on, or no longer. True where the question is new.
    pub(super) fn ask(&mut self, set: &InferenceSetKey, question: Option<Question>) -> bool {
        let Some(Question(named)) = question else {
            self.since.remove(set);
            self.unpublished |= self.asked.remove(set).is_some();
            return false;
        };
        let is_new = self.asked.get(set) != Some(&named);
        if is_new {
            self.since.insert(set.clone(), Instant::now());
            self.asked.insert(set.clone(), named);
            self.unpublished = true;
        }
        is_new
    }

    /// Sends out the questions, where they have changed.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.channels.asked.send_replace(Arc::new(self.asked.clone()));
        }
    }

    /// Waits for other answers, and gives the InferenceSets whose answer is another. Loses
    /// nothing where it is dropped.
    pub(super) async fn answered(&mut self) -> Vec<InferenceSetKey> {
        if self.channels.answers.changed().await.is_err() {
            // Whoever tried them has gone: what is known stays.
            pending::<()>().await;
        }
        let now = self.channels.answers.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.seen, now);
        let changed = |set: &&InferenceSetKey| before.get(*set) != self.seen.get(*set);
        self.asked.keys().filter(changed).cloned().collect()
    }
}

impl Drop for Asking {
    /// Who no longer provisions asks nothing.
    fn drop(&mut self) {
        self.channels.asked.send_replace(Arc::default());
    }
}
