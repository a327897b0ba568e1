//! What the replaced scaler made is taken over in place.

use http::Method;

use super::*;

const OBJECTS: [(&str, &str); 3] = [
    (
        "0.3.3",
        r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: demo
  namespace: team-a
  annotations: {scaledobject.kaito.sh/managed-by: keda-kaito-scaler}
  ownerReferences: [{apiVersion: kaito.sh/v1alpha1, kind: InferenceSet, name: demo, uid: uid-of-demo, controller: true, blockOwnerDeletion: true}]
spec:
  scaleTargetRef: {apiVersion: kaito.sh/v1alpha1, kind: InferenceSet, name: demo}
  minReplicaCount: 1
  maxReplicaCount: 10
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp: {stabilizationWindowSeconds: 60, selectPolicy: Max, tolerance: "0.1", policies: [{type: Pods, value: 1, periodSeconds: 300}]}
        scaleDown: {stabilizationWindowSeconds: 300, selectPolicy: Max, tolerance: "0.5", policies: [{type: Pods, value: 1, periodSeconds: 600}]}
  triggers:
  - type: external
    name: keda-kaito-scaler
    metricType: AverageValue
    authenticationRef: {kind: ClusterTriggerAuthentication, name: keda-kaito-scaler-creds}
    metadata:
      scalerName: keda-kaito-scaler
      threshold: "10"
      inferenceSetName: demo
      inferenceSetNamespace: team-a
      scalerAddress: keda-kaito-scaler-svc.keda.svc.cluster.local:10450
      metricName: "vllm:num_requests_waiting"
      metricProtocol: http
      metricPort: "80"
      metricPath: /metrics
      scrapeTimeout: 5s
"#,
    ),
    (
        "0.5.1",
        r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: demo
  namespace: team-a
  annotations: {scaledobject.kaito.sh/managed-by: keda-kaito-scaler}
  ownerReferences: [{apiVersion: kaito.sh/v1alpha1, kind: InferenceSet, name: demo, uid: uid-of-demo, controller: true, blockOwnerDeletion: true}]
spec:
  scaleTargetRef: {apiVersion: kaito.sh/v1alpha1, kind: InferenceSet, name: demo}
  pollingInterval: 15
  minReplicaCount: 1
  maxReplicaCount: 10
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp: {stabilizationWindowSeconds: 60, selectPolicy: Max, tolerance: 100m, policies: [{type: Pods, value: 1, periodSeconds: 300}]}
        scaleDown: {stabilizationWindowSeconds: 300, selectPolicy: Max, tolerance: 500m, policies: [{type: Pods, value: 1, periodSeconds: 600}]}
  triggers:
  - type: external
    name: keda-kaito-scaler
    metricType: AverageValue
    authenticationRef: {kind: ClusterTriggerAuthentication, name: keda-kaito-scaler-creds}
    metadata:
      threshold: "10"
      inferenceSetName: demo
      inferenceSetNamespace: team-a
      scalerAddress: keda-kaito-scaler-svc.keda.svc.cluster.local:10450
      metricName: "vllm:num_requests_waiting"
"#,
    ),
    (
        "0.6.2",
        r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: demo
  namespace: team-a
  annotations: {scaledobject.kaito.sh/managed-by: keda-kaito-scaler}
  ownerReferences: [{apiVersion: kaito.sh/v1beta1, kind: InferenceSet, name: demo, uid: uid-of-demo, controller: true, blockOwnerDeletion: true}]
spec:
  scaleTargetRef: {apiVersion: kaito.sh/v1beta1, kind: InferenceSet, name: demo}
  pollingInterval: 15
  minReplicaCount: 1
  maxReplicaCount: 5
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp: {stabilizationWindowSeconds: 60, selectPolicy: Max, tolerance: "0.1", policies: [{type: Pods, value: 1, periodSeconds: 300}]}
        scaleDown: {stabilizationWindowSeconds: 300, selectPolicy: Max, tolerance: "0.1", policies: [{type: Pods, value: 1, periodSeconds: 300}]}
    scalingModifiers:
      target: "1"
      metricType: Value
      formula: "(readiness_gate == 1 && vllm_num_requests_waiting > 10) ? 2.0 : ((vllm_num_requests_waiting < 1) ? 0.5 : 1.0)"
  triggers:
  - type: external
    name: vllm_num_requests_waiting
    metricType: Value
    authenticationRef: {kind: ClusterTriggerAuthentication, name: keda-kaito-scaler-creds}
    metadata: {metricName: "vllm:num_requests_waiting", metricSource: modelpod, aggregation: service-avg, inferenceSetName: demo, inferenceSetNamespace: team-a, scalerAddress: "keda-kaito-scaler-svc.keda.svc.cluster.local:10450"}
  - type: external
    name: readiness_gate
    metricType: Value
    authenticationRef: {kind: ClusterTriggerAuthentication, name: keda-kaito-scaler-creds}
    metadata: {metricName: readiness_gate, aggregation: gate, inferenceSetName: demo, inferenceSetNamespace: team-a, scalerAddress: "keda-kaito-scaler-svc.keda.svc.cluster.local:10450"}
"#,
    ),
];

const METRICS: &str =
    "- {name: 'vllm:num_requests_waiting', type: gauge, source: modelpod, upthreshold: 10, downthreshold: 1}";

/// A cluster in which the replaced scaler left one object, with what a user added to it.
pub(super) fn left_behind(version: &str) -> ApiServer {
    let (_, text) = OBJECTS.iter().find(|(it, _)| *it == version).unwrap();
    let object: Value = serde_saphyr::from_str(text).unwrap();
    let server = cluster();
    server.put(match version {
        "0.6.2" => inference_set("demo", &[("metrics", METRICS), ("threshold", "")]),
        _ => inference_set("demo", &[("max-replicas", "10")]),
    });
    server.put_as("keda-kaito-scaler", object);
    server.edit("ScaledObject", "team-a", "demo", |object| {
        object["spec"]["fallback"] = json!({"failureThreshold": 3, "replicas": 2});
        let cron = json!({"type": "cron", "name": "office-hours", "metadata": {}});
        object["spec"]["triggers"].as_array_mut().unwrap().push(cron);
    });
    server
}

fn trigger_names(object: &Value) -> Vec<&str> {
    object["spec"]["triggers"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect()
}

fn assert_taken_over(before: &Value, after: &Value) {
    assert_eq!(trigger_names(after), ["keda-kaito-scaler", "office-hours"]);
    assert_eq!(after["spec"]["triggers"][0]["type"], "external-push");
    assert_eq!(after["spec"]["advanced"].get("scalingModifiers"), None);
    assert_eq!(after["spec"]["scaleTargetRef"]["apiVersion"], "kaito.sh/v1beta1");
    assert_eq!(after["spec"]["fallback"], before["spec"]["fallback"]);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let operations: Vec<_> = after["metadata"]["managedFields"].as_array().unwrap().iter().collect();
    assert!(operations.iter().all(|entry| entry["operation"] == "Apply"), "{operations:?}");
}

#[tokio::test(start_paused = true)]
async fn objects_of_each_release_are_converted_in_two_writes() {
    for (version, _) in OBJECTS {
        let server = left_behind(version);
        let before = server.get("ScaledObject", "team-a", "demo").unwrap();
        let world = World::leading(&server);
        world.holds("/spec/triggers/0/type", &json!("external-push")).await;
        assert_taken_over(&before, &world.scaled_object().unwrap());
        world.rest().await;
        let writes: Vec<_> = server.writes().into_iter().map(|write| write.method).collect();
        assert_eq!(writes, [Method::PATCH, Method::PATCH], "{version}");
        assert_eq!(server.events(), [""; 0], "{version}");
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_release_left_in_place_when_it_was_switched_off_stays() {
    let server = left_behind("0.5.1");
    annotate(&server, "demo", "auto-provision", "");
    let before = server.get("ScaledObject", "team-a", "demo");
    let world = World::leading(&server);
    assert_eq!(
        world.events(1).await,
        ["LeftAlone InferenceSet/demo: ScaledObject demo was made by an earlier release and is left alone, \
          though auto-provision is off: delete it yourself, or set the annotation"]
    );
    world.rest().await;
    assert_eq!((server.writes().len(), world.scaled_object()), (1, before), "told once, and nothing else");
    assert_eq!(world.problems("LeftAlone"), "1");
    annotate(&server, "demo", "auto-provision", "true");
    world.holds("/spec/triggers/0/type", &json!("external-push")).await;
    assert_eq!(world.problems("LeftAlone"), "0");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn somebody_who_writes_meanwhile_is_not_overwritten() {
    let server = left_behind("0.6.2");
    let before = server.get("ScaledObject", "team-a", "demo").unwrap();
    server.set_latency(Duration::from_millis(100));
    let world = World::leading(&server);
    // While the first patch is on its way.
    let patching = |server: &ApiServer| server.writes().len() == 1;
    while !patching(&server) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.edit("ScaledObject", "team-a", "demo", |object| object["spec"]["cooldownPeriod"] = 77.into());
    world.holds("/spec/triggers/0/type", &json!("external-push")).await;
    let after = world.scaled_object().unwrap();
    assert_taken_over(&before, &after);
    assert_eq!(after["spec"]["cooldownPeriod"], 77);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_takeover_that_breaks_off_is_finished_with_the_same_leniency() {
    let server = left_behind("0.6.2");
    let before = server.get("ScaledObject", "team-a", "demo").unwrap();
    // The replaced scaler took this, Kubernetes doesn't.
    annotate(&server, "demo", "evaluationwindow", "7200");
    let mut world = World::leading(&server);
    // Ownership has moved, and then this replica stops.
    let moved = |server: &ApiServer| {
        let object = server.get("ScaledObject", "team-a", "demo").unwrap();
        object["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .all(|entry| entry["operation"] == "Apply")
    };
    server.until(moved).await;
    world.tasks.abort_all();
    while world.tasks.join_next().await.is_some() {}
    assert_eq!(world.scaled_object().unwrap()["spec"], before["spec"], "KEDA has seen no change yet");

    let world = World::leading(&server);
    world.holds("/spec/triggers/0/type", &json!("external-push")).await;
    let after = world.scaled_object().unwrap();
    assert_taken_over(&before, &after);
    let window = "/spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleUp/stabilizationWindowSeconds";
    assert_eq!(after.pointer(window), Some(&json!(3600)));
    assert!(world.events(1).await[0].starts_with("AnnotationClamped InferenceSet/demo: "));
    world.stop().await;
}
