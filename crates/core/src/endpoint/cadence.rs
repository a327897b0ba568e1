//! When an endpoint is scraped next.
//!
//! The first scrape comes at once. The second one comes after a part of the interval that
//! differs from endpoint to endpoint; it puts the endpoint on a grid of its own, on which it
//! stays. So a fleet that was discovered in one moment spreads its scrapes over the whole
//! interval, without a random number at every tick. Grid points that pass while a request is
//! out are skipped, never made up for.

use std::time::Duration;

use crate::time::Moment;

/// The longest wait between two tries at an endpoint that does not answer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// The scrape times of one endpoint.
#[derive(Clone, Debug)]
pub struct Cadence {
    interval: Duration,
    /// A point of the grid.
    grid: Moment,
    /// Tries since the endpoint became Stale.
    stale_tries: u32,
}

impl Cadence {
    /// The cadence of an endpoint whose first scrape is at `start`. `seed` decides where its
    /// grid lies; endpoints with different seeds lie spread over the interval.
    #[must_use]
    pub fn new(start: Moment, interval: Duration, seed: u64) -> Self {
        // A quarter first, so that no endpoint is scraped twice in a row without a pause.
        let phase = interval / 4 + interval.mul_f64(unit_fraction(seed));
        Self { interval, grid: start + phase, stale_tries: 0 }
    }

    /// When to scrape after a scrape that ended at `now`. `stale` says that the endpoint
    /// served once and has not answered for longer than the staleness limit.
    pub fn next(&mut self, now: Moment, stale: bool) -> Moment {
        if stale {
            // An interval above the cap is no reason to try more often than asked for.
            let cap = LONGEST_BACKOFF.max(self.interval);
            let doubled = self.interval.saturating_mul(1 << self.stale_tries.min(16));
            self.stale_tries += 1;
            return now + doubled.min(cap);
        }
        self.stale_tries = 0;
        self.next_on_grid(now)
    }

    fn next_on_grid(&self, now: Moment) -> Moment {
        if now < self.grid {
            return self.grid;
        }
        let interval = self.interval.as_nanos().max(1);
        let passed = now.saturating_since(self.grid).as_nanos() / interval + 1;
        self.grid + Duration::from_nanos(u64::try_from(passed * interval).unwrap_or(u64::MAX))
    }
}

/// Maps a seed to [0, 1), so that neighbouring seeds lie far apart (the finalizer of
/// splitmix64).
#[must_use]
pub fn unit_fraction(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_unix(Duration::from_secs(1_000));
    const SECOND: Duration = Duration::from_secs(1);

    fn gap(from: Moment, to: Moment) -> f64 {
        to.saturating_since(from).as_secs_f64()
    }

    #[test]
    fn the_second_scrape_comes_between_a_quarter_and_five_quarters_and_then_each_interval() {
        for seed in 0..1_000 {
            let mut cadence = Cadence::new(START, SECOND, seed);
            let second = cadence.next(START + Duration::from_millis(3), false);
            assert!((0.25..1.25).contains(&gap(START, second)), "{seed}: {}", gap(START, second));
            let third = cadence.next(second + Duration::from_millis(3), false);
            assert_eq!(third, second + SECOND, "{seed}");
        }
    }

    #[test]
    fn a_fleet_found_in_one_moment_spreads_evenly() {
        let mut tenths = [0; 10];
        for seed in 0..10_000 {
            let second = Cadence::new(START, SECOND, seed).next(START, false);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in 0..10")]
            let tenth = ((gap(START, second) - 0.25) * 10.0) as usize;
            tenths[tenth] += 1;
        }
        assert!(tenths.iter().all(|n| (850..1_150).contains(n)), "{tenths:?}");
    }

    #[test]
    fn ticks_that_pass_during_a_scrape_are_skipped() {
        let mut cadence = Cadence::new(START, SECOND, 7);
        let second = cadence.next(START, false);
        let after_a_hung_scrape = second + Duration::from_millis(3_100);
        assert_eq!(cadence.next(after_a_hung_scrape, false), second + 4 * SECOND);
        // Exactly on the grid: the next point, not this one again.
        assert_eq!(cadence.next(second, false), second + SECOND);
    }

    #[test]
    fn backs_off_only_while_stale_and_at_most_to_ten_seconds() {
        let mut cadence = Cadence::new(START, SECOND, 7);
        let gaps: Vec<f64> = (0..7).map(|_| gap(START, cadence.next(START, true))).collect();
        assert_eq!(gaps, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]);
        assert!(gap(START, cadence.next(START, false)) < 1.25, "back on the grid");
        assert_eq!(cadence.next(START, true), START + SECOND, "starts anew");
    }

    #[test]
    fn never_tries_more_often_than_the_interval() {
        let mut cadence = Cadence::new(START, 60 * SECOND, 7);
        for _ in 0..40 {
            assert_eq!(cadence.next(START, true), START + 60 * SECOND);
        }
    }
}
