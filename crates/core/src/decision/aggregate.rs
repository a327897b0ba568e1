//! The value of one metric, from its reading: a filled total, a mean, the largest, a quantile.

use super::{
    activation::Demand,
    fill::{Census, filled_total, histogram_quantile},
    readings::{Measured, MetricReading, Readings, Settled, not_a_histogram, not_a_level},
    snapshot::{Basis, Unavailable, Value},
};
use crate::config::trigger::Aggregation;

/// The value of a trigger's one metric, aggregated as it asks. `hold_in_flight`: a total is not
/// above `target` for each replica while some are on their way.
pub(super) fn single(
    aggregation: Aggregation,
    target: f64,
    hold_in_flight: bool,
    reading: &MetricReading,
    readings: &Readings,
) -> Result<Value, Unavailable> {
    match aggregation {
        Aggregation::Sum => total(reading, target, hold_in_flight),
        Aggregation::ServiceAvg => mean(reading),
        Aggregation::Max => largest(reading),
        Aggregation::WindowedAvg { .. } => windowed(reading, None, &readings.demand),
        Aggregation::Quantile { quantile, .. } => windowed(reading, Some(quantile), &readings.demand),
        Aggregation::Gate => gate(readings),
    }
}

/// 1 where every replica wanted is ready, or past its deadline and so not waited for.
pub(super) fn gate(readings: &Readings) -> Result<Value, Unavailable> {
    let Readings { ready, absent, census, .. } = readings;
    let open = ready.saturating_add(*absent) >= census.replicas;
    Value::new(f64::from(u8::from(open)), Basis::Gate { ready: *ready })
}

impl Settled {
    /// The value that the states of the replicas give; `target` is the spec's.
    pub(super) fn value(self, target: f64, census: Census) -> Result<Value, Unavailable> {
        match self {
            Self::NoReplicas => Value::new(0.0, Basis::NoReplicas),
            Self::AllInFlight => Value::new(target * f64::from(census.replicas), Basis::AllInFlight),
            Self::AllAbsent => Value::new(0.0, Basis::AllAbsent),
        }
    }
}

/// The filled total of a gauge or counter.
pub(super) fn total(
    reading: &MetricReading,
    target: f64,
    hold_in_flight: bool,
) -> Result<Value, Unavailable> {
    let (sum, _) = level(reading)?;
    let known = sum.max(0.0);
    let value = filled_total(known, target, reading.census);
    let cap = target * f64::from(reading.census.replicas);
    if hold_in_flight && reading.census.in_flight > 0 && value > cap {
        return Value::new(cap, Basis::Capped { known });
    }
    Value::new(value, Basis::Total { known })
}

/// A mean as a total over the replicas, those that are unknown or on their way filled in.
pub(super) fn as_total(
    mean: Value,
    target: f64,
    census: Census,
    hold_in_flight: bool,
) -> Result<Value, Unavailable> {
    let total = filled_total(mean.number() * f64::from(census.known), target, census);
    let cap = target * f64::from(census.replicas);
    let capped = hold_in_flight && census.in_flight > 0;
    Value::new(if capped { total.min(cap) } else { total }, mean.basis)
}

/// The mean of a gauge over the replicas that serve.
pub(super) fn mean(reading: &MetricReading) -> Result<Value, Unavailable> {
    let (sum, _) = level(reading)?;
    representative(reading)?;
    let mean = sum / f64::from(reading.census.known);
    Value::new(mean.max(0.0), Basis::Mean)
}

fn largest(reading: &MetricReading) -> Result<Value, Unavailable> {
    let (_, largest) = level(reading)?;
    representative(reading)?;
    Value::new(largest.max(0.0), Basis::Max)
}

/// The mean, or a quantile, of what a histogram observed over the window.
pub(super) fn windowed(
    reading: &MetricReading,
    quantile: Option<f64>,
    demand: &Demand,
) -> Result<Value, Unavailable> {
    let Measured::Window { increase, covered, warming_up } = reading.measured()? else {
        return Err(not_a_histogram(&reading.metric));
    };
    representative(reading)?;
    if !increase.count.is_finite() {
        return Err(Unavailable::OutOfRange(increase.count));
    }
    if increase.count <= 0.0 {
        // A server in which nothing ends may be idle or stuck; its queue tells which.
        return if demand.amount > 0.0 {
            Err(Unavailable::NothingEnded { metric: reading.metric.clone(), requests: demand.amount })
        } else {
            Value::new(0.0, Basis::IdleWindow)
        };
    }
    let value = match quantile {
        None => increase.sum / increase.count,
        Some(quantile) => histogram_quantile(quantile, increase).ok_or_else(|| Unavailable::WrongKind {
            metric: reading.metric.clone(),
            found: "a histogram without buckets",
            needed: "buckets for a quantile",
        })?,
    };
    let basis = Basis::Window { covered: *covered, warming_up: *warming_up };
    Value::new(value.max(0.0), basis)
}

/// The sum of a gauge over the replicas that serve, and the largest of them.
fn level(reading: &MetricReading) -> Result<(f64, f64), Unavailable> {
    match reading.measured()? {
        Measured::Level { sum, largest } => Ok((*sum, *largest)),
        Measured::Window { .. } => Err(not_a_level(&reading.metric)),
    }
}

/// Fails where the replicas that are known are fewer than those that are not.
fn representative(reading: &MetricReading) -> Result<(), Unavailable> {
    let Census { known, unknown, .. } = reading.census;
    if reading.census.mostly_unknown() {
        return Err(Unavailable::MostlyUnknown { unknown, known, reason: reading.reason.clone() });
    }
    Ok(())
}
