//! What a renewal of certificates does to ScaledObjects.

use std::time::Duration;

use serde_json::json;

use super::*;

const NAMED: &str = "/spec/triggers/0/metadata/certificates";

#[tokio::test(start_paused = true)]
async fn a_renewal_reaches_each_scaled_object_once_keda_finds_it() {
    let server = cluster();
    for name in ["demo", "other"] {
        server.put(inference_set(name, &[]));
    }
    let world = World::leading(&server);
    // Before they are known nothing is said of them.
    assert_eq!(world.made().await.pointer(NAMED), None);
    world.certificates("first");
    world.holds(NAMED, &json!("first")).await;
    world.rest().await;

    let (writes, begun) = (server.writes().len(), tokio::time::Instant::now());
    world.certificates("second");
    world.holds(NAMED, &json!("second")).await;
    assert_eq!(begun.elapsed().as_secs(), 30, "KEDA's caches have them by then");
    world.rest().await;
    assert_eq!(server.writes().len() - writes, 2, "one for each ScaledObject");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_renewals_in_a_row_are_one_and_one_that_is_taken_back_is_none() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::leading(&server);
    world.certificates("first");
    world.holds(NAMED, &json!("first")).await;
    world.rest().await;
    let writes = server.writes().len();
    world.certificates("second");
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.certificates("first");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.writes().len(), writes);
    world.certificates("second");
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.certificates("third");
    world.holds(NAMED, &json!("third")).await;
    world.rest().await;
    assert_eq!(server.writes().len() - writes, 1);
    world.stop().await;
}

/// Who leads anew does not know them at once, and what the object says is no guess.
#[tokio::test(start_paused = true)]
async fn not_known_is_not_changed() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let first = World::leading(&server);
    first.certificates("first");
    first.holds(NAMED, &json!("first")).await;
    first.stop().await;
    let writes = server.writes().len();
    let second = World::leading(&server);
    second.rest().await;
    assert_eq!(server.writes().len(), writes);
    second.certificates("second");
    second.holds(NAMED, &json!("second")).await;
    second.stop().await;
}

/// Who takes the lead right after a renewal waits for as long as any other.
#[tokio::test(start_paused = true)]
async fn a_new_leader_does_not_hasten_it() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let world = World::leading(&server);
    world.certificates("first");
    world.holds(NAMED, &json!("first")).await;
    let begun = tokio::time::Instant::now();
    world.certificates("second");
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.leader.send_replace(false);
    world.rest().await;
    world.leader.send_replace(true);
    world.holds(NAMED, &json!("second")).await;
    assert_eq!(begun.elapsed().as_secs(), 30);
    world.stop().await;
}
