//! What may be watched, and where it is in the API.

use super::{
    Selection, Source,
    served::{Group, Kind},
};
use scaler_core::{
    fleet::pod::CREATED_BY,
    provision::{AUTHENTICATION_KIND, KIND, TRIGGER_AUTHENTICATION},
};

/// The pods of all InferenceSets.
pub fn pods() -> Source {
    Source::at("pods", Selection { labels: Some(CREATED_BY.to_owned()), ..Selection::all("/api/v1/pods") })
}

pub fn services() -> Source {
    Source::at("Services", Selection::all("/api/v1/services"))
}

/// The EndpointSlices that `labels` select.
pub fn endpoint_slices(labels: String) -> Selection {
    Selection { labels: Some(labels), ..Selection::all("/apis/discovery.k8s.io/v1/endpointslices") }
}

/// One Secret.
pub fn secret(namespace: &str, name: &str) -> Source {
    let all = Selection::all(&format!("/api/v1/namespaces/{namespace}/secrets"));
    Source::at("Secrets", Selection { name: Some(name.to_owned()), ..all })
}

pub fn horizontal_pod_autoscalers() -> Source {
    Source::at("HorizontalPodAutoscalers", Selection::all("/apis/autoscaling/v2/horizontalpodautoscalers"))
}

pub fn inference_sets() -> Source {
    Source::served("InferenceSets", Kind { group: Group::Kaito, name: "InferenceSet", is_optional: false })
}

/// Without them only `max-replicas` says how far to scale.
pub fn workspaces() -> Source {
    Source::served("Workspaces", Kind { group: Group::Kaito, name: "Workspace", is_optional: true })
}

pub fn multi_role_inferences() -> Source {
    let kind = Kind { group: Group::Kaito, name: "MultiRoleInference", is_optional: true };
    Source::served("MultiRoleInferences", kind)
}

pub fn scaled_objects() -> Source {
    Source::served("ScaledObjects", Kind { group: Group::Keda, name: KIND, is_optional: false })
}

/// The one through which KEDA finds the certificates.
pub fn trigger_authentication() -> Source {
    let kind = Kind { group: Group::Keda, name: AUTHENTICATION_KIND, is_optional: false };
    Source::served("ClusterTriggerAuthentications", kind).named(TRIGGER_AUTHENTICATION)
}
