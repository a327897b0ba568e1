//! Which metrics a trigger may name, and as what.

use super::*;
use crate::config::annotations::{Decision, Facts, PREFIX, Refusal, Source, decide};

const CAPACITY: &str = r#"vllm:num_requests_waiting_by_reason{reason="capacity"}"#;

#[test]
fn a_metric_may_name_labels() {
    let trigger =
        with(&[("metricName", " vllm:num_requests_waiting_by_reason { reason='capacity' }")]).unwrap();
    assert_eq!(trigger.rule, single(CAPACITY, 10.0, Aggregation::Sum));
    assert_eq!(trigger.wanted_metrics(), [WantedMetric { name: metric(CAPACITY), shape: Shape::Value }]);
    // What KEDA is told of is a name of a metric; what people are shown is what they wrote.
    let told = "vllm:num_requests_waiting_by_reason-capacity-d24a3776";
    assert_eq!(trigger.metric_specs(), [MetricSpec { name: told.to_owned(), target: 10.0 }]);
    assert!(trigger.describe().contains(&format!("the total of {CAPACITY} over all replicas")));
    for (held, message) in [
        (
            "vllm:x{reason=capacity}",
            r#"metricName is "vllm:x{reason=capacity}", but must be a metric name with the value of the label reason in quotes, as in reason="value" (in quotes \\, \", \', \n and \t are escapes; `…` has none)"#,
        ),
        (
            r#"vllm:x{reason=~"("}"#,
            r#"metricName is "vllm:x{reason=~\"(\"}", but must be a metric name whose pattern for the label reason can be used: unclosed group"#,
        ),
    ] {
        assert_eq!(with(&[("metricName", held)]).unwrap_err().to_string(), message);
    }
}

#[test]
fn entries_of_a_policy_may_name_labels() {
    let entry =
        |name: &str| serde_json::json!({"name": name, "type": "gauge", "upthreshold": 1, "downthreshold": 0});
    let deferred = CAPACITY.replace("capacity", "deferred");
    let list = serde_json::json!([entry(CAPACITY), entry(&deferred)]).to_string();
    let trigger = policy_with(&[("policy", &list), ("combinePolicy", "MAX")]).unwrap();
    let Rule::Policy(policy) = &trigger.rule else { panic!() };
    assert_eq!(policy.metrics[1].name, metric(&deferred));
    let again =
        policy_with(&[("policy", &policy::to_json(&policy.metrics)), ("combinePolicy", "MAX")]).unwrap();
    assert_eq!(again, trigger, "it is written as it is read");
    let told: Vec<String> = trigger.metric_specs().into_iter().map(|spec| spec.name).collect();
    assert_ne!(told[0], told[1]);
    // The same labels in another order are the same metric.
    let twice = serde_json::json!([entry(r#"x{a="1",b="2"}"#), entry(r#"x{b="2",a="1"}"#)]).to_string();
    assert_eq!(
        policy_with(&[("policy", &twice)]).unwrap_err().to_string(),
        r#"policy[1].name makes no sense here: an earlier entry names x{a="1",b="2"} too"#
    );
}

#[test]
fn a_policy_has_a_bounded_number_of_metrics() {
    let list = |count: usize| {
        let entry = |n| serde_json::json!({"name": format!("m_{n}"), "type": "gauge", "upthreshold": 1, "downthreshold": 0});
        serde_json::Value::Array((0..count).map(entry).collect()).to_string()
    };
    assert!(policy_with(&[("policy", &list(policy::MOST_METRICS))]).is_ok());
    assert_eq!(
        policy_with(&[("policy", &list(policy::MOST_METRICS + 1))]).unwrap_err().to_string(),
        r#"policy is "65 metrics", but must be a list of at most 64 metrics"#
    );
    assert!(policy_with(&[("policy", &list(5_000))]).is_err());
}

/// Metrics that are no levels, and what is said of each.
const NO_LEVELS: &[(&str, &str)] = &[
    (
        "vllm:generation_tokens_total",
        "vllm:generation_tokens_total is a counter, which only grows: that is no level to scale on",
    ),
    (
        "vllm:lora_requests_info",
        "vllm:lora_requests_info is a point in time, in seconds since 1970: that is no level to scale on",
    ),
    ("vllm:cache_config_info", "vllm:cache_config_info is an info, always 1: that is no level to scale on"),
    ("vllm:engine_sleep_state", "vllm:engine_sleep_state is a state, 0 or 1: that is no level to scale on"),
    (
        "vllm:request_queue_time_seconds_count",
        "vllm:request_queue_time_seconds_count is a part of a histogram, which only grows: name \
         vllm:request_queue_time_seconds, with windowed-avg or quantile (in a list of metrics type histogram)",
    ),
    (
        "vllm:request_queue_time_seconds",
        "vllm:request_queue_time_seconds is a histogram: use windowed-avg or quantile (in a list of metrics type \
         histogram)",
    ),
];

#[test]
fn what_is_no_level_is_refused_alike_wherever_it_stands() {
    for (name, message) in NO_LEVELS {
        for aggregation in ["sum", "service-avg", "max"] {
            let problems =
                with(&[("metricName", name), ("aggregation", aggregation)]).unwrap_err().to_string();
            assert_eq!(problems, format!("metricName makes no sense here: {message}"), "{aggregation}");
        }
        // A gate reads no metric.
        assert!(with(&[("metricName", name), ("aggregation", "gate")]).is_ok());
        let list = format!(r#"[{{"name":"{name}","type":"gauge","upthreshold":1,"downthreshold":0}}]"#);
        let problems = policy_with(&[("policy", &list)]).unwrap_err().to_string();
        assert_eq!(problems, format!("policy[0].name makes no sense here: {message}"));

        let annotated = |pairs: &[(&str, &str)]| {
            let pairs = [&[("auto-provision", "true"), ("max-replicas", "5")], pairs].concat();
            let keys: Vec<_> = pairs.iter().map(|(key, text)| (format!("{PREFIX}{key}"), *text)).collect();
            let facts = Facts { nodes_per_replica: Some(1), ..Facts::default() };
            match decide(Source::InferenceSet, keys.iter().map(|(key, text)| (key.as_str(), *text)), &facts) {
                Decision::Refused(refusals) => match refusals.as_slice() {
                    [Refusal::InvalidConfig(problems)] => problems.to_string().replace(PREFIX, ""),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        };
        let problems = annotated(&[("metricName", name), ("threshold", "2000")]);
        assert_eq!(problems, format!("metricName makes no sense here: {message}"));
        let problems = annotated(&[("metrics", &list)]);
        assert_eq!(problems, format!("metrics[0].name makes no sense here: {message}"));
    }
    for aggregation in ["windowed-avg", "quantile"] {
        assert!(
            with(&[("metricName", "vllm:request_queue_time_seconds"), ("aggregation", aggregation)]).is_ok()
        );
    }
}

#[test]
fn doubts_are_no_problems() {
    let doubts = |changes: &[(&str, &str)]| -> Vec<String> {
        with(changes).unwrap().doubts().iter().map(ToString::to_string).collect()
    };
    assert_eq!(doubts(&[]), [""; 0]);
    assert_eq!(
        doubts(&[("metricName", "vllm:num_request_waiting")]),
        ["vllm:num_request_waiting is no known metric of vLLM: did you mean vllm:num_requests_waiting?"]
    );
    assert_eq!(doubts(&[("metricName", "vllm:num_request_waiting"), ("aggregation", "gate")]), [""; 0]);
    assert_eq!(
        doubts(&[("aggregation", "quantile")]),
        [
            "vllm:num_requests_waiting is a gauge, and windowed-avg and quantile (type histogram) need a histogram: \
          there will be no value"
        ]
    );
    let list = r#"[{"name":"vllm:num_requests_swapped","type":"gauge","upthreshold":1,"downthreshold":0},
        {"name":"vllm:num_requests_waiting","type":"gauge","upthreshold":1,"downthreshold":0}]"#;
    let trigger = policy_with(&[("policy", list)]).unwrap();
    let said: Vec<String> = trigger.doubts().iter().map(ToString::to_string).collect();
    assert_eq!(said, ["vLLM no longer has vllm:num_requests_swapped: there will be no value"]);
}
