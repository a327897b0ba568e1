//! What is done about each state of the cluster, and that doing it leads to rest.

use super::*;

/// What the API server makes of an Apply by our manager: enough of it to see which fields
/// come, stay and go.
fn apply(existing: Option<&Value>, applied: &Value) -> Value {
    let mut object = existing.cloned().unwrap_or_else(|| {
        json!({"metadata": {"uid": "uid-of-so", "creationTimestamp": "2026-11-01T00:00:00Z", "managedFields": []}})
    });
    let sent = &applied["metadata"]["resourceVersion"];
    assert!(sent.is_null() || *sent == object["metadata"]["resourceVersion"], "409");
    let fields = tree(applied);
    let entries = object["metadata"]["managedFields"].as_array().unwrap().clone();
    let (ours, others): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply");
    for entry in &ours {
        remove(&mut object, &entry["fieldsV1"], &fields, &others);
    }
    set(&mut object, applied);
    let mut entries = others;
    entries.push(json!({"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields}));
    object["metadata"]["managedFields"] = Value::Array(entries);
    object["metadata"]["resourceVersion"] = "after-apply".into();
    object
}

/// The fields of an applied object as a fieldsV1 tree; the list of triggers is atomic.
fn tree(value: &Value) -> Value {
    let Value::Object(fields) = value else { return json!({}) };
    let skip = ["apiVersion", "kind", "name", "namespace", "resourceVersion"];
    let top = fields.contains_key("kind");
    let mut below = Map::new();
    for (key, value) in fields {
        if (top || fields.contains_key("labels")) && skip.contains(&key.as_str()) && !value.is_object() {
            continue;
        }
        below.insert(format!("f:{key}"), tree(value));
    }
    Value::Object(below)
}

/// Takes away what `owned` has and `kept` has not, unless another manager owns it too.
fn remove(object: &mut Value, owned: &Value, kept: &Value, others: &[Value]) {
    let (Value::Object(owned), Value::Object(fields)) = (owned, object) else { return };
    for (key, below) in owned {
        let Some(field) = key.strip_prefix("f:") else { continue };
        let shared: Vec<Value> = others
            .iter()
            .filter_map(|entry| entry.get("fieldsV1").unwrap_or(entry).get(key).cloned())
            .collect();
        match kept.get(key) {
            Some(kept) => {
                if let Some(object) = fields.get_mut(field) {
                    remove(object, below, kept, &shared);
                }
            }
            None if shared.is_empty() => {
                fields.remove(field);
            }
            None => {}
        }
    }
}

fn set(object: &mut Value, applied: &Value) {
    match (object, applied) {
        (Value::Object(object), Value::Object(applied)) => {
            for (key, value) in applied {
                set(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, applied) => *object = applied.clone(),
    }
}

/// The object after a JSON patch of `add` and `replace`.
fn patched(object: &Value, patch: &Value) -> Value {
    let mut object = object.clone();
    for step in patch.as_array().unwrap() {
        let place = step["path"].as_str().unwrap();
        if place == "/metadata/resourceVersion" {
            assert_eq!(object["metadata"]["resourceVersion"], step["value"], "409");
            object["metadata"]["resourceVersion"] = "after-patch".into();
        } else {
            *object.pointer_mut(place).unwrap() = step["value"].clone();
        }
    }
    object
}

/// The cluster after the plan was carried out for the object that stays.
fn carried_out(action: &Action, observed: &Value) -> Value {
    match action {
        Action::Nothing => observed.clone(),
        Action::Apply(object) => apply(Some(observed), object),
        Action::Adopt { patch, object } => {
            let observed = patched(observed, patch);
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = observed["metadata"]["resourceVersion"].clone();
            apply(Some(&observed), &object)
        }
        other => panic!("{other:?}"),
    }
}

fn planned(desired: &Value, observed: &Value) -> Action {
    let plan = plan(&owner(), Some(desired), std::slice::from_ref(observed), None);
    assert_eq!(plan.surplus, []);
    plan.action
}

/// A ScaledObject of ours as it is after it was made.
fn made(annotations: &[(&str, &str)]) -> Value {
    apply(None, &wanted(annotations))
}

/// A ScaledObject as the replaced scaler wrote it: `spec` by Update.
fn written_by_update(api_version: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["scaleTargetRef"] = json!({"apiVersion": api_version, "kind": "InferenceSet", "name": "demo"});
    let mut object = json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": "demo",
            "namespace": "team-a",
            "uid": "uid-of-so",
            "resourceVersion": "17",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["finalizer.keda.sh"],
            "labels": {"scaledobject.keda.sh/name": "demo"},
            "annotations": {MANAGED_BY.0: MANAGED_BY.1},
            "ownerReferences": [{"apiVersion": api_version, "kind": "InferenceSet", "name": "demo",
                "uid": "uid-of-demo", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": spec,
    });
    let mut fields = tree(&object);
    fields["f:metadata"] = json!({"f:annotations": {".": {}, format!("f:{}", MANAGED_BY.0): {}}, "f:ownerReferences": {".": {}, "k:{\"uid\":\"uid-of-demo\"}": {}}});
    object["metadata"]["managedFields"] = json!([
        {"manager": FIELD_MANAGER, "operation": "Update", "apiVersion": API_VERSION, "fieldsType": "FieldsV1", "fieldsV1": fields},
        {"manager": "keda", "operation": "Update", "apiVersion": API_VERSION, "fieldsType": "FieldsV1",
         "fieldsV1": {"f:metadata": {"f:finalizers": {}, "f:labels": {}}}},
    ]);
    object
}

fn behavior(down_tolerance: &str, down_period: u32) -> Value {
    json!({"horizontalPodAutoscalerConfig": {"behavior": {
        "scaleUp": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "tolerance": "100m",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}]},
        "scaleDown": {"stabilizationWindowSeconds": 300, "selectPolicy": "Max", "tolerance": down_tolerance,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": down_period}]},
    }}})
}

fn old_trigger(name: &str, metric_type: &str, metadata: &[(&str, &str)]) -> Value {
    let mut texts =
        json!({"inferenceSetName": "demo", "inferenceSetNamespace": "team-a", "scalerAddress": ADDRESS});
    for (key, text) in metadata {
        texts[*key] = (*text).into();
    }
    json!({"type": "external", "name": name, "metricType": metric_type, "metadata": texts,
        "authenticationRef": {"kind": "ClusterTriggerAuthentication", "name": TRIGGER_AUTHENTICATION}})
}

fn v0_3_3() -> Value {
    let trigger = old_trigger(
        "keda-kaito-scaler",
        "AverageValue",
        &[
            ("scalerName", "keda-kaito-scaler"),
            ("threshold", "10"),
            ("metricName", "vllm:num_requests_waiting"),
            ("metricProtocol", "http"),
            ("metricPort", "80"),
            ("metricPath", "/metrics"),
            ("scrapeTimeout", "5s"),
        ],
    );
    written_by_update(
        "kaito.sh/v1alpha1",
        &json!({"minReplicaCount": 1, "maxReplicaCount": 10, "advanced": behavior("0.5", 600), "triggers": [trigger]}),
    )
}

fn v0_5_1() -> Value {
    let trigger = old_trigger(
        "keda-kaito-scaler",
        "AverageValue",
        &[("threshold", "10"), ("metricName", "vllm:num_requests_waiting")],
    );
    written_by_update(
        "kaito.sh/v1alpha1",
        &json!({"minReplicaCount": 1, "maxReplicaCount": 5, "pollingInterval": 15,
            "advanced": behavior("0.5", 600), "triggers": [trigger]}),
    )
}

fn v0_6_2() -> Value {
    let mut advanced = behavior("0.1", 300);
    advanced["scalingModifiers"] = json!({"target": "1", "metricType": "Value",
        "formula": "(readiness_gate == 1 && vllm_num_requests_waiting > 10) ? 2.0 : 1.0"});
    written_by_update(
        "kaito.sh/v1beta1",
        &json!({"minReplicaCount": 1, "maxReplicaCount": 5, "pollingInterval": 15, "advanced": advanced, "triggers": [
            old_trigger("vllm_num_requests_waiting", "Value",
                &[("metricName", "vllm:num_requests_waiting"), ("aggregation", "service-avg")]),
            old_trigger("vllm_request_queue_time_seconds", "Value",
                &[("metricName", "vllm:request_queue_time_seconds"), ("aggregation", "windowed-avg")]),
            old_trigger("readiness_gate", "Value", &[("metricName", "readiness_gate"), ("aggregation", "gate")]),
        ]}),
    )
}

fn trigger_names(object: &Value) -> Vec<&str> {
    object["spec"]["triggers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap_or(""))
        .collect()
}

#[test]
fn nothing_there_is_created_and_then_left_alone() {
    let desired = wanted(OLDER);
    let plan = plan(&owner(), Some(&desired), &[] as &[Value], None);
    assert_eq!(plan, Plan { action: Action::Create(desired.clone()), surplus: vec![] });
    assert_eq!(planned(&desired, &made(OLDER)), Action::Nothing);
}

#[test]
fn what_we_own_is_repaired() {
    let desired = wanted(OLDER);
    for (path, value) in [
        ("/spec/maxReplicaCount", json!(50)),
        ("/spec/minReplicaCount", json!(0)),
        ("/spec/pollingInterval", json!(30)),
        ("/spec/scaleTargetRef/apiVersion", json!("kaito.sh/v1alpha1")),
        ("/spec/triggers/0/metadata/threshold", json!("11")),
        ("/spec/triggers/0/metricType", json!("Value")),
        ("/spec/triggers", json!([])),
        ("/spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleUp/tolerance", json!("0.2")),
        ("/spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown/policies/0/value", json!(9)),
        ("/metadata/labels/app.kubernetes.io~1managed-by", json!("helm")),
        ("/metadata/annotations", json!({})),
    ] {
        let mut observed = made(OLDER);
        *observed.pointer_mut(path).unwrap() = value;
        let action = planned(&desired, &observed);
        assert!(matches!(action, Action::Apply(_)), "{path}: {action:?}");
        assert_eq!(planned(&desired, &carried_out(&action, &observed)), Action::Nothing, "{path}");
    }
}

#[test]
fn what_users_add_survives() {
    let desired = wanted(OLDER);
    let cron = json!({"type": "cron", "name": "office-hours", "metadata": {"desiredReplicas": "3"}});
    let unnamed = json!({"type": "cpu", "metadata": {"value": "80"}});
    let mut observed = made(OLDER);
    observed["spec"]["cooldownPeriod"] = 77.into();
    observed["spec"]["idleReplicaCount"] = 0.into();
    observed["spec"]["fallback"] = json!({"failureThreshold": 3, "replicas": 2});
    observed["spec"]["advanced"]["restoreToOriginalReplicaCount"] = true.into();
    observed["metadata"]["annotations"]["autoscaling.keda.sh/paused"] = "true".into();
    observed["metadata"]["labels"]["team"] = "a".into();
    observed["status"] = json!({"hpaName": "keda-hpa-demo"});
    observed["spec"]["triggers"].as_array_mut().unwrap().insert(0, cron.clone());
    observed["spec"]["triggers"].as_array_mut().unwrap().push(unnamed.clone());

    // Only the order is put right: the index of our trigger is part of the metric's name.
    let action = planned(&desired, &observed);
    let after = carried_out(&action, &observed);
    let mut expected = observed.clone();
    expected["spec"]["triggers"] = json!([desired["spec"]["triggers"][0], cron, unnamed]);
    for object in [&mut expected, &mut after.clone()] {
        object["metadata"]["managedFields"] = Value::Null;
        object["metadata"]["resourceVersion"] = Value::Null;
    }
    assert_eq!(after["spec"], expected["spec"]);
    assert_eq!(after["metadata"]["annotations"], expected["metadata"]["annotations"]);
    assert_eq!(after["metadata"]["labels"], expected["metadata"]["labels"]);
    assert_eq!(planned(&desired, &after), Action::Nothing);
}

#[test]
fn an_annotation_that_is_taken_back_takes_its_field_along() {
    let with = made(&[OLDER, &[("cooldown-period", "60")]].concat());
    assert_eq!(with["spec"]["cooldownPeriod"], 60);
    let desired = wanted(OLDER);
    let after = carried_out(&planned(&desired, &with), &with);
    assert_eq!(after["spec"].get("cooldownPeriod"), None);
    assert_eq!(planned(&desired, &after), Action::Nothing);
}

#[test]
fn objects_of_the_replaced_scaler_are_taken_over_in_place() {
    for (version, old, desired) in [
        ("0.3.3", v0_3_3(), wanted(OLDER)),
        ("0.5.1", v0_5_1(), wanted(OLDER)),
        ("0.6.2", v0_6_2(), wanted(NEWER)),
    ] {
        let mut observed = old;
        observed["spec"]["cooldownPeriod"] = 77.into();
        let cron = json!({"type": "cron", "name": "office-hours", "metadata": {}});
        observed["spec"]["triggers"].as_array_mut().unwrap().insert(0, cron);

        let action = planned(&desired, &observed);
        let Action::Adopt { patch, .. } = &action else { panic!("{version}: {action:?}") };
        assert_eq!(
            patched(&observed, patch)["spec"],
            observed["spec"],
            "{version}: the patch is invisible to KEDA"
        );
        let after = carried_out(&action, &observed);
        assert_eq!(trigger_names(&after), [TRIGGER_NAME, "office-hours"], "{version}");
        assert_eq!(after["spec"]["advanced"].get("scalingModifiers"), None, "{version}");
        assert_eq!(after["spec"]["scaleTargetRef"]["apiVersion"], "kaito.sh/v1beta1", "{version}");
        assert_eq!(after["spec"]["cooldownPeriod"], 77, "{version}");
        assert_eq!(after["metadata"]["uid"], observed["metadata"]["uid"], "{version}");
        assert_eq!(planned(&desired, &after), Action::Nothing, "{version}");
    }
}

#[test]
fn a_takeover_that_broke_off_is_finished() {
    let observed = v0_6_2();
    let desired = wanted(NEWER);
    let Action::Adopt { patch, .. } = planned(&desired, &observed) else { panic!() };
    let half = patched(&observed, &patch);
    let action = planned(&desired, &half);
    assert!(matches!(action, Action::Apply(_)), "{action:?}");
    let after = carried_out(&action, &half);
    assert_eq!(trigger_names(&after), [TRIGGER_NAME]);
    assert_eq!(after["spec"]["advanced"].get("scalingModifiers"), None);
    assert_eq!(planned(&desired, &after), Action::Nothing);
}

#[test]
fn a_formula_goes_with_its_triggers_whoever_edited_it() {
    let mut observed = v0_6_2();
    let fields = observed["metadata"]["managedFields"].as_array_mut().unwrap();
    fields[0]["fieldsV1"]["f:spec"]["f:advanced"].as_object_mut().unwrap().remove("f:scalingModifiers");
    fields.push(json!({"manager": "kubectl-edit", "operation": "Update", "apiVersion": API_VERSION,
        "fieldsV1": {"f:spec": {"f:advanced": {"f:scalingModifiers": {"f:formula": {}}}, "f:cooldownPeriod": {}}}}));
    observed["spec"]["cooldownPeriod"] = 77.into();
    let desired = wanted(NEWER);
    let after = carried_out(&planned(&desired, &observed), &observed);
    assert_eq!(after["spec"]["advanced"].get("scalingModifiers"), None);
    assert_eq!(after["spec"]["cooldownPeriod"], 77);
    assert_eq!(planned(&desired, &after), Action::Nothing);
}

#[test]
fn a_users_own_formula_over_our_trigger_survives() {
    let mut observed = made(OLDER);
    observed["spec"]["advanced"]["scalingModifiers"] = json!({"formula": "2 * keda-kaito-scaler"});
    assert_eq!(planned(&wanted(OLDER), &observed), Action::Nothing);
}

#[test]
fn an_object_without_managed_fields_is_taken_over() {
    for none in [json!([]), json!([{}])] {
        let mut observed = v0_5_1();
        observed["metadata"]["managedFields"] = none;
        let desired = wanted(OLDER);
        let after = carried_out(&planned(&desired, &observed), &observed);
        assert_eq!(planned(&desired, &after), Action::Nothing);
    }
}

/// `object` under another name, with changes.
fn named(mut object: Value, name: &str, changes: &[(&str, Value)]) -> Value {
    object["metadata"]["name"] = name.into();
    object["metadata"]["uid"] = format!("uid-of-{name}").into();
    for (path, value) in changes {
        *object.pointer_mut(path).unwrap() = value.clone();
    }
    object
}

/// A ScaledObject that somebody else made.
fn foreign(name: &str, target: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "team-a", "uid": "x"},
        "spec": {"scaleTargetRef": {"apiVersion": "kaito.sh/v1alpha1", "kind": "InferenceSet", "name": target}}})
}

#[test]
fn somebody_elses_is_never_touched() {
    let desired = wanted(OLDER);
    for (observed, hpa, message) in [
        (
            vec![foreign("theirs", "demo")],
            None,
            "ScaledObject theirs of somebody else scales this InferenceSet already",
        ),
        (
            vec![made(OLDER), foreign("theirs", "demo")],
            None,
            "ScaledObject theirs of somebody else scales this InferenceSet already",
        ),
        (
            vec![foreign("demo", "other")],
            None,
            "ScaledObject demo of somebody else has the name of the one to be made",
        ),
        (
            vec![made(OLDER)],
            Some(foreign("theirs", "demo")),
            "HorizontalPodAutoscaler theirs of somebody else scales this InferenceSet already",
        ),
        (
            // The mark alone doesn't make ours what something else controls.
            vec![named(
                made(OLDER),
                "theirs",
                &[("/metadata/ownerReferences/0", json!({"kind": "App", "uid": "y", "controller": true}))],
            )],
            None,
            "ScaledObject theirs of somebody else scales this InferenceSet already",
        ),
    ] {
        let rival = hpa.and_then(|hpa| hpa_rival(&owner(), &hpa));
        let plan = plan(&owner(), Some(&desired), &observed, rival.as_ref());
        let Action::Conflict(rival) = plan.action else { panic!("{message}: {:?}", plan.action) };
        assert_eq!(rival.to_string(), message);
        assert_eq!(plan.surplus, []);
    }
}

#[test]
fn what_is_unrelated_is_no_conflict() {
    let elsewhere = named(foreign("theirs", "demo"), "theirs", &[("/metadata/namespace", json!("team-b"))]);
    let observed = [made(OLDER), foreign("other", "other"), elsewhere.clone()];
    assert_eq!(plan(&owner(), Some(&wanted(OLDER)), &observed, None).action, Action::Nothing);
    assert_eq!(hpa_rival(&owner(), &elsewhere), None);
    assert_eq!(hpa_rival(&owner(), &foreign("hpa", "other")), None);
    let mut kedas = foreign("keda-hpa-demo", "demo");
    kedas["metadata"]["ownerReferences"] =
        json!([{"kind": "ScaledObject", "name": "demo", "uid": "u", "controller": true}]);
    assert_eq!(hpa_rival(&owner(), &kedas), None);
}

#[test]
fn switched_off_everything_that_we_applied_goes() {
    let observed = [
        named(v0_6_2(), "never-applied", &[]),
        made(OLDER),
        named(made(OLDER), "again", &[("/metadata/creationTimestamp", json!("2026-12-01T00:00:00Z"))]),
        foreign("theirs", "demo"),
    ];
    let plan = plan(&owner(), None, &observed, None);
    let Action::Delete(target) = plan.action else { panic!() };
    assert_eq!((target.name.as_str(), target.uid.as_str()), ("demo", "uid-of-so"));
    assert_eq!(plan.surplus.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["again"]);
    assert_eq!(super::plan(&owner(), None, &[foreign("theirs", "demo")], None).action, Action::Nothing);
}

#[test]
fn switched_off_what_we_never_applied_stays_and_is_named() {
    let Action::Adopt { patch, .. } = planned(&wanted(NEWER), &v0_6_2()) else { panic!() };
    let mut edited = v0_5_1();
    edited["metadata"]["managedFields"][0]["manager"] = "kubectl-edit".into();
    let mut unmarked = v0_5_1();
    unmarked["metadata"]["annotations"] = json!({});
    let mut going = v0_5_1();
    going["metadata"]["deletionTimestamp"] = "2026-11-02T00:00:00Z".into();
    for (what, observed, goes, named) in [
        ("0.3.3", v0_3_3(), false, true),
        ("0.5.1", v0_5_1(), false, true),
        ("0.6.2", v0_6_2(), false, true),
        ("edited by hand", edited, false, true),
        ("no longer marked", unmarked, false, false),
        ("going already", going, false, false),
        ("of somebody else", foreign("demo", "demo"), false, false),
        ("half taken over", patched(&v0_6_2(), &patch), true, false),
        ("ours", made(OLDER), true, false),
    ] {
        let plan = plan(&owner(), None, &[&observed], None);
        assert_eq!(matches!(plan.action, Action::Delete(_)), goes, "{what}");
        assert_eq!((plan.action == Action::Nothing, plan.surplus), (!goes, vec![]), "{what}");
        assert_eq!(!left_alone(&owner(), &[&observed]).is_empty(), named, "{what}");
    }
}

#[test]
fn of_several_the_oldest_stays() {
    let older =
        named(made(OLDER), "z-first", &[("/metadata/creationTimestamp", json!("2026-01-01T00:00:00Z"))]);
    let plan = plan(&owner(), Some(&wanted(OLDER)), &[made(OLDER), older], None);
    assert_eq!(plan.action, Action::Nothing);
    assert_eq!(plan.surplus.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["demo"]);
}

#[test]
fn what_is_going_is_waited_for() {
    let mut going = made(OLDER);
    going["metadata"]["deletionTimestamp"] = "2026-11-02T00:00:00Z".into();
    for desired in [Some(wanted(OLDER)), None] {
        let plan = plan(&owner(), desired.as_ref(), std::slice::from_ref(&going), None);
        assert_eq!(plan, Plan { action: Action::Nothing, surplus: vec![] });
    }
}

#[test]
fn an_object_of_an_earlier_inference_set_goes_first() {
    let left =
        named(made(OLDER), "demo", &[("/metadata/ownerReferences/0/uid", json!("uid-of-an-earlier-demo"))]);
    let plan = plan(&owner(), Some(&wanted(OLDER)), &[left], None);
    assert_eq!(plan.action, Action::Nothing);
    assert_eq!(plan.surplus.len(), 1);
}

/// Any of the states that an InferenceSet's ScaledObject may be found in.
fn observed() -> impl Strategy<Value = Value> {
    let base = prop_oneof![
        Just(v0_3_3()),
        Just(v0_5_1()),
        Just(v0_6_2()),
        Just(made(OLDER)),
        Just(made(NEWER)),
        Just(made(&[OLDER, &[("cooldown-period", "9")]].concat()))
    ];
    let paths = prop::sample::select(vec![
        "/spec/minReplicaCount",
        "/spec/maxReplicaCount",
        "/spec/advanced",
        "/spec/triggers",
        "/spec/triggers/0",
        "/metadata/annotations",
        "/spec/scaleTargetRef/apiVersion",
        "/metadata/managedFields",
        "/spec/triggers/0/metadata",
    ]);
    let values = prop::sample::select(vec![
        Value::Null,
        json!(3),
        json!("kaito.sh/v1"),
        json!([]),
        json!({}),
        json!([{"type": "cron", "name": "c"}]),
        json!({"x": 1}),
    ]);
    (base, prop::collection::vec((paths, values), 0..4)).prop_map(|(mut object, changes)| {
        for (path, value) in changes {
            if let Some(place) = object.pointer_mut(path) {
                *place = value;
            }
        }
        object
    })
}

proptest! {
    #[test]
    fn any_state_comes_to_rest_in_one_step(observed in observed(), newer in any::<bool>()) {
        let desired = wanted(if newer { NEWER } else { OLDER });
        // The API server has always lists there.
        let mut observed = observed;
        if !observed["metadata"]["managedFields"].is_array() {
            observed["metadata"]["managedFields"] = json!([]);
        }
        let planned_now = plan(&owner(), Some(&desired), std::slice::from_ref(&observed), None);
        prop_assume!(!matches!(planned_now.action, Action::Conflict(_)));
        let after = carried_out(&planned_now.action, &observed);
        prop_assert_eq!(planned(&desired, &after), Action::Nothing);
        prop_assert_eq!(&after["spec"]["triggers"][0], &desired["spec"]["triggers"][0]);
    }
}
