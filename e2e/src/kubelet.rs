//! A stand-in for the scheduler and the kubelet: each pod gets the one node and an address of
//! its own, and what its container would do is done. The scaler's container is the program
//! under test, with the arguments, environment and account that the pod says.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tracing::{info, warn};

use crate::{
    api::{Api, Objects, POD, label, number, text},
    control_plane::{API_SERVER, NODE},
    earlier, gateways,
    models::Models,
    process::Process,
};

/// The program of the scaler's image.
const SCALER: &str = "/keda-kaito-scaler";
/// Where a pod finds its account, below the mount point of a fresh /run.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";
/// How a pod's container gets a mount table with its account in the usual place.
const CONTAINER: &str =
    "mount -t tmpfs tmpfs /run && mkdir -p \"$2\" && mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";

/// What runs pods.
#[derive(Debug)]
pub(crate) struct Kubelet {
    api: Api,
    /// The scaler's program under test.
    scaler: PathBuf,
    certificate: String,
    folder: PathBuf,
    logs: PathBuf,
    models: Arc<Models>,
    gateways: Arc<gateways::Gateways>,
    addresses: AtomicU32,
    /// The processes of the scaler's pods, by the pods' names.
    processes: Mutex<BTreeMap<String, Process>>,
    tasks: TaskTracker,
}

/// What a kubelet is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub api: Api,
    pub scaler: PathBuf,
    pub certificate: String,
    pub folder: PathBuf,
    pub logs: PathBuf,
    pub models: Arc<Models>,
    pub gateways: Arc<gateways::Gateways>,
}

impl Kubelet {
    pub(crate) fn start(parts: Parts, tasks: &TaskTracker) -> Arc<Self> {
        let Parts { api, scaler, certificate, folder, logs, models, gateways } = parts;
        let pods = api.mirror(POD, tasks);
        let (addresses, processes, tasks) = (AtomicU32::new(1), Mutex::default(), tasks.clone());
        let kubelet =
            Self { api, scaler, certificate, folder, logs, models, gateways, addresses, processes, tasks };
        let kubelet = Arc::new(kubelet);
        kubelet.tasks.spawn(kubelet.clone().run(pods));
        kubelet
    }

    /// The processes of the scaler that live, by the names of their pods.
    pub(crate) fn processes(&self) -> BTreeMap<String, Process> {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes
            .iter()
            .filter(|(_, process)| process.status().is_none())
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect()
    }

    async fn run(self: Arc<Self>, mut pods: watch::Receiver<Objects>) {
        let mut known: HashMap<String, CancellationToken> = HashMap::new();
        while pods.changed().await.is_ok() {
            let pods = pods.borrow_and_update().clone();
            let mut seen = HashMap::new();
            for pod in pods.values() {
                let uid = text(pod, "/metadata/uid");
                let stop = known.remove(&uid).unwrap_or_else(|| {
                    let stop = CancellationToken::new();
                    let lifetime = self.clone().live(pod.clone(), stop.clone());
                    self.tasks.spawn(lifetime);
                    stop
                });
                if pod.pointer("/metadata/deletionTimestamp").is_some() {
                    stop.cancel();
                }
                seen.insert(uid, stop);
            }
            // Those that vanished without a word.
            known.values().for_each(CancellationToken::cancel);
            known = seen;
        }
    }

    async fn live(self: Arc<Self>, pod: Value, stop: CancellationToken) {
        let object = POD.named(&text(&pod, "/metadata/namespace"), &text(&pod, "/metadata/name"));
        if object.name == "keda-operator" {
            return;
        }
        if let Err(error) = self.clone().run_pod(&pod, &stop).await {
            warn!("{object}: {error:#}");
        }
        let uid = text(&pod, "/metadata/uid");
        // One that has run to its end stays to be looked at until it is deleted.
        stop.cancelled().await;
        while let Err(error) = self.api.delete_at_once(&object, &uid).await {
            warn!("{object}: {error:#}");
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn run_pod(self: Arc<Self>, pod: &Value, stop: &CancellationToken) -> Result<()> {
        let object = POD.named(&text(pod, "/metadata/namespace"), &text(pod, "/metadata/name"));
        if text(pod, "/spec/nodeName").is_empty() {
            let path = format!("/api/v1/namespaces/{}/pods/{}/binding", object.namespace, object.name);
            let node = json!({"apiVersion": "v1", "kind": "Node", "name": NODE});
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": object.name}, "target": node});
            self.api.post(&path, &binding).await?;
        }
        let number = self.addresses.fetch_add(1, Ordering::Relaxed);
        let address = IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + number));
        let set = label(pod, "inferenceset.kaito.sh/created-by");
        let image = text(pod, "/spec/containers/0/image");
        let running = Running { kubelet: self.clone(), pod: pod.clone(), address, stop: stop.clone() };
        running.report("Running", false, 0).await?;
        if !set.is_empty() {
            running.model(&set).await
        } else if image.contains("endpoint-picker") {
            running.report("Running", true, 0).await?;
            let pool = label(pod, "inferencepool");
            self.gateways.of(&object.namespace, &pool).serve(address, &self.api, stop.clone()).await
        } else if earlier::is_image(&image) {
            running.earlier().await
        } else if text(pod, "/spec/containers/0/command/0") == SCALER {
            running.scaler().await
        } else {
            running.report("Running", true, 0).await
        }
    }
}

/// A pod that runs.
struct Running {
    kubelet: Arc<Kubelet>,
    pod: Value,
    address: IpAddr,
    stop: CancellationToken,
}

impl Running {
    fn name(&self) -> String {
        text(&self.pod, "/metadata/name")
    }

    fn namespace(&self) -> String {
        text(&self.pod, "/metadata/namespace")
    }

    /// Writes the pod's status. Again and again, while the API server cannot be reached.
    async fn report(&self, phase: &str, is_ready: bool, restarts: u32) -> Result<()> {
        let now = jiff::Timestamp::now().to_string();
        let now = format!("{}Z", now.split('.').next().unwrap_or_default().trim_end_matches('Z'));
        let status = if is_ready { "True" } else { "False" };
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(|kind| {
            let status = if kind.contains("Ready") { status } else { "True" };
            json!({"type": kind, "status": status, "lastTransitionTime": now})
        });
        let ended = matches!(phase, "Succeeded" | "Failed");
        let state = if ended {
            json!({"terminated": {"exitCode": i32::from(phase == "Failed"), "finishedAt": now}})
        } else {
            json!({"running": {"startedAt": now}})
        };
        let container = json!({
            "name": text(&self.pod, "/spec/containers/0/name"),
            "image": text(&self.pod, "/spec/containers/0/image"),
            "imageID": "",
            "ready": is_ready,
            "started": !ended,
            "restartCount": restarts,
            "state": state,
        });
        let address = self.address.to_string();
        let status = json!({
            "phase": phase,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": conditions,
            "containerStatuses": [container],
        });
        let object = POD.named(&self.namespace(), &self.name());
        loop {
            match self.kubelet.api.merge_status(&object, status.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let gone = error.chain().any(|cause| cause.to_string().contains("(404)"));
                    if gone || self.stop.is_cancelled() {
                        return Err(error);
                    }
                    sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Loads a model for as long as it takes, then serves it.
    async fn model(self, set: &str) -> Result<()> {
        let models = self.kubelet.models.clone();
        let model = models.of(&self.namespace(), set);
        let pod = self.name();
        if let Some(vllm) = model.real().filter(|_| pod.ends_with("-w0-0")) {
            let process = vllm.start(&pod, self.address, &self.kubelet.logs).await?;
            self.report("Running", true, 0).await?;
            self.stop.cancelled().await;
            return process.stop(Duration::from_secs(10)).await.map(drop);
        }
        model.set_serving(&pod, false);
        // Only the first pod of a workspace serves; the others work for it.
        let serves = pod.ends_with("-0");
        let serving = async {
            if serves {
                models.clone().serve(model.clone(), pod.clone(), self.address, self.stop.clone()).await
            } else {
                self.stop.cancelled().await;
                Ok(())
            }
        };
        let loading = async {
            let mut changes = model.changes();
            let begun = tokio::time::Instant::now();
            while let Some(left) =
                model.start_up().checked_sub(begun.elapsed()).filter(|left| !left.is_zero())
            {
                let _ = timeout(left, changes.changed()).await;
            }
            model.set_serving(&pod, serves);
            let reported = self.report("Running", true, 0).await;
            self.stop.cancelled().await;
            reported
        };
        let (served, reported) = tokio::join!(serving, loading);
        model.forget(&pod);
        served.and(reported)
    }

    async fn earlier(self) -> Result<()> {
        self.report("Running", true, 0).await?;
        earlier::rotate(&self.kubelet.api, &self.namespace(), self.stop.clone()).await
    }

    /// Runs the scaler, again if it ends by itself and the pod wants that.
    async fn scaler(self) -> Result<()> {
        let account = self.account().await?;
        let mut restarts = 0;
        loop {
            let process = self.start(&account)?;
            self.kubelet
                .processes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(self.name(), process.clone());
            let probe = self.probe(restarts);
            let ended = tokio::select! {
                status = process.exited() => Some(status),
                () = self.stop.cancelled() => None,
                never = probe => match never {},
            };
            let Some(status) = ended else {
                let grace = number(&self.pod, "/spec/terminationGracePeriodSeconds").unwrap_or(30);
                let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(30));
                // A pod that is deleted is unready to the endpoints controller by its deletionTimestamp.
                return process.stop(grace).await.map(drop);
            };
            if text(&self.pod, "/spec/restartPolicy") == "Never" {
                let phase = if status.success() { "Succeeded" } else { "Failed" };
                return self.report(phase, false, 0).await;
            }
            restarts += 1;
            info!("{} ended with {status}", self.name());
            self.report("Running", false, restarts).await?;
            // The kubelet starts it anew at once, and after that ever later.
            let pause = Duration::from_secs(10) * restarts.saturating_sub(1).min(1);
            self.stop.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// The folder that a pod's account is mounted from.
    async fn account(&self) -> Result<PathBuf> {
        let (namespace, account) = (self.namespace(), text(&self.pod, "/spec/serviceAccountName"));
        let token = self.kubelet.api.token(&namespace, &account).await?;
        let folder = self.kubelet.folder.join(text(&self.pod, "/metadata/uid"));
        fs::create_dir_all(&folder).context("failed to make a folder")?;
        for (name, content) in
            [("token", &token), ("namespace", &namespace), ("ca.crt", &self.kubelet.certificate)]
        {
            crate::certificates::write(&folder.join(name), content)?;
        }
        Ok(folder)
    }

    fn start(&self, account: &std::path::Path) -> Result<Process> {
        let mut environment = self.environment();
        // A pod has a network of its own. This one has an address of its own.
        environment.insert("KEDA_KAITO_SCALER_BIND_ADDRESS".into(), self.address.to_string());
        environment.insert("KUBERNETES_SERVICE_HOST".into(), API_SERVER.0.into());
        environment.insert("KUBERNETES_SERVICE_PORT".into(), API_SERVER.1.to_string());
        let arguments = self.pod.pointer("/spec/containers/0/args").and_then(Value::as_array);
        let arguments = arguments.into_iter().flatten().filter_map(Value::as_str).map(|argument| {
            environment.iter().fold(argument.to_owned(), |argument, (name, value)| {
                argument.replace(&format!("$({name})"), value)
            })
        });
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", CONTAINER, "container"]).arg(account).arg(ACCOUNT);
        command.arg(&self.kubelet.scaler).args(arguments).env_clear().envs(&environment);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Process::start(&format!("pod-{}", self.name()), command, &self.kubelet.logs)
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let listed = self.pod.pointer("/spec/containers/0/env").and_then(Value::as_array);
        listed
            .into_iter()
            .flatten()
            .map(|variable| {
                let value = match text(variable, "/valueFrom/fieldRef/fieldPath").as_str() {
                    "metadata.name" => self.name(),
                    "metadata.namespace" => self.namespace(),
                    "status.podIP" => self.address.to_string(),
                    _ => text(variable, "/value"),
                };
                (text(variable, "/name"), value)
            })
            .collect()
    }

    /// The readiness probe, as the pod says it, whose changes show in the pod's status.
    async fn probe(&self, restarts: u32) -> std::convert::Infallible {
        let probe = self.pod.pointer("/spec/containers/0/readinessProbe").cloned().unwrap_or_default();
        let seconds = |name: &str, default| {
            let seconds = number(&probe, &format!("/{name}")).and_then(|seconds| u64::try_from(seconds).ok());
            Duration::from_secs(seconds.unwrap_or(default))
        };
        let service = text(&probe, "/grpc/service");
        let Some(port) = number(&probe, "/grpc/port") else { return std::future::pending().await };
        let threshold = number(&probe, "/failureThreshold").unwrap_or(3);
        let (mut is_ready, mut failures) = (false, 0);
        sleep(seconds("initialDelaySeconds", 0)).await;
        loop {
            let call = health(format!("http://{}:{port}", self.address), service.clone());
            let serves = timeout(seconds("timeoutSeconds", 1), call).await.unwrap_or(false);
            failures = if serves { 0 } else { failures + 1 };
            let was_ready = is_ready;
            is_ready = serves || (is_ready && failures < threshold);
            if is_ready != was_ready
                && let Err(error) = self.report("Running", is_ready, restarts).await
            {
                warn!("{}: {error:#}", self.name());
            }
            sleep(seconds("periodSeconds", 10)).await;
        }
    }
}

async fn health(address: String, service: String) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(address) else { return false };
    let Ok(channel) = endpoint.connect().await else { return false };
    let answer = HealthClient::new(channel).check(HealthCheckRequest { service }).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

impl Kubelet {
    /// Kills the scaler of a pod as a crash would.
    pub(crate) async fn kill(&self, pod: &str) -> Result<()> {
        let process =
            self.processes().remove(pod).with_context(|| format!("no process of pod {pod} lives"))?;
        process.signal(Signal::KILL)?;
        process.exited().await;
        Ok(())
    }
}
