//! What is expected here is what Kubernetes' own tests expect of `horizontal.go` (`TestScalingWithRules`,
//! `TestStoreScaleEvents`, `TestNormalizeDesiredReplicasWithBehavior`) and of
//! `replica_calculator.go`.

mod runs;

use super::*;

const NOW: Duration = Duration::from_secs(100_000);

fn ago(seconds: u64) -> Duration {
    NOW.saturating_sub(Duration::from_secs(seconds))
}

fn rules(pods: u32, pods_period: u64, percent: u32, percent_period: u64, window: u64) -> Rules {
    let policies = [(Step::Pods(pods), pods_period), (Step::Percent(percent), percent_period)];
    Rules {
        stabilization_window: Duration::from_secs(window),
        policies: policies
            .into_iter()
            .filter(|(step, period)| *period > 0 && !matches!(step, Step::Pods(0) | Step::Percent(0)))
            .map(|(step, period)| StepPolicy { step, period: Duration::from_secs(period) })
            .collect(),
        select: Select::Max,
        tolerance: 0.1,
    }
}

/// Changes spread evenly over a period, newest first.
fn spread(changes: &[u32], period: u64) -> ScaleEvents {
    let gap = Duration::from_secs(period) / u32::try_from(changes.len().max(1)).unwrap();
    let at = |index: usize| NOW.saturating_sub(gap * u32::try_from(index).unwrap() + Duration::from_nanos(1));
    let event =
        |(index, change): (usize, &u32)| ScaleEvent { at: at(index), change: *change, outdated: false };
    ScaleEvents(changes.iter().enumerate().map(event).collect())
}

#[test]
fn steps_are_limited_by_policies_and_by_what_happened_in_their_periods() {
    let default = Behavior::kubernetes_default(1, 1000);
    // (name, events, rules, min, max, current, desired, expected)
    let up: [(&str, &[u32], Option<Rules>, u32, u32, u32, u32); 13] = [
        ("default", &[], None, 1000, 10, 50, 20),
        ("pods above percent", &[], Some(rules(100, 60, 100, 60, 0)), 1000, 10, 500, 110),
        ("percent above pods", &[], Some(rules(2, 60, 100, 60, 0)), 1000, 10, 500, 20),
        ("large pods", &[], Some(rules(100, 60, 0, 0, 0)), 1000, 10, 50, 50),
        ("pods", &[], Some(rules(30, 60, 0, 0, 0)), 1000, 10, 50, 40),
        ("percent", &[], Some(rules(0, 0, 200, 60, 0)), 1000, 10, 50, 30),
        ("max, large pods", &[1, 5, 9], Some(rules(300, 60, 0, 0, 0)), 200, 100, 500, 200),
        ("max, large percent", &[1, 5, 9], Some(rules(0, 0, 10_000, 60, 0)), 200, 100, 500, 200),
        ("more happened than allowed", &[1, 5, 9], Some(rules(5, 120, 0, 0, 0)), 1000, 100, 500, 100),
        ("pods, events", &[1, 5, 9], Some(rules(150, 120, 0, 0, 0)), 1000, 100, 500, 235),
        ("percent, events", &[1, 5, 9], Some(rules(0, 0, 200, 120, 0)), 1000, 100, 500, 255),
        ("one behavior", &[8, 12, 9, 11], Some(rules(1000, 60, 0, 0, 0)), 1000, 100, 200, 200),
        ("two periods", &[8, 12, 9, 11], Some(rules(1000, 120, 100, 60, 0)), 1000, 100, 200, 200),
    ];
    for (name, events, rules, max_replicas, current, desired, expected) in up {
        let up = rules.unwrap_or_else(|| default.up.clone());
        let mut hpa = Hpa::new(Behavior { max_replicas, up, ..default.clone() });
        hpa.scale_ups = spread(events, 120);
        assert_eq!(hpa.limited(current, desired, NOW), expected, "up: {name}");
    }
    let down: [(&str, &[u32], Option<Rules>, u32, u32, u32, u32); 16] = [
        ("percent above pods", &[], Some(rules(20, 60, 1, 60, 300)), 1, 100, 2, 80),
        ("pods above percent", &[], Some(rules(2, 60, 1, 60, 300)), 1, 100, 2, 98),
        ("min, large pods", &[], Some(rules(100, 60, 0, 0, 300)), 1, 10, 0, 1),
        ("min, large percent", &[], Some(rules(0, 0, 100, 60, 300)), 5, 10, 2, 5),
        ("pods", &[], Some(rules(5, 60, 0, 0, 300)), 1, 10, 2, 5),
        ("percent", &[], Some(rules(0, 0, 50, 60, 300)), 1, 10, 5, 5),
        ("default, events", &[1, 5, 9], None, 1, 10, 5, 5),
        ("min, large pods, events", &[1, 5, 9], Some(rules(115, 120, 0, 0, 300)), 1, 100, 0, 1),
        ("min 5, large pods, events", &[1, 5, 9], Some(rules(130, 120, 0, 0, 300)), 5, 100, 0, 5),
        ("min, percent, events", &[1, 5, 9], Some(rules(0, 0, 100, 120, 300)), 5, 100, 2, 5),
        ("pods, events", &[1, 5, 9], Some(rules(5, 120, 0, 0, 300)), 1, 100, 2, 100),
        ("percent, events", &[2, 4, 6], Some(rules(0, 0, 50, 120, 300)), 1, 100, 0, 56),
        ("more happened than allowed", &[10, 10, 10], Some(rules(0, 0, 10, 120, 300)), 1, 100, 0, 100),
        ("below zero", &[10, 10, 10], Some(rules(0, 0, 1000, 120, 300)), 1, 10, 5, 5),
        ("one behavior", &[8, 12, 9, 11], Some(rules(1000, 60, 0, 0, 300)), 1, 100, 5, 5),
        ("two periods", &[8, 12, 9, 11], Some(rules(1000, 30, 100, 60, 300)), 1, 100, 5, 5),
    ];
    for (name, events, rules, min_replicas, current, desired, expected) in down {
        let down = rules.unwrap_or_else(|| default.down.clone());
        let mut hpa = Hpa::new(Behavior { min_replicas, down, ..default.clone() });
        hpa.scale_downs = spread(events, 120);
        assert_eq!(hpa.limited(current, desired, NOW), expected, "down: {name}");
    }
}

#[test]
fn what_went_the_other_way_within_the_period_counts_too() {
    let mut hpa = Hpa::new(Behavior { up: rules(1, 300, 0, 0, 0), ..Behavior::kubernetes_default(1, 100) });
    hpa.scale_downs = ScaleEvents(vec![ScaleEvent { at: ago(200), change: 4, outdated: false }]);
    assert_eq!(hpa.limited(5, 50, NOW), 10, "5 + 4 deleted + 1");
    hpa.scale_ups = ScaleEvents(vec![ScaleEvent { at: ago(100), change: 3, outdated: false }]);
    assert_eq!(hpa.limited(8, 50, NOW), 10, "8 − 3 + 4 + 1");
}

#[test]
fn select_policies() {
    let behavior = |select| {
        let up = Rules { select, ..rules(3, 60, 100, 60, 0) };
        let down = Rules { select, ..rules(3, 60, 50, 60, 0) };
        Hpa::new(Behavior { min_replicas: 1, max_replicas: 100, up, down })
    };
    for (select, up, down) in [(Select::Max, 20, 5), (Select::Min, 13, 7), (Select::Disabled, 10, 10)] {
        let hpa = behavior(select);
        assert_eq!((hpa.limited(10, 90, NOW), hpa.limited(10, 1, NOW)), (up, down), "{select:?}");
    }
}

#[test]
fn a_new_change_takes_the_place_of_the_last_outdated_one() {
    // (name, stored, rules, within 60 s before, stored after)
    type Stored = &'static [(u32, u64, bool)];
    let cases: [(&str, Stored, Rules, i64, &[(u32, bool)]); 6] = [
        ("none", &[], rules(10, 60, 100, 60, 0), 0, &[(5, false)]),
        ("one replaced", &[(7, 61, false)], rules(10, 60, 100, 60, 0), 0, &[(5, false)]),
        ("one kept", &[(7, 58, false)], rules(10, 60, 100, 60, 0), 7, &[(7, false), (5, false)]),
        (
            "one of two",
            &[(7, 61, false), (6, 59, false)],
            rules(10, 60, 0, 0, 0),
            6,
            &[(5, false), (6, false)],
        ),
        (
            "different periods",
            &[(8, 29, false), (6, 59, false), (7, 61, false), (9, 61, false)],
            rules(10, 60, 100, 30, 0),
            14,
            &[(8, false), (6, false), (7, true), (5, false)],
        ),
        (
            "both actual",
            &[(7, 58, false), (6, 59, false)],
            rules(10, 120, 100, 30, 0),
            13,
            &[(7, false), (6, false), (5, false)],
        ),
    ];
    for (name, stored, rules, within, after) in cases {
        let event = |(change, age, outdated): &(u32, u64, bool)| ScaleEvent {
            at: ago(*age),
            change: *change,
            outdated: *outdated,
        };
        let mut events = ScaleEvents(stored.iter().map(event).collect());
        assert_eq!(events.within(Duration::from_secs(60), NOW), within, "{name}");
        events.store(5, &rules, NOW);
        let left: Vec<_> = events.0.iter().map(|event| (event.change, event.outdated)).collect();
        assert_eq!(left, after, "{name}");
    }
}

#[test]
fn recommendations_are_stabilized_over_the_windows() {
    type Made = &'static [(u32, u64)];
    // (name, made, current, proposal, up window, down window, stabilized, remembered)
    let cases: [(&str, Made, u32, u32, u64, u64, u32, &[u32]); 9] = [
        ("none, down", &[], 100, 5, 0, 0, 5, &[5]),
        ("down", &[(4, 120), (5, 60)], 100, 3, 0, 180, 5, &[4, 5, 3]),
        ("up", &[(4, 120), (5, 60)], 1, 7, 300, 0, 4, &[4, 5, 7]),
        ("no down", &[(1, 120), (2, 60)], 100, 3, 300, 0, 3, &[1, 2, 3]),
        ("no up", &[(4, 120), (5, 60)], 1, 3, 0, 300, 3, &[4, 5, 3]),
        ("down, reuse", &[(10, 600), (9, 540)], 100, 3, 0, 0, 3, &[10, 3]),
        ("up, reuse", &[(10, 600), (9, 540)], 1, 100, 0, 0, 100, &[10, 100]),
        ("down, reuse one", &[(10, 600), (4, 60), (5, 120), (9, 540)], 100, 3, 0, 180, 5, &[10, 4, 5, 3]),
        ("up, reuse one", &[(10, 6000), (6, 60), (5, 120), (9, 180)], 1, 100, 300, 0, 5, &[100, 6, 5, 9]),
    ];
    for (name, made, current, proposal, up, down, stabilized, remembered) in cases {
        let mut hpa = Hpa::new(Behavior {
            min_replicas: 1,
            max_replicas: 1000,
            up: rules(1, 60, 0, 0, up),
            down: rules(1, 60, 0, 0, down),
        });
        hpa.recommendations = made.iter().map(|(asked, age)| (ago(*age), *asked)).collect();
        assert_eq!(hpa.stabilized(current, proposal, NOW), stabilized, "{name}");
        let left: Vec<_> = hpa.recommendations.iter().map(|(_, asked)| *asked).collect();
        assert_eq!(left, remembered, "{name}");
    }
}

#[test]
fn one_external_metric() {
    use Target::{AverageValue, Value};
    let of = |spec_replicas, status_replicas, ready_pods| ScaleTarget {
        spec_replicas,
        status_replicas,
        ready_pods,
    };
    // (target, total, replicas, expected)
    let cases = [
        (AverageValue(2867.0), 8600.0, of(5, 5, 5), 3),
        (AverageValue(2.200), 8.600, of(3, 3, 3), 4),
        (AverageValue(2.867), 8.600, of(3, 3, 3), 3),
        (AverageValue(10.0), 33.0, of(3, 3, 3), 3),
        (AverageValue(10.0), 33.1, of(3, 3, 3), 4),
        (AverageValue(10.0), 26.9, of(3, 3, 3), 3),
        (AverageValue(10.0), 19.9, of(3, 3, 3), 2),
        (AverageValue(10.0), 0.0, of(3, 3, 3), 0),
        // Nothing in status yet: whatever the ratio, it is out of tolerance.
        (AverageValue(10.0), 40.0, of(3, 0, 0), 4),
        (Value(4.400), 8.600, of(3, 3, 3), 6),
        (Value(4.400), 8.600, of(6, 6, 3), 6),
        (Value(4.400), 4.500, of(3, 3, 1), 3),
        (Value(9.0), 8.600, of(5, 5, 5), 5),
        (Value(14.400), 8.600, of(5, 5, 5), 3),
        // KEDA and the HPA speak in whole thousandths.
        (AverageValue(1.0), 2.000_4, of(1, 1, 1), 2),
    ];
    let hpa = Hpa::new(Behavior::kubernetes_default(1, 100));
    for (held_to, total, target, expected) in cases {
        assert_eq!(hpa.proposal_of_one(total, held_to, target), expected, "{held_to:?} {total} {target:?}");
    }
}

fn steady(replicas: u32) -> ScaleTarget {
    ScaleTarget { spec_replicas: replicas, status_replicas: replicas, ready_pods: replicas }
}

fn average(total: Option<f64>, target: f64) -> Metric {
    Metric { total, target: Target::AverageValue(target) }
}

#[test]
fn several_metrics_and_unknown_ones() {
    // (metrics, current, desired)
    let cases: [(&[Metric], u32, u32); 6] = [
        (&[average(Some(20.0), 10.0), average(Some(50.0), 10.0)], 4, 5),
        (&[average(Some(60.0), 10.0), average(None, 10.0)], 4, 6),
        (&[average(Some(20.0), 10.0), average(None, 10.0)], 4, 4),
        (&[average(Some(20.0), 10.0)], 4, 2),
        (&[average(None, 10.0)], 4, 4),
        (&[], 4, 4),
    ];
    for (metrics, current, desired) in cases {
        let down = rules(0, 0, 100, 15, 0);
        let mut hpa = Hpa::new(Behavior { down, ..Behavior::kubernetes_default(1, 100) });
        assert_eq!(hpa.sync(steady(current), metrics, NOW), desired, "{metrics:?}");
    }
}

#[test]
fn bounds_win_over_metrics_and_zero_is_left_alone() {
    for (current, desired) in [(0, 0), (1, 2), (9, 6)] {
        let mut hpa = Hpa::new(Behavior::kubernetes_default(2, 6));
        assert_eq!(hpa.sync(steady(current), &[average(Some(30.0), 10.0)], NOW), desired);
    }
}

#[test]
fn what_there_was_at_the_first_sync_counts_as_asked_for() {
    let mut hpa = Hpa::new(Behavior::kubernetes_default(1, 100));
    for second in (0..=300).step_by(15) {
        let now = NOW + Duration::from_secs(second);
        let wanted = hpa.sync(steady(4), &[average(Some(10.0), 10.0)], now);
        assert_eq!(wanted, if second < 300 { 4 } else { 1 }, "after {second} s");
    }
}

/// With a stabilization window shorter than the down period a burst is followed by its mirror
/// image; with a window of at least the period it is not.
#[test]
fn a_window_shorter_than_the_period_makes_a_limit_cycle() {
    let run = |down_window: u64| {
        let mut hpa = Hpa::new(Behavior {
            min_replicas: 1,
            max_replicas: 50,
            up: rules(1, 300, 0, 0, 60),
            down: rules(1, 600, 0, 0, down_window),
        });
        let (mut replicas, mut largest_drop) = (4_u32, 0);
        for sync in 0..960_u64 {
            let now = NOW + Duration::from_secs(15 * sync);
            // Bursts of 6 minutes, then 6 quiet ones.
            let total = if (sync / 24) % 2 == 0 { 500.0 } else { 0.0 };
            let wanted = hpa.sync(steady(replicas), &[average(Some(total), 10.0)], now);
            largest_drop = largest_drop.max(replicas.saturating_sub(wanted));
            replicas = wanted;
        }
        largest_drop
    };
    assert!(run(300) >= 2, "300 s: {}", run(300));
    assert_eq!(run(600), 0, "600 s");
}
