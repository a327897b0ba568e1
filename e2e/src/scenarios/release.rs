//! The release as its operators handle it: checked, upgraded, rolled back, removed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Scenario, alone};
use crate::{
    api::{
        DEPLOYMENT, HPA, INFERENCE_SET, Kind, LEASE, POD, SCALED_OBJECT, SECRET, SERVICE, SERVICE_ACCOUNT,
        TRIGGER_AUTHENTICATION, text, until_asked,
    },
    helm::RELEASE,
    keda::NAMESPACE,
    stage::{LATER, SOON, Stage},
};

/// In this order: the release is gone after the first, and later ones install another.
pub(super) const ALL: &[Scenario] = &[
    alone("helm-test-uninstall", "helm test passes, and helm uninstall leaves what the user made", |stage| {
        test_and_uninstall(stage).boxed()
    }),
    alone("upgrade-from-0-3-3", "an upgrade over 0.3.3, and back", |stage| upgrade(stage, "0.3.3").boxed()),
    alone("upgrade-from-0-5-1", "an upgrade over 0.5.1, and back", |stage| upgrade(stage, "0.5.1").boxed()),
    alone("upgrade-from-0-6-2", "an upgrade over 0.6.2, and back", |stage| upgrade(stage, "0.6.2").boxed()),
];

const SECRETS: [&str; 3] =
    ["keda-kaito-scaler-client-certs", "keda-kaito-scaler-server-certs", "keda-kaito-scaler-ca"];

async fn test_and_uninstall(stage: Stage) -> Result<()> {
    let world = &stage.world;
    let deployed = stage.api().get(&DEPLOYMENT.named(NAMESPACE, RELEASE)).await?;
    if deployed.is_none() {
        world.helm.install("install", &[]).await?;
    }
    world.scaler_available(2).await?;
    stage.annotated("demo", 5, &[]).await?;
    stage.ready("demo").await?;
    let begun = Instant::now();
    world.helm.run(&["test", RELEASE, "--timeout", "60s"]).await?;
    stage.figure("helm test", "s", &[begun.elapsed().as_secs_f64()]);

    uninstall(&stage).await?;
    let kinds = [
        DEPLOYMENT,
        SERVICE,
        SERVICE_ACCOUNT,
        SECRET,
        Kind("rbac.authorization.k8s.io/v1", "Role"),
        Kind("rbac.authorization.k8s.io/v1", "RoleBinding"),
        Kind("rbac.authorization.k8s.io/v1", "ClusterRole"),
        Kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
        Kind("policy/v1", "PodDisruptionBudget"),
        LEASE,
    ];
    let mut left = vec![];
    for kind in kinds {
        let objects = stage.api().list(kind, "").await?;
        let names = objects.iter().map(|object| text(object, "/metadata/name"));
        left.extend(names.filter(|name| name.starts_with("keda-kaito-scaler")).map(|name| (kind.1, name)));
    }
    let mut kept: Vec<_> = SECRETS.map(|name| ("Secret", name.to_owned())).to_vec();
    kept.push((LEASE.1, "keda-kaito-scaler".to_owned()));
    kept.sort();
    left.sort();
    ensure!(left == kept, "left behind: {left:?}");
    // What scales models stays, and holds them.
    ensure!(
        stage.api().get(&SCALED_OBJECT.named(&stage.namespace, "demo")).await?.is_some(),
        "the ScaledObject is gone"
    );
    stage.holds("demo", 1, Duration::from_secs(2)).await?;
    clear_release(&stage).await
}

/// Uninstalls the release. Its pods go on for some seconds, without their rights.
async fn uninstall(stage: &Stage) -> Result<()> {
    let world = &stage.world;
    let uninstalled = async {
        world.helm.run(&["uninstall", RELEASE, "--wait"]).await?;
        no_scaler_runs(stage).await
    };
    world.excused(uninstalled).await
}

async fn no_scaler_runs(stage: &Stage) -> Result<()> {
    until_asked("the scaler's processes have ended", LATER, || async {
        let left: Vec<_> = stage.world.kubelet.processes().into_keys().collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
}

/// Removes what the documentation says is left.
async fn clear_release(stage: &Stage) -> Result<()> {
    for name in SECRETS {
        stage.api().delete(&SECRET.named(NAMESPACE, name)).await?;
    }
    stage.api().delete(&TRIGGER_AUTHENTICATION.named("", "keda-kaito-scaler-creds")).await?;
    stage.api().delete(&LEASE.named(NAMESPACE, "keda-kaito-scaler")).await?;
    // The test's pod is a hook, which Helm leaves alone.
    stage.api().delete(&POD.named(NAMESPACE, "keda-kaito-scaler-check-install")).await
}

/// What a release of the earlier scaler made of an InferenceSet.
fn earlier_scaled_object(namespace: &str, version: &str, uid: &str) -> Value {
    let api = if version.starts_with("0.6") { "kaito.sh/v1beta1" } else { "kaito.sh/v1alpha1" };
    let scale_down = if version.starts_with("0.6") { (300, "0.1") } else { (600, "0.5") };
    let policy = |seconds: i32| json!([{"type": "Pods", "value": 1, "periodSeconds": seconds}]);
    let behavior = json!({
        "scaleUp": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "tolerance": "0.1", "policies": policy(300)},
        "scaleDown": {
            "stabilizationWindowSeconds": 300, "selectPolicy": "Max", "tolerance": scale_down.1,
            "policies": policy(scale_down.0),
        },
    });
    let mut advanced = json!({"horizontalPodAutoscalerConfig": {"behavior": behavior}});
    let trigger = |name: &str, kind: &str, more: Value| {
        let mut metadata = json!({
            "scalerAddress": "keda-kaito-scaler-svc.keda.svc.cluster.local:10450",
            "inferenceSetName": "demo",
            "inferenceSetNamespace": namespace,
        });
        if let (Some(metadata), Some(more)) = (metadata.as_object_mut(), more.as_object()) {
            metadata.extend(more.clone());
        }
        json!({
            "type": "external",
            "name": name,
            "metricType": kind,
            "authenticationRef": {"kind": "ClusterTriggerAuthentication", "name": "keda-kaito-scaler-creds"},
            "metadata": metadata,
        })
    };
    let waiting = "vllm:num_requests_waiting";
    let triggers = match version {
        "0.3.3" => json!([trigger(
            "keda-kaito-scaler",
            "AverageValue",
            json!({
                "scalerName": "keda-kaito-scaler", "threshold": "10", "metricName": waiting, "metricProtocol": "http",
                "metricPort": "80", "metricPath": "/metrics", "scrapeTimeout": "5s",
            })
        )]),
        "0.5.1" => json!([trigger(
            "keda-kaito-scaler",
            "AverageValue",
            json!({"threshold": "10", "metricName": waiting})
        )]),
        _ => {
            advanced["scalingModifiers"] = json!({
                "target": "1",
                "metricType": "Value",
                "formula": "(readiness_gate == 1 && vllm_num_requests_waiting > 10) ? 2.0 : \
                            ((vllm_num_requests_waiting < 1) ? 0.5 : 1.0)",
            });
            json!([
                trigger(
                    "vllm_num_requests_waiting",
                    "Value",
                    json!({
                        "metricName": waiting, "metricSource": "modelpod", "aggregation": "service-avg",
                    })
                ),
                trigger(
                    "readiness_gate",
                    "Value",
                    json!({"metricName": "readiness_gate", "aggregation": "gate"})
                ),
            ])
        }
    };
    json!({
        "apiVersion": SCALED_OBJECT.0,
        "kind": SCALED_OBJECT.1,
        "metadata": {
            "name": "demo",
            "namespace": namespace,
            "annotations": {"scaledobject.kaito.sh/managed-by": "keda-kaito-scaler"},
            "ownerReferences": [{
                "apiVersion": api, "kind": "InferenceSet", "name": "demo", "uid": uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": api, "kind": "InferenceSet", "name": "demo"},
            "minReplicaCount": 1,
            "maxReplicaCount": 5,
            "advanced": advanced,
            "triggers": triggers,
        },
    })
}

async fn upgrade(stage: Stage, version: &'static str) -> Result<()> {
    let (world, api) = (&stage.world, stage.api());
    let remains = api.get(&DEPLOYMENT.named(NAMESPACE, RELEASE)).await?;
    if remains.is_some() {
        uninstall(&stage).await?;
    }
    clear_release(&stage).await?;
    // The old release, its certificates, and a model with two replicas that it scales.
    let chart = world.setup.files.join("earlier").display().to_string();
    let has_authentication = version == "0.3.3";
    let tag = format!("image.tag={version}");
    world.helm.run(&["install", RELEASE, &chart, "--set", &tag]).await?;
    world.scaler_available(1).await?;
    if !has_authentication {
        let reference = |parameter: &str, name: &str, key: &str| json!({"parameter": parameter, "name": name, "key": key});
        let references = [
            reference("caCert", SECRETS[1], "ca.crt"),
            reference("tlsClientCert", SECRETS[0], "tls.crt"),
            reference("tlsClientKey", SECRETS[0], "tls.key"),
        ];
        let object = json!({
            "apiVersion": TRIGGER_AUTHENTICATION.0,
            "kind": TRIGGER_AUTHENTICATION.1,
            "metadata": {"name": "keda-kaito-scaler-creds"},
            "spec": {"secretTargetRef": references},
        });
        api.create(&object, Some("keda-kaito-scaler")).await?;
    }
    let certificates = certificates(&stage).await?;
    let metrics =
        r#"[{"name": "vllm:num_requests_waiting", "type": "gauge", "upthreshold": 10, "downthreshold": 1}]"#;
    let mut annotations = vec![("auto-provision", "true"), ("max-replicas", "5")];
    annotations.push(if version.starts_with("0.6") { ("metrics", metrics) } else { ("threshold", "10") });
    let model = stage.model("demo");
    model.wait_on_each(9.0);
    stage.inference_set("demo", 2, &annotations).await?;
    stage.has("demo", 2).await?;
    let set = api.get(&INFERENCE_SET.named(&stage.namespace, "demo")).await?.context("no InferenceSet")?;
    let object = earlier_scaled_object(&stage.namespace, version, &text(&set, "/metadata/uid"));
    api.create(&object, Some("keda-kaito-scaler")).await?;
    // The user's own.
    let own = json!({"spec": {"cooldownPeriod": 77}});
    api.merge(&SCALED_OBJECT.named(&stage.namespace, "demo"), own).await?;
    // The stand-in of the earlier scaler does not answer; KEDA keeps the HPA as it is.
    let hpa = HPA.named(&stage.namespace, "keda-hpa-demo");
    if has_authentication {
        let keep = json!({"metadata": {"annotations": {"helm.sh/resource-policy": "keep"}}});
        api.merge(&TRIGGER_AUTHENTICATION.named("", "keda-kaito-scaler-creds"), keep).await?;
    }

    let begun = Instant::now();
    world.helm.install("upgrade", &["--reset-then-reuse-values", "--set", "replicaCount=2"]).await?;
    stage.steady("demo", 2, world.scaler_available(2)).await?;
    stage.steady("demo", 2, adopted(&stage)).await?;
    stage.steady("demo", 2, stage.ready("demo")).await?;
    stage.figure("helm upgrade → adopted and Ready", "s", &[begun.elapsed().as_secs_f64()]);
    let uid = api.until(&hpa, "is there and gets values", LATER, |hpa| {
        let hpa = hpa.ok_or("not there")?;
        let (status, why) = crate::api::condition(hpa, "ScalingActive");
        if status == "True" { Ok(text(hpa, "/metadata/uid")) } else { Err(why) }
    });
    let uid = stage.steady("demo", 2, uid).await?;
    ensure!(
        self::certificates(&stage).await? == certificates,
        "the upgrade replaced certificates that were valid"
    );

    // Back, and forth again: nothing has to be cleaned up.
    let rolled_back = async {
        world.helm.run(&["rollback", RELEASE]).await?;
        world.scaler_available(1).await?;
        no_scaler_runs(&stage).await
    };
    stage.steady("demo", 2, world.excused(rolled_back)).await?;
    ensure!(self::certificates(&stage).await? == certificates, "the rollback replaced certificates");
    world.helm.install("upgrade", &["--reset-then-reuse-values", "--set", "replicaCount=2"]).await?;
    stage.steady("demo", 2, world.scaler_available(2)).await?;
    stage.steady("demo", 2, adopted(&stage)).await?;
    let now = api.get(&hpa).await?.map(|hpa| text(&hpa, "/metadata/uid"));
    ensure!(now.as_ref() == Some(&uid), "the HPA was made anew");
    Ok(())
}

/// The certificates in use, which an upgrade leaves alone.
async fn certificates(stage: &Stage) -> Result<Vec<String>> {
    let keys = [(SECRETS[0], ["ca.crt", "tls.crt"]), (SECRETS[1], ["ca.crt", "server.crt"])];
    let mut found = vec![];
    for (name, keys) in keys {
        let secret = SECRET.named(NAMESPACE, name);
        let filled = stage.api().until(&secret, "holds certificates", SOON, |secret| {
            let data = secret.and_then(|secret| secret.get("data")).ok_or("nothing in it")?;
            let values: Vec<_> =
                keys.iter().filter_map(|key| data.get(*key)?.as_str().map(str::to_owned)).collect();
            (values.len() == keys.len()).then_some(values).ok_or_else(|| "not all of them".into())
        });
        found.extend(filled.await?);
    }
    Ok(found)
}

/// Waits until the ScaledObject is this scaler's: pushed to, on the served version, without the
/// formula of 0.6, and with what the user set.
async fn adopted(stage: &Stage) -> Result<()> {
    let object = SCALED_OBJECT.named(&stage.namespace, "demo");
    stage
        .api()
        .until(&object, "is adopted", LATER, |object| {
            let object = object.ok_or("not there")?;
            let triggers = object.pointer("/spec/triggers").and_then(Value::as_array).map_or(0, Vec::len);
            let is_adopted = triggers == 1
                && text(object, "/spec/triggers/0/type") == "external-push"
                && text(object, "/spec/scaleTargetRef/apiVersion") == INFERENCE_SET.0
                && object.pointer("/spec/advanced/scalingModifiers").is_none()
                && crate::api::number(object, "/spec/cooldownPeriod") == Some(77);
            is_adopted
                .then_some(())
                .ok_or_else(|| object.get("spec").map(Value::to_string).unwrap_or_default())
        })
        .await
}
