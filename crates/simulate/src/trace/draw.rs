//! Draws of gaps and lengths, the same on every machine: the logarithms and exponentials are
//! `libm`'s, not the platform's.

use crate::random::Random;

/// A gamma distribution of mean 1, by its coefficient of variation: 1 is the exponential of
/// independent arrivals, above it they bunch, 0 is a metronome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitGamma {
    shape: f64,
}

impl UnitGamma {
    #[must_use]
    pub fn of_cv(cv: f64) -> Self {
        Self { shape: 1.0 / (cv * cv).max(1e-6) }
    }

    /// Marsaglia and Tsang, "A simple method for generating gamma variables" (2000).
    pub fn draw(self, random: &mut Random) -> f64 {
        // Below shape 1 the draw is made at shape + 1 and pulled down.
        let (shape, pull) = if self.shape < 1.0 {
            (self.shape + 1.0, libm::pow(1.0 - random.unit(), 1.0 / self.shape))
        } else {
            (self.shape, 1.0)
        };
        let offset = shape - 1.0 / 3.0;
        let slope = 1.0 / (9.0 * offset).sqrt();
        loop {
            let normal = random.normal();
            let base = 1.0 + slope * normal;
            if base <= 0.0 {
                continue;
            }
            let cube = base * base * base;
            let level = libm::log(1.0 - random.unit());
            if level < 0.5 * normal * normal + offset * (1.0 - cube + libm::log(cube)) {
                return pull * offset * cube / self.shape;
            }
        }
    }
}

/// A log-normal distribution of token counts, cut at a largest count.
///
/// It keeps the median and the mean it was made from: the mean is what the replicas' work
/// comes from. The 95th percentile gives the width; where that width makes the mean too large,
/// as with prompts of which half have 60 tokens and a few have 20,000, the upper end is cut
/// where the mean is right, and where it makes it too small the width follows from the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    /// The logarithm of the median.
    location: f64,
    width: f64,
    /// No draw is larger.
    largest: f64,
}

/// The 95th percentile of the standard normal distribution.
const Z95: f64 = 1.644_853_626_951_472_2;

impl Lengths {
    /// Of a median, a mean and a 95th percentile, all above 0 and `median ≤ p95`.
    #[must_use]
    pub fn of(mean: f64, median: f64, p95: f64) -> Self {
        let location = libm::log(median);
        let width = libm::log(p95 / median) / Z95;
        let uncut = Self { location, width, largest: f64::INFINITY };
        if uncut.mean() < mean {
            let width = (2.0 * libm::log(mean / median)).max(0.0).sqrt();
            return Self { location, width, largest: f64::INFINITY };
        }
        // The mean grows with the cut.
        let (mut low, mut high) = (median.min(mean), p95.max(mean) * 1024.0);
        for _ in 0..80 {
            let middle = (low * high).sqrt();
            if (Self { largest: middle, ..uncut }).mean() < mean {
                low = middle;
            } else {
                high = middle;
            }
        }
        Self { largest: high, ..uncut }
    }

    /// Of a mean alone: as wide as conversations are (p95 = 4.5 × the median).
    #[must_use]
    pub fn of_mean(mean: f64) -> Self {
        let width = libm::log(4.5) / Z95;
        let location = libm::log(mean.max(1.0)) - width * width / 2.0;
        Self { location, width, largest: f64::INFINITY }
    }

    #[must_use]
    pub fn mean(&self) -> f64 {
        let Self { location, width, largest } = *self;
        let whole = libm::exp(location + width * width / 2.0);
        if largest == f64::INFINITY {
            return whole;
        }
        if width == 0.0 {
            return libm::exp(location).min(largest);
        }
        let cut = (libm::log(largest) - location) / width;
        whole * below(cut - width) + largest * (1.0 - below(cut))
    }

    /// A count of tokens: at least 1.
    pub fn draw(&self, random: &mut Random) -> u32 {
        let drawn = libm::exp(self.location + self.width * random.normal()).min(self.largest);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let tokens = libm::round(drawn) as u32;
        tokens.max(1)
    }
}

/// The share of the standard normal distribution below `z`.
fn below(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(draws: &[f64]) -> (f64, f64) {
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let square = draws.iter().map(|draw| (draw - mean) * (draw - mean)).sum::<f64>();
        (mean, (square / draws.len() as f64).sqrt())
    }

    #[test]
    fn gaps_have_mean_one_and_the_coefficient_of_variation_that_was_asked_for() {
        for cv in [0.3, 1.0, 1.6, 2.0] {
            let mut random = Random::seeded(3);
            let gamma = UnitGamma::of_cv(cv);
            let draws: Vec<f64> = (0..200_000).map(|_| gamma.draw(&mut random)).collect();
            let (mean, deviation) = moments(&draws);
            assert!((mean - 1.0).abs() < 0.015, "cv {cv}: mean {mean}");
            assert!((deviation / mean / cv - 1.0).abs() < 0.02, "cv {cv}: {}", deviation / mean);
        }
    }

    #[test]
    fn lengths_keep_the_mean_and_the_median_of_the_table() {
        // The last: half of the prompts tiny, a few huge, which no uncut log-normal can be.
        for (mean, median, p95) in [(594.0, 370.0, 1376.0), (138.0, 51.0, 415.0), (1174.0, 56.0, 7890.0)] {
            let lengths = Lengths::of(mean, median, p95);
            assert!((lengths.mean() / mean - 1.0).abs() < 1e-6, "{lengths:?}");
            let mut random = Random::seeded(5);
            let mut draws: Vec<f64> = (0..200_000).map(|_| f64::from(lengths.draw(&mut random))).collect();
            let drawn = moments(&draws).0;
            assert!((drawn / mean - 1.0).abs() < 0.03, "mean {drawn} of {mean}");
            draws.sort_by(f64::total_cmp);
            assert!((draws[100_000] / median - 1.0).abs() < 0.02, "median {}", draws[100_000]);
        }
        let one = Lengths::of(1.0, 1.0, 1.0);
        assert_eq!(one.draw(&mut Random::seeded(1)), 1);
    }

    #[test]
    fn a_mean_alone_gives_lengths_of_that_mean() {
        assert!((Lengths::of_mean(211.0).mean() - 211.0).abs() < 1e-9);
    }

    /// The bytes of a run must not depend on the machine: these draws were made on x86-64.
    #[test]
    fn draws_are_the_same_everywhere() {
        let mut random = Random::seeded(42);
        let gamma = UnitGamma::of_cv(1.63);
        let lengths = Lengths::of(1174.0, 56.0, 7890.0);
        let gaps: Vec<u64> = (0..3).map(|_| gamma.draw(&mut random).to_bits()).collect();
        let tokens: Vec<u32> = (0..5).map(|_| lengths.draw(&mut random)).collect();
        assert_eq!(gaps, [4_589_600_411_422_681_099, 4_615_296_386_484_191_552, 4_608_598_583_583_098_950]);
        assert_eq!(tokens, [2, 202, 14, 34, 16_795]);
    }
}
