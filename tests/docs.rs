//! What the documentation shows must work, and what works must be documented.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, time::Duration};

use scaler_core::{
    check::{Assumptions, check},
    config::{
        annotations,
        trigger::{self, Trigger},
    },
    decision::warning::{Stuck, Trouble},
    names::MetricName,
    page::usage::{Misuse, Nature, Usage},
};
use serde_json::Value;

fn page() -> String {
    fs::read_to_string("docs/annotations.md").unwrap()
}

/// The YAML blocks of docs/annotations.md that show an object of `kind`: at least one.
fn examples(kind: &str) -> Vec<String> {
    let shown = examples_in(&page(), kind);
    assert!(!shown.is_empty(), "no example of a {kind}");
    shown
}

fn examples_in(page: &str, kind: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.contains(&format!("\nkind: {kind}\n"))).map(str::to_owned).collect()
}

#[test]
fn every_example_of_annotations_is_good() {
    let assumptions = Assumptions { nodes_per_replica: 1, scaler_address: "scaler:1".to_owned() };
    for example in [examples("InferenceSet"), examples("MultiRoleInference")].concat() {
        let checked = check(&example, &assumptions);
        let findings: Vec<String> = checked.findings.iter().map(ToString::to_string).collect();
        // What a file can't say: whether something would wake the model.
        if example.contains("scale-to-zero") {
            assert!(
                findings.len() == 1 && findings[0].contains("once the wake-up source was read"),
                "{findings:?}"
            );
        } else {
            assert_eq!(findings, [""; 0], "{example}");
        }
        assert!(!checked.objects.is_empty(), "{example}");
    }
}

/// What KAITO's own definitions of its kinds require.
#[test]
fn every_example_is_one_that_kaitos_api_takes() {
    let readme = fs::read_to_string("README.md").unwrap();
    for (kind, required) in [
        ("InferenceSet", &["/spec/labelSelector", "/spec/template/inference"][..]),
        ("MultiRoleInference", &["/spec/labelSelector", "/spec/model", "/spec/roles"]),
    ] {
        for example in [examples(kind), examples_in(&readme, kind)].concat() {
            let object: Value = serde_saphyr::from_str(&example).unwrap();
            for field in required {
                assert!(object.pointer(field).is_some(), "no {field} in: {example}");
            }
        }
    }
}

#[test]
fn the_example_of_a_trigger_is_good() {
    for example in examples("ScaledObject") {
        let object: Value = serde_saphyr::from_str(&example).unwrap();
        let metadata = object["spec"]["triggers"][0]["metadata"].as_object().unwrap();
        let texts = metadata.iter().map(|(key, text)| (key.as_str(), text.as_str().expect("text")));
        Trigger::parse(texts, None).unwrap();
    }
}

#[test]
fn every_event_on_a_scaled_object_has_its_row() {
    let page = page();
    let stuck = Stuck { pods: Vec::new(), not_created: 1, deadline: Duration::from_secs(900) };
    let metric = MetricName::parse("my_total").unwrap();
    let misuse = Misuse { metric, nature: Nature::Counter, usage: Usage::Level };
    for trouble in [Trouble::WakeNotHonoured, Trouble::ReplicaStuck(stuck), Trouble::MetricMisused(misuse)] {
        let reason = trouble.reason();
        assert!(page.contains(&format!("\n| `{reason}` |")), "{reason} is not documented");
    }
}

#[test]
fn every_annotation_and_every_key_has_its_row() {
    let page = page();
    // What the scaler writes on a ScaledObject; nobody sets it.
    let annotations = annotations::KEYS.iter().filter(|key| **key != "managed-by");
    for key in annotations.chain(trigger::KEYS) {
        assert!(page.contains(&format!("\n| `{key}` |")), "{key} is not documented");
    }
}
