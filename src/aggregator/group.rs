//! The endpoints of one InferenceSet on one page, and the targets that read them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    gateway::{GatewayState, Gateways},
    union::Union,
};
use crate::{
    scrape::{ScrapeId, ScrapePlan, ScrapeReport},
    targets::Target,
    wake::SourcePlan,
};
use scaler_core::{
    config::trigger::PageSource,
    decision::{
        activation::Activation,
        evaluate::{self, Observed},
        push::{PushState, Wait},
        snapshot::{Snapshot, Unavailable},
        warning::{ToldStuck, Trouble},
    },
    endpoint::{
        pod::{Phase, Pod, WindowKey},
        staleness::staleness_limit,
    },
    fleet::{
        model::{InferenceSet, Readiness},
        shortage::Shortage,
    },
    names::{InferenceSetKey, PodUid},
    page::{SharedWanted, Wanted, usage::Misuse},
    time::Moment,
    wake::Source,
};

/// Which endpoints a target reads: two targets with the same key share every scrape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub set: InferenceSetKey,
    pub page: Arc<PageSource>,
}

/// Starts, changes and ends scrapes. The aggregator decides, and never waits for one.
pub trait Scraper: Send + 'static {
    /// Starts the scrapes of an endpoint, or changes what is read and how often.
    fn apply(&mut self, id: ScrapeId, plan: ScrapePlan);
    /// Ends them. An answer under way is no longer current.
    fn remove(&mut self, id: &ScrapeId);
    /// Whether a report comes from scrapes that have not been ended since.
    fn is_current(&self, report: &ScrapeReport) -> bool;
    /// Starts anew what has ended by itself. Called now and then.
    fn tend(&mut self);
    /// Starts the readings of a wake-up source, changes what is read and how often, or ends
    /// them.
    fn apply_source(&mut self, source: &Source, plan: Option<SourcePlan>);
}

/// One target in the hands of the aggregator.
#[derive(Debug)]
struct Member {
    target: Arc<Target>,
    activation: Activation,
    wait: Wait,
    told_stuck: ToldStuck,
    told_misuse: Option<Misuse>,
}

/// Endpoints that are scraped together, and the targets that read them. Owned by the
/// aggregator.
#[derive(Debug)]
pub(super) struct Group {
    key: GroupKey,
    set: Option<InferenceSet>,
    pods: Vec<Pod>,
    by_uid: HashMap<PodUid, usize>,
    members: Vec<Member>,
    /// How many of them, from the first on, have been decided about at least once.
    decided: usize,
    /// Something has changed since, which all of them are to be decided about anew for.
    changed: bool,
    union: Union,
    wanted: Arc<Wanted>,
    windows: Vec<WindowKey>,
    interval: Duration,
    shortage: Shortage,
    phases: [i64; Phase::ALL.len()],
    evaluated: Option<Moment>,
    /// When the newest sample was read that the next evaluation takes in.
    newest: Option<Moment>,
}

/// What one evaluation of a group changed.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    /// When to evaluate again, if nothing else happens.
    pub again_at: Option<Moment>,
    /// By how much the number of endpoints in each phase changed, in the order of
    /// [`Phase::ALL`].
    pub phases: [i64; Phase::ALL.len()],
    /// What is newly wrong, and with which target.
    pub troubles: Vec<(Arc<Target>, Trouble)>,
    /// How many targets were decided about.
    #[cfg(test)]
    pub decisions: usize,
}

/// Time between two evaluations of a group, for each of its endpoints and each of its targets: one
/// evaluation costs time in proportion to both, so a group of thousands is evaluated for a batch
/// of samples at once. Up to [`UNPACED`] of them every batch of samples is evaluated as it comes.
const PACE: Duration = Duration::from_micros(10);
const UNPACED: usize = 200;

impl Group {
    #[must_use]
    pub(super) fn new(key: GroupKey, shared: &mut SharedWanted) -> Self {
        Self {
            key,
            set: None,
            pods: Vec::new(),
            by_uid: HashMap::new(),
            members: Vec::new(),
            decided: 0,
            changed: true,
            union: Union::default(),
            wanted: shared.of([]),
            windows: Vec::new(),
            interval: Duration::from_secs(1),
            shortage: Shortage::default(),
            phases: [0; Phase::ALL.len()],
            evaluated: None,
            newest: None,
        }
    }

    #[must_use]
    pub(super) fn key(&self) -> &GroupKey {
        &self.key
    }

    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    #[must_use]
    pub(super) fn pods(&self) -> &[Pod] {
        &self.pods
    }

    #[must_use]
    pub(super) fn staleness(&self) -> Duration {
        staleness_limit(self.interval, self.key.page.timeout)
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.members.iter().map(|member| &member.target)
    }

    /// Takes a target in. What it wants is asked for with [`Group::settle`].
    pub(super) fn join(&mut self, target: Arc<Target>, now: Moment) {
        let activation = Activation::new(target.trigger.activation, now);
        self.union.add(&target.trigger);
        self.members.push(Member {
            target,
            activation,
            wait: Wait::default(),
            told_stuck: ToldStuck::default(),
            told_misuse: None,
        });
    }

    /// Lets the targets go that are forgotten, and gives them back. A group without targets is
    /// scraped no more.
    pub(super) fn leave(&mut self, scraper: &mut impl Scraper) -> Vec<Arc<Target>> {
        let before = self.decided;
        let mut index = 0;
        let is_gone = |member: &mut Member| {
            let is_gone = member.target.is_forgotten();
            self.decided -= usize::from(is_gone && index < before);
            index += 1;
            is_gone
        };
        let gone: Vec<_> = self.members.extract_if(.., is_gone).map(|member| member.target).collect();
        for target in &gone {
            self.union.remove(&target.trigger);
        }
        if self.members.is_empty() {
            for pod in &self.pods {
                scraper.remove(&self.scrape_id(&pod.endpoint.uid));
            }
        }
        gone
    }

    /// Has the pages read for what all targets together want by now.
    pub(super) fn settle(&mut self, shared: &mut SharedWanted, scraper: &mut impl Scraper) {
        if self.members.is_empty() || !self.union.take_changed() {
            return;
        }
        let wanted = shared.of(self.union.metrics().cloned());
        if wanted != self.wanted {
            self.wanted = wanted;
            // They have to be asked again before it can be said what they lack.
            self.pods.iter_mut().for_each(Pod::ask_again);
        }
        let interval = self.union.interval().unwrap_or(self.interval);
        // For how long a sample speaks changes with it; what else is wanted shows in the next sample.
        self.changed |= interval != self.interval;
        self.interval = interval;
        self.windows = self.union.windows();
        for pod in &mut self.pods {
            pod.keep_windows(&self.windows);
        }
        for index in 0..self.pods.len() {
            self.schedule(index, scraper);
        }
    }

    /// All targets are to be decided about anew.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    fn scrape_id(&self, uid: &PodUid) -> ScrapeId {
        ScrapeId { set: self.key.set.clone(), uid: uid.clone(), page: self.key.page.clone() }
    }

    fn schedule(&self, index: usize, scraper: &mut impl Scraper) {
        let endpoint = &self.pods[index].endpoint;
        let id = self.scrape_id(&endpoint.uid);
        match endpoint.address {
            Some(mut address) if endpoint.readiness != Readiness::Terminating => {
                if let Some(port) = self.key.page.port {
                    address.set_port(port);
                }
                let plan = ScrapePlan {
                    address,
                    wanted: self.wanted.clone(),
                    interval: self.interval,
                    timeout: self.key.page.timeout,
                    ready: endpoint.readiness == Readiness::Ready,
                };
                scraper.apply(id, plan);
            }
            _ => scraper.remove(&id),
        }
    }

    /// Takes in what discovery says of the InferenceSet; `None` where it is gone. Samples of
    /// pods that stay are kept.
    pub(super) fn observe(&mut self, set: Option<&InferenceSet>, now: Moment, scraper: &mut impl Scraper) {
        let endpoints = set.map_or(&[][..], |set| &set.endpoints);
        let mut before: HashMap<PodUid, Pod> =
            self.pods.drain(..).map(|pod| (pod.endpoint.uid.clone(), pod)).collect();
        self.by_uid.clear();
        for endpoint in endpoints {
            if self.by_uid.contains_key(&endpoint.uid) {
                continue;
            }
            let index = self.pods.len();
            self.by_uid.insert(endpoint.uid.clone(), index);
            let (pod, changed) = match before.remove(&endpoint.uid) {
                Some(mut pod) => {
                    let changed = pod.endpoint != *endpoint;
                    pod.endpoint = endpoint.clone();
                    (pod, changed)
                }
                None => {
                    let mut pod = Pod::new(endpoint.clone());
                    pod.keep_windows(&self.windows);
                    (pod, true)
                }
            };
            self.pods.push(pod);
            if changed {
                self.schedule(index, scraper);
            }
        }
        for uid in before.keys() {
            scraper.remove(&self.scrape_id(uid));
        }
        let living = self.pods.iter().filter(|pod| pod.endpoint.readiness != Readiness::Terminating).count();
        self.shortage.follow(set.map_or(0, |set| set.replicas), living, now);
        self.set = set.cloned();
    }

    /// Takes in a scrape. False where the endpoint is no longer one of ours.
    pub(super) fn scraped(&mut self, report: ScrapeReport) -> bool {
        let staleness = self.staleness();
        self.newest = self.newest.max(Some(report.at));
        let index = self.by_uid.get(&report.id.uid);
        let Some(pod) = index.and_then(|index| self.pods.get_mut(*index)) else {
            return false;
        };
        // A page that was read for fewer metrics can't speak for the new ones.
        if report.wanted != self.wanted {
            return true;
        }
        match report.outcome {
            Ok(scraped) => {
                pod.speak_for(staleness);
                pod.sampled(report.at, scraped.page, scraped.sample);
            }
            Err(error) => pod.failed(error.to_string().into()),
        }
        true
    }

    /// When all targets may be decided about: at once, but for groups of many endpoints and
    /// targets.
    #[must_use]
    fn due(&self, now: Moment) -> Moment {
        let work = self.pods.len().max(1).saturating_mul(self.members.len());
        if work <= UNPACED {
            return now;
        }
        let pace = PACE.saturating_mul(u32::try_from(work).unwrap_or(u32::MAX));
        self.evaluated.map_or(now, |last| (last + pace).max(now))
    }

    /// Decides about the targets that have just joined, and about every other where something has
    /// changed and it is [due](Self::due). Publishes the decisions.
    ///
    /// `heard`: when discovery was last heard from, `None` before its first word.
    pub(super) fn evaluate(&mut self, now: Moment, heard: Option<Moment>, gateways: &Gateways) -> Evaluation {
        let (due, staleness) = (self.due(now), self.staleness());
        let mut evaluation = Evaluation::default();
        let mut newest = None;
        let first = if self.changed && due <= now {
            self.changed = false;
            self.evaluated = Some(now);
            newest = self.newest.take();
            self.count_phases(now, &mut evaluation);
            0
        } else {
            evaluation.again_at = self.changed.then_some(due);
            self.decided
        };
        self.decided = self.members.len();
        let members = &mut self.members[first..];
        #[cfg(test)]
        {
            evaluation.decisions = members.len();
        }
        let Some((set, heard)) = self.set.as_ref().zip(heard) else {
            let why = if heard.is_some() { Unavailable::NoInferenceSet } else { Unavailable::NotSynced };
            for member in members {
                let snapshot = Snapshot::unknown(now, member.target.specs.len(), &why);
                member.target.publish(Arc::new(snapshot), PushState::default());
                if heard.is_some() {
                    member.target.complete_first_round();
                }
            }
            return evaluation;
        };
        let mut observed = Observed {
            set,
            pods: &self.pods,
            missing: self.shortage.missing(),
            staleness,
            gateway: None,
            heard,
        };
        let asleep = set.replicas == 0;
        let pods_tried = self.pods.iter().all(Pod::was_tried);
        for member in members {
            let trigger = &member.target.trigger;
            // Two triggers may name different sources.
            let gateway = gateways.of(set, trigger.wake_source.as_ref());
            observed.gateway = gateway.and_then(|gateway| gateway.demand(now));
            // With replicas the gateway adds little to what is known, and may be slow.
            let tried = pods_tried && (!asleep || gateway.is_none_or(GatewayState::was_tried));
            let newest = newest.max(gateway.and_then(GatewayState::newest));
            let snapshot = evaluate::evaluate(trigger, &observed, &mut member.activation, now);
            let again_at = evaluate::next_change(trigger, &observed, &member.activation, now);
            if member.wait.follow(now, snapshot.activity, snapshot.replicas, trigger.wake_replicas) {
                evaluation.troubles.push((member.target.clone(), Trouble::WakeNotHonoured));
            }
            // Where nothing is ever waited for, every start would be a trouble.
            if snapshot.stuck == 0 || trigger.in_flight_deadline.is_zero() {
                member.told_stuck.clear();
            } else {
                let stuck = evaluate::stuck(trigger, &observed, now);
                if member.told_stuck.follow(&stuck) {
                    evaluation.troubles.push((member.target.clone(), Trouble::ReplicaStuck(stuck)));
                }
            }
            if let Some(misuse) = snapshot.misuse()
                && member.told_misuse.as_ref() != Some(misuse)
            {
                member.told_misuse = Some(misuse.clone());
                evaluation.troubles.push((member.target.clone(), Trouble::MetricMisused(misuse.clone())));
            }
            evaluation.again_at =
                [evaluation.again_at, again_at, member.wait.due()].into_iter().flatten().min();
            member.publish(snapshot, newest);
            if tried {
                member.target.complete_first_round();
            }
        }
        evaluation
    }

    /// Takes the group's endpoints out of the counts by phase.
    pub(super) fn forget_phases(&mut self) -> [i64; Phase::ALL.len()] {
        std::mem::take(&mut self.phases).map(|count| -count)
    }

    fn count_phases(&mut self, now: Moment, evaluation: &mut Evaluation) {
        let staleness = self.staleness();
        let mut phases = [0; Phase::ALL.len()];
        for pod in &self.pods {
            phases[pod.phase(now, staleness) as usize] += 1;
        }
        for (change, (new, old)) in evaluation.phases.iter_mut().zip(phases.iter().zip(self.phases)) {
            *change = new - old;
        }
        self.phases = phases;
    }
}

impl Member {
    fn publish(&self, snapshot: Snapshot, newest: Option<Moment>) {
        let push = PushState {
            active: snapshot.activity.is_active(),
            edge: self.activation.edges(),
            replicas: snapshot.replicas.unwrap_or(0),
            unanswered: self.wait.is_on(),
            settled: snapshot.census.known > 0 && snapshot.census.in_flight == 0,
            sampled: newest,
        };
        self.target.publish(Arc::new(snapshot), push);
    }
}
