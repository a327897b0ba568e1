//! When it provisions at all.

use super::*;

#[tokio::test(start_paused = true)]
async fn only_the_leader_and_only_once_keda_can_reach_it() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    let mut world = World::idle(&server);
    world.rest().await;
    world.leader.send_replace(true);
    world.rest().await;
    assert_eq!(server.requests().len(), 0);
    world.leader.send_replace(false);
    world.live.take().unwrap().send(()).unwrap();
    world.rest().await;
    assert_eq!(server.requests().len(), 0);
    world.leader.send_replace(true);
    world.made().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn losing_the_lead_stops_writes_at_once_even_those_under_way() {
    let server = cluster();
    for number in 0..40 {
        server.put(inference_set(&format!("demo-{number}"), &[]));
    }
    server.set_latency(Duration::from_millis(50));
    let world = World::leading(&server);
    server.until(|server| server.count("ScaledObject") == 5).await;
    world.leader.send_replace(false);
    let written = server.writes().len();
    assert!(written > 5, "some are under way");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((server.writes().len(), server.count("ScaledObject")), (written, 5));
    assert!(world.metrics.page().unwrap().contains("keda_kaito_scaler_provisioning 0\n"));
    // Nothing is forgotten when it leads again.
    world.leader.send_replace(true);
    server.until(|server| server.count("ScaledObject") == 40).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn waits_for_kaito_and_keda_to_be_installed() {
    let server = ApiServer::with_chart_rbac();
    let world = World::leading(&server);
    world.rest().await;
    install_kaito(&server, "kaito.sh/v1alpha1");
    let mut set = inference_set("demo", &[]);
    set["apiVersion"] = "kaito.sh/v1alpha1".into();
    server.put(set);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(world.metrics.page().unwrap().contains("keda_kaito_scaler_provisioning 0\n"));
    let asked = server.requests().len();
    assert!(asked < 3 * 16, "asks more and more seldom: {asked} requests in five minutes");
    install_keda(&server);
    let made = world.made().await;
    assert_eq!(made["spec"]["scaleTargetRef"]["apiVersion"], "kaito.sh/v1alpha1");
    world.rest().await;

    // KAITO is upgraded: the target moves to the newer version.
    install_kaito(&server, "kaito.sh/v1beta1");
    world.holds("/spec/scaleTargetRef/apiVersion", &json!("kaito.sh/v1beta1")).await;
    let migrated = world.scaled_object().unwrap();
    assert_eq!(migrated["metadata"]["ownerReferences"][0]["apiVersion"], "kaito.sh/v1beta1");
    assert_eq!(migrated["metadata"]["uid"], made["metadata"]["uid"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_is_taken_up_again() {
    let server = cluster();
    server.put(inference_set("demo", &[]));
    server.refuse(http::Method::GET, "/horizontalpodautoscalers", 403, "forbidden");
    let world = World::leading(&server);
    world.rest().await;
    assert_eq!(server.writes().len(), 0, "somebody else may scale it, which can't be known yet");
    server.forgive();
    world.made().await;
    world.stop().await;
}
