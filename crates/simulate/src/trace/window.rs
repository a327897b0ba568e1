//! Traffic as windows of time with a rate and lengths, and the requests that are drawn from
//! them.

use super::{
    Prefix, Request,
    draw::{Lengths, UnitGamma},
    log::{Findings, LogError},
    scaled::{Part, Scaling},
};
use crate::random::Random;

/// The largest coefficient of variation of the gaps between arrivals that is drawn with: a
/// platform's sum of bursty clients is less bursty than its clients are on average.
pub const LARGEST_CV: f64 = 2.0;

/// A stretch of time in which requests arrive at one rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Seconds since the trace's start.
    pub start: f64,
    /// Seconds, above 0.
    pub length: f64,
    /// Requests a second, 0 or more.
    pub rate: f64,
    /// Coefficient of variation of the gaps between arrivals; 1 is a Poisson process.
    pub cv: f64,
    /// `None` only where the rate is 0.
    pub lengths: Option<(Lengths, Lengths)>,
}

/// Windows in the order of their starts, and what was found on the way.
pub trait Windows: Send {
    /// The next window; `None` at the end.
    fn next_window(&mut self) -> Result<Option<Window>, LogError>;

    /// What was found so far.
    fn findings(&self) -> &Findings;
}

/// Requests drawn from windows: the same ones for the same seed.
///
/// Gaps are drawn in units of the mean gap, and a gap that reaches over the end of a window
/// goes on at the next one's rate; so no window starts with an arrival for its own sake.
pub struct Drawn {
    windows: Box<dyn Windows>,
    part: Part,
    scaling: Scaling,
    window: Option<(Window, UnitGamma)>,
    /// Seconds.
    now: f64,
    arrivals: Random,
    lengths: Random,
}

impl std::fmt::Debug for Drawn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Drawn").field("window", &self.window).finish_non_exhaustive()
    }
}

impl Drawn {
    #[must_use]
    pub fn new(windows: Box<dyn Windows>, part: Part, scaling: Scaling, seed: u64) -> Self {
        // One stream for the gaps and one for the lengths: that of the gaps then does not
        // depend on how many draws a length takes.
        let (arrivals, lengths) = (Random::stream(seed, 0xA1), Random::stream(seed, 0x1E));
        Self { windows, part, scaling, window: None, now: 0.0, arrivals, lengths }
    }

    /// Moves on to the next window; whether there is one.
    fn next_window(&mut self) -> Result<bool, LogError> {
        let mut window = loop {
            let next = self.windows.next_window()?;
            // What lies behind the part is not read.
            let next = next.filter(|window| window.start < self.part.skipped + self.part.length);
            let Some(mut window) = next else {
                self.window = None;
                return Ok(false);
            };
            if let Some((start, length)) = self.part.within(window.start, window.length) {
                (window.start, window.length) = (start, length);
                break window;
            }
        };
        window.start *= self.scaling.stretch();
        window.length *= self.scaling.stretch();
        window.rate *= self.scaling.scale() / self.scaling.stretch();
        // Between windows that do not touch nothing arrives.
        self.now = self.now.max(window.start);
        let gamma = UnitGamma::of_cv(window.cv.min(LARGEST_CV));
        self.window = Some((window, gamma));
        Ok(true)
    }

    /// What was found in the windows so far.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        self.windows.findings()
    }

    /// The next request; `None` at the end.
    pub fn next_request(&mut self) -> Result<Option<Request>, LogError> {
        let mut gap = None;
        loop {
            let Some((window, gamma)) = &self.window else {
                if self.next_window()? {
                    continue;
                }
                return Ok(None);
            };
            let end = window.start + window.length;
            let left = (end - self.now).max(0.0) * window.rate;
            let wanted = gap.unwrap_or_else(|| gamma.draw(&mut self.arrivals));
            if let Some((prompt, answer)) = &window.lengths
                && wanted < left
            {
                self.now += wanted / window.rate;
                return Ok(Some(Request {
                    at_us: microseconds(self.now),
                    input_tokens: prompt.draw(&mut self.lengths),
                    output_tokens: answer.draw(&mut self.lengths),
                    prefix: Prefix::UNKNOWN,
                }));
            }
            gap = Some(wanted - left);
            self.now = end;
            if !self.next_window()? {
                return Ok(None);
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a trace, 0 or more")]
pub(super) fn microseconds(seconds: f64) -> u64 {
    (seconds * 1e6 + 0.5) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: f64, rate: f64, cv: f64) -> Window {
        let lengths = Some((Lengths::of_mean(300.0), Lengths::of_mean(100.0)));
        Window { start, length: 600.0, rate, cv, lengths }
    }

    struct Listed(std::vec::IntoIter<Window>, Findings);

    impl Windows for Listed {
        fn next_window(&mut self) -> Result<Option<Window>, LogError> {
            Ok(self.0.next())
        }

        fn findings(&self) -> &Findings {
            &self.1
        }
    }

    fn scaled(windows: Vec<Window>, scaling: Scaling, seed: u64) -> Vec<Request> {
        let listed = Listed(windows.into_iter(), Findings::default());
        let mut drawn = Drawn::new(Box::new(listed), Part::default(), scaling, seed);
        std::iter::from_fn(|| drawn.next_request().unwrap()).collect()
    }

    fn drawn(windows: Vec<Window>, seed: u64) -> Vec<Request> {
        scaled(windows, Scaling::default(), seed)
    }

    #[test]
    fn each_window_has_its_rate_and_the_silence_between_them_is_silent() {
        let windows = vec![
            window(0.0, 20.0, 1.0),
            Window { lengths: None, ..window(600.0, 0.0, 0.0) },
            window(1_800.0, 5.0, 1.6),
        ];
        let requests = drawn(windows, 1);
        let within = |from: u64, to: u64| {
            requests
                .iter()
                .filter(|request| (from * 1_000_000..to * 1_000_000).contains(&request.at_us))
                .count()
        };
        assert!((11_600..12_400).contains(&within(0, 600)), "{}", within(0, 600));
        assert_eq!(within(600, 1_800), 0);
        assert!((2_700..3_300).contains(&within(1_800, 2_400)), "{}", within(1_800, 2_400));
        assert!(requests.is_sorted_by_key(|request| request.at_us));
    }

    #[test]
    fn gaps_go_on_over_the_edges_of_short_windows() {
        // A request every 100 s on average, in windows of 1 s.
        let windows: Vec<Window> =
            (0..100_000_u32).map(|at| Window { length: 1.0, ..window(f64::from(at), 0.01, 1.0) }).collect();
        let count = drawn(windows, 3).len();
        assert!((900..1_100).contains(&count), "{count}");
    }

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let run = |seed| drawn(vec![window(0.0, 3.0, 2.5)], seed);
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_part_begins_and_ends_within_windows() {
        let windows = vec![window(0.0, 10.0, 1.0), window(600.0, 1.0, 1.0), window(1_200.0, 10.0, 1.0)];
        let listed = Listed(windows.into_iter(), Findings::default());
        let part = Part { skipped: 300.0, length: 1_000.0 };
        let mut drawn = Drawn::new(Box::new(listed), part, Scaling::default(), 1);
        let requests: Vec<Request> = std::iter::from_fn(|| drawn.next_request().unwrap()).collect();
        let within = |from: u64, until: u64| {
            requests.iter().filter(|request| (from..until).contains(&(request.at_us / 1_000_000))).count()
        };
        assert!((2_700..3_300).contains(&within(0, 300)), "{}", within(0, 300));
        assert!((500..700).contains(&within(300, 900)), "{}", within(300, 900));
        assert!((850..1_150).contains(&within(900, 1_000)), "{}", within(900, 1_000));
        assert!(requests.iter().all(|request| request.at_us < 1_000_000_000));
    }

    #[test]
    fn windows_are_scaled_and_stretched() {
        let requests = scaled(vec![window(0.0, 10.0, 1.0)], Scaling::of(0.5, 4.0).unwrap(), 1);
        assert!((2_800..3_200).contains(&requests.len()), "{}", requests.len());
        assert!(requests.last().is_some_and(|last| (2_300_000_000..2_400_000_000).contains(&last.at_us)));
    }
}
