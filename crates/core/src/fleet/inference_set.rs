//! The fields of an InferenceSet that are used. They are the same in each version of its API.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{collection::Object, services};
use crate::{
    config::annotations::{PREFIX, Role},
    names::InferenceSetKey,
};

/// An InferenceSet, with the fields that discovery and provisioning read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct InferenceSetObject {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: Arc<str>,
    name: Arc<str>,
    #[serde(default)]
    uid: Arc<str>,
    deletion_timestamp: Option<Arc<str>>,
    #[serde(default)]
    labels: Labels,
    #[serde(default, deserialize_with = "ours")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Labels {
    /// Of a role of a MultiRoleInference, the latter's name.
    #[serde(rename = "multiroleinference.kaito.sh/created-by")]
    multi_role: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    replicas: Option<u32>,
    /// 0 is none.
    #[serde(default, deserialize_with = "count_or_none")]
    node_count_limit: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    ready_replicas: Option<u32>,
}

/// The annotations with our prefix.
fn ours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let mut all = Option::<BTreeMap<String, String>>::deserialize(deserializer)?.unwrap_or_default();
    all.retain(|name, _| name.starts_with(PREFIX));
    Ok(all)
}

/// A count, and 0 where it is none: an odd limit is no reason not to know the InferenceSet.
fn count_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0))
}

impl InferenceSetObject {
    #[must_use]
    pub fn key(&self) -> InferenceSetKey {
        InferenceSetKey { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }

    /// Empty where the API server has given it none, which it does not do.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// The annotations with our prefix.
    #[must_use]
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.metadata.annotations
    }

    /// `spec.replicas`; one where it is absent, as in KAITO.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.spec.replicas.unwrap_or(1)
    }

    /// `spec.nodeCountLimit`; 0 is none.
    #[must_use]
    pub fn node_count_limit(&self) -> u32 {
        self.spec.node_count_limit
    }

    /// `status.readyReplicas`; none where it is absent.
    #[must_use]
    pub fn ready_replicas(&self) -> u32 {
        self.status.ready_replicas.unwrap_or(0)
    }

    /// Where a `MultiRoleInference` made it: that one, and as which role.
    #[must_use]
    pub fn parent(&self) -> Option<(InferenceSetKey, Role)> {
        let parent = self.metadata.labels.multi_role.as_deref()?;
        let role = Role::ALL.into_iter().find(|role| role.child_name(parent) == *self.metadata.name)?;
        Some((InferenceSetKey::new(&self.metadata.namespace, parent), role))
    }

    /// The InferencePool through which a gateway reaches it, whether it exists or not. The
    /// roles of a MultiRoleInference share one.
    #[must_use]
    pub fn pool(&self) -> String {
        services::pool_name(self.metadata.labels.multi_role.as_deref().unwrap_or(&self.metadata.name))
    }
}

impl Object for InferenceSetObject {
    type Raw = Self;
    type Key = InferenceSetKey;

    fn read(raw: Self) -> Option<Self> {
        Some(raw)
    }

    fn keys(&self) -> Vec<InferenceSetKey> {
        vec![self.key()]
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
    fn what_provisioning_reads_is_kept_and_nothing_else() {
        let set = set(&json!({
            "metadata": {
                "namespace": "team-a", "name": "chat-decode", "uid": "u-1",
                "deletionTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"multiroleinference.kaito.sh/created-by": "chat"},
                "annotations": {"scaledobject.kaito.sh/threshold": "10", "other": "x"},
            },
            "spec": {"nodeCountLimit": 7},
        }))
        .unwrap();
        assert_eq!((set.uid(), set.is_going(), set.node_count_limit()), ("u-1", true, 7));
        assert_eq!(set.annotations().keys().collect::<Vec<_>>(), ["scaledobject.kaito.sh/threshold"]);
        assert_eq!(set.parent(), Some((InferenceSetKey::new("team-a", "chat"), Role::Decode)));
    }

    #[test]
    fn an_odd_limit_or_an_odd_child_is_none() {
        for limit in [json!(-1), json!("7"), json!(null), json!(1.5)] {
            assert_eq!(set(&json!({"spec": {"nodeCountLimit": limit}})).unwrap().node_count_limit(), 0);
        }
        let labels = json!({"multiroleinference.kaito.sh/created-by": "chat"});
        let metadata = json!({"namespace": "team-a", "name": "other", "labels": labels, "annotations": null});
        let odd = set(&json!({"metadata": metadata})).unwrap();
        assert_eq!((odd.parent(), odd.is_going(), odd.annotations().len()), (None, false, 0));
    }

    #[test]
    fn roles_share_the_pool_of_their_multi_role_inference() {
        assert_eq!(set(&json!({})).unwrap().pool(), "demo-inferencepool");
        let labels = json!({"multiroleinference.kaito.sh/created-by": "chat"});
        let metadata = json!({"namespace": "team-a", "name": "chat-decode", "labels": labels});
        assert_eq!(set(&json!({"metadata": metadata})).unwrap().pool(), "chat-inferencepool");
    }
}
