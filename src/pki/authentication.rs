//! The ClusterTriggerAuthentication through which KEDA finds the certificates: created by any
//! replica, put right by the one that leads, watched by all of them.
//!
//! Releases up to 0.5.0 of the scaler that is being replaced hold the same Lease, and their chart
//! owns the object: an upgrade deletes it while the old pod keeps the lead until the new one is
//! ready, which needs the object. So creating it, which gives the same whoever does it, takes no
//! lead.

use std::{fmt, time::Duration};

use kube::{
    api::{Api, DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    call::{self, CallError},
    store::{Settings, Standing},
};
use crate::cluster::{
    api,
    store::{Serving, Store, Subscription, kinds},
};
use scaler_core::{
    fleet::collection::Object,
    provision::{FIELD_MANAGER, TRIGGER_AUTHENTICATION as NAME},
};

/// The least time between two writes: whoever else writes the object is not fought in a loop.
const REPAIR_PAUSE: Duration = Duration::from_secs(5);

/// How the object stands in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// KEDA's resource type is not installed.
    NoResourceType,
    Missing,
    /// It refers to other Secrets or keys.
    Different,
    /// KEDA can find the certificates.
    Live,
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "not looked at yet",
            Self::NoResourceType => "KEDA's resource type ClusterTriggerAuthentication is not installed",
            Self::Missing => "it does not exist yet",
            Self::Different => "it refers to other Secrets",
            Self::Live => "live",
        })
    }
}

/// A ClusterTriggerAuthentication: what its `spec.secretTargetRef` holds.
#[derive(Clone, Debug, PartialEq)]
struct TriggerAuthentication(Value);

impl Object for TriggerAuthentication {
    type Raw = Value;
    type Key = ();

    fn read(mut raw: Value) -> Option<Self> {
        Some(Self(raw.pointer_mut("/spec/secretTargetRef").map(Value::take).unwrap_or_default()))
    }

    fn keys(&self) -> Vec<()> {
        vec![()]
    }
}

/// Keeps the object.
pub struct AuthenticationKeeper {
    seen: Subscription<TriggerAuthentication>,
    api: Api<DynamicObject>,
    resource: ApiResource,
    /// `spec.secretTargetRef` as it has to be.
    references: Vec<Value>,
    state: watch::Sender<Authentication>,
}

impl fmt::Debug for AuthenticationKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticationKeeper").field("references", &self.references).finish_non_exhaustive()
    }
}

impl AuthenticationKeeper {
    #[must_use]
    pub fn new(store: &Store, settings: &Settings) -> (Self, watch::Receiver<Authentication>) {
        let resource = api::trigger_authentications();
        let seen = store.follow(kinds::trigger_authentication()).subscribe();
        let api = Api::all_with(store.client().clone(), &resource);
        let references = references(&settings.server_secret, &settings.client_secret);
        let (state, receiver) = watch::channel(Authentication::default());
        (Self { seen, api, resource, references, state }, receiver)
    }

    /// Watches until `shutdown`. Creates the object once there are certificates to refer to, as
    /// KEDA would dial in plaintext with an object whose Secrets are empty, and changes it while
    /// `leads` is true.
    pub async fn run(
        mut self,
        mut leads: watch::Receiver<bool>,
        mut standing: watch::Receiver<Standing>,
        shutdown: CancellationToken,
    ) {
        let mut next_write = Instant::now();
        let mut is_troubled = false;
        loop {
            let state = *self.state.borrow();
            let is_leading = *leads.borrow_and_update();
            let is_ours = match state {
                Authentication::Missing => true,
                Authentication::Different => is_leading,
                Authentication::Unknown | Authentication::NoResourceType | Authentication::Live => false,
            };
            let is_due = is_ours && standing.borrow_and_update().config.is_some();
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = self.seen.changed() => self.look(),
                changed = leads.changed() => if changed.is_err() { return },
                changed = standing.changed() => if changed.is_err() { return },
                () = sleep_until(next_write), if is_due => {
                    next_write = Instant::now() + REPAIR_PAUSE;
                    match self.apply().await {
                        Ok(()) => {
                            info!(name = NAME, was = %state, "applied the ClusterTriggerAuthentication");
                            is_troubled = false;
                        }
                        Err(error) if !is_troubled => {
                            warn!(name = NAME, error = &error as &dyn std::error::Error,
                                "failed to apply the ClusterTriggerAuthentication");
                            is_troubled = true;
                        }
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// Takes note of how the object stands. A watch that breaks says nothing of it.
    fn look(&self) {
        let now = {
            let known = self.seen.read();
            match known.of(&()).next() {
                _ if *known.serving() == Serving::Missing => Authentication::NoResourceType,
                None if known.is_listed() => Authentication::Missing,
                None => return,
                Some(object) if refers_to(&object.0, &self.references) => Authentication::Live,
                Some(_) => Authentication::Different,
            }
        };
        self.state.send_if_modified(|state| {
            let is_edge = *state != now;
            if is_edge {
                *state = now;
                if now == Authentication::Live {
                    info!(name = NAME, "the ClusterTriggerAuthentication is live");
                } else {
                    warn!(name = NAME, state = %now, "the ClusterTriggerAuthentication is not live");
                }
            }
            is_edge
        });
    }

    async fn apply(&self) -> Result<(), CallError> {
        let spec = json!({"spec": {"secretTargetRef": self.references}});
        let object = DynamicObject::new(NAME, &self.resource).data(spec);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        call::answer(self.api.patch(NAME, &params, &Patch::Apply(&object))).await.map(drop)
    }
}

/// `spec.secretTargetRef` as it has to be.
pub(crate) fn references(server_secret: &str, client_secret: &str) -> Vec<Value> {
    [
        ("caCert", server_secret, "ca.crt"),
        ("tlsClientCert", client_secret, "tls.crt"),
        ("tlsClientKey", client_secret, "tls.key"),
    ]
    .map(|(parameter, name, key)| json!({"parameter": parameter, "name": name, "key": key}))
    .into()
}

/// Whether KEDA finds what it needs in a `secretTargetRef`. The order does not matter.
pub(crate) fn refers_to(there: &Value, references: &[Value]) -> bool {
    there.as_array().is_some_and(|there| {
        there.len() == references.len() && references.iter().all(|wanted| there.contains(wanted))
    })
}

#[cfg(test)]
mod tests;
