//! Who asks for what, when: a rate that changes over time, and Poisson arrivals at that rate.

use std::time::Duration;

use super::random::Random;
use scaler_core::time::Moment;

/// One inference request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// When its client sent it.
    pub sent: Moment,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
}

/// One stretch of the scenario, with a rate that moves in a straight line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// For people: "burst", "plateau".
    pub name: &'static str,
    pub length: Duration,
    /// Requests per second at its start and at its end.
    pub rate: (f64, f64),
}

/// The whole scenario, stretch after stretch; afterwards nobody asks for anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule(pub Vec<Stretch>);

impl Schedule {
    #[must_use]
    pub fn length(&self) -> Duration {
        self.0.iter().map(|stretch| stretch.length).sum()
    }

    /// The stretch that covers `elapsed`, and how far it is through; `None` after the end.
    #[must_use]
    pub fn at(&self, elapsed: Duration) -> Option<(&Stretch, f64)> {
        let mut begins = Duration::ZERO;
        self.0.iter().find_map(|stretch| {
            let ends = begins + stretch.length;
            let inside = (begins..ends).contains(&elapsed);
            let through = (elapsed.saturating_sub(begins)).as_secs_f64() / stretch.length.as_secs_f64();
            begins = ends;
            inside.then_some((stretch, through))
        })
    }

    /// Requests per second at `elapsed`.
    #[must_use]
    pub fn rate(&self, elapsed: Duration) -> f64 {
        self.at(elapsed).map_or(0.0, |(stretch, through)| {
            let (first, last) = stretch.rate;
            first + (last - first) * through
        })
    }
}

/// The clients: draws arrivals that follow a [`Schedule`].
#[derive(Clone, Debug)]
pub struct Traffic {
    schedule: Schedule,
    random: Random,
    /// Mean tokens of a prompt and of an answer.
    tokens: (u32, u32),
    began: Moment,
    /// Everything before this has been drawn.
    drawn: Duration,
    /// Expected arrivals still to pass before the next one comes.
    until_next: f64,
}

/// The rate counts as constant over this; it also makes the arrivals independent of how often
/// anybody asks for them.
const GRID: Duration = Duration::from_millis(5);

impl Traffic {
    #[must_use]
    pub fn new(schedule: Schedule, tokens: (u32, u32), began: Moment, seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let until_next = random.exponential(1.0);
        Self { schedule, random, tokens, began, drawn: Duration::ZERO, until_next }
    }

    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The requests that came since the last call, up to `now`.
    pub fn arrivals(&mut self, now: Moment) -> Vec<Request> {
        let elapsed = now.saturating_since(self.began);
        let mut arrived = Vec::new();
        while self.drawn + GRID <= elapsed {
            let rate = self.schedule.rate(self.drawn);
            let mut left = rate * GRID.as_secs_f64();
            while self.until_next <= left {
                left -= self.until_next;
                let into = GRID.as_secs_f64() - left / rate;
                arrived.push(Request {
                    sent: self.began + self.drawn + Duration::from_secs_f64(into),
                    prompt_tokens: self.random.length(self.tokens.0),
                    output_tokens: self.random.length(self.tokens.1),
                });
                self.until_next = self.random.exponential(1.0);
            }
            self.until_next -= left;
            self.drawn += GRID;
        }
        arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        Schedule(vec![
            Stretch { name: "quiet", length: Duration::from_secs(10), rate: (0.0, 0.0) },
            Stretch { name: "ramp", length: Duration::from_secs(20), rate: (0.0, 40.0) },
            Stretch { name: "plateau", length: Duration::from_secs(20), rate: (30.0, 30.0) },
        ])
    }

    fn at(seconds: f64) -> Moment {
        Moment::from_unix(Duration::from_secs(1000)) + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_rate_follows_the_schedule() {
        let table =
            [(0.0, 0.0), (9.9, 0.0), (10.0, 0.0), (20.0, 20.0), (30.0, 30.0), (49.9, 30.0), (50.0, 0.0)];
        for (elapsed, rate) in table {
            assert!((schedule().rate(Duration::from_secs_f64(elapsed)) - rate).abs() < 1e-9, "at {elapsed}");
        }
        assert_eq!(schedule().at(Duration::from_secs(12)).map(|(stretch, _)| stretch.name), Some("ramp"));
    }

    #[test]
    fn arrivals_are_as_many_as_the_rate_says_and_lie_where_they_were_drawn() {
        let mut traffic = Traffic::new(schedule(), (100, 50), at(0.0), 3);
        let quiet = traffic.arrivals(at(10.0));
        let ramp = traffic.arrivals(at(30.0));
        let plateau = traffic.arrivals(at(60.0));
        assert_eq!(quiet, []);
        // 400 and 600 are expected; five standard deviations either way.
        assert!((300..500).contains(&ramp.len()), "{}", ramp.len());
        assert!((480..720).contains(&plateau.len()), "{}", plateau.len());
        assert!(ramp.iter().all(|request| (at(10.0)..at(30.01)).contains(&request.sent)));
        assert!(ramp.windows(2).all(|pair| pair[0].sent <= pair[1].sent));
    }

    #[test]
    fn asking_more_often_changes_nothing() {
        let whole = Traffic::new(schedule(), (100, 50), at(0.0), 3).arrivals(at(40.0));
        let mut traffic = Traffic::new(schedule(), (100, 50), at(0.0), 3);
        let pieces: Vec<_> =
            (0..=4000).flat_map(|step| traffic.arrivals(at(f64::from(step) / 100.0))).collect();
        assert_eq!(whole, pieces);
    }
}
