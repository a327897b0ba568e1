//! The types of KEDA's objects, for requests that are about any of them.

use kube::core::{ApiResource, GroupVersionKind};

use scaler_core::provision::{API_VERSION, AUTHENTICATION_KIND, KIND};

fn keda(kind: &str, plural: &str) -> ApiResource {
    let (group, version) = API_VERSION.split_once('/').unwrap_or(("", API_VERSION));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// ScaledObjects.
#[must_use]
pub fn scaled_objects() -> ApiResource {
    keda(KIND, "scaledobjects")
}

/// ClusterTriggerAuthentications.
#[must_use]
pub fn trigger_authentications() -> ApiResource {
    keda(AUTHENTICATION_KIND, "clustertriggerauthentications")
}
