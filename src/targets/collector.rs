//! The metrics of targets, read from their snapshots when a page is asked for.

use std::collections::{BTreeMap, HashSet};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::Targets;

/// Exports what is decided about each of `targets`.
#[must_use]
pub fn collector(targets: Targets) -> Box<dyn Collector> {
    Box::new(TargetCollector { targets })
}

/// Reads the targets when the page is asked for, so that a decision costs no metric update.
#[derive(Debug)]
struct TargetCollector {
    targets: Targets,
}

impl Collector for TargetCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut targets = self.targets.all();
        let count = ConstGauge::new(i64::try_from(targets.len()).unwrap_or(i64::MAX));
        count.encode(encoder.encode_descriptor(
            "keda_kaito_scaler_targets",
            "Targets in use",
            None,
            count.metric_type(),
        )?)?;
        // After an edit of a trigger its old target lingers until it expires: the one used
        // last speaks, since a page may not hold a series twice.
        targets.sort_by_key(|target| std::cmp::Reverse(target.last_used()));
        let all = targets.clone();
        let mut seen = HashSet::new();
        targets.retain(|target| {
            let names: Vec<_> = target.specs.iter().map(|spec| spec.name.clone()).collect();
            let trigger = &target.trigger;
            let object = (target.namespace.clone(), target.scaled_object.clone());
            seen.insert((object, trigger.inference_set.clone(), trigger.rule.aggregation(), names))
        });
        let targets: Vec<_> = targets.into_iter().map(|target| (target.snapshot(), target)).collect();
        let now = self.targets.clock.now();

        macro_rules! each {
            ($name:literal, $help:literal, $unit:expr, |$snapshot:ident, $index:ident| $value:expr) => {{
                let unit: Option<&Unit> = $unit;
                let kind = ConstGauge::new(0.0_f64).metric_type();
                let mut family =
                    encoder.encode_descriptor(concat!("keda_kaito_scaler_", $name), $help, unit, kind)?;
                for ($snapshot, target) in &targets {
                    for ($index, spec) in target.specs.iter().enumerate() {
                        let value: Option<f64> = $value;
                        let Some(value) = value else { continue };
                        let labels = [
                            ("namespace", &*target.namespace),
                            ("scaledobject", &*target.scaled_object),
                            ("inferenceset", &*target.trigger.inference_set.name),
                            ("metric", spec.name.as_str()),
                            ("aggregation", target.trigger.rule.aggregation()),
                        ];
                        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                    }
                }
            }};
        }
        each!(
            "target_value",
            "The value that KEDA gets; none while it is unknown",
            None,
            |snapshot, index| {
                snapshot.values.get(index).and_then(|value| value.as_ref().ok()).map(|value| value.number())
            }
        );
        each!("target_unknown", "1 while KEDA gets an error instead of a value", None, |snapshot, index| {
            snapshot.values.get(index).map(|value| f64::from(u8::from(value.is_err())))
        });
        each!("target_active", "1 while the target is active", None, |snapshot, _index| {
            Some(f64::from(u8::from(snapshot.activity.is_active())))
        });
        each!("stuck_in_flight", "Replicas that were not up by their deadline", None, |snapshot, _index| {
            Some(f64::from(snapshot.stuck))
        });
        each!(
            "snapshot_age",
            "Time since the decision that is served",
            Some(&Unit::Seconds),
            |snapshot, _index| Some(now.saturating_since(snapshot.at).as_secs_f64())
        );
        let kind = ConstCounter::new(0_u64).metric_type();
        let help = "Times that demand met no replica for 30 s although it was pushed";
        let mut family =
            encoder.encode_descriptor("keda_kaito_scaler_wake_not_honoured", help, None, kind)?;
        // One ScaledObject may have several triggers.
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for target in &all {
            let object = (&*target.namespace, &*target.scaled_object);
            *counts.entry(object).or_default() += target.not_honoured();
        }
        for ((namespace, scaled_object), count) in counts {
            let labels = [("namespace", namespace), ("scaledobject", scaled_object)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
