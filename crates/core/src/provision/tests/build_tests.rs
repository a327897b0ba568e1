//! Each ScaledObject that can be made, as a snapshot.

use super::*;

#[test]
fn the_older_family_scales_on_a_total() {
    insta::assert_snapshot!("older", yaml(&wanted(OLDER)));
}

#[test]
fn the_newer_family_scales_on_one_policy() {
    insta::assert_snapshot!("newer", yaml(&wanted(NEWER)));
}

#[test]
fn every_companion_has_its_place() {
    let companions = [
        ("combinepolicy", "max"),
        ("min-replicas", "2"),
        ("evaluationwindow", "30"),
        ("scaleupcooldown", "60"),
        ("scaledowncooldown", "120"),
        ("scale-up-pods", "4"),
        ("scale-down-pods", "2"),
        ("scale-up-tolerance", "0.25"),
        ("scale-down-tolerance", "0"),
        ("polling-interval", "5"),
        ("cooldown-period", "60"),
        ("scrape-interval", "500ms"),
        ("scaleup-gate-deadline", "600"),
    ];
    insta::assert_snapshot!("companions", yaml(&wanted(&[NEWER, &companions].concat())));
}

#[test]
fn to_zero_from_one_and_from_more() {
    let to_zero = [("scale-to-zero", "true"), ("wake-source", "demo-inferencepool-epp:9090")];
    let one = wanted(&[OLDER, &to_zero].concat());
    insta::assert_snapshot!("to-zero", yaml(&one));

    let more = wanted(&[OLDER, &to_zero, &[("min-replicas", "3"), ("cooldown-period", "600")]].concat());
    let fields = |object: &Value| {
        ["minReplicaCount", "idleReplicaCount", "cooldownPeriod", "initialCooldownPeriod"]
            .map(|field| object["spec"][field].as_u64())
    };
    assert_eq!(fields(&one), [Some(0), None, Some(300), Some(300)]);
    assert_eq!(fields(&more), [Some(3), Some(0), Some(600), Some(600)]);

    let secure = [("wake-source", "https://demo-inferencepool-epp:9090")];
    let secure = our_trigger(&wanted(&[OLDER, &secure].concat())).wake_source.unwrap();
    assert_eq!(secure.protocol, crate::config::trigger::Protocol::Https);
}

#[test]
fn the_page_is_where_the_annotations_say() {
    let place = [("metric-port", "8000"), ("metric-path", "/prometheus/metrics")];
    let page = our_trigger(&wanted(&[OLDER, &place].concat())).page;
    assert_eq!((page.port, page.path.as_str()), (Some(8000), "/prometheus/metrics"));
    let page = our_trigger(&wanted(OLDER)).page;
    assert_eq!((page.port, page.path.as_str()), (None, "/metrics"));
}

#[test]
fn a_metric_with_labels_is_written_as_it_is_read() {
    let name = r#"vllm:num_requests_waiting_by_reason{reason="capacity"}"#;
    let built = wanted(&[OLDER, &[("metricName", name)]].concat());
    assert_eq!(built["spec"]["triggers"][0]["metadata"]["metricName"], name);
    assert_eq!(our_trigger(&built).wanted_metrics()[0].name.as_str(), name);
}

#[test]
fn what_is_built_is_what_the_scaler_reads() {
    let older = our_trigger(&wanted(OLDER));
    assert_eq!(older.metric_specs()[0].name, "vllm:num_requests_waiting");
    let newer = our_trigger(&wanted(NEWER));
    let crate::config::annotations::Metrics::Policy(policy) = spec(NEWER).annotations.metrics else {
        panic!()
    };
    assert_eq!(newer.rule, crate::config::trigger::Rule::Policy(policy));
}
