//! What users are told, and how often.

use http::Method;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_problem_is_told_once_and_a_fix_clears_it() {
    let server = cluster();
    server.put(inference_set("demo", &[("threshold", "ten"), ("max-replicas", "1")]));
    let world = World::leading(&server);
    let events = world.events(1).await;
    assert_eq!(
        events,
        ["InvalidConfig InferenceSet/demo: \
          scaledobject.kaito.sh/threshold is \"ten\", but must be a number above 0; \
          scaledobject.kaito.sh/max-replicas is \"1\", but must be a whole number from 2 to 2147483647"]
    );
    assert_eq!(world.problems("InvalidConfig"), "1");
    // Changes that change nothing about it.
    server.edit("InferenceSet", "team-a", "demo", |set| set["status"] = json!({"replicas": 1}));
    annotate(&server, "demo", "min-replicas", "2");
    world.rest().await;
    assert_eq!((server.events().len(), server.writes().len()), (1, 1));
    // Another problem is another event, with its own text.
    annotate(&server, "demo", "threshold", "10");
    let events = world.events(2).await;
    assert!(events[1].ends_with("from 2 to 2147483647") && !events[1].contains("threshold"), "{events:?}");

    annotate(&server, "demo", "max-replicas", "5");
    world.made().await;
    assert_eq!(world.problems("InvalidConfig"), "0");
    // What was made stays as it is while the annotations make no sense.
    annotate(&server, "demo", "max-replicas", "0");
    world.events(3).await;
    world.rest().await;
    assert_eq!(world.scaled_object().unwrap()["spec"]["maxReplicaCount"], 5);
    // Gone with its InferenceSet.
    server.remove("InferenceSet", "team-a", "demo");
    world.rest().await;
    assert_eq!(world.problems("InvalidConfig"), "0");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_is_written_later() {
    let server = cluster();
    server.put(inference_set("demo", &[("max-replicas", "5"), ("min-replicas", "6")]));
    server.refuse(Method::POST, "/events", 500, "etcd is slow");
    let world = World::leading(&server);
    world.rest().await;
    assert_eq!(server.events(), [""; 0]);
    server.forgive();
    let events = world.events(1).await;
    assert!(events[0].starts_with("InvalidReplicaRange InferenceSet/demo: "), "{events:?}");
    world.rest().await;
    assert_eq!(server.events().len(), 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_object_is_told_tried_more_and_more_seldom_and_forgotten_once_it_works() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    server.refuse(Method::PATCH, "/scaledobjects/", 422, "admission webhook denied the request");
    let world = World::leading(&server);
    let events = world.events(1).await;
    assert_eq!(
        events,
        ["ProvisionFailed InferenceSet/demo: the ScaledObject was refused: \
          admission webhook denied the request (422)"]
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = server.writes().iter().filter(|write| write.method == Method::PATCH).count();
    assert_eq!(tries, 6, "at 0, 1, 3, 7, 15 and 31 s");
    assert_eq!(server.events().len(), 1);
    assert_eq!(world.problems("ProvisionFailed"), "1");
    server.forgive();
    world.made().await;
    world.rest().await;
    assert_eq!(world.problems("ProvisionFailed"), "0");
    world.stop().await;
}

/// Each change is worth a try; it is not worth a further row of them for ever.
#[tokio::test(start_paused = true)]
async fn a_refused_object_that_is_changed_often_is_tried_no_oftener_for_it() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    server.refuse(Method::PATCH, "/scaledobjects/", 422, "admission webhook denied the request");
    let world = World::leading(&server);
    world.events(1).await;
    for number in 0..50 {
        annotate(&server, "demo", "max-replicas", &(5 + number).to_string());
        world.rest().await;
    }
    let tries = |server: &ApiServer| {
        server
            .writes()
            .iter()
            .filter(|write| write.method == Method::PATCH && !write.path.contains("/events"))
            .count()
    };
    let before = tries(&server);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let tries = tries(&server) - before;
    assert!((11..=13).contains(&tries), "{tries} tries in an hour");
    world.stop().await;
}
