//! A small seeded generator, so that a simulation can be repeated exactly.

/// `SplitMix64`: one 64-bit state, equidistributed, good enough for arrivals and lengths.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        // The upper 53 bits are what an f64 holds exactly.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed with the given mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// A whole number of about `mean`, exponentially spread but within [mean / 4, 3 × mean],
    /// and at least 1: the lengths of prompts and answers.
    pub fn length(&mut self, mean: u32) -> u32 {
        let mean = f64::from(mean);
        let drawn = self.exponential(mean).clamp(mean / 4.0, mean * 3.0).round().max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 ≤ drawn ≤ 3 × u32")]
        let whole = drawn as u32;
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_same_seed_gives_the_same_run_and_the_mean_is_right() {
        let draws = |seed| {
            let mut random = Random::seeded(seed);
            (0..4000).map(|_| random.exponential(2.0)).collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        let mean = draws(7).iter().sum::<f64>() / 4000.0;
        assert!((1.9..2.1).contains(&mean), "mean {mean}");
    }

    #[test]
    fn lengths_stay_within_their_bounds() {
        let mut random = Random::seeded(1);
        assert!((0..4000).map(|_| random.length(40)).all(|length| (10..=120).contains(&length)));
        assert_eq!(random.length(0), 1);
    }
}
