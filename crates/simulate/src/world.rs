//! The world around the policy: hardware, cold starts, router and what clients expect.

use std::{fmt, str::FromStr};

use crate::{engine::EngineSpec, random::Random};

/// Microseconds of a second.
pub const SECOND: u64 = 1_000_000;

/// Everything about a run but the trace and the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// Every replica's engine.
    pub engine: EngineSpec,
    /// What clients expect.
    pub slo: Slo,
    /// How long a replica takes to come up.
    pub cold_start: ColdStart,
    /// Who sends which request to which replica.
    pub router: Router,
    /// The least replicas that a policy may ask for; 0 allows to scale to zero.
    pub min_replicas: u32,
    /// The most replicas that a policy may ask for, at least 1.
    pub max_replicas: u32,
    /// The seed of everything random.
    pub seed: u64,
    /// Requests that arrive earlier than this are served, but not scored.
    pub warm_up_us: u64,
    /// The replicas at the start are this many times what the first five minutes need.
    pub start_margin: f64,
    /// How long a replica that was asked to end may take; without a limit where `None`.
    pub grace_us: Option<u64>,
}

impl World {
    /// The world in which policies are compared unless one says otherwise.
    #[must_use]
    pub fn new(engine: EngineSpec) -> Self {
        Self {
            engine,
            slo: Slo::default(),
            cold_start: ColdStart { mean_us: 180 * SECOND, spread: 0.2, node: None },
            router: Router::Least,
            min_replicas: 1,
            max_replicas: 24,
            seed: 1,
            warm_up_us: 600 * SECOND,
            start_margin: 1.4,
            grace_us: None,
        }
    }
}

/// What a request has to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slo {
    /// The longest time to the first token.
    pub ttft_us: u64,
    /// The longest mean time of each further token. An answer of few tokens is held to as much
    /// time as one of [`Slo::FEW_TOKENS`] further ones.
    pub tpot_us: u64,
}

impl Slo {
    /// Answers with fewer further tokens than this are held to the time of this many: one slow
    /// step is no violation.
    pub const FEW_TOKENS: u64 = 10;

    /// The longest time that decoding an answer may take.
    #[must_use]
    pub fn decode_us(&self, output_tokens: u32) -> u64 {
        self.tpot_us * u64::from(output_tokens.saturating_sub(1)).max(Self::FEW_TOKENS)
    }
}

impl Default for Slo {
    fn default() -> Self {
        Self { ttft_us: 2 * SECOND, tpot_us: SECOND / 10 }
    }
}

/// How long a replica takes from its creation until it is ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColdStart {
    /// The mean.
    pub mean_us: u64,
    /// Evenly spread by this share of the mean either way, 0 to 1.
    pub spread: f64,
    /// Where nodes come and go as well.
    pub node: Option<NodeStart>,
}

/// How long a node takes that has to come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStart {
    /// The mean; spread as the cold start is.
    pub mean_us: u64,
    /// For how long a node stays once its replica is gone.
    pub linger_us: u64,
}

impl ColdStart {
    /// The time of the `ordinal`th replica of a run: the same whichever policy asks for it.
    #[must_use]
    pub fn draw(&self, seed: u64, ordinal: u64, needs_node: bool) -> u64 {
        let mut random = Random::stream(seed, ordinal);
        let mut of = |mean_us: u64| {
            let factor = 1.0 - self.spread + 2.0 * self.spread * random.unit();
            microseconds(mean_us as f64 * factor)
        };
        let replica = of(self.mean_us);
        let node = self.node.filter(|_| needs_node).map_or(0, |node| of(node.mean_us));
        replica + node
    }
}

/// A time as whole microseconds; 0 where it is negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
#[must_use]
pub fn microseconds(time: f64) -> u64 {
    (time + 0.5) as u64
}

/// Who sends which request to which replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// One after the other.
    Round,
    /// To the one with the fewest that wait, then with the fewest that run.
    Least,
    /// To any.
    Random,
    /// An endpoint picker with flow control: by prefix, queue and KV cache, and it holds what
    /// the replicas should not queue.
    EndpointPicker,
}

impl Router {
    const NAMES: [(&'static str, Self); 4] = [
        ("round", Self::Round),
        ("least", Self::Least),
        ("random", Self::Random),
        ("epp", Self::EndpointPicker),
    ];
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, router)| router == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Router {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let router = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, router)| *router);
        router.ok_or_else(|| format!("{text:?} is no router; there are round, least, random and epp"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_starts_are_drawn_by_seed_and_ordinal_within_their_spread() {
        let node = Some(NodeStart { mean_us: 300 * SECOND, linger_us: 0 });
        let cold = ColdStart { mean_us: 100 * SECOND, spread: 0.2, node };
        let draws: Vec<_> = (0..500).map(|ordinal| cold.draw(7, ordinal, false)).collect();
        assert!(draws.iter().all(|draw| (80 * SECOND..=120 * SECOND).contains(draw)));
        let mean = draws.iter().sum::<u64>() / 500;
        assert!((98 * SECOND..102 * SECOND).contains(&mean), "{mean}");
        assert_eq!(cold.draw(7, 3, false), draws[3]);
        assert_ne!(cold.draw(8, 3, false), draws[3]);
        assert!((320 * SECOND..=480 * SECOND).contains(&cold.draw(7, 3, true)));
    }

    #[test]
    fn short_answers_are_held_to_ten_further_tokens() {
        let slo = Slo::default();
        for (tokens, milliseconds) in [(0, 1000), (1, 1000), (11, 1000), (12, 1100), (101, 10_000)] {
            assert_eq!(slo.decode_us(tokens), milliseconds * 1000, "{tokens}");
        }
    }

    #[test]
    fn routers_go_by_their_names() {
        for (name, router) in Router::NAMES {
            assert_eq!((name.parse(), router.to_string()), (Ok(router), name.to_owned()));
        }
        assert!("best".parse::<Router>().unwrap_err().contains("least"));
    }
}
