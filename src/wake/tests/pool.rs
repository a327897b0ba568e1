//! The tasks: one for each source, as often as the pace says.

use tokio::sync::mpsc;

use super::*;
use crate::scrape::{Fetch, Page, Request, ScrapeError};
use clock::Clock;
use scaler_core::wake::{ServicePort, pace::Pace};

/// Answers at once, and remembers when it was asked.
#[derive(Clone, Default)]
struct Instantly(Arc<Mutex<Vec<tokio::time::Instant>>>);

impl Fetch for Instantly {
    type Connection = ();

    async fn fetch(&self, (): &mut (), request: &Request<'_>) -> Result<Page, ScrapeError> {
        self.0.lock().unwrap().push(tokio::time::Instant::now());
        match request.address.port() {
            1 => return Err(ScrapeError::Refused),
            2 => return std::future::pending().await,
            3 => panic!("a bug"),
            _ => {}
        }
        Ok(b"llm_d_epp_flow_control_queue_size{inference_pool=\"a\"} 1\n".to_vec().into())
    }
}

struct Rig {
    fetch: Instantly,
    pool: SourcePool<Instantly>,
    reports: mpsc::Receiver<SourceReport>,
    directory: Directory,
}

impl Rig {
    fn start(pace: Pace) -> Self {
        let (sender, reports) = mpsc::channel(10_000);
        let (fetch, directory) = (Instantly::default(), Directory::default());
        let reader = Reader::new(fetch.clone(), None);
        let gauge = prometheus_client::metrics::gauge::Gauge::default();
        let pool = SourcePool::new("a test", reader, Clock::start(), directory.clone(), pace, gauge, sender);
        Self { fetch, pool, reports, directory }
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut *self.fetch.0.lock().unwrap()).len()
    }
}

fn plan(asleep: bool) -> SourcePlan {
    let interval = Duration::from_secs(1);
    SourcePlan { pools: Arc::from([Arc::from("a"), Arc::from("b")]), asleep, interval }
}

fn at(port: u16) -> Source {
    Source::at(SocketAddr::from(([127, 0, 0, 1], port)))
}

impl Rig {
    /// The next reading, whatever else is told before.
    async fn reading(&mut self) -> EndpointReading {
        loop {
            if let SourceNews::Read(reading) = self.reports.recv().await.unwrap().news {
                return reading;
            }
        }
    }

    /// The next word on where a source answers, whatever is read before.
    async fn found(&mut self) -> Result<Vec<SocketAddr>, Fault> {
        loop {
            if let SourceNews::Found(found) = self.reports.recv().await.unwrap().news {
                return found.map(|endpoints| endpoints.to_vec());
            }
        }
    }

    /// How many readings of each endpoint there are in so many seconds.
    async fn readings_in(&mut self, seconds: u64) -> BTreeMap<u16, usize> {
        while self.reports.try_recv().is_ok() {}
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let mut counts = BTreeMap::new();
        while let Ok(report) = self.reports.try_recv() {
            if let SourceNews::Read(reading) = report.news {
                *counts.entry(reading.endpoint.port()).or_default() += 1;
            }
        }
        counts
    }

    fn know(&self, service: &Source, place: Result<&[u16], Missing>) {
        let place =
            place.map(|ports| ports.iter().map(|port| SocketAddr::from(([10, 0, 0, 1], *port))).collect());
        self.directory.tell(service.service().unwrap(), Some(place));
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_read_once_for_every_pool_often_while_one_sleeps() {
    let mut rig = Rig::start(Pace { asleep: Duration::from_millis(100), ..Pace::default() });
    rig.pool.apply(&at(9090), Some(plan(true)));
    let reading = rig.reading().await;
    assert_eq!(reading.interval, Duration::from_millis(100));
    let queued: Vec<_> =
        reading.outcome.unwrap().iter().map(|(pool, sample)| (pool.to_string(), sample.queued)).collect();
    assert_eq!(queued, [("a".to_owned(), Some(1.0)), ("b".to_owned(), None)]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((97..=102).contains(&rig.asked()));
    // As often as its replicas, while there are any.
    rig.pool.apply(&at(9090), Some(plan(false)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((9..=12).contains(&rig.asked()));
    rig.pool.apply(&at(9090), None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_sleeper_is_read_fifty_times_a_second_however_many_pods_it_has() {
    let mut rig = Rig::start(Pace::default());
    let epp = source("epp:80");
    rig.pool.apply(&epp, Some(plan(true)));
    for (ports, each) in [(&[9_001][..], 500), (&[9_001, 9_002], 250), (&[9_001, 9_002, 9_003], 166)] {
        rig.know(&epp, Ok(ports));
        rig.readings_in(1).await;
        let counts = rig.readings_in(10).await;
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), ports);
        assert!(counts.values().all(|count| (each - 5..=each + 5).contains(count)), "{counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_sleepers_keep_the_budget_and_do_not_fire_together() {
    let mut rig = Rig::start(Pace { budget: 200.0, asleep: Duration::from_millis(100) });
    for port in 0..100 {
        rig.pool.apply(&at(10_000 + port), Some(plan(true)));
    }
    let start = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let times = std::mem::take(&mut *rig.fetch.0.lock().unwrap());
    let late: Vec<_> = times.iter().filter(|time| **time - start >= Duration::from_secs(1)).collect();
    assert!((1_950..=2_050).contains(&late.len()), "{} in ten seconds", late.len());
    let mut tenths = [0; 110];
    for time in &times {
        tenths[usize::try_from((*time - start).as_millis() / 100).unwrap().min(109)] += 1;
    }
    assert!(tenths.iter().all(|count| *count < 60), "{tenths:?}");
    for port in 0..90 {
        rig.pool.apply(&at(10_000 + port), None);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.asked();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!((95..=105).contains(&rig.asked()), "the rest are read as often as they are to be");
}

#[tokio::test(start_paused = true)]
async fn a_service_is_read_once_it_is_found_and_where_it_moves() {
    let mut rig = Rig::start(Pace::default());
    let epp = source("epp:80");
    rig.pool.apply(&epp, Some(plan(true)));
    let port = ServicePort { service: ObjectName::new("team-a", "epp"), port: 80 };
    assert_eq!(rig.directory.followed(), BTreeSet::from([port]));
    assert_eq!(rig.found().await, Err(Fault::NotLookedUp));
    rig.know(&epp, Err(Missing::Endpoint));
    assert_eq!(rig.found().await, Err(Fault::Missing(Missing::Endpoint)));
    let before = tokio::time::Instant::now();
    rig.know(&epp, Ok(&[1]));
    let outcome = rig.reading().await.outcome.map(|_| ());
    assert_eq!(outcome, Err(Fault::Passing("connection refused".into())));
    rig.know(&epp, Ok(&[9_090]));
    let reading = rig.reading().await;
    assert_eq!((reading.endpoint.port(), reading.outcome.map(|_| ())), (9_090, Ok(())));
    assert!(before.elapsed() < Duration::from_millis(10), "a new address is tried at once");
    rig.pool.apply(&epp, None);
    tokio::task::yield_now().await;
    assert!(rig.directory.followed().is_empty());
}

/// Each pod of a picker holds a queue of its own, and one that hangs delays no other.
#[tokio::test(start_paused = true)]
async fn every_ready_endpoint_is_read_by_itself() {
    let mut rig = Rig::start(Pace { asleep: Duration::from_millis(100), ..Pace::default() });
    let epp = source("epp:80");
    rig.pool.apply(&epp, Some(plan(true)));
    // The first hangs, the second refuses.
    rig.know(&epp, Ok(&[2, 1, 9_001, 9_002]));
    let counts = rig.readings_in(10).await;
    assert!((9..=11).contains(&counts[&1]) && (4..=11).contains(&counts[&2]), "{counts:?}");
    assert!((98..=102).contains(&counts[&9_001]) && (98..=102).contains(&counts[&9_002]), "{counts:?}");
    // One goes, another comes: those that stay are not disturbed.
    rig.know(&epp, Ok(&[9_002, 9_003]));
    rig.found().await.unwrap();
    let counts = rig.readings_in(10).await;
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [9_002, 9_003]);
    assert!(counts.values().all(|count| (98..=102).contains(count)), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_left_alone_for_a_while() {
    let mut rig = Rig::start(Pace::default());
    rig.pool.apply(&at(1), Some(plan(true)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((9..=11).contains(&rig.asked()));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_makes_its_reader_panic_costs_no_other_endpoint() {
    let mut rig = Rig::start(Pace { asleep: Duration::from_millis(100), ..Pace::default() });
    let epp = source("epp:80");
    rig.pool.apply(&epp, Some(plan(true)));
    rig.know(&epp, Ok(&[3, 9_001]));
    let counts = rig.readings_in(10).await;
    assert!((98..=102).contains(&counts[&9_001]) && !counts.contains_key(&3), "{counts:?}");
    let tries = rig.fetch.0.lock().unwrap().len() - counts[&9_001];
    assert!((8..=12).contains(&tries), "it is started anew each second: {tries}");
}
