//! The one place that reads a clock, so that tests which pause tokio's time pause everything.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use scaler_core::time::Moment;

/// Turns tokio's monotonic time into [`Moment`]s. Cheap to copy; made once, in `run`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Instant,
    unix_at_anchor: Duration,
}

impl Clock {
    /// Anchors monotonic time to the wall clock as it stands now.
    #[must_use]
    pub fn start() -> Self {
        Self { anchor: Instant::now(), unix_at_anchor: Self::wall().since_unix() }
    }

    /// What the wall clock says, which may jump. Only certificates care: they are about dates.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one reading of the wall clock")]
    pub fn wall() -> Moment {
        let since_unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Moment::from_unix(since_unix.unwrap_or_default())
    }

    /// The current moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::from_unix(self.unix_at_anchor + self.anchor.elapsed())
    }

    /// The tokio instant at which `moment` comes; the anchor for moments before the start.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.anchor + moment.since_unix().saturating_sub(self.unix_at_anchor)
    }
}
