//! What provisioning reads of each kind of object, beside InferenceSets. Everything else is
//! dropped when it comes in, so that five thousand of them stay small and a change that doesn't
//! matter is no change.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    config::annotations::{PREFIX, Role},
    fleet::{collection::Object, pod::CREATED_BY},
    names::InferenceSetKey,
};

/// A Workspace of an InferenceSet.
#[derive(Clone, Debug, PartialEq)]
pub struct Workspace {
    owner: InferenceSetKey,
    /// `status.targetNodeCount`; 0 until it is estimated.
    pub nodes: u32,
}

/// A `MultiRoleInference`, which makes an InferenceSet for each of its roles.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiRoleInference {
    pub key: InferenceSetKey,
    pub uid: String,
    /// Those with our prefix.
    pub annotations: BTreeMap<String, String>,
    /// `spec.roles[].replicas` where they are set.
    fixed: [Option<u32>; Role::ALL.len()],
}

/// A ScaledObject, whole but for its status: the plan compares it field by field.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaledObject(pub Value);

/// An HPA that scales an InferenceSet.
#[derive(Clone, Debug, PartialEq)]
pub struct Hpa(pub Value);

impl MultiRoleInference {
    /// The number of replicas that it puts back whenever that changes.
    #[must_use]
    pub fn fixed_replicas(&self, role: Role) -> Option<u32> {
        Role::ALL.iter().position(|it| *it == role).and_then(|at| self.fixed[at])
    }
}

impl Object for Workspace {
    type Raw = Value;
    type Key = InferenceSetKey;

    fn read(raw: Value) -> Option<Self> {
        let owner = raw["metadata"]["labels"][CREATED_BY].as_str()?;
        let owner = InferenceSetKey::new(raw["metadata"]["namespace"].as_str()?, owner);
        Some(Self { owner, nodes: number(&raw["status"]["targetNodeCount"]).unwrap_or(0) })
    }

    fn keys(&self) -> Vec<InferenceSetKey> {
        vec![self.owner.clone()]
    }
}

impl Object for MultiRoleInference {
    type Raw = Value;
    type Key = InferenceSetKey;

    fn read(raw: Value) -> Option<Self> {
        let metadata = &raw["metadata"];
        let roles = raw["spec"]["roles"].as_array();
        let fixed = Role::ALL.map(|role| {
            let role = roles?.iter().find(|it| it["type"] == role.as_str())?;
            number(&role["replicas"])
        });
        let annotations = metadata["annotations"].as_object().into_iter().flatten();
        let ours = annotations.filter(|(name, _)| name.starts_with(PREFIX));
        Some(Self {
            key: InferenceSetKey::new(metadata["namespace"].as_str()?, metadata["name"].as_str()?),
            uid: metadata["uid"].as_str()?.to_owned(),
            annotations: ours
                .filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())))
                .collect(),
            fixed,
        })
    }

    fn keys(&self) -> Vec<InferenceSetKey> {
        let child = |role: Role| InferenceSetKey::new(&self.key.namespace, &role.child_name(&self.key.name));
        Role::ALL.map(child).to_vec()
    }
}

impl Object for ScaledObject {
    type Raw = Value;
    type Key = InferenceSetKey;

    fn read(mut raw: Value) -> Option<Self> {
        let object = raw.as_object_mut()?;
        object.remove("status");
        Some(Self(raw))
    }

    /// It may stand in an InferenceSet's way by its target or by its name, and it may be
    /// ours by its owner.
    fn keys(&self) -> Vec<InferenceSetKey> {
        let metadata = &self.0["metadata"];
        let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
        let owners = owners.filter(|owner| owner["kind"] == "InferenceSet").map(|owner| &owner["name"]);
        let mut keys: Vec<_> = [&metadata["name"], &self.0["spec"]["scaleTargetRef"]["name"]]
            .into_iter()
            .chain(owners)
            .filter_map(|name| Some(InferenceSetKey::new(metadata["namespace"].as_str()?, name.as_str()?)))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl Object for Hpa {
    type Raw = Value;
    type Key = InferenceSetKey;

    fn read(raw: Value) -> Option<Self> {
        let target = &raw["spec"]["scaleTargetRef"];
        let of_kaito = target["apiVersion"].as_str()?.starts_with("kaito.sh/");
        if !of_kaito || target["kind"] != "InferenceSet" {
            return None;
        }
        let metadata = &raw["metadata"];
        // As much as `hpa_rival` looks at.
        Some(Self(serde_json::json!({
            "metadata": {
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "ownerReferences": metadata["ownerReferences"],
            },
            "spec": {"scaleTargetRef": target},
        })))
    }

    fn keys(&self) -> Vec<InferenceSetKey> {
        let namespace = self.0["metadata"]["namespace"].as_str();
        let target = self.0["spec"]["scaleTargetRef"]["name"].as_str();
        let key = namespace.zip(target).map(|(namespace, name)| InferenceSetKey::new(namespace, name));
        key.into_iter().collect()
    }
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(object: Option<impl Object<Key = InferenceSetKey>>) -> Vec<String> {
        object.into_iter().flat_map(|object| object.keys()).map(|key| key.to_string()).collect()
    }

    #[test]
    fn each_kind_is_found_by_the_inference_sets_that_it_concerns() {
        let metadata = |more: Value| {
            let mut metadata = json!({"namespace": "team-a", "name": "it", "uid": "u"});
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            metadata
        };
        let labels = json!({"labels": {"inferenceset.kaito.sh/created-by": "demo"}});
        assert_eq!(keys(Workspace::read(json!({"metadata": metadata(labels)}))), ["team-a/demo"]);
        assert_eq!(keys(Workspace::read(json!({"metadata": metadata(json!({}))}))), [""; 0]);
        let multi = MultiRoleInference::read(json!({"metadata": metadata(json!({}))}));
        assert_eq!(keys(multi), ["team-a/it-prefill", "team-a/it-decode"]);
        let owners = json!({"ownerReferences": [
            {"kind": "InferenceSet", "name": "owner"}, {"kind": "Other", "name": "other"},
        ]});
        let spec = json!({"scaleTargetRef": {"name": "target"}});
        let object = json!({"metadata": metadata(owners), "spec": spec, "status": {"hpaName": "x"}});
        let object = ScaledObject::read(object).unwrap();
        assert_eq!(object.0.get("status"), None);
        assert_eq!(keys(Some(object)), ["team-a/it", "team-a/owner", "team-a/target"]);
        for (api_version, kind, expected) in [
            ("kaito.sh/v1beta1", "InferenceSet", &["team-a/demo"][..]),
            ("kaito.sh/v1beta1", "Workspace", &[]),
            ("apps/v1", "InferenceSet", &[]),
        ] {
            let target = json!({"apiVersion": api_version, "kind": kind, "name": "demo"});
            let spec = json!({"scaleTargetRef": target});
            let hpa = Hpa::read(json!({"metadata": metadata(json!({})), "spec": spec}));
            assert_eq!(keys(hpa), expected, "{api_version} {kind}");
        }
        assert_eq!(ScaledObject::read(json!(7)), None);
    }

    #[test]
    fn what_is_missing_or_no_count_is_none() {
        let labels = json!({"inferenceset.kaito.sh/created-by": "demo"});
        for (count, nodes) in [(json!(3), 3), (json!(-1), 0), (json!("3"), 0), (json!(null), 0)] {
            let metadata = json!({"namespace": "team-a", "labels": labels});
            let workspace = json!({"metadata": metadata, "status": {"targetNodeCount": count}});
            assert_eq!(Workspace::read(workspace).unwrap().nodes, nodes);
        }
        let roles = json!([{"type": "decode", "replicas": 2}, {"type": "prefill"}]);
        let metadata = json!({"namespace": "team-a", "name": "multi", "uid": "u", "annotations": {
            "scaledobject.kaito.sh/decode-threshold": "3", "other": "x", "scaledobject.kaito.sh/odd": 7,
        }});
        let multi =
            MultiRoleInference::read(json!({"metadata": metadata, "spec": {"roles": roles}})).unwrap();
        let fixed = Role::ALL.map(|role| (role.as_str(), multi.fixed_replicas(role)));
        assert_eq!(fixed, [("prefill", None), ("decode", Some(2))]);
        assert_eq!(multi.annotations.keys().collect::<Vec<_>>(), ["scaledobject.kaito.sh/decode-threshold"]);
    }
}
