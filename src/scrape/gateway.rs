//! Scrapes of gateways: one task for each InferenceSet that has one.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use reqwest::Url;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, info, warn};

use super::{Fetch, PageClient, ScrapeError};
use crate::{
    clock::Clock,
    core::{
        gateway::{GatewayPage, GatewaySample},
        names::InferenceSetKey,
        time::Moment,
    },
};

/// How a gateway is scraped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayPlan {
    pub address: SocketAddr,
    /// Of which InferencePool its page is read.
    pub pool: Arc<str>,
    /// From the start of one scrape to the start of the next. Above zero.
    pub interval: Duration,
    pub timeout: Duration,
}

/// What came of one scrape of a gateway.
#[derive(Debug)]
pub struct GatewayReport {
    pub set: InferenceSetKey,
    /// When the page was read, or the scrape failed.
    pub at: Moment,
    pub outcome: Result<GatewaySample, ScrapeError>,
}

/// Owns one task for each gateway. Dropping it ends them all.
#[derive(Debug)]
pub struct GatewayPool<F = PageClient> {
    fetch: F,
    clock: Clock,
    reports: mpsc::Sender<GatewayReport>,
    running: HashMap<InferenceSetKey, (watch::Sender<GatewayPlan>, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl<F: Fetch> GatewayPool<F> {
    #[must_use]
    pub fn new(fetch: F, clock: Clock, reports: mpsc::Sender<GatewayReport>) -> Self {
        Self { fetch, clock, reports, running: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Starts to scrape the gateway of `set`, follows another plan, or ends, with `None`.
    pub fn apply(&mut self, set: &InferenceSetKey, plan: Option<GatewayPlan>) {
        let Some(plan) = plan else {
            if let Some((_, task)) = self.running.remove(set) {
                task.abort();
            }
            return;
        };
        match self.running.get(set) {
            Some((current, _)) => {
                current.send_if_modified(|current| {
                    let news = *current != plan;
                    *current = plan;
                    news
                });
                self.restart_broken();
            }
            None => {
                let sender = watch::Sender::new(plan);
                let task = self.start(set, sender.subscribe());
                self.running.insert(set.clone(), (sender, task));
            }
        }
    }

    /// Starts anew the tasks that have ended by themselves: a bug, which must not cost a
    /// sleeping model its wake-up.
    pub fn restart_broken(&mut self) {
        let mut broken = false;
        while let Some(ended) = self.tasks.try_join_next() {
            broken |= ended.is_err_and(|error| error.is_panic());
        }
        if !broken {
            return;
        }
        let ended = self.running.iter().filter(|(_, (_, task))| task.is_finished());
        let ended: Vec<_> = ended.map(|(set, (plan, _))| (set.clone(), plan.subscribe())).collect();
        for (set, plans) in ended {
            error!(%set, "the gateway's scrape task panicked and is started anew");
            let task = self.start(&set, plans);
            if let Some((_, running)) = self.running.get_mut(&set) {
                *running = task;
            }
        }
    }

    fn start(&mut self, set: &InferenceSetKey, plans: watch::Receiver<GatewayPlan>) -> AbortHandle {
        let scraper = Scraper {
            set: set.clone(),
            fetch: self.fetch.clone(),
            clock: self.clock,
            connection: F::Connection::default(),
            answered: None,
        };
        self.tasks.spawn(scraper.run(plans, self.reports.clone()))
    }

    /// Ends all tasks and waits until none is left.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

struct Scraper<F: Fetch> {
    set: InferenceSetKey,
    fetch: F,
    clock: Clock,
    connection: F::Connection,
    /// Whether the last scrape was answered; `None` before the first.
    answered: Option<bool>,
}

impl<F: Fetch> Scraper<F> {
    async fn run(mut self, mut plans: watch::Receiver<GatewayPlan>, reports: mpsc::Sender<GatewayReport>) {
        loop {
            let plan = plans.borrow_and_update().clone();
            let page = GatewayPage::of(&plan.pool);
            let mut ticks = interval(plan.interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    changed = plans.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    _ = ticks.tick() => {}
                }
                let report = self.scrape(&plan, &page).await;
                if reports.send(report).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn scrape(&mut self, plan: &GatewayPlan, page: &GatewayPage) -> GatewayReport {
        let outcome = self.fetch_sample(plan, page).await;
        let (set, address) = (&self.set, plan.address);
        match &outcome {
            Err(error) if self.answered != Some(false) => {
                warn!(%set, %address, %error, "the gateway can't be read: demand at zero replicas is unseen");
            }
            Ok(_) if self.answered == Some(false) => info!(%set, %address, "the gateway can be read again"),
            _ => {}
        }
        self.answered = Some(outcome.is_ok());
        GatewayReport { set: self.set.clone(), at: self.clock.now(), outcome }
    }

    async fn fetch_sample(
        &mut self,
        plan: &GatewayPlan,
        page: &GatewayPage,
    ) -> Result<GatewaySample, ScrapeError> {
        let url = Url::parse(&format!("http://{}/metrics", plan.address))
            .map_err(|error| ScrapeError::NotHttp(error.to_string()))?;
        let fetch = self.fetch.fetch(&mut self.connection, &url);
        let body = timeout(plan.timeout, fetch).await.map_err(|_| ScrapeError::TimedOut(plan.timeout))??;
        Ok(page.read(&body))
    }
}
