//! Outcomes for tests of the report.

use crate::outcome::{Detail, Outcome, Point, Timeline};

/// An outcome of which only what matters here is set.
pub(crate) fn outcome(
    trace: &str,
    policy: &str,
    setting: &str,
    cold_start_seconds: f64,
    attainment: f64,
    replica_hours: f64,
) -> Outcome {
    Outcome {
        trace: trace.to_owned(),
        policy: policy.to_owned(),
        setting: setting.to_owned(),
        cold_start_seconds,
        requests: 19_366,
        attainment,
        ceiling: 0.995,
        replica_hours,
        loading_hours: replica_hours * 0.05,
        ttft_p50: 0.21,
        ttft_p95: 1.4,
        ttft_p99: 6.25,
        refused: 12,
        scale_ups: 9,
        scale_downs: 8,
        reversals: 3,
        detail: Detail {
            ttft_attainment: attainment,
            tpot_attainment: 0.999,
            timeline: timeline(),
            ..Detail::default()
        },
        ..Outcome::default()
    }
}

/// An hour with a wave of load, in intervals of 10 s.
fn timeline() -> Timeline {
    let points = (0..360_u32).map(|index| {
        let wave = libm::sin(f64::from(index) / 40.0).max(0.0);
        let jitter = f64::from(index * 7919 % 13) / 13.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let whole = |value: f64| value as u64;
        let serving = 2.0 + (wave * 4.0).floor();
        Point {
            arrivals: whole(20.0 + wave * 60.0 + jitter * 10.0),
            input_tokens: whole(24_000.0 + wave * 70_000.0),
            output_tokens: whole(4_000.0 + wave * 12_000.0),
            violations: whole((wave * jitter * 8.0).max(0.0)),
            wanted: serving + f64::from(u32::from(wave > 0.3)),
            serving,
            loading: f64::from(u32::from(wave > 0.3)),
            queued: wave * jitter * 40.0,
            ttft_p95: 0.2 + wave * jitter * 8.0,
        }
    });
    Timeline { interval_us: 10_000_000, points: points.collect() }
}
