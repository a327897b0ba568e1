//! What an InferenceSet's annotations, or those of a `MultiRoleInference`, come to.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;
use serde_saphyr::Spanned;

use super::{
    Assumptions, Checked, Weight,
    document::{Document, Metadata},
};
use crate::{
    config::annotations::{Decision, Facts, PREFIX, Refusal, Role, Source, Wake, decide},
    names::InferenceSetKey,
    provision::{Owner, Reach, build},
    wake::Readability,
};

pub(super) fn check(
    document: &Document,
    metadata: &Spanned<Metadata>,
    assumptions: &Assumptions,
    checked: &mut Checked,
) {
    let limit = document.spec.integer("nodeCountLimit").and_then(|limit| u32::try_from(limit).ok());
    Check { metadata, fixed_replicas_line: None, assumptions, checked }.decide(
        Source::InferenceSet,
        &document.api_version,
        &metadata.value.name,
        &Facts { node_count_limit: limit.unwrap_or(0), ..Facts::default() },
    );
}

/// Each role of a `MultiRoleInference` has annotations of its own.
pub(super) fn check_roles(
    document: &Document,
    metadata: &Spanned<Metadata>,
    assumptions: &Assumptions,
    checked: &mut Checked,
) {
    for role in Role::ALL {
        let written = document.spec.maps("roles").find(|(_, it)| it.text("type") == Some(role.as_str()));
        let fixed_replicas =
            written.and_then(|(_, it)| it.integer("replicas")).and_then(|it| u32::try_from(it).ok());
        let fixed_replicas_line = written.map(|(line, it)| it.line_of("replicas", line));
        Check { metadata, fixed_replicas_line, assumptions, checked }.decide(
            Source::Role(role),
            "kaito.sh/v1beta1",
            &role.child_name(&metadata.value.name),
            &Facts { fixed_replicas, ..Facts::default() },
        );
    }
}

/// The check of one object.
struct Check<'a> {
    metadata: &'a Spanned<Metadata>,
    /// Where a `MultiRoleInference` fixes the role's replicas.
    fixed_replicas_line: Option<u64>,
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
            Decision::Refused(refusals) => {
                for refusal in refusals {
                    self.refused(source, refusal);
                }
            }
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

    /// Says why nothing would be made, at the line of what is to be changed.
    fn refused(&mut self, source: Source, refusal: Refusal) {
        let object = self.metadata.referenced.line();
        let line = match refusal {
            Refusal::InvalidConfig(problems) => {
                for problem in problems.0 {
                    self.checked.find(self.line_of(&problem.key), Weight::Problem, problem);
                }
                return;
            }
            Refusal::ReplicasFixed { .. } => self.fixed_replicas_line.unwrap_or(object),
            Refusal::InvalidReplicaRange { .. } => self.line_of(&format!("{}min-replicas", source.prefix())),
            Refusal::NoReplicaLimit { .. } => object,
        };
        self.checked.find(line, Weight::Problem, refusal);
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
                    let text =
                        format!("{key} is {}, but must be text: {}", Shown(other), as_text(key, other));
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

/// How what stands under `key` becomes the text that an annotation is.
fn as_text(key: &str, value: &Value) -> String {
    if value.is_array() || value.is_object() {
        format!("write `{key}: |` and the same below it, indented further")
    } else {
        "put it in quotes".to_owned()
    }
}

/// A value that is no text, for a message: a list or a map by its kind alone.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Array(_) => f.write_str("a list"),
            Value::Object(_) => f.write_str("a map"),
            other => write!(f, "{other}"),
        }
    }
}
