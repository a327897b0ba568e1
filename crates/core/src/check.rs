//! What would be made of the InferenceSets in a file: for a pipeline that lints manifests
//! before they reach a cluster.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{names::InferenceSetKey, wake::Readability};
use crate::{
    config::annotations::{Decision, Facts, PREFIX, Refusal, Role, Source, Wake, decide},
    provision::{Owner, Reach, build},
};

/// What a cluster would know and a file doesn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumptions {
    /// The nodes that one replica takes.
    pub nodes_per_replica: u32,
    /// `HOST:PORT` of the scaler.
    pub scaler_address: String,
}

/// What was found in one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// The ScaledObjects that would be made, in the order of the file.
    pub objects: Vec<Value>,
    /// In the order of the file.
    pub findings: Vec<Finding>,
}

/// Something to be said about one place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Counted from 1.
    pub line: u64,
    pub weight: Weight,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing would be made.
    Problem,
    /// It works, but perhaps not as its author thinks.
    Warning,
    /// What was assumed, or passed over.
    Note,
}

impl Checked {
    #[must_use]
    pub fn has_problems(&self) -> bool {
        self.findings.iter().any(|finding| finding.weight == Weight::Problem)
    }

    /// The ScaledObjects as one stream of YAML documents.
    ///
    /// # Errors
    /// Never for what [`check`] makes; the serializer's interface has errors.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::SerializeError> {
        let documents: Vec<String> =
            self.objects.iter().map(serde_saphyr::to_string).collect::<Result<_, _>>()?;
        Ok(documents.join("---\n"))
    }

    fn find(&mut self, line: u64, weight: Weight, text: impl fmt::Display) {
        self.findings.push(Finding { line, weight, text: text.to_string() });
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Problem => "problem",
            Weight::Warning => "warning",
            Weight::Note => "note",
        };
        write!(f, "line {}: {weight}: {}", self.line, self.text)
    }
}

/// A Kubernetes object, as much of it as matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    metadata: Option<Spanned<Metadata>>,
    spec: Value,
    /// Those of a `List`, as `kubectl get` prints it.
    items: Vec<Document>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    /// Whatever is written there: an unquoted `true` is a mistake that gets its line.
    annotations: BTreeMap<String, Spanned<Value>>,
}

/// Reads a file of one or more YAML (or JSON) documents. Everything that is neither an
/// InferenceSet nor a `MultiRoleInference` is passed over.
#[must_use]
pub fn check(text: &str, assumptions: &Assumptions) -> Checked {
    let mut checked = Checked::default();
    let documents: Vec<Document> = match serde_saphyr::from_multiple(text) {
        Ok(documents) => documents,
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line());
            let reason = error.without_snippet().to_string();
            checked.find(line, Weight::Problem, reason.lines().next().unwrap_or_default());
            return checked;
        }
    };
    let found: usize =
        documents.iter().map(|document| check_document(document, assumptions, &mut checked)).sum();
    if found == 0 {
        checked.find(1, Weight::Note, "there is no InferenceSet here");
    }
    checked.findings.sort_by_key(|finding| finding.line);
    checked
}

/// Checks what `document` holds; gives the number of objects that have to do with us.
fn check_document(document: &Document, assumptions: &Assumptions, checked: &mut Checked) -> usize {
    let is_kaitos = document.api_version.starts_with("kaito.sh/");
    match (document.kind.as_str(), &document.metadata) {
        ("List" | "InferenceSetList", _) => {
            document.items.iter().map(|item| check_document(item, assumptions, checked)).sum()
        }
        ("InferenceSet", Some(metadata)) if is_kaitos => {
            let limit = document.spec["nodeCountLimit"].as_u64().and_then(|limit| u32::try_from(limit).ok());
            Check { metadata, assumptions, checked }.decide(
                Source::InferenceSet,
                &document.api_version,
                &metadata.value.name,
                &Facts { node_count_limit: limit.unwrap_or(0), ..Facts::default() },
            );
            1
        }
        ("MultiRoleInference", Some(metadata)) if is_kaitos => {
            for role in Role::ALL {
                let fixed_replicas = document.spec["roles"]
                    .as_array()
                    .and_then(|roles| roles.iter().find(|it| it["type"] == role.as_str()))
                    .and_then(|it| u32::try_from(it["replicas"].as_u64()?).ok());
                Check { metadata, assumptions, checked }.decide(
                    Source::Role(role),
                    "kaito.sh/v1beta1",
                    &role.child_name(&metadata.value.name),
                    &Facts { fixed_replicas, ..Facts::default() },
                );
            }
            1
        }
        _ => 0,
    }
}

/// The check of one object.
struct Check<'a> {
    metadata: &'a Spanned<Metadata>,
    assumptions: &'a Assumptions,
    checked: &'a mut Checked,
}

impl Check<'_> {
    fn decide(&mut self, source: Source, api_version: &str, name: &str, facts: &Facts) {
        let Some(annotations) = self.annotations() else { return };
        let facts = Facts {
            nodes_per_replica: Some(self.assumptions.nodes_per_replica),
            wake: Wake::Tried(Readability::Readable),
            ..facts.clone()
        };
        let line = self.metadata.referenced.line();
        match decide(source, annotations.iter().map(|(key, text)| (key.as_str(), text.as_str())), &facts) {
            Decision::Off => {
                self.checked.find(line, Weight::Note, format!("{name} doesn't ask for autoscaling"));
            }
            Decision::Waiting => self.checked.find(
                line,
                Weight::Problem,
                "how far to scale can't be told where a replica takes no node",
            ),
            Decision::Refused(Refusal::InvalidConfig(problems)) => {
                for problem in problems.0 {
                    self.checked.find(self.line_of(&problem.key), Weight::Problem, problem);
                }
            }
            Decision::Refused(refusal) => self.checked.find(line, Weight::Problem, refusal),
            Decision::Provision { spec, warnings } => {
                for warning in warnings {
                    self.checked.find(line, Weight::Warning, warning);
                }
                if spec.annotations.max_replicas.is_none() {
                    let nodes = self.assumptions.nodes_per_replica;
                    let text = format!("maxReplicaCount is spec.nodeCountLimit over {nodes} nodes a replica");
                    self.checked.find(line, Weight::Note, text);
                }
                if spec.replicas.to_zero {
                    let text =
                        "zero replicas only once the wake-up source was read; until then the floor stays";
                    self.checked.find(line, Weight::Note, text);
                }
                let Metadata { namespace, uid, .. } = &self.metadata.value;
                let or =
                    |text: &str, otherwise: &str| if text.is_empty() { otherwise } else { text }.to_owned();
                let owner = Owner {
                    key: InferenceSetKey::new(&or(namespace, "default"), name),
                    uid: or(uid, "(given by the API server)"),
                    api_version: api_version.to_owned(),
                };
                let scaler_address = &self.assumptions.scaler_address;
                let reach = Reach { scaler_address, certificates: None };
                self.checked.objects.push(build(&owner, &spec, reach));
            }
        }
    }

    /// The annotations that are texts; `None` where one of ours is something else, which the
    /// API server would refuse.
    fn annotations(&mut self) -> Option<BTreeMap<String, String>> {
        let mut texts = BTreeMap::new();
        let mut refused = false;
        for (key, value) in &self.metadata.value.annotations {
            match &value.value {
                Value::String(text) => {
                    texts.insert(key.clone(), text.clone());
                }
                other if key.starts_with(PREFIX) => {
                    refused = true;
                    let text = format!("{key} is {other}, but must be text: put it in quotes");
                    self.checked.find(value.referenced.line(), Weight::Problem, text);
                }
                _ => {}
            }
        }
        (!refused).then_some(texts)
    }

    /// The line of the annotation that a problem's key names; the object's where it is missing.
    fn line_of(&self, key: &str) -> u64 {
        let annotation = key.split('[').next().unwrap_or(key);
        let value = self.metadata.value.annotations.get(annotation);
        value.map_or(self.metadata.referenced.line(), |value| value.referenced.line())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assumptions() -> Assumptions {
        Assumptions { nodes_per_replica: 2, scaler_address: "scaler.keda.svc:10450".to_owned() }
    }

    /// What is said about a file, and the names of what would be made.
    fn checked(text: &str) -> (String, Vec<String>) {
        let checked = check(text, &assumptions());
        let findings: Vec<String> = checked.findings.iter().map(ToString::to_string).collect();
        assert_eq!(checked.has_problems(), findings.iter().any(|it| it.contains(": problem: ")));
        let name = |object: &Value| {
            let metadata = &object["metadata"];
            format!(
                "{}/{} up to {}",
                metadata["namespace"], metadata["name"], object["spec"]["maxReplicaCount"]
            )
            .replace('"', "")
        };
        (findings.join("\n"), checked.objects.iter().map(name).collect())
    }

    #[test]
    fn a_good_file_gives_its_scaled_objects() {
        let text = r#"
apiVersion: v1
kind: Service
metadata: {name: other, annotations: {a: b}}
spec: [anything]
---
apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata:
  name: demo
  namespace: team-a
  annotations:
    scaledobject.kaito.sh/auto-provision: "true"
    scaledobject.kaito.sh/threshold: "10"
spec:
  nodeCountLimit: 7
---
apiVersion: kaito.sh/v1alpha1
kind: InferenceSet
metadata: {name: plain}
---
apiVersion: kaito.sh/v1alpha1
kind: MultiRoleInference
metadata:
  name: multi
  annotations:
    scaledobject.kaito.sh/prefill-auto-provision: "true"
    scaledobject.kaito.sh/prefill-threshold: "10"
    scaledobject.kaito.sh/prefill-max-replicas: "4"
    scaledobject.kaito.sh/decode-auto-provision: "true"
    scaledobject.kaito.sh/decode-threshold: "10"
    scaledobject.kaito.sh/decode-max-replicas: "4"
spec: {roles: [{type: prefill}, {type: decode, replicas: 2}]}
"#;
        let (findings, objects) = checked(text);
        insta::assert_snapshot!(findings, @r#"
        line 10: note: maxReplicaCount is spec.nodeCountLimit over 2 nodes a replica
        line 20: note: plain doesn't ask for autoscaling
        line 25: problem: the role's replicas are set to 2, which would be put back whenever they change: leave spec.roles[].replicas out to have the role autoscaled
        "#);
        assert_eq!(objects, ["team-a/demo up to 3", "default/multi-prefill up to 4"]);
        let yaml = check(text, &assumptions()).to_yaml().unwrap();
        let read: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        assert_eq!(read, check(text, &assumptions()).objects);
    }

    #[test]
    fn a_problem_has_its_line() {
        let (findings, objects) = checked(
            r#"apiVersion: v1
kind: List
items:
- apiVersion: kaito.sh/v1beta1
  kind: InferenceSet
  metadata:
    name: demo
    annotations:
      scaledobject.kaito.sh/auto-provision: "true"
      scaledobject.kaito.sh/max-replicas: "1"
      scaledobject.kaito.sh/metrics: |
        - name: vllm:kv_cache_usage_perc
          type: gauge
          upthreshold: 80
          downthreshold: 0.2
      scaledobject.kaito.sh/scaleupcooldowns: "3"
- apiVersion: kaito.sh/v1beta1
  kind: InferenceSet
  metadata:
    name: unquoted
    annotations:
      scaledobject.kaito.sh/auto-provision: true
      scaledobject.kaito.sh/threshold: 10
- apiVersion: kaito.sh/v1beta1
  kind: InferenceSet
  metadata:
    name: unlimited
    annotations:
      scaledobject.kaito.sh/auto-provision: "true"
      scaledobject.kaito.sh/threshold: "10"
"#,
        );
        insta::assert_snapshot!(findings, @r#"
        line 10: problem: scaledobject.kaito.sh/max-replicas is "1", but must be a whole number from 2 to 2147483647
        line 12: problem: scaledobject.kaito.sh/metrics[0].upthreshold is "80", but must be at most 1: vllm:kv_cache_usage_perc goes from 0 to 1, so that 80% is 0.8
        line 16: problem: scaledobject.kaito.sh/scaleupcooldowns is not known: did you mean scaledobject.kaito.sh/scaleupcooldown?
        line 22: problem: scaledobject.kaito.sh/auto-provision is true, but must be text: put it in quotes
        line 23: problem: scaledobject.kaito.sh/threshold is 10, but must be text: put it in quotes
        line 27: problem: how far to scale is not known: set scaledobject.kaito.sh/max-replicas, or spec.nodeCountLimit
        "#);
        assert_eq!(objects, [""; 0]);
    }

    #[test]
    fn what_is_no_manifest_says_so() {
        assert_eq!(checked("").0, "line 1: note: there is no InferenceSet here");
        assert_eq!(checked("kind: Service").0, "line 1: note: there is no InferenceSet here");
        assert!(checked("a: 1\nb: [").0.starts_with("line 2: problem: "));
        assert!(checked("kind: InferenceSet\nmetadata: 3").0.starts_with("line 2: problem: "));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[-\\[\\]{}:,&*!|> \\n\"'a-z0-9.]{0,80}|\\PC{0,40}") {
            let _ = check(&text, &assumptions());
        }
    }
}
