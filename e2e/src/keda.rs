//! KEDA's operator and metrics adapter, with the rights that KEDA's own manifests give them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    api::{Api, CRD, POD, condition, documents, until_asked},
    certificates::{Authority, write},
    control_plane::{ControlPlane, Folders, NODE, base64},
    process::Process,
};

/// KEDA's namespace, and the scaler's.
pub(crate) const NAMESPACE: &str = "keda";
const ADAPTER_PORT: u16 = 6444;
const LIMIT: Duration = Duration::from_secs(60);

/// KEDA at work.
#[derive(Debug)]
pub(crate) struct Keda {
    programs: PathBuf,
    folders: Folders,
    operator: Mutex<Process>,
    adapter: Mutex<Process>,
}

/// What KEDA's version consists of: `keda-operator`, `keda-adapter` and `config/`.
#[derive(Clone, Debug)]
pub(crate) struct Release(pub PathBuf);

impl Release {
    /// Makes KEDA's namespace.
    pub(crate) async fn make_namespace(&self, api: &Api) -> Result<()> {
        apply_folder(api, &self.0.join("config/general"), |_| true).await
    }

    /// Installs KEDA's CRDs.
    pub(crate) async fn install_crds(&self, api: &Api) -> Result<()> {
        apply_folder(api, &self.0.join("config/crd/bases"), |_| true).await?;
        established(api).await
    }

    /// Starts KEDA and waits until the external metrics API is served by it.
    pub(crate) async fn start(&self, plane: &ControlPlane, folders: &Folders) -> Result<Keda> {
        let api = &plane.api;
        for folder in ["config/service_account", "config/rbac"] {
            apply_folder(api, &self.0.join(folder), |_| true).await?;
        }
        apply_folder(api, &self.0.join("config/metrics-server"), |name| name.starts_with("role")).await?;
        let certificates = folders.certificates.join("keda");
        fs::create_dir_all(&certificates).context("failed to make a folder")?;
        let authority = certify(&certificates)?;
        // An EndpointSlice may not hold a loopback address, hence a Service that is a name.
        api.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "keda-metrics-apiserver", "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }))
        .await?;
        api.apply(&json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
            "spec": {
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "caBundle": base64(authority.certificate.as_bytes()),
                "service": {"name": "keda-metrics-apiserver", "namespace": NAMESPACE, "port": ADAPTER_PORT},
            },
        }))
        .await?;
        show_operator(api).await?;
        let token = api.token(NAMESPACE, "keda-operator").await?;
        write(&folders.state.join("keda.kubeconfig"), &plane.kubeconfig(&token))?;
        let (operator, adapter) = (self.start_operator(folders)?, self.start_adapter(folders)?);
        let keda = Keda {
            programs: self.0.clone(),
            folders: folders.clone(),
            operator: Mutex::new(operator),
            adapter: Mutex::new(adapter),
        };
        keda.ready(api).await?;
        Ok(keda)
    }

    fn start_operator(&self, folders: &Folders) -> Result<Process> {
        let mut command = Command::new(self.0.join("keda-operator"));
        command.args([
            "--metrics-bind-address=127.0.0.1:8080",
            "--health-probe-bind-address=127.0.0.1:8081",
            "--metrics-service-bind-address=127.0.0.1:9666",
            "--enable-cert-rotation=false",
            "--leader-elect=false",
            // As its operators set it for many ScaledObjects; the default of 20 requests a second is
            // what would be measured here.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--zap-log-level=info",
            "--zap-encoder=console",
            "--zap-time-encoding=rfc3339nano",
        ]);
        command.arg(format!("--cert-dir={}", folders.certificates.join("keda").display()));
        Process::start("keda-operator", environment(command, folders), &folders.logs)
    }

    fn start_adapter(&self, folders: &Folders) -> Result<Process> {
        let certificates = folders.certificates.join("keda");
        let kubeconfig = folders.state.join("keda.kubeconfig").display().to_string();
        let mut command = Command::new(self.0.join("keda-adapter"));
        command.args([
            "--bind-address=127.0.0.1",
            "--port=8082",
            "--metrics-service-address=127.0.0.1:9666",
            "--zap-encoder=console",
        ]);
        command.args([
            format!("--secure-port={ADAPTER_PORT}"),
            format!("--client-ca-file={}", certificates.join("ca.crt").display()),
            format!("--cert-dir={}", certificates.display()),
            format!("--tls-cert-file={}", certificates.join("tls.crt").display()),
            format!("--tls-private-key-file={}", certificates.join("tls.key").display()),
            format!("--lister-kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
        ]);
        Process::start("keda-adapter", environment(command, folders), &folders.logs)
    }
}

impl Keda {
    async fn ready(&self, api: &Api) -> Result<()> {
        let (operator, adapter) = (self.operator.lock().await.clone(), self.adapter.lock().await.clone());
        operator.while_alive(adapter.while_alive(answers(api))).await
    }

    /// Ends the operator, as a rollout does, and starts it anew.
    pub(crate) async fn restart_operator(&self, api: &Api) -> Result<()> {
        let mut operator = self.operator.lock().await;
        operator.stop(LIMIT).await?;
        *operator = Release(self.programs.clone()).start_operator(&self.folders)?;
        drop(operator);
        self.ready(api).await
    }
}

/// Waits until the adapter serves the external metrics API, and the operator is ready.
async fn answers(api: &Api) -> Result<()> {
    let service = crate::api::Kind("apiregistration.k8s.io/v1", "APIService");
    let service = service.named("", "v1beta1.external.metrics.k8s.io");
    api.until(&service, "is Available: KEDA's adapter answers", LIMIT, |service| {
        let (status, why) = condition(service.ok_or("not there")?, "Available");
        (status == "True").then_some(()).ok_or(why)
    })
    .await?;
    until_asked("KEDA's operator is ready", LIMIT, || async {
        let answer = reqwest::get("http://127.0.0.1:8081/readyz").await.map_err(|error| error.to_string())?;
        answer.status().is_success().then_some(()).ok_or_else(|| answer.status().to_string())
    })
    .await
}

fn environment(mut command: Command, folders: &Folders) -> Command {
    command
        .env("KUBECONFIG", folders.state.join("keda.kubeconfig"))
        .env("POD_NAMESPACE", NAMESPACE)
        .env("POD_NAME", "keda-operator")
        .env("KEDA_CLUSTER_OBJECT_NAMESPACE", NAMESPACE)
        .env("WATCH_NAMESPACE", "");
    command
}

/// Between the operator, the adapter and the API server.
fn certify(folder: &Path) -> Result<Authority> {
    let authority = Authority::new("keda")?;
    write(&folder.join("ca.crt"), &authority.certificate)?;
    let hosts = [
        "localhost",
        "127.0.0.1",
        "keda-operator.keda.svc",
        "keda-operator.keda.svc.cluster.local",
        "keda-metrics-apiserver.keda.svc",
        "keda-metrics-apiserver.keda.svc.cluster.local",
    ];
    authority.leaf("keda", None, &hosts)?.write(folder, "tls")?;
    Ok(authority)
}

/// `helm test` looks for the operator's pod; this one only shows that it is there.
async fn show_operator(api: &Api) -> Result<()> {
    let labels = json!({"app": "keda-operator", "app.kubernetes.io/name": "keda-operator"});
    let container = json!({
        "name": "keda-operator",
        "image": "keda-operator",
        "env": [{"name": "KEDA_CLUSTER_OBJECT_NAMESPACE", "value": NAMESPACE}],
    });
    api.apply(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "keda-operator", "namespace": NAMESPACE, "labels": labels},
        "spec": {"nodeName": NODE, "serviceAccountName": "keda-operator", "containers": [container]},
    }))
    .await?;
    api.merge_status(&POD.named(NAMESPACE, "keda-operator"), json!({"phase": "Running"})).await
}

/// Applies the YAML files of a folder that are `wanted`, in the order of their names.
pub(crate) async fn apply_folder(api: &Api, folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let failed = || format!("failed to read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(failed)?;
    let mut files: Vec<_> = entries.collect::<Result<Vec<_>, _>>().with_context(failed)?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        if file.path().extension().is_none_or(|extension| extension != "yaml")
            || name == "kustomization.yaml"
            || !wanted(&name)
        {
            continue;
        }
        let yaml = fs::read_to_string(file.path()).with_context(failed)?;
        for document in documents(&yaml).with_context(|| format!("in {name}"))? {
            apply_document(api, document).await.with_context(|| format!("in {name}"))?;
        }
    }
    Ok(())
}

async fn apply_document(api: &Api, document: Value) -> Result<()> {
    api.apply(&document).await.map(drop)
}

/// Waits until every CRD can be used.
pub(crate) async fn established(api: &Api) -> Result<()> {
    api.until_all(CRD, "", "every CRD is established", LIMIT, |all| {
        let waits = all.iter().find(|(_, crd)| condition(crd, "Established").0 != "True");
        waits.map_or(Ok(()), |((_, name), _)| Err(format!("{name} is not")))
    })
    .await
}
