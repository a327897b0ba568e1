//! The HPA over several syncs.

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_000_000 + seconds)
}

fn known(total: f64) -> Metric {
    Metric { total: Some(total), target: Target::AverageValue(10.0) }
}

const UNKNOWN: Metric = Metric { total: None, target: Target::AverageValue(10.0) };

fn of(spec_replicas: u32, status_replicas: u32) -> ScaleTarget {
    ScaleTarget { spec_replicas, status_replicas, ready_pods: status_replicas }
}

/// No window and no step limit, so that the metrics alone decide.
fn unlimited() -> Behavior {
    let rules = Rules {
        stabilization_window: Duration::ZERO,
        policies: vec![StepPolicy { step: Step::Percent(10_000), period: Duration::from_secs(15) }],
        select: Select::Max,
        tolerance: 0.1,
    };
    let down = Rules {
        policies: vec![StepPolicy { step: Step::Percent(100), period: Duration::from_secs(15) }],
        ..rules.clone()
    };
    Behavior { min_replicas: 1, max_replicas: 20, up: rules, down }
}

#[test]
fn the_metrics_alone() {
    // spec, status, metrics, desired
    let table: [(u32, u32, &[Metric], u32); 15] = [
        (1, 1, &[known(25.0)], 3),
        (4, 4, &[known(12.0)], 2),
        (2, 2, &[known(22.0)], 2), // 1.10: just within
        (2, 2, &[known(22.1)], 3),
        (2, 2, &[known(18.0)], 2), // 0.90: just within
        (2, 2, &[known(9.9)], 1),
        (3, 3, &[known(0.0)], 1),               // min
        (3, 3, &[known(1e9)], 20),              // max
        (3, 3, &[known(12.0), known(55.0)], 6), // the largest
        (3, 3, &[UNKNOWN], 3),
        (3, 3, &[known(10.0), UNKNOWN], 3), // an unknown metric forbids down
        (3, 3, &[known(55.0), UNKNOWN], 6), // but not up
        (3, 3, &[], 3),
        (0, 0, &[known(100.0)], 0),    // inert at zero
        (30, 30, &[known(100.0)], 20), // above max, whatever the metrics say
    ];
    for (spec, status, metrics, desired) in table {
        let got = Hpa::new(unlimited()).sync(of(spec, status), metrics, at(0));
        assert_eq!(got, desired, "spec {spec} status {status} {metrics:?}");
    }
}

/// status.replicas enters through the tolerance only, and replaces the value inside it.
#[test]
fn status_that_lags_behind_spec() {
    // 40 over 4 × 10 is within tolerance of the status: the proposal is 4, not spec's 2.
    assert_eq!(Hpa::new(unlimited()).sync(of(2, 4), &[known(40.0)], at(0)), 4);
    // With no replica in the status the ratio is infinite (or no number): the ceiling counts.
    assert_eq!(Hpa::new(unlimited()).sync(of(2, 0), &[known(40.0)], at(0)), 4);
    assert_eq!(Hpa::new(unlimited()).sync(of(2, 0), &[known(0.0)], at(0)), 1);
}

#[test]
fn the_window_down_keeps_the_highest_recommendation() {
    let mut behavior = unlimited();
    behavior.down.stabilization_window = Duration::from_secs(60);
    let mut hpa = Hpa::new(behavior);
    let mut replicas = 5;
    let mut seen = vec![];
    for (time, total) in
        [(0, 50.0), (15, 10.0), (30, 30.0), (45, 10.0), (60, 10.0), (75, 10.0), (90, 10.0), (105, 10.0)]
    {
        replicas = hpa.sync(of(replicas, replicas), &[known(total)], at(time));
        seen.push(replicas);
    }
    // 5 until the 50 is 60 s old, then 3 until the 30 is.
    assert_eq!(seen, [5, 5, 5, 5, 3, 3, 1, 1]);
}

#[test]
fn the_window_up_keeps_the_lowest_recommendation() {
    let mut behavior = unlimited();
    behavior.up.stabilization_window = Duration::from_secs(30);
    let mut hpa = Hpa::new(behavior);
    let mut replicas = 1;
    let mut seen = vec![];
    for (time, total) in [(0, 10.0), (15, 90.0), (30, 60.0), (45, 90.0), (60, 90.0), (75, 90.0)] {
        replicas = hpa.sync(of(replicas, replicas), &[known(total)], at(time));
        seen.push(replicas);
    }
    assert_eq!(seen, [1, 1, 6, 6, 9, 9]);
}

#[test]
fn steps_are_counted_over_their_period() {
    let step = |step, select| {
        let mut behavior = unlimited();
        let period = Duration::from_secs(60);
        behavior.up.policies = vec![StepPolicy { step, period }, StepPolicy { step: Step::Pods(1), period }];
        behavior.up.select = select;
        let mut hpa = Hpa::new(behavior);
        let mut replicas = 2;
        let run = [0, 15, 30, 60, 75, 120].map(|time| {
            replicas = hpa.sync(of(replicas, replicas), &[known(200.0)], at(time));
            replicas
        });
        run.to_vec()
    };
    assert_eq!(step(Step::Pods(3), Select::Max), [5, 5, 5, 8, 8, 11]);
    assert_eq!(step(Step::Percent(100), Select::Max), [4, 4, 4, 8, 8, 16]);
    assert_eq!(step(Step::Percent(10), Select::Min), [3, 3, 3, 4, 4, 5], "a percentage is rounded up");
    assert_eq!(step(Step::Pods(3), Select::Min), [3, 3, 3, 4, 4, 5]);
    assert_eq!(step(Step::Pods(3), Select::Disabled), [2; 6]);
}

#[test]
fn steps_down_too() {
    let step = |step, select| {
        let mut behavior = unlimited();
        behavior.down.policies = vec![StepPolicy { step, period: Duration::from_secs(60) }];
        behavior.down.select = select;
        let mut hpa = Hpa::new(behavior);
        let mut replicas = 10;
        let run = [0, 15, 60, 120].map(|time| {
            replicas = hpa.sync(of(replicas, replicas), &[known(0.0)], at(time));
            replicas
        });
        run.to_vec()
    };
    assert_eq!(step(Step::Pods(3), Select::Max), [7, 7, 4, 1]);
    assert_eq!(step(Step::Percent(50), Select::Max), [5, 5, 2, 1]);
    assert_eq!(step(Step::Pods(3), Select::Disabled), [10; 4]);
}

#[test]
fn kubernetes_defaults_double_or_add_four_and_wait_five_minutes_down() {
    let mut hpa = Hpa::new(Behavior::kubernetes_default(1, 100));
    let grown: Vec<_> = [(0, 1), (15, 5), (30, 10)]
        .into_iter()
        .map(|(time, replicas)| hpa.sync(of(replicas, replicas), &[known(1000.0)], at(time)))
        .collect();
    assert_eq!(grown, [5, 10, 20]);
    assert_eq!(hpa.sync(of(20, 20), &[known(0.0)], at(300)), 20);
    assert_eq!(hpa.sync(of(20, 20), &[known(0.0)], at(330)), 1);
}

/// What was decided long ago is forgotten, and so can't hold or limit anything.
#[test]
fn memory_is_bounded() {
    let mut hpa = Hpa::new(unlimited());
    for time in 0..500 {
        hpa.sync(of(5, 5), &[known(if time % 2 == 0 { 90.0 } else { 10.0 })], at(time * 15));
    }
    assert!(hpa.recommendations.len() + hpa.scale_ups.0.len() + hpa.scale_downs.0.len() < 12);
}
