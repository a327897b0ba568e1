//! Field ownership and server-side apply, to the extent that a client can tell the difference:
//! which fields come, stay and go, and who is in the way. Lists are owned whole.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The names of the fields from the root to a leaf.
type Path = Vec<String>;

/// What the API server itself writes and nobody owns.
const UNOWNED: [&str; 9] = [
    "apiVersion",
    "kind",
    "metadata/name",
    "metadata/namespace",
    "metadata/uid",
    "metadata/resourceVersion",
    "metadata/creationTimestamp",
    "metadata/managedFields",
    "status",
];

/// `object` as after an Update by `manager`, unless it says itself who wrote it.
pub(super) fn owned_by(mut object: Value, manager: &str) -> Value {
    if object["metadata"]["managedFields"].is_null() {
        object["metadata"]["managedFields"] = json!([entry(manager, "Update", &leaves(&object))]);
    }
    object
}

/// The object after `manager` has applied `applied`.
///
/// # Errors
/// Where the resourceVersion is another one, and without `force` where somebody else owns a
/// field that would change.
pub(super) fn apply(
    existing: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, String> {
    let wanted = &applied["metadata"]["resourceVersion"];
    if !wanted.is_null() && existing.is_none_or(|existing| existing["metadata"]["resourceVersion"] != *wanted)
    {
        return Err("the object has been modified".to_owned());
    }
    let mut object = existing.cloned().unwrap_or_else(|| json!({"metadata": {"managedFields": []}}));
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let is_ours = |entry: &Value| entry["manager"] == manager && entry["operation"] == "Apply";
    let (ours, mut others): (Vec<Value>, Vec<Value>) = entries.into_iter().partition(is_ours);
    let new = leaves(applied);

    for other in &mut others {
        let owned = read_tree(&other["fieldsV1"]);
        let lost =
            |path: &&Path| new.iter().any(|it| overlap(it, path) && value(&object, it) != value(applied, it));
        let lost: BTreeSet<Path> = owned.iter().filter(lost).cloned().collect();
        if let (Some(path), false) = (lost.first(), force) {
            return Err(format!("conflict with {} over .{}", other["manager"], path.join(".")));
        }
        if !lost.is_empty() {
            other["fieldsV1"] = to_tree(&owned.difference(&lost).cloned().collect());
        }
    }
    let owned_by_others: Vec<Path> = others.iter().flat_map(|other| read_tree(&other["fieldsV1"])).collect();
    for path in ours.iter().flat_map(|entry| read_tree(&entry["fieldsV1"])) {
        let stays = new.iter().chain(&owned_by_others).any(|it| overlap(it, &path));
        if !stays {
            remove(&mut object, &path);
        }
    }
    let version = object["metadata"]["resourceVersion"].clone();
    merge(&mut object, applied);
    object["metadata"]["resourceVersion"] = version;
    others.push(entry(manager, "Apply", &new));
    object["metadata"]["managedFields"] = Value::Array(others);
    Ok(object)
}

/// Sets every field of `from`, lists whole.
pub(super) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn entry(manager: &str, operation: &str, owned: &BTreeSet<Path>) -> Value {
    json!({
        "manager": manager,
        "operation": operation,
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": to_tree(owned),
    })
}

fn leaves(object: &Value) -> BTreeSet<Path> {
    fn collect(value: &Value, path: &mut Path, into: &mut BTreeSet<Path>) {
        if UNOWNED.contains(&path.join("/").as_str()) {
            return;
        }
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    path.push(key.clone());
                    collect(value, path, into);
                    path.pop();
                }
            }
            _ => {
                into.insert(path.clone());
            }
        }
    }
    let mut all = BTreeSet::new();
    collect(object, &mut Vec::new(), &mut all);
    all
}

fn read_tree(tree: &Value) -> BTreeSet<Path> {
    fn collect(tree: &Value, path: &mut Path, into: &mut BTreeSet<Path>) {
        let fields = tree.as_object().into_iter().flatten();
        let mut is_leaf = true;
        for (key, below) in fields.filter_map(|(key, below)| Some((key.strip_prefix("f:")?, below))) {
            is_leaf = false;
            path.push(key.to_owned());
            collect(below, path, into);
            path.pop();
        }
        if is_leaf && !path.is_empty() {
            into.insert(path.clone());
        }
    }
    let mut all = BTreeSet::new();
    collect(tree, &mut Vec::new(), &mut all);
    all
}

fn to_tree(paths: &BTreeSet<Path>) -> Value {
    let mut tree = Value::Object(Map::new());
    for path in paths {
        let mut node = &mut tree;
        for field in path {
            node = &mut node[format!("f:{field}")];
            if node.is_null() {
                *node = Value::Object(Map::new());
            }
        }
    }
    tree
}

/// Whether one of two paths leads to the other.
fn overlap(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn value<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, field| value.get(field))
}

/// Takes a field away, and what is empty without it.
fn remove(object: &mut Value, path: &[String]) {
    let (Some((field, rest)), Some(fields)) = (path.split_first(), object.as_object_mut()) else { return };
    let Some(below) = fields.get_mut(field) else { return };
    remove(below, rest);
    if rest.is_empty() || below.as_object().is_some_and(Map::is_empty) {
        fields.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(spec: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn an_apply_owns_sets_and_takes_away_its_own_fields_only() {
        let theirs = owned_by(applied(&json!({"theirs": 1})), "kubectl");
        let both =
            apply(Some(&theirs), &applied(&json!({"ours": {"a": 1, "b": 2}, "list": [1]})), "us", false)
                .unwrap();
        assert_eq!(both["spec"], json!({"theirs": 1, "ours": {"a": 1, "b": 2}, "list": [1]}));
        let less = apply(Some(&both), &applied(&json!({"list": [2]})), "us", false).unwrap();
        assert_eq!(less["spec"], json!({"theirs": 1, "list": [2]}));
        assert_eq!(apply(Some(&less), &applied(&json!({"list": [2]})), "us", false).unwrap(), less);
    }

    #[test]
    fn what_somebody_else_owns_is_taken_by_force_alone() {
        let theirs = owned_by(applied(&json!({"a": 1, "b": {"c": 1}})), "kubectl");
        assert!(
            apply(Some(&theirs), &applied(&json!({"a": 1})), "us", false).is_ok(),
            "the same is no conflict"
        );
        for conflicting in [json!({"a": 2}), json!({"b": {"c": 2}}), json!({"b": 3})] {
            let error = apply(Some(&theirs), &applied(&conflicting), "us", false).unwrap_err();
            assert!(error.contains("kubectl"), "{error}");
            let forced = apply(Some(&theirs), &applied(&conflicting), "us", true).unwrap();
            let after = apply(Some(&forced), &applied(&json!({"d": 1})), "us", false).unwrap();
            assert!(after["spec"].as_object().unwrap().len() == 2, "what was taken goes with us: {after}");
        }
    }

    #[test]
    fn an_apply_under_another_resource_version_is_refused() {
        let mut theirs = owned_by(applied(&json!({"a": 1})), "kubectl");
        theirs["metadata"]["resourceVersion"] = "7".into();
        let mut ours = applied(&json!({"b": 1}));
        for (version, taken) in [("7", true), ("6", false)] {
            ours["metadata"]["resourceVersion"] = version.into();
            assert_eq!(apply(Some(&theirs), &ours, "us", true).is_ok(), taken, "{version}");
        }
        assert!(apply(None, &ours, "us", true).is_err());
    }
}
