//! The writing half of [`CertificateKeeper`]: carries out plans, one step at a time.

use super::{
    Api, CertificateKeeper, Chain, EventType, FIELD_MANAGER, FIRST_PAUSE, Instant, LEADERS_TURN,
    LONGEST_PAUSE, LOOK_AGAIN, ListParams, Pod, Role, Secret, StoreError, call,
};
use std::time::Duration;

use k8s_openapi::ByteString;
use kube::api::PostParams;
use tracing::{info, warn};

use crate::{
    error_chain,
    pki::{chain::signing_keys_key, mint::carry_out, pem},
};
use scaler_core::cert::{Flaw, LeafState, Note, Plan, Reason, plan};

/// Each step leads to a new look; more of them in a row than this means that a rule is broken.
const MOST_STEPS: usize = 8;

impl CertificateKeeper {
    /// Brings the chains up to date; says how long there is nothing to do. Without the lead it
    /// does only what [`is_anybodys`].
    pub(super) async fn renew(&mut self, is_leading: bool) -> Duration {
        let mut roles = Role::BOTH.to_vec();
        if is_leading {
            self.unserved_since = None;
        } else {
            roles.retain(|role| self.may_be_anybodys(*role));
            if roles.is_empty() {
                self.unserved_since = None;
                return LOOK_AGAIN;
            }
            let since = *self.unserved_since.get_or_insert_with(Instant::now);
            let left = LEADERS_TURN.saturating_sub(since.elapsed());
            if !left.is_zero() {
                return left;
            }
        }
        let mut pause = Duration::MAX;
        for role in roles {
            let quiet = match self.renew_chain(role, is_leading).await {
                Ok(quiet) => {
                    let watched = self.watched(role);
                    (watched.failures, watched.faults) = (0, 0);
                    quiet
                }
                Err(error) => self.failed(role, &error).await,
            };
            pause = pause.min(quiet);
        }
        pause
    }

    /// Reports a failure to renew; says how long to wait after it.
    async fn failed(&mut self, role: Role, error: &StoreError) -> Duration {
        if !error.is_conflict() {
            warn!(%role, error = error as &dyn std::error::Error, "failed to renew certificates");
            self.watched(role).faults += 1;
            if self.watched(role).faults == 1 {
                let note = format!("The {role} certificates cannot be renewed: {}", error_chain(error));
                let about = self.secret_reference(role);
                self.report(&about, EventType::Warning, "CertificatesNotRenewed", "Renew", note).await;
            }
        }
        let watched = self.watched(role);
        let backoff = FIRST_PAUSE.saturating_mul(1 << watched.failures.min(6)).min(LONGEST_PAUSE);
        watched.failures += 1;
        backoff
    }

    /// Whether the watch shows a chain for which [`is_anybodys`] may hold.
    fn may_be_anybodys(&mut self, role: Role) -> bool {
        self.watched_chain(role).is_some_and(|chain| match chain.leaf {
            LeafState::Absent => chain.cas.is_empty(),
            LeafState::Unusable(Flaw::Refused(_)) => true,
            LeafState::Unusable(_) | LeafState::Usable(_) => false,
        })
    }

    async fn renew_chain(&mut self, role: Role, is_leading: bool) -> Result<Duration, StoreError> {
        let policy = self.settings.policy(role);
        for _ in 0..MOST_STEPS {
            // Read anew: the watch may be behind what was just written.
            let name = self.settings.secret(role).to_owned();
            let secret =
                self.read(&self.secrets, &name).await?.ok_or_else(|| StoreError::NoSecret(name.clone()))?;
            let ca_secret = self.read(&self.own_secrets, &self.settings.ca_secret).await?;
            let keys = ca_secret.as_ref().map(|secret| signing_keys(secret, role)).unwrap_or_default();
            let before = secret.data.clone().unwrap_or_default();
            let chain = Chain::read(role, &before, Some(&keys));
            let now = self.now();
            let mut step = plan(&chain.observed(false), &policy, now);
            let mut existing_scaler_runs = false;
            if !matches!(step, Plan::Keep { .. }) {
                existing_scaler_runs = self.existing_scaler_runs().await?;
                step = plan(&chain.observed(existing_scaler_runs), &policy, now);
            }
            if !is_leading && !is_anybodys(&step, &chain) {
                return Ok(LOOK_AGAIN);
            }
            match &step {
                Plan::Keep { until, note } => {
                    self.kept(role, &chain, *note).await;
                    return Ok(until.saturating_since(now).max(FIRST_PAUSE));
                }
                Plan::WaitForExistingScaler { reason } => {
                    if !std::mem::replace(&mut self.watched(role).is_waiting, true) {
                        info!(%role, %reason, "waiting for the scaler that is being replaced to end");
                    }
                    return Ok(FIRST_PAUSE * 5);
                }
                _ => self.watched(role).is_waiting = false,
            }
            let Some(renewed) = carry_out(&step, &chain, &before, &policy, existing_scaler_runs, now)? else {
                continue;
            };
            // A key is stored before its CA is published, and taken away after its CA has gone:
            // whatever comes between leaves a chain that can be renewed.
            let mut stored = None;
            if let Some(wanted) = &renewed.signing_keys {
                let both = pem::union_of_private_keys(wanted.as_bytes(), &keys);
                stored = Some(self.store_signing_keys(role, ca_secret, both).await?);
            }
            let secret = Secret { data: Some(renewed.secret), ..secret };
            self.write(&self.secrets, &secret, &name).await?;
            self.report_step(role, &step).await;
            if let (Some(stored), Some(wanted)) = (stored, renewed.signing_keys) {
                self.store_signing_keys(role, Some(stored), wanted).await?;
            }
        }
        Ok(FIRST_PAUSE)
    }

    async fn read(&self, api: &Api<Secret>, name: &str) -> Result<Option<Secret>, StoreError> {
        let read = call::answer(api.get_opt(name)).await;
        read.map_err(|source| StoreError::Read { name: name.to_owned(), source })
    }

    /// Makes `keys` the chain's entry in the CA Secret, if it is not; returns that as it is then.
    async fn store_signing_keys(
        &self,
        role: Role,
        ca_secret: Option<Secret>,
        keys: String,
    ) -> Result<Secret, StoreError> {
        let name = &self.settings.ca_secret;
        let mut ca_secret = ca_secret.ok_or_else(|| StoreError::NoSecret(name.clone()))?;
        let entry = ByteString(keys.into_bytes());
        let data = ca_secret.data.get_or_insert_default();
        if data.insert(signing_keys_key(role).to_owned(), entry.clone()) == Some(entry) {
            return Ok(ca_secret);
        }
        self.write(&self.own_secrets, &ca_secret, name).await
    }

    /// Replaces the Secret as it was read; a conflict where it has changed since.
    async fn write(&self, api: &Api<Secret>, secret: &Secret, name: &str) -> Result<Secret, StoreError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let written = call::answer(api.replace(name, &params, secret)).await;
        written.map_err(|source| StoreError::Write { name: name.to_owned(), source })
    }

    /// The existing scaler mounts the chains' Secrets, which no pod of ours does.
    async fn existing_scaler_runs(&self) -> Result<bool, StoreError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.settings.own_namespace);
        let pods = call::answer(pods.list(&ListParams::default())).await.map_err(StoreError::ListPods)?;
        let names = [&self.settings.server_secret, &self.settings.client_secret];
        Ok(pods.items.iter().any(|pod| is_running(pod) && mounts(pod, &names)))
    }

    async fn kept(&mut self, role: Role, chain: &Chain, note: Option<Note>) {
        self.watched(role).is_waiting = false;
        if note == Some(Note::NotYetValid) {
            warn!(%role, "the certificate's time has not come: a clock is wrong, here or where it was made");
        }
        if chain.has_legacy_key && !std::mem::replace(&mut self.watched(role).was_taken_over, true) {
            let name = self.settings.secret(role).to_owned();
            info!(%role, secret = %name, "took over the certificates of the scaler before");
            let note = format!(
                "The {role} certificates of the scaler before are good and stay in use until they are due"
            );
            let about = self.secret_reference(role);
            self.report(&about, EventType::Normal, "CertificatesTakenOver", "TakeOver", note).await;
        }
    }

    async fn report_step(&self, role: Role, step: &Plan) {
        let (what, action, reason) = match step {
            Plan::Found { reason } => ("Made a new CA and certificate", "Found", Some(reason)),
            Plan::AddCa { reason } => ("Published the next CA beside the current one", "AddCa", Some(reason)),
            Plan::IssueLeaf { reason, .. } => {
                ("Made a new certificate of the same CA", "IssueLeaf", Some(reason))
            }
            Plan::SwitchLeaf { reason, .. } => {
                ("Made a new certificate of the next CA", "SwitchLeaf", Some(reason))
            }
            Plan::DropCas { .. } => ("Dropped CAs that have expired", "DropCas", None),
            Plan::Keep { .. } | Plan::WaitForExistingScaler { .. } => return,
        };
        let is_expected = matches!(reason, None | Some(Reason::Absent | Reason::RenewalDue | Reason::CaEnds));
        let because = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let note = format!("{what} ({role}){because}");
        info!(%role, "{note}");
        let about = self.secret_reference(role);
        let type_ = if is_expected { EventType::Normal } else { EventType::Warning };
        self.report(&about, type_, "CertificatesRenewed", action, note).await;
    }
}

/// Whether any replica may take this step. The scaler that is being replaced may hold the same
/// Lease until a new pod is ready, which it is not before there is a chain to serve with.
///
/// Two at once do no harm: each stores its key in the CA Secret, where the other's write conflicts
/// or adds to it, and only one of the chain's Secrets is written. Who takes a key away has
/// published its own CA, and seen nobody store another key since.
fn is_anybodys(step: &Plan, chain: &Chain) -> bool {
    match step {
        Plan::Found { reason } | Plan::WaitForExistingScaler { reason } if *reason == Reason::Absent => {
            chain.cas.is_empty()
        }
        Plan::IssueLeaf { reason: Reason::Flawed(Flaw::Refused(_)), .. } | Plan::Keep { .. } => true,
        _ => false,
    }
}

fn signing_keys(ca_secret: &Secret, role: Role) -> Vec<u8> {
    let entry = ca_secret.data.as_ref().and_then(|data| data.get(signing_keys_key(role)));
    entry.map(|keys| keys.0.clone()).unwrap_or_default()
}

fn is_running(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.is_some_and(|all| {
        all.iter().any(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()))
    })
}

fn mounts(pod: &Pod, secrets: &[&String]) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut names = volumes.filter_map(|volume| volume.secret.as_ref()?.secret_name.as_ref());
    names.any(|name| secrets.contains(&name))
}
