use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    config::{
        annotations::{Decision, Facts, ScalingSpec, Source, Wake, decide},
        trigger::Trigger,
    },
    wake::Readability,
};

const ADDRESS: &str = "keda-kaito-scaler-svc.keda.svc.cluster.local:10450";

fn owner() -> Owner {
    Owner {
        key: InferenceSetKey::new("team-a", "demo"),
        uid: "uid-of-demo".to_owned(),
        api_version: "kaito.sh/v1beta1".to_owned(),
    }
}

const OLDER: &[(&str, &str)] = &[("threshold", "10"), ("max-replicas", "5")];
const NEWER: &[(&str, &str)] = &[
    (
        "metrics",
        "- {name: 'vllm:num_requests_waiting', type: gauge, upthreshold: 10, downthreshold: 1}
- {name: 'vllm:request_queue_time_seconds', type: histogram, upthreshold: 30, downthreshold: 1}",
    ),
    ("max-replicas", "5"),
];

fn spec(annotations: &[(&str, &str)]) -> ScalingSpec {
    let prefixed: Vec<(String, &str)> = [("auto-provision", "true")]
        .iter()
        .chain(annotations)
        .map(|(key, text)| (format!("scaledobject.kaito.sh/{key}"), *text))
        .collect();
    let annotations = prefixed.iter().map(|(key, text)| (key.as_str(), *text));
    let facts = Facts { wake: Wake::Tried(Readability::Readable), ..Facts::default() };
    match decide(Source::InferenceSet, annotations, &facts) {
        Decision::Provision { spec, .. } => spec,
        other => panic!("{other:?}"),
    }
}

fn wanted(annotations: &[(&str, &str)]) -> Value {
    build(&owner(), &spec(annotations), Reach { scaler_address: ADDRESS, certificates: None })
}

fn yaml(object: &Value) -> String {
    serde_saphyr::to_string(object).unwrap()
}

mod build_tests;
mod hpa;
mod plan_tests;

/// The metadata of the trigger that is built must be what the scaler itself reads.
fn our_trigger(object: &Value) -> Trigger {
    let trigger = &object["spec"]["triggers"][0];
    assert_eq!(trigger["name"], TRIGGER_NAME);
    let metadata = trigger["metadata"].as_object().unwrap();
    Trigger::parse(metadata.iter().map(|(key, text)| (key.as_str(), text.as_str().unwrap())), None).unwrap()
}
