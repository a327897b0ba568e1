use proptest::prelude::*;

use super::*;

fn assumptions() -> Assumptions {
    Assumptions { nodes_per_replica: 2, scaler_address: "scaler.keda.svc:10450".to_owned() }
}

/// What is said about a file, and the names of what would be made.
fn checked(text: &str) -> (String, Vec<String>) {
    let checked = check(text, &assumptions());
    let findings: Vec<String> = checked.findings.iter().map(ToString::to_string).collect();
    assert_eq!(checked.has_problems(), findings.iter().any(|it| it.contains(": problem: ")));
    let name = |object: &Value| {
        let metadata = &object["metadata"];
        format!("{}/{} up to {}", metadata["namespace"], metadata["name"], object["spec"]["maxReplicaCount"])
            .replace('"', "")
    };
    (findings.join("\n"), checked.objects.iter().map(name).collect())
}

#[test]
fn a_good_file_gives_its_scaled_objects() {
    let text = r#"
apiVersion: v1
kind: Service
metadata: {name: other, annotations: {a: b}}
spec: [anything]
---
apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata:
  name: demo
  namespace: team-a
  annotations:
    scaledobject.kaito.sh/auto-provision: "true"
    scaledobject.kaito.sh/threshold: "10"
spec:
  nodeCountLimit: 7
---
apiVersion: kaito.sh/v1alpha1
kind: InferenceSet
metadata: {name: plain}
---
apiVersion: kaito.sh/v1alpha1
kind: MultiRoleInference
metadata:
  name: multi
  annotations:
    scaledobject.kaito.sh/prefill-auto-provision: "true"
    scaledobject.kaito.sh/prefill-threshold: "10"
    scaledobject.kaito.sh/prefill-max-replicas: "4"
    scaledobject.kaito.sh/decode-auto-provision: "true"
    scaledobject.kaito.sh/decode-threshold: "10"
    scaledobject.kaito.sh/decode-max-replicas: "4"
spec: {roles: [{type: prefill}, {type: decode, replicas: 2}]}
"#;
    let (findings, objects) = checked(text);
    insta::assert_snapshot!(findings, @r#"
        line 10: note: maxReplicaCount is spec.nodeCountLimit over 2 nodes a replica
        line 20: note: plain doesn't ask for autoscaling
        line 33: problem: the role's replicas are set to 2, which would be put back whenever they change: leave spec.roles[].replicas out to have the role autoscaled
        "#);
    assert_eq!(objects, ["team-a/demo up to 3", "default/multi-prefill up to 4"]);
    let yaml = check(text, &assumptions()).to_yaml().unwrap();
    let read: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    assert_eq!(read, check(text, &assumptions()).objects);
}

#[test]
fn a_problem_has_its_line() {
    let (findings, objects) = checked(
        r#"apiVersion: v1
kind: List
items:
- apiVersion: kaito.sh/v1beta1
  kind: InferenceSet
  metadata:
    name: demo
    annotations:
      scaledobject.kaito.sh/auto-provision: "true"
      scaledobject.kaito.sh/max-replicas: "1"
      scaledobject.kaito.sh/metrics: |
        - name: vllm:kv_cache_usage_perc
          type: gauge
          upthreshold: 80
          downthreshold: 0.2
      scaledobject.kaito.sh/scaleupcooldowns: "3"
- apiVersion: kaito.sh/v1beta1
  kind: InferenceSet
  metadata:
    name: unquoted
    annotations:
      scaledobject.kaito.sh/auto-provision: true
      scaledobject.kaito.sh/threshold: 10
- apiVersion: kaito.sh/v1beta1
  kind: InferenceSet
  metadata:
    name: unlimited
    annotations:
      scaledobject.kaito.sh/auto-provision: "true"
      scaledobject.kaito.sh/threshold: "10"
"#,
    );
    insta::assert_snapshot!(findings, @r#"
        line 10: problem: scaledobject.kaito.sh/max-replicas is "1", but must be a whole number from 2 to 2147483647
        line 12: problem: scaledobject.kaito.sh/metrics[0].upthreshold is "80", but must be at most 1: vllm:kv_cache_usage_perc goes from 0 to 1, so that 80% is 0.8
        line 16: problem: scaledobject.kaito.sh/scaleupcooldowns is not known: did you mean scaledobject.kaito.sh/scaleupcooldown?
        line 22: problem: scaledobject.kaito.sh/auto-provision is true, but must be text: put it in quotes
        line 23: problem: scaledobject.kaito.sh/threshold is 10, but must be text: put it in quotes
        line 27: problem: how far to scale is not known: set scaledobject.kaito.sh/max-replicas, or spec.nodeCountLimit
        "#);
    assert_eq!(objects, [""; 0]);
}

#[test]
fn what_is_no_manifest_says_so() {
    assert_eq!(
        checked("").0,
        "line 1: note: there is no InferenceSet here, and no ScaledObject with a trigger of this scaler"
    );
    assert_eq!(
        checked("kind: Service").0,
        "line 1: note: there is no InferenceSet here, and no ScaledObject with a trigger of this scaler"
    );
    assert!(checked("a: 1\nb: [").0.starts_with("line 2: problem: "));
    assert!(checked("kind: InferenceSet\nmetadata: 3").0.starts_with("line 2: problem: "));
}

#[test]
fn a_metric_is_checked_for_what_it_is() {
    let (findings, objects) = checked(
        r#"apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata:
  name: counter
  annotations:
    scaledobject.kaito.sh/auto-provision: "true"
    scaledobject.kaito.sh/max-replicas: "5"
    scaledobject.kaito.sh/metricName: "vllm:generation_tokens_total"
    scaledobject.kaito.sh/threshold: "2000"
---
apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata:
  name: slip
  annotations:
    scaledobject.kaito.sh/auto-provision: "true"
    scaledobject.kaito.sh/max-replicas: "5"
    scaledobject.kaito.sh/metricName: "vllm:num_request_waiting"
    scaledobject.kaito.sh/threshold: "10"
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: old, namespace: d}
spec:
  scaleTargetRef: {apiVersion: kaito.sh/v1beta1, kind: InferenceSet, name: old}
  minReplicaCount: 1
  triggers:
  - type: external-push
    authenticationRef: {kind: ClusterTriggerAuthentication, name: keda-kaito-scaler-creds}
    metadata:
      scalerAddress: keda-kaito-scaler-svc.keda:10450
      inferenceSetName: old
      inferenceSetNamespace: d
      metricName: vllm:num_requests_swapped
      threshold: "10"
"#,
    );
    insta::assert_snapshot!(findings, @r"
    line 8: problem: scaledobject.kaito.sh/metricName makes no sense here: vllm:generation_tokens_total is a counter, which only grows: that is no level to scale on
    line 14: warning: vllm:num_request_waiting is no known metric of vLLM: did you mean vllm:num_requests_waiting?
    line 23: note: KEDA makes the HPA keda-hpa-old: 1 to 100 replicas, by s0-vllm:num_requests_swapped (10 per replica)
    line 34: warning: vLLM no longer has vllm:num_requests_swapped: there will be no value
    ");
    assert_eq!(objects, ["default/slip up to 5"]);
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "[-\\[\\]{}:,&*!|> \\n\"'a-z0-9.]{0,80}|\\PC{0,40}") {
        let _ = check(&text, &assumptions());
    }
}

#[test]
fn what_a_list_has_to_become_is_said() {
    let (findings, _) = checked(
        r#"apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata:
  name: chat
  annotations:
    scaledobject.kaito.sh/auto-provision: "true"
    scaledobject.kaito.sh/metrics:
      - name: vllm:num_requests_waiting
        type: gauge
"#,
    );
    assert_eq!(
        findings,
        "line 8: problem: scaledobject.kaito.sh/metrics is a list, but must be text: write \
         `scaledobject.kaito.sh/metrics: |` and the same below it, indented further"
    );
}

#[test]
fn all_that_is_wrong_with_a_role_is_said_where_it_stands() {
    let (findings, objects) = checked(
        r#"apiVersion: kaito.sh/v1alpha1
kind: MultiRoleInference
metadata:
  name: multi
  annotations:
    scaledobject.kaito.sh/decode-auto-provision: "true"
    scaledobject.kaito.sh/decode-threshold: "ten"
    scaledobject.kaito.sh/decode-max-replicas: "0"
    scaledobject.kaito.sh/prefill-autoprovision: "true"
spec:
  roles:
  - type: prefill
  - type: decode
    replicas: 2
"#,
    );
    insta::assert_snapshot!(findings, @r#"
    line 7: problem: scaledobject.kaito.sh/decode-threshold is "ten", but must be a number above 0
    line 8: problem: scaledobject.kaito.sh/decode-max-replicas is "0", but must be a whole number from 2 to 2147483647
    line 9: problem: scaledobject.kaito.sh/prefill-autoprovision is not known: did you mean scaledobject.kaito.sh/prefill-auto-provision?
    line 14: problem: the role's replicas are set to 2, which would be put back whenever they change: leave spec.roles[].replicas out to have the role autoscaled
    "#);
    assert_eq!(objects, [""; 0]);
}

const SCALED_OBJECT: &str = r#"apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: phi-4, namespace: d}
spec:
  scaleTargetRef: {apiVersion: kaito.sh/v1beta1, kind: InferenceSet, name: phi-4}
  minReplicaCount: 0
  maxReplicaCount: 5
  triggers:
  - type: external-push
    metricType: AverageValue
    authenticationRef: {kind: ClusterTriggerAuthentication, name: keda-kaito-scaler-creds}
    metadata:
      scalerAddress: keda-kaito-scaler-svc.keda.svc.cluster.local:10450
      inferenceSetName: phi-4
      inferenceSetNamespace: d
      metricName: vllm:num_requests_waiting
      threshold: "10"
"#;

#[test]
fn a_scaled_object_is_told_what_keda_makes_of_it() {
    assert_eq!(
        checked(SCALED_OBJECT).0,
        "line 3: note: KEDA makes the HPA keda-hpa-phi-4: 1 to 5 replicas, 0 after 300 s without demand, by \
         s0-vllm:num_requests_waiting (10 per replica)"
    );
    // Those of others are passed over.
    let other = SCALED_OBJECT.replace("external-push", "prometheus");
    assert!(checked(&other).0.contains("no ScaledObject with a trigger of this scaler"));
}

#[test]
fn what_is_wrong_with_a_scaled_object_is_said_where_it_stands() {
    // (what is written instead of what, what is said)
    let cases = [
        ("threshold:", "treshold:", "line 17: problem: treshold is not known: did you mean threshold?"),
        ("\"10\"", "10", "line 17: problem: threshold is 10, but must be text: put it in quotes"),
        ("minReplicaCount: 0", "minReplicaCount: 9", "line 6: problem: minReplicaCount is 9, above"),
        (
            "external-push",
            "external",
            "line 9: warning: KEDA asks a trigger of type external every 30 s alone",
        ),
        (
            "AverageValue",
            "Value",
            "line 10: warning: sum is a total: with metricType Value the HPA multiplies",
        ),
        (
            "AverageValue",
            "Utilization",
            "line 10: problem: metricType is \"Utilization\", but must be AverageValue or Value",
        ),
        ("threshold: \"10\"", "aggregation: max", "line 10: warning: max is no total"),
        (
            "InferenceSet, name: phi-4",
            "InferenceSet, name: chat",
            "line 5: warning: it scales InferenceSet chat, and",
        ),
        ("kind: InferenceSet, ", "", "line 5: warning: it scales Deployment phi-4, and"),
        ("inferenceSetNamespace: d", "inferenceSetNamespace: e", "that needs --allow-cross-namespace"),
        ("scalerAddress:", "scalerHost:", "scalerAddress is missing: it must be HOST:PORT"),
        (
            "scalerAddress:",
            "scalerHost:",
            "line 13: warning: scalerHost is a key that neither KEDA nor this scaler reads",
        ),
        ("    authenticationRef:", "    other:", "line 9: warning: there is no authenticationRef"),
    ];
    for (written, instead, said) in cases {
        let text = SCALED_OBJECT.replace(written, instead);
        let (findings, _) = checked(&text);
        assert!(findings.lines().any(|line| line.contains(said)), "{instead}: {findings}");
    }
}
