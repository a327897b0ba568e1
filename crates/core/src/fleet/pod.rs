//! A pod of an InferenceSet, and which endpoint it is.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use jiff::Timestamp;
use serde::Deserialize;

use super::collection::Object;
use crate::{
    fleet::model::{Endpoint, Readiness},
    names::{InferenceSetKey, PodUid},
    time::Moment,
};

/// The label that KAITO puts on each pod of an InferenceSet, holding the latter's name.
pub const CREATED_BY: &str = "inferenceset.kaito.sh/created-by";
/// Where a pod serves the model and its metrics; of a decode pod, the routing sidecar, which
/// passes both on.
pub const SERVING_PORT: u16 = 5000;

/// The fields of a pod that are used.
#[derive(Clone, Debug, Deserialize)]
pub struct PodObject {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Arc<str>,
    creation_timestamp: Timestamp,
    deletion_timestamp: Option<Timestamp>,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    owner_references: Vec<Owner>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Labels {
    #[serde(rename = "inferenceset.kaito.sh/created-by")]
    created_by: Option<Arc<str>>,
    #[serde(rename = "apps.kubernetes.io/pod-index")]
    pod_index: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Owner {
    kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    container_statuses: Vec<Container>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    ip: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Container {
    #[serde(default)]
    state: ContainerState,
}

/// One of them is there, if any.
#[derive(Clone, Debug, Default, Deserialize)]
struct ContainerState {
    waiting: Option<Present>,
    terminated: Option<Present>,
}

/// An object whose content does not matter.
#[derive(Clone, Debug, Deserialize)]
struct Present {}

/// What a pod is to the fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub set: InferenceSetKey,
    pub endpoint: Endpoint,
}

impl PodObject {
    /// The endpoint that this pod is, and whose; `None` for a pod that will never serve: it
    /// has ended, belongs to no InferenceSet, or is not the first of its workspace's pods.
    #[must_use]
    pub fn member(&self) -> Option<Member> {
        let Metadata { namespace, name, uid, .. } = &self.metadata;
        let created_by = self.metadata.labels.created_by.as_ref().filter(|set| !set.is_empty())?;
        let has_ended = matches!(self.status.phase.as_deref(), Some("Failed" | "Succeeded"));
        if has_ended || !self.is_first_of_workspace() {
            return None;
        }
        let since = self.metadata.creation_timestamp.as_duration().try_into().unwrap_or_default();
        Some(Member {
            set: InferenceSetKey { namespace: namespace.clone(), name: created_by.clone() },
            endpoint: Endpoint {
                uid: PodUid(uid.clone()),
                pod: name.clone(),
                address: self.ip().map(|ip| SocketAddr::new(ip, SERVING_PORT)),
                readiness: self.readiness(),
                since: Moment::from_unix(since),
            },
        })
    }

    /// A workspace over several nodes has as many pods, and the one with ordinal 0 serves for
    /// all. The label with the ordinal came with Kubernetes 1.28. A pod that is not of a
    /// StatefulSet has no ordinal, and speaks for itself.
    fn is_first_of_workspace(&self) -> bool {
        if let Some(index) = &self.metadata.labels.pod_index {
            return index == "0";
        }
        let of_stateful_set = self.metadata.owner_references.iter().any(|owner| owner.kind == "StatefulSet");
        !of_stateful_set || self.metadata.name.ends_with("-0")
    }

    /// Of a dual-stack pod, the address of the cluster's first family.
    fn ip(&self) -> Option<IpAddr> {
        let listed = self.status.pod_ips.iter().map(|listed| listed.ip.as_str());
        self.status.pod_ip.as_deref().into_iter().chain(listed).find_map(|ip| ip.parse().ok())
    }

    fn readiness(&self) -> Readiness {
        if self.metadata.deletion_timestamp.is_some() {
            return Readiness::Terminating;
        }
        let is_ready = |condition: &Condition| condition.kind == "Ready" && condition.status == "True";
        // A condition can outlive what it says for a moment; a container that does not run
        // contradicts it.
        let is_down =
            |container: &Container| container.state.waiting.is_some() || container.state.terminated.is_some();
        let status = &self.status;
        if status.conditions.iter().any(is_ready) && !status.container_statuses.iter().any(is_down) {
            Readiness::Ready
        } else {
            Readiness::NotReady
        }
    }
}

impl Object for Member {
    type Raw = PodObject;
    type Key = InferenceSetKey;

    fn read(raw: PodObject) -> Option<Self> {
        raw.member()
    }

    fn keys(&self) -> Vec<InferenceSetKey> {
        vec![self.set.clone()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod that serves, changed by a JSON merge patch.
    fn pod(patch: &Value) -> PodObject {
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": "team-a",
                "name": "demo-x7-0",
                "uid": "u-1",
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "resourceVersion": "17",
                "labels": {
                    "inferenceset.kaito.sh/created-by": "demo",
                    "apps.kubernetes.io/pod-index": "0",
                    "kaito.sh/workspace": "demo-x7",
                },
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "demo-x7", "uid": "s-1"}],
                "managedFields": [{"manager": "kubelet"}],
            },
            "spec": {"containers": [{"name": "model"}]},
            "status": {
                "phase": "Running",
                "podIP": "10.1.2.3",
                "podIPs": [{"ip": "10.1.2.3"}, {"ip": "fd00::3"}],
                "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "model", "ready": true, "state": {"running": {"startedAt": "2026-01-02T03:05:00Z"}}}],
            },
        });
        merge(&mut pod, patch);
        serde_json::from_value(pod).unwrap()
    }

    fn merge(value: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else { return *value = patch.clone() };
        for (key, change) in patch {
            match change {
                Value::Null => drop(value.as_object_mut().unwrap().remove(key)),
                change => merge(&mut value[key], change),
            }
        }
    }

    fn endpoint(patch: &Value) -> Option<Endpoint> {
        pod(patch).member().map(|member| member.endpoint)
    }

    #[test]
    fn a_ready_pod_is_an_endpoint_of_its_inference_set() {
        let member = pod(&json!({})).member().unwrap();
        assert_eq!(member.set, InferenceSetKey::new("team-a", "demo"));
        assert_eq!(
            member.endpoint,
            Endpoint {
                uid: PodUid("u-1".into()),
                pod: "demo-x7-0".into(),
                address: Some("10.1.2.3:5000".parse().unwrap()),
                readiness: Readiness::Ready,
                since: Moment::from_unix(std::time::Duration::from_secs(1_767_323_045)),
            }
        );
    }

    #[test]
    fn only_the_first_pod_of_a_workspace_serves() {
        for (patch, serves) in [
            (json!({"labels": {"apps.kubernetes.io/pod-index": "1"}, "name": "demo-x7-1"}), false),
            // The label decides where it is there, the name where it is not.
            (json!({"labels": {"apps.kubernetes.io/pod-index": "0"}, "name": "demo-x7-a"}), true),
            (json!({"labels": {"apps.kubernetes.io/pod-index": null}}), true),
            (json!({"labels": {"apps.kubernetes.io/pod-index": null}, "name": "demo-x7-1"}), false),
            (json!({"labels": {"apps.kubernetes.io/pod-index": null}, "name": "demo-x7-10"}), false),
            // Not of a StatefulSet: no ordinals.
            (
                json!({
                    "labels": {"apps.kubernetes.io/pod-index": null},
                    "name": "demo-5d8-x1",
                    "ownerReferences": [{"kind": "ReplicaSet"}],
                }),
                true,
            ),
            (json!({"labels": {"inferenceset.kaito.sh/created-by": null}}), false),
            (json!({"labels": {"inferenceset.kaito.sh/created-by": ""}}), false),
            (json!({"labels": null}), false),
        ] {
            assert_eq!(endpoint(&json!({"metadata": patch})).is_some(), serves, "{patch}");
        }
    }

    #[test]
    fn the_address_is_the_pods_first() {
        for (patch, expected) in [
            (json!({}), Some("10.1.2.3:5000")),
            (
                json!({"podIP": "fd00::7", "podIPs": [{"ip": "fd00::7"}, {"ip": "10.1.2.3"}]}),
                Some("[fd00::7]:5000"),
            ),
            (json!({"podIP": null}), Some("10.1.2.3:5000")),
            (json!({"podIP": "", "podIPs": []}), None),
            (json!({"podIP": null, "podIPs": null}), None),
        ] {
            let endpoint = endpoint(&json!({"status": patch})).unwrap();
            assert_eq!(endpoint.address, expected.map(|text| text.parse().unwrap()), "{patch}");
        }
    }

    #[test]
    fn readiness_is_what_kubernetes_says() {
        use Readiness::{NotReady, Ready, Terminating};
        let not_ready = json!([{"type": "Ready", "status": "False"}]);
        let crashed = json!([{"name": "model", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
        let ended = json!([{"name": "model", "state": {"terminated": {"exitCode": 1}}}]);
        let deleted = json!({"deletionTimestamp": "2026-01-02T04:00:00Z"});
        for (patch, expected) in [
            (json!({}), Some(Ready)),
            (json!({"status": {"conditions": not_ready}}), Some(NotReady)),
            (json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}), Some(NotReady)),
            (json!({"status": {"conditions": null}}), Some(NotReady)),
            (json!({"status": {"containerStatuses": crashed}}), Some(NotReady)),
            (json!({"status": {"containerStatuses": ended}}), Some(NotReady)),
            (json!({"status": {"containerStatuses": null}}), Some(Ready)),
            (json!({"status": {"phase": "Pending", "conditions": null}}), Some(NotReady)),
            (json!({"status": null}), Some(NotReady)),
            (json!({"metadata": deleted}), Some(Terminating)),
            (json!({"metadata": deleted, "status": {"conditions": not_ready}}), Some(Terminating)),
            (json!({"status": {"phase": "Failed"}}), None),
            (json!({"status": {"phase": "Succeeded"}}), None),
            (json!({"metadata": deleted, "status": {"phase": "Failed"}}), None),
        ] {
            let readiness = endpoint(&patch).map(|endpoint| endpoint.readiness);
            assert_eq!(readiness, expected, "{patch}");
        }
    }
}
