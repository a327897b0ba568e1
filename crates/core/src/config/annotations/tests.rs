use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    config::trigger::{Combine, PolicyKind, PolicyMetric, policy},
    wake::{Obstacle, Readability},
};

/// What becomes of an InferenceSet with these annotations besides `auto-provision: "true"`.
fn decided(annotations: &[(&str, &str)], facts: &Facts) -> Decision {
    from(Source::InferenceSet, annotations, facts)
}

fn from(source: Source, annotations: &[(&str, &str)], facts: &Facts) -> Decision {
    let mut prefixed = BTreeMap::from([(format!("{}auto-provision", source.prefix()), "true")]);
    for (key, text) in annotations {
        prefixed.insert(format!("{}{key}", source.prefix()), text);
    }
    decide(source, prefixed.iter().map(|(key, text)| (key.as_str(), *text)), facts)
}

fn with_limit(node_count_limit: u32, nodes_per_replica: Option<u32>) -> Facts {
    Facts { node_count_limit, nodes_per_replica, ..Facts::default() }
}

fn spec(annotations: &[(&str, &str)]) -> ScalingSpec {
    match decided(annotations, &with_limit(10, Some(1))) {
        Decision::Provision { spec, warnings } if warnings.is_empty() => spec,
        other => panic!("{other:?}"),
    }
}

/// Everything that is wrong, without the prefix.
fn problems(annotations: &[(&str, &str)]) -> String {
    match decided(annotations, &with_limit(10, Some(1))) {
        Decision::Refused(refusals) => match refusals.as_slice() {
            [refusal @ Refusal::InvalidConfig(_)] => refusal.to_string().replace(PREFIX, ""),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

const METRICS: &str = "
- name: vllm:num_requests_waiting
  type: gauge
  upthreshold: 10
  downthreshold: '1'
- NAME: vllm:request_queue_time_seconds
  type: Histogram
  source: modelpod
  upThreshold: 30.5
  downThreshold: 1
  metricCacheWindow: 60
  quantile: 0.9
";

#[test]
fn the_older_family() {
    let older = |metric: &str, threshold: f64| {
        let metrics = Metrics::Total { metric: MetricName::parse(metric).unwrap(), threshold };
        Annotations {
            metrics,
            min_replicas: 1,
            max_replicas: None,
            behavior: Behavior {
                up: Steps { window: 60, tolerance: 0.1, pods: 1, period: 300 },
                down: Steps { window: 300, tolerance: 0.5, pods: 1, period: 600 },
            },
            polling_interval: 15,
            cooldown_period: None,
            scrape_interval: None,
            metric_port: None,
            metric_path: None,
            in_flight_deadline: None,
            scale_to_zero: false,
            wake_source: None,
        }
    };
    assert_eq!(spec(&[("threshold", "10")]).annotations, older("vllm:num_requests_waiting", 10.0));
    let named = [("threshold", "2.5"), ("metricName", "vllm:num_requests_running")];
    assert_eq!(spec(&named).annotations, older("vllm:num_requests_running", 2.5));
}

#[test]
fn the_newer_family_in_yaml_and_json_quoted_or_not() {
    let metrics = vec![
        PolicyMetric {
            name: MetricName::parse("vllm:num_requests_waiting").unwrap(),
            kind: PolicyKind::Gauge,
            up_threshold: 10.0,
            down_threshold: 1.0,
        },
        PolicyMetric {
            name: MetricName::parse("vllm:request_queue_time_seconds").unwrap(),
            kind: PolicyKind::Histogram { window: Duration::from_secs(60), quantile: Some(0.9) },
            up_threshold: 30.5,
            down_threshold: 1.0,
        },
    ];
    let json = policy::to_json(&metrics);
    for text in [METRICS, &json] {
        let spec = spec(&[("metrics", text), ("combinepolicy", "or")]);
        let policy = Policy { combine: Combine::Or, metrics: metrics.clone() };
        assert_eq!(spec.annotations.metrics, Metrics::Policy(policy), "{text}");
        assert_eq!(
            spec.annotations.behavior.down,
            Steps { window: 300, tolerance: 0.1, pods: 1, period: 300 },
            "{text}"
        );
    }
}

#[test]
fn a_problem_names_its_annotation_what_it_holds_and_what_is_allowed() {
    for (key, text, message) in [
        (
            "threshold",
            "",
            "threshold is missing: it must be a number above 0 (or else metrics a list of metrics)",
        ),
        ("threshold", "ten", r#"threshold is "ten", but must be a number above 0"#),
        ("threshold", "0", r#"threshold is "0", but must be a number above 0"#),
        ("max-replicas", "1", r#"max-replicas is "1", but must be a whole number from 2 to 2147483647"#),
        (
            "max-replicas",
            "five",
            r#"max-replicas is "five", but must be a whole number from 2 to 2147483647"#,
        ),
        ("min-replicas", "x", r#"min-replicas is "x", but must be a whole number"#),
        ("min-replicas", "2147483648", r#"min-replicas is "2147483648", but must be a whole number"#),
        (
            "evaluationwindow",
            "3601",
            r#"evaluationwindow is "3601", but must be a whole number from 0 to 3600"#,
        ),
        ("scaleupcooldown", "0", r#"scaleupcooldown is "0", but must be a whole number from 1 to 1800"#),
        (
            "scaledowncooldown",
            "1801",
            r#"scaledowncooldown is "1801", but must be a whole number from 1 to 1800"#,
        ),
        (
            "scale-up-tolerance",
            "1",
            r#"scale-up-tolerance is "1", but must be a number not below 0 and below 1"#,
        ),
        ("scale-up-pods", "0", r#"scale-up-pods is "0", but must be a whole number from 1 to 2147483647"#),
        ("scale-to-zero", "yes", r#"scale-to-zero is "yes", but must be true or false"#),
        ("auto-provision", "True", r#"auto-provision is "True", but must be true or false"#),
        (
            "wake-source",
            "epp.other:9090",
            r#"wake-source is "epp.other:9090", but must be SERVICE:PORT or https://SERVICE:PORT, a Service in the InferenceSet's namespace and its metrics port"#,
        ),
        (
            "scrape-interval",
            "10ms",
            r#"scrape-interval is "10ms", but must be a duration from 100ms to 1m, such as 3s, 500ms or 1m30s (a whole number is seconds)"#,
        ),
        ("metric-port", "0", r#"metric-port is "0", but must be a port from 1 to 65535"#),
        ("metric-path", "//evil", r#"metric-path is "//evil", but must be a path that starts with one /"#),
        ("combinepolicy", "AND", "combinepolicy makes no sense here: it needs the annotation metrics"),
        ("max-replica", "3", "max-replica is not known: did you mean max-replicas?"),
        ("metricname", "x", "metricname is not known: did you mean metricName?"),
    ] {
        assert_eq!(problems(&[("threshold", "10"), (key, text)]), message, "{key}: {text}");
    }
    assert_eq!(
        problems(&[("threshold", "80"), ("metricName", "vllm:kv_cache_usage_perc")]),
        r#"threshold is "80", but must be at most 1: vllm:kv_cache_usage_perc goes from 0 to 1, so that 80% is 0.8"#
    );
}

#[test]
fn a_list_of_metrics_has_its_own_problems() {
    for (text, message) in [
        ("[]", r#"metrics is "[]", but must be a list of at least one metric"#),
        ("vllm:x", r#"metrics is "\"vllm:x\"", but must be a list of at least one metric"#),
        (
            "- name: a\n  type: gauge\n  upthreshold: 1\n  downthreshold: 2",
            r#"metrics[0].downthreshold is "2", but must be a number not above upthreshold (1)"#,
        ),
        (
            "- {name: a, type: gauge, upthreshold: 1, downthreshold: 0, metriccachewindow: 60}",
            "metrics[0].metriccachewindow makes no sense here: a gauge has none; it needs type histogram",
        ),
    ] {
        assert_eq!(problems(&[("metrics", text)]), message, "{text}");
    }
    for (text, line) in [("- name: a\n  type: [", "line 2"), ("- {name: a, upthreshold: .nan}", "line 1")] {
        let problems = problems(&[("metrics", text)]);
        assert!(problems.contains(line) && problems.contains("a YAML or JSON list of metrics"), "{problems}");
    }
    assert!(problems(&[("metrics", METRICS), ("scale-down-tolerance", "0.5")]).contains("below 0.5"));
}

#[test]
fn every_problem_is_reported_at_once() {
    let problems = problems(&[
        ("threshold", "x"),
        ("max-replicas", "0"),
        ("scaleupcooldown", "0"),
        ("min-replica", "1"),
    ]);
    for key in ["threshold is", "max-replicas is", "scaleupcooldown is", "min-replica is"] {
        assert!(problems.contains(key), "{problems}");
    }
}

#[test]
fn both_families_together_are_the_newer_with_a_warning() {
    let annotations = [("metrics", METRICS), ("threshold", "no number"), ("metricName", "x")];
    let Decision::Provision { spec, warnings } = decided(&annotations, &with_limit(10, Some(1))) else {
        panic!()
    };
    assert!(matches!(spec.annotations.metrics, Metrics::Policy(_)));
    let warnings: Vec<String> =
        warnings.iter().map(|warning| warning.to_string().replace(PREFIX, "")).collect();
    assert_eq!(
        warnings,
        [
            "metrics is used; metricName stands there too and is ignored",
            "metrics is used; threshold stands there too and is ignored"
        ]
    );
}

#[test]
fn off_is_off_whatever_else_stands_there() {
    for off in ["false", "", "  "] {
        assert_eq!(decided(&[("auto-provision", off), ("threshold", "x")], &Facts::default()), Decision::Off);
    }
    assert_eq!(decide(Source::InferenceSet, [], &Facts::default()), Decision::Off);
    assert_eq!(decide(Source::InferenceSet, [("auto-provision", "true")], &Facts::default()), Decision::Off);
}

#[test]
fn how_far_to_scale() {
    let to = |max| Ok(Replicas { min: 1, max, to_zero: false });
    let range = |min, max| {
        Err(format!(
            "InvalidReplicaRange: min-replicas is {min}, above the {max} replicas that are possible at most"
        ))
    };
    let none = "NoReplicaLimit: how far to scale is not known: set max-replicas, or spec.nodeCountLimit";
    for (annotations, limit, nodes, expected) in [
        (vec![], 10, Some(1), to(10)),
        (vec![], 10, Some(3), to(3)),
        (vec![], 2, Some(3), to(1)),
        (vec![("max-replicas", "5")], 0, None, to(5)),
        (vec![("max-replicas", "5")], 10, Some(1), to(5)),
        (vec![("max-replicas", "5")], 10, None, to(5)),
        (vec![("min-replicas", "0"), ("max-replicas", "5")], 0, None, to(5)),
        (vec![("min-replicas", "-7"), ("max-replicas", "5")], 0, None, to(5)),
        (
            vec![("min-replicas", "3"), ("max-replicas", "3")],
            0,
            None,
            Ok(Replicas { min: 3, max: 3, to_zero: false }),
        ),
        (vec![("min-replicas", "6"), ("max-replicas", "5")], 0, None, range(6, 5)),
        (vec![("min-replicas", "2")], 1, Some(1), range(2, 1)),
        (vec![], 0, Some(1), Err(none.to_owned())),
        (vec![], 0, None, Err(none.to_owned())),
        (vec![], 10, None, Err("waiting".to_owned())),
        (vec![], 10, Some(0), Err("waiting".to_owned())),
    ] {
        let annotations = [annotations, vec![("threshold", "10")]].concat();
        let decision = match decided(&annotations, &with_limit(limit, nodes)) {
            Decision::Provision { spec, warnings } if warnings.is_empty() => Ok(spec.replicas),
            Decision::Waiting => Err("waiting".to_owned()),
            Decision::Refused(refusals) => {
                let [refusal] = refusals.as_slice() else { panic!("{refusals:?}") };
                Err(format!("{}: {}", refusal.reason(), refusal.to_string().replace(PREFIX, "")))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(decision, expected, "{annotations:?}, limit {limit}, {nodes:?} nodes a replica");
    }
}

fn warnings(annotations: &[(&str, &str)], facts: &Facts) -> (ScalingSpec, Vec<(&'static str, String)>) {
    let annotations = [&[("threshold", "10"), ("max-replicas", "5")], annotations].concat();
    let Decision::Provision { spec, warnings } = decided(&annotations, facts) else { panic!() };
    let warnings = warnings.iter().map(|it| (it.reason(), it.to_string().replace(PREFIX, ""))).collect();
    (spec, warnings)
}

#[test]
fn more_replicas_than_nodes_is_possible_but_said() {
    let (spec, said) = warnings(&[], &with_limit(7, Some(2)));
    assert_eq!(spec.replicas.max, 5);
    assert_eq!(
        said,
        [(
            "MaxReplicasOutOfReach",
            "max-replicas is 5, but spec.nodeCountLimit leaves nodes for 3 only (a replica takes 2)"
                .to_owned()
        )]
    );
}

#[test]
fn to_zero_only_where_something_is_known_to_wake_it() {
    let unreadable = Readability::Unreadable(Obstacle("demo-epp:9090 answers 401".into()));
    let untried = |overdue| Wake::Untried { overdue };
    let event = |floor, why: &str| {
        vec![("NoWakeSource", format!("scale-to-zero is true, and the floor stays at {floor}: {why}"))]
    };
    let unanswered = "whether the wake-up source can be read is not known after a minute";
    // (known, goes to zero as it is, floor, said)
    let cases = [
        (Wake::Tried(Readability::Readable), false, true, vec![]),
        (Wake::Tried(Readability::Readable), true, true, vec![]),
        (Wake::Tried(unreadable.clone()), false, false, event(2, "demo-epp:9090 answers 401")),
        (Wake::Tried(unreadable), true, false, event(2, "demo-epp:9090 answers 401")),
        // Unknown is neither zero nor one: it stays as it is.
        (untried(false), false, false, vec![]),
        (untried(false), true, true, vec![]),
        (untried(true), false, false, event(2, unanswered)),
        (untried(true), true, true, event(0, unanswered)),
    ];
    for (wake, goes_to_zero, to_zero, expected) in cases {
        let facts = Facts { wake, goes_to_zero, ..Facts::default() };
        // To name a wake source is not to know that it can be read.
        for named in [&[][..], &[("wake-source", "epp:9090")]] {
            let (spec, said) =
                warnings(&[&[("scale-to-zero", "true"), ("min-replicas", "2")], named].concat(), &facts);
            assert_eq!(spec.replicas, Replicas { min: 2, max: 5, to_zero }, "{facts:?}");
            assert_eq!(said, expected, "{facts:?}");
        }
        let (spec, said) = warnings(&[("min-replicas", "2")], &facts);
        assert_eq!((spec.replicas.to_zero, said), (false, vec![]), "not opted in: {facts:?}");
    }
}

#[test]
fn what_the_replaced_scaler_took_is_clamped_once() {
    let adopting = Facts { adopting: true, ..Facts::default() };
    let annotations = [("evaluationwindow", "7200"), ("scaleupcooldown", "0"), ("scaledowncooldown", "1800")];
    let (spec, said) = warnings(&annotations, &adopting);
    let behavior = spec.annotations.behavior;
    assert_eq!((behavior.up.window, behavior.up.period, behavior.down.period), (3600, 1, 1800));
    assert_eq!(
        said,
        [
            (
                "AnnotationClamped",
                "evaluationwindow is 7200, which Kubernetes doesn't take in an HPA; 3600 is used".to_owned()
            ),
            (
                "AnnotationClamped",
                "scaleupcooldown is 0, which Kubernetes doesn't take in an HPA; 1 is used".to_owned()
            ),
        ]
    );
    // What it did not take either stays a problem.
    let still = [("threshold", "10"), ("evaluationwindow", "-1")];
    let Decision::Refused(refusals) = decided(&still, &adopting) else { panic!() };
    assert!(matches!(refusals.as_slice(), [Refusal::InvalidConfig(_)]));
}

#[test]
fn a_role_has_its_own_annotations() {
    assert_eq!(Role::Prefill.child_name("demo"), "demo-prefill");
    let annotations = [("threshold", "10"), ("max-replicas", "4")];
    for role in Role::ALL {
        let Decision::Provision { spec, .. } = from(Source::Role(role), &annotations, &Facts::default())
        else {
            panic!()
        };
        assert_eq!(spec.replicas.max, 4);
        // Each role reads its own alone.
        let other = Source::Role(Role::ALL[usize::from(role == Role::Prefill)]);
        let prefixed: Vec<String> =
            annotations.iter().map(|(key, _)| format!("{}{key}", Source::Role(role).prefix())).collect();
        assert_eq!(
            decide(other, prefixed.iter().map(|key| (key.as_str(), "10")), &Facts::default()),
            Decision::Off
        );
    }
    let broken = from(Source::Role(Role::Decode), &[("threshold", "x")], &Facts::default());
    let Decision::Refused(refusals) = broken else { panic!() };
    assert_eq!(
        refusals[0].to_string(),
        r#"scaledobject.kaito.sh/decode-threshold is "x", but must be a number above 0"#
    );
    let fixed = Facts { fixed_replicas: Some(2), ..Facts::default() };
    let reasons = |annotations: &[(&str, &str)]| match from(Source::Role(Role::Decode), annotations, &fixed) {
        Decision::Refused(refusals) => refusals.iter().map(Refusal::reason).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reasons(&annotations), ["ReplicasFixed"]);
    // Whatever else is wrong is told at once.
    assert_eq!(reasons(&[("threshold", "x")]), ["InvalidConfig", "ReplicasFixed"]);
    assert_eq!(reasons(&[("threshold", "10")]), ["ReplicasFixed", "NoReplicaLimit"]);
    assert_eq!(
        reasons(&[("threshold", "10"), ("min-replicas", "5"), ("max-replicas", "4")]),
        ["ReplicasFixed", "InvalidReplicaRange"]
    );
}

#[test]
fn a_slip_in_the_name_of_the_switch_is_a_problem_and_not_silence() {
    for slip in ["autoprovision", "autoProvision", "auto-provison", "auto_provision", "Auto-Provision"] {
        let key = format!("{PREFIX}{slip}");
        let read = |text| decide(Source::InferenceSet, [(key.as_str(), text)], &Facts::default());
        let Decision::Refused(refusals) = read("true") else { panic!("{slip}") };
        assert_eq!(
            refusals[0].to_string(),
            format!("{PREFIX}{slip} is not known: did you mean {PREFIX}auto-provision?")
        );
        assert_eq!(read("false"), Decision::Off, "what is meant to be off stays off");
    }
    let other = [("scaledobject.kaito.sh/note", "true"), ("other.example/autoprovision", "true")];
    assert_eq!(decide(Source::InferenceSet, other, &Facts::default()), Decision::Off);
}

#[test]
fn every_key_of_a_metric_that_nobody_reads_is_named() {
    let metrics =
        "[{name: m, type: gauge, upthreshold: 2, downthreshold: 1, weight: 3, quantle: 1, labels: {a: b}}]";
    let problems = problems(&[("metrics", metrics)]);
    for key in ["weight", "labels"] {
        assert!(
            problems.contains(&format!("metrics[0].{key} is not known: the keys here are name, type,")),
            "{problems}"
        );
    }
    assert!(problems.contains("metrics[0].quantle is not known: did you mean quantile?"), "{problems}");
}

proptest! {
    #[test]
    fn any_text_gives_a_decision(
        texts in prop::collection::btree_map(
            prop::sample::select(vec![
                "threshold", "metricName", "metrics", "combinepolicy", "min-replicas", "max-replicas",
                "evaluationwindow", "scaledowncooldown", "scale-up-tolerance", "scale-to-zero", "wake-source", "x",
            ]),
            prop_oneof![
                "\\PC{0,24}",
                "[-\\[\\]{}:,&*!| \\n\"'a-z0-9.]{0,40}",
                prop::sample::select(vec!["10", "0.5", METRICS, "true", "3", "AND"]).prop_map(str::to_owned),
            ],
            0..10,
        ),
        limit in 0_u32..12,
        nodes in proptest::option::of(0_u32..4),
        adopting in any::<bool>(),
    ) {
        let texts: Vec<(&str, &str)> = texts.iter().map(|(key, text)| (*key, text.as_str())).collect();
        let facts = Facts { adopting, ..with_limit(limit, nodes) };
        match decided(&texts, &facts) {
            Decision::Provision { spec, .. } => {
                prop_assert!(1 <= spec.replicas.min && spec.replicas.min <= spec.replicas.max);
                prop_assert!((1..=1800).contains(&spec.annotations.behavior.down.period));
            }
            Decision::Refused(refusals) => {
                prop_assert!(!refusals.is_empty() && refusals.iter().all(|it| !it.to_string().is_empty()));
            }
            Decision::Waiting | Decision::Off => {}
        }
    }
}

#[test]
fn a_metric_that_is_doubtful_is_made_and_said() {
    let said = |annotations: &[(&str, &str)]| warnings(annotations, &with_limit(10, Some(1))).1;
    assert_eq!(said(&[]), []);
    assert_eq!(
        said(&[("metricName", "vllm:num_request_waiting")]),
        [(
            "DoubtfulMetric",
            "vllm:num_request_waiting is no known metric of vLLM: did you mean vllm:num_requests_waiting?"
                .to_owned()
        )]
    );
    let list = "- {name: 'sglang:num_queue_req', type: gauge, upthreshold: 1, downthreshold: 0}";
    let reasons: Vec<_> = said(&[("metrics", list)]).into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, ["AnnotationIgnored", "DoubtfulMetric"]);
}

#[test]
fn labels_stand_in_annotations_as_in_triggers() {
    let name = r#"vllm:num_requests_waiting_by_reason{reason="capacity"}"#;
    let (spec, said) = warnings(&[("metricName", name)], &with_limit(10, Some(1)));
    assert_eq!(said, []);
    let metric = MetricName::parse(name).unwrap();
    assert_eq!(spec.annotations.metrics, Metrics::Total { metric: metric.clone(), threshold: 10.0 });
    let list = format!("- name: {name}\n  type: gauge\n  upthreshold: 5\n  downthreshold: 1\n");
    let (spec, _) = warnings(&[("metrics", &list)], &with_limit(10, Some(1)));
    let Metrics::Policy(policy) = spec.annotations.metrics else { panic!() };
    assert_eq!(policy.metrics[0].name, metric);
}
