//! The scrapes of one endpoint.

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, info, trace, warn};

use super::{
    Fetch, ScrapeError, ScrapeId, ScrapePlan, ScrapeReport, Scraped, page::Page, pool::seed, urls::PageUrls,
};
use clock::Clock;
use scaler_core::{
    endpoint::{
        cadence::Cadence,
        page_choice::{Answer, PageChoice, PageKind, Verdict},
        staleness::staleness_limit,
    },
    page::{PageRead, Wanted, read_page, sample::PodSample},
    time::Moment,
};

/// What a scrape task knows of its endpoint.
#[derive(Debug)]
pub(super) struct Endpoint<F: Fetch> {
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
    similar: Vec<String>,
    health: Health,
}

/// Scrapes `endpoint` at once and then in the rhythm of its plan, until the plans or the
/// reports have no other end any more.
pub(super) async fn run<F: Fetch>(
    mut endpoint: Endpoint<F>,
    mut plans: watch::Receiver<ScrapePlan>,
    reports: mpsc::Sender<ScrapeReport>,
) {
    // Looks out for another address during a scrape, and leaves what it saw unseen in `plans`.
    let mut moves = plans.clone();
    let mut plan = plans.borrow_and_update().clone();
    let seed = seed(&endpoint.id);
    let mut cadence = Cadence::new(endpoint.clock.now(), plan.interval, seed);
    'scrapes: loop {
        let started = endpoint.clock.now();
        // A request to an address that the pod no longer has is not worth waiting for. Other
        // changes wait until it is answered: breaking it off would cost its connection.
        let report = tokio::select! {
            report = endpoint.scrape(&plan, started) => Some(report),
            () = address_change(&mut moves, &plan) => None,
        };
        if let Some(report) = report
            && reports.send(report).await.is_err()
        {
            return;
        }
        let now = endpoint.clock.now();
        let mut due = cadence.next(now, endpoint.health.is_stale(now, &plan));
        loop {
            let changed = tokio::select! {
                biased;
                changed = plans.changed() => changed,
                () = sleep_until(endpoint.clock.instant(due)) => continue 'scrapes,
            };
            if changed.is_err() {
                return;
            }
            let new = plans.borrow_and_update().clone();
            let now = endpoint.clock.now();
            if new.interval != plan.interval {
                cadence = Cadence::new(now, new.interval, seed);
                due = cadence.next(now, false);
            }
            let at_once = endpoint.adopt(&plan, &new, now);
            plan = new;
            if at_once {
                continue 'scrapes;
            }
        }
    }
}

/// Waits until the latest plan has another address than `current`.
async fn address_change(plans: &mut watch::Receiver<ScrapePlan>, current: &ScrapePlan) {
    if plans.wait_for(|latest| latest.address != current.address).await.is_err() {
        // The pool is gone. That is noticed after the scrape.
        std::future::pending::<()>().await;
    }
}

impl<F: Fetch> Endpoint<F> {
    pub(super) fn new(id: ScrapeId, fetch: F, clock: Clock, task: u64) -> Self {
        let health = Health { since: clock.now(), ..Health::default() };
        Self {
            id,
            task,
            fetch,
            clock,
            urls: None,
            choice: PageChoice::default(),
            connection: F::Connection::default(),
            similar: Vec::new(),
            health,
        }
    }

    /// Forgets what does not hold under the plan `new`. True where that is worth a scrape out
    /// of turn.
    fn adopt(&mut self, old: &ScrapePlan, new: &ScrapePlan, now: Moment) -> bool {
        let moved = old.address != new.address;
        let wants_other = old.wanted != new.wanted;
        let changed = moved || wants_other || old.ready != new.ready;
        if moved || wants_other {
            self.urls = None;
        }
        if moved {
            self.connection = F::Connection::default();
        }
        if changed {
            self.choice.forget();
            self.similar.clear();
            if !self.health.served {
                self.health.since = now;
            }
        }
        changed
    }

    async fn scrape(&mut self, plan: &ScrapePlan, started: Moment) -> ScrapeReport {
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

    async fn fetch_sample(&mut self, plan: &ScrapePlan) -> Result<Scraped, ScrapeError> {
        let urls = match self.urls.take() {
            Some(urls) => urls,
            None => PageUrls::new(plan.address, &self.id.page, &plan.wanted)?,
        };
        let urls = self.urls.insert(urls);
        let mut kind = self.choice.first();
        loop {
            let fetched = self.fetch.fetch(&mut self.connection, urls.of(kind)).await;
            let (answer, result) = read(fetched, &plan.wanted, kind);
            match self.choice.answered(kind, answer) {
                Verdict::TryPlain => kind = PageKind::Plain,
                Verdict::Keep => {
                    return result.map(|scraped| remember_similar(&mut self.similar, scraped, &plan.wanted));
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
                return (Answer::NoSuchPage, Err(ScrapeError::NotMetrics));
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

fn remember_similar(similar: &mut Vec<String>, mut scraped: Scraped, wanted: &Wanted) -> Scraped {
    match scraped.page {
        PageKind::Plain => similar.clone_from(&scraped.sample.similar),
        PageKind::Filtered if similar.is_empty() => {}
        PageKind::Filtered if wanted.missing(&scraped.sample).next().is_none() => similar.clear(),
        PageKind::Filtered => scraped.sample.similar.clone_from(similar),
    }
    scraped
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
