//! GetMetrics over mutual TLS, as KEDA calls in a cluster: the scaler mints its certificates at
//! a simulated API server, and the client presents what it finds there.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use keda_kaito_scaler::pki::tls::install_crypto;
use keda_proto::ScaledObjectRef;
use kube::Api;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{PrivateKeyDer, ServerName},
};
use serde::Serialize;
use serde_json::json;
use sim::{
    api_server::ApiServer,
    fleet::{Filtering, Fleet, Health, NAMESPACE, Plan},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{self, Instant},
};
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use crate::{
    cores::Cores,
    figures::Spread,
    generator::Generator,
    keda::{self, Keda},
    scaler::Scaler,
};

/// Calls of GetMetrics over one connection.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Calls {
    pub callers: usize,
    /// Of the first call of each caller, all at once, for a target that nobody knew.
    pub first_refused: usize,
    pub per_second: f64,
    pub failed: usize,
    pub latency: Spread,
    /// Processor seconds a second of the scaler, and of the callers.
    pub processor: f64,
    pub callers_processor: f64,
}

/// The namespace of KEDA and of the scaler.
const KEDA: &str = "keda";
const SERVER_SECRET: &str = "keda-kaito-scaler-server-certs";
const CLIENT_SECRET: &str = "keda-kaito-scaler-client-certs";

pub(crate) async fn calls(cores: &Cores, window: Duration) -> Result<Vec<Calls>> {
    install_crypto();
    let plan = Plan { inference_sets: 1, endpoints_each: 10, gateways: false, pages: Filtering::Works };
    let generator = Generator::start(plan, 1, |_| Health::Serves).await?;
    let server = cluster(&generator.fleet);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let api = format!("http://{}", listener.local_addr()?);
    let mut tasks = JoinSet::new();
    let serving = server.clone();
    tasks.spawn(async move { serving.serve(listener).await });
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig.json");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "sim",
        "clusters": [{"name": "sim", "cluster": {"server": api}}],
        "users": [{"name": "sim", "user": {}}],
        "contexts": [{"name": "sim", "context": {"cluster": "sim", "user": "sim"}}],
    });
    std::fs::write(&kubeconfig, config.to_string())?;
    let kubeconfig = kubeconfig.to_str().context("a path in UTF-8")?;
    let arguments = [
        "--kubeconfig",
        kubeconfig,
        "--working-namespace",
        KEDA,
        "--bind-address",
        "127.0.0.1",
        "--allow-cross-namespace",
        "--leader-elect=false",
    ];
    let scaler = Scaler::run(cores, &arguments, 0)?;

    let client = connector(&server).await;
    let client = client.with_context(|| format!("the scaler says: {}", scaler.complaints().join("\n")))?;
    let name = ServerName::try_from(format!("keda-kaito-scaler-svc.{KEDA}.svc"))?;
    let address = scaler.grpc;
    let connect = tower::service_fn(move |_: http::Uri| {
        let (client, name) = (client.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(client.connect(name, stream).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://scaler");
    let connected = async {
        loop {
            // It listens once its certificates are there.
            match endpoint.connect_with_connector(connect.clone()).await {
                Ok(channel) => return Keda::over(channel),
                Err(_) => time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let keda = time::timeout(Duration::from_secs(60), connected).await;
    let keda = keda.with_context(|| format!("no TLS: {:?}", scaler.complaints()))?;
    let mut outcomes = vec![];
    for callers in [1, 100] {
        // A trigger that nobody has asked about.
        let mut target = keda::target(&generator.fleet.members[0].name, Duration::from_secs(1));
        target.name = format!("callers-{callers}");
        target.scaler_metadata.insert("metricPort".to_owned(), generator.fleet.port().to_string());
        outcomes.push(measure(&keda, &scaler, Arc::new(target), callers, window).await?);
    }
    Ok(outcomes)
}

async fn measure(
    keda: &Keda,
    scaler: &Scaler,
    target: Arc<ScaledObjectRef>,
    callers: usize,
    window: Duration,
) -> Result<Calls> {
    let mut first = JoinSet::new();
    for _ in 0..callers {
        let (keda, target) = (keda.clone(), target.clone());
        first.spawn(async move { keda.get_metrics(&target).await });
    }
    let refused = first.join_all().await.iter().filter(|answer| answer.is_err()).count();
    let mut calling = JoinSet::new();
    let (before, own, started) = (scaler.usage()?, crate::scaler::usage("self")?, Instant::now());
    for _ in 0..callers {
        let (keda, target) = (keda.clone(), target.clone());
        calling.spawn(async move {
            let (mut times, mut failed) = (vec![], 0);
            while started.elapsed() < window {
                let asked = Instant::now();
                match keda.get_metrics(&target).await {
                    Ok(_) => times.push(asked.elapsed()),
                    Err(_) => failed += 1,
                }
            }
            (times, failed)
        });
    }
    let called = calling.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    let (after, own_after) = (scaler.usage()?, crate::scaler::usage("self")?);
    let failed = called.iter().map(|(_, failed)| failed).sum();
    let times: Vec<_> = called.into_iter().flat_map(|(times, _)| times).collect();
    Ok(Calls {
        callers,
        first_refused: refused,
        per_second: times.len() as f64 / seconds,
        failed,
        latency: Spread::of(times),
        processor: (after.processor - before.processor) / seconds,
        callers_processor: (own_after.processor - own.processor) / seconds,
    })
}

/// A cluster with KAITO, KEDA and the fleet's pods.
fn cluster(fleet: &Fleet) -> ApiServer {
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
    for name in [SERVER_SECRET, CLIENT_SECRET, "keda-kaito-scaler-ca"] {
        server.put(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": KEDA, "name": name},
        }));
    }
    for set in fleet.listing(clock::Clock::wall()).inference_sets {
        server.put(json!({
            "apiVersion": "kaito.sh/v1beta1", "kind": "InferenceSet",
            "metadata": {"namespace": NAMESPACE, "name": set.name},
            "spec": {"replicas": set.replicas}, "status": {"readyReplicas": set.replicas},
        }));
        for endpoint in set.endpoints {
            server.put(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "namespace": NAMESPACE, "name": endpoint.pod,
                    "labels": {"inferenceset.kaito.sh/created-by": set.name, "apps.kubernetes.io/pod-index": "0"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "s", "uid": "s"}],
                },
                "status": {
                    "phase": "Running",
                    "podIP": endpoint.address.map(|address| address.ip().to_string()),
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }));
        }
    }
    server
}

/// What KEDA makes of the Secrets that the scaler writes.
async fn connector(server: &ApiServer) -> Result<TlsConnector> {
    let secrets: Api<Secret> = Api::namespaced(server.client(), KEDA);
    let has_data = |server: &ApiServer, name| {
        server.get("Secret", KEDA, name).is_some_and(|secret| secret["data"].is_object())
    };
    let written = server.until(|server| has_data(server, SERVER_SECRET) && has_data(server, CLIENT_SECRET));
    let written = time::timeout(Duration::from_secs(15), written).await;
    written.context("the scaler has written no certificates")?;
    let entry = async |secret: &str, key: &str| {
        let data = secrets.get(secret).await?.data.unwrap_or_default();
        data.get(key).map(|bytes| bytes.0.clone()).with_context(|| format!("{secret} lacks {key}"))
    };
    let mut roots = RootCertStore::empty();
    for ca in rustls_pemfile::certs(&mut &*entry(SERVER_SECRET, "ca.crt").await?) {
        roots.add(ca?)?;
    }
    let chain: Result<Vec<_>, _> =
        rustls_pemfile::certs(&mut &*entry(CLIENT_SECRET, "tls.crt").await?).collect();
    let key = rustls_pemfile::private_key(&mut &*entry(CLIENT_SECRET, "tls.key").await?)?;
    let key: PrivateKeyDer<'static> = key.context("no key in the Secret")?;
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = config.with_client_auth_cert(chain?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
