//! What wake-up sources were last heard to say, and who reads which.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::wake::{SourcePlan, SourceReport, TIMEOUT};
use scaler_core::{
    config::trigger::WakeSource,
    endpoint::{pod::REJECTION_SPAN, staleness::staleness_limit, window::Window},
    fleet::model::InferenceSet,
    names::InferenceSetKey,
    page::{picker::GatewaySample, sample::Histogram},
    time::Moment,
    wake::{Fault, Reading, Source},
};

/// Every source that is read, by whom, and what it says.
#[derive(Debug, Default)]
pub(super) struct Gateways {
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
    pub(super) fn follow(
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
    pub(super) fn take(&mut self, report: SourceReport) -> impl Iterator<Item = &InferenceSetKey> {
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
    pub(super) fn of(&self, set: &InferenceSet, named: Option<&WakeSource>) -> Option<&GatewayState> {
        let reading = Reading::of(set, named)?;
        self.sources.get(&reading.source)?.states.get(&reading.pool)
    }
}

fn reads(mine: &Readings, source: &Source) -> bool {
    mine.readings.iter().any(|reading| reading.source == *source)
}

/// What one pool's series on one page say. Nothing is known before the first reading.
#[derive(Debug)]
pub(super) struct GatewayState {
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
    pub(super) fn demand(&self, now: Moment) -> Option<f64> {
        let (at, sample) = self.latest?;
        if now.saturating_since(at) >= self.staleness {
            return None;
        }
        let refused = self.refusals.delta().map_or(0.0, |delta| delta.increase.count);
        Some(sample.queued.unwrap_or(0.0) + refused)
    }

    /// When the newest sample was read.
    #[must_use]
    pub(super) fn newest(&self) -> Option<Moment> {
        self.latest.map(|(at, _)| at)
    }

    #[must_use]
    pub(super) fn was_tried(&self) -> bool {
        self.tried
    }

    #[must_use]
    pub(super) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scaler_core::fleet::model::Gateway;

    const AT: Moment = Moment::from_unix(Duration::from_secs(1_000));

    fn set(name: &str, pool: &str) -> InferenceSet {
        InferenceSet {
            key: InferenceSetKey::new("team-a", name),
            replicas: 0,
            ready_replicas: 0,
            endpoints: Vec::new(),
            gateway: Some(Gateway {
                pool: pool.into(),
                picker: Some(Source::picker(&"team-a".into(), "chat-inferencepool")),
            }),
        }
    }

    /// What changes for sources: the name, and the plan's pools, with `!` where one sleeps.
    fn follow(
        gateways: &mut Gateways,
        set: &InferenceSet,
        named: &[Option<&WakeSource>],
        asleep: bool,
    ) -> Vec<String> {
        let readings = named.iter().filter_map(|named| Reading::of(set, *named)).collect();
        let plan =
            |plan: SourcePlan| format!("{}{}", plan.pools.join("+"), if plan.asleep { "!" } else { "" });
        let changes = gateways.follow(&set.key, readings, asleep).into_iter();
        let changes = changes.map(|(source, to)| {
            let name = &source.service().unwrap().service.name;
            format!("{name} {}", to.map_or("-".to_owned(), plan))
        });
        changes.collect()
    }

    fn says(gateways: &mut Gateways, source: Source, samples: &[(&str, f64)]) -> BTreeSet<String> {
        let samples = samples.iter().map(|(pool, queued)| {
            ((*pool).into(), GatewaySample { queued: Some(*queued), refused_total: 0.0 })
        });
        let interval = Duration::from_millis(100);
        let report = SourceReport { source, at: AT, interval, outcome: Ok(samples.collect()) };
        gateways.take(report).map(|set| set.name.to_string()).collect()
    }

    #[test]
    fn roles_share_a_source_which_is_read_often_while_one_sleeps() {
        let (prefill, decode) = (set("chat-prefill", "chat"), set("chat-decode", "chat"));
        let other = set("other", "other");
        let mut gateways = Gateways::default();
        let none = [None];
        let picker = "chat-inferencepool-epp";
        let one = |plan: &str| [format!("{picker} {plan}")];
        assert_eq!(follow(&mut gateways, &prefill, &none, false), one("chat"));
        assert_eq!(follow(&mut gateways, &decode, &none, true), one("chat!"));
        assert_eq!(follow(&mut gateways, &decode, &none, true), [""; 0], "no change");
        assert_eq!(follow(&mut gateways, &other, &none, false), one("chat+other!"));
        let source = Source::picker(&"team-a".into(), "chat-inferencepool");
        let heard = says(&mut gateways, source, &[("chat", 3.0), ("other", 0.0)]);
        assert_eq!(heard, ["chat-decode", "chat-prefill", "other"].map(str::to_owned).into());
        let demand = |gateways: &Gateways, set| gateways.of(set, None).unwrap().demand(AT);
        assert_eq!((demand(&gateways, &decode), demand(&gateways, &other)), (Some(3.0), Some(0.0)));
        assert_eq!(gateways.of(&decode, None).unwrap().demand(AT + Duration::from_secs(6)), None, "too old");
        assert_eq!(follow(&mut gateways, &decode, &none, false), one("chat+other"));
        assert_eq!(follow(&mut gateways, &other, &[], false), one("chat"));
        assert_eq!(follow(&mut gateways, &decode, &[], false), one("chat"));
        assert_eq!(follow(&mut gateways, &prefill, &[], false), one("-"));
        assert!(gateways.of(&prefill, None).is_none());
    }

    #[test]
    fn triggers_of_one_set_may_name_sources_of_their_own() {
        let (demo, epp) = (set("demo", "demo"), WakeSource::parse("epp:80").unwrap());
        let mut gateways = Gateways::default();
        let changes = follow(&mut gateways, &demo, &[None, Some(&epp), Some(&epp)], true);
        assert_eq!(changes, ["chat-inferencepool-epp demo!", "epp demo!"]);
        says(&mut gateways, Source::named(&"team-a".into(), &epp), &[("demo", 2.0)]);
        assert_eq!(gateways.of(&demo, Some(&epp)).unwrap().demand(AT), Some(2.0));
        assert_eq!(gateways.of(&demo, None).unwrap().demand(AT), None, "the other says nothing yet");
        assert_eq!(
            follow(&mut gateways, &demo, &[Some(&epp)], true),
            ["chat-inferencepool-epp -", "epp demo!"]
        );
    }
}
