use std::{net::Ipv4Addr, sync::Arc};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::*;
use crate::{
    metrics::Metrics,
    pki::{
        authentication,
        testing::{YEAR, founded, now},
        tls::server_config,
    },
    serve::{
        listener::{Limits, Listener, Security, Serving},
        scaler::Scaler,
    },
    targets::{Target, Targets},
    tasks::Tasks,
};
use clock::Clock;
use keda_proto::external_scaler_server::ExternalScalerServer;
use sim::api_server::ByPath;

const OPERATOR: &str = "/api/v1/namespaces/keda-system/pods/keda-operator-1";
const SECRETS: &str = "/api/v1/namespaces/keda-system/secrets/keda-kaito-scaler";
const SERVICE: &str = "/api/v1/namespaces/keda/services/keda-kaito-scaler-svc";
const AUTHENTICATION: &str = "/apis/keda.sh/v1alpha1/clustertriggerauthentications/keda-kaito-scaler-creds";

/// An installation, with a real listener on loopback.
struct Installed {
    api: ByPath,
    installation: Installation,
    registrations: mpsc::UnboundedReceiver<Arc<Target>>,
    _serving: Serving,
}

impl Installed {
    /// The scaler serves with chains that are as old as this; the Secrets hold the same.
    async fn new(age: Duration) -> Self {
        let [server, client] = Role::BOTH.map(|role| founded(role, now() - age).0);
        let [server_chain, client_chain] = [(Role::Server, &server), (Role::Client, &client)]
            .map(|(role, secret)| Chain::read(role, secret, None));
        let config = server_config(&server_chain, &client_chain, now() - age).unwrap();

        let clock = Clock::start();
        let (sender, registrations) = mpsc::unbounded_channel();
        let targets = Targets::new(sender, clock, scaler_core::fleet::tenancy::Tenancy::OwnNamespace);
        let metrics = Metrics::default();
        let scaler = Scaler::new(targets, clock, metrics, Duration::ZERO, CancellationToken::new());
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let grpc_port = socket.local_addr().unwrap().port();
        let serving = Listener {
            name: "listener",
            tasks: Tasks::new(),
            socket,
            security: Security::Tls(Arc::new(ArcSwap::from_pointee(config))),
            service: Routes::new(ExternalScalerServer::new(scaler)).prepare(),
            observer: Arc::new(()),
            limits: Limits::default(),
        }
        .serve();

        let installation = Installation {
            namespace: "keda".into(),
            keda_namespace: "keda-system".into(),
            service: "keda-kaito-scaler-svc".into(),
            grpc_port,
            server_secret: "keda-kaito-scaler-server-certs".into(),
            client_secret: "keda-kaito-scaler-client-certs".into(),
        };
        let api = ByPath::new();
        api.put(OPERATOR, operator("keda-system", &json!([])));
        api.put("/api/v1/namespaces/other/pods/unlabelled", json!({"metadata": {"namespace": "other"}}));
        api.put(&format!("{SECRETS}-server-certs"), json!({"metadata": {}, "data": server}));
        api.put(&format!("{SECRETS}-client-certs"), json!({"metadata": {}, "data": client}));
        api.put(SERVICE, json!({"metadata": {}, "spec": {"clusterIP": "127.0.0.1"}}));
        let references = authentication::references(&installation.server_secret, &installation.client_secret);
        api.put(AUTHENTICATION, json!({"metadata": {}, "spec": {"secretTargetRef": references}}));
        Self { api, installation, registrations, _serving: serving }
    }

    async fn check(&self) -> [Finding; 5] {
        check(&self.api.client(), &self.installation, now()).await.try_into().unwrap()
    }

    /// The problems, as the number of the check and what it says.
    async fn problems(&self) -> Vec<(usize, String)> {
        let findings = self.check().await.into_iter().enumerate();
        findings.filter_map(|(number, finding)| Some((number, finding.err()?))).collect()
    }

    /// Asserts that this check alone finds a problem, which says all of `parts`.
    async fn has_one_problem(&self, number: usize, parts: &[&str]) {
        let problems = self.problems().await;
        let [(found, text)] = &problems[..] else { panic!("{problems:#?}") };
        assert_eq!(*found, number, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }
}

fn operator(namespace: &str, env: &Value) -> Value {
    json!({
        "metadata": {"namespace": namespace, "name": "keda-operator-1", "labels": {"app": "keda-operator"}},
        "spec": {"containers": [{"name": "keda-operator", "env": env}]},
        "status": {"phase": "Running"},
    })
}

#[tokio::test]
async fn an_installation_that_works_passes_and_no_trace_of_the_call_is_left() {
    let mut installed = Installed::new(Duration::ZERO).await;
    let good = installed.check().await.map(Result::unwrap);
    for (line, part) in good.iter().zip([
        "keda-system",
        "server certificate is good for 36",
        "client certificate is good for 36",
        "keda-kaito-scaler-creds refers to both",
        "keda-kaito-scaler-svc.keda.svc.cluster.local",
    ]) {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
    assert!(installed.registrations.try_recv().is_err(), "a target was registered");
}

#[tokio::test]
async fn each_thing_that_is_missing_or_wrong_is_named() {
    let installed = Installed::new(Duration::ZERO).await;
    let api = &installed.api;

    let there = api.get(OPERATOR).unwrap();
    api.delete(OPERATOR);
    installed.has_one_problem(0, &["KEDA's operator was not found"]).await;
    api.put(OPERATOR, there);

    let there = api.get(AUTHENTICATION).unwrap();
    api.delete(AUTHENTICATION);
    installed.has_one_problem(3, &["keda-kaito-scaler-creds does not exist"]).await;
    api.put(AUTHENTICATION, json!({"metadata": {}, "spec": {"secretTargetRef": []}}));
    installed.has_one_problem(3, &["does not refer to", "keda-kaito-scaler-server-certs"]).await;
    api.put(AUTHENTICATION, there);

    api.put(SERVICE, json!({"metadata": {}, "spec": {"clusterIP": "None"}}));
    installed.has_one_problem(4, &["keda/keda-kaito-scaler-svc", "\"None\""]).await;
    // Nothing listens on this address.
    api.put(SERVICE, json!({"metadata": {}, "spec": {"clusterIP": "127.99.0.1"}}));
    installed.has_one_problem(4, &["127.99.0.1", "failed to connect", "refused"]).await;
    api.delete(SERVICE);
    installed.has_one_problem(4, &["keda/keda-kaito-scaler-svc does not exist"]).await;
}

#[tokio::test]
async fn a_server_that_does_not_know_the_certificates_is_a_problem() {
    let installed = Installed::new(Duration::ZERO).await;
    let put = |role: Role| {
        let path = format!("{SECRETS}-{role}-certs");
        let before = installed.api.get(&path).unwrap();
        installed.api.put(&path, json!({"metadata": {}, "data": founded(role, now()).0}));
        (path, before)
    };
    let (path, before) = put(Role::Client);
    installed.has_one_problem(4, &["the call failed", ": received fatal alert: DecryptError"]).await;
    installed.api.put(&path, before);
    put(Role::Server);
    installed.has_one_problem(4, &["failed to agree on TLS", "certificate"]).await;
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named_and_not_tried() {
    for role in Role::BOTH {
        let installed = Installed::new(Duration::ZERO).await;
        let path = format!("{SECRETS}-{role}-certs");
        let check = 1 + usize::from(role == Role::Client);
        let cases = [
            (json!({}), "there is no"),
            (
                json!({"ca.crt": "", "server.crt": "aGk=", "server.key": "aGk=", "tls.crt": "aGk=", "tls.key": "aGk="}),
                "cannot be read",
            ),
            (json!(founded(role, now() - 2 * YEAR).0), "has expired"),
            (json!(founded(role, now() + YEAR).0), "time has not come"),
        ];
        for (data, part) in cases {
            installed.api.put(&path, json!({"metadata": {}, "data": data}));
            let problems = installed.problems().await;
            let [(first, why), (last, not_called)] = &problems[..] else { panic!("{problems:#?}") };
            assert_eq!((*first, *last), (check, 4));
            assert!(why.contains(part) && why.contains(&format!("-{role}-certs")), "{why}");
            assert!(not_called.contains("not called"), "{not_called}");
        }
        installed.api.delete(&path);
        assert!(installed.problems().await[0].1.contains("does not exist"));
    }
}

#[tokio::test]
async fn a_certificate_for_another_service_is_a_problem() {
    let mut installed = Installed::new(Duration::ZERO).await;
    // The Service moved, its certificate was not made anew.
    installed.installation.namespace = "kaito".into();
    let problems = installed.problems().await;
    assert!(problems[0].1.contains("keda-kaito-scaler-svc.kaito.svc.cluster.local"), "{problems:#?}");
}

#[tokio::test]
async fn what_the_api_server_refuses_is_a_problem_of_each_check() {
    let installed = Installed::new(Duration::ZERO).await;
    installed.api.fail(|_, _| Some(403));
    let problems = installed.problems().await;
    assert_eq!(problems.len(), 5);
    assert!(problems[..4].iter().all(|(_, text)| text.contains("made to fail with 403")), "{problems:#?}");
}

#[test]
fn the_namespace_that_keda_reads_is_its_own_unless_its_environment_says_otherwise() {
    const WHERE: &str = "KEDA_CLUSTER_OBJECT_NAMESPACE";
    let own = json!({"fieldRef": {"fieldPath": "metadata.namespace"}});
    let elsewhere = json!({"configMapKeyRef": {"name": "keda", "key": "namespace"}});
    let at_home = operator("keda", &json!([{"name": "WATCH_NAMESPACE", "value": ""}]));
    let away = operator("ops", &json!([{"name": WHERE, "value": "keda"}]));
    let lost = operator("keda", &json!([{"name": WHERE, "value": "ops"}]));
    let mut evicted = operator("ops", &json!([]));
    evicted["status"]["phase"] = json!("Failed");
    let cases = [
        (vec![&at_home], Ok("in namespace keda")),
        (vec![&away], Ok("in namespace keda")),
        (vec![&at_home, &evicted], Ok("in namespace keda")),
        (vec![&lost], Err("keda.namespace to ops")),
        (vec![&at_home, &lost], Err("keda.namespace to ops")),
        (vec![&evicted], Err("not found")),
        (vec![], Err("not found")),
    ]
    .map(|(pods, expected)| (pods.into_iter().cloned().collect(), expected));
    let from = [
        (operator("keda", &json!([{"name": WHERE, "value": ""}])), Ok("in namespace keda")),
        (operator("keda", &json!([{"name": WHERE, "valueFrom": own}])), Ok("in namespace keda")),
        (operator("ops", &json!([{"name": WHERE, "valueFrom": elsewhere}])), Ok("is not read here")),
        (operator("ops", &json!([])), Err("keda.namespace to ops")),
    ]
    .map(|(pod, expected)| (vec![pod], expected));
    for (pods, expected) in cases.into_iter().chain(from) {
        let pods: Vec<Pod> =
            pods.into_iter().map(|pod: Value| serde_json::from_value(pod).unwrap()).collect();
        let found = judge::keda_namespace(&pods, "keda");
        let said = found.as_ref().map_or_else(String::as_str, String::as_str);
        assert_eq!(found.is_ok(), expected.is_ok(), "{said}");
        assert!(said.contains(expected.unwrap_or_else(|part| part)), "{said}");
    }
}
