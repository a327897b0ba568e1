//! Several metrics, each with an up and a down threshold, combined into what the HPA gets.
//!
//! With target 1 on AverageValue, the value is a number of replicas: twice the current ones
//! to scale up, half to scale down, as many to hold. The HPA's behavior limits the step.

use super::{
    aggregate::{all_asleep, as_total, mean, total, windowed},
    readings::{MetricReading, Readings},
    snapshot::{Basis, Direction, Unavailable, Value},
};
use crate::{
    config::trigger::{Combine, Policy, PolicyKind, PolicyMetric},
    page,
};

/// One value for AND and OR, one for each metric for MAX.
pub(super) fn values(
    policy: &Policy,
    hold_in_flight: bool,
    readings: &Readings,
) -> Vec<Result<Value, Unavailable>> {
    match (policy.combine, &readings.metrics) {
        (Combine::And | Combine::Or, Err(settled)) => vec![settled.value(1.0, readings.census)],
        (Combine::And | Combine::Or, Ok(metrics)) => vec![combined(policy, metrics, readings)],
        (Combine::Max, Err(settled)) => {
            let value = |metric: &PolicyMetric| settled.value(metric.up_threshold, readings.census);
            policy.metrics.iter().map(value).collect()
        }
        (Combine::Max, Ok(metrics)) => {
            let pairs = policy.metrics.iter().zip(metrics);
            pairs.map(|(metric, reading)| proportional(metric, hold_in_flight, reading, readings)).collect()
        }
    }
}

fn combined(policy: &Policy, metrics: &[MetricReading], readings: &Readings) -> Result<Value, Unavailable> {
    let census = readings.census;
    if census.only_asleep() {
        return all_asleep(1.0, census);
    }
    let positions: Vec<_> = policy
        .metrics
        .iter()
        .zip(metrics)
        .map(|(metric, reading)| of(metric, reading, readings).map(|value| position(metric, value.number())))
        .collect();
    let direction = direction(policy.combine, census.in_flight > 0, &positions)?;
    let replicas = f64::from(census.replicas);
    let value = match direction {
        Direction::Up => 2.0 * replicas,
        Direction::Hold => replicas,
        Direction::Down => 0.5 * replicas,
    };
    Value::new(value, Basis::Policy(direction))
}

/// Where one metric stands to its thresholds.
fn position(metric: &PolicyMetric, value: f64) -> Direction {
    if value > metric.up_threshold {
        Direction::Up
    } else if value < metric.down_threshold {
        Direction::Down
    } else {
        Direction::Hold
    }
}

/// Up is refused while replicas are on their way: doubling what was just doubled would not
/// be scaling but guessing. Down needs every metric known and below. Fails only where no
/// metric is known.
fn direction(
    combine: Combine,
    in_flight: bool,
    readings: &[Result<Direction, Unavailable>],
) -> Result<Direction, Unavailable> {
    if let Some(Err(first)) = readings.iter().find(|_| readings.iter().all(Result::is_err)) {
        return Err(first.clone());
    }
    let every = |wanted: Direction| readings.iter().all(|reading| *reading == Ok(wanted));
    let any = |wanted: Direction| readings.contains(&Ok(wanted));
    let up = match combine {
        Combine::Or => any(Direction::Up),
        Combine::And | Combine::Max => every(Direction::Up),
    };
    Ok(if up && !in_flight {
        Direction::Up
    } else if every(Direction::Down) {
        Direction::Down
    } else {
        Direction::Hold
    })
}

/// The mean of one metric over the replicas that serve, or its quantile.
fn of(metric: &PolicyMetric, reading: &MetricReading, readings: &Readings) -> Result<Value, Unavailable> {
    match metric.kind {
        PolicyKind::Gauge => mean(reading),
        PolicyKind::Histogram { quantile, .. } => windowed(reading, quantile, &readings.demand),
    }
}

/// MAX: the metric itself against its up threshold, as a total; the HPA takes the largest.
/// What adds up over replicas is sent as the filled total. A ratio or a mean is sent as if each
/// replica that serves stood where the mean stands, filled in the same way: times all replicas
/// it would grow geometrically while those that were just asked for load.
fn proportional(
    metric: &PolicyMetric,
    hold_in_flight: bool,
    reading: &MetricReading,
    readings: &Readings,
) -> Result<Value, Unavailable> {
    if metric.kind == PolicyKind::Gauge && page::adds_up(metric.name.as_str()) {
        return total(reading, metric.up_threshold, hold_in_flight);
    }
    if readings.census.only_asleep() {
        return all_asleep(metric.up_threshold, readings.census);
    }
    let mean = of(metric, reading, readings)?;
    as_total(mean, metric.up_threshold, readings.census, hold_in_flight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions() {
        use Direction::{Down, Hold, Up};
        let unknown = || Err(Unavailable::NotSynced);
        // (readings, in flight, AND, OR)
        let cases = [
            (vec![Ok(Up), Ok(Up)], false, Ok(Up), Ok(Up)),
            (vec![Ok(Up), Ok(Hold)], false, Ok(Hold), Ok(Up)),
            (vec![Ok(Up), Ok(Down)], false, Ok(Hold), Ok(Up)),
            (vec![Ok(Up), Ok(Up)], true, Ok(Hold), Ok(Hold)),
            (vec![Ok(Down), Ok(Down)], false, Ok(Down), Ok(Down)),
            (vec![Ok(Down), Ok(Hold)], false, Ok(Hold), Ok(Hold)),
            // A metric that is unknown neither allows a scale-down nor completes an AND.
            (vec![Ok(Down), unknown()], false, Ok(Hold), Ok(Hold)),
            (vec![Ok(Up), unknown()], false, Ok(Hold), Ok(Up)),
            (vec![unknown(), unknown()], false, unknown(), unknown()),
            (vec![Ok(Down)], true, Ok(Down), Ok(Down)),
        ];
        for (readings, in_flight, and, or) in cases {
            assert_eq!(direction(Combine::And, in_flight, &readings), and, "AND {readings:?}");
            assert_eq!(direction(Combine::Or, in_flight, &readings), or, "OR {readings:?}");
        }
    }
}
