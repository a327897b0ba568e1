//! Windows, policies and gates.

use super::*;

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
    // Of vLLM's it is known when the trigger is read; of others it shows on the page.
    let sum = trigger(&[("metricName", "my_queue_time_seconds")]);
    let mut pod = queueing(0, &[(1, 5.0, 5.0)], 0.0);
    let (at, sample) = pod.latest().unwrap();
    let mut sample = sample.clone();
    sample.readings[0].0 = metric("my_queue_time_seconds");
    pod.sampled(at + Duration::from_millis(1), PageKind::Filtered, sample);
    let set = set(1);
    let error = value(&decide(&sum, &observed(&set, &[pod]))).unwrap_err();
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
        let values: Vec<_> = snapshot.values.iter().map(|value| value.as_ref().unwrap().number()).collect();
        assert_eq!(values, [waiting_now, queue], "MAX sends each metric");
    }
    // Up, but one replica of two is on its way: hold at two.
    let two = set(2);
    let pods = [both(20.0, 60.0), pod(1, Is::Loading(60))];
    assert_eq!(value(&decide(&combined("AND"), &observed(&two, &pods))), Ok(2.0));
    // MAX sends both as totals, the one on its way filled in: hold at two.
    let values = decide(&combined("MAX"), &observed(&two, &pods)).values;
    let values: Vec<_> = values.into_iter().map(|value| value.unwrap().number()).collect();
    assert_eq!(values, [20.0, 60.0]);
}

/// A window in which nothing was observed is no 0: an engine that says nothing of its queue may as
/// well be stuck.
#[test]
fn an_empty_window_is_idle_only_where_that_is_known() {
    let trigger = trigger(&[("aggregation", "windowed-avg"), ("metricName", queue_time().as_str())]);
    let silent = |index| queueing_with(index, &[(2, 5.0, 5.0), (1, 5.0, 5.0)], PodDemand::default());
    let idle = |index| queueing(index, &[(2, 5.0, 5.0), (1, 5.0, 5.0)], 0.0);
    let busy = |index| queueing_with(index, &[(2, 5.0, 5.0), (1, 7.0, 9.0)], PodDemand::default());
    let unknown =
        "no request ended within the window of vllm:request_queue_time_seconds, and it is not known";
    let demand = "do not say how many requests they hold";
    let cases = [
        (vec![silent(0)], Err(unknown), Activity::Unknown, unknown),
        (vec![silent(0), silent(1), idle(2)], Err(unknown), Activity::Active(Cause::PartlyUnknown), unknown),
        (vec![silent(0), idle(1)], Ok(0.0), Activity::Active(Cause::PartlyUnknown), demand),
        (vec![idle(0)], Ok(0.0), Activity::Inactive, demand),
        // What ended shows that somebody asks.
        (vec![busy(0)], Ok(2.0), Activity::Active(Cause::Demand), demand),
        (vec![busy(0), silent(1)], Ok(2.0), Activity::Active(Cause::Demand), demand),
    ];
    for (pods, expected, activity, why) in cases {
        let set = set(u32::try_from(pods.len()).unwrap());
        let snapshot = decide(&trigger, &observed(&set, &pods));
        match (value(&snapshot), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, expected) => panic!("{got:?}, not {expected:?}"),
        }
        assert_eq!(snapshot.activity, activity);
        let told = snapshot.why_activity_is_unknown().to_string();
        assert!(told.contains(why), "{told}");
    }
}
