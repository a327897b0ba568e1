//! The scrapes of pods: which page is asked for, and what is made of the answer.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};
use tracing::{debug, info, trace, warn};

use super::{
    Fetch, PageClient, Request, ScrapeError, ScrapeId, ScrapePlan, ScrapeReport, Scraped,
    page::Page,
    pool::{TaskPool, Work, seed},
    task::{Scrape, Task},
    urls::PageUrls,
};
use clock::Clock;
use scaler_core::{
    endpoint::{
        cadence::Cadence,
        page_choice::{Answer, PageChoice, PageKind, Verdict},
        staleness::staleness_limit,
    },
    page::{
        NotMetrics, PageRead, Wanted, read_page,
        sample::{Hints, PodSample},
    },
    time::Moment,
};

/// Owns one task for each page of each endpoint. None of its methods waits, except `shutdown`;
/// they must be called from within the runtime. Dropping it ends all tasks.
#[derive(Debug)]
pub struct ScrapePool<F: Fetch = PageClient>(TaskPool<Pods<F>>);

impl<F: Fetch> ScrapePool<F> {
    /// A pool without endpoints. A full `reports` channel slows the scrapes down.
    #[must_use]
    pub fn new(fetch: F, clock: Clock, reports: mpsc::Sender<ScrapeReport>) -> Self {
        Self(TaskPool::new(Pods { fetch, clock, reports }))
    }

    /// Starts to scrape an endpoint, or has its task follow another plan from now on. The same
    /// plan again changes nothing.
    pub fn apply(&mut self, id: ScrapeId, plan: ScrapePlan) {
        self.0.apply(id, plan);
    }

    /// Ends the scrapes of an endpoint at once, in the middle of a request too. A report that
    /// is already on its way is not [current](Self::is_current) any more.
    pub fn remove(&mut self, id: &ScrapeId) {
        self.0.remove(id);
    }

    /// Whether `report` comes from a task that still runs: false for the late answer of an
    /// endpoint that was removed, even if it was added again since.
    #[must_use]
    pub fn is_current(&self, report: &ScrapeReport) -> bool {
        self.0.number(&report.id) == Some(report.task)
    }

    /// How many endpoints are scraped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts anew the tasks that panicked. `apply` and `remove` do the same.
    pub fn restart_broken(&mut self) {
        self.0.restart_broken();
    }

    /// Ends all tasks and waits until none is left.
    pub async fn shutdown(self) {
        self.0.shutdown().await;
    }
}

/// Makes the tasks of endpoints.
#[derive(Debug)]
struct Pods<F> {
    fetch: F,
    clock: Clock,
    reports: mpsc::Sender<ScrapeReport>,
}

impl<F: Fetch> Work for Pods<F> {
    type Key = ScrapeId;
    type Plan = ScrapePlan;

    fn task(
        &self,
        id: &ScrapeId,
        number: u64,
        plans: watch::Receiver<ScrapePlan>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let endpoint = Endpoint::new(id.clone(), self.fetch.clone(), self.clock, number);
        Task::new(endpoint, plans, self.reports.clone(), self.clock, seed(id)).run(Duration::ZERO)
    }
}

/// What a scrape task knows of its endpoint.
#[derive(Debug)]
struct Endpoint<F: Fetch> {
    id: ScrapeId,
    task: u64,
    fetch: F,
    clock: Clock,
    /// `None` until the first scrape under a plan.
    urls: Option<PageUrls>,
    choice: PageChoice,
    connection: F::Connection,
    /// Of the last plain page: a filtered page that lacks a metric cannot tell what else
    /// there is.
    hints: Hints,
    health: Health,
}

impl<F: Fetch> Scrape for Endpoint<F> {
    type Plan = ScrapePlan;
    type Report = ScrapeReport;

    async fn scrape(&mut self, plan: &ScrapePlan) -> ScrapeReport {
        let started = self.clock.now();
        // One deadline for all that a scrape fetches, so that it bounds the age of a sample.
        let deadline = Instant::now() + plan.timeout;
        let outcome = timeout_at(deadline, self.fetch_sample(plan)).await;
        let outcome = outcome.unwrap_or(Err(ScrapeError::TimedOut(plan.timeout)));
        let at = self.clock.now();
        self.health.note(outcome.as_ref(), at, &self.id, plan);
        ScrapeReport {
            id: self.id.clone(),
            started,
            at,
            wanted: plan.wanted.clone(),
            outcome,
            task: self.task,
        }
    }

    fn interval(&self, plan: &ScrapePlan) -> Duration {
        plan.interval
    }

    fn next(&self, plan: &ScrapePlan, cadence: &mut Cadence, now: Moment) -> Moment {
        cadence.next(now, self.health.is_stale(now, plan))
    }

    /// A request to an address that the pod no longer has is not worth waiting for.
    fn is_void(plan: &ScrapePlan, new: &ScrapePlan) -> bool {
        plan.address != new.address
    }

    fn adopt(&mut self, plan: &ScrapePlan, new: &ScrapePlan, now: Moment) -> bool {
        let moved = plan.address != new.address;
        let wants_other = plan.wanted != new.wanted;
        let changed = moved || wants_other || plan.ready != new.ready;
        if moved || wants_other {
            self.urls = None;
        }
        if moved {
            self.connection = F::Connection::default();
        }
        if changed {
            self.choice.forget();
            self.hints.forget();
            if !self.health.served {
                self.health.since = now;
            }
        }
        changed
    }
}

impl<F: Fetch> Endpoint<F> {
    fn new(id: ScrapeId, fetch: F, clock: Clock, task: u64) -> Self {
        let health = Health { since: clock.now(), ..Health::default() };
        Self {
            id,
            task,
            fetch,
            clock,
            urls: None,
            choice: PageChoice::default(),
            connection: F::Connection::default(),
            hints: Hints::default(),
            health,
        }
    }

    async fn fetch_sample(&mut self, plan: &ScrapePlan) -> Result<Scraped, ScrapeError> {
        let urls = match self.urls.take() {
            Some(urls) => urls,
            None => PageUrls::new(plan.address, &self.id.page, &plan.wanted)?,
        };
        let urls = self.urls.insert(urls);
        let mut kind = self.choice.first();
        loop {
            let request = Request {
                address: plan.address,
                peer: &urls.peer,
                url: urls.of(kind),
                namespace: &self.id.set.namespace,
                authorization: None,
            };
            let fetched = self.fetch.fetch(&mut self.connection, &request).await;
            let (answer, result) = read(fetched, &plan.wanted, kind);
            match self.choice.answered(kind, answer) {
                Verdict::TryPlain => kind = PageKind::Plain,
                Verdict::Keep => {
                    return result.map(|mut scraped| {
                        self.hints.follow(scraped.page, &mut scraped.sample, &plan.wanted);
                        scraped
                    });
                }
            }
        }
    }
}

/// What a fetched page says, for the choice of pages and for the report.
fn read(
    fetched: Result<Page, ScrapeError>,
    wanted: &Wanted,
    page: PageKind,
) -> (Answer, Result<Scraped, ScrapeError>) {
    match fetched {
        Ok(body) if body.trim_ascii().is_empty() => {
            let bytes = body.len();
            (Answer::Empty, Ok(Scraped { sample: PodSample::default(), page, bytes, rejected: 0 }))
        }
        Ok(body) => {
            let bytes = body.len();
            let PageRead { sample, missing, rejected, is_metrics } = read_page(&body, wanted, page);
            if !is_metrics {
                return (Answer::NoSuchPage, Err(ScrapeError::NotMetrics(NotMetrics::of(&body))));
            }
            let answer = Answer::Page { missing, engine: sample.engine };
            (answer, Ok(Scraped { sample, page, bytes, rejected }))
        }
        Err(error @ (ScrapeError::Status(404) | ScrapeError::Redirect(_))) => {
            (Answer::NoSuchPage, Err(error))
        }
        Err(error) => (Answer::Failed, Err(error)),
    }
}

/// Whether the endpoint answers, and since when.
#[derive(Clone, Debug, Default)]
struct Health {
    /// The last good answer; where there was none, the last change of the plan.
    since: Moment,
    /// It has served once.
    served: bool,
    failing: bool,
}

impl Health {
    /// An endpoint that has not served and is not Ready is loading, however long that takes:
    /// it is scraped on, to be found as soon as it is up.
    fn is_stale(&self, now: Moment, plan: &ScrapePlan) -> bool {
        self.failing
            && (self.served || plan.ready)
            && now.saturating_since(self.since) > staleness_limit(plan.interval, plan.timeout)
    }

    /// Takes note of an outcome and logs the edges into trouble and out of it.
    fn note(
        &mut self,
        outcome: Result<&Scraped, &ScrapeError>,
        at: Moment,
        id: &ScrapeId,
        plan: &ScrapePlan,
    ) {
        let (uid, address, path) = (&id.uid, plan.address, &id.page.path);
        match outcome {
            Ok(scraped) => {
                if self.failing && self.served {
                    info!(%uid, %address, path, "scrapes are answered again");
                }
                trace!(%uid, %address, page = scraped.page.as_str(), bytes = scraped.bytes, "scraped");
                self.since = at;
                self.served |= scraped.sample.engine;
                self.failing = false;
            }
            Err(error) => {
                if !self.failing && (self.served || plan.ready) {
                    warn!(%uid, %address, path, %error, "scrapes fail");
                } else {
                    debug!(%uid, %address, path, %error, "a scrape failed");
                }
                self.failing = true;
            }
        }
    }
}
