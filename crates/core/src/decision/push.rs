//! When a StreamIsActive says `true`, and when it ends itself.
//!
//! KEDA ignores a pushed `false`, drops a `true` while it initialises, and writes a status
//! patch (which restarts the cooldown) for each `true` while there are replicas. So: one
//! `true` on the edge, one on open where the target is active, and repetitions only while
//! demand goes unanswered.

use std::time::Duration;

use super::activation::{Activity, Cause};
use crate::time::Moment;

/// The first repetitions' distance, and for how long it holds before it doubles.
const QUICK: Duration = Duration::from_secs(2);
const QUICK_PHASE: Duration = Duration::from_secs(30);
const SLOWEST: Duration = Duration::from_secs(30);

/// After how long an unanswered wake-up is reported as not honoured.
pub const UNANSWERED: Duration = Duration::from_secs(30);

/// Whether demand meets fewer replicas than a push gives, and since when: what a `true` is repeated for. One for each
/// target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait(Option<Waiting>);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Moment,
    /// It has lasted for [`UNANSWERED`], and that was told.
    reported: bool,
}

impl Wait {
    /// Takes in the decision of `now`; `wakes_to` are the replicas that KEDA writes on a push.
    /// True once in a wait: when it has lasted too long.
    pub fn follow(&mut self, now: Moment, activity: Activity, replicas: Option<u32>, wakes_to: u32) -> bool {
        let short = replicas.is_some_and(|replicas| replicas < wakes_to);
        if activity != Activity::Active(Cause::Demand) || !short {
            self.0 = None;
            return false;
        }
        let waiting = self.0.get_or_insert(Waiting { since: now, reported: false });
        let late = !waiting.reported && now.saturating_since(waiting.since) >= UNANSWERED;
        waiting.reported |= late;
        late
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// When it will have lasted too long; `None` where nothing waits, or that was told.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        self.0.filter(|waiting| !waiting.reported).map(|waiting| waiting.since + UNANSWERED)
    }
}

/// What the aggregator tells the streams of a target. A new value replaces the last: a slow
/// reader skips, and never queues.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PushState {
    pub active: bool,
    /// Counts the inactive→active edges.
    pub edge: u64,
    pub replicas: u32,
    /// There is demand, and fewer replicas are wanted than a push gives: KEDA is to act.
    pub unanswered: bool,
    /// Replicas serve and none is on its way: ending a stream costs nothing now.
    pub settled: bool,
    /// When the sample behind the newest edge was read.
    pub sampled: Option<Moment>,
}

/// One stream's memory of what it sent. Pure: `poll` is told the time.
#[derive(Clone, Debug)]
pub struct Pusher {
    /// The state that was last answered to, and when it began.
    episode: Option<(PushState, Moment)>,
    next: Option<Moment>,
}

/// Why `true` is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushCause {
    /// The stream opened on an active target.
    Open,
    /// Demand rose from nothing, or met too few replicas.
    Edge,
    /// KEDA has not acted yet.
    Repeat,
}

impl PushCause {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Edge => "edge",
            Self::Repeat => "repeat",
        }
    }
}

/// What a stream is to do now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PushStep {
    /// Send `true`, and why.
    pub send: Option<PushCause>,
    /// Ask again at this moment, or when the state changes.
    pub again_at: Option<Moment>,
}

impl Pusher {
    #[must_use]
    pub fn new() -> Self {
        Self { episode: None, next: None }
    }

    /// What to do at `now` in `state`.
    pub fn poll(&mut self, now: Moment, state: &PushState) -> PushStep {
        let opened = self.episode.is_none();
        let before = self.episode.map_or(*state, |(before, _)| before);
        // Counted as well: a slow reader may skip the inactive state between two edges.
        let edge = before.edge != state.edge || (state.active && !before.active);
        // Demand that meets too few replicas is news, also within a hold time (which has no edge).
        let unmet = state.unanswered && (!before.unanswered || before.replicas != state.replicas);
        if opened || edge || unmet || before.active != state.active {
            self.episode = Some((*state, now));
        } else if let Some((last, _)) = &mut self.episode {
            *last = *state;
        }
        let due = self.next.is_some_and(|next| next <= now);
        let send = state.active && (opened || edge || unmet || (state.unanswered && due));
        if send || !state.unanswered {
            self.next = (state.active && state.unanswered).then(|| now + self.distance(now));
        }
        let cause = match (opened, edge || unmet) {
            (true, _) => PushCause::Open,
            (false, true) => PushCause::Edge,
            (false, false) => PushCause::Repeat,
        };
        PushStep { send: send.then_some(cause), again_at: self.next }
    }

    /// Every 2 s for 30 s, then doubling to 30 s.
    fn distance(&self, now: Moment) -> Duration {
        let since = self.episode.map_or(Duration::ZERO, |(_, began)| now.saturating_since(began));
        if since < QUICK_PHASE {
            return QUICK;
        }
        // 4 s, 8 s, 16 s, then 30 s: the sum of the distances before each is 30, 34, 42, 58.
        match since.saturating_sub(QUICK_PHASE).as_secs() {
            0..4 => Duration::from_secs(4),
            4..12 => Duration::from_secs(8),
            12..28 => Duration::from_secs(16),
            _ => SLOWEST,
        }
    }
}

impl Default for Pusher {
    fn default() -> Self {
        Self::new()
    }
}

/// When a stream ends itself with OK.
///
/// KEDA's reconnect backoff (2 s doubling to 60 s) is reset only by a clean end, however
/// long a stream has lived; so one clean end soon after opening and one a day keep the next
/// abrupt end cheap. Only while a push has no effect anyway: replicas serve, none is on its
/// way.
#[derive(Clone, Copy, Debug)]
pub struct Hygiene {
    due: Moment,
}

impl Hygiene {
    /// `first`: this target's stream has not ended cleanly yet. `jitter` in 0..1 spreads the
    /// streams of many targets.
    #[must_use]
    pub fn new(opened: Moment, first: bool, jitter: f64) -> Self {
        let (base, spread) = if first { (60.0, 15.0) } else { (86_400.0, 14_400.0) };
        Self { due: opened + Duration::from_secs_f64(base + spread * jitter.clamp(0.0, 1.0)) }
    }

    /// When to look again, where the stream is not to end yet.
    #[must_use]
    pub fn due(&self) -> Moment {
        self.due
    }

    #[must_use]
    pub fn ends(&self, now: Moment, state: &PushState) -> bool {
        now >= self.due && state.replicas > 0 && state.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_000_000 + seconds))
    }

    fn seconds(moment: Moment) -> u64 {
        moment.saturating_since(at(0)).as_secs()
    }

    fn asleep() -> PushState {
        PushState::default()
    }

    fn wanted(edge: u64) -> PushState {
        PushState { active: true, edge, unanswered: true, ..PushState::default() }
    }

    fn serving(edge: u64) -> PushState {
        PushState { active: true, edge, replicas: 1, settled: true, ..PushState::default() }
    }

    /// Runs a pusher by its own deadlines and gives the seconds at which it sent.
    fn sends(pusher: &mut Pusher, from: u64, until: u64, state: PushState) -> Vec<u64> {
        let (mut now, mut sent) = (at(from), vec![]);
        loop {
            let step = pusher.poll(now, &state);
            if step.send.is_some() {
                sent.push(seconds(now));
            }
            match step.again_at {
                Some(next) if seconds(next) <= until => {
                    assert!(next > now, "a deadline in the past would spin");
                    now = next;
                }
                _ => return sent,
            }
        }
    }

    #[test]
    fn an_unanswered_edge_is_repeated_ever_more_rarely() {
        let mut pusher = Pusher::new();
        assert_eq!(sends(&mut pusher, 0, 0, asleep()), Vec::<u64>::new());
        let expected: Vec<u64> =
            (0..=30).step_by(2).chain([34, 42, 58, 88, 118]).map(|second| second + 5).collect();
        assert_eq!(sends(&mut pusher, 5, 125, wanted(1)), expected);
    }

    #[test]
    fn one_true_and_no_more_while_replicas_serve() {
        let mut pusher = Pusher::new();
        sends(&mut pusher, 0, 0, asleep());
        assert_eq!(sends(&mut pusher, 1, 1_000, serving(1)), [1]);
        assert_eq!(sends(&mut pusher, 2_000, 3_000, serving(1)), Vec::<u64>::new());
        assert_eq!(sends(&mut pusher, 3_001, 4_000, serving(2)), [3_001]);
    }

    #[test]
    fn a_stream_that_opens_on_an_active_target_says_so_at_once() {
        let mut pusher = Pusher::new();
        let step = pusher.poll(at(0), &serving(7));
        assert_eq!(step.send, Some(PushCause::Open));
    }

    #[test]
    fn a_replica_ends_the_repetitions_and_its_loss_starts_them_anew() {
        let mut pusher = Pusher::new();
        assert_eq!(sends(&mut pusher, 0, 3, wanted(1)), [0, 2]);
        assert_eq!(sends(&mut pusher, 3, 60, serving(1)), Vec::<u64>::new());
        assert_eq!(sends(&mut pusher, 61, 65, wanted(1)), [61, 63, 65]);
    }

    #[test]
    fn demand_within_the_hold_time_at_zero_is_pushed_at_once() {
        let mut pusher = Pusher::new();
        let held = PushState { active: true, edge: 1, ..PushState::default() };
        assert_eq!(sends(&mut pusher, 0, 10, held), [0]);
        assert_eq!(sends(&mut pusher, 11, 13, wanted(1)), [11, 13]);
    }

    #[test]
    fn waking_twice_within_a_repetition_does_not_flood() {
        let mut pusher = Pusher::new();
        assert_eq!(sends(&mut pusher, 0, 0, wanted(1)), [0]);
        // Polled again early, by a change that is none.
        assert_eq!(pusher.poll(at(1), &wanted(1)).send, None);
        assert_eq!(pusher.poll(at(2), &wanted(1)).send, Some(PushCause::Repeat));
    }

    #[test]
    fn a_wait_is_reported_once_and_starts_anew_with_the_next_one() {
        let demand = Activity::Active(Cause::Demand);
        // (second, activity, replicas, reported now, waits)
        let steps = [
            (0, Activity::Inactive, Some(0), false, false),
            (1, demand, Some(0), false, true),
            (30, demand, Some(0), false, true),
            (31, demand, Some(0), true, true),
            (90, demand, Some(0), false, true),
            (91, demand, Some(1), false, false),
            (92, demand, Some(0), false, true),
            (93, Activity::Active(Cause::Held), Some(0), false, false),
            (94, demand, None, false, false),
            (95, demand, Some(0), false, true),
            (125, demand, Some(0), true, true),
        ];
        let mut wait = Wait::default();
        for (second, activity, replicas, reported, waits) in steps {
            let due = wait.due();
            assert_eq!(wait.follow(at(second), activity, replicas, 1), reported, "second {second}");
            assert_eq!(wait.is_on(), waits, "second {second}");
            assert!(!reported || due == Some(at(second)), "it was to be told at its time");
        }
    }

    #[test]
    fn an_idle_replica_is_no_answer_where_a_push_gives_more() {
        let demand = Activity::Active(Cause::Demand);
        let mut wait = Wait::default();
        for (second, replicas, waits) in [(0, 0, true), (1, 1, true), (2, 3, false), (3, 4, false)] {
            wait.follow(at(second), demand, Some(replicas), 3);
            assert_eq!(wait.is_on(), waits, "{replicas} replicas");
        }
        // So the push is repeated, and starts anew when it got somewhere.
        let idle = PushState { replicas: 1, ..wanted(1) };
        let mut pusher = Pusher::new();
        assert_eq!(sends(&mut pusher, 0, 3, wanted(1)), [0, 2]);
        assert_eq!(sends(&mut pusher, 3, 6, idle), [3, 5]);
        assert_eq!(sends(&mut pusher, 7, 60, serving(1)), Vec::<u64>::new());
    }

    #[test]
    fn hygiene_waits_for_replicas_that_serve() {
        let first = Hygiene::new(at(0), true, 0.0);
        let loading = PushState { settled: false, replicas: 1, ..wanted(1) };
        assert!(!first.ends(at(59), &serving(1)));
        assert!(first.ends(at(60), &serving(1)));
        for (second, state) in [(600, asleep()), (600, loading), (600, wanted(1))] {
            assert!(!first.ends(at(second), &state), "{state:?}");
        }
        assert!(Hygiene::new(at(0), true, 1.0).due() <= at(75));
        let later = Hygiene::new(at(0), false, 0.5);
        assert!(!later.ends(at(3_600), &serving(1)));
        assert!(later.ends(at(100_000), &serving(1)));
    }
}
