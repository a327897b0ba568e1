//! The fields of an InferenceSet that are used. They are the same in each version of its API.

use std::sync::Arc;

use serde::Deserialize;

use super::{Named, ObjectName};
use crate::fleet::services;
use crate::names::InferenceSetKey;

#[derive(Clone, Debug, Deserialize)]
pub struct InferenceSetObject {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    namespace: Arc<str>,
    name: Arc<str>,
    #[serde(default)]
    labels: Labels,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Labels {
    /// Of a role of a MultiRoleInference, the latter's name.
    #[serde(rename = "multiroleinference.kaito.sh/created-by")]
    multi_role: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    replicas: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    ready_replicas: Option<u32>,
}

impl InferenceSetObject {
    #[must_use]
    pub fn key(&self) -> InferenceSetKey {
        InferenceSetKey { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }

    /// `spec.replicas`; one where it is absent, as in KAITO.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// `status.readyReplicas`; none where it is absent.
    #[must_use]
    pub fn ready_replicas(&self) -> u32 {
        self.status.ready_replicas.unwrap_or(0)
    }

    /// The InferencePool through which a gateway reaches it, whether it exists or not. The
    /// roles of a MultiRoleInference share one.
    #[must_use]
    pub fn pool(&self) -> String {
        services::pool_name(self.metadata.labels.multi_role.as_deref().unwrap_or(&self.metadata.name))
    }
}

impl Named for InferenceSetObject {
    fn object_name(&self) -> ObjectName {
        ObjectName { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(rest: &Value) -> Result<InferenceSetObject, serde_json::Error> {
        let mut set = json!({
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "InferenceSet",
            "metadata": {"namespace": "team-a", "name": "demo"},
        });
        set.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value(set)
    }

    #[test]
    fn replicas_that_are_not_written_have_a_default() {
        for (rest, expected) in [
            (json!({}), (1, 0)),
            (json!({"spec": {"nodeCountLimit": 3}, "status": {"replicas": 2}}), (1, 0)),
            (json!({"spec": {"replicas": null}, "status": {"readyReplicas": null}}), (1, 0)),
            (json!({"spec": {"replicas": 0}, "status": {"readyReplicas": 1}}), (0, 1)),
            (json!({"spec": {"replicas": 7}, "status": {"readyReplicas": 5}}), (7, 5)),
        ] {
            let set = set(&rest).unwrap();
            assert_eq!((set.replicas(), set.ready_replicas()), expected, "{rest}");
            assert_eq!(set.key(), InferenceSetKey::new("team-a", "demo"));
        }
    }

    #[test]
    fn replicas_that_are_no_count_are_refused() {
        for replicas in [json!(-1), json!("2"), json!(1.5)] {
            assert!(set(&json!({"spec": {"replicas": replicas}})).is_err(), "{replicas}");
        }
    }

    #[test]
    fn roles_share_the_pool_of_their_multi_role_inference() {
        assert_eq!(set(&json!({})).unwrap().pool(), "demo-inferencepool");
        let labels = json!({"multiroleinference.kaito.sh/created-by": "chat"});
        let metadata = json!({"namespace": "team-a", "name": "chat-decode", "labels": labels});
        assert_eq!(set(&json!({"metadata": metadata})).unwrap().pool(), "chat-inferencepool");
    }
}
