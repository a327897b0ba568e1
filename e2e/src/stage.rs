//! What a scenario does with the world: a namespace of its own, objects in it, and conditions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    api::{Api, HPA, INFERENCE_SET, NAMESPACE, SCALED_OBJECT, condition, number, text, until_asked},
    gateways::Gateway,
    models::Model,
    world::{World, account},
};

/// For what depends on one controller or a few.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// For what takes a restart of something, or several steps.
pub(crate) const LATER: Duration = Duration::from_secs(90);

const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// A scenario's own part of the world.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub world: Arc<World>,
    pub scenario: &'static str,
    /// Its own.
    pub namespace: String,
}

/// The annotations' common prefix.
pub(crate) const PREFIX: &str = "scaledobject.kaito.sh/";

/// What makes the HPA follow at once instead of in minutes.
pub(crate) const AT_ONCE: [(&str, &str); 5] = [
    ("evaluationwindow", "0"),
    ("scaleupcooldown", "1"),
    ("scaledowncooldown", "1"),
    ("scale-up-pods", "10"),
    ("scale-down-pods", "10"),
];

impl Stage {
    pub(crate) async fn set(world: &Arc<World>, scenario: &'static str) -> Result<Self> {
        let namespace = scenario.to_owned();
        world
            .api
            .apply(&json!({"apiVersion": "v1", "kind": NAMESPACE.1, "metadata": {"name": namespace}}))
            .await?;
        account(&world.api, &namespace).await?;
        Ok(Self { world: world.clone(), scenario, namespace })
    }

    /// Removes what the scenario made; `wholly` waits until KEDA has let go of it.
    pub(crate) async fn clear(&self, wholly: bool) -> Result<()> {
        self.world.api.delete(&NAMESPACE.named("", &self.namespace)).await?;
        if !wholly {
            return Ok(());
        }
        let gone = self.world.api.until_all(
            SCALED_OBJECT,
            &self.namespace,
            "no ScaledObject is left",
            LATER,
            |all| {
                if all.is_empty() { Ok(()) } else { Err(format!("{:?}", all.keys())) }
            },
        );
        gone.await
    }

    pub(crate) fn api(&self) -> &Api {
        &self.world.api
    }

    /// Reports a figure.
    pub(crate) fn figure(&self, name: &str, unit: &'static str, samples: &[f64]) {
        self.world.report.add(self.scenario, name, unit, samples);
    }

    pub(crate) fn model(&self, name: &str) -> Arc<Model> {
        self.world.models.of(&self.namespace, name)
    }

    /// The endpoint picker of an InferenceSet's pool.
    pub(crate) fn gateway(&self, name: &str) -> Arc<Gateway> {
        self.world.gateways.of(&self.namespace, &pool(name))
    }

    /// Makes an InferenceSet with annotations, whose prefix is left out.
    pub(crate) async fn inference_set(
        &self,
        name: &str,
        replicas: u32,
        annotations: &[(&str, &str)],
    ) -> Result<Arc<Model>> {
        let annotations: BTreeMap<_, _> =
            annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
        self.api()
            .apply(&json!({
                "apiVersion": INFERENCE_SET.0,
                "kind": INFERENCE_SET.1,
                "metadata": {"name": name, "namespace": self.namespace, "annotations": annotations},
                // `replicas` is KEDA's from here on; an apply that owned it would fight.
                "spec": {
                    "labelSelector": {"matchLabels": {"apps": name}},
                    "template": {
                        "inference": {"preset": {"name": "phi-4-mini-instruct"}},
                        "resource": {"instanceType": "Standard_NC24ads_A100_v4"},
                    },
                },
            }))
            .await?;
        let set = INFERENCE_SET.named(&self.namespace, name);
        self.api().merge(&set, json!({"spec": {"replicas": replicas}})).await?;
        Ok(self.model(name))
    }

    /// Makes one that is provisioned for one metric: ten waiting requests a replica, at most
    /// `max` replicas, and an HPA that follows at once.
    pub(crate) async fn annotated(&self, name: &str, max: u32, more: &[(&str, &str)]) -> Result<Arc<Model>> {
        self.annotated_with(name, 1, max, more).await
    }

    /// The same, with more than one replica to begin with.
    pub(crate) async fn annotated_with(
        &self,
        name: &str,
        replicas: u32,
        max: u32,
        more: &[(&str, &str)],
    ) -> Result<Arc<Model>> {
        let max = max.to_string();
        let mut annotations =
            vec![("auto-provision", "true"), ("threshold", "10"), ("max-replicas", max.as_str())];
        annotations.extend(AT_ONCE);
        annotations.extend(more);
        self.inference_set(name, replicas, &annotations).await
    }

    /// Makes a ScaledObject by hand, with one trigger of type external-push.
    pub(crate) async fn scaled_object(
        &self,
        name: &str,
        spec: Value,
        metadata: &[(&str, &str)],
    ) -> Result<()> {
        let mut trigger = json!({
            "scalerAddress": "keda-kaito-scaler-svc.keda.svc.cluster.local:10450",
            "inferenceSetName": name,
            "inferenceSetNamespace": self.namespace,
        });
        for (key, value) in metadata {
            trigger[*key] = (*value).into();
        }
        let mut spec = spec;
        spec["scaleTargetRef"] =
            json!({"apiVersion": INFERENCE_SET.0, "kind": INFERENCE_SET.1, "name": name});
        spec["triggers"] = json!([{
            "type": "external-push",
            "metricType": "AverageValue",
            "authenticationRef": {"kind": "ClusterTriggerAuthentication", "name": "keda-kaito-scaler-creds"},
            "metadata": trigger,
        }]);
        let object = json!({
            "apiVersion": SCALED_OBJECT.0,
            "kind": SCALED_OBJECT.1,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        });
        self.api().apply(&object).await.map(drop)
    }

    /// Puts an endpoint picker in front of an InferenceSet, with the names that KAITO gives.
    pub(crate) async fn endpoint_picker(&self, name: &str) -> Result<Arc<Gateway>> {
        let pool = pool(name);
        let service = scaler_core::fleet::services::picker_service(&pool);
        let labels = json!({"inferencepool": pool});
        self.api()
            .apply(&json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": service, "namespace": self.namespace, "labels": labels},
                "spec": {"selector": labels, "ports": [{"name": "http-metrics", "port": 9090}]},
            }))
            .await?;
        self.api()
            .apply(&json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": service, "namespace": self.namespace, "labels": labels},
                "spec": {
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "epp", "image": "endpoint-picker", "ports": [{"containerPort": 9090}]}],
                },
            }))
            .await?;
        Ok(self.gateway(name))
    }

    /// Waits until KEDA calls the ScaledObject ready.
    pub(crate) async fn ready(&self, name: &str) -> Result<()> {
        let object = SCALED_OBJECT.named(&self.namespace, name);
        self.api()
            .until(&object, "is Ready", LATER, |object| {
                let (status, why) = condition(object.ok_or("not there")?, "Ready");
                (status == "True").then_some(()).ok_or_else(|| format!("Ready is {status:?}, {why}"))
            })
            .await
    }

    /// Waits until the HPA's metrics say so, as (average value, target).
    pub(crate) async fn hpa_says(&self, name: &str, average: f64, target: f64) -> Result<()> {
        let hpa = HPA.named(&self.namespace, &format!("keda-hpa-{name}"));
        let what = format!("says {average}/{target} (avg)");
        self.api()
            .until(&hpa, &what, SOON, |hpa| {
                let hpa = hpa.ok_or("not there")?;
                let at = |pointer: &str| quantity(&text(hpa, pointer));
                let current = at("/status/currentMetrics/0/external/current/averageValue");
                let wanted = at("/spec/metrics/0/external/target/averageValue");
                let is_said = current == Some(average) && wanted == Some(target);
                is_said.then_some(()).ok_or_else(|| {
                    format!("{current:?}/{wanted:?}, ScalingActive {:?}", condition(hpa, "ScalingActive"))
                })
            })
            .await
    }

    /// Waits until so many replicas are wanted.
    pub(crate) async fn wants(&self, name: &str, replicas: i64, limit: Duration) -> Result<Instant> {
        let set = INFERENCE_SET.named(&self.namespace, name);
        let what = format!("wants {replicas} replicas");
        self.api()
            .until(&set, &what, limit, |set| {
                let seen = number(set.ok_or("not there")?, "/spec/replicas");
                (seen == Some(replicas)).then(Instant::now).ok_or_else(|| format!("{seen:?}"))
            })
            .await
    }

    /// Waits until so many replicas are wanted and ready.
    pub(crate) async fn has(&self, name: &str, replicas: i64) -> Result<()> {
        let set = INFERENCE_SET.named(&self.namespace, name);
        let what = format!("has {replicas} replicas, all of them ready");
        self.api()
            .until(&set, &what, LATER, |set| {
                let set = set.ok_or("not there")?;
                let counts =
                    ["/spec/replicas", "/status/replicas", "/status/readyReplicas"].map(|at| number(set, at));
                (counts == [Some(replicas); 3])
                    .then_some(())
                    .ok_or_else(|| format!("wanted, status, ready: {counts:?}"))
            })
            .await
    }

    /// Sees to it that the wanted replicas stay as they are for `period`: as long as several
    /// rounds of the HPA.
    pub(crate) async fn holds(&self, name: &str, replicas: i64, period: Duration) -> Result<()> {
        match timeout(period, self.strays(name, replicas)).await {
            Ok(strayed) => strayed,
            Err(_) => Ok(()),
        }
    }

    /// Sees to it that the wanted replicas stay as they are while `meanwhile` happens.
    pub(crate) async fn steady<T>(
        &self,
        name: &str,
        replicas: i64,
        meanwhile: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            strayed = self.strays(name, replicas) => Err(strayed.err().unwrap_or_else(|| anyhow!("the watch ended"))),
            done = meanwhile => done,
        }
    }

    /// Resolves, with an error, when the wanted replicas are not `replicas`.
    async fn strays(&self, name: &str, replicas: i64) -> Result<()> {
        let set = INFERENCE_SET.named(&self.namespace, name);
        let strayed = self.api().until(&set, "strays", FOR_EVER, |set| {
            let seen = number(set.ok_or("not there")?, "/spec/replicas");
            if seen == Some(replicas) { Err(format!("{seen:?}")) } else { Ok(seen) }
        });
        let seen = strayed.await?;
        bail!("{set} was to stay at {replicas} replicas and went to {seen:?}")
    }

    /// What the external metrics API answers for the metric of a ScaledObject whose name has
    /// `part` in it.
    pub(crate) async fn metric_named(&self, name: &str, part: &str) -> Result<f64> {
        let object =
            self.api().get(&SCALED_OBJECT.named(&self.namespace, name)).await?.context("no ScaledObject")?;
        let names = object.pointer("/status/externalMetricNames").and_then(Value::as_array);
        let mut names = names.into_iter().flatten().filter_map(Value::as_str);
        let metric = names.find(|name| name.contains(part)).context("KEDA has no such metric yet")?;
        let path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{metric}?labelSelector=scaledobject.keda.sh%2Fname%3D{name}",
            self.namespace
        );
        let answer = self.api().raw(&path).await?;
        quantity(&text(&answer, "/items/0/value")).with_context(|| format!("no value in {answer}"))
    }

    /// Waits until the external metrics API answers `value` for the one metric.
    pub(crate) async fn metric_is(&self, name: &str, value: f64) -> Result<()> {
        self.metric_named_is(name, "", value).await
    }

    /// Waits until the external metrics API answers `value` for the metric with `part` in its
    /// name.
    pub(crate) async fn metric_named_is(&self, name: &str, part: &str, value: f64) -> Result<()> {
        until_asked(&format!("external.metrics.k8s.io says {value} for {name} {part}"), SOON, || async {
            let seen = self.metric_named(name, part).await.map_err(|error| format!("{error:#}"))?;
            ((seen - value).abs() < 0.01).then_some(()).ok_or_else(|| seen.to_string())
        })
        .await
    }

    /// Waits until the scaler's own page says so of the target.
    pub(crate) async fn target(
        &self,
        name: &str,
        what: &str,
        test: impl Fn(&Value) -> bool,
    ) -> Result<(String, Value)> {
        until_asked(&format!("the scaler's target {name}: {what}"), SOON, || async {
            let targets = self.world.targets().await.map_err(|error| format!("{error:#}"))?;
            let is_own = |target: &Value| {
                text(target, "/namespace") == self.namespace && text(target, "/scaledObject") == name
            };
            let own: Vec<_> = targets.into_iter().filter(|(_, target)| is_own(target)).collect();
            let found = own.iter().find(|(_, target)| test(target)).cloned();
            found.ok_or_else(|| format!("{own:?}"))
        })
        .await
    }
}

fn pool(name: &str) -> String {
    scaler_core::fleet::services::pool_name(name)
}

/// A quantity as Kubernetes writes it, where it is a plain number or in thousandths.
pub(crate) fn quantity(text: &str) -> Option<f64> {
    match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<f64>().ok().map(|thousandths| thousandths / 1000.0),
        None => match text.strip_suffix('k') {
            Some(thousands) => thousands.parse::<f64>().ok().map(|thousands| thousands * 1000.0),
            None => text.parse().ok(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in
            [("10", Some(10.0)), ("5500m", Some(5.5)), ("2k", Some(2000.0)), ("", None), ("x", None)]
        {
            assert_eq!(quantity(text), expected, "{text}");
        }
    }
}
