//! What the endpoints of a wake source say together.
//!
//! Each endpoint holds a queue of its own and counts from its own start, so each is read, its
//! counter has a window of its own, and what they say is added up.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use super::Fault;
use crate::{
    endpoint::{pod::REJECTION_SPAN, window::Window},
    page::picker::GatewaySample,
    time::Moment,
};

/// So many endpoints of one source are read; whoever may write a Service can give it thousands.
/// The others count as unknown.
pub const MOST_ENDPOINTS: usize = 32;

/// The demand that one pool's series show on the pages of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SourceDemand {
    /// Requests that are held, over the endpoints that are known.
    pub held: f64,
    /// Requests that these have refused over the last 30 s.
    pub refused: f64,
    /// Endpoints whose page is known.
    pub known: u32,
    /// Endpoints that are ready and whose page is not known.
    pub unknown: u32,
    /// What is unknown may well be demand: it argues for no replica less.
    pub holds: bool,
}

impl SourceDemand {
    /// Requests that are held or were refused, as far as that is known.
    #[must_use]
    pub fn amount(&self) -> f64 {
        self.held + self.refused
    }
}

/// The state of one pool's series on the pages of one source. Nothing is known before the first
/// reading.
#[derive(Debug, Default)]
pub struct SourceState {
    endpoints: BTreeMap<SocketAddr, EndpointState>,
    /// Ready endpoints beyond those that are read.
    unread: u32,
    /// Why the source itself leads nowhere.
    fault: Option<Fault>,
    looked_up: bool,
}

#[derive(Debug)]
struct EndpointState {
    latest: Option<(Moment, GatewaySample)>,
    refusals: Window,
    fault: Option<Fault>,
    /// A reading of it has ended.
    tried: bool,
    /// For how long the latest sample speaks.
    staleness: Duration,
}

impl Default for EndpointState {
    fn default() -> Self {
        let refusals = Window::new(REJECTION_SPAN);
        Self { latest: None, refusals, fault: None, tried: false, staleness: Duration::ZERO }
    }
}

impl EndpointState {
    fn sample(&self, now: Moment) -> Option<&GatewaySample> {
        let (at, sample) = self.latest.as_ref()?;
        (now < *at + self.staleness).then_some(sample)
    }

    fn refused(&self) -> f64 {
        self.refusals.delta().map_or(0.0, |delta| delta.count())
    }

    fn last_demand(&self) -> f64 {
        self.latest.as_ref().map_or(0.0, |(_, sample)| sample.queued.unwrap_or(0.0)) + self.refused()
    }
}

impl SourceState {
    /// Takes in where the source answers. What is known of endpoints that stay is kept; what
    /// others said is of the past.
    pub fn found(&mut self, found: Result<&[SocketAddr], &Fault>) {
        self.looked_up = true;
        self.fault = found.err().cloned();
        let endpoints = found.unwrap_or_default();
        let read: BTreeSet<_> = endpoints.iter().take(MOST_ENDPOINTS).copied().collect();
        let unread = endpoints.len().saturating_sub(MOST_ENDPOINTS);
        self.unread = u32::try_from(unread).unwrap_or(u32::MAX);
        self.endpoints.retain(|endpoint, _| read.contains(endpoint));
        for endpoint in read {
            self.endpoints.entry(endpoint).or_default();
        }
    }

    /// Takes in what came of reading `endpoint` at `at`, which speaks for it for as long as
    /// `staleness`. False where that is no news: it says what was known, or is of the past.
    pub fn sampled(
        &mut self,
        endpoint: SocketAddr,
        at: Moment,
        staleness: Duration,
        outcome: Result<GatewaySample, Fault>,
    ) -> bool {
        let before = (self.demand(at), self.was_tried());
        let Some(state) = self.endpoints.get_mut(&endpoint) else { return false };
        let fault_before = state.fault.take();
        state.tried = true;
        match outcome {
            Ok(sample) => {
                state.refusals.push(at, &sample.refused);
                state.latest = Some((at, sample));
                state.staleness = staleness;
            }
            Err(fault) => state.fault = Some(fault),
        }
        let is_other_fault = state.fault != fault_before;
        is_other_fault || (self.demand(at), self.was_tried()) != before
    }

    /// The demand at `now`; `None` where nothing is known of it and nothing argues for holding
    /// what there is.
    ///
    /// An endpoint that is unknown holds beside others that are known, and by itself where it
    /// had requests when it was last read.
    #[must_use]
    pub fn demand(&self, now: Moment) -> Option<SourceDemand> {
        let mut demand = SourceDemand { unknown: self.unread, ..SourceDemand::default() };
        let mut had_demand = false;
        for endpoint in self.endpoints.values() {
            match endpoint.sample(now) {
                Some(sample) => {
                    demand.held += sample.queued.unwrap_or(0.0).max(0.0);
                    demand.refused += endpoint.refused();
                    demand.known += 1;
                }
                None => {
                    demand.unknown = demand.unknown.saturating_add(1);
                    had_demand |= endpoint.last_demand() > 0.0;
                }
            }
        }
        // Counts beyond what a number can hold are a great many requests, and no infinity.
        demand.held = demand.held.min(f64::MAX / 2.0);
        demand.refused = demand.refused.min(f64::MAX / 2.0);
        demand.holds = demand.unknown > 0 && (demand.known > 0 || had_demand);
        (demand.known > 0 || demand.holds).then_some(demand)
    }

    /// When the demand changes by the passing of time alone: the first sample that no longer
    /// speaks. At that very moment it has changed.
    #[must_use]
    pub fn next_change(&self, now: Moment) -> Option<Moment> {
        let ends =
            self.endpoints.values().filter_map(|state| Some(state.latest.as_ref()?.0 + state.staleness));
        ends.filter(|end| *end > now).min()
    }

    /// When the newest sample was read.
    #[must_use]
    pub fn newest(&self) -> Option<Moment> {
        self.endpoints.values().filter_map(|state| Some(state.latest.as_ref()?.0)).max()
    }

    /// Whether all that can be known of it now has been asked for once.
    #[must_use]
    pub fn was_tried(&self) -> bool {
        self.looked_up && self.endpoints.values().all(|endpoint| endpoint.tried)
    }

    /// Why it is not known whole, if it is not: of the source, or of the first endpoint that
    /// can't be read.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref().or_else(|| self.endpoints.values().find_map(|endpoint| endpoint.fault.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use crate::page::sample::Cumulative;

    use proptest::prelude::*;

    use super::*;
    use crate::wake::Missing;

    const STALENESS: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_000 + seconds))
    }

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 9090))
    }

    fn read(queued: f64, refused_total: f64) -> GatewaySample {
        GatewaySample { queued: Some(queued), refused: Cumulative::of_count(refused_total) }
    }

    fn late() -> Fault {
        Fault::Passing("no complete answer within 1s".into())
    }

    fn of(endpoints: &[u8]) -> SourceState {
        let mut state = SourceState::default();
        find(&mut state, endpoints);
        state
    }

    fn find(state: &mut SourceState, endpoints: &[u8]) {
        let endpoints: Vec<_> = endpoints.iter().map(|last| endpoint(*last)).collect();
        state.found(Ok(&endpoints));
    }

    /// Held, refused, known, unknown, and `!` where it holds.
    fn says(state: &SourceState, seconds: u64) -> String {
        match state.demand(at(seconds)) {
            Some(SourceDemand { held, refused, known, unknown, holds }) => {
                format!("{held} + {refused} of {known}, {unknown} unknown{}", if holds { "!" } else { "" })
            }
            None => "nothing".to_owned(),
        }
    }

    #[test]
    fn queues_are_added_up_and_one_that_is_unknown_only_holds() {
        let mut state = of(&[1, 2, 3]);
        assert_eq!(says(&state, 0), "nothing", "none was read yet");
        assert!(!state.was_tried());
        let steps = [
            (0, 1, Ok(read(3.0, 0.0)), "3 + 0 of 1, 2 unknown!"),
            (0, 2, Ok(read(4.0, 0.0)), "7 + 0 of 2, 1 unknown!"),
            (0, 3, Ok(read(0.0, 0.0)), "7 + 0 of 3, 0 unknown"),
            // What is known is known while its sample speaks, a fault or not.
            (4, 1, Err(late()), "7 + 0 of 3, 0 unknown"),
            (4, 2, Ok(read(9.0, 0.0)), "12 + 0 of 3, 0 unknown"),
            (5, 3, Ok(read(0.0, 0.0)), "9 + 0 of 2, 1 unknown!"),
            (6, 1, Ok(read(1.0, 0.0)), "10 + 0 of 3, 0 unknown"),
        ];
        for (seconds, last, outcome, expected) in steps {
            state.sampled(endpoint(last), at(seconds), STALENESS, outcome);
            assert_eq!(says(&state, seconds), expected, "second {seconds}, endpoint {last}");
        }
        assert!(state.was_tried());
        assert_eq!(state.next_change(at(6)), Some(at(9)), "the second endpoint's sample");
        assert_eq!(says(&state, 9), "1 + 0 of 2, 1 unknown!");
        // With all of them unknown it holds, since some had requests.
        assert_eq!(says(&state, 100), "0 + 0 of 0, 3 unknown!");
        assert_eq!(state.next_change(at(100)), None);
    }

    #[test]
    fn an_unreadable_source_holds_only_where_it_had_requests() {
        for (queued, expected) in [(0.0, "nothing"), (2.0, "0 + 0 of 0, 1 unknown!")] {
            let mut state = of(&[1]);
            state.sampled(endpoint(1), at(0), STALENESS, Ok(read(queued, 0.0)));
            state.sampled(endpoint(1), at(1), STALENESS, Err(late()));
            assert_eq!(says(&state, 5), expected);
            state.found(Err(&Fault::Missing(Missing::Endpoint)));
            assert_eq!(says(&state, 5), "nothing", "its queue has gone with it");
            assert_eq!(state.fault(), Some(&Fault::Missing(Missing::Endpoint)));
        }
    }

    /// Two pickers with counters of their own, of which one comes and goes.
    #[test]
    fn an_endpoint_that_flaps_makes_no_demand() {
        let mut state = of(&[1, 2]);
        state.sampled(endpoint(1), at(0), STALENESS, Ok(read(0.0, 5_000.0)));
        state.sampled(endpoint(2), at(0), STALENESS, Ok(read(0.0, 10.0)));
        for second in 1..20 {
            find(&mut state, if second % 2 == 0 { &[1, 2] } else { &[2] });
            state.sampled(endpoint(1), at(second), STALENESS, Ok(read(0.0, 5_000.0)));
            state.sampled(endpoint(2), at(second), STALENESS, Ok(read(0.0, 10.0)));
            assert_eq!(state.demand(at(second)).unwrap().amount(), 0.0, "second {second}");
        }
        // Each refuses one more: two in all.
        find(&mut state, &[1, 2]);
        state.sampled(endpoint(1), at(20), STALENESS, Ok(read(0.0, 5_000.0)));
        state.sampled(endpoint(1), at(21), STALENESS, Ok(read(0.0, 5_001.0)));
        state.sampled(endpoint(2), at(21), STALENESS, Ok(read(0.0, 11.0)));
        assert_eq!(says(&state, 21), "0 + 2 of 2, 0 unknown");
    }

    #[test]
    fn only_news_are_news() {
        let mut state = of(&[1]);
        let steps = [
            (0, Ok(read(0.0, 0.0)), true),
            (1, Ok(read(0.0, 0.0)), false),
            (2, Ok(read(1.0, 0.0)), true),
            (3, Err(late()), true),
            (4, Err(late()), false),
            (5, Err(Fault::Status(404)), true),
            (6, Ok(read(1.0, 0.0)), true),
            (7, Ok(read(1.0, 1.0)), true),
            // It had gone stale, and says the same again.
            (20, Ok(read(1.0, 1.0)), true),
        ];
        for (seconds, outcome, is_news) in steps {
            let heard = state.sampled(endpoint(1), at(seconds), STALENESS, outcome.clone());
            assert_eq!(heard, is_news, "second {seconds}: {outcome:?}");
        }
        assert!(!state.sampled(endpoint(9), at(21), STALENESS, Ok(read(9.0, 0.0))), "it is none of them");
    }

    #[test]
    fn a_service_of_thousands_is_read_in_part() {
        let many: Vec<_> = (0..5_000).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect();
        let mut state = SourceState::default();
        state.found(Ok(&many));
        assert_eq!(state.endpoints.len(), MOST_ENDPOINTS);
        for endpoint in &many {
            state.sampled(*endpoint, at(0), STALENESS, Ok(read(1.0, 0.0)));
        }
        assert_eq!(says(&state, 0), "32 + 0 of 32, 4968 unknown!");
    }

    proptest! {
        /// However endpoints come, go and answer: demand is that of those that are there and
        /// speak, and whatever is unknown beside them holds.
        #[test]
        fn demand_is_what_the_endpoints_say(steps in proptest::collection::vec(
            (0_u8..4, 0_u32..3, any::<bool>(), 0_u8..16), 1..60,
        )) {
            let mut state = of(&[0, 1, 2, 3]);
            let mut said: BTreeMap<u8, u64> = BTreeMap::new();
            let mut queues = [0.0; 4];
            let mut there = 0b1111_u8;
            for (second, (last, queued, answers, now_there)) in (0..).zip(steps) {
                there = now_there;
                let endpoints: Vec<_> = (0..4).filter(|bit| there & (1 << bit) != 0).collect();
                find(&mut state, &endpoints);
                said.retain(|endpoint, _| endpoints.contains(endpoint));
                let outcome = if answers { Ok(read(f64::from(queued), 0.0)) } else { Err(late()) };
                state.sampled(endpoint(last), at(second), STALENESS, outcome);
                if answers && endpoints.contains(&last) {
                    said.insert(last, second);
                    queues[usize::from(last)] = f64::from(queued);
                }
                let speaks = |endpoint: &&u8| said.get(*endpoint).is_some_and(|at| at + 5 > second);
                let speaking: Vec<_> = endpoints.iter().filter(speaks).collect();
                let total: f64 = speaking.iter().map(|endpoint| queues[usize::from(**endpoint)]).sum();
                let demand = state.demand(at(second));
                prop_assert_eq!(demand.map_or(0.0, |demand| demand.amount()), total);
                if !speaking.is_empty() {
                    let demand = demand.unwrap();
                    prop_assert_eq!(demand.known as usize, speaking.len());
                    prop_assert_eq!(demand.holds, speaking.len() < endpoints.len());
                }
            }
            prop_assert!(there < 16);
        }
    }
}
