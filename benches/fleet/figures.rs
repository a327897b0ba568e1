//! Many measurements in few numbers.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// The middle and the bad end of many durations, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Spread {
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    pub(crate) fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let last = durations.len().saturating_sub(1);
        // The nearest rank, in integers.
        let at =
            |percent: usize| durations.get((last * percent).div_ceil(100)).map_or(f64::NAN, milliseconds);
        Self { count: durations.len(), p50: at(50), p99: at(99), max: at(100) }
    }
}

fn milliseconds(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// How late the requests to one endpoint came. The scaler keeps an endpoint on a grid of its
/// own, one interval wide; the request that came earliest on it is taken to be in time.
pub(crate) fn lags(arrivals: &[Instant], interval: Duration) -> Vec<Duration> {
    let Some(first) = arrivals.first() else { return vec![] };
    let step = interval.as_secs_f64();
    let off_grid = arrivals.iter().map(|at| {
        let passed = at.duration_since(*first).as_secs_f64();
        passed - (passed / step).round() * step
    });
    let off_grid: Vec<f64> = off_grid.collect();
    let earliest = off_grid.iter().copied().fold(f64::INFINITY, f64::min);
    off_grid.iter().map(|late| Duration::from_secs_f64(late - earliest)).collect()
}
