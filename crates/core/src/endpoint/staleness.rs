//! How old a sample may be before its endpoint counts as unknown.

use std::time::Duration;

/// Below this a single lost packet (the first retransmission comes after 1 s, the next ones
/// after 2 s and 4 s) would make an endpoint unknown.
const FLOOR: Duration = Duration::from_secs(5);

/// The age from which on a sample says nothing any more: long enough for three scrapes in a
/// row to fail, and for one that hangs until its timeout plus two that follow it.
#[must_use]
pub fn staleness_limit(interval: Duration, timeout: Duration) -> Duration {
    let three_scrapes = interval.saturating_mul(3);
    let one_hung_scrape = timeout.saturating_add(interval.saturating_mul(2));
    three_scrapes.max(one_hung_scrape).max(FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_largest_of_three() {
        let cases = [
            // interval, timeout, limit, in milliseconds
            (1_000, 3_000, 5_000),
            (1_000, 10_000, 12_000),
            (100, 300, 5_000),
            (5_000, 3_000, 15_000),
            (60_000, 90_000, 210_000),
        ];
        for (interval, timeout, limit) in cases {
            let [interval, timeout, limit] = [interval, timeout, limit].map(Duration::from_millis);
            assert_eq!(staleness_limit(interval, timeout), limit, "{interval:?} {timeout:?}");
        }
    }
}
