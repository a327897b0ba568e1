use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use super::*;
use crate::pki::{
    testing::{YEAR, new_chain, now},
    tls::server_config,
};
use scaler_core::cert::Role;
use sim::api_server::ByPath;

const PATH: &str = "/apis/keda.sh/v1alpha1/clustertriggerauthentications/keda-kaito-scaler-creds";

struct Replica {
    state: watch::Receiver<Authentication>,
    leads: watch::Sender<bool>,
    standing: watch::Sender<Standing>,
    _tasks: TaskTracker,
}

impl Replica {
    fn start(api: &ByPath) -> Self {
        let settings = Settings {
            own_namespace: "keda".into(),
            namespace: "keda".into(),
            server_secret: "server-certs".into(),
            client_secret: "client-certs".into(),
            ca_secret: "ca".into(),
            service: "svc".into(),
            leaf_life: YEAR,
        };
        let (store, watching) = Store::new(api.client());
        let (keeper, state) = AuthenticationKeeper::new(&store, &settings);
        let (leads, is_leading) = watch::channel(true);
        let (standing, has_certificates) = watch::channel(Standing::default());
        let tasks = TaskTracker::new();
        tasks.spawn(watching.run(CancellationToken::new()));
        tasks.spawn(keeper.run(is_leading, has_certificates, CancellationToken::new()));
        Self { state, leads, standing, _tasks: tasks }
    }

    fn certify(&self) {
        let [server, client] = Role::BOTH.map(|role| new_chain(role, now()));
        let config = server_config(&server, &client, now()).unwrap();
        self.standing.send_modify(|standing| standing.config = Some(Arc::new(ArcSwap::from_pointee(config))));
    }

    async fn until(&mut self, wanted: Authentication) {
        self.state.wait_for(|state| *state == wanted).await.unwrap();
    }
}

fn references(api: &ByPath) -> Value {
    api.get(PATH).unwrap()["spec"]["secretTargetRef"].clone()
}

#[tokio::test(start_paused = true)]
async fn it_is_made_once_there_are_certificates_and_put_right_after_changes() {
    let api = ByPath::new();
    let mut replica = Replica::start(&api);
    replica.until(Authentication::Missing).await;
    assert_eq!(api.requests("PATCH"), 0);
    replica.certify();
    replica.until(Authentication::Live).await;
    let wanted = json!([
        {"parameter": "caCert", "name": "server-certs", "key": "ca.crt"},
        {"parameter": "tlsClientCert", "name": "client-certs", "key": "tls.crt"},
        {"parameter": "tlsClientKey", "name": "client-certs", "key": "tls.key"},
    ]);
    assert_eq!(references(&api), wanted);

    let mut applied = 1;
    for change in [json!([]), json!([{"parameter": "caCert", "name": "other", "key": "ca.crt"}])] {
        api.put(PATH, json!({"metadata": {}, "spec": {"secretTargetRef": change}}));
        applied += 1;
        api.until(|api| api.requests("PATCH") == applied).await;
        assert_eq!(references(&api), wanted);
    }
    api.delete(PATH);
    api.until(|api| api.requests("PATCH") > applied).await;
    assert_eq!(references(&api), wanted);
    replica.until(Authentication::Live).await;

    // Another order and another field of somebody else's are none of our business.
    let reversed: Vec<_> = wanted.as_array().unwrap().iter().rev().cloned().collect();
    let spec = json!({"secretTargetRef": reversed, "podIdentity": {"provider": "none"}});
    let before = api.requests("PATCH");
    api.put(PATH, json!({"metadata": {}, "spec": spec}));
    api.put(&PATH.replace("creds", "other"), json!({"metadata": {}}));
    replica.standing.send_modify(|_| {});
    tokio::time::sleep(REPAIR_PAUSE * 2).await;
    assert_eq!((api.requests("PATCH"), *replica.state.borrow()), (before, Authentication::Live));
}

/// An old pod may hold the Lease until this one is ready.
#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_lead_creates_it_and_leaves_its_changes_to_the_leader() {
    let api = ByPath::new();
    let mut replica = Replica::start(&api);
    replica.leads.send_replace(false);
    replica.certify();
    replica.until(Authentication::Live).await;
    assert_eq!(api.requests("PATCH"), 1);
    api.delete(PATH);
    api.until(|api| api.requests("PATCH") == 2).await;
    replica.until(Authentication::Live).await;

    api.put(PATH, json!({"metadata": {}, "spec": {"secretTargetRef": []}}));
    replica.until(Authentication::Different).await;
    tokio::time::sleep(REPAIR_PAUSE * 2).await;
    assert_eq!(api.requests("PATCH"), 2);
    replica.leads.send_replace(true);
    replica.until(Authentication::Live).await;
    assert_eq!(api.requests("PATCH"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_missing_resource_type_is_waited_for() {
    let api = ByPath::new();
    api.fail(|_, _| Some(404));
    let mut replica = Replica::start(&api);
    replica.certify();
    replica.until(Authentication::NoResourceType).await;
    assert_eq!(api.requests("PATCH"), 0);
    api.fail(|_, _| None);
    replica.until(Authentication::Live).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_repeated_without_haste() {
    let api = ByPath::new();
    api.fail(|method, _| (method == http::Method::PATCH).then_some(403));
    let replica = Replica::start(&api);
    replica.certify();
    let begin = Instant::now();
    api.until(|api| api.requests("PATCH") == 4).await;
    assert_eq!(begin.elapsed().as_secs(), 3 * REPAIR_PAUSE.as_secs());
}
