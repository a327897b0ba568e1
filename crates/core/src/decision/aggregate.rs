//! The value of one metric, from its reading: a filled total, a mean, the largest, a quantile.

use super::{
    activation::Demand,
    fill::{Census, filled_total, histogram_quantile},
    readings::{Level, Measured, MetricReading, Readings, Settled, Window, not_a_histogram, not_a_level},
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
    if aggregation != Aggregation::Sum && readings.census.only_asleep() {
        return all_asleep(target, readings.census);
    }
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

/// The value of what only replicas that serve can tell, where all that are there sleep: hold.
pub(super) fn all_asleep(target: f64, census: Census) -> Result<Value, Unavailable> {
    Value::new(target * f64::from(census.replicas), Basis::AllAsleep)
}

/// The filled total of a gauge.
pub(super) fn total(
    reading: &MetricReading,
    target: f64,
    hold_in_flight: bool,
) -> Result<Value, Unavailable> {
    let level = level(reading)?;
    let known = (level.sum + level.asleep).max(0.0);
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
    let level = level(reading)?;
    representative(reading)?;
    let mean = level.sum / f64::from(reading.census.known);
    Value::new(mean.max(0.0), Basis::Mean)
}

fn largest(reading: &MetricReading) -> Result<Value, Unavailable> {
    let level = level(reading)?;
    representative(reading)?;
    Value::new(level.largest, Basis::Max)
}

/// The mean, or a quantile, of what a histogram observed over the window.
pub(super) fn windowed(
    reading: &MetricReading,
    quantile: Option<f64>,
    demand: &Demand,
) -> Result<Value, Unavailable> {
    let Measured::Window(window) = reading.measured()? else {
        return Err(not_a_histogram(&reading.metric));
    };
    let increase = &window.increase;
    representative(reading)?;
    if !increase.count.is_finite() {
        return Err(Unavailable::OutOfRange(increase.count));
    }
    if increase.count <= 0.0 {
        return match held(window, reading.census, demand) {
            Some(0.0) => Value::new(0.0, Basis::IdleWindow),
            requests => Err(Unavailable::NothingEnded { metric: reading.metric.clone(), requests }),
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
    let basis = Basis::Window { covered: window.covered, warming_up: window.warming_up };
    Value::new(value.max(0.0), basis)
}

/// The requests that are held where nothing ended within a window: a server in which nothing ends
/// may be idle or stuck, and these tell which. `None` where more replicas do not say than do.
fn held(window: &Window, census: Census, demand: &Demand) -> Option<f64> {
    let unknown = census.unknown.saturating_add(window.silent);
    let known = census.known.saturating_sub(window.silent);
    (demand.amount > 0.0 || unknown <= known).then_some(demand.amount)
}

fn level(reading: &MetricReading) -> Result<Level, Unavailable> {
    match reading.measured()? {
        Measured::Level(level) => Ok(*level),
        Measured::Window(_) => Err(not_a_level(&reading.metric)),
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
