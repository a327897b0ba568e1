//! Unknown is never zero.

use super::*;

#[test]
fn unknown_is_never_zero() {
    use Activity::{Active, Inactive, Unknown};
    use Is::{Asleep, Draining, Lacking, Loading, Pending, Running, Stale, Unread, Waiting};
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
        ("one sleeps, and the other has more than it can serve", 2, vec![Waiting(20.0), Asleep(0.0)], Ok(30.0), busy),
        ("an idle one, and one sleeps", 2, vec![Waiting(0.0), Asleep(0.0)], Ok(10.0), Inactive),
        ("all sleep", 2, vec![Asleep(0.0), Asleep(0.0)], Ok(20.0), Inactive),
        ("what waits for one that sleeps is demand", 1, vec![Asleep(3.0)], Ok(13.0), busy),
        ("one sleeps, and one is unknown", 2, vec![Asleep(0.0), Stale], Err("none of 1 replicas could be read"), Active(Cause::PartlyUnknown)),
        ("one sleeps, and one loads", 2, vec![Asleep(0.0), Loading(60)], Ok(20.0), hold),
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
    use Is::{Asleep, Draining, Lacking, Loading, Pending, Running, Stale, Unread, Waiting};
    let kinds = [
        Waiting(3.0),
        Running(1.0),
        Lacking,
        Asleep(1.0),
        Stale,
        Unread,
        Loading(60),
        Loading(901),
        Pending,
        Draining,
    ];
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
    never_against_the_known(&kinds, 5);
}

/// The same where some sleep: they count as replicas, and say nothing of how many are needed.
#[test]
fn the_hpa_never_moves_against_the_known_where_some_sleep() {
    use Is::{Asleep, Loading, Stale, Waiting};
    let kinds = [Waiting(0.0), Waiting(4.0), Waiting(25.0), Asleep(0.0), Asleep(4.0), Stale, Loading(60)];
    never_against_the_known(&kinds, 4);
}

fn never_against_the_known(kinds: &[Is], longest: u32) {
    use Is::{Asleep, Loading, Waiting};
    let mut mixes: Vec<Vec<Is>> = vec![vec![]];
    for _ in 0..longest {
        let longer =
            mixes.iter().flat_map(|mix| kinds.iter().map(|kind| [mix.as_slice(), &[*kind]].concat()));
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
            let asleep = mix.iter().filter_map(|is| if let Asleep(held) = is { Some(*held) } else { None });
            let sum = known.iter().sum::<f64>() + asleep.sum::<f64>();
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
    assert_eq!(mixes.len(), kinds.len().pow(longest));
}

#[test]
fn means_speak_only_for_a_majority() {
    use Is::{Asleep, Loading, Stale, Waiting};
    let average = trigger(&[("aggregation", "service-avg")]);
    let largest = trigger(&[("aggregation", "max")]);
    let cases = [
        (vec![Waiting(2.0), Waiting(4.0)], Ok(3.0), Ok(4.0)),
        (vec![Waiting(2.0), Waiting(4.0), Loading(60)], Ok(3.0), Ok(4.0)),
        (vec![Waiting(2.0), Waiting(4.0), Stale], Ok(3.0), Ok(4.0)),
        (vec![Waiting(2.0), Stale], Ok(2.0), Ok(2.0)),
        (vec![Waiting(2.0), Stale, Stale], Err("2 of 3 replicas"), Err("2 of 3 replicas")),
        (vec![Loading(60), Loading(60)], Ok(20.0), Ok(20.0)),
        // One that sleeps serves nobody.
        (vec![Waiting(4.0), Asleep(0.0)], Ok(4.0), Ok(4.0)),
        (vec![Waiting(4.0), Asleep(9.0), Stale], Ok(4.0), Ok(4.0)),
        (vec![Asleep(0.0), Asleep(9.0)], Ok(20.0), Ok(20.0)),
        (vec![Asleep(0.0), Loading(60)], Ok(20.0), Ok(20.0)),
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
fn a_silent_watch_is_no_longer_believed() {
    let pods = [pod(0, Is::Waiting(3.0))];
    let set = set(1);
    let silent = Observed { heard: NOW - Duration::from_secs(91), ..observed(&set, &pods) };
    assert!(value(&decide(&trigger(&[]), &silent)).unwrap_err().contains("silent for 91 s"));
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

/// Each replica that is missing has its own deadline: one that is lost now is on its way, though
/// another has been missing for long.
#[test]
fn a_replica_that_is_lost_is_on_its_way_beside_one_that_never_came() {
    let three = set(3);
    let ago = |seconds| NOW - Duration::from_secs(seconds);
    let missing = |times: &[u64]| -> Vec<Missing> {
        times.iter().map(|seconds| Missing { since: ago(*seconds), replicas: 1 }).collect()
    };
    let two = [pod(0, Is::Waiting(9.0)), pod(1, Is::Waiting(9.0))];
    let cases = [
        (&two[..], missing(&[901]), 18.0, 1, None),
        (&two[..1], missing(&[901, 0]), 19.0, 1, Some(900)),
        (&two[..1], missing(&[1_800, 901]), 9.0, 2, None),
        (&two[..1], missing(&[20, 10]), 29.0, 0, Some(880)),
    ];
    for (pods, missing, expected, stuck, deadline) in cases {
        let observed = Observed { missing: &missing, ..observed(&three, pods) };
        let snapshot = decide(&trigger(&[]), &observed);
        assert_eq!((value(&snapshot), snapshot.stuck), (Ok(expected), stuck), "{missing:?}");
        let idle = Activation::new(trigger(&[]).activation, ago(10_000));
        // What else changes does so sooner, so it is taken away.
        let far =
            Observed { staleness: Duration::from_secs(5_000), heard: NOW + WATCH_SILENCE * 100, ..observed };
        let next = next_change(&trigger(&[]), &far, &idle, NOW).unwrap();
        assert_eq!(next, NOW + Duration::from_secs(deadline.unwrap_or(5_000)));
    }
}

#[test]
fn the_reason_is_the_one_of_now() {
    let one = set(1);
    let error = |pods: &[Pod]| value(&decide(&trigger(&[]), &observed(&one, pods))).unwrap_err();
    let mut restarted = pod(0, Is::Unread);
    assert_eq!(error(&[restarted.clone()]), "none of 1 replicas could be read: no answer yet");
    restarted.failed("answered with status 503".into());
    assert_eq!(error(&[restarted.clone()]), "none of 1 replicas could be read: answered with status 503");
    // It served, and its container began anew: the model is downloaded again.
    let served = PodSample { engine: true, ..PodSample::default() };
    restarted.sampled(NOW - Duration::from_secs(60), PageKind::Filtered, served);
    let downloads = PodSample { download_remaining: Some(41.7), ..PodSample::default() };
    restarted.sampled(NOW, PageKind::Plain, downloads);
    assert_eq!(error(&[restarted.clone()]), "none of 1 replicas could be read: downloading, 42 s left");
    restarted.sampled(NOW, PageKind::Plain, PodSample::default());
    assert!(error(&[restarted.clone()]).ends_with("its page has no family of a model server"));
    restarted.failed("connection refused".into());
    assert!(error(&[restarted]).ends_with("could be read: connection refused"));
}

#[test]
fn who_is_unknown_and_why_is_told_truly() {
    use Is::{Lacking, Stale, Waiting};
    let average = trigger(&[("aggregation", "service-avg")]);
    let three = set(3);
    let error = |mut pods: Vec<Pod>, failed: &[usize]| {
        for index in failed {
            pods[*index].failed("timed out".into());
        }
        value(&decide(&average, &observed(&three, &pods))).unwrap_err()
    };
    let start = "2 of 3 replicas are unknown, too many for the rest to speak for them";
    let unread = vec![pod(0, Waiting(1.0)), pod(1, Stale), pod(2, Stale)];
    assert_eq!(error(unread, &[2]), format!("{start}: timed out"));
    let lacking = vec![pod(0, Waiting(1.0)), pod(1, Lacking), pod(2, Lacking)];
    assert_eq!(error(lacking, &[]), format!("{start}: 2 can be read and have no vllm:num_requests_waiting"));
}
