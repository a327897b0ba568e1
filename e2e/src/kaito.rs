//! A stand-in for KAITO's InferenceSet controller: Workspaces and their pods for the replicas
//! that are wanted, and the status that KAITO writes. The kubelet's stand-in runs the pods.

use std::sync::Arc;

use anyhow::Result;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::{
    api::{Api, INFERENCE_SET, Objects, POD, WORKSPACE, condition, label, number, text},
    control_plane::NODE,
    models::Models,
};

const CREATED_BY: &str = "inferenceset.kaito.sh/created-by";

/// KAITO at work, for as long as tasks run.
#[derive(Debug)]
pub(crate) struct Kaito {
    api: Api,
    models: Arc<Models>,
    sets: watch::Receiver<Objects>,
    workspaces: watch::Receiver<Objects>,
    pods: watch::Receiver<Objects>,
}

impl Kaito {
    pub(crate) fn start(api: &Api, models: &Arc<Models>, tasks: &TaskTracker) {
        let mirror = |kind| api.mirror(kind, tasks);
        let kaito = Self {
            api: api.clone(),
            models: models.clone(),
            sets: mirror(INFERENCE_SET),
            workspaces: mirror(WORKSPACE),
            pods: mirror(POD),
        };
        tasks.spawn(kaito.run());
    }

    async fn run(mut self) {
        loop {
            let changed = tokio::select! {
                changed = self.sets.changed() => changed,
                changed = self.workspaces.changed() => changed,
                changed = self.pods.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            let sets = self.sets.borrow_and_update().clone();
            let workspaces = self.workspaces.borrow_and_update().clone();
            let pods = self.pods.borrow_and_update().clone();
            let reconciled = sets.values().map(|set| self.reconcile(set, &workspaces, &pods));
            let orphans = self.end_orphans(&workspaces, &pods);
            let (reconciled, orphans) = tokio::join!(join_all(reconciled), orphans);
            for result in reconciled.into_iter().chain([orphans]) {
                // What was changed meanwhile shows in a later event.
                if let Err(error) = result {
                    debug!("KAITO's stand-in: {error:#}");
                }
            }
        }
    }

    async fn reconcile(&self, set: &Value, workspaces: &Objects, pods: &Objects) -> Result<()> {
        let (namespace, name) = (text(set, "/metadata/namespace"), text(set, "/metadata/name"));
        if set.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(());
        }
        let model = self.models.of(&namespace, &name);
        let replicas = usize::try_from(number(set, "/spec/replicas").unwrap_or(1)).unwrap_or(0);
        let is_own = |object: &Value| {
            text(object, "/metadata/namespace") == namespace && label(object, CREATED_BY) == name
        };
        let is_ready = |workspace: &str| {
            let pod = pods.get(&(namespace.clone(), format!("{workspace}-0")));
            pod.is_some_and(|pod| condition(pod, "Ready").0 == "True")
        };
        let owned: Vec<&Value> = workspaces.values().filter(|workspace| is_own(workspace)).collect();
        let live = |workspace: &&&Value| workspace.pointer("/metadata/deletionTimestamp").is_none();
        let mut names: Vec<String> =
            owned.iter().filter(live).map(|workspace| text(workspace, "/metadata/name")).collect();
        // Those that are not ready go first, of others the youngest.
        names.sort_by_key(|workspace| (!is_ready(workspace), ordinal(workspace)));
        for workspace in names.iter().skip(replicas) {
            self.api.delete(&WORKSPACE.named(&namespace, workspace)).await?;
        }
        names.truncate(replicas);
        let missing = replicas.saturating_sub(names.len());
        let free = (0..).map(|number| format!("{name}-w{number}"));
        let is_free =
            |workspace: &String| !owned.iter().any(|taken| text(taken, "/metadata/name") == *workspace);
        for workspace in free.filter(is_free).take(missing).collect::<Vec<_>>() {
            self.make_workspace(set, &workspace, model.nodes()).await?;
        }
        for workspace in owned.iter().filter(live).filter(|one| names.contains(&text(one, "/metadata/name")))
        {
            self.make_pods(set, workspace, pods).await?;
        }
        if !model.holds_status() {
            let ready = names.iter().filter(|workspace| is_ready(workspace)).count();
            self.write_status(set, replicas, ready).await?;
        }
        Ok(())
    }

    async fn make_workspace(&self, set: &Value, workspace: &str, nodes: usize) -> Result<()> {
        let (namespace, name) = (text(set, "/metadata/namespace"), text(set, "/metadata/name"));
        let object = json!({
            "apiVersion": WORKSPACE.0,
            "kind": WORKSPACE.1,
            "metadata": {
                "name": workspace,
                "namespace": namespace,
                "labels": {CREATED_BY: name},
                "ownerReferences": [owner(set, INFERENCE_SET.0, INFERENCE_SET.1)],
            },
            "resource": {"labelSelector": {"matchLabels": {"apps": name}}},
            "inference": set.pointer("/spec/template/inference"),
        });
        self.api.apply(&object).await?;
        let status = json!({"targetNodeCount": nodes});
        self.api.merge_status(&WORKSPACE.named(&namespace, workspace), status).await
    }

    async fn make_pods(&self, set: &Value, workspace: &Value, pods: &Objects) -> Result<()> {
        let (namespace, name) = (text(workspace, "/metadata/namespace"), text(workspace, "/metadata/name"));
        for index in 0..number(workspace, "/status/targetNodeCount").unwrap_or(0) {
            let pod = format!("{name}-{index}");
            if pods.contains_key(&(namespace.clone(), pod.clone())) {
                continue;
            }
            let labels = json!({
                CREATED_BY: text(set, "/metadata/name"),
                "kaito.sh/workspace": name,
                "apps.kubernetes.io/pod-index": index.to_string(),
            });
            let object = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": pod,
                    "namespace": namespace,
                    "labels": labels,
                    "ownerReferences": [owner(workspace, WORKSPACE.0, WORKSPACE.1)],
                },
                "spec": {
                    "nodeName": NODE,
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "model", "image": "vllm", "ports": [{"containerPort": 5000}]}],
                },
            });
            self.api.apply(&object).await?;
        }
        Ok(())
    }

    /// Deletes the pods of workspaces that are gone; the garbage collector learns of a new CRD's
    /// kinds only after half a minute.
    async fn end_orphans(&self, workspaces: &Objects, pods: &Objects) -> Result<()> {
        for ((namespace, name), pod) in pods.iter() {
            let workspace = label(pod, "kaito.sh/workspace");
            let is_gone = !workspace.is_empty() && !workspaces.contains_key(&(namespace.clone(), workspace));
            if is_gone && pod.pointer("/metadata/deletionTimestamp").is_none() {
                self.api.delete(&POD.named(namespace, name)).await?;
            }
        }
        Ok(())
    }

    /// As KAITO writes it: replicas are those that are wanted, whether they are there or not.
    async fn write_status(&self, set: &Value, replicas: usize, ready: usize) -> Result<()> {
        let (namespace, name) = (text(set, "/metadata/namespace"), text(set, "/metadata/name"));
        let (replicas, ready) = (i64::try_from(replicas)?, i64::try_from(ready)?);
        let is_written = number(set, "/status/replicas") == Some(replicas)
            && number(set, "/status/readyReplicas") == Some(ready);
        if is_written {
            return Ok(());
        }
        let seconds = i64::try_from(clock::Clock::wall().since_unix().as_secs())?;
        let condition = json!({
            "type": "InferenceSetReady",
            "status": if ready == replicas { "True" } else { "False" },
            "reason": "Replicas",
            "message": format!("{ready} of {replicas}"),
            "lastTransitionTime": jiff::Timestamp::from_second(seconds)?.to_string(),
        });
        let status = json!({
            "replicas": replicas,
            "readyReplicas": ready,
            "selector": format!("{CREATED_BY}={name}"),
            "conditions": [condition],
        });
        self.api.merge_status(&INFERENCE_SET.named(&namespace, &name), status).await
    }
}

fn ordinal(workspace: &str) -> u32 {
    workspace.rsplit_once("-w").and_then(|(_, number)| number.parse().ok()).unwrap_or(u32::MAX)
}

fn owner(object: &Value, api_version: &str, kind: &str) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": text(object, "/metadata/name"),
        "uid": text(object, "/metadata/uid"),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}
