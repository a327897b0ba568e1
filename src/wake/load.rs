//! What the tasks of one pool read, against the budget.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tracing::{info, warn};

use scaler_core::wake::pace::{self, Pace};

/// What all sources of a pool want to be read. Their tasks look here before each wait, so that
/// a change costs nothing.
#[derive(Debug)]
pub(super) struct Load {
    /// Whose readings these are, for logs.
    name: &'static str,
    pace: Pace,
    /// Endpoints of sources that sleep.
    asleep: AtomicU64,
    /// Readings of the others that are wanted in 1,000 seconds.
    awake: AtomicU64,
    /// Whether it was told that sleepers are read less often.
    told_stretched: AtomicBool,
    /// The interval in force for those asleep, in seconds.
    exported: Gauge<f64, AtomicU64>,
}

impl Load {
    pub(super) fn new(name: &'static str, pace: Pace, exported: Gauge<f64, AtomicU64>) -> Arc<Self> {
        let load = Self {
            name,
            pace,
            asleep: AtomicU64::new(0),
            awake: AtomicU64::new(0),
            told_stretched: AtomicBool::new(false),
            exported,
        };
        load.follow();
        Arc::new(load)
    }

    /// The interval for each of the `endpoints` of a source.
    pub(super) fn interval(&self, asleep: bool, wanted: Duration, endpoints: usize) -> Duration {
        let load = self.load();
        if asleep {
            self.pace.asleep_interval(load, endpoints)
        } else {
            self.pace.awake_interval(load, wanted, endpoints)
        }
    }

    /// Within which time after it was found an endpoint is first read.
    pub(super) fn first_within(&self) -> Duration {
        let load = self.load();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let awake = load.awake as u64;
        self.pace.first_within(load.asleep.saturating_add(awake))
    }

    fn load(&self) -> pace::Load {
        pace::Load { asleep: self.asleep.load(Relaxed), awake: self.awake.load(Relaxed) as f64 / 1_000.0 }
    }

    /// Exports the interval, and logs when it is stretched and when no longer.
    fn follow(&self) {
        let load = self.load();
        let interval = self.pace.asleep_interval(load, 1);
        self.exported.set(interval.as_secs_f64());
        let is_stretched = self.pace.is_stretched(load);
        if self.told_stretched.swap(is_stretched, Relaxed) == is_stretched {
            return;
        }
        let (name, asleep, budget) = (self.name, load.asleep, self.pace.budget);
        if is_stretched {
            warn!(
                name,
                asleep,
                ?interval,
                budget,
                "wake sources are read less often, to stay within the budget"
            );
        } else {
            info!(name, asleep, ?interval, "wake sources are read as often as they are to be again");
        }
    }
}

/// What one source adds to the load, until this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    load: Arc<Load>,
    asleep: u64,
    awake: u64,
}

impl Share {
    pub(super) fn new(load: Arc<Load>) -> Self {
        Self { load, asleep: 0, awake: 0 }
    }

    /// So many `endpoints` are read, as sleepers or else every `wanted`.
    pub(super) fn set(&mut self, asleep: bool, wanted: Duration, endpoints: usize) {
        let endpoints = endpoints as u64;
        let (now_asleep, now_awake) = if asleep {
            (endpoints, 0)
        } else {
            let millis = u64::try_from(wanted.as_millis()).unwrap_or(u64::MAX).max(1);
            (0, endpoints.saturating_mul(1_000_000) / millis)
        };
        if (now_asleep, now_awake) == (self.asleep, self.awake) {
            return;
        }
        self.load.asleep.fetch_add(now_asleep.wrapping_sub(self.asleep), Relaxed);
        self.load.awake.fetch_add(now_awake.wrapping_sub(self.awake), Relaxed);
        (self.asleep, self.awake) = (now_asleep, now_awake);
        self.load.follow();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(true, Duration::ZERO, 0);
    }
}
