//! From a scaling spec to the ScaledObject as we want it.

use serde_json::{Map, Value, json};

use super::{API_VERSION, KIND, MANAGED_BY, Owner, TRIGGER_AUTHENTICATION, TRIGGER_NAME, plan::is_kept};
use crate::config::{
    annotations::{Metrics, ScalingSpec, Steps},
    go_duration,
    trigger::{Combine, policy},
};

/// How KEDA reaches us.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// `HOST:PORT`.
    pub scaler_address: &'a str,
    /// Which certificates KEDA finds for it, in any words that change with them; `None` where
    /// that is not known.
    ///
    /// It is written into the trigger though nobody reads it there: KEDA's loop that listens for
    /// pushes keeps the certificates that it began with. Once KEDA has built another scaler with
    /// newer ones, which any failed call makes it do, that loop can never connect again. A
    /// changed trigger makes KEDA begin anew.
    pub certificates: Option<&'a str>,
}

/// The trigger's key of [`Reach::certificates`]. Whatever it holds, the trigger is the same target.
pub const CERTIFICATES: &str = "certificates";

/// The certificates with which KEDA began, as `owner`'s ScaledObject says.
#[must_use]
pub fn certificates_in<'a>(owner: &Owner, observed: &[&'a Value]) -> Option<&'a str> {
    let ours = observed.iter().find(|object| is_kept(object, owner))?;
    let mut triggers = ours["spec"]["triggers"].as_array()?.iter();
    triggers.find(|trigger| trigger["name"] == TRIGGER_NAME)?["metadata"][CERTIFICATES].as_str()
}

/// The ScaledObject for `owner`, holding exactly the fields that we own.
#[must_use]
pub fn build(owner: &Owner, spec: &ScalingSpec, reach: Reach<'_>) -> Value {
    let Owner { key, uid, api_version } = owner;
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": &*key.name,
            "namespace": &*key.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": MANAGED_BY.1,
                "app.kubernetes.io/component": "autoscaler",
            },
            "annotations": {
                MANAGED_BY.0: MANAGED_BY.1,
                // KEDA copies our labels to its HPA, where this one would contradict KEDA's own.
                "scaledobject.keda.sh/hpa-excluded-labels": "app.kubernetes.io/managed-by",
            },
            "ownerReferences": [{
                "apiVersion": api_version,
                "kind": "InferenceSet",
                "name": &*key.name,
                "uid": uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": body(owner, spec, reach),
    })
}

fn body(owner: &Owner, spec: &ScalingSpec, reach: Reach<'_>) -> Value {
    let annotations = &spec.annotations;
    let mut body = json!({
        "scaleTargetRef": {
            "apiVersion": owner.api_version,
            "kind": "InferenceSet",
            "name": &*owner.key.name,
        },
        "pollingInterval": annotations.polling_interval,
        "minReplicaCount": spec.replicas.min,
        "maxReplicaCount": spec.replicas.max,
        "advanced": {
            "horizontalPodAutoscalerConfig": {
                "behavior": {
                    "scaleUp": steps(&annotations.behavior.up),
                    "scaleDown": steps(&annotations.behavior.down),
                },
            },
        },
        "triggers": [{
            "type": "external-push",
            "name": TRIGGER_NAME,
            "metricType": "AverageValue",
            "authenticationRef": {"kind": "ClusterTriggerAuthentication", "name": TRIGGER_AUTHENTICATION},
            "metadata": metadata(owner, spec, reach),
        }],
    });
    if let Some(cooldown) = annotations.cooldown_period {
        body["cooldownPeriod"] = cooldown.into();
    }
    if spec.replicas.to_zero {
        let cooldown = annotations.cooldown_period.unwrap_or(300);
        body["cooldownPeriod"] = cooldown.into();
        // Without it KEDA takes a new one to zero at its first inactive poll.
        body["initialCooldownPeriod"] = cooldown.into();
        if spec.replicas.min > 1 {
            // Zero or at least min: KEDA's own way to say so.
            body["idleReplicaCount"] = 0.into();
        } else {
            body["minReplicaCount"] = 0.into();
        }
    }
    body
}

fn steps(steps: &Steps) -> Value {
    json!({
        "stabilizationWindowSeconds": steps.window,
        "selectPolicy": "Max",
        // A Kubernetes quantity: text, so that nothing is lost on the way.
        "tolerance": steps.tolerance.to_string(),
        "policies": [{"type": "Pods", "value": steps.pods, "periodSeconds": steps.period}],
    })
}

/// The trigger's metadata: text throughout, defaults left out.
fn metadata(owner: &Owner, spec: &ScalingSpec, reach: Reach<'_>) -> Map<String, Value> {
    let annotations = &spec.annotations;
    let mut metadata = Map::new();
    let mut set = |key: &str, text: String| {
        metadata.insert(key.to_owned(), text.into());
    };
    set("scalerAddress", reach.scaler_address.to_owned());
    set("inferenceSetName", owner.key.name.to_string());
    set("inferenceSetNamespace", owner.key.namespace.to_string());
    match &annotations.metrics {
        Metrics::Total { metric, threshold } => {
            set("metricName", metric.to_string());
            set("threshold", threshold.to_string());
        }
        Metrics::Policy(policy) => {
            let combine = match policy.combine {
                Combine::And => "AND",
                Combine::Or => "OR",
                Combine::Max => "MAX",
            };
            set("aggregation", "policy".to_owned());
            set("combinePolicy", combine.to_owned());
            set("policy", policy::to_json(&policy.metrics));
        }
    }
    if let Some(interval) = annotations.scrape_interval {
        set("scrapeInterval", go_duration::format(interval));
    }
    if let Some(port) = annotations.metric_port {
        set("metricPort", port.to_string());
    }
    if let Some(path) = &annotations.metric_path {
        set("metricPath", path.clone());
    }
    if let Some(deadline) = annotations.in_flight_deadline {
        set("inFlightDeadline", go_duration::format(deadline));
    }
    if let Some(wake) = &annotations.wake_source {
        set("wakeSource", wake.to_string());
    }
    if spec.replicas.to_zero {
        // Also where it is the default: another trigger is another target, and a target starts
        // with its hold time. So a model that was idle before it may go to zero has its whole
        // cooldown first.
        set("wakeReplicas", spec.replicas.min.to_string());
    }
    if let Some(certificates) = reach.certificates {
        set(CERTIFICATES, certificates.to_owned());
    }
    metadata
}
