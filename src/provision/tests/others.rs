//! What belongs to somebody else is never touched.

use super::*;

fn foreign_scaled_object(name: &str) -> Value {
    json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "kaito.sh/v1alpha1", "kind": "InferenceSet", "name": "demo"},
            "triggers": [{"type": "cron", "metadata": {}}],
        },
    })
}

fn hpa(name: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {"scaleTargetRef": {"apiVersion": "kaito.sh/v1beta1", "kind": "InferenceSet", "name": "demo"}},
    })
}

#[tokio::test(start_paused = true)]
async fn who_scales_it_already_is_left_alone_until_they_go() {
    for (rival, kind) in
        [(foreign_scaled_object("theirs"), "ScaledObject"), (hpa("theirs"), "HorizontalPodAutoscaler")]
    {
        let server = cluster();
        server.put(inference_set("demo", &[]));
        server.put(rival);
        let theirs = server.get(kind, "team-a", "theirs");
        let world = World::leading(&server);
        assert_eq!(
            world.events(1).await,
            [format!(
                "Conflict InferenceSet/demo: {kind} theirs of somebody else scales this InferenceSet already"
            )]
        );
        annotate(&server, "demo", "min-replicas", "2");
        world.rest().await;
        assert_eq!(server.writes().len(), 1, "told once, and nothing else");
        assert_eq!(server.get(kind, "team-a", "theirs"), theirs);
        assert_eq!(world.problems("Conflict"), "1");
        server.remove(kind, "team-a", "theirs");
        world.made().await;
        assert_eq!(world.problems("Conflict"), "0");
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_hpa_that_keda_makes_from_ours_is_no_rival() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::leading(&server);
    world.made().await;
    let mut hpa = hpa("keda-hpa-demo");
    hpa["metadata"]["ownerReferences"] = json!([{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "name": "demo", "uid": "x", "controller": true}]);
    server.put(hpa);
    world.rest().await;
    assert_eq!(server.events(), [""; 0]);
    annotate(&server, "demo", "min-replicas", "2");
    world.holds("/spec/minReplicaCount", &json!(2)).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_comes_up_while_ours_is_on_its_way_is_not_overwritten() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    server.set_latency(Duration::from_millis(100));
    let world = World::leading(&server);
    while server.writes().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.put(foreign_scaled_object("demo"));
    let theirs = world.scaled_object();
    assert!(
        world.events(1).await[0]
            .starts_with("Conflict InferenceSet/demo: ScaledObject demo of somebody else")
    );
    assert_eq!(world.scaled_object(), theirs);
    world.stop().await;
}

/// The answer to our own write is no news of what there is: only the watch is.
#[tokio::test(start_paused = true)]
async fn an_object_deleted_before_our_answer_came_is_made_again() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    server.set_answer_latency(Duration::from_secs(2));
    let world = World::leading(&server);
    world.made().await;
    server.remove("ScaledObject", "team-a", "demo");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.scaled_object(), None, "the answer has yet to come");
    world.made().await;
    world.rest().await;
    assert_eq!(server.writes().len(), 2, "and once is enough");
    world.stop().await;
}

/// What the watch has yet to show is not planned upon: it would be written again and again.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_behind_causes_no_write() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::leading(&server);
    world.made().await;
    world.rest().await;
    // No watch is begun anew, and those that are open end.
    server.refuse(http::Method::GET, "/scaledobjects", 500, "etcd is slow");
    server.end_watches("scaledobjects");
    annotate(&server, "demo", "max-replicas", "6");
    world.holds("/spec/maxReplicaCount", &json!(6)).await;
    let written = server.writes().len();
    for number in 0..10 {
        server.edit("InferenceSet", "team-a", "demo", |set| {
            set["metadata"]["annotations"]["scaledobject.kaito.sh/nobody-reads-this"] =
                number.to_string().into();
        });
        world.rest().await;
    }
    assert_eq!(server.writes().len(), written);
    // Once it goes on, so does everything.
    server.forgive();
    annotate(&server, "demo", "max-replicas", "7");
    world.holds("/spec/maxReplicaCount", &json!(7)).await;
    world.stop().await;
}
