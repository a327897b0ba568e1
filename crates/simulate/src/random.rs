//! A small seeded generator whose draws are the same on every machine.

/// `SplitMix64`: one 64-bit state, equidistributed. Logarithms and the like come from the
/// `libm` crate, not from the platform.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator that this seed starts.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for one `purpose`, so that drawing more often for one does not
    /// shift what another draws.
    #[must_use]
    pub fn stream(seed: u64, purpose: u64) -> Self {
        let mut mixed = Self(seed ^ purpose.wrapping_mul(0xD1B5_4A32_D192_ED03));
        Self(mixed.next_u64())
    }

    /// Uniform over all 64-bit numbers.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        // The upper 53 bits are what an f64 holds exactly.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u32) -> u32 {
        let scaled = u128::from(self.next_u64()) * u128::from(bound);
        u32::try_from(scaled >> 64).unwrap_or(0)
    }

    /// Exponentially distributed with the given mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }

    /// Normally distributed with mean 0 and variance 1.
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn draws_are_pinned_and_have_their_moments() {
        assert_eq!(Random::seeded(0).next_u64(), 0xE220_A839_7B1D_CDAF);
        let mut random = Random::stream(7, 1);
        let draws = 20_000;
        let mean = (0..draws).map(|_| random.exponential(2.0)).sum::<f64>() / f64::from(draws);
        assert!((1.95..2.05).contains(&mean), "mean {mean}");
        let square = (0..draws).map(|_| random.normal().powi(2)).sum::<f64>() / f64::from(draws);
        assert!((0.96..1.04).contains(&square), "variance {square}");
        assert!((0..draws).all(|_| random.below(3) < 3));
    }
}
