//! What a ScaledObject says to KEDA and the HPA.

use std::time::Duration;

use serde_json::Value;

use crate::{
    hpa::{Behavior, Rules, Select, Step, StepPolicy, Target},
    policy::Scaling,
    world::SECOND,
};

/// KEDA's defaults.
const POLLING_INTERVAL_S: u64 = 30;
const COOLDOWN_S: u64 = 300;

/// The ScaledObject around the decisions: `spec` with KEDA's and Kubernetes' defaults for what
/// it leaves out.
pub(super) fn scaling(spec: &Value) -> Scaling {
    let seconds = |key: &str, default| spec[key].as_u64().unwrap_or(default) * SECOND;
    let replicas = |key: &str, default| whole(&spec[key]).unwrap_or(default);
    let min = replicas("minReplicaCount", 0);
    // Zero or at least min.
    let to_zero = whole(&spec["idleReplicaCount"]) == Some(0);
    let mut behavior = Behavior::kubernetes_default(min.max(1), replicas("maxReplicaCount", 100));
    let written = &spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"];
    read_rules(&written["scaleUp"], &mut behavior.up);
    read_rules(&written["scaleDown"], &mut behavior.down);
    Scaling {
        behavior,
        min_replicas: if to_zero { 0 } else { min },
        polling_interval_us: seconds("pollingInterval", POLLING_INTERVAL_S),
        cooldown_us: seconds("cooldownPeriod", COOLDOWN_S),
        push: spec["triggers"][0]["type"] == "external-push",
    }
}

/// The target of a metric of the trigger.
pub(super) fn target(trigger: &Value, target: f64) -> Target {
    if trigger["metricType"] == "Value" { Target::Value(target) } else { Target::AverageValue(target) }
}

fn read_rules(written: &Value, rules: &mut Rules) {
    if let Some(window) = written["stabilizationWindowSeconds"].as_u64() {
        rules.stabilization_window = Duration::from_secs(window);
    }
    if let Some(tolerance) = quantity(&written["tolerance"]) {
        rules.tolerance = tolerance;
    }
    match written["selectPolicy"].as_str() {
        Some("Min") => rules.select = Select::Min,
        Some("Disabled") => rules.select = Select::Disabled,
        _ => {}
    }
    if let Some(policies) = written["policies"].as_array() {
        rules.policies = policies.iter().filter_map(step_policy).collect();
    }
}

fn step_policy(written: &Value) -> Option<StepPolicy> {
    let value = whole(&written["value"])?;
    let step = if written["type"] == "Percent" { Step::Percent(value) } else { Step::Pods(value) };
    Some(StepPolicy { step, period: Duration::from_secs(written["periodSeconds"].as_u64()?) })
}

fn whole(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// A quantity as we write it: a number, or the text of one.
fn quantity(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_is_the_default() {
        let scaling = scaling(&json!({"maxReplicaCount": 7, "minReplicaCount": 2}));
        assert_eq!(scaling.behavior, Behavior::kubernetes_default(2, 7));
        assert_eq!((scaling.polling_interval_us, scaling.cooldown_us), (30 * SECOND, 300 * SECOND));
        assert_eq!((scaling.min_replicas, scaling.push), (2, false));
    }

    #[test]
    fn every_field_is_read() {
        let rules = |select: &str| {
            json!({
                "stabilizationWindowSeconds": 7,
                "selectPolicy": select,
                "tolerance": "0.25",
                "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 60},
                    {"type": "Percent", "value": 50, "periodSeconds": 90},
                ],
            })
        };
        let scaling = scaling(&json!({
            "pollingInterval": 15,
            "cooldownPeriod": 60,
            "minReplicaCount": 3,
            "idleReplicaCount": 0,
            "maxReplicaCount": 9,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {
                "scaleUp": rules("Min"),
                "scaleDown": rules("Disabled"),
            }}},
            "triggers": [{"type": "external-push"}],
        }));
        let read = |select| Rules {
            stabilization_window: Duration::from_secs(7),
            policies: vec![
                StepPolicy { step: Step::Pods(4), period: Duration::from_secs(60) },
                StepPolicy { step: Step::Percent(50), period: Duration::from_secs(90) },
            ],
            select,
            tolerance: 0.25,
        };
        let behavior = Behavior {
            min_replicas: 3,
            max_replicas: 9,
            up: read(Select::Min),
            down: read(Select::Disabled),
        };
        let expected = Scaling {
            behavior,
            min_replicas: 0,
            polling_interval_us: 15 * SECOND,
            cooldown_us: 60 * SECOND,
            push: true,
        };
        assert_eq!(scaling, expected);
    }

    #[test]
    fn a_target_is_an_average_unless_it_says_otherwise() {
        assert_eq!(target(&json!({"metricType": "Value"}), 2.0), Target::Value(2.0));
        assert_eq!(target(&json!({}), 2.0), Target::AverageValue(2.0));
    }
}
