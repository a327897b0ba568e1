//! A value is a finite number that is not negative, or it is unavailable.

use super::*;

/// What a page may print, and KEDA may not get.
const HUGE: f64 = 1e308;

const NO_NUMBER: &str = "no number for KEDA";

fn policy(combine: &str) -> Trigger {
    let policy =
        r#"[{"name":"vllm:num_requests_waiting","type":"gauge","upthreshold":10,"downthreshold":1}]"#;
    trigger(&[
        ("aggregation", "policy"),
        ("policy", policy),
        ("combinePolicy", combine),
        ("metricName", ""),
        ("threshold", ""),
    ])
}

#[test]
fn numbers_that_overflow_are_unavailable_and_not_infinite() {
    let two = set(2);
    let pods = [pod(0, Is::Waiting(HUGE)), pod(1, Is::Waiting(HUGE))];
    for trigger in [
        trigger(&[]),
        trigger(&[("holdWhileInFlight", "true")]),
        trigger(&[("aggregation", "service-avg")]),
        policy("AND"),
        policy("OR"),
        policy("MAX"),
    ] {
        let snapshot = decide(&trigger, &observed(&two, &pods));
        let error = value(&snapshot).unwrap_err();
        assert!(error.contains(NO_NUMBER), "{error}");
        // Demand is known all the same: there is a great deal of it.
        assert_eq!(snapshot.activity, Activity::Active(Cause::Demand));
        assert!(snapshot.demand.amount.is_finite());
        assert!(!snapshot.why().contains("inf;"), "{}", snapshot.why());
    }
    let largest = trigger(&[("aggregation", "max")]);
    assert_eq!(value(&decide(&largest, &observed(&two, &pods))), Ok(HUGE));

    let loading = [pod(0, Is::Loading(60)), pod(1, Is::Loading(60))];
    for changes in [&[("threshold", "1e308")][..], &[("threshold", "1e308"), ("aggregation", "max")]] {
        let error = value(&decide(&trigger(changes), &observed(&two, &loading))).unwrap_err();
        assert!(error.contains(NO_NUMBER), "{error}");
    }
    let stale = [pod(0, Is::Waiting(1.0)), pod(1, Is::Stale), pod(2, Is::Stale)];
    let three = set(3);
    let filled = decide(&trigger(&[("threshold", "1e308")]), &observed(&three, &stale));
    assert!(value(&filled).unwrap_err().contains(NO_NUMBER));
}

#[test]
fn histograms_that_overflow_are_unavailable() {
    let two = set(2);
    let cases: [(&[(&str, &str)], f64, f64); 3] = [
        (&[("aggregation", "windowed-avg")], 10.0, HUGE),
        (&[("aggregation", "windowed-avg")], HUGE, 10.0),
        (&[("aggregation", "quantile")], HUGE, 10.0),
    ];
    for (changes, count, sum) in cases {
        let trigger = trigger(&[changes, &[("metricName", queue_time().as_str())]].concat());
        let pods = [0, 1].map(|index| queueing(index, &[(2, 0.0, 0.0), (1, count, sum)], 0.0));
        let error = value(&decide(&trigger, &observed(&two, &pods))).unwrap_err();
        assert!(error.contains(NO_NUMBER), "{changes:?}: {error}");
    }
}

#[test]
fn counts_of_replicas_do_not_overflow() {
    let gate = trigger(&[("aggregation", "gate")]);
    let pods = [pod(0, Is::Loading(901))];
    for (replicas, ready, expected) in [(1, u32::MAX, 1.0), (u32::MAX, u32::MAX, 1.0), (u32::MAX, 5, 0.0)] {
        let set = InferenceSet { ready_replicas: ready, ..set(replicas) };
        assert_eq!(value(&decide(&gate, &observed(&set, &pods))), Ok(expected), "{ready} of {replicas}");
    }
    let mix =
        [pod(0, Is::Waiting(3.0)), pod(1, Is::Stale), pod(2, Is::Loading(60)), pod(3, Is::Loading(901))];
    let all = set(u32::MAX);
    let expected = 3.0 + 10.0 * f64::from(u32::MAX - 2);
    assert_eq!(value(&decide(&trigger(&[]), &observed(&all, &mix))), Ok(expected));
}
