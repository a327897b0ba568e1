//! etcd, kube-apiserver and kube-controller-manager, as processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::Mutex;

use crate::{
    api::{Api, SERVICE_ACCOUNT, until_asked},
    certificates::{Authority, Leaf, token_keys, write},
    process::Process,
    sandbox::SERVICE_NETWORK,
};

/// Where the API server listens.
pub(crate) const API_SERVER: (&str, u16) = ("127.0.0.1", 6443);
/// The one node, on which the stand-in for the kubelet runs pods.
pub(crate) const NODE: &str = "e2e";
/// How often the HPA controller looks: Kubernetes' default is 15 s.
pub(crate) const FAST_SYNC: Duration = Duration::from_secs(1);
pub(crate) const REAL_SYNC: Duration = Duration::from_secs(15);

const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Folders of a run.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    /// Programs: etcd, kube-apiserver, kube-controller-manager.
    pub programs: PathBuf,
    pub certificates: PathBuf,
    pub logs: PathBuf,
    pub state: PathBuf,
}

/// The control plane at work.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    folders: Folders,
    certificate: String,
    etcd: Process,
    api_server: Mutex<Process>,
    controllers: Mutex<Process>,
    /// A kubeconfig of the cluster's administrator.
    pub admin: String,
    pub api: Api,
}

impl ControlPlane {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(folders: Folders) -> Result<Self> {
        for folder in [&folders.certificates, &folders.logs, &folders.state] {
            fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        }
        let authority = certify(&folders.certificates)?;
        let admin_certificate = authority.leaf("admin", Some("system:masters"), &[])?;
        let admin =
            kubeconfig(&authority.certificate, API_SERVER.1, &Access::Certificate(&admin_certificate));
        write(&folders.state.join("admin.kubeconfig"), &admin)?;
        let controllers = authority.leaf("system:kube-controller-manager", None, &[])?;
        let controllers =
            kubeconfig(&authority.certificate, API_SERVER.1, &Access::Certificate(&controllers));
        write(&folders.state.join("controllers.kubeconfig"), &controllers)?;

        let etcd = Process::start("etcd", etcd(&folders), &folders.logs)?;
        let api_server = Process::start("kube-apiserver", api_server(&folders), &folders.logs)?;
        let api = Api::connect(&admin).await?;
        api_ready(&api, &api_server).await?;
        let controllers = start_controllers(&folders, FAST_SYNC)?;
        let ready = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}]});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        api.apply(&node).await?;
        api.merge_status(&crate::api::Kind("v1", "Node").named("", NODE), ready).await?;
        let account = SERVICE_ACCOUNT.named("default", "default");
        let works = api.until(&account, "exists: the controllers work", START_LIMIT, |account| {
            account.map(drop).ok_or_else(|| "not there".into())
        });
        controllers.while_alive(works).await?;
        let (api_server, controllers) = (Mutex::new(api_server), Mutex::new(controllers));
        let certificate = authority.certificate;
        Ok(Self { folders, certificate, etcd, api_server, controllers, admin, api })
    }

    /// The PEM of the CA that signs the API server's certificate.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A kubeconfig of whoever holds `token`, for clients of `port` on the loopback interface.
    pub(crate) fn kubeconfig(&self, token: &str) -> String {
        kubeconfig(&self.certificate, API_SERVER.1, &Access::Token(token))
    }

    /// Kills the API server and starts it anew; its clients see refused connections meanwhile.
    pub(crate) async fn restart_api_server(&self) -> Result<()> {
        let mut api_server = self.api_server.lock().await;
        api_server.kill().await?;
        *api_server = Process::start("kube-apiserver", self::api_server(&self.folders), &self.folders.logs)?;
        api_ready(&self.api, &api_server).await
    }

    /// Halts etcd, so that the API server's reads and writes hang.
    pub(crate) fn pause_etcd(&self) -> Result<()> {
        self.etcd.signal(Signal::STOP)
    }

    pub(crate) fn resume_etcd(&self) -> Result<()> {
        self.etcd.signal(Signal::CONT)
    }

    /// Has the HPA controller look every `sync` from now on.
    pub(crate) async fn set_hpa_sync(&self, sync: Duration) -> Result<()> {
        let mut controllers = self.controllers.lock().await;
        controllers.stop(STOP_LIMIT).await?;
        *controllers = start_controllers(&self.folders, sync)?;
        Ok(())
    }
}

fn certify(folder: &Path) -> Result<Authority> {
    let authority = Authority::new("cluster")?;
    write(&folder.join("ca.crt"), &authority.certificate)?;
    let hosts =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", "10.96.0.1"];
    authority.leaf("kube-apiserver", None, &hosts)?.write(folder, "apiserver")?;
    let front = Authority::new("front-proxy")?;
    write(&folder.join("front-ca.crt"), &front.certificate)?;
    front.leaf("front-proxy-client", None, &[])?.write(folder, "front-proxy")?;
    token_keys(folder)?;
    Ok(authority)
}

fn etcd(Folders { programs, state, .. }: &Folders) -> Command {
    let mut command = Command::new(programs.join("etcd"));
    command.args([
        "--name=e2e",
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=e2e=http://127.0.0.1:2380",
    ]);
    command.arg(format!("--data-dir={}", state.join("etcd").display()));
    command
}

fn api_server(Folders { programs, certificates, state, .. }: &Folders) -> Command {
    let file = |name: &str| certificates.join(name).display().to_string();
    let mut command = Command::new(programs.join("kube-apiserver"));
    command.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        // There is no endpoint for it: pods reach it at its own address.
        "--endpoint-reconciler-type=none",
        "--allow-privileged=true",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        // The metrics adapter is reached through the name of its Service.
        "--enable-aggregator-routing=false",
        "--profiling=false",
        "--v=1",
    ]);
    command.args([
        format!("--secure-port={}", API_SERVER.1),
        format!("--service-cluster-ip-range={SERVICE_NETWORK}"),
        format!("--cert-dir={}", state.display()),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        format!("--requestheader-client-ca-file={}", file("front-ca.crt")),
        format!("--proxy-client-cert-file={}", file("front-proxy.crt")),
        format!("--proxy-client-key-file={}", file("front-proxy.key")),
    ]);
    command
}

/// Every controller that a scenario needs; pods are run by the harness.
const CONTROLLERS: &str = "horizontal-pod-autoscaler-controller,garbage-collector-controller,namespace-controller,\
    serviceaccount-controller,serviceaccount-token-controller,root-ca-certificate-publisher-controller,\
    clusterrole-aggregation-controller,deployment-controller,replicaset-controller,endpointslice-controller,\
    disruption-controller";

fn start_controllers(folders: &Folders, sync: Duration) -> Result<Process> {
    let Folders { programs, certificates, state, logs } = folders;
    let kubeconfig = state.join("controllers.kubeconfig").display().to_string();
    let mut command = Command::new(programs.join("kube-controller-manager"));
    command.args([
        "--bind-address=127.0.0.1",
        "--secure-port=10257",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        "--profiling=false",
        "--v=2",
    ]);
    command.args([
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--cert-dir={}", state.display()),
        format!("--service-account-private-key-file={}", certificates.join("sa.key").display()),
        format!("--root-ca-file={}", certificates.join("ca.crt").display()),
        format!("--controllers={}", CONTROLLERS.replace(' ', "")),
        format!("--horizontal-pod-autoscaler-sync-period={}s", sync.as_secs()),
    ]);
    Process::start("kube-controller-manager", command, logs)
}

async fn api_ready(api: &Api, process: &Process) -> Result<()> {
    // Ready means that the roles of the system's own accounts are there as well.
    let ready = until_asked("the API server is ready", START_LIMIT, || async {
        let answer = api.raw_text("/readyz").await.map_err(|error| format!("{error:#}"))?;
        (answer == "ok").then_some(()).ok_or(answer)
    });
    process.while_alive(ready).await
}

/// How somebody proves who they are.
pub(crate) enum Access<'a> {
    Certificate(&'a Leaf),
    Token(&'a str),
}

/// A kubeconfig, as JSON, which is YAML too.
pub(crate) fn kubeconfig(authority: &str, port: u16, access: &Access<'_>) -> String {
    let user = match access {
        Access::Certificate(leaf) => json!({
            "client-certificate-data": base64(leaf.certificate.as_bytes()),
            "client-key-data": base64(leaf.key.as_bytes()),
        }),
        Access::Token(token) => json!({"token": token}),
    };
    let cluster = json!({
        "server": format!("https://{}:{port}", API_SERVER.0),
        "certificate-authority-data": base64(authority.as_bytes()),
    });
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "e2e", "cluster": cluster}],
        "users": [{"name": "e2e", "user": user}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        "current-context": "e2e",
    })
    .to_string()
}

/// Kubernetes' own type for bytes is written as base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let encoded = serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec()));
    encoded.ok().and_then(|encoded| encoded.as_str().map(str::to_owned)).unwrap_or_default()
}
