//! What to do so that the cluster holds the ScaledObject that we want.

use std::{borrow::Borrow, fmt};

use serde_json::{Value, json};

use super::{KIND, MANAGED_BY, Owner, TRIGGER_AUTHENTICATION, TRIGGER_NAME, drift, managed_fields};

/// What to do with the one ScaledObject that an InferenceSet is to have, and with others that
/// were made for it by mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub action: Action,
    /// Further ScaledObjects of ours for the same InferenceSet, to be deleted.
    pub surplus: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Everything is as it should be, or what is in the way is already going.
    Nothing,
    /// Apply this object; there is none yet.
    Create(Value),
    /// Apply this object, with force: a field of ours has another value. It holds the
    /// resourceVersion that was looked at: on a conflict look again and plan anew.
    Apply(Value),
    /// Take over what the replaced scaler wrote: first the JSON patch, which changes no more
    /// than who owns which field, then the object, with force and with the resourceVersion
    /// that the patch answered. Both are refused if somebody was faster.
    Adopt { patch: Value, object: Value },
    /// Delete this object of ours.
    Delete(Target),
    /// Somebody else scales the InferenceSet: touch nothing.
    Conflict(Rival),
}

/// An object to be deleted; with its UID, so that a new one of the same name is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Something that is not ours and stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    pub kind: String,
    pub name: String,
    pub claim: Claim,
}

/// What a rival holds that our ScaledObject needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It scales the same InferenceSet.
    Target,
    /// It has the name under which ours would be made.
    Name,
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, claim } = self;
        match claim {
            Claim::Target => write!(f, "{kind} {name} of somebody else scales this InferenceSet already"),
            Claim::Name => write!(f, "{kind} {name} of somebody else has the name of the one to be made"),
        }
    }
}

/// Plans for `owner`. `desired` is what [`super::build`] gives, or `None` where there is to
/// be no ScaledObject: then those that we ever applied go, and others stay ([`left_alone`]). `observed` are the ScaledObjects of the namespace with their
/// managedFields, others' included; `rival` is an HPA of somebody else ([`hpa_rival`]).
#[must_use]
pub fn plan(
    owner: &Owner,
    desired: Option<&Value>,
    observed: &[impl Borrow<Value>],
    rival: Option<&Rival>,
) -> Plan {
    let observed: Vec<&Value> = observed.iter().map(Borrow::borrow).collect();
    let mut ours: Vec<&Value> = observed.iter().copied().filter(|object| is_ours(object, owner)).collect();
    ours.sort_by_key(|object| (text(object, "/metadata/creationTimestamp"), text(object, "/metadata/name")));
    let Some(desired) = desired else {
        let applied = |object: &&&Value| !is_going(object) && managed_fields::is_applied(object);
        let mut going = ours.iter().filter(applied).map(|object| target(object));
        let action = going.next().map_or(Action::Nothing, Action::Delete);
        return Plan { action, surplus: going.collect() };
    };
    let kept = ours.iter().find(|object| is_kept(object, owner)).copied();
    let surplus = ours
        .iter()
        .copied()
        .filter(|object| !is_going(object) && Some(*object) != kept)
        .map(target)
        .collect::<Vec<_>>();
    if let Some(rival) = others(owner, &observed, kept).or_else(|| rival.cloned()) {
        return Plan { action: Action::Conflict(rival), surplus };
    }
    let action = match kept {
        Some(kept) => towards(desired, kept, owner),
        // KEDA refuses a second ScaledObject for the same target: once the old one is gone its
        // event leads here again.
        None if !ours.is_empty() => Action::Nothing,
        None => Action::Create(desired.clone()),
    };
    Plan { action, surplus }
}

/// The names of those that the replaced scaler made for `owner` and that stay where there is to
/// be no ScaledObject: it left them in place when it was switched off, so that by now they may be
/// somebody's own.
#[must_use]
pub fn left_alone<'a>(owner: &Owner, observed: &[&'a Value]) -> Vec<&'a str> {
    let stays = |object: &&Value| {
        is_ours(object, owner)
            && is_marked(object)
            && !is_going(object)
            && !managed_fields::is_applied(object)
    };
    observed.iter().copied().filter(stays).map(|object| text(object, "/metadata/name")).collect()
}

/// What to do with the ScaledObject that stays.
fn towards(desired: &Value, kept: &Value, owner: &Owner) -> Action {
    let mut object = desired.clone();
    // It may have been made under another name.
    object["metadata"]["name"] = kept["metadata"]["name"].clone();
    // A trigger that a user adds meanwhile must not be lost with the list that we looked at.
    object["metadata"]["resourceVersion"] = kept["metadata"]["resourceVersion"].clone();
    let Triggers { list, replaced } = triggers(desired, kept, owner);
    object["spec"]["triggers"] = Value::Array(list);
    if !managed_fields::is_applied_only(kept) {
        // A formula over triggers that go makes no sense without them.
        let formula = replaced && kept.pointer("/spec/advanced/scalingModifiers").is_some();
        let patch = json!([
            {"op": "add", "path": "/metadata/managedFields", "value": managed_fields::taken_over(kept, formula)},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]},
        ]);
        return Action::Adopt { patch, object };
    }
    if drift::covers(kept, &object) && !managed_fields::owns_more_than(kept, &object) {
        return Action::Nothing;
    }
    Action::Apply(object)
}

struct Triggers {
    list: Vec<Value>,
    /// Whether triggers of the replaced scaler were left out.
    replaced: bool,
}

/// Ours first, so that its index and with it the HPA's metric name stays; then every other
/// trigger that is not the replaced scaler's, in its order. The list is owned as a whole, so
/// what is left out is gone.
fn triggers(desired: &Value, kept: &Value, owner: &Owner) -> Triggers {
    let mut list: Vec<Value> = desired["spec"]["triggers"].as_array().cloned().unwrap_or_default();
    let mut replaced = false;
    for trigger in kept["spec"]["triggers"].as_array().into_iter().flatten() {
        if is_replaced_scalers(trigger, owner) {
            replaced = true;
        } else if trigger["name"] != TRIGGER_NAME {
            list.push(trigger.clone());
        }
    }
    Triggers { list, replaced }
}

/// Whether the replaced scaler made this trigger. It named them after the metric, or after
/// itself, or `readiness_gate`; an `external` trigger of another name is a user's.
fn is_replaced_scalers(trigger: &Value, owner: &Owner) -> bool {
    let metadata = &trigger["metadata"];
    let name = trigger["name"].as_str().unwrap_or_default();
    let metric = metadata["metricName"].as_str().unwrap_or_default();
    trigger["type"] == "external"
        && trigger["authenticationRef"]["name"] == TRIGGER_AUTHENTICATION
        && metadata["inferenceSetName"] == *owner.key.name
        && metadata["inferenceSetNamespace"] == *owner.key.namespace
        && (name == TRIGGER_NAME || name == "readiness_gate" || name == as_formula_variable(metric))
}

/// A metric's name as the replaced scaler made a variable of its formula from it.
fn as_formula_variable(metric: &str) -> String {
    let variable: String =
        metric.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if variable.starts_with(|c: char| c.is_ascii_digit()) { format!("_{variable}") } else { variable }
}

/// Whether `object` is the replaced scaler's work for `owner` still, wholly or in part: it is
/// to be taken over, or its takeover broke off.
#[must_use]
pub fn is_the_replaced_scalers(object: &Value, owner: &Owner) -> bool {
    let triggers = object["spec"]["triggers"].as_array();
    is_ours(object, owner)
        && !is_left_behind(object, owner)
        && (!managed_fields::is_applied_only(object)
            || triggers.into_iter().flatten().any(|trigger| is_replaced_scalers(trigger, owner)))
}

/// Whether `object` is the one ScaledObject of `owner`, or would be if it were the only one.
pub(super) fn is_kept(object: &Value, owner: &Owner) -> bool {
    is_ours(object, owner) && !is_going(object) && !is_left_behind(object, owner)
}

/// Whether we, or the replaced scaler, made `object` for `owner` or for an InferenceSet of
/// the same name before it.
fn is_ours(object: &Value, owner: &Owner) -> bool {
    if text(object, "/metadata/namespace") != &*owner.key.namespace {
        return false;
    }
    match controller(object) {
        Some(reference) if reference["uid"] == *owner.uid => true,
        Some(reference) if reference["kind"] != "InferenceSet" => false,
        _ => is_marked(object) && scales(object, owner),
    }
}

fn is_marked(object: &Value) -> bool {
    object["metadata"]["annotations"][MANAGED_BY.0] == MANAGED_BY.1
}

/// Whether the InferenceSet that `object` belongs to is gone: the garbage collector is about
/// to take it away, and it can't have a second controller.
fn is_left_behind(object: &Value, owner: &Owner) -> bool {
    controller(object).is_some_and(|reference| reference["uid"] != *owner.uid)
}

fn controller(object: &Value) -> Option<&Value> {
    object["metadata"]["ownerReferences"].as_array()?.iter().find(|reference| reference["controller"] == true)
}

/// Whether `object` scales the InferenceSet, under whatever version it names it.
fn scales(object: &Value, owner: &Owner) -> bool {
    let target = &object["spec"]["scaleTargetRef"];
    let group = target["apiVersion"].as_str().and_then(|version| version.split('/').next());
    group == Some("kaito.sh") && target["kind"] == "InferenceSet" && target["name"] == *owner.key.name
}

fn is_going(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Somebody else's ScaledObject that is in the way.
fn others(owner: &Owner, observed: &[&Value], kept: Option<&Value>) -> Option<Rival> {
    let in_the_way = |object: &&&Value| {
        let same_name = kept.is_none() && text(object, "/metadata/name") == &*owner.key.name;
        text(object, "/metadata/namespace") == &*owner.key.namespace
            && !is_ours(object, owner)
            && (scales(object, owner) || same_name)
    };
    observed.iter().find(in_the_way).map(|object| Rival {
        kind: KIND.to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        claim: if scales(object, owner) { Claim::Target } else { Claim::Name },
    })
}

/// Whether `hpa` scales the InferenceSet and no ScaledObject stands behind it.
#[must_use]
pub fn hpa_rival(owner: &Owner, hpa: &Value) -> Option<Rival> {
    let from_keda = controller(hpa).is_some_and(|reference| reference["kind"] == KIND);
    let same_namespace = text(hpa, "/metadata/namespace") == &*owner.key.namespace;
    (same_namespace && scales(hpa, owner) && !from_keda).then(|| Rival {
        kind: "HorizontalPodAutoscaler".to_owned(),
        name: text(hpa, "/metadata/name").to_owned(),
        claim: Claim::Target,
    })
}

fn target(object: &Value) -> Target {
    let text = |path| text(object, path).to_owned();
    Target {
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        uid: text("/metadata/uid"),
    }
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}
