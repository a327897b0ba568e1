//! What provisioning reads of each kind of object. Everything else is dropped when it comes
//! in, so that five thousand of them stay small and a change that doesn't matter is no change.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use serde_json::Value;

use super::index::Observed;
use scaler_core::{
    config::annotations::{PREFIX, Role},
    names::InferenceSetKey,
};

const CREATED_BY: &str = "inferenceset.kaito.sh/created-by";
const CREATED_BY_ROLES: &str = "multiroleinference.kaito.sh/created-by";

#[derive(Clone, Debug, PartialEq)]
pub(super) struct InferenceSet {
    pub key: InferenceSetKey,
    pub uid: String,
    /// Those with our prefix.
    pub annotations: BTreeMap<String, String>,
    /// 0 is none.
    pub node_count_limit: u32,
    /// Where a `MultiRoleInference` made it: that one, and the role.
    pub parent: Option<(InferenceSetKey, Role)>,
    /// It has a deletionTimestamp.
    pub going: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Workspace {
    owner: InferenceSetKey,
    /// `status.targetNodeCount`; 0 until it is estimated.
    pub nodes: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct MultiRoleInference {
    pub key: InferenceSetKey,
    pub uid: String,
    /// Those with our prefix.
    pub annotations: BTreeMap<String, String>,
    /// `spec.roles[].replicas` where they are set.
    fixed: [Option<u32>; Role::ALL.len()],
}

/// Whole but for its status: the plan compares it field by field.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ScaledObject(pub Value);

/// An HPA that scales an InferenceSet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hpa(pub Value);

impl MultiRoleInference {
    pub(super) fn fixed_replicas(&self, role: Role) -> Option<u32> {
        Role::ALL.iter().position(|it| *it == role).and_then(|at| self.fixed[at])
    }
}

impl Observed for InferenceSet {
    fn read(object: DynamicObject) -> Option<Self> {
        let key = key(&object)?;
        let parent = label(&object, CREATED_BY_ROLES).and_then(|parent| {
            let role = Role::ALL.into_iter().find(|role| role.child_name(parent) == *key.name)?;
            Some((InferenceSetKey::new(&key.namespace, parent), role))
        });
        Some(Self {
            node_count_limit: number(&object.data["spec"]["nodeCountLimit"]).unwrap_or(0),
            going: object.metadata.deletion_timestamp.is_some(),
            uid: object.metadata.uid.clone()?,
            annotations: ours(object),
            parent,
            key,
        })
    }

    fn concerns(&self) -> Vec<InferenceSetKey> {
        vec![self.key.clone()]
    }
}

impl Observed for Workspace {
    fn read(object: DynamicObject) -> Option<Self> {
        let owner = InferenceSetKey::new(object.metadata.namespace.as_deref()?, label(&object, CREATED_BY)?);
        Some(Self { owner, nodes: number(&object.data["status"]["targetNodeCount"]).unwrap_or(0) })
    }

    fn concerns(&self) -> Vec<InferenceSetKey> {
        vec![self.owner.clone()]
    }
}

impl Observed for MultiRoleInference {
    fn read(object: DynamicObject) -> Option<Self> {
        let roles = object.data["spec"]["roles"].as_array().cloned().unwrap_or_default();
        let fixed = Role::ALL.map(|role| {
            let role = roles.iter().find(|it| it["type"] == role.as_str())?;
            number(&role["replicas"])
        });
        Some(Self { key: key(&object)?, uid: object.metadata.uid.clone()?, annotations: ours(object), fixed })
    }

    fn concerns(&self) -> Vec<InferenceSetKey> {
        let child = |role: Role| InferenceSetKey::new(&self.key.namespace, &role.child_name(&self.key.name));
        Role::ALL.map(child).to_vec()
    }
}

impl Observed for ScaledObject {
    fn read(object: DynamicObject) -> Option<Self> {
        let mut value = serde_json::to_value(object).ok()?;
        value.as_object_mut()?.remove("status");
        Some(Self(value))
    }

    /// Every API server counts in them, across all objects of a kind.
    fn version(&self) -> u64 {
        self.0["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok()).unwrap_or(0)
    }

    /// It may stand in an InferenceSet's way by its target or by its name, and it may be
    /// ours by its owner.
    fn concerns(&self) -> Vec<InferenceSetKey> {
        let metadata = &self.0["metadata"];
        let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
        let owners = owners.filter(|owner| owner["kind"] == "InferenceSet").map(|owner| &owner["name"]);
        let mut concerns: Vec<_> = [&metadata["name"], &self.0["spec"]["scaleTargetRef"]["name"]]
            .into_iter()
            .chain(owners)
            .filter_map(|name| Some(InferenceSetKey::new(metadata["namespace"].as_str()?, name.as_str()?)))
            .collect();
        concerns.sort_unstable();
        concerns.dedup();
        concerns
    }
}

impl Observed for Hpa {
    fn read(object: DynamicObject) -> Option<Self> {
        let target = &object.data["spec"]["scaleTargetRef"];
        let of_kaito = target["apiVersion"].as_str()?.starts_with("kaito.sh/");
        if !of_kaito || target["kind"] != "InferenceSet" {
            return None;
        }
        let target = target.clone();
        let metadata = object.metadata;
        // As much as `scaledobject::hpa_rival` looks at.
        Some(Self(serde_json::json!({
            "metadata": {
                "namespace": metadata.namespace,
                "name": metadata.name,
                "ownerReferences": metadata.owner_references.unwrap_or_default(),
            },
            "spec": {"scaleTargetRef": target},
        })))
    }

    fn concerns(&self) -> Vec<InferenceSetKey> {
        let namespace = self.0["metadata"]["namespace"].as_str();
        let target = self.0["spec"]["scaleTargetRef"]["name"].as_str();
        namespace
            .zip(target)
            .map(|(namespace, name)| InferenceSetKey::new(namespace, name))
            .into_iter()
            .collect()
    }
}

fn key(object: &DynamicObject) -> Option<InferenceSetKey> {
    let metadata = &object.metadata;
    Some(InferenceSetKey::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?))
}

fn label<'a>(object: &'a DynamicObject, name: &str) -> Option<&'a str> {
    object.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn ours(object: DynamicObject) -> BTreeMap<String, String> {
    let mut annotations = object.metadata.annotations.unwrap_or_default();
    annotations.retain(|name, _| name.starts_with(PREFIX));
    annotations
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}
