//! The targets that KEDA asks for: one for each trigger of each ScaledObject.
//!
//! A target comes to life by the first call that names it, and by nothing else; it expires
//! some time after the last one. Reading one takes no lock: the registry is a lock-free map
//! and each target's snapshot is swapped whole by the aggregator, its only writer.

mod collector;
mod describe;
mod quota;

pub use self::{
    collector::collector,
    describe::{DebugRequest, DescribedEndpoint, DescribedTarget},
};

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use self::quota::{Full, Quota, Share};
use clock::Clock;
use scaler_core::{
    config::{
        problem::Problems,
        trigger::{MetricSpec, Trigger},
    },
    decision::{
        push::PushState,
        snapshot::{Snapshot, Unavailable},
    },
    fleet::tenancy::{Tenancy, Trespass},
    provision::CERTIFICATES,
    time::Moment,
};

/// A target that nobody asked for, for this long, is forgotten. KEDA polls each at least
/// every few minutes, or holds a stream open.
pub const EXPIRY: Duration = Duration::from_secs(600);
/// Stands for the time of the newest call of a target that no call takes up any more.
const EXPIRED: u64 = u64::MAX;

/// One trigger of one ScaledObject. Written by the aggregator, read by every call.
#[derive(Debug)]
pub struct Target {
    pub namespace: Arc<str>,
    pub scaled_object: Arc<str>,
    pub trigger: Trigger,
    pub specs: Vec<MetricSpec>,
    key: Arc<str>,
    snapshot: ArcSwap<Snapshot>,
    push: watch::Sender<PushState>,
    first_round: watch::Sender<bool>,
    /// In Unix milliseconds; [`EXPIRED`] from the moment on in which it is forgotten.
    last_used: AtomicU64,
    last_push: AtomicU64,
    streams: AtomicUsize,
    ended_cleanly: AtomicBool,
    not_honoured: AtomicU64,
    registered: Instant,
    /// What it takes of what the triggers of its InferenceSet may read.
    share: Share,
}

impl Target {
    /// The newest decision.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Publishes a decision: the snapshot first and the streams after it, so that an
    /// IsActive right after a push agrees with the push.
    pub fn publish(&self, snapshot: Arc<Snapshot>, push: PushState) {
        self.snapshot.store(snapshot);
        self.push.send_if_modified(|current| {
            // A new sample behind an old edge is no news.
            let news = PushState { sampled: current.sampled, ..push } != *current;
            if news {
                *current = push;
            }
            news
        });
    }

    /// What the streams of this target follow.
    pub fn follow(&self) -> watch::Receiver<PushState> {
        self.push.subscribe()
    }

    /// Every endpoint has been asked once: the snapshot says what can be known.
    pub fn complete_first_round(&self) {
        self.first_round.send_if_modified(|done| !std::mem::replace(done, true));
    }

    /// Waits until the first round of scrapes is through, at most for `limit` from the first call on:
    /// KEDA makes its calls in pairs, and the second need not wait for what the first has waited
    /// for.
    pub async fn first_round(&self, limit: Duration) {
        let mut done = self.first_round.subscribe();
        if *done.borrow() {
            return;
        }
        // Running out of time is an answer too: the snapshot then says what is unknown.
        let _ = tokio::time::timeout_at(self.registered + limit, done.wait_for(|done| *done)).await;
    }

    /// Takes note of a call. False where the target is forgotten: the call is to take another.
    pub fn take_up(&self, now: Moment) -> bool {
        let later = |last: u64| (last != EXPIRED).then(|| last.max(millis(now)));
        self.last_used.fetch_update(Relaxed, Relaxed, later).is_ok()
    }

    /// Forgets the target where no stream is open and no call came within [`EXPIRY`]. A call
    /// takes it up before that or not at all: both change the same number.
    fn expire(&self, now: Moment) -> bool {
        let last = self.last_used.load(Relaxed);
        let is_unused = now.saturating_since(at_millis(last)) >= EXPIRY;
        // A call opens its stream after it has taken the target up.
        is_unused
            && self.streams.load(Relaxed) == 0
            && self.last_used.compare_exchange(last, EXPIRED, Relaxed, Relaxed).is_ok()
    }

    /// Whether no call takes the target up any more.
    pub fn is_forgotten(&self) -> bool {
        self.last_used.load(Relaxed) == EXPIRED
    }

    /// When the newest call came.
    pub fn last_used(&self) -> Moment {
        at_millis(self.last_used.load(Relaxed))
    }

    pub fn stream_opened(&self) {
        self.streams.fetch_add(1, Relaxed);
    }

    pub fn stream_closed(&self, now: Moment) {
        self.take_up(now);
        self.streams.fetch_sub(1, Relaxed);
    }

    pub fn pushed(&self, now: Moment) {
        self.last_push.store(millis(now), Relaxed);
    }

    /// When `true` was last pushed.
    pub fn last_push(&self) -> Option<Moment> {
        let millis = self.last_push.load(Relaxed);
        (millis > 0).then(|| Moment::from_unix(Duration::from_millis(millis)))
    }

    /// Whether a stream of this target has ended with OK already.
    pub fn ended_cleanly(&self) -> bool {
        self.ended_cleanly.load(Relaxed)
    }

    pub fn note_clean_end(&self) {
        self.ended_cleanly.store(true, Relaxed);
    }

    /// Counts a wake-up that nobody answered for too long.
    pub fn note_not_honoured(&self) {
        self.not_honoured.fetch_add(1, Relaxed);
    }

    /// How many wake-ups nobody answered for too long.
    pub fn not_honoured(&self) -> u64 {
        self.not_honoured.load(Relaxed)
    }

    pub fn key(&self) -> &Arc<str> {
        &self.key
    }
}

fn millis(moment: Moment) -> u64 {
    u64::try_from(moment.since_unix().as_millis()).unwrap_or(EXPIRED - 1)
}

fn at_millis(millis: u64) -> Moment {
    Moment::from_unix(Duration::from_millis(millis))
}

/// Why there is no such target.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error(transparent)]
    Invalid(Problems),
    #[error(transparent)]
    Forbidden(Trespass),
    #[error(transparent)]
    TooMany(Full),
}

/// Every target that is in use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Targets {
    map: Arc<papaya::HashMap<Arc<str>, Arc<Target>>>,
    registrations: mpsc::UnboundedSender<Arc<Target>>,
    clock: Clock,
    tenancy: Tenancy,
    quota: Quota,
}

impl Targets {
    #[must_use]
    pub fn new(registrations: mpsc::UnboundedSender<Arc<Target>>, clock: Clock, tenancy: Tenancy) -> Self {
        Self { map: Arc::new(papaya::HashMap::new()), registrations, clock, tenancy, quota: Quota::default() }
    }

    /// The target that `metadata` describes, made and registered where nobody asked for it
    /// yet.
    ///
    /// # Errors
    /// Where the metadata is not a valid trigger: all of its problems. Where it names an
    /// InferenceSet of another namespace, and that is not allowed. Where other triggers on the
    /// InferenceSet read as much as may be read for one.
    pub fn find_or_register(
        &self,
        namespace: &str,
        scaled_object: &str,
        metadata: &HashMap<String, String>,
        requested_metric: Option<&str>,
    ) -> Result<Arc<Target>, Refusal> {
        self.find_at(self.clock.now(), namespace, scaled_object, metadata, requested_metric)
    }

    fn find_at(
        &self,
        now: Moment,
        namespace: &str,
        scaled_object: &str,
        metadata: &HashMap<String, String>,
        requested_metric: Option<&str>,
    ) -> Result<Arc<Target>, Refusal> {
        let key = key(namespace, scaled_object, metadata, requested_metric);
        let map = self.map.pin();
        if let Some(target) = map.get(key.as_str()).filter(|target| target.take_up(now)) {
            return Ok(target.clone());
        }
        let pairs = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let trigger = Trigger::parse(pairs, requested_metric).map_err(Refusal::Invalid)?;
        self.tenancy.admit(namespace, &trigger.inference_set).map_err(Refusal::Forbidden)?;
        let share = self.quota.share(&trigger).map_err(Refusal::TooMany)?;
        let key: Arc<str> = key.into();
        let specs = trigger.metric_specs();
        let target = Arc::new(Target {
            namespace: namespace.into(),
            scaled_object: scaled_object.into(),
            snapshot: ArcSwap::from_pointee(Snapshot::unknown(now, specs.len(), &Unavailable::NotSynced)),
            specs,
            trigger,
            key: key.clone(),
            push: watch::Sender::new(PushState::default()),
            first_round: watch::Sender::new(false),
            last_used: AtomicU64::new(millis(now)),
            last_push: AtomicU64::new(0),
            streams: AtomicUsize::new(0),
            ended_cleanly: AtomicBool::new(false),
            not_honoured: AtomicU64::new(0),
            registered: Instant::now(),
            share,
        });
        loop {
            match map.try_insert(target.key.clone(), target.clone()) {
                Ok(_) => {
                    // Fails only while the process is going down, and then nobody reads on.
                    let _ = self.registrations.send(target.clone());
                    return Ok(target);
                }
                // Of two calls that come at once, one registers and both use the same target.
                Err(occupied) if occupied.current.take_up(now) => return Ok(occupied.current.clone()),
                // It is being forgotten: this call need not wait for that.
                Err(occupied) => self.remove(occupied.current),
            }
        }
    }

    /// Forgets the targets that are no longer in use and gives them back.
    #[must_use]
    pub fn expire(&self, now: Moment) -> Vec<Arc<Target>> {
        let map = self.map.pin();
        let expired: Vec<_> = map.values().filter(|target| target.expire(now)).cloned().collect();
        for target in &expired {
            self.remove(target);
        }
        expired
    }

    /// Takes `target` out, and nothing else that has its key by now.
    fn remove(&self, target: &Arc<Target>) {
        let is_it = |_: &Arc<str>, registered: &Arc<Target>| Arc::ptr_eq(registered, target);
        // It fails where the key is another target's.
        let _ = self.map.pin().remove_if(&target.key, is_it);
        target.share.release();
    }

    /// Every target, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Target>> {
        self.map.pin().values().cloned().collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

/// A target's identity as one string: the ScaledObject and the metadata in a fixed order,
/// every part preceded by its length so that no two identities read alike.
fn key(
    namespace: &str,
    scaled_object: &str,
    metadata: &HashMap<String, String>,
    requested_metric: Option<&str>,
) -> String {
    use std::fmt::Write;

    let mut pairs: Vec<_> = metadata.iter().filter(|(key, _)| *key != CERTIFICATES).collect();
    pairs.sort_unstable();
    let parts = [namespace, scaled_object, requested_metric.unwrap_or("")]
        .into_iter()
        .chain(pairs.into_iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]));
    let mut text = String::with_capacity(256);
    for part in parts {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}:{part}", part.len());
    }
    text
}

#[cfg(test)]
mod tests;
