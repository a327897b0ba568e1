//! What KEDA will make of a ScaledObject that somebody wrote, and what is wrong with its
//! triggers for this scaler.

use serde_saphyr::Spanned;

use super::{
    Checked, Weight,
    document::{Document, Fields, Metadata, Node},
};
use crate::config::trigger::{Aggregation, Rule, Trigger, unknown_keys};

/// KEDA's values for what a ScaledObject leaves out.
const MIN_REPLICAS: i64 = 0;
const MAX_REPLICAS: i64 = 100;
const POLLING_INTERVAL: i64 = 30;

/// Checks a ScaledObject; `false` where none of its triggers is for this scaler.
pub(super) fn check(document: &Document, metadata: &Spanned<Metadata>, checked: &mut Checked) -> bool {
    let spec = &document.spec;
    let ours: Vec<_> =
        spec.maps("triggers").enumerate().filter(|(_, (_, trigger))| is_ours(trigger)).collect();
    if ours.is_empty() {
        return false;
    }
    let object = Object::read(spec, metadata);
    object.check_bounds(checked);
    let metrics: Vec<String> = ours
        .into_iter()
        .filter_map(|(index, (line, trigger))| object.check_trigger(index, line, trigger, checked))
        .flatten()
        .collect();
    if !metrics.is_empty() {
        checked.find(object.line, Weight::Note, object.outcome(&metrics));
    }
    true
}

/// Whether a trigger speaks to this scaler: by what it asks about, or by whom it calls.
fn is_ours(trigger: &Fields) -> bool {
    let is_external = matches!(trigger.text("type"), Some("external" | "external-push"));
    let Some(metadata) = trigger.fields("metadata") else { return false };
    let names_a_set = metadata.iter().any(|(key, _)| key.to_ascii_lowercase().starts_with("inferenceset"));
    let calls_us = metadata.text("scalerAddress").is_some_and(|it| it.contains("keda-kaito-scaler"));
    is_external && (names_a_set || calls_us)
}

/// What all triggers of a ScaledObject share.
struct Object<'a> {
    name: &'a str,
    namespace: &'a str,
    line: u64,
    spec: &'a Fields,
    min: i64,
    max: i64,
    /// `spec.advanced.scalingModifiers.formula` is there: KEDA gives the HPA its result.
    has_formula: bool,
}

impl<'a> Object<'a> {
    fn read(spec: &'a Fields, metadata: &'a Spanned<Metadata>) -> Self {
        let modifiers = spec.fields("advanced").and_then(|it| it.fields("scalingModifiers"));
        Self {
            name: &metadata.value.name,
            namespace: &metadata.value.namespace,
            line: metadata.referenced.line(),
            spec,
            min: spec.integer("minReplicaCount").unwrap_or(MIN_REPLICAS),
            max: spec.integer("maxReplicaCount").unwrap_or(MAX_REPLICAS),
            has_formula: modifiers.is_some_and(|it| it.get("formula").is_some()),
        }
    }

    fn goes_to_zero(&self) -> bool {
        self.min == 0 || self.spec.integer("idleReplicaCount") == Some(0)
    }

    fn check_bounds(&self, checked: &mut Checked) {
        let Self { min, max, .. } = self;
        if min > max {
            let line = self.spec.line_of("minReplicaCount", self.line);
            let text =
                format!("minReplicaCount is {min}, above maxReplicaCount, which is {max}: KEDA refuses it");
            checked.find(line, Weight::Problem, text);
        }
    }

    /// Checks one trigger; gives what the HPA gets of it, or `None` where it can't be read.
    fn check_trigger(
        &self,
        index: usize,
        line: u64,
        written: &Fields,
        checked: &mut Checked,
    ) -> Option<Vec<String>> {
        let metadata = written.fields("metadata")?;
        let pairs = texts(metadata, checked)?;
        let line_of = |key: &str| metadata.line_of(key.split(['[', '.']).next().unwrap_or(key), line);
        let trigger = match Trigger::parse(pairs.iter().copied(), None) {
            Ok(trigger) => trigger,
            Err(problems) => {
                for problem in problems.0 {
                    checked.find(line_of(&problem.key), Weight::Problem, problem);
                }
                return None;
            }
        };
        for key in unknown_keys(pairs.iter().map(|(key, _)| *key)) {
            let text = format!("{key} is a key that neither KEDA nor this scaler reads");
            checked.find(line_of(key), Weight::Warning, text);
        }
        let key = if matches!(trigger.rule, Rule::Policy(_)) { "policy" } else { "metricName" };
        for doubt in trigger.doubts() {
            checked.find(line_of(key), Weight::Warning, doubt);
        }
        if metadata.text("scalerAddress").is_none_or(str::is_empty) {
            checked.find(
                line,
                Weight::Problem,
                "scalerAddress is missing: it must be HOST:PORT of the scaler",
            );
        }
        if written.fields("authenticationRef").is_none() {
            let text = "there is no authenticationRef: KEDA connects in plaintext, which the scaler refuses in a \
                        cluster; name the ClusterTriggerAuthentication keda-kaito-scaler-creds";
            checked.find(line, Weight::Warning, text);
        }
        if written.text("type") == Some("external") && self.goes_to_zero() {
            let interval = self.spec.integer("pollingInterval").unwrap_or(POLLING_INTERVAL);
            let text = format!(
                "KEDA asks a trigger of type external every {interval} s alone: with external-push the first request \
                 wakes the model at once"
            );
            checked.find(written.line_of("type", line), Weight::Warning, text);
        }
        self.check_metric_type(line, written, &trigger, checked);
        self.check_whose(line, &trigger, checked);
        let per_replica = if adds_up(&trigger.rule) { " per replica" } else { "" };
        let specs = trigger.metric_specs().into_iter();
        Some(specs.map(|it| format!("s{index}-{} ({}{per_replica})", it.name, it.target)).collect())
    }

    /// How the HPA treats the value has to fit what the value is.
    fn check_metric_type(&self, line: u64, written: &Fields, trigger: &Trigger, checked: &mut Checked) {
        let line = written.line_of("metricType", line);
        let aggregation = trigger.rule.aggregation();
        match written.text("metricType").unwrap_or("AverageValue") {
            "AverageValue" if !adds_up(&trigger.rule) && !self.has_formula => {
                let text = format!(
                    "{aggregation} is no total: with metricType AverageValue the HPA divides it by the replicas; use \
                     it in a formula of scalingModifiers"
                );
                checked.find(line, Weight::Warning, text);
            }
            "Value" if adds_up(&trigger.rule) && !self.has_formula => {
                let text = format!(
                    "{aggregation} is a total: with metricType Value the HPA multiplies by the replicas that are \
                     ready; use AverageValue"
                );
                checked.find(line, Weight::Warning, text);
            }
            "AverageValue" | "Value" => {}
            other => {
                let text = format!("metricType is {other:?}, but must be AverageValue or Value");
                checked.find(line, Weight::Problem, text);
            }
        }
    }

    /// Whom the trigger asks about should be whom KEDA scales.
    fn check_whose(&self, line: u64, trigger: &Trigger, checked: &mut Checked) {
        let set = &trigger.inference_set;
        let target = self.spec.fields("scaleTargetRef");
        let kind = target.and_then(|it| it.text("kind")).unwrap_or("Deployment");
        let name = target.and_then(|it| it.text("name")).unwrap_or_default();
        if (kind, name) != ("InferenceSet", &*set.name) {
            let line = self.spec.line_of("scaleTargetRef", line);
            let text =
                format!("it scales {kind} {name}, and the trigger asks about InferenceSet {}", set.name);
            checked.find(line, Weight::Warning, text);
        }
        if !self.namespace.is_empty() && self.namespace != &*set.namespace {
            let text = format!(
                "the InferenceSet is in namespace {} and the ScaledObject in {}: that needs --allow-cross-namespace",
                set.namespace, self.namespace
            );
            checked.find(line, Weight::Warning, text);
        }
    }

    /// What KEDA makes of it all.
    fn outcome(&self, metrics: &[String]) -> String {
        let floor = self.spec.integer("idleReplicaCount").unwrap_or(self.min);
        let zero = match (self.goes_to_zero(), self.spec.integer("cooldownPeriod").unwrap_or(300)) {
            (true, cooldown) => format!(", {floor} after {cooldown} s without demand"),
            (false, _) => String::new(),
        };
        format!(
            "KEDA makes the HPA keda-hpa-{}: {} to {} replicas{zero}, by {}",
            self.name,
            self.min.max(1),
            self.max,
            metrics.join(", ")
        )
    }
}

/// Whether the value that KEDA gets is one that adds up over replicas, so that divided by
/// their number it is what each has.
fn adds_up(rule: &Rule) -> bool {
    matches!(rule, Rule::Policy(_) | Rule::Single { aggregation: Aggregation::Sum, .. })
}

/// The metadata's texts; `None` where something is none, which the API server refuses.
fn texts<'a>(metadata: &'a Fields, checked: &mut Checked) -> Option<Vec<(&'a str, &'a str)>> {
    let mut texts = Vec::new();
    let mut refused = false;
    for (key, node) in metadata.iter() {
        match &node.value {
            Node::Leaf(value) if value.is_null() => {}
            node @ Node::Leaf(_) if node.text().is_some() => {
                texts.extend(node.text().map(|text| (key, text)));
            }
            Node::Leaf(value) => {
                refused = true;
                let text = format!("{key} is {value}, but must be text: put it in quotes");
                checked.find(node.referenced.line(), Weight::Problem, text);
            }
            Node::List(_) | Node::Map(_) => {
                refused = true;
                let text =
                    format!("{key} is a list or a map, but must be text: write `{key}: |` and JSON below it");
                checked.find(node.referenced.line(), Weight::Problem, text);
            }
        }
    }
    (!refused).then_some(texts)
}
