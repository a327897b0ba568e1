//! One endpoint's life: what Kubernetes and its scrapes say, boiled down to a phase.

use std::{fmt, sync::Arc, time::Duration};

use super::{page_choice::PageKind, window::Window};
use crate::{
    fleet::model::{Endpoint, Readiness},
    names::MetricName,
    page::sample::{Histogram, PodSample, Reading},
    time::Moment,
};

/// Over how long refused requests count as demand.
pub const REJECTION_SPAN: Duration = Duration::from_secs(30);

/// What an endpoint counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No address yet.
    Pending,
    /// Never served since this pod appeared, and not Ready: capacity on its way.
    Loading,
    /// Has a fresh sample.
    Serving,
    /// Has a fresh sample that says the engine sleeps: no capacity, but its demand counts.
    Sleeping,
    /// Being deleted: left out.
    Draining,
    /// Should serve, but no good sample came for longer than the staleness limit: unknown.
    Stale,
}

impl Phase {
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Loading, Self::Serving, Self::Sleeping, Self::Draining, Self::Stale];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Loading => "Loading",
            Self::Serving => "Serving",
            Self::Sleeping => "Sleeping",
            Self::Draining => "Draining",
            Self::Stale => "Stale",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which window some target asks for. Pods keep one [`Window`] for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowKey {
    pub metric: MetricName,
    pub span: Duration,
}

/// An endpoint and all that its scrapes have told. Owned by the aggregator.
#[derive(Clone, Debug)]
pub struct Pod {
    pub endpoint: Endpoint,
    /// The newest good sample (one with families of an engine) and when it was read.
    latest: Option<(Moment, PodSample)>,
    /// For how long `latest` speaks, by the interval at which it was read: a shorter one that
    /// somebody asks for later does not make it old.
    speaks_for: Duration,
    /// Seconds until KAITO has the model, from a page without an engine.
    download_remaining: Option<f64>,
    rejections: Window,
    windows: Vec<(WindowKey, Window)>,
    /// Which page the newest answer came from.
    page: Option<PageKind>,
    /// Why the newest scrape failed; `None` where it did not.
    last_error: Option<Arc<str>>,
    /// What the page was that answered last, where it had no family of a model server.
    no_engine: Option<Arc<str>>,
    tried: bool,
}

impl Pod {
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            latest: None,
            speaks_for: Duration::ZERO,
            download_remaining: None,
            rejections: Window::new(REJECTION_SPAN),
            windows: Vec::new(),
            page: None,
            last_error: None,
            no_engine: None,
            tried: false,
        }
    }

    /// Keeps exactly the windows named by `keys`; those already there keep their samples.
    pub fn keep_windows(&mut self, keys: &[WindowKey]) {
        self.windows.retain(|(key, _)| keys.contains(key));
        for key in keys {
            if !self.windows.iter().any(|(have, _)| have == key) {
                self.windows.push((key.clone(), Window::new(key.span)));
            }
        }
    }

    /// Says for how long the samples speak that are taken in from now on, at least.
    pub fn speak_for(&mut self, staleness: Duration) {
        self.speaks_for = staleness;
    }

    /// Until when the newest sample speaks, where they speak for `staleness` by now.
    #[must_use]
    pub fn speaks_until(&self, staleness: Duration) -> Option<Moment> {
        let (at, _) = self.latest.as_ref()?;
        Some(*at + self.speaks_for.max(staleness))
    }

    /// Takes in what a scrape of `page` read at `at`.
    pub fn sampled(&mut self, at: Moment, page: PageKind, sample: PodSample) {
        self.tried = true;
        self.page = Some(page);
        self.last_error = None;
        self.no_engine = sample.why_no_engine();
        self.download_remaining = sample.download_remaining;
        if !sample.engine {
            return;
        }
        let rejected = Histogram { count: sample.demand.rejected_total, ..Histogram::default() };
        self.rejections.push(at, &rejected);
        for (key, window) in &mut self.windows {
            if let Some(Reading::Histogram(histogram)) = sample.reading(&key.metric) {
                window.push(at, histogram);
            }
        }
        self.latest = Some((at, sample));
    }

    /// Takes in that a scrape failed, and why.
    pub fn failed(&mut self, error: Arc<str>) {
        self.tried = true;
        self.last_error = Some(error);
        self.download_remaining = None;
    }

    /// What the endpoint counts as at `now`, its samples speaking for `staleness`.
    #[must_use]
    pub fn phase(&self, now: Moment, staleness: Duration) -> Phase {
        if self.endpoint.readiness == Readiness::Terminating {
            return Phase::Draining;
        }
        if self.endpoint.address.is_none() {
            return Phase::Pending;
        }
        match &self.latest {
            Some((_, sample)) if self.speaks_until(staleness).is_some_and(|until| now < until) => {
                if sample.awake == Some(false) { Phase::Sleeping } else { Phase::Serving }
            }
            None if self.endpoint.readiness == Readiness::NotReady => Phase::Loading,
            _ => Phase::Stale,
        }
    }

    /// The newest good sample, however old.
    #[must_use]
    pub fn latest(&self) -> Option<(Moment, &PodSample)> {
        self.latest.as_ref().map(|(at, sample)| (*at, sample))
    }

    /// Whether the newest good sample says how many requests it holds.
    #[must_use]
    pub fn tells_demand(&self) -> bool {
        let demand = self.latest.as_ref().map(|(_, sample)| sample.demand);
        demand.is_some_and(|demand| demand.running.is_some() && demand.waiting.is_some())
    }

    #[must_use]
    pub fn window(&self, key: &WindowKey) -> Option<&Window> {
        self.windows.iter().find_map(|(have, window)| (have == key).then_some(window))
    }

    /// Requests refused over [`REJECTION_SPAN`].
    #[must_use]
    pub fn rejections(&self) -> f64 {
        self.rejections.delta().map_or(0.0, |delta| delta.increase.count)
    }

    /// What was read so far was not asked for everything.
    pub fn ask_again(&mut self) {
        self.tried = false;
    }

    /// Whether it can be said what can be known of it: a scrape has ended, well or not, or
    /// there is nothing to scrape.
    #[must_use]
    pub fn was_tried(&self) -> bool {
        self.tried || self.endpoint.address.is_none() || self.endpoint.readiness == Readiness::Terminating
    }

    #[must_use]
    pub fn page(&self) -> Option<PageKind> {
        self.page
    }

    /// Why the newest answer gave no sample.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref().or(self.no_engine.as_deref())
    }

    /// What stands against reading it, as of its newest answer; `None` where nothing does.
    #[must_use]
    pub fn obstacle(&self) -> Option<Arc<str>> {
        match (&self.last_error, self.download_remaining) {
            (Some(error), _) => Some(error.clone()),
            (None, Some(left)) => Some(format!("downloading, {left:.0} s left").into()),
            (None, None) if !self.tried => Some("no answer yet".into()),
            (None, None) => self.no_engine.clone(),
        }
    }

    #[must_use]
    pub fn download_remaining(&self) -> Option<f64> {
        self.download_remaining
    }
}
