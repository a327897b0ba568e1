//! How much the triggers of one InferenceSet may read: what one tenant asks for must not slow the
//! decisions about another's.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use thiserror::Error;

use scaler_core::{config::trigger::Trigger, names::InferenceSetKey};

/// How many metrics the triggers in use of one InferenceSet may read together. A trigger counts as
/// one at least; more than a handful is rare.
pub(super) const MOST_METRICS: usize = 1_000;

/// Why a trigger is not served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the triggers in use on InferenceSet {set} read {used} metrics, and this one {more} more, but {MOST_METRICS} are \
     the most for one InferenceSet: take ScaledObjects or metrics away; what is no longer called for counts for another \
     10 minutes"
)]
pub struct Full {
    pub set: InferenceSetKey,
    pub used: usize,
    pub more: usize,
}

/// What is read for each InferenceSet. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Quota(Arc<Mutex<HashMap<InferenceSetKey, usize>>>);

/// What one trigger takes of it, until it is released or dropped. A map without locks may drop what it
/// holds long after that was taken out.
#[derive(Debug)]
pub(super) struct Share {
    quota: Quota,
    set: InferenceSetKey,
    metrics: AtomicUsize,
}

impl Quota {
    pub(super) fn share(&self, trigger: &Trigger) -> Result<Share, Full> {
        let set = &trigger.inference_set;
        let metrics = trigger.wanted_metrics().len().max(1);
        let mut used = self.lock();
        let before = used.get(set).copied().unwrap_or(0);
        if before.saturating_add(metrics) > MOST_METRICS {
            return Err(Full { set: set.clone(), used: before, more: metrics });
        }
        used.insert(set.clone(), before + metrics);
        Ok(Share { quota: self.clone(), set: set.clone(), metrics: AtomicUsize::new(metrics) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<InferenceSetKey, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Gives it back, once.
    pub(super) fn release(&self) {
        let metrics = self.metrics.swap(0, Relaxed);
        let mut used = self.quota.lock();
        let left = used.get(&self.set).copied().unwrap_or(0).saturating_sub(metrics);
        if left == 0 {
            used.remove(&self.set);
        } else {
            used.insert(self.set.clone(), left);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if *self.metrics.get_mut() > 0 {
            self.release();
        }
    }
}
