//! To zero only where something is known to wake the model again.

use super::*;

fn opted_in() -> Value {
    inference_set("demo", &[("scale-to-zero", "true"), ("wake-source", "epp:9090")])
}

fn unreadable(why: &str) -> Readability {
    Readability::Unreadable(Obstacle(why.into()))
}

impl World {
    async fn asks_about(&mut self, names: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| InferenceSetKey::new("team-a", name)).collect();
        self.asked.wait_for(|asked| asked.keys().eq(&names)).await.unwrap();
    }

    /// minReplicaCount, idleReplicaCount, cooldownPeriod, initialCooldownPeriod.
    fn floor(&self) -> [Option<u64>; 4] {
        let made = self.scaled_object().unwrap();
        ["minReplicaCount", "idleReplicaCount", "cooldownPeriod", "initialCooldownPeriod"]
            .map(|field| made["spec"][field].as_u64())
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_can_be_read_lets_a_model_sleep_and_one_that_cannot_keeps_it_up() {
    let server = cluster();
    server.put(inference_set("other", &[]));
    server.put(opted_in());
    let mut world = World::leading(&server);
    world.asks_about(&["demo"]).await;
    let named = world.asked.borrow().values().next().cloned().flatten().unwrap();
    assert_eq!((named.service.as_str(), named.port), ("epp", 9090));
    world.made().await;
    world.rest().await;
    assert_eq!(world.floor(), [Some(1), None, None, None]);
    assert_eq!(server.events(), [""; 0], "it is still being tried");

    world.answer(Some(Readability::Readable));
    world.holds("/spec/minReplicaCount", &json!(0)).await;
    assert_eq!(world.floor(), [Some(0), None, Some(300), Some(300)]);
    assert_eq!(server.events(), [""; 0]);

    world.answer(Some(unreadable("Service epp answers 401: grant the reader get on /metrics")));
    world.holds("/spec/minReplicaCount", &json!(1)).await;
    let said = "NoWakeSource InferenceSet/demo: scaledobject.kaito.sh/scale-to-zero is true, and the floor stays at \
                1: Service epp answers 401: grant the reader get on /metrics";
    assert_eq!(world.events(1).await, [said]);
    assert_eq!(world.problems("NoWakeSource"), "1");
    world.rest().await;
    assert_eq!(world.floor(), [Some(1), None, None, None], "nothing of zero stays behind");
    // Nor does an edit let it sleep.
    server.edit("ScaledObject", "team-a", "demo", |object| object["spec"]["minReplicaCount"] = 0.into());
    world.holds("/spec/minReplicaCount", &json!(1)).await;

    world.answer(Some(Readability::Readable));
    world.holds("/spec/minReplicaCount", &json!(0)).await;
    assert_eq!(world.problems("NoWakeSource"), "0");
    assert_eq!(server.events().len(), 1);
    annotate(&server, "demo", "scale-to-zero", "false");
    world.holds("/spec/minReplicaCount", &json!(1)).await;
    world.asks_about(&[]).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn more_than_one_replica_or_none() {
    let server = cluster();
    let annotations = [("scale-to-zero", "true"), ("min-replicas", "3"), ("cooldown-period", "600")];
    server.put(inference_set("demo", &annotations));
    let world = World::leading(&server);
    world.answer(Some(Readability::Readable));
    world.holds("/spec/idleReplicaCount", &json!(0)).await;
    assert_eq!(world.floor(), [Some(3), Some(0), Some(600), Some(600)]);
    world.answer(Some(unreadable("the picker is gone")));
    world.events(1).await;
    world.rest().await;
    assert_eq!(world.floor(), [Some(3), None, Some(600), None]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_leaves_the_floor_as_it_is_until_it_knows_better() {
    let server = cluster();
    server.put(opted_in());
    for floor in [1, 0] {
        let first = World::leading(&server);
        let readable = (floor == 0).then_some(Readability::Readable);
        first.answer(readable);
        first.holds("/spec/minReplicaCount", &json!(floor)).await;
        first.stop().await;
        let (writes, events) = (server.writes().len(), server.events().len());

        let mut second = World::leading(&server);
        second.asks_about(&["demo"]).await;
        second.rest().await;
        assert_eq!(server.writes().len(), writes, "nothing is known: nothing changes");
        // Only if it stays so.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let said = second.events(events + 1).await.pop().unwrap();
        assert!(
            said.contains(&format!(
                "the floor stays at {floor}: whether the wake-up source can be read is not known"
            )),
            "{said}"
        );
        second.holds("/spec/minReplicaCount", &json!(floor)).await;
        second.answer(Some(Readability::Readable));
        second.holds("/spec/minReplicaCount", &json!(0)).await;
        second.rest().await;
        assert_eq!(second.problems("NoWakeSource"), "0");
        second.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_no_longer_leads_asks_nothing() {
    let server = cluster();
    server.put(opted_in());
    let mut world = World::leading(&server);
    world.asks_about(&["demo"]).await;
    world.leader.send_replace(false);
    world.asks_about(&[]).await;
    world.leader.send_replace(true);
    world.asks_about(&["demo"]).await;
    server.remove("InferenceSet", "team-a", "demo");
    world.asks_about(&[]).await;
    world.stop().await;
}

/// KEDA clears nothing of what it knows when it is told of another floor: a model that was idle
/// for longer than its cooldown would be zeroed by the next poll. A trigger that differs is a
/// target that starts with its hold time.
#[tokio::test(start_paused = true)]
async fn opting_in_and_adoption_make_another_target() {
    let opting_in = cluster();
    opting_in.put(opted_in());
    let adopted = super::adopt::left_behind("0.5.1");
    annotate(&adopted, "demo", "scale-to-zero", "true");
    for server in [opting_in, adopted] {
        let world = World::leading(&server);
        let before = world.made().await["spec"]["triggers"][0]["metadata"].clone();
        world.answer(Some(Readability::Readable));
        world.holds("/spec/minReplicaCount", &json!(0)).await;
        let after = world.scaled_object().unwrap()["spec"]["triggers"][0]["metadata"].clone();
        assert_ne!(before, after);
        assert_eq!(after["wakeReplicas"], "1");
        world.stop().await;
    }
}

/// Somebody's own ScaledObject, with a trigger of ours and no floor.
fn own(more_triggers: &[Value]) -> Value {
    let metadata = json!({"scalerAddress": ADDRESS, "inferenceSetName": "demo", "inferenceSetNamespace": "team-a",
        "metricName": "vllm:num_requests_waiting", "threshold": "10"});
    let mut triggers = vec![json!({"type": "external-push", "metadata": metadata})];
    triggers.extend_from_slice(more_triggers);
    json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "own", "namespace": "team-a", "uid": "uid-of-own"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "kaito.sh/v1beta1", "kind": "InferenceSet", "name": "demo"},
            "triggers": triggers,
        },
    })
}

#[tokio::test(start_paused = true)]
async fn a_hand_written_one_that_nothing_would_wake_is_warned_of_once() {
    let server = cluster();
    let mut set = inference_set("demo", &[]);
    set["metadata"]["annotations"] = json!({});
    server.put(set);
    let mut world = World::leading(&server);
    server.put(own(&[]));
    world.asks_about(&["demo"]).await;
    world.rest().await;
    assert_eq!(server.events(), [""; 0]);

    world.answer(Some(unreadable("there is no Service demo-inferencepool-epp")));
    assert_eq!(
        world.events(1).await,
        [
            "NoWakeSource ScaledObject/own: minReplicaCount is 0, or KEDA's default, which is 0, and nothing would wake \
          the model: there is no Service demo-inferencepool-epp"
        ]
    );
    // Status updates come all the time.
    server.edit("ScaledObject", "team-a", "own", |own| own["status"] = json!({"conditions": []}));
    world.rest().await;
    assert_eq!((server.events().len(), server.writes().len()), (1, 1), "told once, and nothing touched");
    assert_eq!(world.problems("NoWakeSource"), "1");

    // With something else that wakes it, or a floor, nothing depends on us.
    server.put(own(&[json!({"type": "cron", "metadata": {}})]));
    world.asks_about(&[]).await;
    assert_eq!(world.problems("NoWakeSource"), "0");
    server.put(own(&[]));
    world.asks_about(&["demo"]).await;
    server.edit("ScaledObject", "team-a", "own", |own| own["spec"]["minReplicaCount"] = 1.into());
    world.asks_about(&[]).await;
    world.stop().await;
}
