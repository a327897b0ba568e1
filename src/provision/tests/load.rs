//! Many InferenceSets at once.

use tokio::time::Instant;

use super::*;

const MANY: u32 = 500;

#[tokio::test(start_paused = true)]
async fn a_write_for_each_takes_as_long_as_the_rate_allows_and_nothing_to_do_no_write() {
    let server = cluster();
    for number in 0..MANY {
        server.put(inference_set(&format!("demo-{number}"), &[]));
    }
    server.set_latency(Duration::from_millis(20));
    let began = Instant::now();
    let world = World::leading(&server);
    server.until(|server| server.count("ScaledObject") == MANY as usize).await;
    let took = began.elapsed();
    world.rest().await;
    assert_eq!(server.writes().len(), MANY as usize);
    // 5,000 would take 100 s.
    let ideal = Duration::from_secs(1) * MANY / Provisioner::WRITES_PER_SECOND;
    assert!(took + Duration::from_millis(100) >= ideal, "faster than the rate allows: {took:?}");
    assert!(took < ideal + Duration::from_secs(1), "{took:?}");
    world.stop().await;

    let before = server.writes().len();
    let world = World::leading(&server);
    world.rest().await;
    assert_eq!(server.writes().len(), before);
    // And it was looked at: a change is noticed.
    annotate(&server, "demo-7", "max-replicas", "9");
    let changed = |server: &ApiServer| {
        server.get("ScaledObject", "team-a", "demo-7").unwrap()["spec"]["maxReplicaCount"] == 9
    };
    server.until(changed).await;
    assert_eq!(server.writes().len(), before + 1);
    world.stop().await;
}
