//! Which of several scalers an InferenceSet belongs to, where one is not enough.
//!
//! Rendezvous hashing: each shard has a weight for each InferenceSet, and the heaviest gets it.
//! Everybody who knows the number of shards comes to the same answer without asking anybody.
//! One shard more takes its share evenly from all others, and between those nothing moves.

use std::num::NonZeroU32;

use crate::names::InferenceSetKey;

/// How many scalers share the work; they are numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(NonZeroU32);

impl Shards {
    #[must_use]
    pub const fn new(count: NonZeroU32) -> Self {
        Self(count)
    }

    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.get()
    }

    /// The number of the shard that `set` belongs to: below [`Self::count`], and the same in
    /// every process and every release.
    #[must_use]
    pub fn of(self, set: &InferenceSetKey) -> u32 {
        let identity = fnv1a(&[&set.namespace, "/", &set.name]);
        (0..self.count()).max_by_key(|shard| weight(identity, *shard)).unwrap_or(0)
    }
}

/// FNV-1a, 64 bits. Written out, as the standard library's hashers may change with its release:
/// a hash that changed would move almost every InferenceSet.
fn fnv1a(parts: &[&str]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// How much `shard` weighs for who hashes to `identity`: the two mixed by the steps of splitmix64,
/// without which names that differ in their last letter alone would crowd together.
fn weight(identity: u64, shard: u32) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let seed = identity ^ (u64::from(shard) + 1).wrapping_mul(GOLDEN);
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shards(count: u32) -> Shards {
        Shards::new(NonZeroU32::new(count).unwrap())
    }

    /// Names as people give them: alike, and numbered.
    fn sets() -> impl Iterator<Item = InferenceSetKey> {
        (0..100).flat_map(|team| {
            (0..100).map(move |model| {
                InferenceSetKey::new(&format!("team-{team}"), &format!("llama-3-1-8b-{model}"))
            })
        })
    }

    /// A changed hash would move running models between shards: these are for ever.
    #[test]
    fn keeps_its_word_from_release_to_release() {
        let of =
            |namespace: &str, name: &str, count| shards(count).of(&InferenceSetKey::new(namespace, name));
        let placed: Vec<u32> =
            [2, 3, 4, 8, 64].into_iter().map(|count| of("team-a", "demo", count)).collect();
        assert_eq!(placed, [0, 2, 2, 2, 26]);
        let placed: Vec<u32> =
            ["a", "b", "c", "d", "e", "f"].into_iter().map(|name| of("x", name, 4)).collect();
        assert_eq!(placed, [2, 3, 2, 1, 2, 2]);
        assert_eq!(fnv1a(&["foo", "bar"]), 0x8594_4171_f739_67e8, "a published value of FNV-1a for foobar");
    }

    #[test]
    fn shares_evenly() {
        for count in [2_u32, 3, 4, 7, 16] {
            let mut held = vec![0_u32; count as usize];
            for set in sets() {
                held[shards(count).of(&set) as usize] += 1;
            }
            let fair = 10_000.0 / f64::from(count);
            // Five standard deviations of a fair draw.
            let allowed = 5.0 * fair.sqrt();
            assert!(held.iter().all(|held| (f64::from(*held) - fair).abs() < allowed), "{held:?}");
        }
    }

    #[test]
    fn a_shard_more_takes_its_share_and_no_other() {
        for count in [1_u32, 2, 4, 9] {
            let moved = sets().filter(|set| shards(count).of(set) != shards(count + 1).of(set)).count();
            let share = 10_000 / (count as usize + 1);
            assert!(moved.abs_diff(share) < 300, "{moved} moved from {count} shards to one more");
        }
    }

    proptest! {
        #[test]
        fn what_moves_moves_to_the_new_shard(namespace in "[a-z0-9-]{1,20}", name in "[a-z0-9.-]{1,40}", count in 1_u32..50) {
            let set = InferenceSetKey::new(&namespace, &name);
            let (before, after) = (shards(count).of(&set), shards(count + 1).of(&set));
            prop_assert!(before < count);
            prop_assert!(after == before || after == count);
        }
    }
}
