//! What one scrape of one endpoint says, as small values: the aggregator folds these and
//! never sees a page.

use std::{fmt, sync::Arc};

use super::{usage::Nature, wanted::Wanted};
use crate::{endpoint::page_choice::PageKind, names::MetricName};

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
    /// What else there is to say, on the few pages that give reason to.
    pub remarks: Option<Box<Remarks>>,
}

/// What a page says that is no reading: why one is missing or may not be used, and what the page
/// is where no model server is known to write it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remarks {
    /// Wanted metrics that the page has, but not so that there is a reading.
    pub lacking: Vec<(MetricName, Lack)>,
    /// What wanted metrics are, as the page says, where the families' table has them not and
    /// they are no plain level.
    pub natures: Vec<(MetricName, Nature)>,
    /// The first families of a page on which no model server's are, and how many there are more.
    pub families: (Vec<String>, usize),
}

/// Why a page gives no reading of a wanted metric, though it has something of it. `Display` is a
/// sentence about the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lack {
    /// A series of it is NaN or infinite.
    NotANumber,
    /// There is its TYPE line, and no sample.
    NoSeries,
    /// It has series, and none with the labels that are asked for.
    OtherLabels,
    TooManyBounds,
    TooManySeries,
}

impl Lack {
    /// The most bounds of buckets that are told apart in one family of a page.
    pub const MOST_BOUNDS: usize = 1024;
    /// The most series that are told apart in one family of a page, where that is necessary.
    pub const MOST_SERIES: usize = 4096;
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber => f.write_str("its value is not a number"),
            Self::NoSeries => f.write_str("it has no series yet"),
            Self::OtherLabels => f.write_str("none of its series has these labels"),
            Self::TooManyBounds => {
                write!(f, "its buckets have more than {} different bounds", Self::MOST_BOUNDS)
            }
            Self::TooManySeries => f.write_str("it has too many series to look at the labels of each"),
        }
    }
}

impl PodSample {
    /// The reading of `metric`, or `None` where the page lacks it.
    #[must_use]
    pub fn reading(&self, metric: &MetricName) -> Option<&Reading> {
        self.readings.iter().find_map(|(name, reading)| (name == metric).then_some(reading))
    }

    /// Why there is no reading of `metric`, where the page says so.
    #[must_use]
    pub fn lack(&self, metric: &MetricName) -> Option<Lack> {
        let lacking = &self.remarks.as_ref()?.lacking;
        lacking.iter().find_map(|(name, lack)| (name == metric).then_some(*lack))
    }

    /// What `metric` is, where the page says that it is no plain level.
    #[must_use]
    pub fn nature(&self, metric: &MetricName) -> Option<Nature> {
        let natures = &self.remarks.as_ref()?.natures;
        natures.iter().find_map(|(name, nature)| (name == metric).then_some(*nature))
    }

    /// Of a page without any family of a model server: what it is instead, in a sentence.
    #[must_use]
    pub fn why_no_engine(&self) -> Option<Arc<str>> {
        if self.engine {
            return None;
        }
        if let Some(left) = self.download_remaining {
            return Some(format!("downloading, {left:.0} s left").into());
        }
        let remarks = self.remarks.as_ref();
        let (families, more) = remarks.map(|remarks| remarks.families.clone()).unwrap_or_default();
        let mut text = if families.is_empty() {
            "its page has no family of a model server".to_owned()
        } else {
            let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("its page is of no known model server: it has {}{and_more}", families.join(", "))
        };
        if !self.similar.is_empty() {
            text.push_str(&format!("; did you mean {}?", self.similar.join(" or ")));
        }
        Some(text.into())
    }

    /// The remarks, to add to.
    pub(super) fn remarks_mut(&mut self) -> &mut Remarks {
        self.remarks.get_or_insert_default()
    }
}

/// What the plain page of one endpoint said of metrics that it lacks. A filtered page has only
/// what was asked for, so it cannot say.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    similar: Vec<String>,
    remarks: Option<Box<Remarks>>,
}

impl Hints {
    /// Keeps what `sample` of a plain page says; adds it to one of a filtered page that still
    /// lacks something.
    pub fn follow(&mut self, page: PageKind, sample: &mut PodSample, wanted: &Wanted) {
        let nothing = self.similar.is_empty() && self.remarks.is_none();
        match page {
            PageKind::Plain => {
                self.similar.clone_from(&sample.similar);
                self.remarks.clone_from(&sample.remarks);
            }
            PageKind::Filtered if nothing => {}
            PageKind::Filtered if wanted.missing(sample).next().is_none() => self.forget(),
            PageKind::Filtered => {
                sample.similar.clone_from(&self.similar);
                let Some(earlier) = &self.remarks else { return };
                let missing = |metric: &MetricName, sample: &PodSample| sample.reading(metric).is_none();
                for (metric, lack) in &earlier.lacking {
                    if missing(metric, sample) && sample.lack(metric).is_none() {
                        sample.remarks_mut().lacking.push((metric.clone(), *lack));
                    }
                }
                for (metric, nature) in &earlier.natures {
                    if missing(metric, sample) && sample.nature(metric).is_none() {
                        sample.remarks_mut().natures.push((metric.clone(), *nature));
                    }
                }
            }
        }
    }

    /// What was learnt does not hold any more.
    pub fn forget(&mut self) {
        *self = Self::default();
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
