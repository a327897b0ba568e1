//! What one scrape of one endpoint says, as small values: the aggregator folds these and
//! never sees a page.

use crate::names::MetricName;

/// One scrape of one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSample {
    /// One entry for each wanted metric that the page has; a wanted metric without an entry
    /// is missing, which is not the same as 0.
    pub readings: Vec<(MetricName, Reading)>,
    pub demand: PodDemand,
    /// `Some(false)` while the engine sleeps (`vllm:engine_sleep_state`).
    pub awake: Option<bool>,
    /// Seconds until KAITO has downloaded the model, where it says so.
    pub download_remaining: Option<f64>,
    /// Whether the page has any family of a model server. KAITO answers with only its own
    /// gauges while the model downloads.
    pub engine: bool,
    /// Names on the page that resemble a wanted metric which the page lacks ("did you mean").
    /// Only a plain page can tell; empty else.
    pub similar: Vec<String>,
}

impl PodSample {
    /// The reading of `metric`, or `None` where the page lacks it.
    #[must_use]
    pub fn reading(&self, metric: &MetricName) -> Option<&Reading> {
        self.readings.iter().find_map(|(name, reading)| (name == metric).then_some(reading))
    }
}

/// What one endpoint says about the requests it holds. `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PodDemand {
    /// Requests that wait for the engine, summed over engines.
    pub waiting: Option<f64>,
    /// Requests that the engine works on, summed over engines.
    pub running: Option<f64>,
    /// Requests refused since the server started (KAITO's rate limit and vLLM's admission
    /// control), a cumulative count. A counter that has no series yet is 0.
    pub rejected_total: f64,
}

/// The value of one family on one page, its series merged.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// A gauge, counter or untyped family; finite.
    Value(f64),
    Histogram(Histogram),
}

/// A cumulative histogram, merged over label sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Observations so far.
    pub count: f64,
    /// Sum of what was observed, in the family's unit.
    pub sum: f64,
    /// Upper bounds in rising order, each with the number of observations at or below it;
    /// the last bound is +Inf. Empty where buckets were not asked for.
    pub buckets: Vec<(f64, f64)>,
}
