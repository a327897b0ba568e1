//! What would be made of the InferenceSets in a file, and what KEDA will make of its
//! ScaledObjects: for a pipeline that lints manifests before they reach a cluster.

mod document;
mod inference_set;
mod scaled_object;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

use self::document::Document;
use crate::config::yaml::YamlProblem;

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

/// Reads a file of one or more YAML (or JSON) documents. Everything that is no InferenceSet,
/// `MultiRoleInference` or ScaledObject with a trigger of this scaler is passed over.
#[must_use]
pub fn check(text: &str, assumptions: &Assumptions) -> Checked {
    let mut checked = Checked::default();
    let documents: Vec<Document> = match serde_saphyr::from_multiple(text) {
        Ok(documents) => documents,
        Err(error) => {
            let YamlProblem { line, text } = YamlProblem::from(&error);
            checked.find(line.unwrap_or(1), Weight::Problem, text);
            return checked;
        }
    };
    let found: usize =
        documents.iter().map(|document| check_document(document, assumptions, &mut checked)).sum();
    if found == 0 {
        checked.find(
            1,
            Weight::Note,
            "there is no InferenceSet here, and no ScaledObject with a trigger of this scaler",
        );
    }
    checked.findings.sort_by_key(|finding| finding.line);
    checked
}

/// Checks what `document` holds; gives the number of objects that have to do with us.
fn check_document(document: &Document, assumptions: &Assumptions, checked: &mut Checked) -> usize {
    let is_of = |group: &str| document.api_version.split('/').next() == Some(group);
    match (document.kind.as_str(), &document.metadata) {
        ("List" | "InferenceSetList" | "ScaledObjectList", _) => {
            document.items.iter().map(|item| check_document(item, assumptions, checked)).sum()
        }
        ("InferenceSet", Some(metadata)) if is_of("kaito.sh") => {
            inference_set::check(document, metadata, assumptions, checked);
            1
        }
        ("MultiRoleInference", Some(metadata)) if is_of("kaito.sh") => {
            inference_set::check_roles(document, metadata, assumptions, checked);
            1
        }
        ("ScaledObject", Some(metadata)) if is_of("keda.sh") => {
            usize::from(scaled_object::check(document, metadata, checked))
        }
        _ => 0,
    }
}
