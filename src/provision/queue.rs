//! Which InferenceSets are to be looked at, and when.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use futures::StreamExt;
use tokio_util::time::DelayQueue;

use scaler_core::names::InferenceSetKey;

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Conflicts in a row that are tried again at once; somebody else may keep writing.
const CONFLICTS_AT_ONCE: u32 = 3;

/// A queue in which every InferenceSet stands at most once and is worked on by one worker at
/// a time.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: VecDeque<InferenceSetKey>,
    is_ready: HashSet<InferenceSetKey>,
    working: HashSet<InferenceSetKey>,
    /// Added while it was worked on.
    again: HashSet<InferenceSetKey>,
    /// How often in a row it did not work out.
    failures: HashMap<InferenceSetKey, u32>,
    paused: DelayQueue<InferenceSetKey>,
}

/// How work on an InferenceSet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    /// Somebody was faster.
    Conflict,
    Failed,
}

impl Queue {
    /// Adds an InferenceSet; a change is worth a try even within a pause.
    pub(super) fn add(&mut self, set: InferenceSetKey) {
        if self.working.contains(&set) {
            self.again.insert(set);
        } else if self.is_ready.insert(set.clone()) {
            self.ready.push_back(set);
        }
    }

    /// Adds an InferenceSet later.
    pub(super) fn add_after(&mut self, set: InferenceSetKey, pause: Duration) {
        self.paused.insert(set, pause);
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next InferenceSet, which counts as worked on until [`Self::finish`].
    pub(super) fn start(&mut self) -> Option<InferenceSetKey> {
        let set = self.ready.pop_front()?;
        self.is_ready.remove(&set);
        self.working.insert(set.clone());
        Some(set)
    }

    pub(super) fn finish(&mut self, set: &InferenceSetKey, verdict: Verdict) {
        self.working.remove(set);
        let mut again = self.again.remove(set);
        if verdict == Verdict::Done {
            self.failures.remove(set);
        } else {
            let failures = self.failures.entry(set.clone()).or_insert(0);
            *failures = failures.saturating_add(1);
            match verdict {
                Verdict::Conflict if *failures <= CONFLICTS_AT_ONCE => again = true,
                _ => {
                    let doubled = FIRST_PAUSE * 2_u32.saturating_pow((*failures - 1).min(16));
                    self.paused.insert(set.clone(), doubled.min(LONGEST_PAUSE));
                }
            }
        }
        if again {
            self.add(set.clone());
        }
    }

    /// Waits for the end of a pause and makes that InferenceSet ready. For ever where there
    /// is none. Loses nothing where it is dropped.
    pub(super) async fn end_of_pause(&mut self) {
        match self.paused.next().await {
            Some(expired) => self.add(expired.into_inner()),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn set(name: &str) -> InferenceSetKey {
        InferenceSetKey::new("team-a", name)
    }

    #[tokio::test]
    async fn stands_once_and_is_worked_on_once() {
        let mut queue = Queue::default();
        for name in ["a", "b", "a"] {
            queue.add(set(name));
        }
        assert_eq!(queue.start(), Some(set("a")));
        queue.add(set("a"));
        queue.add(set("a"));
        assert_eq!((queue.start(), queue.start()), (Some(set("b")), None));
        queue.finish(&set("a"), Verdict::Done);
        queue.finish(&set("b"), Verdict::Done);
        assert_eq!((queue.start(), queue.start()), (Some(set("a")), None));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_pause_longer_and_longer_until_one_works() {
        let mut queue = Queue::default();
        queue.add(set("a"));
        let mut pauses = Vec::new();
        for _ in 0..11 {
            queue.start().unwrap();
            queue.finish(&set("a"), Verdict::Failed);
            let began = Instant::now();
            queue.end_of_pause().await;
            pauses.push(began.elapsed().as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        queue.start().unwrap();
        queue.finish(&set("a"), Verdict::Done);
        queue.add(set("a"));
        queue.start().unwrap();
        queue.finish(&set("a"), Verdict::Failed);
        let began = Instant::now();
        queue.end_of_pause().await;
        assert_eq!(began.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_are_tried_again_at_once_but_not_for_ever() {
        let mut queue = Queue::default();
        queue.add(set("a"));
        for _ in 0..CONFLICTS_AT_ONCE {
            queue.start().unwrap();
            queue.finish(&set("a"), Verdict::Conflict);
            assert!(queue.has_ready());
        }
        queue.start().unwrap();
        queue.finish(&set("a"), Verdict::Conflict);
        assert!(!queue.has_ready());
        queue.end_of_pause().await;
        assert!(queue.has_ready());
    }

    #[tokio::test]
    async fn a_change_ends_a_pause() {
        let mut queue = Queue::default();
        queue.add(set("a"));
        queue.start().unwrap();
        queue.finish(&set("a"), Verdict::Failed);
        assert!(!queue.has_ready());
        queue.add(set("a"));
        assert_eq!(queue.start(), Some(set("a")));
    }
}
