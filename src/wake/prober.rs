//! Tries wake-up sources before anybody relies on them: whoever puts a model to sleep asks here
//! whether something would wake it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Reader, SourcePlan, SourcePool, SourceReport};
use crate::{
    cluster::directory::Pools,
    scrape::{Fetch, PageClient},
};
use scaler_core::{
    names::InferenceSetKey,
    wake::{Answers, Asked, Readability, Reading, Source, judge},
};

/// From one try to the next, once a source has been tried.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Tries what is asked for, every [`PROBE_INTERVAL`], and tells what came of it.
#[derive(Debug)]
pub struct Prober<F = PageClient> {
    reader: Reader<F>,
    pool: SourcePool<F>,
    reports: mpsc::Receiver<SourceReport>,
    pools: watch::Receiver<Pools>,
    asked: watch::Receiver<Arc<Asked>>,
    answers: watch::Sender<Arc<Answers>>,
    readings: BTreeMap<InferenceSetKey, Reading>,
    /// By source, with the pools that are read there.
    plans: HashMap<Source, SourcePlan>,
    known: HashMap<Source, Readability>,
}

impl<F: Fetch> Prober<F> {
    /// `pool` reports to `reports`.
    #[must_use]
    pub fn new(
        reader: Reader<F>,
        (pool, reports): (SourcePool<F>, mpsc::Receiver<SourceReport>),
        pools: watch::Receiver<Pools>,
        asked: watch::Receiver<Arc<Asked>>,
        answers: watch::Sender<Arc<Answers>>,
    ) -> Self {
        Self {
            reader,
            pool,
            reports,
            pools,
            asked,
            answers,
            readings: BTreeMap::new(),
            plans: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// Ends with `cancel`, and where nobody asks any more.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            self.follow();
            self.publish();
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = self.asked.changed() => if changed.is_err() { break },
                // Which pool is whose may have changed.
                Ok(()) = self.pools.changed() => {}
                Some(report) = self.reports.recv() => self.take(&report),
            }
        }
        self.pool.shutdown().await;
    }

    /// Has the pool read what is asked for.
    fn follow(&mut self) {
        let asked = self.asked.borrow_and_update().clone();
        let pools = self.pools.borrow_and_update();
        let reading = |(set, named): (&InferenceSetKey, &Option<_>)| {
            Some((set.clone(), Reading::to_try(set, named.as_ref(), &pools)?))
        };
        let readings: BTreeMap<_, _> = asked.iter().filter_map(reading).collect();
        drop(pools);
        if readings == self.readings {
            return;
        }
        self.readings = readings;
        let mut wanted: HashMap<Source, BTreeSet<Arc<str>>> = HashMap::new();
        for reading in self.readings.values() {
            wanted.entry(reading.source.clone()).or_default().insert(reading.pool.clone());
        }
        let plans = wanted.into_iter().map(|(source, pools)| {
            (source, SourcePlan { pools: pools.into_iter().collect(), asleep: false })
        });
        let plans: HashMap<_, _> = plans.collect();
        for source in self.plans.keys().filter(|source| !plans.contains_key(*source)) {
            self.pool.apply(source, None);
            self.known.remove(source);
        }
        for (source, plan) in &plans {
            if self.plans.get(source) != Some(plan) {
                self.pool.apply(source, Some(plan.clone()));
            }
        }
        self.plans = plans;
    }

    fn take(&mut self, report: &SourceReport) {
        let source = &report.source;
        // The late answer of one that is no longer asked for.
        if !self.plans.contains_key(source) {
            return;
        }
        let read = report.outcome.as_ref().map(|_| ());
        let explain = |fault: &_| self.reader.explain(fault, source);
        if let Some(readability) = judge(self.known.get(source), read, explain) {
            self.known.insert(source.clone(), readability);
        }
    }

    fn publish(&self) {
        let answer = |(set, reading): (&InferenceSetKey, &Reading)| {
            Some((set.clone(), self.known.get(&reading.source)?.clone()))
        };
        let answers: Answers = self.readings.iter().filter_map(answer).collect();
        self.answers.send_if_modified(|current| {
            let news = **current != answers;
            if news {
                *current = Arc::new(answers);
            }
            news
        });
    }
}
