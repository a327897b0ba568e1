//! Who may read whose InferenceSets.
//!
//! A trigger is written by somebody who may write ScaledObjects in a namespace. What it names
//! further is bounded by this rule and by construction: its port and path are only ever asked
//! of the watched pods of its InferenceSet.

use serde_json::Value;
use thiserror::Error;

use crate::names::InferenceSetKey;

/// Which InferenceSets a ScaledObject's trigger may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// Those of the ScaledObject's namespace.
    OwnNamespace,
    /// All (`--allow-cross-namespace`).
    AnyNamespace,
}

/// A trigger that reaches into another namespace.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "inferenceSetNamespace is {other:?}, but a ScaledObject in namespace {own:?} may only name InferenceSets \
     of its own; --allow-cross-namespace lifts this"
)]
pub struct Trespass {
    own: String,
    other: String,
}

impl Tenancy {
    /// Whether a ScaledObject in `namespace` may name `set`.
    ///
    /// # Errors
    /// Where it may not.
    pub fn admit(self, namespace: &str, set: &InferenceSetKey) -> Result<(), Trespass> {
        match self {
            Self::OwnNamespace if *set.namespace != *namespace => {
                Err(Trespass { own: namespace.to_owned(), other: set.namespace.to_string() })
            }
            Self::OwnNamespace | Self::AnyNamespace => Ok(()),
        }
    }
}

/// Why the triggers of `scaled_object` that name our Service (`service` in `service_namespace`)
/// would be refused in [`Tenancy::OwnNamespace`]; `None` where none would.
#[must_use]
pub fn trespass_of(scaled_object: &Value, service: &str, service_namespace: &str) -> Option<Trespass> {
    let namespace = scaled_object.pointer("/metadata/namespace")?.as_str()?;
    let triggers = scaled_object.pointer("/spec/triggers")?.as_array()?;
    triggers.iter().find_map(|trigger| {
        let metadata = trigger.get("metadata")?;
        let text = |key: &str| metadata.get(key).and_then(Value::as_str);
        let host = text("scalerAddress")?.split(':').next()?;
        let mut labels = host.split('.');
        let named = (labels.next()?, labels.next()?);
        let set = InferenceSetKey::new(text("inferenceSetNamespace")?, text("inferenceSetName")?);
        if named != (service, service_namespace) {
            return None;
        }
        Tenancy::OwnNamespace.admit(namespace, &set).err()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_the_scaled_objects_that_reach_into_other_namespaces() {
        let object = |address: &str, set_namespace: &str| {
            json!({
                "metadata": {"namespace": "team-a", "name": "demo"},
                "spec": {"triggers": [
                    {"type": "cpu"},
                    {"type": "external", "metadata": {
                        "scalerAddress": address,
                        "inferenceSetNamespace": set_namespace,
                        "inferenceSetName": "demo",
                    }},
                ]},
            })
        };
        let ours = "keda-kaito-scaler-svc.keda.svc.cluster.local:10450";
        let cases = [
            (object(ours, "team-b"), true),
            (object(ours, "team-a"), false),
            (object("keda-kaito-scaler-svc.keda:10450", "team-b"), true),
            (object("other.keda.svc:10450", "team-b"), false),
            (object("keda-kaito-scaler-svc.staging.svc:10450", "team-b"), false),
            (object("keda-kaito-scaler-svc:10450", "team-b"), false),
            (json!({"metadata": {"namespace": "team-a"}}), false),
            (json!("nonsense"), false),
        ];
        for (object, found) in cases {
            let trespass = trespass_of(&object, "keda-kaito-scaler-svc", "keda");
            assert_eq!(trespass.is_some(), found, "{object}");
        }
    }

    #[test]
    fn another_namespace_takes_the_flag_that_the_refusal_names() {
        let set = InferenceSetKey::new("team-b", "demo");
        assert_eq!(Tenancy::OwnNamespace.admit("team-b", &set), Ok(()));
        assert_eq!(Tenancy::AnyNamespace.admit("team-a", &set), Ok(()));
        let refusal = Tenancy::OwnNamespace.admit("team-a", &set).unwrap_err().to_string();
        for part in ["inferenceSetNamespace", "\"team-b\"", "\"team-a\"", "--allow-cross-namespace"] {
            assert!(refusal.contains(part), "{part} is not in: {refusal}");
        }
        // Not a prefix, and not without regard to case.
        assert!(Tenancy::OwnNamespace.admit("team-bc", &set).is_err());
        assert!(Tenancy::OwnNamespace.admit("Team-b", &set).is_err());
    }
}
