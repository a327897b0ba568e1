//! What wake-up sources were last heard to say, and who reads which.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    core::{
        fleet::InferenceSet,
        gateway::GatewaySample,
        names::InferenceSetKey,
        pod::REJECTION_SPAN,
        sample::Histogram,
        staleness::staleness_limit,
        time::Moment,
        trigger::WakeSource,
        wake::{Fault, Reading, Source},
        window::Window,
    },
    wake::{SourcePlan, SourceReport, TIMEOUT},
};

/// Every source that is read, by whom, and what it says.
#[derive(Debug, Default)]
pub struct Gateways {
    by_set: HashMap<InferenceSetKey, Readings>,
    sources: HashMap<Source, Readers>,
}

/// What is read for one InferenceSet.
#[derive(Debug, Default, PartialEq)]
struct Readings {
    readings: BTreeSet<Reading>,
    asleep: bool,
}

/// Who reads one source.
#[derive(Debug, Default)]
struct Readers {
    /// By pool.
    states: BTreeMap<Arc<str>, GatewayState>,
    sets: HashSet<InferenceSetKey>,
    asleep: HashSet<InferenceSetKey>,
}

impl Readers {
    fn plan(&self) -> Option<SourcePlan> {
        let pools: Arc<[_]> = self.states.keys().cloned().collect();
        (!pools.is_empty()).then_some(SourcePlan { pools, asleep: !self.asleep.is_empty() })
    }
}

impl Gateways {
    /// Reads `readings` for a set from now on, and no others. Gives back what that changes for
    /// the sources.
    pub fn follow(
        &mut self,
        set: &InferenceSetKey,
        readings: BTreeSet<Reading>,
        asleep: bool,
    ) -> Vec<(Source, Option<SourcePlan>)> {
        let now = Readings { readings, asleep };
        let before = self.by_set.get(set);
        if before.unwrap_or(&Readings::default()) == &now {
            return Vec::new();
        }
        let before = self.by_set.remove(set).unwrap_or_default();
        let touched: BTreeSet<_> =
            before.readings.union(&now.readings).map(|reading| reading.source.clone()).collect();
        for reading in &now.readings {
            let readers = self.sources.entry(reading.source.clone()).or_default();
            readers.states.entry(reading.pool.clone()).or_default();
        }
        if !now.readings.is_empty() {
            self.by_set.insert(set.clone(), now);
        }
        touched.into_iter().map(|source| (source.clone(), self.settle(&source, set))).collect()
    }

    /// Brings a source in line with what `set` reads now. `None` where nobody reads it.
    fn settle(&mut self, source: &Source, set: &InferenceSetKey) -> Option<SourcePlan> {
        let readers = self.sources.get_mut(source)?;
        let mine = self.by_set.get(set).filter(|mine| reads(mine, source));
        match mine {
            Some(_) => readers.sets.insert(set.clone()),
            None => readers.sets.remove(set),
        };
        match mine {
            Some(Readings { asleep: true, .. }) => readers.asleep.insert(set.clone()),
            _ => readers.asleep.remove(set),
        };
        let (by_set, sets) = (&self.by_set, &readers.sets);
        let is_read = |pool: &Arc<str>| {
            let mut readings = sets.iter().filter_map(|set| by_set.get(set)).flat_map(|mine| &mine.readings);
            readings.any(|reading| reading.source == *source && reading.pool == *pool)
        };
        readers.states.retain(|pool, _| is_read(pool));
        let plan = readers.plan();
        if plan.is_none() {
            self.sources.remove(source);
        }
        plan
    }

    /// Takes in what came of a reading. Gives back for whom it was.
    pub fn take(&mut self, report: SourceReport) -> impl Iterator<Item = &InferenceSetKey> {
        let readers = self.sources.get_mut(&report.source);
        if let Some(readers) = readers {
            match report.outcome {
                Ok(samples) => {
                    for (pool, sample) in samples {
                        if let Some(state) = readers.states.get_mut(&pool) {
                            state.staleness = staleness_limit(report.interval, TIMEOUT);
                            state.sampled(report.at, Ok(sample));
                        }
                    }
                }
                Err(why) => {
                    for state in readers.states.values_mut() {
                        state.sampled(report.at, Err(why.clone()));
                    }
                }
            }
        }
        self.sources.get(&report.source).into_iter().flat_map(|readers| &readers.sets)
    }

    /// What is read for `set` where its user has `named` a source; `None` where nothing is.
    #[must_use]
    pub fn of(&self, set: &InferenceSet, named: Option<&WakeSource>) -> Option<&GatewayState> {
        let reading = Reading::of(set, named)?;
        self.sources.get(&reading.source)?.states.get(&reading.pool)
    }
}

fn reads(mine: &Readings, source: &Source) -> bool {
    mine.readings.iter().any(|reading| reading.source == *source)
}

/// What one pool's series on one page say. Nothing is known before the first reading.
#[derive(Debug)]
pub struct GatewayState {
    latest: Option<(Moment, GatewaySample)>,
    refusals: Window,
    fault: Option<Fault>,
    /// A reading of it has ended.
    tried: bool,
    staleness: Duration,
}

impl Default for GatewayState {
    fn default() -> Self {
        Self {
            latest: None,
            refusals: Window::new(REJECTION_SPAN),
            fault: None,
            tried: false,
            staleness: Duration::ZERO,
        }
    }
}

impl GatewayState {
    fn sampled(&mut self, at: Moment, outcome: Result<GatewaySample, Fault>) {
        self.tried = true;
        match outcome {
            Ok(sample) => {
                let refused = Histogram { count: sample.refused_total, ..Histogram::default() };
                self.refusals.push(at, &refused);
                self.latest = Some((at, sample));
                self.fault = None;
            }
            Err(fault) => self.fault = Some(fault),
        }
    }

    /// Requests held, and refused over the last 30 s; `None` where that is unknown.
    #[must_use]
    pub fn demand(&self, now: Moment) -> Option<f64> {
        let (at, sample) = self.latest?;
        if now.saturating_since(at) >= self.staleness {
            return None;
        }
        let refused = self.refusals.delta().map_or(0.0, |delta| delta.increase.count);
        Some(sample.queued.unwrap_or(0.0) + refused)
    }

    /// When the newest sample was read.
    #[must_use]
    pub fn newest(&self) -> Option<Moment> {
        self.latest.map(|(at, _)| at)
    }

    #[must_use]
    pub fn was_tried(&self) -> bool {
        self.tried
    }

    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }
}
