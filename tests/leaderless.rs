//! The whole program in a cluster that takes its Lease away: who leads may write, and everybody
//! pushes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::Path, sync::Arc, time::Duration};

use http::Method;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use keda_kaito_scaler::{
    cluster::client::{ClusterAccess, Rate},
    pki::{store::Settings, tls::install_crypto},
    run::{
        self, RunOptions, Running, Source,
        cluster::{ClusterOptions, Election},
    },
    wake::CredentialSettings,
};
use keda_proto::{ScaledObjectRef, external_scaler_client::ExternalScalerClient};
use kube::Api;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use scaler_core::{fleet::tenancy::Tenancy, lease::Timing};
use serde_json::json;
use sim::{
    api_server::ApiServer,
    fixtures::{Behaviour, Fixture},
    gateway,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const KEDA: &str = "keda";
const NAMESPACE: &str = "team-a";
const SERVICE: &str = "keda-kaito-scaler-svc";
const SECRETS: [&str; 3] = ["server-certs", "client-certs", "ca"];
const LEASE: &str = "keda-kaito-scaler";
const PICKER: &str = "demo-inferencepool-epp";
const PICKER_PORT: u16 = 9090;

/// KEDA, KAITO and one model that sleeps behind the picker.
fn cluster(picker: &Fixture) -> ApiServer {
    let server = ApiServer::new();
    for (version, kind, plural) in [
        ("v1", "Secret", "secrets"),
        ("v1", "Pod", "pods"),
        ("v1", "Service", "services"),
        ("v1", "Namespace", "namespaces"),
        ("coordination.k8s.io/v1", "Lease", "leases"),
        ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
        ("kaito.sh/v1alpha1", "MultiRoleInference", "multiroleinferences"),
        ("kaito.sh/v1beta1", "InferenceSet", "inferencesets"),
        ("kaito.sh/v1beta1", "Workspace", "workspaces"),
        ("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
        ("keda.sh/v1alpha1", "ClusterTriggerAuthentication", "clustertriggerauthentications"),
    ] {
        server.install(version, kind, plural);
    }
    // As the Helm chart makes them.
    for name in SECRETS {
        server.put(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": KEDA, "name": name},
        }));
    }
    server.put(json!({
        "apiVersion": "kaito.sh/v1beta1", "kind": "InferenceSet",
        "metadata": {"namespace": NAMESPACE, "name": "demo"},
        "spec": {"replicas": 0}, "status": {"readyReplicas": 0},
    }));
    server.put(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": PICKER},
        "spec": {"ports": [{"name": "metrics", "port": PICKER_PORT}]},
    }));
    server.put(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE, "name": PICKER, "labels": {"kubernetes.io/service-name": PICKER},
        },
        "endpoints": [{"addresses": [picker.address().ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "metrics", "port": picker.address().port()}],
    }));
    server
}

fn kubeconfig(folder: &Path, server: &str) -> ClusterAccess {
    let path = folder.join("kubeconfig.json");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "sim",
        "clusters": [{"name": "sim", "cluster": {"server": server}}],
        "users": [{"name": "sim", "user": {}}],
        "contexts": [{"name": "sim", "context": {"cluster": "sim", "user": "sim"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    ClusterAccess { kubeconfig: Some(path), rate: Rate::default() }
}

async fn scaler(access: ClusterAccess) -> Running {
    let timing = [3_000, 2_000, 100].map(Duration::from_millis);
    let [server_secret, client_secret, ca_secret] = SECRETS.map(str::to_owned);
    let options = ClusterOptions {
        pod: None,
        certificates: Settings {
            namespace: KEDA.to_owned(),
            own_namespace: KEDA.to_owned(),
            server_secret,
            client_secret,
            ca_secret,
            service: SERVICE.to_owned(),
            leaf_life: Duration::from_secs(86_400),
        },
        election: Some(Election {
            namespace: KEDA.to_owned(),
            lease: LEASE.to_owned(),
            timing: Timing::new(timing[0], timing[1], timing[2]).unwrap(),
        }),
        access,
        tenancy: Tenancy::OwnNamespace,
        credentials: CredentialSettings::default(),
    };
    // However busy the machine is, the first call waits for the first reading.
    let options = RunOptions {
        source: Source::Cluster(Box::new(options)),
        first_round: PATIENCE,
        ..RunOptions::for_file(std::path::PathBuf::new())
    };
    run::start(options).await.unwrap()
}

/// Connects with what KEDA finds in the Secrets that the scaler writes, once it listens.
async fn connect(server: &ApiServer, scaler: &Running) -> Channel {
    let [server_secret, client_secret, _] = SECRETS;
    let has_data = |server: &ApiServer, name| {
        server.get("Secret", KEDA, name).is_some_and(|secret| secret["data"].is_object())
    };
    let written = server.until(|server| has_data(server, server_secret) && has_data(server, client_secret));
    timeout(PATIENCE, written).await.expect("certificates");
    let secrets: Api<Secret> = Api::namespaced(server.client(), KEDA);
    let entry =
        async |secret: &str, key: &str| secrets.get(secret).await.unwrap().data.unwrap()[key].0.clone();
    let mut roots = RootCertStore::empty();
    for ca in rustls_pemfile::certs(&mut &*entry(server_secret, "ca.crt").await) {
        roots.add(ca.unwrap()).unwrap();
    }
    let chain =
        rustls_pemfile::certs(&mut &*entry(client_secret, "tls.crt").await).map(Result::unwrap).collect();
    let key = rustls_pemfile::private_key(&mut &*entry(client_secret, "tls.key").await).unwrap().unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = config.with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (client, address) = (TlsConnector::from(Arc::new(config)), scaler.grpc_address());
    let dial = tower::service_fn(move |_: http::Uri| {
        let client = client.clone();
        async move {
            let name = ServerName::try_from(format!("{SERVICE}.{KEDA}.svc")).unwrap();
            let stream = TcpStream::connect(address).await?;
            Ok::<_, std::io::Error>(TokioIo::new(client.connect(name, stream).await?))
        }
    });
    let mut ticks = interval(Duration::from_millis(20));
    let connected = async {
        loop {
            ticks.tick().await;
            let endpoint = Endpoint::from_static("http://scaler");
            if let Ok(channel) = endpoint.connect_with_connector(dial.clone()).await {
                return channel;
            }
        }
    };
    timeout(PATIENCE, connected).await.expect("a connection")
}

/// Waits until the scaler's own metrics say this.
async fn says(scaler: &Running, line: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/metrics", scaler.metrics_address());
    let mut ticks = interval(Duration::from_millis(20));
    let said = async {
        while !client.get(&url).send().await.unwrap().text().await.unwrap().lines().any(|said| said == line) {
            ticks.tick().await;
        }
    };
    assert!(timeout(PATIENCE, said).await.is_ok(), "never: {line}");
}

#[tokio::test]
async fn a_model_wakes_while_nobody_may_lead() {
    install_crypto();
    let page =
        |held| Behaviour::ExactPath { page: gateway::page("demo-inferencepool", Some(held), 0).into() };
    let picker = Fixture::start(page(0)).await.unwrap();
    let server = cluster(&picker);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let (serving, mut tasks) = (server.clone(), JoinSet::new());
    tasks.spawn(async move { serving.serve(listener).await });
    let folder = TempDir::new().unwrap();
    let scaler = scaler(kubeconfig(folder.path(), &api)).await;
    let mut keda = ExternalScalerClient::new(connect(&server, &scaler).await);

    let metadata = [
        ("inferenceSetNamespace", NAMESPACE),
        ("inferenceSetName", "demo"),
        ("metricName", "vllm:num_requests_waiting"),
        ("threshold", "10"),
    ];
    let object = ScaledObjectRef {
        name: "demo".to_owned(),
        namespace: NAMESPACE.to_owned(),
        scaler_metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    let mut stream = keda.stream_is_active(object.clone()).await.unwrap().into_inner();
    assert!(!keda.is_active(object.clone()).await.unwrap().into_inner().result, "it sleeps");
    says(&scaler, "keda_kaito_scaler_provisioning 1").await;

    // The Lease is gone, and nobody can have it again.
    for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH] {
        server.refuse(method, "/leases", 500, "etcd has no leader");
    }
    server.remove("Lease", KEDA, LEASE);
    says(&scaler, "keda_kaito_scaler_provisioning 0").await;
    picker.become_one_that(page(1));
    let pushed = timeout(PATIENCE, stream.message()).await.expect("a push");
    assert!(pushed.unwrap().expect("the stream is open").result);
    assert!(keda.is_active(object).await.unwrap().into_inner().result);
    scaler.stop().await;
}
