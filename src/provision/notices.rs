//! What is to be said about an InferenceSet at present, and what of it was said.

use std::collections::HashMap;

use crate::metrics::{Metrics, ProblemLabels};
use scaler_core::names::InferenceSetKey;

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub api_version: String,
    pub kind: &'static str,
    pub key: InferenceSetKey,
    pub uid: String,
}

/// Something that its user should know: it becomes a Warning event, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub subject: Subject,
    /// The event's reason, in `PascalCase`.
    pub reason: &'static str,
    pub note: String,
}

#[derive(Debug)]
struct Standing {
    notice: Notice,
    told: bool,
}

/// The notices that stand, by InferenceSet. The metric counts them.
#[derive(Debug)]
pub(super) struct Notices {
    standing: HashMap<InferenceSetKey, Vec<Standing>>,
    metrics: Metrics,
}

impl Notices {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { standing: HashMap::new(), metrics }
    }

    /// `current` is everything that stands from now on. Gives what was not told yet.
    pub(super) fn replace(&mut self, set: &InferenceSetKey, current: Vec<Notice>) -> Vec<Notice> {
        let old = self.standing.remove(set).unwrap_or_default();
        for standing in &old {
            self.gauge(&standing.notice).dec();
        }
        let mut untold = Vec::new();
        let mut new = Vec::with_capacity(current.len());
        for notice in current {
            self.gauge(&notice).inc();
            let told = old.iter().any(|standing| standing.told && standing.notice == notice);
            if !told {
                untold.push(notice.clone());
            }
            new.push(Standing { notice, told });
        }
        if !new.is_empty() {
            self.standing.insert(set.clone(), new);
        }
        untold
    }

    /// These became events.
    pub(super) fn told(&mut self, set: &InferenceSetKey, told: &[Notice]) {
        for standing in self.standing.get_mut(set).into_iter().flatten() {
            standing.told |= told.contains(&standing.notice);
        }
    }

    /// This no longer stands.
    pub(super) fn retract(&mut self, set: &InferenceSetKey, notice: &Notice) {
        let Some(standing) = self.standing.get_mut(set) else { return };
        let before = standing.len();
        standing.retain(|standing| standing.notice != *notice);
        if standing.len() < before {
            self.gauge(notice).dec();
        }
    }

    fn gauge(&self, notice: &Notice) -> prometheus_client::metrics::gauge::Gauge {
        self.metrics.provision_problems.get_or_create_owned(&ProblemLabels { reason: notice.reason })
    }
}

impl Drop for Notices {
    /// Who no longer provisions knows of no problem.
    fn drop(&mut self) {
        self.metrics.provision_problems.clear();
    }
}
