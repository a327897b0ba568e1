//! Who reads which wake source, and what is known of each.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::wake::{EndpointReading, SourceNews, SourcePlan, SourceReport, TIMEOUT};
use scaler_core::{
    config::trigger::WakeSource,
    endpoint::staleness::staleness_limit,
    fleet::model::InferenceSet,
    names::InferenceSetKey,
    wake::{Fault, Reading, Source, SourceState},
};

/// Every source that is read, by whom, and what it says.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    by_set: HashMap<InferenceSetKey, Readings>,
    sources: HashMap<Source, Readers>,
}

/// What is read for one InferenceSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Readings {
    pub of: BTreeSet<Reading>,
    pub asleep: bool,
    /// How often its replicas are scraped.
    pub interval: Duration,
}

/// Who reads one source.
#[derive(Debug, Default)]
struct Readers {
    /// Where it answers; `None` before that was told.
    found: Option<Result<Arc<[SocketAddr]>, Fault>>,
    pools: BTreeMap<Arc<str>, Pool>,
    /// How many of its readers sleep.
    asleep: usize,
    /// The intervals of its readers, and how many have each.
    intervals: BTreeMap<Duration, usize>,
}

/// One pool's series on the pages of a source.
#[derive(Debug, Default)]
struct Pool {
    state: SourceState,
    readers: HashSet<InferenceSetKey>,
}

impl Readers {
    fn add(&mut self, pool: &Arc<str>, set: &InferenceSetKey, mine: &Readings) {
        let found = &self.found;
        let pool = self.pools.entry(pool.clone()).or_insert_with(|| {
            let mut pool = Pool::default();
            if let Some(found) = found {
                pool.state.found(found.as_deref());
            }
            pool
        });
        pool.readers.insert(set.clone());
        self.asleep += usize::from(mine.asleep);
        *self.intervals.entry(mine.interval).or_default() += 1;
    }

    /// Takes a reader out. What was read for it is kept until [`Self::plan`].
    fn remove(&mut self, pool: &Arc<str>, set: &InferenceSetKey, mine: &Readings) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.readers.remove(set);
        }
        self.asleep -= usize::from(mine.asleep);
        if let Some(count) = self.intervals.get_mut(&mine.interval) {
            *count -= 1;
            if *count == 0 {
                self.intervals.remove(&mine.interval);
            }
        }
    }

    /// What is to be read; `None` where nobody reads it any more.
    fn plan(&mut self) -> Option<SourcePlan> {
        self.pools.retain(|_, pool| !pool.readers.is_empty());
        let interval = *self.intervals.keys().next()?;
        let pools = self.pools.keys().cloned().collect();
        Some(SourcePlan { pools, asleep: self.asleep > 0, interval })
    }
}

impl Gateways {
    /// Reads `mine` for a set from now on, and nothing else. Gives back what that changes for
    /// the sources.
    pub(super) fn follow(
        &mut self,
        set: &InferenceSetKey,
        mine: Readings,
    ) -> Vec<(Source, Option<SourcePlan>)> {
        let before = self.by_set.get(set);
        if before.map_or(mine.of.is_empty(), |before| *before == mine) {
            return Vec::new();
        }
        let before = self.by_set.remove(set);
        let mut touched = BTreeSet::new();
        if let Some(before) = &before {
            for reading in &before.of {
                touched.insert(reading.source.clone());
                if let Some(readers) = self.sources.get_mut(&reading.source) {
                    readers.remove(&reading.pool, set, before);
                }
            }
        }
        for reading in &mine.of {
            touched.insert(reading.source.clone());
            self.sources.entry(reading.source.clone()).or_default().add(&reading.pool, set, &mine);
        }
        if !mine.of.is_empty() {
            self.by_set.insert(set.clone(), mine);
        }
        touched
            .into_iter()
            .map(|source| {
                let plan = self.sources.get_mut(&source).and_then(Readers::plan);
                if plan.is_none() {
                    self.sources.remove(&source);
                }
                (source, plan)
            })
            .collect()
    }

    /// Takes in what became known of a source. Gives back for whom that is news.
    pub(super) fn take(&mut self, report: SourceReport) -> Vec<InferenceSetKey> {
        let Some(readers) = self.sources.get_mut(&report.source) else { return Vec::new() };
        let mut heard = Vec::new();
        match report.news {
            SourceNews::Found(found) => {
                for pool in readers.pools.values_mut() {
                    pool.state.found(found.as_deref());
                    heard.extend(pool.readers.iter().cloned());
                }
                readers.found = Some(found);
            }
            SourceNews::Read(EndpointReading { endpoint, at, interval, outcome }) => {
                let staleness = staleness_limit(interval, TIMEOUT);
                let mut sampled = |pool: &mut Pool, outcome| {
                    if pool.state.sampled(endpoint, at, staleness, outcome) {
                        heard.extend(pool.readers.iter().cloned());
                    }
                };
                match outcome {
                    Ok(samples) => {
                        for (name, sample) in samples {
                            if let Some(pool) = readers.pools.get_mut(&name) {
                                sampled(pool, Ok(sample));
                            }
                        }
                    }
                    Err(why) => readers.pools.values_mut().for_each(|pool| sampled(pool, Err(why.clone()))),
                }
            }
        }
        heard
    }

    /// What is read for `set` where its user has `named` a source; `None` where nothing is.
    #[must_use]
    pub(super) fn of(&self, set: &InferenceSet, named: Option<&WakeSource>) -> Option<&SourceState> {
        let reading = Reading::of(set, named)?;
        Some(&self.sources.get(&reading.source)?.pools.get(&reading.pool)?.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scaler_core::{fleet::model::Gateway, page::picker::GatewaySample, time::Moment};

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

    const INTERVAL: Duration = Duration::from_secs(1);

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
        let mine = Readings { of: readings, asleep, interval: INTERVAL };
        let changes = gateways.follow(&set.key, mine).into_iter();
        let changes = changes.map(|(source, to)| {
            let name = &source.service().unwrap().service.name;
            format!("{name} {}", to.map_or("-".to_owned(), plan))
        });
        changes.collect()
    }

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 9090))
    }

    /// The source has these endpoints. For whom that is news.
    fn find(gateways: &mut Gateways, source: &Source, endpoints: &[u8]) -> BTreeSet<String> {
        let found = Ok(endpoints.iter().map(|last| endpoint(*last)).collect());
        take(gateways, source, SourceNews::Found(found))
    }

    /// An endpoint of the source says this of each pool. For whom that is news.
    fn says(gateways: &mut Gateways, source: &Source, last: u8, samples: &[(&str, f64)]) -> BTreeSet<String> {
        let samples = samples.iter().map(|(pool, queued)| {
            ((*pool).into(), GatewaySample { queued: Some(*queued), ..GatewaySample::default() })
        });
        let (interval, outcome) = (Duration::from_millis(100), Ok(samples.collect()));
        take(
            gateways,
            source,
            SourceNews::Read(EndpointReading { endpoint: endpoint(last), at: AT, interval, outcome }),
        )
    }

    fn take(gateways: &mut Gateways, source: &Source, news: SourceNews) -> BTreeSet<String> {
        let heard = gateways.take(SourceReport { source: source.clone(), news });
        heard.iter().map(|set| set.name.to_string()).collect()
    }

    fn demand(
        gateways: &Gateways,
        set: &InferenceSet,
        named: Option<&WakeSource>,
        at: Moment,
    ) -> Option<f64> {
        Some(gateways.of(set, named).unwrap().demand(at)?.amount())
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
        let all: BTreeSet<_> = ["chat-decode", "chat-prefill", "other"].map(str::to_owned).into();
        assert_eq!(find(&mut gateways, &source, &[1, 2]), all);
        assert_eq!(says(&mut gateways, &source, 1, &[("chat", 3.0), ("other", 0.0)]), all);
        let chat = ["chat-decode", "chat-prefill"].map(str::to_owned);
        says(&mut gateways, &source, 2, &[("chat", 0.0), ("other", 0.0)]);
        let heard = says(&mut gateways, &source, 2, &[("chat", 4.0), ("other", 0.0)]);
        assert_eq!(heard, chat.into(), "nothing is new for the other");
        let of = |set, at| demand(&gateways, set, None, at);
        assert_eq!((of(&decode, AT), of(&other, AT)), (Some(7.0), Some(0.0)));
        let old = AT + Duration::from_secs(6);
        assert_eq!((of(&decode, old), of(&other, old)), (Some(0.0), None), "too old");
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
        let named = Source::named(&"team-a".into(), &epp);
        find(&mut gateways, &named, &[1]);
        says(&mut gateways, &named, 1, &[("demo", 2.0)]);
        assert_eq!(demand(&gateways, &demo, Some(&epp), AT), Some(2.0));
        assert_eq!(demand(&gateways, &demo, None, AT), None, "the other says nothing yet");
        assert_eq!(
            follow(&mut gateways, &demo, &[Some(&epp)], true),
            ["chat-inferencepool-epp -", "epp demo!"]
        );
    }

    #[test]
    fn a_source_is_read_as_often_as_the_replicas_of_its_most_eager_reader() {
        let (slow, fast) = (set("slow", "chat"), set("fast", "chat"));
        let mut gateways = Gateways::default();
        let mut every = |set: &InferenceSet, seconds: Option<u64>| {
            let readings = seconds.and_then(|_| Reading::of(set, None)).into_iter().collect();
            let interval = Duration::from_secs(seconds.unwrap_or(1));
            let mut changes = gateways.follow(&set.key, Readings { of: readings, asleep: false, interval });
            changes.pop().and_then(|(_, plan)| Some(plan?.interval.as_secs()))
        };
        assert_eq!(every(&slow, Some(5)), Some(5));
        assert_eq!(every(&fast, Some(1)), Some(1));
        assert_eq!(every(&fast, Some(10)), Some(5));
        assert_eq!(every(&slow, None), Some(10));
        assert_eq!(every(&fast, None), None);
    }

    #[test]
    fn a_reader_that_joins_finds_what_is_known_of_the_source() {
        let (first, second) = (set("first", "chat"), set("second", "other"));
        let mut gateways = Gateways::default();
        follow(&mut gateways, &first, &[None], true);
        let source = Source::picker(&"team-a".into(), "chat-inferencepool");
        find(&mut gateways, &source, &[1, 2]);
        follow(&mut gateways, &second, &[None], true);
        says(&mut gateways, &source, 1, &[("chat", 0.0), ("other", 5.0)]);
        let known = gateways.of(&second, None).unwrap().demand(AT).unwrap();
        assert_eq!((known.amount(), known.known, known.unknown), (5.0, 1, 1));
        assert!(!gateways.of(&second, None).unwrap().was_tried(), "one of two was");
    }
}
