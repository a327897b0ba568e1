//! Time as a value: the core never reads a clock, it is told what time it is.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A point in time on the process's one clock, in nanoseconds since the Unix epoch.
///
/// The clock is anchored to the wall clock once, at start, and then runs on monotonic time
/// ([`clock::Clock`]); so moments never go backwards and can still be compared with
/// the timestamps that Kubernetes writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment that lies `since_epoch` after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_unix(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// The time between 1970-01-01T00:00:00Z and this moment.
    #[must_use]
    pub const fn since_unix(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this moment; zero where `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(rhs))
    }
}
