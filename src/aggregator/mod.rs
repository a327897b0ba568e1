//! The aggregator: one task that owns all state, folds samples and discovery's events into
//! it, decides, and publishes. It does no IO and never waits inside a fold; it is the only
//! writer of every snapshot.

mod describe;
mod gateway;
mod group;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::{
    sync::CancellationToken,
    time::{DelayQueue, delay_queue},
};
use tracing::{debug, warn};

pub use self::group::Scraper;
use self::{
    gateway::Gateways,
    group::{Group, GroupKey},
};
use crate::{
    metrics::{Metrics, PageLabels, PhaseLabels, ScrapeLabels},
    scrape::ScrapeReport,
    targets::{DebugRequest, Target, Targets},
    wake::SourceReport,
};
use clock::Clock;
use scaler_core::{
    decision::{evaluate::WATCH_SILENCE, warning::Trouble},
    endpoint::pod::Phase,
    fleet::model::{FleetEvent, InferenceSet},
    names::InferenceSetKey,
    page::SharedWanted,
    time::Moment,
    wake::Reading,
};

/// What is newly wrong with a ScaledObject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TroubleReport {
    pub namespace: Arc<str>,
    pub scaled_object: Arc<str>,
    pub trouble: Trouble,
}

/// Where the aggregator hears from.
#[derive(Debug)]
pub struct Inbox {
    pub fleet: mpsc::Receiver<FleetEvent>,
    /// The targets that calls have registered.
    pub registrations: mpsc::UnboundedReceiver<Arc<Target>>,
    pub debug_requests: mpsc::Receiver<DebugRequest>,
    pub reports: mpsc::Receiver<ScrapeReport>,
    pub sources: mpsc::Receiver<SourceReport>,
}

/// How often targets that nobody asks for any more are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// The farthest that a timer is set.
const FARTHEST: Duration = Duration::from_secs(86_400);
/// How many scrape reports are folded before the groups they touch are evaluated.
const BATCH: usize = 256;

/// All state. See the module.
#[derive(Debug)]
pub struct Aggregator<S> {
    clock: Clock,
    scraper: S,
    targets: Targets,
    metrics: Metrics,
    /// To whoever makes events of them.
    troubles: Option<mpsc::Sender<TroubleReport>>,
    fleet: HashMap<InferenceSetKey, InferenceSet>,
    /// When discovery was last heard from; `None` before its first word.
    heard: Option<Moment>,
    groups: HashMap<GroupKey, Group>,
    /// The groups of each InferenceSet: mostly one.
    by_set: HashMap<InferenceSetKey, Vec<GroupKey>>,
    gateways: Gateways,
    wanted: SharedWanted,
    /// Groups to evaluate before the next wait.
    dirty: HashSet<GroupKey>,
    timers: HashMap<GroupKey, (Moment, delay_queue::Key)>,
    timer_queue: DelayQueue<GroupKey>,
}

impl<S: Scraper> Aggregator<S> {
    #[must_use]
    pub fn new(clock: Clock, scraper: S, targets: Targets, metrics: Metrics) -> Self {
        Self {
            clock,
            scraper,
            targets,
            metrics,
            troubles: None,
            fleet: HashMap::new(),
            heard: None,
            groups: HashMap::new(),
            by_set: HashMap::new(),
            gateways: Gateways::default(),
            wanted: SharedWanted::default(),
            dirty: HashSet::new(),
            timers: HashMap::new(),
            timer_queue: DelayQueue::new(),
        }
    }

    /// Where reports go of what users should know of their ScaledObjects.
    #[must_use]
    pub fn telling(mut self, troubles: Option<mpsc::Sender<TroubleReport>>) -> Self {
        self.troubles = troubles;
        self
    }

    /// Runs until `cancel`, and gives the scraper back to be shut down.
    pub async fn run(mut self, mut inbox: Inbox, cancel: CancellationToken) -> S {
        let mut reports = Vec::with_capacity(BATCH);
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return self.scraper,
                Some(target) = inbox.registrations.recv() => self.register(target),
                Some(event) = inbox.fleet.recv() => self.discovered(event),
                Some(expired) = self.timer_queue.next() => {
                    let key = expired.into_inner();
                    self.timers.remove(&key);
                    self.touch(&key);
                }
                _ = sweep.tick() => {
                    self.scraper.tend();
                    self.expire();
                }
                Some(report) = inbox.sources.recv() => self.source_read(report),
                count = inbox.reports.recv_many(&mut reports, BATCH), if !inbox.reports.is_closed() => {
                    if count > 0 {
                        for report in reports.drain(..) {
                            self.scraped(report);
                        }
                    }
                }
                // Last: people can wait, and must not keep the rest from its work.
                Some(DebugRequest(answer)) = inbox.debug_requests.recv() => {
                    // The asker may have gone away.
                    drop(answer.send(self.describe()));
                }
            }
            self.evaluate_dirty();
        }
    }

    fn register(&mut self, target: Arc<Target>) {
        let now = self.clock.now();
        let key = GroupKey {
            set: target.trigger.inference_set.clone(),
            page: Arc::new(target.trigger.page.clone()),
        };
        let set = self.fleet.get(&key.set);
        let (by_set, shared) = (&mut self.by_set, &mut self.wanted);
        let group = self.groups.entry(key.clone()).or_insert_with(|| {
            by_set.entry(key.set.clone()).or_default().push(key.clone());
            let mut group = Group::new(key.clone(), shared);
            group.observe(set, now, &mut self.scraper);
            group
        });
        group.join(target, now, shared, &mut self.scraper);
        self.follow_sources(&key.set);
        self.touch(&key);
    }

    fn discovered(&mut self, event: FleetEvent) {
        let now = self.clock.now();
        // One InferenceSet that changes says nothing of whether the pods are still heard of.
        if self.heard.is_none() || matches!(event, FleetEvent::Reset(_) | FleetEvent::Alive) {
            let before = self.heard.replace(now);
            if before.is_some_and(|before| now.saturating_since(before) >= WATCH_SILENCE) {
                self.dirty = self.groups.keys().cloned().collect();
            }
        }
        match event {
            FleetEvent::Applied(set) => {
                let key = set.key.clone();
                if self.fleet.get(&key) != Some(&set) {
                    self.fleet.insert(key.clone(), set);
                    self.changed(&key, now);
                }
            }
            FleetEvent::Deleted(key) => {
                self.fleet.remove(&key);
                self.changed(&key, now);
            }
            FleetEvent::Reset(sets) => {
                self.fleet = sets.into_iter().map(|set| (set.key.clone(), set)).collect();
                let keys: Vec<_> = self.by_set.keys().cloned().collect();
                for key in keys {
                    self.changed(&key, now);
                }
            }
            FleetEvent::Alive => {}
        }
    }

    fn changed(&mut self, set: &InferenceSetKey, now: Moment) {
        let observed = self.fleet.get(set);
        for key in self.by_set.get(set).into_iter().flatten() {
            if let Some(group) = self.groups.get_mut(key) {
                group.observe(observed, now, &mut self.scraper);
                self.dirty.insert(key.clone());
            }
        }
        self.follow_sources(set);
    }

    /// Reads what would wake an InferenceSet that has targets: often while it has no replica,
    /// seldom else.
    fn follow_sources(&mut self, set: &InferenceSetKey) {
        let groups = self.by_set.get(set).into_iter().flatten();
        let groups = groups.filter_map(|key| self.groups.get(key));
        let observed = self.fleet.get(set);
        let reading = |target: &Arc<Target>| Reading::of(observed?, target.trigger.wake_source.as_ref());
        let readings = groups.flat_map(Group::targets).filter_map(reading).collect();
        let asleep = observed.is_some_and(|observed| observed.replicas == 0);
        for (source, plan) in self.gateways.follow(set, readings, asleep) {
            self.scraper.apply_source(&source, plan);
        }
    }

    fn scraped(&mut self, report: ScrapeReport) {
        self.count(&report);
        let key = GroupKey { set: report.id.set.clone(), page: report.id.page.clone() };
        let Some(group) = self.groups.get_mut(&key) else { return };
        if self.scraper.is_current(&report) && group.scraped(report) {
            self.touch(&key);
        }
    }

    fn count(&self, report: &ScrapeReport) {
        if let Ok(scraped) = &report.outcome {
            let page = PageLabels { page: scraped.page.as_str() };
            self.metrics.scraped_bytes.get_or_create(&page).inc_by(scraped.bytes as u64);
            self.metrics.lines_rejected.inc_by(scraped.rejected as u64);
        }
        let outcome = report.outcome_label().as_str();
        self.metrics.scrapes.get_or_create(&ScrapeLabels { outcome }).inc();
        self.metrics.scrape_duration.observe(report.duration().as_secs_f64());
    }

    fn source_read(&mut self, report: SourceReport) {
        let outcome = if report.outcome.is_ok() { "ok" } else { "failed" };
        self.metrics.gateway_scrapes.get_or_create(&ScrapeLabels { outcome }).inc();
        for set in self.gateways.take(report) {
            self.dirty.extend(self.by_set.get(set).into_iter().flatten().cloned());
        }
    }

    fn expire(&mut self) {
        for target in self.targets.expire(self.clock.now()) {
            let key = GroupKey {
                set: target.trigger.inference_set.clone(),
                page: Arc::new(target.trigger.page.clone()),
            };
            let Some(group) = self.groups.get_mut(&key) else { continue };
            group.leave(&target, &mut self.wanted, &mut self.scraper);
            let set = key.set.clone();
            if group.is_empty() {
                let phases = group.forget_phases();
                self.count_phases(phases);
                self.groups.remove(&key);
                if let Some(keys) = self.by_set.get_mut(&key.set) {
                    keys.retain(|other| *other != key);
                    if keys.is_empty() {
                        self.by_set.remove(&key.set);
                    }
                }
                if let Some((_, timer)) = self.timers.remove(&key) {
                    self.timer_queue.remove(&timer);
                }
            }
            self.follow_sources(&set);
        }
    }

    /// Marks a group for evaluation.
    fn touch(&mut self, key: &GroupKey) {
        if !self.dirty.contains(key) {
            self.dirty.insert(key.clone());
        }
    }

    fn evaluate_dirty(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let now = self.clock.now();
            let Some(group) = self.groups.get_mut(&key) else { continue };
            let due = group.due(now);
            if due > now {
                self.evaluate_at(key, due);
                continue;
            }
            let evaluation = group.evaluate(now, self.heard, &self.gateways);
            for (target, trouble) in evaluation.troubles {
                self.tell(&target, trouble);
            }
            self.count_phases(evaluation.phases);
            if let Some(again_at) = evaluation.again_at {
                self.evaluate_at(key, again_at);
            }
        }
    }

    /// Sets a group's timer, unless it goes off earlier anyway. Samples move most deadlines
    /// into the future, so a timer that goes off early and is set anew costs less than one
    /// that is moved with each sample.
    fn evaluate_at(&mut self, key: GroupKey, at: Moment) {
        // A date from a wrong clock can lie years ahead, which a timer can't. Waking early
        // costs one evaluation.
        let at = at.min(self.clock.now() + FARTHEST);
        let instant = self.clock.instant(at);
        match self.timers.get_mut(&key) {
            Some((set_for, _)) if *set_for <= at => {}
            Some((set_for, timer)) => {
                *set_for = at;
                self.timer_queue.reset_at(timer, instant);
            }
            None => {
                let timer = self.timer_queue.insert_at(key.clone(), instant);
                self.timers.insert(key, (at, timer));
            }
        }
    }

    fn tell(&self, target: &Target, trouble: Trouble) {
        let (namespace, scaled_object) = (target.namespace.clone(), target.scaled_object.clone());
        let reason = trouble.reason();
        warn!(%namespace, %scaled_object, reason, "{trouble}");
        if trouble == Trouble::WakeNotHonoured {
            target.note_not_honoured();
        }
        let report = TroubleReport { namespace, scaled_object, trouble };
        // The log and the metrics have it in any case; no trouble is worth waiting for a writer
        // of events here.
        if let Some(Err(error)) = self.troubles.as_ref().map(|troubles| troubles.try_send(report)) {
            debug!(%error, reason, "no event is written");
        }
    }

    fn count_phases(&self, changes: [i64; Phase::ALL.len()]) {
        for (phase, change) in Phase::ALL.into_iter().zip(changes) {
            if change != 0 {
                self.metrics.endpoints.get_or_create(&PhaseLabels { phase: phase.as_str() }).inc_by(change);
            }
        }
    }
}
