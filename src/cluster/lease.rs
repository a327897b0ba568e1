//! Leader election on a Lease of the Kubernetes API. Whoever leads may write; everybody serves.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::api::{Api, PostParams};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use clock::Clock;
use scaler_core::lease::{Seen, Step, Timing, step};

/// The time that giving up the Lease may take at shutdown. Others would take it over after its
/// duration anyway.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Error)]
enum LeaseError {
    #[error("failed to read the Lease")]
    Read(#[source] kube::Error),
    #[error("failed to create the Lease")]
    Create(#[source] kube::Error),
    #[error("failed to update the Lease")]
    Update(#[source] kube::Error),
    #[error("the API server did not answer in time")]
    NoAnswer,
}

/// A candidate for leadership.
#[derive(Clone)]
pub struct Candidate {
    pub client: kube::Client,
    pub namespace: String,
    /// The Lease's name.
    pub lease: String,
    /// Who we are: another value for each process, restarts of the same pod included, or a
    /// restarted process would take its predecessor's Lease for its own.
    pub identity: String,
    pub timing: Timing,
    pub clock: Clock,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, lease, identity, timing, .. } = self;
        f.debug_struct("Candidate")
            .field("namespace", namespace)
            .field("lease", lease)
            .field("identity", identity)
            .field("timing", timing)
            .finish_non_exhaustive()
    }
}

impl Candidate {
    /// Takes part until `shutdown`, then gives the Lease up. `leads` is true while this process
    /// leads, and false from the moment on at which it could not renew for too long.
    pub async fn run(self, leads: watch::Sender<bool>, shutdown: CancellationToken) {
        let mut term = Term { api: Api::namespaced(self.client.clone(), &self.namespace), last: None };
        let mut renewed_at: Option<Instant> = None;
        let mut is_troubled = false;
        loop {
            let started = Instant::now();
            // While we lead, an attempt may not take longer than we are allowed to lead.
            let deadline = renewed_at.unwrap_or(started) + self.timing.renew_deadline();
            let attempt = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                attempt = timeout_at(deadline, term.attempt(&self)) => attempt,
            };
            let trouble = match attempt {
                Ok(Ok(holds)) => {
                    renewed_at = holds.then_some(started);
                    None
                }
                Ok(Err(error)) => Some(error),
                Err(_) => Some(LeaseError::NoAnswer),
            };
            match &trouble {
                Some(error) if !is_troubled => {
                    warn!(lease = %self.lease, error = error as &dyn std::error::Error, "leader election is stuck");
                }
                None if is_troubled => info!(lease = %self.lease, "leader election goes on"),
                _ => {}
            }
            is_troubled = trouble.is_some();
            if renewed_at.is_some_and(|at| at.elapsed() >= self.timing.renew_deadline()) {
                renewed_at = None;
            }
            self.announce(&leads, renewed_at.is_some());
            let next = started + self.timing.retry_period();
            // An attempt that failed late must not let the end of our term pass unnoticed.
            let end = renewed_at.map(|at| at + self.timing.renew_deadline());
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = sleep_until(end.map_or(next, |end| end.min(next))) => {}
            }
        }
        let led = *leads.borrow();
        self.announce(&leads, false);
        if led {
            let released = tokio::time::timeout(RELEASE_LIMIT, term.release(&self)).await;
            if !matches!(released, Ok(Ok(()))) {
                warn!(lease = %self.lease, "the Lease could not be given up; it ends by itself");
            }
        }
    }

    fn announce(&self, leads: &watch::Sender<bool>, now: bool) {
        leads.send_if_modified(|before| {
            let is_edge = *before != now;
            if is_edge {
                *before = now;
                let (lease, identity) = (&self.lease, &self.identity);
                if now {
                    info!(%lease, %identity, "leading");
                } else {
                    info!(%lease, %identity, "leading no more");
                }
            }
            is_edge
        });
    }

    fn spec(&self, before: Option<&LeaseSpec>, step: Step) -> LeaseSpec {
        let now = Timestamp::try_from(std::time::UNIX_EPOCH + self.clock.now().since_unix());
        let now = now.ok().map(MicroTime);
        let before = before.cloned().unwrap_or_default();
        let is_new_term = step != Step::Renew;
        let transitions = before.lease_transitions.unwrap_or(0) + i32::from(step == Step::Acquire);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease_duration().as_secs()).ok(),
            acquire_time: if is_new_term { now.clone() } else { before.acquire_time.clone() },
            renew_time: now,
            lease_transitions: Some(transitions),
            ..before
        }
    }
}

/// What one process knows of the Lease.
struct Term {
    api: Api<Lease>,
    /// As last read or written, and what the rules see in it.
    last: Option<(Lease, Seen)>,
}

impl Term {
    /// Looks at the Lease and does what is due; says whether we hold it.
    async fn attempt(&mut self, candidate: &Candidate) -> Result<bool, LeaseError> {
        let read = self.api.get_opt(&candidate.lease).await.map_err(LeaseError::Read)?;
        self.saw(read, candidate);
        let now = candidate.clock.now();
        let step = step(self.last.as_ref().map(|(_, seen)| seen), &candidate.identity, now);
        let before = self.last.as_ref().map(|(lease, _)| lease);
        let mut lease = before.cloned().unwrap_or_default();
        lease.spec = Some(candidate.spec(before.and_then(|lease| lease.spec.as_ref()), step));
        let written = match step {
            Step::Wait => return Ok(false),
            Step::Create => {
                let name = Some(candidate.lease.clone());
                lease.metadata = ObjectMeta { name, ..ObjectMeta::default() };
                self.api.create(&PostParams::default(), &lease).await.map_err(LeaseError::Create)
            }
            Step::Acquire | Step::Renew => self
                .api
                .replace(&candidate.lease, &PostParams::default(), &lease)
                .await
                .map_err(LeaseError::Update),
        };
        match written {
            Ok(written) => {
                self.saw(Some(written), candidate);
                Ok(true)
            }
            // Another was faster; what it wrote is read next time.
            Err(
                LeaseError::Create(kube::Error::Api(status)) | LeaseError::Update(kube::Error::Api(status)),
            ) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn saw(&mut self, lease: Option<Lease>, candidate: &Candidate) {
        let Some(lease) = lease else {
            self.last = None;
            return;
        };
        let is_known = |(known, _): &(Lease, Seen)| {
            known.metadata.uid == lease.metadata.uid
                && known.metadata.resource_version == lease.metadata.resource_version
        };
        if self.last.as_ref().is_some_and(is_known) {
            return;
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let seen = Seen {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            duration: seconds.map_or(candidate.timing.lease_duration(), Duration::from_secs),
            since: candidate.clock.now(),
        };
        self.last = Some((lease, seen));
    }

    /// Leaves the Lease to whoever comes first.
    async fn release(&mut self, candidate: &Candidate) -> Result<(), LeaseError> {
        let Some((mut lease, _)) = self.last.take() else { return Ok(()) };
        let mut spec = candidate.spec(lease.spec.as_ref(), Step::Renew);
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        lease.spec = Some(spec);
        let released = self.api.replace(&candidate.lease, &PostParams::default(), &lease).await;
        released.map(drop).map_err(LeaseError::Update)
    }
}

#[cfg(test)]
mod tests;
