use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::*;
use crate::pki::{
    chain::signing_keys_key,
    mint, pem,
    testing::{YEAR, founded, legacy_secret, now, policy},
};
use sim::api_server::{ByPath, SILENCE};

const SERVER: &str = "/api/v1/namespaces/keda-system/secrets/keda-kaito-scaler-server-certs";
const CLIENT: &str = "/api/v1/namespaces/keda-system/secrets/keda-kaito-scaler-client-certs";
const CA: &str = "/api/v1/namespaces/keda/secrets/keda-kaito-scaler-ca";
const OLD_POD: &str = "/api/v1/namespaces/keda/pods/keda-kaito-scaler-old";
/// Within the last 90 days of the fixtures' leaves.
const LATE_2048: Moment = Moment::from_unix(Duration::from_secs(2_491_000_000));

/// One replica.
struct Replica {
    standing: watch::Receiver<Standing>,
    presented: Arc<Presented>,
    leads: watch::Sender<bool>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Replica {
    fn start(api: &ByPath, leads: bool, wall: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        let settings = Settings {
            own_namespace: "keda".into(),
            namespace: "keda-system".into(),
            server_secret: "keda-kaito-scaler-server-certs".into(),
            client_secret: "keda-kaito-scaler-client-certs".into(),
            ca_secret: "keda-kaito-scaler-ca".into(),
            service: "keda-kaito-scaler-svc".into(),
            leaf_life: YEAR,
        };
        let presented = Arc::new(Presented::default());
        let (store, watching) = Store::new(api.client());
        let (keeper, standing) = CertificateKeeper::new(&store, settings, Arc::clone(&presented), wall);
        let (leads, is_leading) = watch::channel(leads);
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(watching.run(shutdown.clone()));
        tasks.spawn(keeper.run(is_leading, shutdown.clone()));
        Self { standing, presented, leads, tasks, shutdown }
    }

    async fn served(&mut self) -> Arc<ArcSwap<ServerConfig>> {
        let standing = self.standing.wait_for(|standing| standing.config.is_some()).await.unwrap();
        standing.config.clone().unwrap()
    }

    async fn until(&mut self, condition: impl FnMut(&Standing) -> bool) {
        self.standing.wait_for(condition).await.unwrap();
    }
}

fn secret(contents: &Contents) -> Value {
    json!({"metadata": {"uid": "a-secret"}, "data": contents})
}

/// A cluster whose Secrets hold these.
fn cluster(server: &Contents, client: &Contents) -> ByPath {
    let api = ByPath::new();
    for (path, contents) in [(SERVER, server), (CLIENT, client), (CA, &Contents::new())] {
        api.put(path, secret(contents));
    }
    api
}

fn empty() -> ByPath {
    cluster(&Contents::new(), &Contents::new())
}

fn legacy() -> ByPath {
    cluster(&legacy_secret(Role::Server), &legacy_secret(Role::Client))
}

fn contents(api: &ByPath, path: &str) -> Contents {
    serde_json::from_value(api.get(path).unwrap()["data"].clone()).unwrap_or_default()
}

fn cas(api: &ByPath, role: Role) -> Vec<Fingerprint> {
    let path = if role == Role::Server { SERVER } else { CLIENT };
    let chain = Chain::read(role, &contents(api, path), None);
    chain.cas.iter().map(|ca| ca.facts.fingerprint).collect()
}

fn run_old_pod(api: &ByPath) {
    let volumes = json!([{"name": "server", "secret": {"secretName": "keda-kaito-scaler-server-certs"}}]);
    let running = json!([{"name": "scaler", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {}}}]);
    api.put(
        OLD_POD,
        json!({"metadata": {}, "spec": {"containers": [], "volumes": volumes},
        "status": {"containerStatuses": running}}),
    );
}

fn events(api: &ByPath, reason: &str) -> Vec<Value> {
    let all = api.objects("/apis/events.k8s.io/v1/namespaces/");
    all.into_iter().filter(|event| event["reason"] == reason).collect()
}

fn writes(api: &ByPath) -> usize {
    api.requests("PUT /api/v1/namespaces/")
}

#[tokio::test(start_paused = true)]
async fn a_first_install_is_served_after_two_writes_for_each_chain() {
    let api = empty();
    let mut replica = Replica::start(&api, true, now);
    replica.served().await;
    assert_eq!(writes(&api), 4);
    assert_eq!(contents(&api, SERVER).keys().collect::<Vec<_>>(), ["ca.crt", "server.crt", "server.key"]);
    assert_eq!(contents(&api, CLIENT).keys().collect::<Vec<_>>(), ["ca.crt", "tls.crt", "tls.key"]);
    assert_eq!(contents(&api, CA).keys().collect::<Vec<_>>(), ["client-ca.key", "server-ca.key"]);
    api.until(|api| events(api, "CertificatesRenewed").len() == 2).await;

    replica.shutdown.cancel();
    replica.tasks.close();
    replica.tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_lead_serves_what_the_leader_wrote_and_writes_nothing() {
    let api = empty();
    let mut standby = Replica::start(&api, false, now);
    standby.until(|standing| standing.missing.is_some()).await;
    assert_eq!(writes(&api), 0);
    let mut leader = Replica::start(&api, true, now);
    leader.served().await;
    standby.served().await;
    assert_eq!(writes(&api), 4);
    assert_eq!(standby.standing.borrow().server_end, leader.standing.borrow().server_end);
}

#[tokio::test(start_paused = true)]
async fn valid_secrets_of_the_existing_scaler_are_taken_over_untouched() {
    for is_running in [false, true] {
        let api = legacy();
        if is_running {
            run_old_pod(&api);
        }
        let mut replica = Replica::start(&api, true, now);
        replica.served().await;
        api.until(|api| events(api, "CertificatesTakenOver").len() == 2).await;
        assert_eq!(events(&api, "CertificatesTakenOver")[0]["regarding"]["uid"], "a-secret");
        assert_eq!(writes(&api), 0);
    }
}

/// The old rotator runs during the upgrade, then ends; then the release is rolled back.
#[tokio::test(start_paused = true)]
async fn upgrade_and_rollback_beside_the_existing_scaler() {
    let api = legacy();
    run_old_pod(&api);
    let mut replica = Replica::start(&api, true, || LATE_2048);
    let config = replica.served().await;
    let old_end = replica.standing.borrow().server_end;
    let found_at_first = replica.standing.borrow().found_by_keda.clone().unwrap();
    // Renewal is due, but the old rotator would not understand a Secret without its key.
    api.until(|api| api.requests("GET /api/v1/namespaces/keda/pods") > 10).await;
    assert_eq!(writes(&api), 0);

    api.delete(OLD_POD);
    let before = config.load_full();
    replica.until(|standing| standing.server_end > old_end && standing.client_end > old_end).await;
    assert_ne!(replica.standing.borrow().found_by_keda.as_ref(), Some(&found_at_first));
    assert!(!contents(&api, SERVER).contains_key("ca.key") && !contents(&api, CLIENT).contains_key("ca.key"));
    assert!(contents(&api, CA)["server-ca.key"].0.starts_with(b"-----BEGIN RSA PRIVATE KEY-----"));
    // KEDA trusts the same CA; it ends in a year, so the next one is published, once.
    api.until(|api| Role::BOTH.iter().all(|role| cas(api, *role).len() == 2)).await;
    let legacy_ca = Chain::read(Role::Server, &legacy_secret(Role::Server), None).cas[0].facts.fingerprint;
    assert_eq!(cas(&api, Role::Server)[0], legacy_ca);
    assert!(
        Arc::ptr_eq(&config, &replica.served().await),
        "the listener's configuration is renewed in place"
    );
    assert!(!Arc::ptr_eq(&before, &config.load_full()));

    // The old rotator misses the key and makes everything anew; whoever runs serves that.
    run_old_pod(&api);
    let written = writes(&api);
    for (path, role) in [(SERVER, Role::Server), (CLIENT, Role::Client)] {
        api.put(path, json!({"metadata": {}, "data": legacy_secret(role)}));
    }
    replica.until(|standing| standing.server_end == old_end && standing.client_end == old_end).await;
    assert_eq!(replica.standing.borrow().found_by_keda.as_ref(), Some(&found_at_first));
    let looks = api.requests("GET /api/v1/namespaces/keda/pods");
    api.until(|api| api.requests("GET /api/v1/namespaces/keda/pods") > looks + 5).await;
    assert_eq!(writes(&api), written, "no fight");
    assert_eq!(cas(&api, Role::Server), [legacy_ca]);
}

/// The existing scaler may hold the Lease until a new pod is ready.
#[tokio::test(start_paused = true)]
async fn without_a_leader_the_first_chains_are_founded_by_racing_replicas() {
    let api = empty();
    let mut replicas = [(); 2].map(|()| Replica::start(&api, false, now));
    for replica in &mut replicas {
        replica.served().await;
    }
    for (path, role) in [(SERVER, Role::Server), (CLIENT, Role::Client)] {
        let keys = contents(&api, CA);
        let chain = Chain::read(role, &contents(&api, path), Some(&keys[signing_keys_key(role)].0));
        assert!(chain.cas.len() == 1 && chain.cas[0].facts.can_sign, "{chain:?}");
    }
    assert_eq!(events(&api, "CertificatesRenewed").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_the_lead_nothing_else_is_done() {
    let api = legacy();
    let mut replica = Replica::start(&api, false, || LATE_2048);
    replica.served().await;
    let mut damaged = legacy_secret(Role::Server);
    damaged.insert("server.crt".into(), ByteString(b"hello".into()));
    api.put(SERVER, secret(&damaged));
    replica.until(|standing| standing.missing.is_some()).await;
    tokio::time::sleep(LOOK_AGAIN * 2).await;
    assert_eq!(writes(&api), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leaf_that_only_our_library_refuses_is_replaced_without_the_lead() {
    let api = legacy();
    run_old_pod(&api);
    let mut refused = legacy_secret(Role::Server);
    let ca = &Chain::read(Role::Server, &refused, None).cas[0];
    let nameless = mint::leaf(&Policy { dns_names: Vec::new(), ..policy(Role::Server) }, ca, now()).unwrap();
    refused.insert("server.crt".into(), ByteString(pem::encode_certificates([&nameless.certificate]).into()));
    refused.insert("server.key".into(), ByteString(pem::encode_private_keys([&nameless.key]).into()));
    api.put(SERVER, secret(&refused));
    let mut replica = Replica::start(&api, false, now);
    replica.served().await;
    let repaired = contents(&api, SERVER);
    assert_eq!((&repaired["ca.crt"], &repaired["ca.key"]), (&refused["ca.crt"], &refused["ca.key"]));
    assert_eq!(writes(&api), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_lead_ends_a_renewal() {
    let api = legacy();
    api.fail(|method, _| (method == http::Method::PUT).then_some(SILENCE));
    let replica = Replica::start(&api, true, || LATE_2048);
    api.until(|api| writes(api) == 1).await;
    replica.leads.send_replace(false);
    tokio::time::sleep(LOOK_AGAIN * 2).await;
    assert_eq!(writes(&api), 1);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_cannot_be_renewed_does_not_hold_up_the_other() {
    let api = empty();
    api.fail(|method, path| (method == http::Method::PUT && path.ends_with("server-certs")).then_some(403));
    let _replica = Replica::start(&api, true, now);
    api.until(|api| !contents(api, CLIENT).is_empty()).await;
    assert!(contents(&api, SERVER).is_empty());
}

#[tokio::test(start_paused = true)]
async fn failures_and_conflicts_are_retried() {
    for code in [403, 409, 500, SILENCE] {
        let api = empty();
        let mut left = 3;
        api.fail(move |method, path| {
            let hit = left > 0 && method == http::Method::PUT && path.ends_with("server-certs");
            left -= i32::from(hit);
            hit.then_some(code)
        });
        let mut replica = Replica::start(&api, true, now);
        replica.served().await;
        // Each attempt makes new keys; the CA's that was published has to be among those kept.
        let (server, keys) = (contents(&api, SERVER), contents(&api, CA));
        let chain = Chain::read(Role::Server, &server, Some(&keys["server-ca.key"].0));
        assert!(chain.cas[0].facts.can_sign, "after {code}");
        let reports = events(&api, "CertificatesNotRenewed");
        assert_eq!(reports.len(), usize::from(code != 409), "after {code}");
        assert!(
            reports.iter().all(|event| event["type"] == "Warning" && event["regarding"]["uid"] == "a-secret")
        );
        api.until(|api| pem::readable_private_keys(&contents(api, CA)["server-ca.key"].0).len() == 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_secret_is_repaired_and_what_was_served_stays() {
    let api = empty();
    let mut replica = Replica::start(&api, true, now);
    let config = replica.served().await;
    let mut damaged = contents(&api, SERVER);
    damaged.insert("server.crt".into(), ByteString(b"hello".into()));
    let before = config.load_full();
    api.put(SERVER, secret(&damaged));
    api.until(|api| events(api, "CertificatesRenewed").len() == 3).await;
    let last = &events(&api, "CertificatesRenewed")[2];
    assert_eq!(last["type"], "Warning");
    assert!(last["note"].as_str().unwrap().contains("it cannot be read"), "{last}");
    replica.until(|standing| standing.missing.is_none()).await;
    assert!(!Arc::ptr_eq(&before, &config.load_full()));
    assert_eq!(contents(&api, SERVER)["ca.crt"], damaged["ca.crt"]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_is_named_and_does_not_end_what_is_served() {
    let api = empty();
    let mut replica = Replica::start(&api, true, now);
    let config = replica.served().await;
    let before = config.load_full();
    api.delete(CLIENT);
    replica.until(|standing| standing.missing.as_ref().is_some_and(|why| why.contains("client-certs"))).await;
    assert!(Arc::ptr_eq(&before, &config.load_full()));
    api.put(CLIENT, secret(&Contents::new()));
    replica.until(|standing| standing.missing.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn operators_hear_of_plaintext_clients_and_of_client_leaves_that_end() {
    let api = empty();
    api.put(
        "/api/v1/namespaces/keda/services/keda-kaito-scaler-svc",
        json!({"metadata": {"uid": "a-service"}}),
    );
    let mut replica = Replica::start(&api, false, now);
    replica.until(|standing| standing.missing.is_some()).await;
    let (old, _) = founded(Role::Client, now() - YEAR + 20 * DAY);
    let certificates = pem::certificates(&old["tls.crt"].0).unwrap();
    replica.presented.opened(0, &certificates);
    replica.presented.plaintext_client([10, 0, 0, 7].into());
    api.until(|api| !events(api, "ClientCertificateEnds").is_empty()).await;
    let event = &events(&api, "ClientCertificateEnds")[0];
    assert!(event["note"].as_str().unwrap().contains("ends in 19 days"), "{event}");
    assert_eq!(event["regarding"]["uid"], "a-secret");
    let event = &events(&api, "PlaintextClient")[0];
    assert!(event["note"].as_str().unwrap().starts_with("10.0.0.7 speaks plaintext"), "{event}");
    assert_eq!(event["regarding"]["name"], "keda-kaito-scaler-svc");
    assert_eq!(event["regarding"]["uid"], "a-service");
}
