//! How often wake sources are read, so that all together stay within a budget.

use std::time::Duration;

/// The bounds of how often wake sources are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// The shortest interval between two readings of an endpoint of a source that sleeps: one of
    /// its readers has no replica, and no other source of demand.
    pub asleep: Duration,
    /// Readings a second, of all endpoints of all sources together; 0 is without limit.
    pub budget: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { asleep: Duration::from_millis(20), budget: 2_000.0 }
    }
}

/// What is to be read, against the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Endpoints of sources that sleep.
    pub asleep: u64,
    /// Readings a second that are wanted of the endpoints of all others.
    pub awake: f64,
}

/// However much is wanted of those awake, this part of the budget is for those asleep: they wait
/// for it.
const SHARE_OF_SLEEPERS: f64 = 0.5;
/// No source is read more than 50 times a second, all of its endpoints together.
const LEAST_OF_A_SOURCE: Duration = Duration::from_millis(20);
/// An interval that is short enough for any wake-up: a shorter one is for when it costs little.
const SHORT: Duration = Duration::from_millis(100);
/// Readings a second that intervals below [`SHORT`] may cost.
const LITTLE: f64 = 500.0;
/// Many that are found in one moment are all read once within this time.
const LONGEST_START: Duration = Duration::from_secs(5);

impl Pace {
    /// The interval in force for each of the `endpoints` of a source that sleeps. All sleepers
    /// have the same one, as far as [`Self::asleep`] and 50 readings a second of one source
    /// allow: the shortest while few sleep, then 100 ms, and longer where the budget asks for
    /// that.
    #[must_use]
    pub fn asleep_interval(&self, load: Load, endpoints: usize) -> Duration {
        let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
        let least = self.asleep.max(LEAST_OF_A_SOURCE.saturating_mul(endpoints));
        let left = self.left_for_sleepers(load.awake);
        let even = |per_second: f64| interval_of(load.asleep as f64, per_second);
        let eager = even(left.min(LITTLE));
        if eager <= SHORT { least.max(eager) } else { least.max(SHORT).max(even(left)) }
    }

    /// Whether sleepers are read less often than they are to be, and than is short enough, to
    /// keep the budget.
    #[must_use]
    pub fn is_stretched(&self, load: Load) -> bool {
        self.asleep_interval(load, 1) > self.asleep.max(SHORT)
    }

    /// The interval in force for each of the `endpoints` of a source that is awake and is to be
    /// read every `wanted`.
    #[must_use]
    pub fn awake_interval(&self, load: Load, wanted: Duration, endpoints: usize) -> Duration {
        let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
        let least = wanted.max(LEAST_OF_A_SOURCE.saturating_mul(endpoints));
        if self.budget <= 0.0 {
            return least;
        }
        let stretch = load.awake / (self.budget * (1.0 - SHARE_OF_SLEEPERS));
        if stretch > 1.0 { least.max(stretched(wanted, stretch)) } else { least }
    }

    /// Within which time after it was found each of so many `endpoints` is first read: the time
    /// that all take within the budget, so that many are not read in one moment.
    #[must_use]
    pub fn first_within(&self, endpoints: u64) -> Duration {
        let budget = if self.budget > 0.0 { self.budget } else { f64::INFINITY };
        interval_of(endpoints as f64, budget).min(LONGEST_START)
    }

    fn left_for_sleepers(&self, awake: f64) -> f64 {
        if self.budget <= 0.0 {
            return f64::INFINITY;
        }
        (self.budget - awake).max(self.budget * SHARE_OF_SLEEPERS)
    }
}

/// The interval at which so many `endpoints` are read `per_second` in all.
fn interval_of(endpoints: f64, per_second: f64) -> Duration {
    Duration::try_from_secs_f64(endpoints / per_second).unwrap_or(Duration::MAX)
}

fn stretched(interval: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(interval.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn sleepers_are_read_often_while_they_are_few_and_evenly_less_often_beyond_the_budget() {
        let pace = Pace::default();
        let set = Pace { asleep: millis(100), ..pace };
        let as_before = Pace { asleep: millis(100), budget: 500.0 };
        let seldom = Pace { asleep: Duration::from_secs(1), ..pace };
        let boundless = Pace { budget: 0.0, ..pace };
        for (pace, asleep, awake, expected) in [
            (pace, 0, 0.0, 20),
            (pace, 1, 0.0, 20),
            (pace, 10, 0.0, 20),
            (pace, 25, 0.0, 50),
            (pace, 50, 0.0, 100),
            (pace, 200, 0.0, 100),
            (pace, 400, 0.0, 200),
            (pace, 1_000, 0.0, 500),
            (pace, 1_000, 500.0, 666),
            // However much is wanted of others, half of the budget is for those asleep.
            (pace, 1_000, 100_000.0, 1_000),
            // An interval that is set is the shortest.
            (set, 1, 0.0, 100),
            (set, 200, 0.0, 100),
            (set, 1_000, 0.0, 500),
            (seldom, 1, 0.0, 1_000),
            (seldom, 3_000, 0.0, 1_500),
            (as_before, 50, 0.0, 100),
            (as_before, 51, 0.0, 102),
            (as_before, 1_000, 0.0, 2_000),
            (as_before, 100, 100.0, 250),
            (boundless, 10, 0.0, 20),
            (boundless, 10_000, 10_000.0, 100),
        ] {
            let interval = pace.asleep_interval(Load { asleep, awake }, 1);
            assert_eq!(interval.as_millis(), expected, "{pace:?} {asleep} {awake}");
        }
    }

    #[test]
    fn a_source_is_read_at_most_fifty_times_a_second() {
        let pace = Pace { asleep: millis(1), budget: 0.0 };
        let load = Load::default();
        for (endpoints, expected) in [(1, 20), (2, 40), (5, 100)] {
            assert_eq!(pace.asleep_interval(load, endpoints), millis(expected));
            assert_eq!(pace.awake_interval(load, millis(10), endpoints), millis(expected));
        }
    }

    #[test]
    fn those_awake_are_read_as_often_as_their_replicas() {
        let pace = Pace { budget: 500.0, ..Pace::default() };
        for (awake, wanted, expected) in
            [(0.0, 1_000, 1_000), (250.0, 1_000, 1_000), (500.0, 1_000, 2_000), (500.0, 5_000, 10_000)]
        {
            let load = Load { asleep: 7, awake };
            assert_eq!(pace.awake_interval(load, millis(wanted), 1), millis(expected), "{awake} {wanted}");
        }
        let boundless = Pace { budget: 0.0, ..pace };
        assert_eq!(boundless.awake_interval(Load { asleep: 0, awake: 1e6 }, millis(1_000), 1), millis(1_000));
    }

    #[test]
    fn many_that_are_found_in_one_moment_are_not_read_in_one() {
        let pace = Pace { budget: 500.0, ..Pace::default() };
        assert_eq!(pace.first_within(1), millis(2));
        assert_eq!(pace.first_within(1_000), millis(2_000));
        assert_eq!(pace.first_within(1_000_000), LONGEST_START);
        assert_eq!(Pace { budget: 0.0, ..pace }.first_within(1_000), Duration::ZERO);
    }

    #[test]
    fn a_stretch_is_told_where_it_is_longer_than_anybody_asked_for() {
        for (asleep, millis_set, expected) in
            [(10, 20, false), (200, 20, false), (201, 20, true), (400, 200, false), (401, 200, true)]
        {
            let pace = Pace { asleep: millis(millis_set), ..Pace::default() };
            assert_eq!(pace.is_stretched(Load { asleep, awake: 0.0 }), expected, "{asleep} {millis_set}");
        }
    }

    proptest! {
        #[test]
        fn the_budget_is_kept(
            asleep in 0..5_000_u64,
            awake in proptest::collection::vec((1_usize..4, 20..10_000_u64), 0..100),
            budget in 1.0..3_000.0_f64,
        ) {
            let pace = Pace { budget, ..Pace::default() };
            let wanted = |(endpoints, wanted): &(usize, u64)| *endpoints as f64 * 1e3 / *wanted as f64;
            let load = Load { asleep, awake: awake.iter().map(wanted).sum() };
            let often = asleep as f64 / pace.asleep_interval(load, 1).as_secs_f64();
            let others: f64 = awake
                .iter()
                .map(|(endpoints, wanted)| {
                    let interval = pace.awake_interval(load, millis(*wanted), *endpoints);
                    *endpoints as f64 / interval.as_secs_f64()
                })
                .sum();
            prop_assert!(often + others <= budget * 1.001, "{often} + {others} > {budget}");
        }
    }
}
