//! Whether a ScaledObject goes to zero, and on whose word it would wake.

use serde_json::Value;

use super::{Owner, plan::is_kept};
use crate::{config::trigger::WakeSource, names::InferenceSetKey};

/// Whether KEDA takes the target of `object` to zero: minReplicaCount is 0, which is also its
/// default, or idleReplicaCount is.
#[must_use]
pub(super) fn goes_to_zero(object: &Value) -> bool {
    let count = |field: &str| object["spec"][field].as_u64();
    count("idleReplicaCount").or(count("minReplicaCount")).unwrap_or(0) == 0
}

/// Whether the ScaledObject that is `owner`'s goes to zero as it is.
#[must_use]
pub fn owned_goes_to_zero(owner: &Owner, observed: &[&Value]) -> bool {
    observed.iter().any(|object| is_kept(object, owner) && goes_to_zero(object))
}

/// A ScaledObject that somebody wrote, that goes to zero, and that wakes on our word alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sleeper<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    /// What its trigger names as the source of wake-ups.
    pub wake_source: Option<WakeSource>,
}

/// `object` as a sleeper. Its trigger is ours by the address, `HOST:PORT`, that it names, and
/// by being about `set` in the ScaledObject's own namespace. Where another trigger could wake
/// it too, nothing depends on us; usage of CPU or memory can't, since nothing runs.
#[must_use]
pub fn sleeper<'a>(object: &'a Value, set: &InferenceSetKey, scaler_address: &str) -> Option<Sleeper<'a>> {
    let metadata = &object["metadata"];
    let triggers = object["spec"]["triggers"].as_array()?;
    let ours = triggers.iter().find(|trigger| {
        let metadata = &trigger["metadata"];
        let address = metadata["scalerAddress"].as_str();
        address.is_some_and(|address| service_of(address) == service_of(scaler_address))
            && metadata["inferenceSetName"] == *set.name
            && metadata["inferenceSetNamespace"] == *set.namespace
    })?;
    let wakes = |trigger: &Value| !matches!(trigger["type"].as_str(), Some("cpu" | "memory"));
    let alone = triggers.iter().filter(|trigger| wakes(trigger)).all(|trigger| trigger == ours);
    let asleep_on_us = alone && goes_to_zero(object) && metadata["namespace"] == *set.namespace;
    asleep_on_us.then(|| Sleeper {
        name: metadata["name"].as_str().unwrap_or_default(),
        uid: metadata["uid"].as_str().unwrap_or_default(),
        wake_source: ours["metadata"]["wakeSource"].as_str().and_then(WakeSource::parse),
    })
}

/// Name and namespace of the Service in `SERVICE.NAMESPACE…:PORT`.
fn service_of(address: &str) -> Option<(&str, &str)> {
    let mut labels = address.split(':').next()?.split('.');
    Some((labels.next()?, labels.next()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zero_is_kedas_default() {
        for (spec, zero) in [
            (json!({}), true),
            (json!({"minReplicaCount": 0}), true),
            (json!({"minReplicaCount": 1}), false),
            (json!({"minReplicaCount": 3, "idleReplicaCount": 0}), true),
            (json!({"minReplicaCount": 3, "idleReplicaCount": 1}), false),
        ] {
            assert_eq!(goes_to_zero(&json!({"spec": spec})), zero, "{spec}");
        }
    }

    #[test]
    fn who_sleeps_on_our_word_alone() {
        let ours = json!({"type": "external-push", "metadata": {
            "scalerAddress": "keda-kaito-scaler-svc.keda:10450",
            "inferenceSetName": "demo", "inferenceSetNamespace": "team-a",
        }});
        let with = |key: &str, text: &str| {
            let mut trigger = ours.clone();
            trigger["metadata"][key] = text.into();
            trigger
        };
        let asleep = |source: Option<&str>| Some(source.and_then(WakeSource::parse));
        for (namespace, min, triggers, expected) in [
            ("team-a", 0, json!([ours]), asleep(None)),
            ("team-a", 1, json!([ours]), None),
            ("team-a", 0, json!([with("wakeSource", "epp:9090")]), asleep(Some("epp:9090"))),
            ("team-a", 0, json!([{"type": "cpu"}, ours]), asleep(None)),
            ("team-a", 0, json!([{"type": "cron"}, ours]), None),
            ("team-a", 0, json!([{"type": "cron"}]), None),
            ("team-a", 0, json!([with("inferenceSetName", "other")]), None),
            ("team-b", 0, json!([ours]), None),
            ("team-a", 0, json!([with("scalerAddress", "other.keda:10450")]), None),
            ("team-a", 0, json!(null), None),
        ] {
            let object = json!({
                "metadata": {"namespace": namespace, "name": "theirs", "uid": "u"},
                "spec": {"minReplicaCount": min, "triggers": triggers},
            });
            let address = "keda-kaito-scaler-svc.keda.svc.cluster.local:10450";
            let found = sleeper(&object, &InferenceSetKey::new("team-a", "demo"), address);
            assert_eq!(found.map(|it| it.wake_source), expected, "{object}");
        }
    }
}
