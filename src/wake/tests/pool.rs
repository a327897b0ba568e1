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
        if request.address.port() == 1 {
            return Err(ScrapeError::Refused);
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
    SourcePlan { pools: Arc::from([Arc::from("a"), Arc::from("b")]), asleep }
}

fn at(port: u16) -> Source {
    Source::at(SocketAddr::from(([127, 0, 0, 1], port)))
}

#[tokio::test(start_paused = true)]
async fn a_page_is_read_once_for_every_pool_often_while_one_sleeps() {
    let mut rig = Rig::start(Pace::default());
    rig.pool.apply(&at(9090), Some(plan(true)));
    let report = rig.reports.recv().await.unwrap();
    assert_eq!(report.interval, Duration::from_millis(100));
    let queued: Vec<_> =
        report.outcome.unwrap().iter().map(|(pool, sample)| (pool.to_string(), sample.queued)).collect();
    assert_eq!(queued, [("a".to_owned(), Some(1.0)), ("b".to_owned(), None)]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((97..=102).contains(&rig.asked()));
    rig.pool.apply(&at(9090), Some(plan(false)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((2..=4).contains(&rig.asked()));
    rig.pool.apply(&at(9090), None);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_sleepers_keep_the_budget_and_do_not_fire_together() {
    let mut rig = Rig::start(Pace { budget: 200.0, ..Pace::default() });
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
    let mut outcome = async || rig.reports.recv().await.unwrap().outcome.map(|_| ());
    assert_eq!(outcome().await, Err(Fault::NotLookedUp));
    let directory = rig.directory.clone();
    let know = |place: Result<SocketAddr, Missing>| {
        directory.tell(epp.service().unwrap().clone(), Some(place.map(|address| [address].into())));
    };
    know(Err(Missing::Endpoint));
    assert_eq!(outcome().await, Err(Fault::Missing(Missing::Endpoint)));
    let before = tokio::time::Instant::now();
    know(Ok(SocketAddr::from(([10, 0, 0, 1], 1))));
    assert_eq!(outcome().await, Err(Fault::Passing("connection refused".into())));
    know(Ok(SocketAddr::from(([10, 0, 0, 2], 9090))));
    assert_eq!(outcome().await, Ok(()));
    assert!(before.elapsed() < Duration::from_millis(10), "a new address is tried at once");
    rig.pool.apply(&epp, None);
    tokio::task::yield_now().await;
    assert!(rig.directory.followed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_left_alone_for_a_while() {
    let mut rig = Rig::start(Pace::default());
    rig.pool.apply(&at(1), Some(plan(true)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((9..=11).contains(&rig.asked()));
}
