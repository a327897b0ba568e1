//! From the annotations to the ScaledObject, and away again.

use super::*;
use crate::cluster::store::{Informer, kinds};
use scaler_core::fleet::inference_set::InferenceSetObject;

#[tokio::test(start_paused = true)]
async fn annotations_become_a_scaled_object_in_one_write() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    server.put(json!({"apiVersion": "kaito.sh/v1beta1", "kind": "InferenceSet",
        "metadata": {"name": "plain", "namespace": "team-a"}, "spec": {}}));
    let world = World::leading(&server);
    let made = world.made().await;
    assert_eq!(made["spec"]["maxReplicaCount"], 5);
    assert_eq!(made["spec"]["triggers"][0]["metadata"]["scalerAddress"], ADDRESS);
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "uid-of-demo");
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    world.rest().await;
    assert_eq!(server.writes().len(), 1);
    assert_eq!(server.events(), [""; 0]);
    assert!(world.metrics.page().unwrap().contains("keda_kaito_scaler_provisioning 1\n"));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_inference_set_that_comes_later_is_noticed() {
    let server = cluster();
    let world = World::leading(&server);
    world.rest().await;
    server.put(inference_set("demo", &[]));
    world.made().await;
    annotate(&server, "demo", "min-replicas", "2");
    world.holds("/spec/minReplicaCount", &json!(2)).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn node_counts_and_their_limit_are_noticed() {
    let server = cluster();
    let mut set = inference_set("demo", &[]);
    set["spec"]["nodeCountLimit"] = 10.into();
    set["metadata"]["annotations"].as_object_mut().unwrap().remove("scaledobject.kaito.sh/max-replicas");
    server.put(set);
    server.put(workspace("demo-a", 0));
    let world = World::leading(&server);
    world.rest().await;
    assert_eq!(server.writes().len(), 0, "how far is not known yet, which is no problem");

    server.put(workspace("demo-a", 2));
    world.holds("/spec/maxReplicaCount", &json!(5)).await;
    server.edit("InferenceSet", "team-a", "demo", |set| set["spec"]["nodeCountLimit"] = 7.into());
    world.holds("/spec/maxReplicaCount", &json!(3)).await;
    server.put(workspace("demo-b", 4));
    world.holds("/spec/maxReplicaCount", &json!(1)).await;
    server.remove("Workspace", "team-a", "demo-b");
    world.holds("/spec/maxReplicaCount", &json!(3)).await;
    assert_eq!(server.events(), [""; 0]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn drift_is_repaired_and_what_users_add_stays() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::leading(&server);
    world.made().await;
    world.rest().await;
    let cron = json!({"type": "cron", "name": "office-hours", "metadata": {"desiredReplicas": "3"}});
    server.edit("ScaledObject", "team-a", "demo", |object| {
        object["spec"]["maxReplicaCount"] = 99.into();
        object["spec"]["cooldownPeriod"] = 77.into();
        object["spec"]["triggers"].as_array_mut().unwrap().push(cron.clone());
        object["status"] = json!({"hpaName": "keda-hpa-demo"});
    });
    world.holds("/spec/maxReplicaCount", &json!(5)).await;
    let repaired = world.scaled_object().unwrap();
    assert_eq!(repaired["spec"]["cooldownPeriod"], 77);
    assert_eq!(repaired["spec"]["triggers"][1], cron);
    world.rest().await;
    assert_eq!(server.writes().len(), 2);
    server.remove("ScaledObject", "team-a", "demo");
    world.made().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn switching_it_off_deletes_ours_and_says_so() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::leading(&server);
    for round in 1..=2 {
        world.made().await;
        world.rest().await;
        annotate(&server, "demo", "auto-provision", "false");
        let events = world.events(round).await;
        assert_eq!(
            events.last().unwrap(),
            "ScaledObjectCleanedUp InferenceSet/demo: ScaledObject demo was deleted: auto-provision is off"
        );
        assert_eq!(world.scaled_object(), None);
        world.rest().await;
        assert_eq!(server.events().len(), round);
        annotate(&server, "demo", "auto-provision", "true");
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_waits_for_its_finalizer_is_deleted_once() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::leading(&server);
    world.made().await;
    server.edit("ScaledObject", "team-a", "demo", |it| {
        it["metadata"]["finalizers"] = json!(["finalizer.keda.sh"]);
    });
    world.rest().await;
    annotate(&server, "demo", "auto-provision", "");
    world.events(1).await;
    // Wanted again while KEDA still cleans up: it can only be made once the old one is gone.
    annotate(&server, "demo", "auto-provision", "true");
    world.rest().await;
    assert_eq!(server.writes().len(), 3, "made, deleted, told");
    server.remove("ScaledObject", "team-a", "demo");
    world.made().await;
    assert_eq!(server.events().len(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_a_deleted_inference_set_is_left_to_the_garbage_collector() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::leading(&server);
    world.made().await;
    server.edit("InferenceSet", "team-a", "demo", |set| {
        set["metadata"]["deletionTimestamp"] = "2026-11-02T00:00:00Z".into();
    });
    world.rest().await;
    server.remove("ScaledObject", "team-a", "demo");
    world.rest().await;
    server.remove("InferenceSet", "team-a", "demo");
    world.rest().await;
    assert_eq!(server.writes().len(), 1);
    // A new one of the same name is another one.
    let mut again = inference_set("demo", &[]);
    again["metadata"]["uid"] = "another".into();
    server.put(again);
    assert_eq!(world.made().await["metadata"]["ownerReferences"][0]["uid"], "another");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_duplicates_the_oldest_stays() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::leading(&server);
    let mut second = world.made().await;
    world.rest().await;
    second["metadata"] = json!({"name": "zweite", "namespace": "team-a",
        "annotations": second["metadata"]["annotations"], "ownerReferences": second["metadata"]["ownerReferences"]});
    server.put(second);
    assert_eq!(
        world.events(1).await,
        ["ScaledObjectCleanedUp InferenceSet/demo: ScaledObject zweite was deleted: \
          there is an older one for the same InferenceSet"]
    );
    assert_eq!(server.count("ScaledObject"), 1);
    assert!(world.scaled_object().is_some());
    world.stop().await;
}

fn multi_role_inference(more: &[(&str, &str)]) -> Value {
    let mut annotations = json!({});
    for (key, text) in more {
        annotations[format!("scaledobject.kaito.sh/{key}")] = (*text).into();
    }
    json!({
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "MultiRoleInference",
        "metadata": {"name": "multi", "namespace": "team-a", "uid": "uid-of-multi", "annotations": annotations},
        "spec": {"roles": [{"type": "prefill"}, {"type": "decode", "replicas": 2}]},
    })
}

#[tokio::test(start_paused = true)]
async fn the_roles_of_a_multi_role_inference_are_scaled_one_by_one() {
    let server = cluster();
    for role in ["prefill", "decode"] {
        let mut child = inference_set(&format!("multi-{role}"), &[]);
        child["metadata"]["annotations"] = json!({});
        child["metadata"]["labels"] =
            json!({"multiroleinference.kaito.sh/created-by": "multi", "kaito.sh/inference-role": role});
        server.put(child);
    }
    server.put(multi_role_inference(&[
        ("prefill-auto-provision", "true"),
        ("prefill-threshold", "3"),
        ("prefill-max-replicas", "4"),
        ("decode-auto-provision", "true"),
        ("decode-threshold", "7"),
        ("decode-max-replicas", "6"),
    ]));
    let world = World::leading(&server);
    let events = world.events(1).await;
    assert!(events[0].starts_with("ReplicasFixed MultiRoleInference/multi: "), "{events:?}");
    server.edit("MultiRoleInference", "team-a", "multi", |multi| {
        multi["spec"]["roles"][1].as_object_mut().unwrap().remove("replicas");
    });
    server.until(|server| server.count("ScaledObject") == 2).await;
    let [decode, prefill] = &server.all("ScaledObject")[..] else { panic!() };
    let of = |object: &Value| {
        let metadata = &object["spec"]["triggers"][0]["metadata"];
        [&metadata["inferenceSetName"], &metadata["threshold"], &object["spec"]["maxReplicaCount"]]
            .map(Value::clone)
    };
    assert_eq!(of(prefill), [json!("multi-prefill"), json!("3"), json!(4)]);
    assert_eq!(of(decode), [json!("multi-decode"), json!("7"), json!(6)]);

    server.put(multi_role_inference(&[]));
    server.until(|server| server.count("ScaledObject") == 0).await;
    world.stop().await;
}

/// What the store must not let one object do to the others.
#[tokio::test(start_paused = true)]
async fn an_object_that_can_not_be_read_is_left_out_and_costs_nobody_else_anything() {
    let server = cluster();
    let mut broken = inference_set("broken", &[]);
    broken["spec"]["replicas"] = "two".into();
    server.put(broken);
    server.put(inference_set("demo", &[]));
    let mut annotated = workspace("demo-a", 1);
    annotated["metadata"]["annotations"] = json!({"odd": 7});
    server.put(annotated);
    let world = World::leading(&server);
    world.made().await;
    world.rest().await;
    assert_eq!(server.count("ScaledObject"), 1);
    server.edit("InferenceSet", "team-a", "broken", |set| set["spec"]["replicas"] = 2.into());
    server.until(|server| server.count("ScaledObject") == 2).await;
    world.stop().await;
}

/// Discovery reads them too.
#[tokio::test(start_paused = true)]
async fn inference_sets_are_watched_once_whoever_reads_them() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::idle(&server);
    let discovery: Informer<InferenceSetObject> = world.store.follow(kinds::inference_sets());
    let mut sets = discovery.subscribe();
    sets.changed().await;
    let asked = |server: &ApiServer| {
        server.requests().iter().filter(|request| request.path.ends_with("/inferencesets")).count()
    };
    world.rest().await;
    assert_eq!(asked(&server), 2, "a list and a watch");
    let mut world = world;
    world.live.take().unwrap().send(()).unwrap();
    world.leader.send_replace(true);
    world.made().await;
    annotate(&server, "demo", "max-replicas", "6");
    world.holds("/spec/maxReplicaCount", &json!(6)).await;
    assert_eq!(asked(&server), 2);
    world.stop().await;
}
