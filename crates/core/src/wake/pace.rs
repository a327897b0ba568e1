//! How often sources are scraped, so that all together stay within a budget.

use std::time::Duration;

/// The interval between two scrapes of a source, by what hangs on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// While one of its readers has no replica: it is the only source of demand then.
    pub asleep: Duration,
    /// Else.
    pub awake: Duration,
    /// Scrapes a second, of all sources together; 0 is without limit.
    pub budget: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { asleep: Duration::from_millis(100), awake: Duration::from_secs(5), budget: 500.0 }
    }
}

/// However many are awake, this part of the budget is for those asleep: they wait for it.
const SHARE_OF_SLEEPERS: f64 = 0.5;

impl Pace {
    /// The interval in force for each of `asleep` sources, with `awake` others: the one that is
    /// set, or longer, so that the budget is kept.
    #[must_use]
    pub fn asleep_interval(&self, asleep: usize, awake: usize) -> Duration {
        if self.budget <= 0.0 {
            return self.asleep;
        }
        let for_others = awake as f64 / self.awake.as_secs_f64();
        let left = (self.budget - for_others).max(self.budget * SHARE_OF_SLEEPERS);
        Self::stretched(self.asleep, asleep, left)
    }

    /// The interval in force for each of `awake` sources.
    #[must_use]
    pub fn awake_interval(&self, awake: usize) -> Duration {
        if self.budget <= 0.0 {
            return self.awake;
        }
        Self::stretched(self.awake, awake, self.budget * (1.0 - SHARE_OF_SLEEPERS))
    }

    /// Within which time after it was found each of so many `sources` is first read: the time
    /// that all take within the budget, so that many are not read in one moment.
    #[must_use]
    pub fn first_within(&self, sources: usize) -> Duration {
        if self.budget <= 0.0 {
            return self.asleep;
        }
        Duration::try_from_secs_f64(sources as f64 / self.budget).unwrap_or(self.awake).min(self.awake)
    }

    fn stretched(interval: Duration, sources: usize, per_second: f64) -> Duration {
        let needed = Duration::try_from_secs_f64(sources as f64 / per_second).unwrap_or(interval);
        interval.max(needed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_interval_is_stretched_evenly_beyond_the_budget() {
        let pace = Pace::default();
        for (asleep, awake, millis) in [
            (0, 0, 100),
            (1, 0, 100),
            (50, 0, 100),
            (51, 0, 102),
            (100, 0, 200),
            (1_000, 0, 2_000),
            (100, 500, 250),
            // However many are awake, half of the budget is for those asleep.
            (100, 100_000, 400),
        ] {
            let interval = pace.asleep_interval(asleep, awake);
            assert_eq!(interval.as_millis(), millis, "{asleep} {awake}");
        }
        assert_eq!(pace.awake_interval(1_250), Duration::from_secs(5));
        assert_eq!(pace.awake_interval(2_500), Duration::from_secs(10));
        assert_eq!(pace.first_within(1), Duration::from_millis(2));
        assert_eq!(pace.first_within(1_000), Duration::from_secs(2));
        assert_eq!(pace.first_within(1_000_000), pace.awake);
        let boundless = Pace { budget: 0.0, ..pace };
        assert_eq!(boundless.first_within(1_000), pace.asleep);
        assert_eq!(boundless.asleep_interval(10_000, 10_000), pace.asleep);
    }

    proptest! {
        #[test]
        fn the_budget_is_kept(asleep in 0..5_000_usize, awake in 0..5_000_usize, budget in 1.0..2_000.0_f64) {
            let pace = Pace { budget, ..Pace::default() };
            let often = asleep as f64 / pace.asleep_interval(asleep, awake).as_secs_f64();
            let seldom = awake as f64 / pace.awake_interval(awake).as_secs_f64();
            prop_assert!(often + seldom <= budget * 1.001, "{often} + {seldom} > {budget}");
        }
    }
}
