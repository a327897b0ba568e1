//! Who sends which request to which replica, and what it holds back.

use std::{cmp::Reverse, collections::VecDeque};

use crate::{
    engine::{Offered, Replica},
    fleet::{Fleet, Pod},
    policy::GatewaySeen,
    random::Random,
    trace::Request,
    world::{Router, World},
};

/// A replica that has more waiting than this gets nothing more from an endpoint picker.
const SATURATED_WAITING: usize = 5;

/// A replica whose KV cache is fuller than this gets nothing more from an endpoint picker.
const SATURATED_KV: f64 = 0.8;

/// The most requests that an endpoint picker holds; it refuses what comes then.
const MOST_HELD: usize = 100_000;

/// The gateway before the replicas.
#[derive(Debug)]
pub struct Gateway {
    router: Router,
    turn: usize,
    random: Random,
    held: VecDeque<Offered>,
    refused: u64,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    /// A replica has it.
    Accepted,
    /// The gateway has it.
    Held,
    /// Nobody has it: the replica's queue is full, or there is no replica.
    Refused(Offered),
}

impl Gateway {
    /// The gateway of a world, with nothing in it.
    #[must_use]
    pub fn new(world: &World) -> Self {
        Self {
            router: world.router,
            turn: 0,
            random: Random::stream(world.seed, u64::MAX),
            held: VecDeque::new(),
            refused: 0,
        }
    }

    /// Sends a request on.
    pub fn send(&mut self, offered: Offered, fleet: &mut Fleet, now_us: u64) -> Sent {
        let holds = self.router == Router::EndpointPicker;
        let chosen =
            if holds && !self.held.is_empty() { None } else { self.choose(&offered.request, fleet, now_us) };
        match chosen {
            Some(pod) => match fleet.offer(pod, offered, now_us) {
                Ok(()) => Sent::Accepted,
                Err(full) => Sent::Refused(full.0),
            },
            None if holds && self.held.len() < MOST_HELD => {
                self.held.push_back(offered);
                Sent::Held
            }
            None => {
                self.refused += 1;
                Sent::Refused(offered)
            }
        }
    }

    /// Sends on what is held, as far as the replicas take it. What a replica refuses comes back.
    pub fn release(&mut self, fleet: &mut Fleet, now_us: u64) -> Vec<Offered> {
        let mut refused = Vec::new();
        while let Some(first) = self.held.front() {
            let Some(pod) = self.choose(&first.request.clone(), fleet, now_us) else { break };
            let Some(offered) = self.held.pop_front() else { break };
            if let Err(full) = fleet.offer(pod, offered, now_us) {
                refused.push(full.0);
            }
        }
        refused
    }

    /// Requests that the gateway holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What its metrics page shows.
    #[must_use]
    pub fn seen(&self) -> GatewaySeen {
        GatewaySeen { held: u32::try_from(self.held.len()).unwrap_or(u32::MAX), refused: self.refused }
    }

    /// The replica for a request; `None` where none may have it.
    fn choose(&mut self, request: &Request, fleet: &mut Fleet, now_us: u64) -> Option<usize> {
        let pods = fleet.pods_mut();
        match self.router {
            Router::Round => {
                let next = (0..pods.len())
                    .map(|step| (self.turn + step) % pods.len())
                    .find(|index| pods[*index].serves(now_us))?;
                self.turn = next + 1;
                Some(next)
            }
            Router::Random => {
                let serving = pods.iter().filter(|pod| pod.serves(now_us)).count();
                let serving = u32::try_from(serving).ok().filter(|serving| *serving > 0)?;
                let nth = self.random.below(serving) as usize;
                serving_pods(pods, now_us).nth(nth).map(|(index, _)| index)
            }
            Router::Least => serving_pods(pods, now_us)
                .min_by_key(|(_, replica)| (replica.waiting(), replica.running()))
                .map(|(index, _)| index),
            Router::EndpointPicker => serving_pods(pods, now_us)
                .filter(|(_, replica)| {
                    replica.waiting() <= SATURATED_WAITING && replica.kv_usage() <= SATURATED_KV
                })
                .max_by_key(|(index, replica)| {
                    (score(replica, request), Reverse(replica.running()), Reverse(*index))
                })
                .map(|(index, _)| index),
        }
    }
}

/// The pods that serve, each run up to now.
fn serving_pods(pods: &mut [Pod], now_us: u64) -> impl Iterator<Item = (usize, &Replica)> {
    pods.iter_mut().enumerate().filter(move |(_, pod)| pod.serves(now_us)).map(move |(index, pod)| {
        pod.replica.advance(now_us);
        (index, &pod.replica)
    })
}

/// An endpoint picker's weighted sum of scorers, in millionths: prefix cache 3, queue 2, KV
/// cache 2, each from 0 to 1.
fn score(replica: &Replica, request: &Request) -> u64 {
    let prefix = replica.cached_tokens(&request.prefix) as f64 / f64::from(request.input_tokens.max(1));
    let queue = 1.0 - replica.waiting() as f64 / (SATURATED_WAITING + 1) as f64;
    let sum = 3.0 * prefix.min(1.0) + 2.0 * queue + 2.0 * (1.0 - replica.kv_usage());
    crate::world::microseconds(sum * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::EngineSpec,
        trace::Prefix,
        world::{ColdStart, SECOND},
    };

    fn world(router: Router) -> World {
        let engine = EngineSpec { max_waiting: 20, ..EngineSpec::of_milliseconds(10.0, 0.0, 0.0, 100_000) };
        World {
            router,
            cold_start: ColdStart { mean_us: SECOND, spread: 0.0, node: None },
            ..World::new(engine)
        }
    }

    fn request(prefix: &[u64]) -> Offered {
        let request =
            Request { at_us: 0, input_tokens: 1024, output_tokens: 1000, prefix: Prefix::new(prefix) };
        Offered { request, tag: 0 }
    }

    fn load(fleet: &Fleet) -> Vec<usize> {
        fleet.pods().iter().map(|pod| pod.replica.running() + pod.replica.waiting()).collect()
    }

    #[test]
    fn each_router_has_its_own_way() {
        for (router, loads) in [(Router::Round, [2, 2, 2]), (Router::Least, [2, 2, 2])] {
            let world = world(router);
            let (mut fleet, mut gateway) = (Fleet::new(&world, 3), Gateway::new(&world));
            for _ in 0..6 {
                assert_eq!(gateway.send(request(&[]), &mut fleet, 0), Sent::Accepted);
            }
            assert_eq!(load(&fleet), loads, "{router}");
        }
        let world = world(Router::Random);
        let (mut fleet, mut gateway) = (Fleet::new(&world, 3), Gateway::new(&world));
        (0..30).for_each(|_| assert_eq!(gateway.send(request(&[]), &mut fleet, 0), Sent::Accepted));
        assert!(load(&fleet).iter().all(|load| (4..17).contains(load)), "{:?}", load(&fleet));
    }

    #[test]
    fn nobody_gets_a_request_while_it_loads_or_drains() {
        let world = world(Router::Round);
        let (mut fleet, mut gateway) = (Fleet::new(&world, 2), Gateway::new(&world));
        fleet.scale_to(3, 0);
        for _ in 0..4 {
            gateway.send(request(&[]), &mut fleet, 1);
        }
        assert_eq!(load(&fleet), [2, 2, 0]);
        fleet.scale_to(1, 2);
        for _ in 0..3 {
            gateway.send(request(&[]), &mut fleet, 2);
        }
        assert_eq!(load(&fleet), [5, 2], "the one that loads goes first, the other drains");
        fleet.scale_to(0, 3);
        assert!(matches!(gateway.send(request(&[]), &mut fleet, 3), Sent::Refused(_)));
        assert_eq!(gateway.seen(), GatewaySeen { held: 0, refused: 1 });
    }

    #[test]
    fn an_endpoint_picker_prefers_the_prefix_and_holds_what_would_queue() {
        let engine = EngineSpec { max_seqs: 2, ..world(Router::Least).engine };
        let world = World { engine, ..world(Router::EndpointPicker) };
        let (mut fleet, mut gateway) = (Fleet::new(&world, 2), Gateway::new(&world));
        gateway.send(request(&[1, 2]), &mut fleet, 0);
        gateway.send(request(&[7, 8]), &mut fleet, 0);
        fleet.advance(SECOND);
        gateway.send(request(&[7, 9]), &mut fleet, SECOND);
        assert_eq!(load(&fleet), [1, 2], "to the one that has block 7");
        for _ in 0..30 {
            assert!(!matches!(gateway.send(request(&[]), &mut fleet, SECOND), Sent::Refused(_)));
        }
        // One runs and six wait at each until its step ends; the rest is held.
        assert_eq!((load(&fleet), gateway.held()), (vec![7, 7], 33 - 14));
        fleet.advance(60 * SECOND);
        assert_eq!(gateway.release(&mut fleet, 60 * SECOND), []);
        assert!(gateway.held() < 19);
    }
}
