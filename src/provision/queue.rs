//! Which InferenceSets are to be looked at, and when.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

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
    /// When an InferenceSet is to be looked at again by itself.
    due: HashMap<InferenceSetKey, Due>,
    /// The same in order: each InferenceSet once, at the first of its times.
    timers: BTreeSet<(Instant, InferenceSetKey)>,
}

/// At most one time for each reason, however often there was one.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    /// After a failure.
    retry: Option<Instant>,
    /// Something may have to be said by then.
    look: Option<Instant>,
}

impl Due {
    fn first(self) -> Option<Instant> {
        self.retry.into_iter().chain(self.look).min()
    }
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

    /// Adds an InferenceSet later, instead of when it was to be added by the last such call.
    pub(super) fn add_after(&mut self, set: &InferenceSetKey, pause: Duration) {
        self.set_due(set, |due| due.look = Some(Instant::now() + pause));
    }

    fn set_due(&mut self, set: &InferenceSetKey, change: impl FnOnce(&mut Due)) {
        let before = self.due.remove(set).unwrap_or_default();
        let mut due = before;
        change(&mut due);
        if let Some(at) = before.first() {
            self.timers.remove(&(at, set.clone()));
        }
        if let Some(at) = due.first() {
            self.timers.insert((at, set.clone()));
            self.due.insert(set.clone(), due);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next InferenceSet, which counts as worked on until [`Self::finish`].
    pub(super) fn start(&mut self) -> Option<InferenceSetKey> {
        let set = self.ready.pop_front()?;
        self.is_ready.remove(&set);
        self.working.insert(set.clone());
        // This is the next try, or there will be a later one.
        self.set_due(&set, |due| due.retry = None);
        Some(set)
    }

    /// Ends work on an InferenceSet that was not begun: it is added again when that can be.
    pub(super) fn postpone(&mut self, set: &InferenceSetKey) {
        self.working.remove(set);
        self.again.remove(set);
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
                    let at = Instant::now() + doubled.min(LONGEST_PAUSE);
                    self.set_due(set, |due| due.retry = Some(at));
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
        let Some((at, set)) = self.timers.first().cloned() else { return std::future::pending().await };
        sleep_until(at).await;
        let is_left = |time: &Instant| *time > at;
        self.set_due(&set, |due| {
            *due = Due { retry: due.retry.filter(is_left), look: due.look.filter(is_left) };
        });
        self.add(set);
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

    /// Each change is a try, and none of them leaves a timer behind.
    #[tokio::test(start_paused = true)]
    async fn there_is_one_timer_however_often_it_failed() {
        let mut queue = Queue::default();
        for _ in 0..50 {
            queue.add(set("a"));
            queue.start().unwrap();
            queue.finish(&set("a"), Verdict::Failed);
        }
        assert_eq!(queue.timers.len(), 1);
        let (start, mut tries) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(3_600) {
            queue.end_of_pause().await;
            assert_eq!(queue.start(), Some(set("a")));
            queue.finish(&set("a"), Verdict::Failed);
            tries += 1;
        }
        assert_eq!((tries, queue.timers.len()), (12, 1));
        queue.add(set("a"));
        queue.start().unwrap();
        queue.finish(&set("a"), Verdict::Done);
        assert_eq!((queue.timers.len(), queue.due.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_does_not_end_the_wait_for_what_may_have_to_be_said() {
        let mut queue = Queue::default();
        queue.add_after(&set("a"), Duration::from_secs(9));
        queue.add_after(&set("a"), Duration::from_secs(10));
        let start = Instant::now();
        let mut times = Vec::new();
        queue.add(set("a"));
        for verdict in [Verdict::Failed, Verdict::Done, Verdict::Done] {
            queue.start().unwrap();
            queue.finish(&set("a"), verdict);
            if queue.timers.is_empty() {
                break;
            }
            queue.end_of_pause().await;
            times.push(start.elapsed().as_secs());
        }
        assert_eq!(times, [1, 10]);
        assert!(queue.due.is_empty());
    }

    #[tokio::test]
    async fn what_is_postponed_waits_for_whoever_adds_it() {
        let mut queue = Queue::default();
        queue.add(set("a"));
        queue.start().unwrap();
        queue.add(set("a"));
        queue.postpone(&set("a"));
        assert!(!queue.has_ready());
        queue.add(set("a"));
        assert_eq!(queue.start(), Some(set("a")));
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
