//! Who owns which field of an object, as the API server keeps it in
//! `metadata.managedFields`.
//!
//! An entry's `fieldsV1` is a tree whose keys are `f:NAME` for a field, `k:{…}` and `v:…` for
//! an entry of a list, and `.` for the node itself. An Apply takes a field away only if the
//! same manager applied it before and nobody else owns it. So what the replaced scaler wrote
//! by Update must first become ours, or it would stay for ever.

use serde_json::{Map, Value, json};

use super::{API_VERSION, FIELD_MANAGER};

/// The tree of the fields that `operation` under our name owns in `observed`.
fn owned<'a>(observed: &'a Value, operation: &str) -> Option<&'a Value> {
    entries(observed).iter().find(|entry| is_ours(entry, operation)).map(|entry| &entry["fieldsV1"])
}

fn entries(observed: &Value) -> &[Value] {
    observed["metadata"]["managedFields"].as_array().map_or(&[], Vec::as_slice)
}

fn is_ours(entry: &Value, operation: &str) -> bool {
    entry["manager"] == FIELD_MANAGER && entry["operation"] == operation && entry["subresource"].is_null()
}

/// Whether we ever applied: the replaced scaler only updated.
pub(super) fn is_applied(observed: &Value) -> bool {
    owned(observed, "Apply").is_some()
}

/// Whether all that was written under our name was applied: else it has to be taken over.
pub(super) fn is_applied_only(observed: &Value) -> bool {
    is_applied(observed) && owned(observed, "Update").is_none()
}

/// Whether we applied a field before that `desired` no longer holds: the next Apply takes it
/// away.
pub(super) fn owns_more_than(observed: &Value, desired: &Value) -> bool {
    owned(observed, "Apply").is_some_and(|tree| exceeds(tree, desired))
}

fn exceeds(tree: &Value, desired: &Value) -> bool {
    let Value::Object(tree) = tree else { return false };
    tree.iter().any(|(key, below)| match key.strip_prefix("f:") {
        Some(field) => desired.get(field).is_none_or(|desired| exceeds(below, desired)),
        // Lists are compared whole where their content is compared.
        None => false,
    })
}

/// The `managedFields` under which everything that the replaced scaler wrote is ours by
/// Apply, and with `formula` also the scaling modifiers, whoever owns them.
pub(super) fn taken_over(observed: &Value, formula: bool) -> Value {
    let modifiers = json!({"f:spec": {"f:advanced": {"f:scalingModifiers": {}}}});
    let mut ours = Value::Object(Map::new());
    let mut others = Vec::new();
    for entry in entries(observed) {
        if is_ours(entry, "Apply") || is_ours(entry, "Update") {
            merge(&mut ours, &entry["fieldsV1"]);
        } else if entry["manager"].is_string() {
            // An empty entry is what remains where somebody cleared the list.
            others.push(entry.clone());
        }
    }
    if formula {
        merge(&mut ours, &modifiers);
        for entry in &mut others {
            if let Some(advanced) =
                entry.pointer_mut("/fieldsV1/f:spec/f:advanced").and_then(Value::as_object_mut)
            {
                advanced.remove("f:scalingModifiers");
            }
        }
    }
    others.push(json!({
        "manager": FIELD_MANAGER,
        "operation": "Apply",
        "apiVersion": API_VERSION,
        "fieldsType": "FieldsV1",
        "fieldsV1": ours,
    }));
    Value::Array(others)
}

fn merge(into: &mut Value, from: &Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        for (key, value) in from {
            merge(into.entry(key).or_insert_with(|| Value::Object(Map::new())), value);
        }
    }
}
