//! What the gateway of one InferenceSet was last heard to say.

use std::{sync::Arc, time::Duration};

use crate::core::{
    gateway::GatewaySample, pod::REJECTION_SPAN, sample::Histogram, staleness::staleness_limit, time::Moment,
    window::Window,
};

/// Where nothing is known of a gateway, its demand is unknown; where there is none, there is
/// nothing to know.
#[derive(Debug)]
pub struct GatewayState {
    latest: Option<(Moment, GatewaySample)>,
    refusals: Window,
    last_error: Option<Arc<str>>,
    /// There is no gateway, or a scrape of it has ended.
    tried: bool,
    staleness: Duration,
}

impl GatewayState {
    /// Of an InferenceSet without a gateway.
    #[must_use]
    pub fn none() -> Self {
        Self {
            latest: None,
            refusals: Window::new(REJECTION_SPAN),
            last_error: None,
            tried: true,
            staleness: Duration::ZERO,
        }
    }

    /// Of a gateway that is yet to be scraped.
    #[must_use]
    pub fn untried() -> Self {
        Self { tried: false, ..Self::none() }
    }

    /// For how long a sample speaks, given how it is scraped.
    pub fn paced(&mut self, interval: Duration, timeout: Duration) {
        self.staleness = staleness_limit(interval, timeout);
    }

    pub fn sampled(&mut self, at: Moment, outcome: Result<GatewaySample, Arc<str>>) {
        self.tried = true;
        match outcome {
            Ok(sample) => {
                let refused = Histogram { count: sample.refused_total, ..Histogram::default() };
                self.refusals.push(at, &refused);
                self.latest = Some((at, sample));
                self.last_error = None;
            }
            Err(error) => self.last_error = Some(error),
        }
    }

    /// Requests held, and refused over the last 30 s; `None` where that is unknown.
    #[must_use]
    pub fn demand(&self, now: Moment) -> Option<f64> {
        let (at, sample) = self.latest?;
        if now.saturating_since(at) >= self.staleness {
            return None;
        }
        let refused = self.refusals.delta().map_or(0.0, |delta| delta.increase.count);
        Some(sample.queued.unwrap_or(0.0) + refused)
    }

    /// When the newest sample was read.
    #[must_use]
    pub fn newest(&self) -> Option<Moment> {
        self.latest.map(|(at, _)| at)
    }

    #[must_use]
    pub fn was_tried(&self) -> bool {
        self.tried
    }

    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}
