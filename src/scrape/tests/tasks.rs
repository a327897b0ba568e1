//! What a task does when, under a paused clock.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, advance, sleep},
};
use url::Url;

use super::{
    super::{self as scrape, Fetch, Page, ScrapeError, ScrapePlan, ScrapePool, ScrapeReport},
    id, plan, wanted,
};
use clock::Clock;
use scaler_core::{
    endpoint::page_choice::PageKind::{self, Filtered, Plain},
    names::MetricName,
    page::sample::Reading,
};

const PAGE: &str = "vllm:num_requests_running 1\nvllm:num_requests_waiting 2\n";

/// What a scripted server does with a request.
#[derive(Clone, Debug)]
enum Reply {
    Page(&'static str),
    After(Duration, &'static str),
    Fails(ScrapeError),
    Hangs,
    Panics,
}

/// A request that a scripted server got.
#[derive(Clone, Debug)]
struct Request {
    at: Instant,
    url: Url,
    kind: PageKind,
}

type Script = Box<dyn FnMut(&Request) -> Reply + Send>;

/// Answers from a script instead of a socket, and writes down what it was asked.
#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    fn new(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        Self { script: Arc::new(Mutex::new(Box::new(script))), requests: Arc::default() }
    }

    fn becomes(&self, script: impl FnMut(&Request) -> Reply + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn kinds(&self) -> Vec<PageKind> {
        self.requests().iter().map(|request| request.kind).collect()
    }

    /// The times from each request to the next, in milliseconds.
    fn gaps(&self) -> Vec<u128> {
        let requests = self.requests();
        requests.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect()
    }
}

impl Fetch for Scripted {
    type Connection = ();

    async fn fetch(&self, (): &mut (), request: &scrape::Request<'_>) -> Result<Page, ScrapeError> {
        let url = request.url;
        let kind = if url.as_str().contains("name[]=") { Filtered } else { Plain };
        let request = Request { at: Instant::now(), url: url.clone(), kind };
        self.requests.lock().unwrap().push(request.clone());
        let reply = (self.script.lock().unwrap())(&request);
        let page = match reply {
            Reply::Page(page) => page,
            Reply::After(delay, page) => {
                sleep(delay).await;
                page
            }
            Reply::Fails(error) => return Err(error),
            Reply::Hangs => std::future::pending().await,
            Reply::Panics => panic!("a bug"),
        };
        Ok(Page::from(page.as_bytes().to_vec()))
    }
}

struct Bench {
    server: Scripted,
    pool: ScrapePool<Scripted>,
    reports: mpsc::Receiver<ScrapeReport>,
}

impl Bench {
    fn new(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let server = Scripted::new(script);
        let (sender, reports) = mpsc::channel(100);
        let pool = ScrapePool::new(server.clone(), Clock::start(), sender);
        Self { server, pool, reports }
    }

    async fn report(&mut self) -> ScrapeReport {
        self.reports.recv().await.unwrap()
    }

    async fn reports(&mut self, count: usize) -> Vec<ScrapeReport> {
        let mut reports = Vec::new();
        while reports.len() < count {
            reports.push(self.report().await);
        }
        reports
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn standard() -> ScrapePlan {
    plan(address(5000))
}

#[tokio::test(start_paused = true)]
async fn scrapes_at_once_and_then_on_a_grid_of_its_own() {
    let mut bench = Bench::new(|_| Reply::Page(PAGE));
    let begun = Instant::now();
    bench.pool.apply(id("a"), standard());
    let first = bench.report().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let scraped = first.outcome.unwrap();
    assert_eq!((scraped.page, scraped.bytes), (Filtered, PAGE.len()));
    assert_eq!(scraped.sample.demand.waiting, Some(2.0));

    bench.reports(4).await;
    let gaps = bench.server.gaps();
    assert!((250..1_251).contains(&gaps[0]), "{gaps:?}");
    assert!(gaps[1..].iter().all(|gap| (999..=1_001).contains(gap)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn endpoints_found_in_one_moment_spread_over_the_interval() {
    let mut bench = Bench::new(|_| Reply::Page(PAGE));
    for n in 0..40 {
        bench.pool.apply(id(&format!("pod-{n}")), standard());
    }
    bench.reports(80).await;
    let requests = bench.server.requests();
    let mut times: Vec<_> = requests[40..80].iter().map(|request| request.at - requests[0].at).collect();
    times.dedup();
    assert!(times.len() > 30, "{} different times for 40 endpoints", times.len());
}

#[tokio::test(start_paused = true)]
async fn one_request_at_a_time_and_ticks_meanwhile_are_skipped() {
    let slow = Duration::from_millis(2_400);
    let mut bench = Bench::new(move |_| Reply::After(slow, PAGE));
    bench.pool.apply(id("a"), standard());
    bench.reports(4).await;
    let gaps = bench.server.gaps();
    assert!(gaps.iter().all(|gap| *gap >= slow.as_millis()), "never two at a time: {gaps:?}");
    // From grid point to grid point: 2.4 s take up three of them.
    assert!(gaps[1..].iter().all(|gap| (2_999..=3_001).contains(gap)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn the_timeout_has_nothing_to_do_with_the_interval() {
    let mut bench = Bench::new(|_| Reply::Hangs);
    let timeout = Duration::from_millis(2_500);
    bench.pool.apply(id("a"), ScrapePlan { interval: Duration::from_millis(100), timeout, ..standard() });
    let report = bench.report().await;
    assert_eq!(report.duration().as_millis(), 2_500);
    assert_eq!(report.outcome, Err(ScrapeError::TimedOut(timeout)));
}

#[tokio::test(start_paused = true)]
async fn one_deadline_covers_both_pages() {
    let slow = Duration::from_secs(2);
    let mut bench = Bench::new(move |_| Reply::After(slow, "vllm:num_requests_running 1\n"));
    bench.pool.apply(id("a"), standard());
    let report = bench.report().await;
    assert_eq!(bench.server.kinds(), [Filtered, Plain]);
    assert_eq!(report.duration().as_millis(), 3_000);
    assert!(report.outcome.is_err());
}

#[tokio::test(start_paused = true)]
async fn backs_off_only_once_stale_and_comes_back_to_the_interval() {
    let mut bench = Bench::new(|_| Reply::Page(PAGE));
    bench.pool.apply(id("a"), standard());
    bench.reports(2).await;
    bench.server.becomes(|_| Reply::Fails(ScrapeError::Refused));
    bench.reports(11).await;
    let gaps: Vec<u128> = bench.server.gaps().into_iter().skip(1).map(|gap| (gap + 500) / 1_000).collect();
    // Good at 0; tried at 1 to 5 s; stale after more than 5 s, at the sixth.
    assert_eq!(gaps, [1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 10]);

    bench.server.becomes(|_| Reply::Page(PAGE));
    bench.reports(3).await;
    let gaps = bench.server.gaps();
    let last = gaps.last().unwrap();
    assert!((999..=1_001).contains(last), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_loading_pod_is_asked_on_without_backing_off() {
    let mut bench = Bench::new(|_| Reply::Fails(ScrapeError::Refused));
    bench.pool.apply(id("a"), ScrapePlan { ready: false, ..standard() });
    bench.reports(60).await;
    let gaps = bench.server.gaps();
    assert!(gaps.iter().all(|gap| *gap <= 1_250), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_becomes_ready_is_scraped_at_once_with_the_filter() {
    // Answers no filter while it loads.
    let mut bench = Bench::new(|request| match request.kind {
        Filtered => Reply::Fails(ScrapeError::Status(404)),
        Plain => Reply::Page("kaito_model_download_remaining_seconds 9\n"),
    });
    bench.pool.apply(id("a"), ScrapePlan { ready: false, ..standard() });
    let reports = bench.reports(2).await;
    assert!(reports.iter().all(|report| !report.outcome.as_ref().unwrap().sample.engine));
    assert_eq!(bench.server.kinds(), [Filtered, Plain, Plain], "learnt after one scrape");

    bench.server.becomes(|_| Reply::Page(PAGE));
    let ready = Instant::now();
    bench.pool.apply(id("a"), standard());
    let report = bench.report().await;
    assert_eq!(ready.elapsed(), Duration::ZERO);
    assert_eq!(report.outcome.unwrap().page, Filtered);
}

#[tokio::test(start_paused = true)]
async fn a_5xx_leads_to_no_other_page() {
    let mut bench = Bench::new(|_| Reply::Fails(ScrapeError::Status(502)));
    bench.pool.apply(id("a"), standard());
    assert_eq!(bench.report().await.outcome, Err(ScrapeError::Status(502)));
    assert_eq!(bench.server.kinds(), [Filtered]);
}

#[tokio::test(start_paused = true)]
async fn what_is_wanted_anew_is_scraped_at_once_and_told_by_the_report() {
    let mut bench = Bench::new(|_| Reply::Page(PAGE));
    bench.pool.apply(id("a"), standard());
    bench.report().await;
    let begun = Instant::now();
    bench.pool.apply(id("a"), standard());
    let more = wanted(&["vllm:num_requests_running", "vllm:num_requests_waiting"]);
    bench.pool.apply(id("a"), ScrapePlan { wanted: Arc::clone(&more), ..standard() });
    let report = bench.report().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(report.wanted, more);
    let running = MetricName::parse("vllm:num_requests_running").unwrap();
    assert_eq!(report.outcome.unwrap().sample.reading(&running), Some(&Reading::Value(1.0)));
}

#[tokio::test(start_paused = true)]
async fn the_same_plan_again_changes_nothing() {
    let mut bench = Bench::new(|_| Reply::Page(PAGE));
    bench.pool.apply(id("a"), standard());
    bench.report().await;
    let begun = Instant::now();
    // Equal, though made anew.
    bench.pool.apply(id("a"), standard());
    bench.report().await;
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    assert_eq!(bench.pool.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_during_a_request_is_followed_after_its_answer() {
    let mut bench = Bench::new(|_| Reply::After(Duration::from_millis(500), PAGE));
    bench.pool.apply(id("a"), standard());
    advance(Duration::from_millis(100)).await;
    tokio::task::yield_now().await;
    let more = wanted(&["vllm:num_requests_running"]);
    bench.pool.apply(id("a"), ScrapePlan { wanted: Arc::clone(&more), ..standard() });
    let reports = bench.reports(2).await;
    assert_ne!(reports[0].wanted, more, "it was asked before");
    assert_eq!(reports[1].wanted, more);
    assert_eq!(reports[1].started, reports[0].at, "at once");
}

#[tokio::test(start_paused = true)]
async fn a_request_to_an_address_that_the_pod_left_is_dropped() {
    let mut bench = Bench::new(|request| match request.url.port() {
        Some(5000) => Reply::Hangs,
        _ => Reply::Page(PAGE),
    });
    bench.pool.apply(id("a"), standard());
    advance(Duration::from_millis(100)).await;
    tokio::task::yield_now().await;
    let begun = Instant::now();
    bench.pool.apply(id("a"), plan(address(6000)));
    let report = bench.report().await;
    assert!(report.outcome.is_ok());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_interval_of_its_own_takes_effect_without_a_scrape_out_of_turn() {
    let mut bench = Bench::new(|_| Reply::Page(PAGE));
    bench.pool.apply(id("a"), ScrapePlan { interval: Duration::from_secs(60), ..standard() });
    bench.report().await;
    bench.pool.apply(id("a"), standard());
    bench.reports(3).await;
    let gaps = bench.server.gaps();
    assert!((250..1_251).contains(&gaps[0]) && (999..=1_001).contains(&gaps[1]), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn the_late_answer_of_a_removed_pod_is_not_current() {
    let mut bench = Bench::new(|_| Reply::Page(PAGE));
    bench.pool.apply(id("a"), standard());
    let late = bench.report().await;
    assert!(bench.pool.is_current(&late));
    bench.pool.remove(&id("a"));
    assert!(!bench.pool.is_current(&late));
    bench.pool.apply(id("a"), standard());
    assert!(!bench.pool.is_current(&late), "added again, it is another one");
    let report = bench.report().await;
    assert!(bench.pool.is_current(&report));
}

#[tokio::test(start_paused = true)]
async fn removing_and_shutting_down_end_requests_at_once() {
    let mut bench = Bench::new(|_| Reply::Hangs);
    for uid in ["a", "b"] {
        bench.pool.apply(id(uid), standard());
    }
    tokio::task::yield_now().await;
    let begun = Instant::now();
    bench.pool.remove(&id("a"));
    assert_eq!(bench.pool.len(), 1);
    bench.pool.shutdown().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(bench.reports.recv().await.is_none(), "no task holds the channel any more");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_started_anew() {
    let mut bench = Bench::new(|_| Reply::Panics);
    bench.pool.apply(id("a"), standard());
    tokio::task::yield_now().await;
    bench.server.becomes(|_| Reply::Page(PAGE));
    bench.pool.restart_broken();
    let report = bench.report().await;
    assert!(report.outcome.is_ok() && bench.pool.is_current(&report));
}

#[tokio::test(start_paused = true)]
async fn a_missing_metric_is_looked_for_once_and_keeps_its_suggestion() {
    let mut bench = Bench::new(|request| match request.kind {
        Filtered => Reply::Page("vllm:num_requests_running 1\n"),
        Plain => Reply::Page(PAGE),
    });
    let misspelled = ScrapePlan { wanted: wanted(&["vllm:num_request_waiting"]), ..standard() };
    bench.pool.apply(id("a"), misspelled);
    for report in bench.reports(3).await {
        let sample = report.outcome.unwrap().sample;
        assert_eq!(sample.similar.first().map(String::as_str), Some("vllm:num_requests_waiting"));
    }
    assert_eq!(bench.server.kinds(), [Filtered, Plain, Filtered, Filtered]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_page_says_what_it_is() {
    let mut bench = Bench::new(|_| Reply::Page("[]"));
    bench.pool.apply(id("a"), standard());
    let error = bench.report().await.outcome.unwrap_err().to_string();
    assert_eq!(
        error,
        "the answer is JSON, not a metrics page: TensorRT-LLM serve has its metrics page at /prometheus/metrics \
         (metricPath, annotation metric-path)"
    );
    assert_eq!(bench.server.kinds(), [Filtered, Plain]);
}
