use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    engine::EngineSpec,
    hpa::Behavior,
    policy::Scaling,
    trace::{InMemory, Prefix},
    world::{ColdStart, NodeStart, Router},
};

fn trace(requests: Vec<Request>) -> InMemory {
    InMemory { name: "test".to_owned(), requests: requests.into() }
}

/// `count` requests, one every `gap_us` from `from_us` on.
fn regular(from_us: u64, gap_us: u64, count: u64, output_tokens: u32) -> Vec<Request> {
    let request = |index| Request {
        at_us: from_us + gap_us * index,
        input_tokens: 100,
        output_tokens,
        prefix: Prefix::UNKNOWN,
    };
    (0..count).map(request).collect()
}

fn world() -> World {
    let engine = EngineSpec::of_milliseconds(20.0, 0.3, 0.19, 187_000);
    let cold_start = ColdStart { mean_us: 60 * SECOND, spread: 0.0, node: None };
    World { warm_up_us: 0, cold_start, ..World::new(engine) }
}

/// Wants what it is told, each number from its second on.
#[derive(Debug)]
struct Scripted(Vec<(u64, u32)>);

impl Policy for Scripted {
    fn scaling(&self) -> Scaling {
        crate::policies::plain_scaling(&world())
    }

    fn start(&mut self) -> Option<u32> {
        Some(self.0[0].1)
    }

    fn decide(&mut self, seen: &Seen<'_>) -> Decision {
        let past = self.0.iter().rev().find(|(second, _)| second * SECOND <= seen.now_us);
        Decision::Replicas(past.map_or(seen.spec_replicas, |(_, replicas)| *replicas))
    }
}

/// Through the HPA and KEDA: what runs and waits, held against a target.
#[derive(Debug)]
struct Concurrency {
    scaling: Scaling,
    target: f64,
}

impl Concurrency {
    fn new(world: &World, target: f64) -> Self {
        let behavior = Behavior::kubernetes_default(world.min_replicas.max(1), world.max_replicas);
        let scaling = Scaling { behavior, ..crate::policies::plain_scaling(world) };
        Self { scaling, target }
    }
}

impl Policy for Concurrency {
    fn scaling(&self) -> Scaling {
        self.scaling.clone()
    }

    fn decide(&mut self, seen: &Seen<'_>) -> Decision {
        let in_pods: u32 =
            seen.pods.iter().filter_map(|pod| pod.page).map(|page| page.running + page.waiting).sum();
        let gateway = seen.gateway.map_or(0, |gateway| gateway.held);
        let total = f64::from(in_pods + gateway);
        let target = hpa::Target::AverageValue(self.target);
        let metrics = vec![hpa::Metric { total: Some(total), target }];
        Decision::Scaler { metrics, active: Some(total > 0.0) }
    }
}

#[test]
fn a_fixed_number_costs_its_hours_and_meets_what_it_can() {
    // An hour of one request a second, which one replica takes with ease.
    let trace = trace(regular(0, SECOND, 3601, 20));
    let outcome = replay(&world(), &trace, &mut Scripted(vec![(0, 2)])).unwrap();
    assert_eq!((outcome.requests, outcome.attainment, outcome.replica_hours), (3601, 1.0, 2.0));
    // 20 ms for the step, 0.3 for the sequence, 19 for the prompt.
    assert!((outcome.ttft_p50 - 0.0393).abs() < 0.0005, "{}", outcome.ttft_p50);
    assert_eq!((outcome.scale_ups, outcome.scale_downs, outcome.loading_hours), (0, 0, 0.0));
    let work = 3601.0 * (100.0 * 0.19 + 20.0 * 0.3) / 1e3 / 3600.0;
    assert!((outcome.detail.fluid_hours / (work / 0.8) - 1.0).abs() < 1e-9);
}

#[test]
fn the_first_minutes_are_served_but_neither_scored_nor_paid_for() {
    let world = World { warm_up_us: 600 * SECOND, ..world() };
    let trace = trace(regular(0, SECOND, 1201, 20));
    let outcome = replay(&world, &trace, &mut Scripted(vec![(0, 3)])).unwrap();
    assert_eq!((outcome.requests, outcome.replica_hours), (601, 0.5));
    assert_eq!((outcome.detail.arrived, outcome.detail.served), (1201, 1201));
}

#[test]
fn a_replica_loads_for_its_cold_start_and_drains_until_its_answers_are_out() {
    // Answers of 1,000 tokens: 20 s and more.
    let trace = trace(regular(0, 10 * SECOND, 61, 1000));
    let outcome = replay(&world(), &trace, &mut Scripted(vec![(0, 1), (100, 2), (300, 1)])).unwrap();
    assert_eq!((outcome.detail.served, outcome.lost), (61, 0));
    assert_eq!(outcome.loading_hours * 3600.0, 60.0);
    // One for 600 s, the other from 100 to 300 s and until it has drained.
    let drained = outcome.replica_hours * 3600.0 - 800.0;
    assert!((1.0..=25.0).contains(&drained), "{drained} s");
    let points = &outcome.detail.timeline.points;
    assert!(points[2].serving > 1.2 && points[2].loading < 1.0, "{:?}", points[2]);
}

#[test]
fn without_time_to_drain_answers_are_lost() {
    let trace = trace(regular(0, SECOND / 2, 1200, 1000));
    let outcome = |grace_us| {
        replay(&World { grace_us, ..world() }, &trace, &mut Scripted(vec![(0, 4), (300, 2)])).unwrap()
    };
    assert_eq!(outcome(None).lost, 0);
    let (five, none) = (outcome(Some(5 * SECOND)).lost, outcome(Some(0)).lost);
    assert!(0 < five && five < none, "{five} {none}");
}

#[test]
fn a_node_that_has_to_come_first_takes_its_time_and_is_used_again() {
    let node = Some(NodeStart { mean_us: 200 * SECOND, linger_us: 100 * SECOND });
    let world = World { cold_start: ColdStart { node, ..world().cold_start }, ..world() };
    let trace = trace(regular(0, SECOND, 1500, 20));
    let loading = |script: &[(u64, u32)]| {
        let outcome = replay(&world, &trace, &mut Scripted(script.to_vec())).unwrap();
        (outcome.loading_hours * 3600.0).round()
    };
    assert_eq!(loading(&[(0, 1), (100, 2)]), 260.0);
    // Its node still stands 50 s after it went, and no longer after 200 s.
    assert_eq!(loading(&[(0, 1), (100, 2), (500, 1), (550, 2)]), 260.0 + 60.0);
    assert_eq!(loading(&[(0, 1), (100, 2), (500, 1), (700, 2)]), 260.0 + 260.0);
}

#[test]
fn a_refused_client_tries_three_times_more_a_second_apart() {
    let refuse = EngineSpec { max_seqs: 1, max_waiting: 0, ..world().engine };
    let world = World { engine: refuse, ..world() };
    // Two are taken (one runs, one waits), the third is refused until the first has gone.
    let of = |output_tokens| {
        let trace = trace(regular(0, 0, 3, output_tokens));
        replay(&world, &trace, &mut Scripted(vec![(0, 1)])).unwrap()
    };
    assert_eq!((of(100).detail.served, of(100).refused), (3, 0));
    // 250 tokens take 5 s: all four tries come too early.
    assert_eq!((of(250).detail.served, of(250).refused), (2, 1));
}

#[test]
fn an_idle_model_goes_to_zero_and_a_held_request_wakes_it() {
    let world = World { min_replicas: 0, router: Router::EndpointPicker, ..world() };
    let mut requests = regular(0, SECOND, 60, 20);
    requests.extend(regular(1200 * SECOND, SECOND, 60, 20));
    let outcome = replay(&world, &trace(requests), &mut Concurrency::new(&world, 100.0)).unwrap();
    assert_eq!((outcome.scale_downs, outcome.scale_ups, outcome.detail.served), (1, 1, 120));
    // At once by a push, then the cold start, looked at twenty times a second, and its prefill.
    let wake = outcome.detail.wake_seconds.unwrap();
    assert!((60.0..62.0).contains(&wake), "{wake}");
    assert_eq!((outcome.loading_hours * 3600.0).round(), 59.0, "until the last arrival");
}

#[test]
fn without_somebody_who_holds_them_requests_at_zero_are_refused() {
    let world = World { min_replicas: 0, ..world() };
    let requests = regular(1200 * SECOND, SECOND, 10, 20);
    let outcome = replay(&world, &trace(requests), &mut Scripted(vec![(0, 0)])).unwrap();
    assert_eq!((outcome.refused, outcome.attainment, outcome.replica_hours), (10, 0.0, 0.0));
}

#[test]
fn the_hpa_follows_the_load() {
    // Ten a second need more than the one replica with which this begins.
    let trace = trace(regular(0, SECOND / 10, 18_000, 200));
    let world = World { start_margin: 0.1, ..world() };
    let outcome = replay(&world, &trace, &mut Concurrency::new(&world, 20.0)).unwrap();
    let wanted: Vec<_> = outcome.detail.timeline.points.iter().map(|point| point.wanted).collect();
    assert!(outcome.scale_ups > 0 && wanted[wanted.len() - 1] > 2.0, "{wanted:?}");
    assert_eq!(outcome.detail.served, 18_000);
}

#[derive(Clone, Debug)]
struct Case {
    requests: Vec<Request>,
    world: World,
    target: f64,
}

fn cases() -> impl Strategy<Value = Case> {
    let arrivals = prop::collection::vec((0_u64..4000, 1_u32..2000, 1_u32..400, 0_u64..4), 1..150);
    let router =
        prop::sample::select(vec![Router::Round, Router::Least, Router::Random, Router::EndpointPicker]);
    let knobs = (0_u32..3, 1_u64..40, prop::option::of(0_u64..20), 2_u32..12, any::<u64>(), 1.0..60.0_f64);
    (arrivals, router, knobs).prop_map(|(arrivals, router, knobs)| {
        let (min_replicas, cold_s, grace_s, max_seqs, seed, target) = knobs;
        let engine = EngineSpec { max_seqs, max_waiting: 4, kv_tokens: 6000, ..world().engine };
        let cold_start = ColdStart { mean_us: cold_s * SECOND, spread: 0.2, node: None };
        let grace_us = grace_s.map(|seconds| seconds * SECOND);
        let world =
            World { engine, router, min_replicas, max_replicas: 5, cold_start, grace_us, seed, ..world() };
        let mut at_us = 0;
        let requests = arrivals.into_iter().map(|(gap, input_tokens, output_tokens, family)| {
            at_us += gap * 1000;
            let prefix = if family == 0 { Prefix::UNKNOWN } else { Prefix::new(&[family, 9, at_us]) };
            Request { at_us, input_tokens, output_tokens, prefix }
        });
        Case { requests: requests.collect(), world, target }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever arrives is served, refused, lost or held in the end; and the same seed gives the
    /// same bytes.
    #[test]
    fn requests_are_conserved_and_runs_repeat(case in cases()) {
        let Case { requests, world, target } = case;
        let arrived = requests.len() as u64;
        let trace = InMemory { name: String::new(), requests: Arc::from(requests) };
        let run = || replay(&world, &trace, &mut Concurrency::new(&world, target)).unwrap();
        let outcome = run();
        let detail = &outcome.detail;
        prop_assert_eq!(detail.arrived, arrived);
        prop_assert_eq!(detail.served + detail.refused + detail.lost + detail.held, arrived);
        prop_assert_eq!((outcome.requests, outcome.refused, outcome.lost), (arrived, detail.refused, detail.lost));
        prop_assert!(outcome.attainment <= detail.served as f64 / arrived as f64 + 1e-12);
        prop_assert!(outcome.loading_hours <= outcome.replica_hours);
        let in_points: u64 = detail.timeline.points.iter().map(|point| point.arrivals).sum();
        prop_assert!(in_points <= arrived);
        let again = run();
        prop_assert_eq!(serde_json::to_string(&outcome).unwrap(), serde_json::to_string(&again).unwrap());
        prop_assert_eq!(outcome, again);
    }
}
