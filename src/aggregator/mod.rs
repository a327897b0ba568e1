//! The aggregator: one task that owns all state, folds samples and discovery's events into
//! it, decides, and publishes. It does no IO and never waits inside a fold; it is the only
//! writer of every snapshot.

mod describe;
mod gateway;
mod group;
mod inbox;
mod union;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_util::{
    sync::CancellationToken,
    time::{DelayQueue, delay_queue},
};
use tracing::{debug, warn};

use self::{
    gateway::Gateways,
    group::{Group, GroupKey},
    inbox::Batch,
    union::Counted,
};
pub use self::{group::Scraper, inbox::Inbox};
use crate::{
    metrics::{Metrics, PageLabels, PhaseLabels, ScrapeLabels},
    scrape::ScrapeReport,
    targets::{DebugRequest, Target, Targets},
    wake::SourceReport,
};
use clock::Clock;
use scaler_core::{
    config::trigger::WakeSource,
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

/// How often targets that nobody asks for any more are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// The farthest that a timer is set.
const FARTHEST: Duration = Duration::from_secs(86_400);
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
    by_set: HashMap<InferenceSetKey, SetTargets>,
    gateways: Gateways,
    /// InferenceSets whose wake sources are to be looked at anew before the next wait.
    unfollowed: HashSet<InferenceSetKey>,
    wanted: SharedWanted,
    /// Groups to evaluate before the next wait.
    dirty: HashSet<GroupKey>,
    timers: HashMap<GroupKey, (Moment, delay_queue::Key)>,
    timer_queue: DelayQueue<GroupKey>,
    /// How often a target was decided about.
    #[cfg(test)]
    decisions: usize,
}

/// The targets of one InferenceSet.
#[derive(Debug, Default)]
struct SetTargets {
    /// Mostly one.
    groups: Vec<GroupKey>,
    /// What they name as wake sources.
    sources: Counted<Option<WakeSource>>,
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
            unfollowed: HashSet::new(),
            wanted: SharedWanted::default(),
            dirty: HashSet::new(),
            timers: HashMap::new(),
            timer_queue: DelayQueue::new(),
            #[cfg(test)]
            decisions: 0,
        }
    }

    /// Where reports go of what users should know of their ScaledObjects.
    #[must_use]
    pub fn telling(mut self, troubles: Option<mpsc::Sender<TroubleReport>>) -> Self {
        self.troubles = troubles;
        self
    }

    /// Runs until `cancel`, and gives the scraper back to be shut down.
    ///
    /// It goes on in turns. Each takes in what has come, from every side and at most so much that
    /// the turn is short; so a flood on one side delays the others by a turn.
    pub async fn run(mut self, mut inbox: Inbox, cancel: CancellationToken) -> S {
        let mut sweep = tokio::time::interval(SWEEP);
        let mut batch = Batch::default();
        loop {
            let mut sweeps = false;
            tokio::select! {
                biased;
                () = cancel.cancelled() => return self.scraper,
                () = inbox.wait(&mut batch) => {}
                Some(expired) = self.timer_queue.next() => self.went_off(&expired.into_inner()),
                _ = sweep.tick() => sweeps = true,
            }
            inbox.fill(&mut batch);
            sweeps |= sweep.tick().now_or_never().is_some();
            while let Some(Some(expired)) = self.timer_queue.next().now_or_never() {
                self.went_off(&expired.into_inner());
            }
            let was_full = batch.is_full();
            self.turn(&mut batch, sweeps);
            // Last: people can wait, and are shown what has been decided.
            if let Some(DebugRequest(answer)) = batch.debug_request.take() {
                // The asker may have gone away.
                drop(answer.send(self.describe()));
            }
            if was_full {
                // There is more, and others share this thread.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes in all of `batch` but the debug request, and decides what follows from it.
    fn turn(&mut self, batch: &mut Batch, sweeps: bool) {
        for event in batch.fleet.drain(..) {
            self.discovered(event);
        }
        for target in batch.registrations.drain(..) {
            self.register(target);
        }
        for report in batch.sources.drain(..) {
            self.source_read(report);
        }
        for report in batch.reports.drain(..) {
            self.scraped(report);
        }
        if sweeps {
            self.scraper.tend();
            self.expire();
        }
        self.follow_unfollowed();
        self.evaluate_dirty();
    }

    fn went_off(&mut self, key: &GroupKey) {
        self.timers.remove(key);
        self.touch(key);
    }

    fn register(&mut self, target: Arc<Target>) {
        // It may have waited here for longer than anybody has asked for it.
        if target.is_forgotten() {
            return;
        }
        let now = self.clock.now();
        let key = group_key(&target);
        let of_set = self.by_set.entry(key.set.clone()).or_default();
        if of_set.sources.add(target.trigger.wake_source.clone()) {
            self.unfollowed.insert(key.set.clone());
        }
        if let Some(group) = self.groups.get_mut(&key) {
            group.join(target, now);
        } else {
            of_set.groups.push(key.clone());
            let mut group = Group::new(key.clone(), &mut self.wanted);
            group.join(target, now);
            // First what is wanted, then of whom: so nothing is asked twice.
            group.settle(&mut self.wanted, &mut self.scraper);
            group.observe(self.fleet.get(&key.set), now, &mut self.scraper);
            self.groups.insert(key.clone(), group);
        }
        self.dirty.insert(key);
    }

    fn discovered(&mut self, event: FleetEvent) {
        let now = self.clock.now();
        // One InferenceSet that changes says nothing of whether the pods are still heard of.
        if self.heard.is_none() || matches!(event, FleetEvent::Reset(_) | FleetEvent::Alive) {
            let before = self.heard.replace(now);
            if before.is_some_and(|before| now.saturating_since(before) >= WATCH_SILENCE) {
                self.groups.values_mut().for_each(Group::touch);
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
        let Some(of_set) = self.by_set.get(set) else { return };
        let observed = self.fleet.get(set);
        for key in &of_set.groups {
            if let Some(group) = self.groups.get_mut(key) {
                group.observe(observed, now, &mut self.scraper);
                group.touch();
                self.dirty.insert(key.clone());
            }
        }
        self.unfollowed.insert(set.clone());
    }

    /// Reads what would wake an InferenceSet that has targets: often while it has no replica,
    /// seldom else.
    fn follow_unfollowed(&mut self) {
        for set in std::mem::take(&mut self.unfollowed) {
            let observed = self.fleet.get(&set);
            let named = self.by_set.get(&set).into_iter().flat_map(|of_set| of_set.sources.iter());
            let readings = named.filter_map(|named| Reading::of(observed?, named.as_ref())).collect();
            let asleep = observed.is_some_and(|observed| observed.replicas == 0);
            for (source, plan) in self.gateways.follow(&set, readings, asleep) {
                self.scraper.apply_source(&source, plan);
            }
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
            for key in self.by_set.get(set).into_iter().flat_map(|of_set| &of_set.groups) {
                if let Some(group) = self.groups.get_mut(key) {
                    group.touch();
                    self.dirty.insert(key.clone());
                }
            }
        }
    }

    fn expire(&mut self) {
        let expired = self.targets.expire(self.clock.now());
        let touched: HashSet<GroupKey> = expired.iter().map(|target| group_key(target)).collect();
        for key in touched {
            let Some(group) = self.groups.get_mut(&key) else { continue };
            let Some(of_set) = self.by_set.get_mut(&key.set) else { continue };
            for target in group.leave(&mut self.scraper) {
                if of_set.sources.remove(&target.trigger.wake_source) {
                    self.unfollowed.insert(key.set.clone());
                }
            }
            if !group.is_empty() {
                self.dirty.insert(key);
                continue;
            }
            let phases = group.forget_phases();
            of_set.groups.retain(|other| *other != key);
            if of_set.groups.is_empty() {
                self.by_set.remove(&key.set);
            }
            self.groups.remove(&key);
            self.count_phases(phases);
            if let Some((_, timer)) = self.timers.remove(&key) {
                self.timer_queue.remove(&timer);
            }
        }
    }

    /// Has all targets of a group decided about.
    fn touch(&mut self, key: &GroupKey) {
        let Some(group) = self.groups.get_mut(key) else { return };
        group.touch();
        if !self.dirty.contains(key) {
            self.dirty.insert(key.clone());
        }
    }

    fn evaluate_dirty(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let now = self.clock.now();
            let Some(group) = self.groups.get_mut(&key) else { continue };
            group.settle(&mut self.wanted, &mut self.scraper);
            let evaluation = group.evaluate(now, self.heard, &self.gateways);
            #[cfg(test)]
            {
                self.decisions += evaluation.decisions;
            }
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

fn group_key(target: &Target) -> GroupKey {
    GroupKey { set: target.trigger.inference_set.clone(), page: Arc::new(target.trigger.page.clone()) }
}
