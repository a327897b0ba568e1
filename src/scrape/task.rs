//! The life of one task: it scrapes, rests until the next scrape is due, and so on.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};

use clock::Clock;
use scaler_core::{endpoint::cadence::Cadence, time::Moment};

/// What a task scrapes, and how. It decides nothing about time but through its plan.
pub(crate) trait Scrape: Send {
    type Plan: Clone + Send + Sync;
    type Report: Send;

    /// Scrapes once, and bounds its own time.
    fn scrape(&mut self, plan: &Self::Plan) -> impl Future<Output = Self::Report> + Send;

    /// From the start of one scrape to the start of the next, as of now. Above zero.
    fn interval(&self, plan: &Self::Plan) -> Duration;

    /// When to scrape after a scrape that ended at `now`.
    fn next(&self, plan: &Self::Plan, cadence: &mut Cadence, now: Moment) -> Moment;

    /// Whether a scrape under `plan` that is under way is worth nothing under `new`. Else its
    /// answer is awaited: breaking it off would cost its connection.
    fn is_void(plan: &Self::Plan, new: &Self::Plan) -> bool;

    /// Forgets what does not hold under the plan `new`. True where that is worth a scrape out
    /// of turn.
    fn adopt(&mut self, plan: &Self::Plan, new: &Self::Plan, now: Moment) -> bool;
}

/// One task. It has one request out at a time.
pub(crate) struct Task<S: Scrape> {
    scrape: S,
    plan: S::Plan,
    plans: watch::Receiver<S::Plan>,
    /// Looks out for other plans during a scrape, and leaves what it saw unseen in `plans`.
    ahead: watch::Receiver<S::Plan>,
    reports: mpsc::Sender<S::Report>,
    clock: Clock,
    seed: u64,
    interval: Duration,
    cadence: Cadence,
}

/// There are no more plans, or nobody takes reports any more.
struct Ended;

impl<S: Scrape> Task<S> {
    /// A task that spreads its scrapes by `seed`.
    pub(crate) fn new(
        scrape: S,
        plans: watch::Receiver<S::Plan>,
        reports: mpsc::Sender<S::Report>,
        clock: Clock,
        seed: u64,
    ) -> Self {
        let ahead = plans.clone();
        let plan = plans.borrow().clone();
        let interval = scrape.interval(&plan);
        let cadence = Cadence::new(clock.now(), interval, seed);
        Self { scrape, plan, plans, ahead, reports, clock, seed, interval, cadence }
    }

    /// Scrapes after `delay` and then in the rhythm of the plan, until there is no use in it any
    /// more.
    pub(crate) async fn run(mut self, delay: Duration) {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        self.plan = self.plans.borrow_and_update().clone();
        self.interval = self.scrape.interval(&self.plan);
        self.cadence = Cadence::new(self.clock.now(), self.interval, self.seed);
        loop {
            if self.scraping().await.is_err() || self.resting().await.is_err() {
                return;
            }
        }
    }

    /// Scrapes once and reports it, unless another plan makes it void.
    async fn scraping(&mut self) -> Result<(), Ended> {
        let report = tokio::select! {
            report = self.scrape.scrape(&self.plan) => report,
            () = voided::<S>(&mut self.ahead, &self.plan) => return Ok(()),
        };
        self.reports.send(report).await.map_err(|_| Ended)
    }

    /// Waits until the next scrape is due, and follows other plans meanwhile.
    async fn resting(&mut self) -> Result<(), Ended> {
        self.keep_rhythm();
        let mut due = self.scrape.next(&self.plan, &mut self.cadence, self.clock.now());
        loop {
            tokio::select! {
                biased;
                changed = self.plans.changed() => changed.map_err(|_| Ended)?,
                () = sleep_until(self.clock.instant(due)) => return Ok(()),
            }
            if self.adopt() {
                return Ok(());
            }
            if self.keep_rhythm() {
                due = self.cadence.next(self.clock.now(), false);
            }
        }
    }

    /// Follows the newest plan. True where it is worth a scrape out of turn.
    fn adopt(&mut self) -> bool {
        let new = self.plans.borrow_and_update().clone();
        let at_once = self.scrape.adopt(&self.plan, &new, self.clock.now());
        self.plan = new;
        at_once
    }

    /// Brings the cadence in line with the interval. True where that is another.
    fn keep_rhythm(&mut self) -> bool {
        let interval = self.scrape.interval(&self.plan);
        let is_other = interval != self.interval;
        if is_other {
            self.interval = interval;
            self.cadence = Cadence::new(self.clock.now(), interval, self.seed);
        }
        is_other
    }
}

/// Waits until the newest plan makes a scrape under `plan` void.
async fn voided<S: Scrape>(plans: &mut watch::Receiver<S::Plan>, plan: &S::Plan) {
    if plans.wait_for(|newest| S::is_void(plan, newest)).await.is_err() {
        // The pool is gone. That is noticed after the scrape.
        std::future::pending::<()>().await;
    }
}
