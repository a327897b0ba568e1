//! Demand, and what it makes of activity.

use super::*;

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

/// A page of an engine that nobody knows: only the metric that the user named.
fn of_an_own_server(index: usize, depth: Option<f64>) -> Pod {
    let mut own = pod(index, Is::Unread);
    let readings = depth.map(|depth| (metric("my_depth"), Reading::Value(depth))).into_iter().collect();
    own.sampled(NOW, PageKind::Plain, PodSample { readings, engine: true, ..PodSample::default() });
    own
}

/// Where a page does not say how many requests its server holds, the trigger's own metric does.
#[test]
fn the_triggers_own_metric_is_demand_where_nothing_else_is_known() {
    use Activity::{Active, Inactive, Unknown};
    let own = trigger(&[("metricName", "my_depth")]);
    let entries = r#"[{"name":"my_depth","type":"gauge","upthreshold":5,"downthreshold":1},
                      {"name":"my_other","type":"gauge","upthreshold":5,"downthreshold":1}]"#;
    let policy =
        trigger(&[("aggregation", "policy"), ("policy", entries), ("metricName", ""), ("threshold", "")]);
    let average = trigger(&[("metricName", "my_depth"), ("aggregation", "service-avg")]);
    let busy = Active(Cause::Demand);
    let cases = [
        (&own, vec![Some(6.0)], Ok(6.0), busy, 6.0),
        (&own, vec![Some(0.0)], Ok(0.0), Inactive, 0.0),
        (&own, vec![Some(0.0), None], Ok(10.0), Active(Cause::PartlyUnknown), 0.0),
        (&own, vec![None], Err("no replica has the metric my_depth"), Unknown, 0.0),
        (&average, vec![Some(6.0), Some(2.0)], Ok(4.0), busy, 8.0),
        (&policy, vec![Some(6.0)], Ok(1.0), busy, 6.0),
    ];
    for (trigger, depths, expected, activity, amount) in cases {
        let pods: Vec<_> = depths.iter().enumerate().map(|(i, depth)| of_an_own_server(i, *depth)).collect();
        let set = set(u32::try_from(pods.len()).unwrap());
        let snapshot = decide(trigger, &observed(&set, &pods));
        match (value(&snapshot), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{depths:?}"),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, expected) => panic!("{depths:?}: {got:?}, not {expected:?}"),
        }
        assert_eq!((snapshot.activity, snapshot.demand.amount), (activity, amount), "{depths:?}");
    }
    // Requests are demand where they are known, whatever the trigger's metric says.
    let mut both = pod(0, Is::Unread);
    let readings = vec![(metric("my_depth"), Reading::Value(6.0))];
    let demand = PodDemand { waiting: Some(0.0), running: Some(0.0), rejected_total: 0.0 };
    both.sampled(NOW, PageKind::Plain, PodSample { readings, demand, engine: true, ..PodSample::default() });
    let one = set(1);
    assert_eq!(decide(&own, &observed(&one, &[both])).activity, Inactive);
}

/// What is told of an unknown activity is true: a value that is known has been read.
#[test]
fn an_unknown_activity_says_what_is_not_known() {
    let gate = trigger(&[("aggregation", "gate")]);
    let one = set(1);
    let snapshot = decide(&gate, &observed(&one, &[of_an_own_server(0, None)]));
    assert_eq!((snapshot.activity, value(&snapshot)), (Activity::Unknown, Ok(1.0)));
    let told = snapshot.why_activity_is_unknown().to_string();
    assert_eq!(told, "1 of 1 replicas do not say how many requests they hold");
    assert!(snapshot.why().ends_with("activity unknown: the demand of 1 replicas is unknown"));
}
