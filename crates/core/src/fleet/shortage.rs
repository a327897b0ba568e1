//! Since when replicas are missing, each of its own.

use crate::time::Moment;

/// As many moments are told apart. One InferenceSet rarely has more than two; how many it has in
/// the end is up to whoever deletes its pods.
const MOST: usize = 64;

/// Replicas that are wanted, and for which there is no pod since the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    pub since: Moment,
    pub replicas: u32,
}

/// The replicas of one InferenceSet for which there are no pods. A replica that was never created
/// has no creation time, so its time is that at which the set became short of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// The longest first.
    missing: Vec<Missing>,
}

impl Shortage {
    /// Takes in that `wanted` replicas have `living` pods at `now`.
    ///
    /// A pod that appears ends the youngest shortage: it takes the place of one that was lost a
    /// moment ago. Were it the oldest, a pod that is lost and made again would keep a replica
    /// that never comes up forever young.
    pub fn follow(&mut self, wanted: u32, living: usize, now: Moment) {
        let short = wanted.saturating_sub(u32::try_from(living).unwrap_or(u32::MAX));
        let mut before: u32 = self.missing.iter().map(|missing| missing.replicas).sum();
        if short > before {
            let more = short - before;
            match self.missing.last_mut() {
                Some(youngest) if youngest.since == now => youngest.replicas += more,
                _ => self.missing.push(Missing { since: now, replicas: more }),
            }
            return self.bound();
        }
        while before > short
            && let Some(youngest) = self.missing.last_mut()
        {
            let ended = youngest.replicas.min(before - short);
            youngest.replicas -= ended;
            before -= ended;
            self.missing.pop_if(|youngest| youngest.replicas == 0);
        }
    }

    fn bound(&mut self) {
        if self.missing.len() > MOST {
            let oldest = self.missing.remove(0);
            self.missing[0].replicas += oldest.replicas;
        }
    }

    /// The longest first; the sum is how many replicas are missing.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(second))
    }

    fn followed(steps: &[(u64, u32, usize)]) -> Vec<(u64, u32)> {
        let mut shortage = Shortage::default();
        for (second, wanted, living) in steps {
            shortage.follow(*wanted, *living, at(*second));
        }
        let plain = |missing: &Missing| (missing.since.since_unix().as_secs(), missing.replicas);
        shortage.missing().iter().map(plain).collect()
    }

    #[test]
    fn each_missing_replica_has_its_own_time() {
        // (second, wanted, living), and since when how many are missing
        let cases: [(&[(u64, u32, usize)], &[(u64, u32)]); 10] = [
            (&[(1, 2, 2)], &[]),
            (&[(1, 2, 1)], &[(1, 1)]),
            (&[(1, 2, 1), (9, 2, 1)], &[(1, 1)]),
            (&[(1, 2, 1), (9, 3, 1)], &[(1, 1), (9, 1)]),
            (&[(1, 3, 2), (9, 3, 1)], &[(1, 1), (9, 1)]),
            (&[(1, 3, 2), (9, 3, 1), (10, 3, 2)], &[(1, 1)]),
            (&[(1, 3, 1), (9, 2, 1)], &[(1, 1)]),
            (&[(1, 3, 1), (9, 3, 0), (10, 3, 2)], &[(1, 1)]),
            (&[(1, 3, 1), (9, 3, 5)], &[]),
            (&[(1, 3, 1), (9, 0, 0), (10, 1, 0)], &[(10, 1)]),
        ];
        for (steps, expected) in cases {
            assert_eq!(followed(steps), expected, "{steps:?}");
        }
    }

    proptest! {
        #[test]
        fn as_many_are_missing_as_are_short_in_bounded_memory(
            steps in proptest::collection::vec((0_u32..200, 0_usize..200), 1..400),
        ) {
            let mut shortage = Shortage::default();
            for (second, (wanted, living)) in (0..).zip(steps) {
                shortage.follow(wanted, living, at(second));
                let missing = shortage.missing();
                let sum: u32 = missing.iter().map(|missing| missing.replicas).sum();
                prop_assert_eq!(sum as usize, (wanted as usize).saturating_sub(living));
                prop_assert!(missing.len() <= MOST);
                prop_assert!(missing.is_sorted_by(|a, b| a.since < b.since));
                prop_assert!(missing.iter().all(|missing| missing.replicas > 0));
            }
        }
    }

    #[test]
    fn one_after_the_other_is_lost_without_end() {
        let lost: Vec<(u64, u32, usize)> = (0..1_000).map(|n| (n, 1_000, 999 - n as usize)).collect();
        let missing = followed(&lost);
        assert_eq!(missing.len(), MOST);
        assert_eq!(missing.iter().map(|(_, replicas)| replicas).sum::<u32>(), 1_000);
        assert_eq!(missing.last(), Some(&(999, 1)));
        assert_eq!(followed(&[(1, u32::MAX, 0)]), [(1, u32::MAX)]);
    }
}
