//! From what each replica says to one number: totals with the unknown filled in, means,
//! quantiles. The rule throughout: unknown is never zero.

use crate::page::sample::Histogram;

/// What one replica counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// It serves, and can be read.
    Known,
    /// It can be read, and its engine sleeps: it serves nobody until somebody wakes it.
    Asleep,
    /// It should serve, and we cannot tell.
    Unknown,
    /// Capacity on its way: no address yet, or loading.
    InFlight,
    /// On its way for longer than the deadline, or being deleted: does not count.
    Absent,
}

/// How many replicas of an InferenceSet are in which state, for one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// R: `spec.replicas`.
    pub replicas: u32,
    /// S: replicas whose value is known.
    pub known: u32,
    /// U: replicas that should serve and cannot be read.
    pub unknown: u32,
    /// L: replicas on their way, ones not created yet included, none past its deadline.
    pub in_flight: u32,
    /// Z: replicas whose engine sleeps.
    pub asleep: u32,
}

impl Census {
    /// The numbers of replicas that the fill may stand for: of those that are unknown or on
    /// their way, and of those that sleep.
    fn fillable(self) -> (u32, u32) {
        let room = self.replicas.saturating_sub(self.known);
        let coming = room.min(self.unknown.saturating_add(self.in_flight));
        (coming, (room - coming).min(self.asleep))
    }

    /// Whether no replica serves, as far as that is known, since those that are there sleep.
    #[must_use]
    pub fn only_asleep(self) -> bool {
        self.known == 0 && self.unknown == 0 && self.asleep > 0
    }

    /// Whether more than half of the replicas that are not on their way are unknown: a mean
    /// over the rest would speak for a minority.
    #[must_use]
    pub fn mostly_unknown(self) -> bool {
        self.unknown > self.known
    }
}

/// A total over all replicas in which the unknown ones are filled in.
///
/// With target t per replica, and K the sum over the replicas that can be read:
///
/// ```text
/// value = max(K, min(K, t·S) + t·(U + L)) + t·Z,   the fills for R − S replicas at most
/// ```
///
/// A replica that is unknown or on its way counts as exactly on target, so it argues neither
/// for more nor for less. Known demand below target keeps what it says (`K` enters whole), a
/// known overload is kept (`max`), and is not multiplied (`t·S`): what K has above t·S already
/// asks for replicas, of which those on their way are some.
///
/// One that sleeps counts as on target too, and on top: it is no capacity that is there or comes
/// by itself, so what the others have too much is not for it.
///
/// Examples: t 10, R 4, one replica known with 12, three time out → max(12, 10 + 30) = 40: hold.
/// t 10, R 2, one with 20, one asleep → 20 + 10 = 30: one more.
#[must_use]
pub fn filled_total(known_sum: f64, target: f64, census: Census) -> f64 {
    let known_sum = known_sum.max(0.0);
    let on_target = known_sum.min(target * f64::from(census.known));
    let (coming, asleep) = census.fillable();
    known_sum.max(on_target + target * f64::from(coming)) + target * f64::from(asleep)
}

/// A histogram's `quantile`, in (0, 1], linearly interpolated inside its bucket, as
/// Prometheus' `histogram_quantile` does: the lowest bucket starts at 0 where its bound is
/// positive, and a quantile in the +Inf bucket is the highest finite bound.
///
/// `None` without observations or without buckets.
#[must_use]
pub fn histogram_quantile(quantile: f64, histogram: &Histogram) -> Option<f64> {
    let buckets = &histogram.buckets;
    let total = buckets.last()?.1;
    if total <= 0.0 || buckets.len() < 2 {
        return None;
    }
    let rank = quantile * total;
    let index = buckets.iter().position(|&(_, cumulative)| cumulative >= rank)?;
    if index == buckets.len() - 1 {
        return Some(buckets[buckets.len() - 2].0);
    }
    let (upper, cumulative) = buckets[index];
    let (lower, below) = match index {
        0 if upper <= 0.0 => return Some(upper),
        0 => (0.0, 0.0),
        _ => buckets[index - 1],
    };
    let inside = cumulative - below;
    if inside <= 0.0 {
        return Some(upper);
    }
    Some(lower + (upper - lower) * ((rank - below) / inside))
}

/// Adds `more` onto `sum`, for histograms of different replicas. Where their bounds differ
/// (two versions during a rollout) only the bounds that both have are kept: a cumulative
/// count is exact at each of its bounds.
pub fn merge(sum: &mut Histogram, more: &Histogram) {
    sum.count += more.count;
    sum.sum += more.sum;
    if sum.buckets.is_empty() {
        sum.buckets.clone_from(&more.buckets);
        return;
    }
    if more.buckets.is_empty() {
        return;
    }
    let mut theirs = more.buckets.iter().peekable();
    sum.buckets.retain_mut(|(le, count)| {
        while theirs.next_if(|(other, _)| other.total_cmp(le).is_lt()).is_some() {}
        match theirs.peek() {
            Some((other, more)) if other.total_cmp(le).is_eq() => {
                *count += more;
                true
            }
            _ => false,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(replicas: u32, known: u32, unknown: u32, in_flight: u32) -> Census {
        Census { replicas, known, unknown, in_flight, asleep: 0 }
    }

    fn asleep(asleep: u32, others: Census) -> Census {
        Census { asleep, ..others }
    }

    #[test]
    fn worked_examples() {
        // (K, t, census, value)
        let cases = [
            // One pod with 12, three time out: hold at 4.
            (12.0, 10.0, census(4, 1, 3, 0), 40.0),
            // 20 waiting on one, the other loads: hold at 2; a mean would say 10.
            (20.0, 10.0, census(2, 1, 0, 1), 20.0),
            // An idle pod beside a hung one: down by one, not to none.
            (0.0, 10.0, census(2, 1, 1, 0), 10.0),
            // A known overload is not shrunk by what is on its way.
            (70.0, 10.0, census(4, 1, 0, 3), 70.0),
            // Everything on its way: hold.
            (0.0, 10.0, census(3, 0, 0, 3), 30.0),
            // Nothing wanted: a known zero.
            (0.0, 10.0, census(0, 0, 0, 0), 0.0),
            // More pods than wanted (a surge upgrade): the fill stays within R.
            (0.0, 10.0, census(2, 2, 1, 0), 0.0),
            (0.0, 10.0, census(2, 1, 3, 0), 10.0),
            // All known: the plain sum.
            (17.0, 10.0, census(3, 3, 0, 0), 17.0),
            // A gauge that went negative is no credit.
            (-5.0, 10.0, census(1, 1, 0, 0), 0.0),
            // One sleeps: the overload of the other is not for it.
            (20.0, 10.0, asleep(1, census(2, 1, 0, 0)), 30.0),
            (10.0, 10.0, asleep(1, census(2, 1, 0, 0)), 20.0),
            // An idle one beside one that sleeps: down by one.
            (0.0, 10.0, asleep(1, census(2, 1, 0, 0)), 10.0),
            // All sleep: hold; what waits for one of them is asked for on top.
            (0.0, 10.0, asleep(2, census(2, 0, 0, 0)), 20.0),
            (5.0, 10.0, asleep(2, census(2, 0, 0, 0)), 25.0),
            // A surge: those that sleep are more than wanted.
            (20.0, 10.0, asleep(2, census(2, 2, 0, 0)), 20.0),
            (0.0, 10.0, asleep(3, census(2, 0, 1, 0)), 20.0),
        ];
        for (sum, target, census, expected) in cases {
            assert_eq!(filled_total(sum, target, census), expected, "K {sum}, t {target}, {census:?}");
        }
    }

    /// The direction of scaling never opposes the one that the known replicas give, over
    /// every census of up to 12 replicas and every known sum around its turning points.
    #[test]
    fn direction_never_opposes_the_known_replicas() {
        let mut cases = 0;
        for target in [0.3_f64, 1.0, 10.0] {
            for replicas in 0_u32..=12 {
                for known in 0..=replicas {
                    for unknown in 0..=replicas - known {
                        for in_flight in 0..=replicas - known - unknown {
                            for asleep in 0..=replicas - known - unknown - in_flight {
                                let census = Census { replicas, known, unknown, in_flight, asleep };
                                for steps in 0..=4 * (known + 1) {
                                    let sum = target * f64::from(steps) / 4.0 * 1.5;
                                    check(sum, target, census);
                                    cases += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(cases > 20_000, "{cases}");
    }

    fn check(sum: f64, target: f64, census: Census) {
        // Replicas past their deadline count as absent.
        let counted = census.known + census.unknown + census.in_flight + census.asleep;
        let value = filled_total(sum, target, census);
        let what = format!("K {sum}, t {target}, {census:?} → {value}");
        // As the HPA computes it, without its tolerance.
        let desired = |total: f64| (total / target - 1e-9).ceil().max(0.0);
        let capacity = target * f64::from(census.known);
        assert!(value >= sum, "a known total is never shrunk: {what}");
        if sum >= capacity {
            assert!(desired(value) >= f64::from(counted), "known says up or hold, value says down: {what}");
        }
        if sum <= capacity {
            assert!(desired(value) <= f64::from(counted), "known says down or hold, value says up: {what}");
        }
        if sum <= target * f64::from(census.replicas) && census.asleep == 0 {
            assert!(
                value <= target * f64::from(census.replicas) + 1e-9,
                "the fill alone never exceeds t·R: {what}"
            );
        }
        if sum > target * f64::from(census.replicas) {
            assert!(desired(value) > f64::from(census.replicas), "a known scale-up stays one: {what}");
        }
        if census.asleep > 0 {
            let awake = filled_total(sum, target, Census { asleep: 0, ..census });
            let more = target * f64::from(census.asleep);
            assert!((value - awake - more).abs() < 1e-9, "one that sleeps is on target, on top: {what}");
        }
        if counted == census.known {
            assert!((value - sum).abs() < 1e-12, "nothing to fill: {what}");
        }
    }

    fn buckets(counts: &[(f64, f64)]) -> Histogram {
        Histogram { count: counts.last().map_or(0.0, |b| b.1), sum: 0.0, buckets: counts.to_vec() }
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let inf = f64::INFINITY;
        let page = buckets(&[(0.1, 10.0), (0.5, 30.0), (1.0, 30.0), (inf, 40.0)]);
        // Ranks by hand: 0.25 × 40 = 10 ends the first bucket; 20 lies in the middle of 0.1..0.5.
        let cases = [(0.25, 0.1), (0.5, 0.3), (0.125, 0.05), (0.75, 0.5), (0.9, 1.0), (1.0, 1.0)];
        for (quantile, expected) in cases {
            let got = histogram_quantile(quantile, &page).unwrap();
            assert!((got - expected).abs() < 1e-12, "{quantile}: {got}, not {expected}");
        }
        assert_eq!(histogram_quantile(0.5, &buckets(&[(0.1, 0.0), (inf, 0.0)])), None);
        assert_eq!(histogram_quantile(0.5, &Histogram::default()), None);
        assert_eq!(histogram_quantile(0.5, &buckets(&[(-1.0, 5.0), (inf, 5.0)])), Some(-1.0));
    }

    #[test]
    fn histograms_of_two_versions_merge_on_their_common_bounds() {
        let inf = f64::INFINITY;
        let mut sum = buckets(&[(0.1, 1.0), (0.5, 2.0), (inf, 3.0)]);
        merge(&mut sum, &buckets(&[(0.1, 10.0), (0.3, 15.0), (inf, 30.0)]));
        assert_eq!(sum.buckets, vec![(0.1, 11.0), (inf, 33.0)]);
        assert_eq!(sum.count, 33.0);
    }
}
