//! The endpoints of one InferenceSet on one page, and the targets that read them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::gateway::Gateways;
use crate::{
    scrape::{ScrapeId, ScrapePlan, ScrapeReport},
    targets::Target,
    wake::SourcePlan,
};
use scaler_core::{
    config::trigger::{PageSource, Trigger},
    decision::{
        activation::Activation,
        evaluate::{self, Observed},
        push::{PushState, Wait},
        snapshot::{Snapshot, Unavailable},
        warning::{ToldPods, Trouble},
    },
    endpoint::{
        pod::{Phase, Pod, WindowKey},
        staleness::staleness_limit,
        traffic::{self, Reached, RecordLine, TrafficMeter},
    },
    fleet::{
        model::{InferenceSet, Readiness},
        shortage::Shortage,
    },
    names::{InferenceSetKey, PodUid},
    page::{SharedWanted, Wanted, usage::Misuse},
    time::Moment,
    wake::{Source, SourceState},
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
    told_stuck: ToldPods,
    told_stalled: ToldPods,
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
    wanted: Arc<Wanted>,
    windows: Vec<WindowKey>,
    interval: Duration,
    shortage: Shortage,
    phases: [i64; Phase::ALL.len()],
    evaluated: Option<Moment>,
    /// When the newest sample was read that the next evaluation takes in.
    newest: Option<Moment>,
    /// What is recorded of the traffic, where it is.
    meter: Option<TrafficMeter>,
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
}

/// Time between two evaluations of a group, for each of its endpoints: one evaluation costs
/// time in proportion to them, so a group of thousands is evaluated for a batch of samples
/// at once. Up to [`UNPACED`] endpoints every batch of samples is evaluated as it comes.
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
            wanted: shared.of([]),
            windows: Vec::new(),
            interval: Duration::from_secs(1),
            shortage: Shortage::default(),
            phases: [0; Phase::ALL.len()],
            evaluated: None,
            newest: None,
            meter: None,
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

    /// Takes a target in.
    pub(super) fn join(
        &mut self,
        target: Arc<Target>,
        now: Moment,
        shared: &mut SharedWanted,
        scraper: &mut impl Scraper,
    ) {
        let activation = Activation::new(target.trigger.activation, now);
        self.members.push(Member {
            target,
            activation,
            wait: Wait::default(),
            told_stuck: ToldPods::default(),
            told_stalled: ToldPods::default(),
            told_misuse: None,
        });
        self.want(shared, scraper);
    }

    /// Lets a target go. A group without targets is scraped no more.
    pub(super) fn leave(
        &mut self,
        target: &Arc<Target>,
        shared: &mut SharedWanted,
        scraper: &mut impl Scraper,
    ) {
        self.members.retain(|member| !Arc::ptr_eq(&member.target, target));
        if self.members.is_empty() {
            for pod in &self.pods {
                scraper.remove(&self.scrape_id(&pod.endpoint.uid));
            }
        } else {
            self.want(shared, scraper);
        }
    }

    /// Recomputes what all targets together want of each page.
    fn want(&mut self, shared: &mut SharedWanted, scraper: &mut impl Scraper) {
        let triggers = || self.members.iter().map(|member| &member.target.trigger);
        let recorded = self.meter.iter().flat_map(|_| traffic::wanted());
        let wanted = shared.of(triggers().flat_map(Trigger::wanted_metrics).chain(recorded));
        if wanted != self.wanted {
            self.wanted = wanted;
            // They have to be asked again before it can be said what they lack.
            self.pods.iter_mut().for_each(Pod::ask_again);
        }
        self.interval = triggers().map(|t| t.scrape_interval).min().unwrap_or(self.interval);
        self.windows.clear();
        for key in triggers().flat_map(WindowKey::of) {
            if !self.windows.contains(&key) {
                self.windows.push(key);
            }
        }
        for pod in &mut self.pods {
            pod.keep_windows(&self.windows);
        }
        for index in 0..self.pods.len() {
            self.schedule(index, scraper);
        }
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
                if let Some(meter) = &mut self.meter {
                    meter.sampled(&report.id.uid, pod.endpoint.since, &scraped.sample);
                }
                pod.sampled(report.at, scraped.page, scraped.sample);
            }
            Err(error) => pod.failed(error.to_string().into()),
        }
        true
    }

    /// When the group may be evaluated: at once, but for groups of many endpoints.
    #[must_use]
    pub(super) fn due(&self, now: Moment) -> Moment {
        if self.pods.len() <= UNPACED {
            return now;
        }
        let pace = PACE * u32::try_from(self.pods.len()).unwrap_or(u32::MAX);
        self.evaluated.map_or(now, |last| (last + pace).max(now))
    }

    /// Decides about every target of the group and publishes the decisions.
    ///
    /// `heard`: when discovery was last heard from, `None` before its first word.
    pub(super) fn evaluate(&mut self, now: Moment, heard: Option<Moment>, gateways: &Gateways) -> Evaluation {
        self.evaluated = Some(now);
        let newest = self.newest.take();
        let mut evaluation = Evaluation::default();
        self.count_phases(now, &mut evaluation);
        let Some((set, heard)) = self.set.as_ref().zip(heard) else {
            let why = if heard.is_some() { Unavailable::NoInferenceSet } else { Unavailable::NotSynced };
            for member in &mut self.members {
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
            staleness: self.staleness(),
            gateway: None,
            heard,
        };
        let asleep = set.replicas == 0;
        let pods_tried = self.pods.iter().all(Pod::was_tried);
        for member in &mut self.members {
            let trigger = &member.target.trigger;
            // Two triggers may name different sources.
            let gateway = gateways.of(set, trigger.wake_source.as_ref());
            observed.gateway = gateway.and_then(|gateway| gateway.demand(now));
            // With replicas the gateway adds little to what is known, and may be slow.
            let tried = pods_tried && (!asleep || gateway.is_none_or(SourceState::was_tried));
            let newest = newest.max(gateway.and_then(SourceState::newest));
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
                if member.told_stuck.follow_stuck(&stuck) {
                    evaluation.troubles.push((member.target.clone(), Trouble::ReplicaStuck(stuck)));
                }
            }
            if snapshot.stalled == 0 {
                member.told_stalled.clear();
            } else {
                let stalled = evaluate::stalled(trigger, &observed, now);
                if member.told_stalled.follow_stalled(&stalled) {
                    evaluation.troubles.push((member.target.clone(), Trouble::EngineStalled(stalled)));
                }
            }
            if let Some(misuse) = snapshot.misuse()
                && member.told_misuse.as_ref() != Some(misuse)
            {
                member.told_misuse = Some(misuse.clone());
                evaluation.troubles.push((member.target.clone(), Trouble::MetricMisused(misuse.clone())));
            }
            evaluation.again_at = [
                evaluation.again_at,
                again_at,
                member.wait.due(),
                gateway.and_then(|gateway| gateway.next_change(now)),
            ]
            .into_iter()
            .flatten()
            .min();
            member.publish(snapshot, newest);
            if tried {
                member.target.complete_first_round();
            }
        }
        evaluation
    }

    /// Records the traffic from now on.
    pub(super) fn record(&mut self, now: Moment, shared: &mut SharedWanted, scraper: &mut impl Scraper) {
        if self.meter.is_none() {
            self.meter = Some(TrafficMeter::new(now));
            self.want(shared, scraper);
        }
    }

    /// Ends a minute of the record: a line for each ScaledObject. Empty where nothing is
    /// recorded or nothing is known of the InferenceSet.
    pub(super) fn end_minute(&mut self, now: Moment, gateways: &Gateways) -> Vec<RecordLine> {
        let staleness = self.staleness();
        let (Some(meter), Some(set)) = (&mut self.meter, &self.set) else { return Vec::new() };
        let phases = || self.pods.iter().map(|pod| pod.phase(now, staleness));
        let reached = Reached {
            replicas: set.replicas,
            known: phases().filter(|phase| matches!(phase, Phase::Serving | Phase::Sleeping)).count(),
            unknown: phases().filter(|phase| *phase == Phase::Stale).count(),
        };
        let named = self.members.iter().find_map(|member| member.target.trigger.wake_source.as_ref());
        meter.gateway(
            gateways.of(set, named).and_then(|gateway| gateway.demand(now)).map(|demand| demand.amount()),
        );
        let traffic = meter.end_minute(now, reached, |uid| self.by_uid.contains_key(uid));
        let mut lines: Vec<RecordLine> = Vec::new();
        for Member { target, .. } in &self.members {
            let same = |line: &RecordLine| {
                line.namespace == target.namespace && line.scaled_object == target.scaled_object
            };
            let index = lines.iter().position(same).unwrap_or_else(|| {
                lines.push(RecordLine {
                    namespace: target.namespace.clone(),
                    scaled_object: target.scaled_object.clone(),
                    traffic,
                    replicas: Some(set.replicas),
                    values: Vec::new(),
                });
                lines.len() - 1
            });
            let snapshot = target.snapshot();
            let values = target.specs.iter().zip(&snapshot.values);
            let values = values.map(|(spec, value)| {
                (spec.name.as_str().into(), value.as_ref().ok().map(|value| value.number()))
            });
            lines[index].values.extend(values);
        }
        lines
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
