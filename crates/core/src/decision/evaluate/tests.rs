use super::*;
use crate::{
    decision::activation::{Activity, Cause},
    endpoint::page_choice::PageKind,
    fleet::model::{Endpoint, Readiness},
    names::{InferenceSetKey, PodUid},
    page::sample::{PodDemand, PodSample},
};

const STALENESS: Duration = Duration::from_secs(5);
const NOW: Moment = Moment::from_unix(Duration::from_secs(1_000_000));

fn metric(name: &str) -> MetricName {
    MetricName::parse(name).unwrap()
}

fn waiting() -> MetricName {
    metric("vllm:num_requests_waiting")
}

/// A trigger on the total of waiting requests, target 10, with `extra` on top.
fn trigger(extra: &[(&str, &str)]) -> Trigger {
    let mut metadata = vec![
        ("inferenceSetNamespace", "team-a"),
        ("inferenceSetName", "demo"),
        ("metricName", "vllm:num_requests_waiting"),
        ("threshold", "10"),
    ];
    metadata.retain(|(key, _)| !extra.iter().any(|(other, _)| key == other));
    metadata.extend(extra);
    metadata.retain(|(_, value)| !value.is_empty());
    Trigger::parse(metadata, None).unwrap()
}

/// What one replica looks like.
#[derive(Clone, Copy)]
enum Is {
    /// Serves, with this many waiting and no one running.
    Waiting(f64),
    /// Serves, with this many running and no one waiting.
    Running(f64),
    /// Serves, but its page lacks the metric.
    Lacking,
    /// Its last sample is older than the staleness limit.
    Stale,
    /// Ready, but never read.
    Unread,
    /// Not ready and never served, for these many seconds.
    Loading(u64),
    /// Without an address.
    Pending,
    Draining,
}

fn pod(index: usize, is: Is) -> Pod {
    let (readiness, age) = match is {
        Is::Loading(age) => (Readiness::NotReady, age),
        Is::Pending => (Readiness::NotReady, 10),
        Is::Draining => (Readiness::Terminating, 10_000),
        _ => (Readiness::Ready, 10_000),
    };
    let mut pod = Pod::new(Endpoint {
        uid: PodUid(format!("uid-{index}").into()),
        pod: format!("demo-{index}").into(),
        address: (!matches!(is, Is::Pending)).then(|| "127.0.0.1:5000".parse().unwrap()),
        readiness,
        since: NOW - Duration::from_secs(age),
    });
    let (at, waiting_now, running) = match is {
        Is::Waiting(waiting) => (NOW, Some(waiting), 0.0),
        Is::Running(running) => (NOW, Some(0.0), running),
        Is::Lacking => (NOW, None, 0.0),
        Is::Stale => (NOW - STALENESS - Duration::from_secs(1), Some(50.0), 50.0),
        Is::Draining => (NOW, Some(99.0), 99.0),
        Is::Unread | Is::Loading(_) | Is::Pending => return pod,
    };
    let readings = waiting_now.map(|value| (waiting(), Reading::Value(value))).into_iter().collect();
    let demand = PodDemand { waiting: waiting_now, running: Some(running), rejected_total: 0.0 };
    let sample = PodSample { readings, demand, engine: true, ..PodSample::default() };
    pod.sampled(at, PageKind::Filtered, sample);
    pod
}

fn set(replicas: u32) -> InferenceSet {
    InferenceSet {
        key: InferenceSetKey::new("team-a", "demo"),
        replicas,
        ready_replicas: replicas,
        endpoints: vec![],
        gateway: None,
    }
}

fn observed<'a>(set: &'a InferenceSet, pods: &'a [Pod]) -> Observed<'a> {
    Observed {
        set,
        pods,
        short_since: None,
        staleness: STALENESS,
        gateway: None,
        heard: NOW,
        last_error: None,
    }
}

/// Decides for a target whose hold time is long over.
fn decide(trigger: &Trigger, observed: &Observed<'_>) -> Snapshot {
    let long_ago = NOW - Duration::from_secs(10_000);
    let mut activation = Activation::new(trigger.activation, long_ago);
    evaluate(trigger, observed, &mut activation, NOW)
}

fn value(snapshot: &Snapshot) -> Result<f64, String> {
    snapshot.values[0].as_ref().map(|value| value.value).map_err(ToString::to_string)
}

#[test]
fn unknown_is_never_zero() {
    use Activity::{Active, Inactive, Unknown};
    use Is::{Draining, Lacking, Loading, Pending, Running, Stale, Unread, Waiting};
    let hold = Active(Cause::InFlight);
    let busy = Active(Cause::Demand);
    // (what, R, replicas, value with target 10, activity)
    #[rustfmt::skip]
    let cases: Vec<(&str, u32, Vec<Is>, Result<f64, &str>, Activity)> = vec![
        ("all known", 2, vec![Waiting(7.0), Waiting(5.0)], Ok(12.0), busy),
        ("idle", 2, vec![Waiting(0.0), Waiting(0.0)], Ok(0.0), Inactive),
        ("three of four time out", 4, vec![Waiting(12.0), Stale, Stale, Stale], Ok(40.0), busy),
        ("idle, and one unknown", 2, vec![Waiting(0.0), Stale], Ok(10.0), Active(Cause::PartlyUnknown)),
        ("one waits, one loads", 2, vec![Waiting(20.0), Loading(60)], Ok(20.0), busy),
        ("an idle one, and one loads", 2, vec![Waiting(0.0), Loading(60)], Ok(10.0), hold),
        ("not created yet", 3, vec![Waiting(0.0)], Ok(20.0), hold),
        ("all load", 2, vec![Loading(60), Pending], Ok(20.0), hold),
        ("none created", 2, vec![], Ok(20.0), hold),
        ("one is stuck past its deadline", 2, vec![Waiting(4.0), Loading(901)], Ok(4.0), busy),
        ("all are stuck", 2, vec![Loading(901), Loading(901)], Ok(0.0), Inactive),
        ("stuck, and one still loads", 2, vec![Loading(901), Loading(60)], Ok(20.0), hold),
        ("all unknown", 2, vec![Stale, Stale], Err("none of 2 replicas could be read"), Unknown),
        ("ready and never read", 1, vec![Unread], Err("none of 1 replicas could be read"), Unknown),
        ("unknown, and one loads", 2, vec![Stale, Loading(60)], Err("none of 2 replicas"), hold),
        ("one lacks the metric", 2, vec![Waiting(3.0), Lacking], Ok(13.0), busy),
        ("all lack it", 2, vec![Lacking, Lacking], Err("no replica has the metric"), Unknown),
        ("one drains", 1, vec![Waiting(3.0), Draining], Ok(3.0), busy),
        ("zero wanted", 0, vec![], Ok(0.0), Inactive),
        ("zero wanted, one unknown", 0, vec![Stale], Ok(0.0), Inactive),
        ("zero wanted, one lacks the metric", 0, vec![Lacking], Ok(0.0), Inactive),
        ("nothing waits, but it works", 1, vec![Running(3.0)], Ok(0.0), busy),
    ];
    for (what, replicas, pods, expected, activity) in cases {
        let pods: Vec<_> = pods.iter().enumerate().map(|(index, is)| pod(index, *is)).collect();
        let set = set(replicas);
        let snapshot = decide(&trigger(&[]), &observed(&set, &pods));
        match (value(&snapshot), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{what}"),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{what}: {got}"),
            (got, expected) => panic!("{what}: {got:?}, not {expected:?}"),
        }
        assert_eq!(snapshot.activity, activity, "{what}");
        assert!(!snapshot.why().is_empty());
    }
}

/// With no replica wanted, no state of pods, gateway or watch makes a call fail.
#[test]
fn nothing_fails_at_zero_replicas() {
    use Is::{Draining, Lacking, Loading, Pending, Running, Stale, Unread, Waiting};
    let kinds =
        [Waiting(3.0), Running(1.0), Lacking, Stale, Unread, Loading(60), Loading(901), Pending, Draining];
    let policy =
        r#"[{"name":"vllm:num_requests_waiting","type":"gauge","upthreshold":10,"downthreshold":1}]"#;
    let rules: [&[(&str, &str)]; 8] = [
        &[],
        &[("aggregation", "service-avg")],
        &[("aggregation", "max")],
        &[("aggregation", "windowed-avg")],
        &[("aggregation", "quantile")],
        &[("aggregation", "gate")],
        &[("aggregation", "policy"), ("policy", policy), ("metricName", ""), ("threshold", "")],
        &[
            ("aggregation", "policy"),
            ("policy", policy),
            ("combinePolicy", "MAX"),
            ("metricName", ""),
            ("threshold", ""),
        ],
    ];
    let set = set(0);
    for rule in rules {
        for first in kinds {
            for second in kinds {
                let pods = [pod(0, first), pod(1, second)];
                let observed = Observed { heard: NOW - Duration::from_secs(1_000), ..observed(&set, &pods) };
                let snapshot = decide(&trigger(rule), &observed);
                assert!(snapshot.values.iter().all(Result::is_ok), "{rule:?}: {snapshot:?}");
                assert_ne!(snapshot.activity, Activity::Unknown);
            }
        }
    }
}

/// For every mix of up to five replicas: the HPA, which divides by target and compares with
/// the replicas, never moves against what the known replicas say.
#[test]
fn the_hpa_never_moves_against_the_known() {
    use Is::{Loading, Stale, Waiting};
    let kinds = [Waiting(0.0), Waiting(4.0), Waiting(10.0), Waiting(25.0), Stale, Loading(60), Loading(901)];
    let mut mixes: Vec<Vec<Is>> = vec![vec![]];
    for _ in 0..5 {
        let longer = mixes.iter().flat_map(|mix| kinds.map(|kind| [mix.as_slice(), &[kind]].concat()));
        let longer: Vec<_> = longer.collect();
        mixes = longer;
        for mix in &mixes {
            let pods: Vec<_> = mix.iter().enumerate().map(|(index, is)| pod(index, *is)).collect();
            let set = set(u32::try_from(mix.len()).unwrap());
            let Ok(value) = value(&decide(&trigger(&[]), &observed(&set, &pods))) else { continue };
            let known: Vec<f64> = mix
                .iter()
                .filter_map(|is| if let Waiting(waiting) = is { Some(*waiting) } else { None })
                .collect();
            let sum: f64 = known.iter().sum();
            let stuck = mix.iter().filter(|is| matches!(is, Loading(901))).count();
            let (replicas, desired) = (mix.len() as f64, (value / 10.0).ceil());
            // Stuck replicas are known not to serve: capacity is what the rest makes up.
            let serving_or_coming = replicas - stuck as f64;
            let known_capacity = 10.0 * known.len() as f64;
            if sum >= known_capacity && !known.is_empty() {
                assert!(desired >= serving_or_coming, "{value} for {} replicas", mix.len());
            }
            if sum <= known_capacity {
                assert!(desired <= replicas, "{value} for {} replicas", mix.len());
            }
            if known.iter().all(|waiting| *waiting == 0.0) && known.len() == mix.len() {
                assert_eq!(value, 0.0);
            }
        }
    }
    assert_eq!(mixes.len(), 7_usize.pow(5));
}

#[test]
fn means_speak_only_for_a_majority() {
    use Is::{Loading, Stale, Waiting};
    let average = trigger(&[("aggregation", "service-avg")]);
    let largest = trigger(&[("aggregation", "max")]);
    let cases = [
        (vec![Waiting(2.0), Waiting(4.0)], Ok(3.0), Ok(4.0)),
        (vec![Waiting(2.0), Waiting(4.0), Loading(60)], Ok(3.0), Ok(4.0)),
        (vec![Waiting(2.0), Waiting(4.0), Stale], Ok(3.0), Ok(4.0)),
        (vec![Waiting(2.0), Stale], Ok(2.0), Ok(2.0)),
        (vec![Waiting(2.0), Stale, Stale], Err("2 of 3 replicas"), Err("2 of 3 replicas")),
        (vec![Loading(60), Loading(60)], Ok(20.0), Ok(20.0)),
    ];
    for (mix, mean, max) in cases {
        let pods: Vec<_> = mix.iter().enumerate().map(|(index, is)| pod(index, *is)).collect();
        let set = set(u32::try_from(pods.len()).unwrap());
        for (trigger, expected) in [(&average, mean), (&largest, max)] {
            match (value(&decide(trigger, &observed(&set, &pods))), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
                (got, expected) => panic!("{got:?}, not {expected:?}"),
            }
        }
    }
}

#[test]
fn a_cap_holds_while_replicas_are_on_their_way() {
    let pods = [pod(0, Is::Waiting(70.0)), pod(1, Is::Loading(60))];
    let set = set(2);
    assert_eq!(value(&decide(&trigger(&[]), &observed(&set, &pods))), Ok(70.0));
    let held = trigger(&[("holdWhileInFlight", "true")]);
    assert_eq!(value(&decide(&held, &observed(&set, &pods))), Ok(20.0));
    let serving = [pod(0, Is::Waiting(70.0)), pod(1, Is::Waiting(0.0))];
    assert_eq!(value(&decide(&held, &observed(&set, &serving))), Ok(70.0));
}

#[test]
fn the_gate_waits_for_replicas_but_not_past_their_deadline() {
    let gate = trigger(&[("aggregation", "gate")]);
    let cases = [
        (0, 0, vec![], 1.0),
        (2, 2, vec![Is::Waiting(0.0), Is::Waiting(0.0)], 1.0),
        (2, 1, vec![Is::Waiting(0.0), Is::Loading(60)], 0.0),
        (2, 1, vec![Is::Waiting(0.0), Is::Loading(901)], 1.0),
    ];
    for (replicas, ready, mix, expected) in cases {
        let pods: Vec<_> = mix.iter().enumerate().map(|(index, is)| pod(index, *is)).collect();
        let set = InferenceSet { ready_replicas: ready, ..set(replicas) };
        assert_eq!(value(&decide(&gate, &observed(&set, &pods))), Ok(expected));
    }
}

fn queue_time() -> MetricName {
    metric("vllm:request_queue_time_seconds")
}

/// A pod with a window of queue times, read at each second of `samples` before now.
fn queueing(index: usize, samples: &[(u64, f64, f64)], demand: f64) -> Pod {
    let mut pod = pod(index, Is::Unread);
    pod.keep_windows(&[WindowKey { metric: queue_time(), span: Duration::from_secs(300) }]);
    for &(before, count, sum) in samples {
        let buckets = vec![(1.0, count / 2.0), (3.0, count), (f64::INFINITY, count)];
        let histogram = Histogram { count, sum, buckets };
        let sample = PodSample {
            readings: vec![(queue_time(), Reading::Histogram(histogram))],
            demand: PodDemand { waiting: Some(demand), running: Some(0.0), rejected_total: 0.0 },
            engine: true,
            ..PodSample::default()
        };
        pod.sampled(NOW - Duration::from_secs(before), PageKind::Filtered, sample);
    }
    pod
}

#[test]
fn windows_add_up_what_each_replica_did() {
    let windowed = trigger(&[
        ("aggregation", "windowed-avg"),
        ("metricName", "vllm:request_queue_time_seconds"),
        ("threshold", "30"),
    ]);
    // Ten requests of 2 s on one, thirty of 4 s on the other; the second restarted meanwhile.
    let pods = [
        queueing(0, &[(2, 100.0, 500.0), (1, 110.0, 520.0)], 0.0),
        queueing(1, &[(2, 7_000.0, 9_000.0), (1, 30.0, 120.0)], 0.0),
    ];
    let two = set(2);
    let snapshot = decide(&windowed, &observed(&two, &pods));
    assert_eq!(value(&snapshot), Ok(140.0 / 40.0));
    assert!(snapshot.why().contains("warming up"), "{}", snapshot.why());

    let quantile = trigger(&[
        ("aggregation", "quantile"),
        ("metricName", "vllm:request_queue_time_seconds"),
        ("quantile", "0.75"),
    ]);
    // Half of each below 1 s, the rest below 3 s: the 0.75 quantile lies in the middle.
    assert_eq!(value(&decide(&quantile, &observed(&two, &pods))), Ok(2.0));

    let one = set(1);
    let cases = [
        (queueing(0, &[(1, 5.0, 5.0)], 0.0), Err("needs two samples")),
        (queueing(0, &[(2, 5.0, 5.0), (1, 5.0, 5.0)], 0.0), Ok(0.0)),
        (queueing(0, &[(2, 5.0, 5.0), (1, 5.0, 5.0)], 8.0), Err("no request ended within the window")),
        (pod(0, Is::Waiting(1.0)), Err("no replica has the metric")),
    ];
    for (pod, expected) in cases {
        match (value(&decide(&windowed, &observed(&one, &[pod]))), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, expected) => panic!("{got:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_sum_over_a_histogram_says_what_would_work() {
    let sum = trigger(&[("metricName", "vllm:request_queue_time_seconds")]);
    let pods = [queueing(0, &[(1, 5.0, 5.0)], 0.0)];
    let set = set(1);
    let error = value(&decide(&sum, &observed(&set, &pods))).unwrap_err();
    assert!(error.contains("use windowed-avg or quantile"), "{error}");
}

#[test]
fn a_policy_moves_by_what_all_its_metrics_say() {
    let policy = r#"[
        {"name": "vllm:num_requests_waiting", "type": "gauge", "upthreshold": 10, "downthreshold": 1},
        {"name": "vllm:request_queue_time_seconds", "type": "histogram", "upthreshold": 30, "downthreshold": 1}
    ]"#;
    let combined = |combine: &str| {
        trigger(&[
            ("aggregation", "policy"),
            ("policy", policy),
            ("combinePolicy", combine),
            ("metricName", ""),
            ("threshold", ""),
        ])
    };
    // One replica with both metrics: waiting, and a queue time over the window.
    let both = |waiting_now: f64, queue: f64| {
        let mut pod = queueing(0, &[(2, 100.0, 0.0), (1, 110.0, 10.0 * queue)], waiting_now);
        let histogram = Histogram { count: 120.0, sum: 20.0 * queue, buckets: vec![] };
        let sample = PodSample {
            readings: vec![
                (queue_time(), Reading::Histogram(histogram)),
                (waiting(), Reading::Value(waiting_now)),
            ],
            demand: PodDemand { waiting: Some(waiting_now), running: Some(0.0), rejected_total: 0.0 },
            engine: true,
            ..PodSample::default()
        };
        pod.sampled(NOW, PageKind::Filtered, sample);
        pod
    };
    let one = set(1);
    // (waiting, queue time, AND, OR)
    let cases = [(20.0, 60.0, 2.0, 2.0), (20.0, 5.0, 1.0, 2.0), (5.0, 5.0, 1.0, 1.0), (0.0, 0.0, 0.5, 0.5)];
    for (waiting_now, queue, and, or) in cases {
        let pods = [both(waiting_now, queue)];
        for (combine, expected) in [("AND", and), ("OR", or)] {
            let got = value(&decide(&combined(combine), &observed(&one, &pods)));
            assert_eq!(got, Ok(expected), "{combine} of {waiting_now} and {queue}");
        }
        let snapshot = decide(&combined("MAX"), &observed(&one, &pods));
        let values: Vec<_> = snapshot.values.iter().map(|value| value.as_ref().unwrap().value).collect();
        assert_eq!(values, [waiting_now, queue], "MAX sends each metric");
    }
    // Up, but one replica of two is on its way: hold at two.
    let two = set(2);
    let pods = [both(20.0, 60.0), pod(1, Is::Loading(60))];
    assert_eq!(value(&decide(&combined("AND"), &observed(&two, &pods))), Ok(2.0));
    // MAX sends both as totals, the one on its way filled in: hold at two.
    let values = decide(&combined("MAX"), &observed(&two, &pods)).values;
    let values: Vec<_> = values.into_iter().map(|value| value.unwrap().value).collect();
    assert_eq!(values, [20.0, 60.0]);
}

#[test]
fn a_silent_watch_is_no_longer_believed() {
    let pods = [pod(0, Is::Waiting(3.0))];
    let set = set(1);
    let silent = Observed { heard: NOW - Duration::from_secs(91), ..observed(&set, &pods) };
    assert!(value(&decide(&trigger(&[]), &silent)).unwrap_err().contains("silent for 91 s"));
}

#[test]
fn the_gateway_and_rejections_are_demand() {
    let zero = set(0);
    let queued = Observed { gateway: Some(3.0), ..observed(&zero, &[]) };
    let snapshot = decide(&trigger(&[]), &queued);
    assert_eq!((snapshot.activity, value(&snapshot)), (Activity::Active(Cause::Demand), Ok(0.0)));

    let mut refusing = pod(0, Is::Waiting(0.0));
    for (after, rejected_total) in [(1, 0.0), (2, 1.0)] {
        let demand = PodDemand { waiting: Some(0.0), running: Some(0.0), rejected_total };
        let sample = PodSample { demand, engine: true, ..PodSample::default() };
        refusing.sampled(NOW + Duration::from_secs(after), PageKind::Filtered, sample);
    }
    let one = set(1);
    let snapshot = decide(&trigger(&[]), &observed(&one, &[refusing]));
    assert_eq!(snapshot.demand.amount, 1.0);
}

#[test]
fn the_next_change_is_the_earliest_deadline() {
    let trigger = trigger(&[]);
    let two = set(2);
    let idle = Activation::new(trigger.activation, NOW - Duration::from_secs(10_000));
    let pods = [pod(0, Is::Waiting(0.0)), pod(1, Is::Loading(60))];
    let next = next_change(&trigger, &observed(&two, &pods), &idle, NOW);
    assert_eq!(next, Some(NOW + STALENESS), "the sample goes stale first");
    let pods = [pod(1, Is::Loading(895))];
    let next = next_change(&trigger, &observed(&two, &pods), &idle, NOW);
    assert_eq!(next, Some(NOW + Duration::from_secs(5)), "the deadline comes first");
    let zero = set(0);
    assert_eq!(next_change(&trigger, &observed(&zero, &[]), &idle, NOW), None);
}
