//! The Secrets: watched by every replica, written by the one that leads, and by any where nothing
//! can be served as they are.
//!
//! What is served follows the watch alone, so that all replicas serve the same and a write
//! that fails changes nothing. A Secret that cannot be used never replaces what is served.

mod renewal;

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Secret, Service};
use kube::api::{Api, ListParams};
use kube_runtime::events::{Event, EventType, Recorder, Reporter};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    call::{self, CallError},
    chain::{Chain, Contents},
    mint::MintError,
    presented::{Presented, WARN_AHEAD},
    tls::server_config,
};
use crate::cluster::store::{Store, Subscription, kinds};
use scaler_core::{
    cert::{DAY, Fingerprint, Policy, Role, server_names},
    fleet::collection::Object,
    provision::FIELD_MANAGER,
    time::Moment,
};

/// The longest time between two looks at the clock: a machine may sleep or be set right.
const LOOK_AGAIN: Duration = Duration::from_secs(60 * 60);
/// The first pause after a failure; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a replica that does not lead leaves to the leader what anybody may do.
const LEADERS_TURN: Duration = Duration::from_secs(10);

/// The API server's limit for the text of an event, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Where certificates are kept, and what they are to be like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// KEDA's namespace: it reads the client and the server Secret, and in its own only.
    pub namespace: String,
    /// The release's namespace, with the CA Secret and the Service. Often the same.
    pub own_namespace: String,
    pub server_secret: String,
    pub client_secret: String,
    /// Holds the signing keys, which nothing else refers to.
    pub ca_secret: String,
    /// The Service that KEDA dials.
    pub service: String,
    /// How long a new leaf lives. Above zero.
    pub leaf_life: Duration,
}

impl Settings {
    fn secret(&self, role: Role) -> &str {
        match role {
            Role::Server => &self.server_secret,
            Role::Client => &self.client_secret,
        }
    }

    fn policy(&self, role: Role) -> Policy {
        let dns_names = match role {
            Role::Server => server_names(&self.service, &self.own_namespace),
            Role::Client => Vec::new(),
        };
        Policy { role, leaf_life: self.leaf_life, dns_names }
    }
}

/// What there is to serve with.
#[derive(Clone, Default)]
pub struct Standing {
    /// Set once there is a usable pair of chains, and kept: renewals go on inside of it.
    pub config: Option<Arc<ArcSwap<ServerConfig>>>,
    /// What KEDA finds in them, in words that change with it: which client leaf, and the CAs by
    /// which it knows the server. `None` where it can't use them.
    pub found_by_keda: Option<Arc<str>>,
    /// When the leaves that the Secrets hold end.
    pub server_end: Option<Moment>,
    pub client_end: Option<Moment>,
    /// What keeps the Secrets as they are from being served; what was served before still is.
    pub missing: Option<String>,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing")
            .field("is_served", &self.config.is_some())
            .field("found_by_keda", &self.found_by_keda)
            .field("server_end", &self.server_end)
            .field("client_end", &self.client_end)
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Error)]
enum StoreError {
    #[error("failed to read Secret {name}")]
    Read { name: String, source: CallError },
    #[error("failed to write Secret {name}")]
    Write { name: String, source: CallError },
    #[error("Secret {0} does not exist; the Helm chart makes it, empty")]
    NoSecret(String),
    #[error("failed to list the pods of this namespace")]
    ListPods(#[source] CallError),
    #[error("failed to make certificates")]
    Mint(#[from] MintError),
}

impl StoreError {
    /// Another wrote first; the watch brings what it wrote.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Write { source: CallError::Api(kube::Error::Api(status)), .. } if status.code == 409)
    }
}

/// A Secret as its watch shows it.
#[derive(Clone, PartialEq)]
struct KeptSecret {
    uid: Option<String>,
    contents: Contents,
}

impl fmt::Debug for KeptSecret {
    /// What it holds is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptSecret").field("uid", &self.uid).finish_non_exhaustive()
    }
}

impl Object for KeptSecret {
    type Raw = Secret;
    type Key = ();

    fn read(raw: Secret) -> Option<Self> {
        Some(Self { uid: raw.metadata.uid, contents: raw.data.unwrap_or_default() })
    }

    fn keys(&self) -> Vec<()> {
        vec![()]
    }
}

/// One chain: its Secret, and what was done and said about it.
struct Watched {
    secret: Subscription<KeptSecret>,
    /// The first sight of what the existing scaler left was reported.
    was_taken_over: bool,
    /// The wait for the existing scaler was reported.
    is_waiting: bool,
    /// Failed renewals since the last good one, conflicts included.
    failures: u32,
    /// Those of them that are no conflicts; the first is reported.
    faults: u32,
}

impl Watched {
    fn new(secret: Subscription<KeptSecret>) -> Self {
        Self { secret, was_taken_over: false, is_waiting: false, failures: 0, faults: 0 }
    }

    /// Whether it is known what the Secret holds, or that there is none.
    fn is_known(&self) -> bool {
        self.secret.read().is_listed()
    }
}

/// Keeps the certificates: see the module's words. Made by [`CertificateKeeper::new`], run once.
pub struct CertificateKeeper {
    settings: Settings,
    client: kube::Client,
    /// Those that KEDA reads.
    secrets: Api<Secret>,
    /// The one that only we read: the signing keys.
    own_secrets: Api<Secret>,
    recorder: Recorder,
    presented: Arc<Presented>,
    /// The wall clock, read anew each time: certificates are about dates.
    wall: Box<dyn Fn() -> Moment + Send + Sync>,
    standing: watch::Sender<Standing>,
    server_secret: Watched,
    client_secret: Watched,
    /// What is served: the server leaf and the client CAs.
    served: Option<(Fingerprint, Vec<Fingerprint>)>,
    /// Since when a replica that does not lead has seen what anybody may put right.
    unserved_since: Option<Instant>,
}

impl fmt::Debug for CertificateKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateKeeper").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl CertificateKeeper {
    /// `presented` observes the listener, `wall` reads the wall clock.
    #[must_use]
    pub fn new(
        store: &Store,
        settings: Settings,
        presented: Arc<Presented>,
        wall: impl Fn() -> Moment + Send + Sync + 'static,
    ) -> (Self, watch::Receiver<Standing>) {
        let (standing, receiver) = watch::channel(Standing::default());
        let reporter = Reporter { controller: FIELD_MANAGER.into(), instance: None };
        let client = store.client().clone();
        let watched = |role| {
            let secret = kinds::secret(&settings.namespace, settings.secret(role));
            Watched::new(store.follow(secret).subscribe())
        };
        let keeper = Self {
            server_secret: watched(Role::Server),
            client_secret: watched(Role::Client),
            secrets: Api::namespaced(client.clone(), &settings.namespace),
            own_secrets: Api::namespaced(client.clone(), &settings.own_namespace),
            recorder: Recorder::new(client.clone(), reporter),
            settings,
            client,
            presented,
            wall: Box::new(wall),
            standing,
            served: None,
            unserved_since: None,
        };
        (keeper, receiver)
    }

    /// Watches and serves until `shutdown`; renews while `leads` is true, and without it only what
    /// keeps everything from being served.
    pub async fn run(mut self, mut leads: watch::Receiver<bool>, shutdown: CancellationToken) {
        let presented = Arc::clone(&self.presented);
        let mut due = Instant::now() + LOOK_AGAIN;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = self.server_secret.secret.changed() => {}
                _ = self.client_secret.secret.changed() => {}
                changed = leads.changed() => if changed.is_err() { return },
                addresses = presented.plaintext_clients() => {
                    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                    self.report_plaintext(&addresses.join(", ")).await;
                }
                () = sleep_until(due) => {}
            }
            // Before the first list of both there is nothing to judge.
            if !self.server_secret.is_known() || !self.client_secret.is_known() {
                continue;
            }
            self.serve();
            self.warn_of_old_client_leaves().await;
            let is_leading = *leads.borrow_and_update();
            // Each write is of what was read, or refused: it can be left between any two calls.
            let pause = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = leads.changed() => if changed.is_err() { return } else { Duration::ZERO },
                pause = self.renew(is_leading) => pause,
            };
            due = Instant::now() + pause.min(LOOK_AGAIN);
        }
    }

    fn now(&self) -> Moment {
        (self.wall)()
    }

    fn watched(&mut self, role: Role) -> &mut Watched {
        match role {
            Role::Server => &mut self.server_secret,
            Role::Client => &mut self.client_secret,
        }
    }

    /// The chain as the watch shows it, without its signing keys.
    fn watched_chain(&mut self, role: Role) -> Option<Chain> {
        let known = self.watched(role).secret.read();
        Some(Chain::read(role, &known.of(&()).next()?.contents, None))
    }

    /// Serves with what the Secrets hold, if that can be done.
    fn serve(&mut self) {
        let now = self.now();
        let chains = Role::BOTH.map(|role| self.watched_chain(role));
        let [Some(server), Some(client)] = chains else {
            let names = format!("{} and {}", self.settings.server_secret, self.settings.client_secret);
            let why = format!("one of Secrets {names} does not exist");
            self.announce(|standing| standing.missing = Some(why));
            return;
        };
        let (server_leaf, client_leaf) = (server.usable_leaf(), client.usable_leaf());
        let ends =
            [&server_leaf, &client_leaf].map(|leaf| leaf.as_ref().ok().map(|leaf| leaf.validity.not_after));
        let missing = server_leaf.as_ref().err().or(client_leaf.as_ref().err()).cloned();
        let cas = client.cas.iter().filter(|ca| !ca.facts.validity.has_expired(now));
        let cas: Vec<_> = cas.map(|ca| ca.facts.fingerprint).collect();
        let found_by_keda = client_leaf.as_ref().ok().map(|leaf| {
            let cas = server.cas.iter().map(|ca| ca.facts.fingerprint.to_string());
            let all: Vec<_> = [leaf.fingerprint.to_string()].into_iter().chain(cas).collect();
            Arc::from(all.join(" "))
        });
        let wanted = server_leaf.ok().map(|leaf| (leaf.fingerprint, cas));

        let mut made = None;
        let mut failed = missing;
        if failed.is_none() && wanted != self.served {
            match server_config(&server, &client, now) {
                Ok(config) => made = Some(Arc::new(config)),
                Err(error) => failed = Some(error.to_string()),
            }
        }
        if made.is_some() {
            self.served = wanted;
        }
        self.announce(|standing| {
            [standing.server_end, standing.client_end] = ends;
            standing.missing = failed;
            standing.found_by_keda = found_by_keda;
            match (&standing.config, made) {
                (Some(config), Some(made)) => config.store(made),
                (None, Some(made)) => standing.config = Some(Arc::new(ArcSwap::new(made))),
                (_, None) => {}
            }
        });
    }

    fn announce(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(|standing| {
            let before = standing.missing.clone();
            change(standing);
            if standing.missing != before {
                if let Some(why) = &standing.missing {
                    warn!(%why, "certificates are missing");
                } else {
                    info!("certificates are served");
                }
            }
        });
    }

    async fn report(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: &str,
        action: &str,
        mut note: String,
    ) {
        while note.len() > LONGEST_NOTE {
            note.pop();
        }
        let event =
            Event { type_, reason: reason.into(), note: Some(note), action: action.into(), secondary: None };
        if let Err(error) = call::answer(self.recorder.publish(&event, about)).await {
            debug!(error = &error as &dyn std::error::Error, %reason, "failed to publish an event");
        }
    }

    /// A chain's Secret, with the UID by which `kubectl describe` finds the events of an object.
    fn secret_reference(&self, role: Role) -> ObjectReference {
        let watched = match role {
            Role::Server => &self.server_secret,
            Role::Client => &self.client_secret,
        };
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Secret".into()),
            name: Some(self.settings.secret(role).to_owned()),
            namespace: Some(self.settings.namespace.clone()),
            uid: watched.secret.read().of(&()).next().and_then(|secret| secret.uid.clone()),
            ..ObjectReference::default()
        }
    }

    async fn service_reference(&self) -> ObjectReference {
        let Settings { own_namespace, service, .. } = &self.settings;
        let services: Api<Service> = Api::namespaced(self.client.clone(), own_namespace);
        let found = call::answer(services.get(service)).await;
        let uid = found.map_err(|error| {
            debug!(
                error = &error as &dyn std::error::Error,
                "failed to read the Service that an event is about"
            );
        });
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            name: Some(service.clone()),
            namespace: Some(own_namespace.clone()),
            uid: uid.ok().and_then(|found| found.metadata.uid),
            ..ObjectReference::default()
        }
    }

    /// Warns while a connection uses a client leaf that ends soon. The recorder folds repeats.
    async fn warn_of_old_client_leaves(&self) {
        let Some(end) = self.presented.first_end() else { return };
        let left = end.saturating_since(self.now());
        if left > WARN_AHEAD {
            return;
        }
        let days = left.as_secs() / DAY.as_secs();
        warn!(days, "KEDA's connection uses a client certificate that ends soon");
        let note = format!(
            "KEDA's connection uses a client certificate that ends in {days} days, while Secret {} holds a newer one \
             or will; restart the KEDA operator so that it reads it",
            self.settings.client_secret
        );
        let about = self.secret_reference(Role::Client);
        self.report(&about, EventType::Warning, "ClientCertificateEnds", "Watch", note).await;
    }

    async fn report_plaintext(&self, addresses: &str) {
        let note = format!(
            "{addresses} speaks plaintext to the TLS port: KEDA found no certificates. It resolves ClusterTriggerAuthentication \
             Secrets in its own namespace only; they are in {}",
            self.settings.namespace
        );
        let about = self.service_reference().await;
        self.report(&about, EventType::Warning, "PlaintextClient", "Refuse", note).await;
    }
}

#[cfg(test)]
mod tests;
