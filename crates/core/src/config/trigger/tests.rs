mod metrics;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::problem::Problems;

/// A trigger that needs nothing more.
const PLAIN: &[(&str, &str)] = &[
    ("inferenceSetName", "demo"),
    ("inferenceSetNamespace", "team-a"),
    ("metricName", "vllm:num_requests_waiting"),
    ("threshold", "10"),
];

/// What becomes of the plain trigger with some keys changed; an empty text takes a key away.
fn with(changes: &[(&str, &str)]) -> Result<Trigger, Problems> {
    let metadata: BTreeMap<_, _> = PLAIN.iter().chain(changes).copied().collect();
    Trigger::parse(metadata, None)
}

fn plain() -> Trigger {
    with(&[]).unwrap()
}

fn metric(name: &str) -> MetricName {
    MetricName::parse(name).unwrap()
}

fn single(name: &str, threshold: f64, aggregation: Aggregation) -> Rule {
    Rule::Single { metric: metric(name), threshold, aggregation }
}

const POLICY: &str = r#"[
    {"name": "vllm:num_requests_waiting", "type": "gauge", "upthreshold": 10, "downthreshold": 1},
    {"name": "vllm:request_queue_time_seconds", "type": "histogram", "upthreshold": "30", "downthreshold": 1,
     "metriccachewindow": 60, "quantile": 0.9}
]"#;

fn policy_with(changes: &[(&str, &str)]) -> Result<Trigger, Problems> {
    let policy = [("aggregation", "policy"), ("policy", POLICY), ("metricName", ""), ("threshold", "")];
    with(&[&policy, changes].concat())
}

#[test]
fn absent_keys_take_their_defaults() {
    assert_eq!(
        plain(),
        Trigger {
            inference_set: InferenceSetKey::new("team-a", "demo"),
            page: PageSource::default(),
            rule: single("vllm:num_requests_waiting", 10.0, Aggregation::Sum),
            scrape_interval: Duration::from_secs(1),
            in_flight_deadline: Duration::from_secs(900),
            hold_while_in_flight: false,
            activation: ActivationRule { threshold: 0.0, hold: Duration::from_secs(30) },
            wake_source: None,
            wake_replicas: 1,
        }
    );
}

#[test]
fn every_key_is_read() {
    let trigger = with(&[
        ("metricProtocol", "HTTPS"),
        ("metricPort", "9100"),
        ("metricPath", "/stats/prometheus"),
        ("metricSource", "modelpod"),
        ("scrapeTimeout", "500ms"),
        ("scrapeInterval", "1m"),
        ("inFlightDeadline", "600"),
        ("holdWhileInFlight", "True"),
        ("activationThreshold", "2.5"),
        ("activationHold", "1m30s"),
        ("wakeSource", "demo-inferencepool-epp:9090"),
        ("wakeReplicas", "3"),
        ("threshold", " 1e1 "),
    ])
    .unwrap();
    assert_eq!(
        trigger,
        Trigger {
            page: PageSource {
                protocol: Protocol::Https,
                port: Some(9100),
                path: "/stats/prometheus".to_owned(),
                timeout: Duration::from_millis(500),
            },
            scrape_interval: Duration::from_secs(60),
            in_flight_deadline: Duration::from_secs(600),
            hold_while_in_flight: true,
            activation: ActivationRule { threshold: 2.5, hold: Duration::from_secs(90) },
            wake_source: Some(WakeSource {
                protocol: Protocol::Http,
                service: "demo-inferencepool-epp".to_owned(),
                port: 9090,
            }),
            wake_replicas: 3,
            ..plain()
        }
    );
}

#[test]
fn port_80_of_the_old_contract_is_the_pods_own_port() {
    assert_eq!(with(&[("metricPort", "80")]).unwrap(), plain());
    assert_eq!(with(&[("metricPort", "5000")]).unwrap().page.port, Some(5000));
}

#[test]
fn each_aggregation_has_its_own_keys() {
    let window = Duration::from_secs(300);
    let a_minute = Duration::from_secs(60);
    for (changes, expected) in [
        (vec![("aggregation", "sum")], Aggregation::Sum),
        (vec![("aggregation", "SUM")], Aggregation::Sum),
        (vec![("aggregation", "service-avg")], Aggregation::ServiceAvg),
        (vec![("aggregation", "max")], Aggregation::Max),
        (vec![("aggregation", "gate")], Aggregation::Gate),
        (vec![("aggregation", "windowed-avg")], Aggregation::WindowedAvg { window }),
        (
            vec![("aggregation", "windowed-avg"), ("metricCacheWindow", "60")],
            Aggregation::WindowedAvg { window: a_minute },
        ),
        (vec![("aggregation", "quantile")], Aggregation::Quantile { quantile: 0.95, window }),
        (
            vec![("aggregation", "quantile"), ("quantile", "1"), ("metricCacheWindow", "1m")],
            Aggregation::Quantile { quantile: 1.0, window: a_minute },
        ),
    ] {
        let rule = single("vllm:num_requests_waiting", 10.0, expected);
        assert_eq!(with(&changes).map(|trigger| trigger.rule), Ok(rule), "{changes:?}");
    }
}

#[test]
fn only_a_total_needs_a_threshold() {
    for aggregation in ["service-avg", "max", "windowed-avg", "quantile", "gate"] {
        let trigger = with(&[("aggregation", aggregation), ("threshold", "")]).unwrap();
        let spec = MetricSpec { name: "vllm:num_requests_waiting".to_owned(), target: 1.0 };
        assert_eq!(trigger.metric_specs(), [spec], "{aggregation}");
    }
    for changes in [vec![("threshold", "")], vec![("threshold", ""), ("aggregation", "sum")]] {
        let problems = with(&changes).unwrap_err().to_string();
        assert!(problems.starts_with("threshold is missing"), "{problems}");
    }
}

#[test]
fn the_requested_metric_wins() {
    let metadata = || PLAIN.iter().copied();
    let name = |trigger: Trigger| trigger.metric_specs()[0].name.clone();
    assert_eq!(name(Trigger::parse(metadata(), Some("vllm:x")).unwrap()), "vllm:x");
    assert_eq!(name(Trigger::parse(metadata(), Some("")).unwrap()), "vllm:num_requests_waiting");
    let without = || metadata().filter(|(key, _)| *key != "metricName");
    assert_eq!(name(Trigger::parse(without(), Some("vllm:x")).unwrap()), "vllm:x");
    assert_eq!(
        Trigger::parse(metadata(), Some("a b")).unwrap_err().to_string(),
        "the requested metricName is \"a b\", but must be a metric name: letters, digits, _ and :, not \
         starting with a digit"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn a_problem_names_its_key_what_it_held_and_what_is_allowed() {
    for (key, held, message) in [
        ("inferenceSetName", "", "inferenceSetName is missing: it must be the name of the InferenceSet"),
        (
            "inferenceSetNamespace",
            "",
            "inferenceSetNamespace is missing: it must be the namespace of the InferenceSet",
        ),
        (
            "inferenceSetName",
            "Demo/../x",
            r#"inferenceSetName is "Demo/../x", but must be the name of the InferenceSet: lower-case letters, digits and -"#,
        ),
        (
            "metricName",
            "",
            "metricName is missing: it must be the name of a metric, such as vllm:num_requests_waiting",
        ),
        (
            "metricName",
            "vllm:num requests",
            r#"metricName is "vllm:num requests", but must be a metric name: letters, digits, _ and :, not starting with a digit"#,
        ),
        (
            "threshold",
            "",
            "threshold is missing: it must be the total per replica to aim at, a number above 0",
        ),
        ("threshold", "ten", r#"threshold is "ten", but must be a number above 0"#),
        ("threshold", "NaN", r#"threshold is "NaN", but must be a number above 0"#),
        ("threshold", "inf", r#"threshold is "inf", but must be a number above 0"#),
        ("threshold", "0", r#"threshold is "0", but must be a number above 0"#),
        ("threshold", "-1", r#"threshold is "-1", but must be a number above 0"#),
        (
            "aggregation",
            "service-average",
            r#"aggregation is "service-average", but must be one of sum, service-avg, max, windowed-avg, quantile, gate, policy"#,
        ),
        (
            "aggregation",
            "serviceavg",
            r#"aggregation is "serviceavg", but must be one of sum, service-avg, max, windowed-avg, quantile, gate, policy (did you mean service-avg?)"#,
        ),
        ("metricSource", "prometheus", r#"metricSource is "prometheus", but must be one of modelpod"#),
        ("metricProtocol", "ftp", r#"metricProtocol is "ftp", but must be one of http, https"#),
        ("metricPort", "0", r#"metricPort is "0", but must be a port from 1 to 65535"#),
        ("metricPort", "65536", r#"metricPort is "65536", but must be a port from 1 to 65535"#),
        ("metricPath", "metrics", r#"metricPath is "metrics", but must be a path that starts with one /"#),
        ("metricPath", "//evil", r#"metricPath is "//evil", but must be a path that starts with one /"#),
        ("metricPath", "/a b", r#"metricPath is "/a b", but must be a path that starts with one /"#),
        (
            "scrapeTimeout",
            "3 seconds",
            r#"scrapeTimeout is "3 seconds", but must be a duration from 1ms to 1m, such as 3s, 500ms or 1m30s (a whole number is seconds)"#,
        ),
        (
            "scrapeInterval",
            "99ms",
            r#"scrapeInterval is "99ms", but must be a duration from 100ms to 1m, such as 3s, 500ms or 1m30s (a whole number is seconds)"#,
        ),
        (
            "scrapeInterval",
            "61s",
            r#"scrapeInterval is "61s", but must be a duration from 100ms to 1m, such as 3s, 500ms or 1m30s (a whole number is seconds)"#,
        ),
        (
            "inFlightDeadline",
            "-1s",
            r#"inFlightDeadline is "-1s", but must be a duration from 0s to 24h, such as 3s, 500ms or 1m30s (a whole number is seconds)"#,
        ),
        (
            "metricCacheWindow",
            "0",
            r#"metricCacheWindow is "0", but must be a duration from 1s to 24h, such as 3s, 500ms or 1m30s (a whole number is seconds)"#,
        ),
        (
            "activationHold",
            "soon",
            r#"activationHold is "soon", but must be a duration from 0s to 24h, such as 3s, 500ms or 1m30s (a whole number is seconds)"#,
        ),
        ("activationThreshold", "-1", r#"activationThreshold is "-1", but must be a number not below 0"#),
        ("holdWhileInFlight", "yes", r#"holdWhileInFlight is "yes", but must be true or false"#),
        (
            "wakeSource",
            "other.ns.svc:9090",
            r#"wakeSource is "other.ns.svc:9090", but must be SERVICE:PORT or https://SERVICE:PORT, a Service in the InferenceSet's namespace and its metrics port"#,
        ),
        (
            "wakeSource",
            "epp",
            r#"wakeSource is "epp", but must be SERVICE:PORT or https://SERVICE:PORT, a Service in the InferenceSet's namespace and its metrics port"#,
        ),
        ("quantile", "0.9", "quantile makes no sense here: it needs aggregation quantile"),
        ("policy", "[]", "policy makes no sense here: it needs aggregation policy"),
        ("combinePolicy", "OR", "combinePolicy makes no sense here: it needs aggregation policy"),
        ("treshold", "3", "treshold is not known: did you mean threshold?"),
        ("metricname", "x", "metricname is not known: did you mean metricName?"),
        ("scrape-interval", "1s", "scrape-interval is not known: did you mean scrapeInterval?"),
        ("scaler_address", "x", "scaler_address is not known: did you mean scalerAddress?"),
    ] {
        let problems = with(&[(key, held)]).unwrap_err();
        assert_eq!(problems.to_string(), message, "{key}={held}");
        assert!(problems.0[0].key.contains(key));
    }
}

#[test]
fn keys_that_make_no_sense_together_are_refused() {
    for (changes, message) in [
        (
            vec![("aggregation", "quantile"), ("quantile", "95")],
            r#"quantile is "95", but must be a number above 0 and at most 1, such as 0.95"#,
        ),
        (
            vec![("aggregation", "quantile"), ("quantile", "0")],
            r#"quantile is "0", but must be a number above 0 and at most 1, such as 0.95"#,
        ),
        (
            vec![("aggregation", "gate"), ("holdWhileInFlight", "true")],
            "holdWhileInFlight makes no sense here: it needs aggregation sum or policy",
        ),
        (
            vec![("metricName", "vllm:kv_cache_usage_perc"), ("threshold", "80")],
            r#"threshold is "80", but must be at most 1: vllm:kv_cache_usage_perc goes from 0 to 1, so that 80% is 0.8"#,
        ),
        (
            vec![("metricName", "sglang:token_usage"), ("threshold", "1.5")],
            r#"threshold is "1.5", but must be at most 1: sglang:token_usage goes from 0 to 1, so that 80% is 0.8"#,
        ),
    ] {
        assert_eq!(with(&changes).unwrap_err().to_string(), message, "{changes:?}");
    }
    for metric in ["trtllm_kv_cache_utilization", "vllm:gpu_cache_usage_perc", "ray_vllm_kv_cache_usage_perc"]
    {
        assert!(with(&[("metricName", metric), ("threshold", "1.01")]).is_err(), "{metric}");
        assert!(with(&[("metricName", metric), ("threshold", "1")]).is_ok(), "{metric}");
    }
}

#[test]
fn what_others_read_is_left_alone() {
    let trigger = with(&[
        ("scalerName", "anything"),
        ("scalerAddress", "x:1"),
        ("enableTLS", "true"),
        ("unsafeSsl", "false"),
        ("caCert", "x"),
        ("tlsClientCert", "x"),
        ("tlsClientKey", "x"),
        ("thresholdFromEnv", "X"),
        ("owner", "team-a"),
        ("holdWhileInFlight", "false"),
        ("metricCacheWindow", "60"),
    ]);
    assert_eq!(trigger, Ok(plain()));
}

#[test]
fn every_problem_is_reported_at_once() {
    let metadata =
        [("threshold", "ten"), ("metricPort", "x"), ("aggregation", "median"), ("metricPaht", "/")];
    let problems = Trigger::parse(metadata, None).unwrap_err();
    let keys: Vec<&str> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "inferenceSetNamespace",
            "inferenceSetName",
            "aggregation",
            "metricName",
            "threshold",
            "metricPort",
            "metricPaht"
        ]
    );
}

#[test]
fn a_policy_is_a_list_of_metrics() {
    let rule = policy_with(&[("combinePolicy", "or")]).unwrap().rule;
    let metrics = vec![
        PolicyMetric {
            name: metric("vllm:num_requests_waiting"),
            kind: PolicyKind::Gauge,
            up_threshold: 10.0,
            down_threshold: 1.0,
        },
        PolicyMetric {
            name: metric("vllm:request_queue_time_seconds"),
            kind: PolicyKind::Histogram { window: Duration::from_secs(60), quantile: Some(0.9) },
            up_threshold: 30.0,
            down_threshold: 1.0,
        },
    ];
    assert_eq!(rule, Rule::Policy(Policy { combine: Combine::Or, metrics: metrics.clone() }));
    let text = policy::to_json(&metrics);
    assert_eq!(policy_with(&[("combinePolicy", "OR"), ("policy", &text)]).unwrap().rule, rule);
}

#[test]
fn a_policy_entry_is_checked_like_everything_else() {
    for (entries, message) in [
        ("[]", r#"policy is "[]", but must be a list of at least one metric"#),
        ("{}", r#"policy is "{}", but must be a list of at least one metric"#),
        ("[", r#"policy is "[", but must be a JSON list of metrics"#),
        ("[1]", r#"policy[0] is "1", but must be a metric with its name and thresholds"#),
        (
            "[{}]",
            "policy[0].name is missing: it must be the name of a metric, such as vllm:num_requests_waiting; \
             policy[0].type is missing: it must be gauge or histogram; \
             policy[0].downthreshold is missing: it must be the number below which to scale down; \
             policy[0].upthreshold is missing: it must be the number above which to scale up",
        ),
        (
            r#"[{"name":"a","type":"gauge","upthreshold":1,"downthreshold":2}]"#,
            r#"policy[0].downthreshold is "2", but must be a number not above upthreshold (1)"#,
        ),
        (
            r#"[{"name":"a","type":"gauge","upthreshold":true,"downthreshold":0}]"#,
            r#"policy[0].upthreshold is "true", but must be a number"#,
        ),
        (
            r#"[{"name":"a","type":"counter","upthreshold":1,"downthreshold":0}]"#,
            r#"policy[0].type is "counter", but must be one of gauge, histogram"#,
        ),
        (
            r#"[{"name":"a","type":"gauge","upthreshold":1,"downthreshold":0,"metriccachewindow":60}]"#,
            "policy[0].metriccachewindow makes no sense here: a gauge has none; it needs type histogram",
        ),
        (
            r#"[{"name":"a","type":"gauge","upthreshold":1,"downthreshold":0,"Name":"b"}]"#,
            "policy[0].name makes no sense here: it stands there twice, in different capitals",
        ),
        (
            r#"[{"name":"a","type":"gauge","upthreshold":1,"downthreshold":0,"downtreshold":1}]"#,
            "policy[0].downtreshold is not known: did you mean downthreshold?",
        ),
        (
            r#"[{"name":"vllm:kv_cache_usage_perc","type":"gauge","upthreshold":80,"downthreshold":0.2}]"#,
            r#"policy[0].upthreshold is "80", but must be at most 1: vllm:kv_cache_usage_perc goes from 0 to 1, so that 80% is 0.8"#,
        ),
        (
            r#"[{"name":"a","type":"gauge","upthreshold":1,"downthreshold":0},
                {"name":"a","type":"gauge","upthreshold":1,"downthreshold":0}]"#,
            "policy[1].name makes no sense here: an earlier entry names a too",
        ),
    ] {
        assert_eq!(policy_with(&[("policy", entries)]).unwrap_err().to_string(), message, "{entries}");
    }
    let negative = r#"[{"name":"a","type":"gauge","upthreshold":0,"downthreshold":-1}]"#;
    assert!(policy_with(&[("policy", negative)]).is_ok());
    assert_eq!(
        policy_with(&[("policy", negative), ("combinePolicy", "MAX")]).unwrap_err().to_string(),
        r#"policy[0].upthreshold is "0", but must be a number above 0 where policies combine by MAX"#
    );
    for key in ["metricName", "threshold", "quantile", "metricCacheWindow"] {
        let problems = policy_with(&[(key, "1")]).unwrap_err().to_string();
        assert_eq!(
            problems,
            format!("{key} makes no sense here: with aggregation policy, each entry of policy has its own")
        );
    }
    assert_eq!(
        policy_with(&[("policy", "")]).unwrap_err().to_string(),
        "policy is missing: it must be a JSON list of metrics"
    );
}

#[test]
fn keda_is_told_one_metric_or_for_max_one_each() {
    let specs = |combine| -> Vec<(String, f64)> {
        let trigger = policy_with(&[("combinePolicy", combine)]).unwrap();
        trigger.metric_specs().into_iter().map(|spec| (spec.name, spec.target)).collect()
    };
    assert_eq!(plain().metric_specs().len(), 1);
    assert_eq!(specs("AND"), [("policy".to_owned(), 1.0)]);
    assert_eq!(specs("OR"), [("policy".to_owned(), 1.0)]);
    assert_eq!(
        specs("MAX"),
        [
            ("vllm:num_requests_waiting".to_owned(), 10.0),
            ("vllm:request_queue_time_seconds".to_owned(), 30.0)
        ]
    );
}

#[test]
fn a_page_is_read_for_what_the_rule_needs() {
    let shapes = |trigger: Trigger| -> Vec<Shape> {
        trigger.wanted_metrics().into_iter().map(|wanted| wanted.shape).collect()
    };
    let aggregation = |word| with(&[("aggregation", word)]).unwrap();
    assert_eq!(shapes(plain()), [Shape::Value]);
    assert_eq!(shapes(aggregation("max")), [Shape::Value]);
    assert_eq!(shapes(aggregation("windowed-avg")), [Shape::Histogram { buckets: false }]);
    assert_eq!(shapes(aggregation("quantile")), [Shape::Histogram { buckets: true }]);
    assert_eq!(shapes(aggregation("gate")), []);
    assert_eq!(shapes(policy_with(&[]).unwrap()), [Shape::Value, Shape::Histogram { buckets: true }]);
}

/// The triggers that earlier versions of the replaced scaler generated.
#[test]
fn triggers_in_use_keep_their_meaning() {
    let v0_3_3 = [
        ("scalerName", "keda-kaito-scaler"),
        ("threshold", "10"),
        ("inferenceSetName", "demo"),
        ("inferenceSetNamespace", "team-a"),
        ("scalerAddress", "keda-kaito-scaler-svc.keda.svc.cluster.local:10450"),
        ("metricName", "vllm:num_requests_waiting"),
        ("metricProtocol", "http"),
        ("metricPort", "80"),
        ("metricPath", "/metrics"),
        ("scrapeTimeout", "5s"),
    ];
    let mut expected = plain();
    expected.page.timeout = Duration::from_secs(5);
    assert_eq!(Trigger::parse(v0_3_3, None), Ok(expected));

    let address = ("scalerAddress", "keda-kaito-scaler-svc.keda.svc.cluster.local:10450");
    assert_eq!(with(&[address]), Ok(plain()), "v0.5.1");

    let v0_6_2 = |changes: &[(&str, &str)]| with(&[changes, &[("threshold", ""), address]].concat());
    let window = Duration::from_secs(300);
    assert_eq!(
        v0_6_2(&[("metricSource", "modelpod"), ("aggregation", "service-avg")]).map(|trigger| trigger.rule),
        Ok(single("vllm:num_requests_waiting", 1.0, Aggregation::ServiceAvg))
    );
    assert_eq!(
        v0_6_2(&[
            ("metricName", "vllm:request_queue_time_seconds"),
            ("metricSource", "modelpod"),
            ("aggregation", "windowed-avg"),
            ("metricCacheWindow", "300"),
        ])
        .map(|trigger| trigger.rule),
        Ok(single("vllm:request_queue_time_seconds", 1.0, Aggregation::WindowedAvg { window }))
    );
    assert_eq!(
        v0_6_2(&[("metricName", "readiness_gate"), ("aggregation", "gate")]).map(|trigger| trigger.rule),
        Ok(single("readiness_gate", 1.0, Aggregation::Gate))
    );
}

#[test]
fn arguments_are_keys_with_values() {
    let metadata = parse_arguments(["a=1", "b=x=y", "c="]).unwrap();
    assert_eq!(metadata, BTreeMap::from([("a", "1"), ("b", "x=y"), ("c", "")]));
    assert_eq!(
        parse_arguments(["a=1", "threshold", "=3", "a=2"]).unwrap_err().to_string(),
        "argument is \"threshold\", but must be KEY=VALUE; argument is \"=3\", but must be KEY=VALUE; \
         a makes no sense here: it was given before"
    );
}

#[test]
fn a_trigger_can_be_put_in_words() {
    insta::assert_snapshot!(
        with(&[("wakeSource", "epp:9090"), ("holdWhileInFlight", "true")]).unwrap().describe(),
        @r"
    InferenceSet  team-a/demo
    Scraped       vllm:num_requests_waiting, from http://POD:PORT/metrics every 1s, each within 3s
    Value         the total of vllm:num_requests_waiting over all replicas, those that can't be read filled in
    Target        10 per replica (metricType AverageValue)
    In flight     a replica that does not serve yet counts as on its way for 15m; no scale-up meanwhile
    Active        while requests (waiting, running, queued at the gateway, rejected in the last 30s) are more than 0; inactive after 30s without
    Woken by      Service epp in team-a, port 9090
    "
    );
    insta::assert_snapshot!(policy_with(&[]).unwrap().describe(), @r"
    InferenceSet  team-a/demo
    Scraped       vllm:num_requests_waiting, vllm:request_queue_time_seconds (histogram with buckets), from http://POD:PORT/metrics every 1s, each within 3s
    Metric        mean of vllm:num_requests_waiting: up above 10, down below 1
    Metric        0.9 quantile of vllm:request_queue_time_seconds over the last 1m: up above 30, down below 1
    Value         2 x replicas while every metric is above its up threshold and no replica is in flight,
                  0.5 x replicas while every metric is below its down threshold, else 1 x replicas
    Target        1 per replica (metricType AverageValue)
    In flight     a replica that does not serve yet counts as on its way for 15m
    Active        while requests (waiting, running, queued at the gateway, rejected in the last 30s) are more than 0; inactive after 30s without
    ");
    insta::assert_snapshot!(policy_with(&[("combinePolicy", "MAX")]).unwrap().describe(), @r"
    InferenceSet  team-a/demo
    Scraped       vllm:num_requests_waiting, vllm:request_queue_time_seconds (histogram with buckets), from http://POD:PORT/metrics every 1s, each within 3s
    Metric        mean of vllm:num_requests_waiting: target 10 per replica
    Metric        0.9 quantile of vllm:request_queue_time_seconds over the last 1m: target 30 per replica
    Value         one for each metric; KEDA follows the one that asks for most replicas
    In flight     a replica that does not serve yet counts as on its way for 15m
    Active        while requests (waiting, running, queued at the gateway, rejected in the last 30s) are more than 0; inactive after 30s without
    ");
    insta::assert_snapshot!(
        with(&[("aggregation", "quantile"), ("metricPort", "9"), ("metricProtocol", "https")])
            .unwrap()
            .describe(),
        @r"
    InferenceSet  team-a/demo
    Scraped       vllm:num_requests_waiting (histogram with buckets), from https://POD:9/metrics every 1s, each within 3s
    Value         the 0.95 quantile of what vllm:num_requests_waiting observed in the last 5m
    Target        10
    In flight     a replica that does not serve yet counts as on its way for 15m
    Active        while requests (waiting, running, queued at the gateway, rejected in the last 30s) are more than 0; inactive after 30s without
    "
    );
}

/// Metadata in which most keys and many values are real ones.
fn metadata() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key = prop_oneof![
        4 => prop::sample::select(vec![
            "inferenceSetName", "inferenceSetNamespace", "metricName", "threshold", "aggregation", "policy",
            "combinePolicy", "quantile", "metricCacheWindow", "scrapeInterval", "wakeSource", "metricPort",
            "metricPath", "activationHold",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
    ];
    let value = prop_oneof![
        "\\PC{0,20}",
        "[0-9.]{1,6}[a-z]{0,2}",
        prop::sample::select(vec![
            "demo",
            "team-a",
            "vllm:num_requests_waiting",
            "10",
            "policy",
            "sum",
            "quantile",
            POLICY,
            "[]",
            "5m",
            "[{\"name\": null}]",
            "[[]]",
            "epp:9090",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::btree_map(key, value, 0..16)
}

fn pairs(metadata: &BTreeMap<String, String>) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

proptest! {
    #[test]
    fn any_text_gives_one_answer_in_any_order(metadata in metadata(), requested in proptest::option::of("\\PC{0,12}")) {
        let parsed = Trigger::parse(pairs(&metadata), requested.as_deref());
        prop_assert_eq!(&parsed, &Trigger::parse(pairs(&metadata).rev(), requested.as_deref()));
        match parsed {
            Ok(trigger) => {
                for spec in trigger.metric_specs() {
                    prop_assert!(spec.target.is_finite() && spec.target > 0.0);
                }
                prop_assert!(!trigger.metric_specs().is_empty());
                prop_assert!(!trigger.describe().is_empty());
            }
            Err(problems) => prop_assert!(!problems.to_string().is_empty()),
        }
    }
}
