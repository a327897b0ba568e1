use std::time::Duration;

use super::*;
use crate::{
    engine::EngineSpec,
    hpa::{Metric, Rules, Select, Step, StepPolicy, Target},
    outcome::Outcome,
    page::Page,
    policy::{Decision, GatewaySeen, PodSeen, Seen},
    random::Random,
    replay::replay,
    trace::{InMemory, Prefix, Request},
    world::ColdStart,
};

fn world() -> World {
    let cold_start = ColdStart { mean_us: 100 * SECOND, spread: 0.2, node: None };
    World { cold_start, ..World::new(EngineSpec::of_milliseconds(20.0, 0.3, 0.19, 187_000)) }
}

/// Half an hour at a rate that doubles in its middle: 3 replicas, then 6.
fn step() -> InMemory {
    let mut random = Random::seeded(9);
    let mut at = 0.0;
    let requests = std::iter::from_fn(|| {
        at += random.exponential(if at < 1.5e9 { 0.10e6 } else { 0.05e6 });
        let at_us = crate::world::microseconds(at);
        (at_us < 3_000_000_000).then_some(Request {
            at_us,
            input_tokens: 700,
            output_tokens: 200,
            prefix: Prefix::UNKNOWN,
        })
    });
    InMemory { name: "step".to_owned(), requests: requests.collect() }
}

fn context() -> Context {
    Context { world: world(), trace: Arc::new(step()), annotations: Arc::default() }
}

fn make(text: &str) -> Result<Box<dyn Policy>, String> {
    let choice: Choice = text.parse().map_err(|error: PolicyError| error.to_string())?;
    choice.make(&context()).map_err(|error| error.to_string())
}

fn run(text: &str) -> Outcome {
    let context = context();
    replay(&context.world, context.trace.as_ref(), make(text).unwrap().as_mut()).unwrap()
}

fn steps(window: u64, pods: u32, period: u64, tolerance: f64) -> Rules {
    Rules {
        stabilization_window: Duration::from_secs(window),
        policies: vec![StepPolicy { step: Step::Pods(pods), period: Duration::from_secs(period) }],
        select: Select::Max,
        tolerance,
    }
}

#[test]
fn the_incumbent_is_scaled_as_provisioning_writes_it() {
    let scaling = make("waiting:scale-up-pods=2,scaledowncooldown=900").unwrap().scaling();
    assert_eq!((scaling.behavior.min_replicas, scaling.behavior.max_replicas), (1, 24));
    assert_eq!(scaling.behavior.up, steps(60, 2, 300, 0.1));
    assert_eq!(scaling.behavior.down, steps(900, 1, 900, 0.5));
    assert_eq!((scaling.min_replicas, scaling.push), (1, true));
    // Not written where KEDA polls nothing by it, so KEDA's own.
    assert_eq!((scaling.polling_interval_us, scaling.cooldown_us), (30 * SECOND, 300 * SECOND));
    let default = Behavior::kubernetes_default(1, 24);
    assert_eq!(make("waiting-k8s").unwrap().scaling().behavior, default);
}

#[test]
fn the_metrics_are_those_of_the_scaler() {
    let page = |running, waiting, kv_usage| Page { running, waiting, kv_usage, ..Page::default() };
    let pages = [page(10, 4, 0.5), page(20, 0, 0.7)];
    let pods: Vec<_> = (0..)
        .zip([Some(&pages[0]), Some(&pages[1]), None])
        .map(|(uid, page)| PodSeen { uid, created_us: 0, ready_us: page.map(|_| 1), draining: false, page })
        .collect();
    let decide = |text: &str, pods: &[PodSeen<'_>], spec_replicas, held| {
        let gateway = Some(GatewaySeen { held, refused: 0 });
        let seen = Seen { now_us: 40 * SECOND, spec_replicas, status_replicas: spec_replicas, pods, gateway };
        make(text).unwrap().decide(&seen)
    };
    let average = |total, target, active| Decision::Scaler {
        metrics: vec![Metric { total: Some(total), target: Target::AverageValue(target) }],
        active: Some(active),
    };
    let two = &pods[..2];
    assert_eq!(decide("waiting", two, 2, 0), average(4.0, 10.0, true));
    assert_eq!(decide("concurrency:threshold=8", two, 2, 0), average(34.0, 8.0, true));
    assert_eq!(decide("kv", two, 2, 0), average(1.2, 0.8, true));
    // The one that loads is filled in: not lower than if it took its share, not above what the
    // others ask for.
    assert_eq!(decide("concurrency:threshold=32", &pods, 3, 0), average(34.0 + 32.0, 32.0, true));
    // At zero only the gateway shows demand.
    assert_eq!(decide("waiting", &[], 0, 3), average(0.0, 10.0, true));
    assert_eq!(decide("waiting", &[], 0, 0), average(0.0, 10.0, false));
}

#[test]
fn what_the_gateway_refused_lately_is_demand() {
    let mut policy = make("waiting").unwrap();
    let mut active = |second: u64, refused| {
        let gateway = Some(GatewaySeen { held: 0, refused });
        let now_us = second * SECOND;
        let seen = Seen { now_us, spec_replicas: 0, status_replicas: 0, pods: &[], gateway };
        let Decision::Scaler { active, .. } = policy.decide(&seen) else { panic!("it goes through KEDA") };
        active == Some(true)
    };
    let said = [(1, 7), (2, 7), (3, 9), (20, 9), (120, 9), (121, 9)].map(|(at, refused)| active(at, refused));
    assert_eq!(said, [false, false, true, true, false, false]);
}

#[test]
fn every_policy_replays_and_sweeps() {
    for entry in TABLE.iter().filter(|entry| entry.name != "annotations") {
        let choice: Choice = entry.name.parse().unwrap();
        assert_eq!((choice.name(), choice.setting()), (entry.name, String::new()));
        for choice in choice.sweep() {
            choice.make(&context()).unwrap_or_else(|error| panic!("{choice}: {error}"));
        }
    }
    let swept: Choice = "waiting:scaleupcooldown=60".parse().unwrap();
    assert_eq!(swept.sweep()[1].to_string(), "waiting:scaleupcooldown=60,threshold=2");
}

/// What is known of these policies holds here too: waiting comes too late, the future helps, and
/// a fixed number is between.
#[test]
fn policies_come_out_in_their_order() {
    let outcomes = ["waiting", "concurrency:threshold=24", "clairvoyant", "static:n=24"].map(run);
    let [waiting, concurrency, clairvoyant, full] = outcomes;
    assert!(waiting.attainment < concurrency.attainment, "{waiting:?}");
    assert!(concurrency.attainment <= clairvoyant.attainment + 0.02, "{concurrency:?} {clairvoyant:?}");
    assert!(clairvoyant.attainment > 0.97 && full.attainment > 0.999, "{clairvoyant:?} {full:?}");
    assert!(clairvoyant.replica_hours < full.replica_hours / 2.0);
    assert!(clairvoyant.detail.fluid_hours < clairvoyant.replica_hours);
    assert!(clairvoyant.loading_hours > 0.0 && full.loading_hours == 0.0);
}

#[test]
fn annotations_come_from_a_file() {
    let file = |pairs: &[(&str, &str)]| {
        let whole =
            pairs.iter().map(|(key, value)| (format!("scaledobject.kaito.sh/{key}"), (*value).to_owned()));
        Context { annotations: Arc::new(whole.collect()), ..context() }
    };
    let choice: Choice = "annotations:scaleupcooldown=30".parse().unwrap();
    let scaling = choice.make(&file(&[("threshold", "3"), ("max-replicas", "7")])).unwrap().scaling();
    assert_eq!((scaling.behavior.max_replicas, &scaling.behavior.up), (7, &steps(60, 1, 30, 0.1)));
    let refused = choice.make(&file(&[("threshold", "many")])).unwrap_err().to_string();
    assert!(refused.contains("threshold") && refused.contains("many"), "{refused}");
}

#[test]
fn what_is_no_policy_or_no_setting_is_named() {
    let cases = [
        ("best", "\"best\" is no policy; there are waiting, "),
        ("static:n", "policy static: \"n\" is not key=value"),
        ("static:n=0", "n=\"0\": allowed is a whole number from 1 to 24"),
        ("static:m=3", "policy static: it has no setting \"m\""),
        ("clairvoyant:window=5", "window=\"5\": allowed is a time such as"),
        ("waiting:thresold=5", "thresold"),
        ("kv:target=80", "a number from 0.001 to 1"),
        ("annotations", "it needs --annotations"),
    ];
    for (text, expected) in cases {
        let error = make(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!("incumbent".parse::<Choice>().is_ok() && "k8s-default:threshold=3".parse::<Choice>().is_ok());
}
