//! The frontier: who missed a target against what it cost, a curve for each policy.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{
    group::{Cell, named},
    palette::{Ink, ink},
    scale::{Scale, number},
    svg::Chart,
};

/// The lowest share of missed requests that is told apart from none.
const LOWEST: f64 = 0.001;
/// Multiples of the clairvoyant's cost beyond which a point is not drawn.
const DEAREST: f64 = 4.0;

/// A policy with one setting: its cost, and the share of requests that missed a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Spot {
    pub policy: String,
    pub setting: String,
    /// Replica-hours, or a multiple of the clairvoyant's.
    pub cost: f64,
    /// 0 to 1.
    pub violations: f64,
}

/// Where every policy and setting stands, over one cell or over several.
#[derive(Clone, Debug, PartialEq)]
pub struct Frontier {
    pub spots: Vec<Spot>,
    /// Whether the cost is relative to the clairvoyant's.
    pub relative: bool,
}

impl Frontier {
    /// Of one cell, relative where the clairvoyant ran.
    #[must_use]
    pub fn of_cell(cell: &Cell<'_>) -> Self {
        let relative = cell.clairvoyant_hours.is_some();
        let spots = cell.groups.iter().map(|group| Spot {
            policy: group.policy.to_owned(),
            setting: group.setting.to_owned(),
            cost: cell.relative(group.hours()).unwrap_or_else(|| group.hours()),
            violations: group.violations(),
        });
        Self { spots: spots.collect(), relative }
    }

    /// The mean over cells with a clairvoyant, of the policies and settings that ran on all of
    /// them: what one setting for everything does.
    #[must_use]
    pub fn over(cells: &[Cell<'_>]) -> Self {
        let cells: Vec<&Cell<'_>> = cells.iter().filter(|cell| cell.clairvoyant_hours.is_some()).collect();
        let mut sums: BTreeMap<(&str, &str), (usize, f64, f64)> = BTreeMap::new();
        for cell in &cells {
            for group in &cell.groups {
                let Some(cost) = cell.relative(group.hours()) else { continue };
                let sum = sums.entry((group.policy, group.setting)).or_default();
                *sum = (sum.0 + 1, sum.1 + cost, sum.2 + group.violations());
            }
        }
        let everywhere = sums.into_iter().filter(|(_, (count, ..))| *count == cells.len());
        let spots = everywhere.map(|((policy, setting), (count, cost, violations))| Spot {
            policy: policy.to_owned(),
            setting: setting.to_owned(),
            cost: cost / count as f64,
            violations: violations / count as f64,
        });
        Self { spots: spots.collect(), relative: true }
    }

    /// The policies, ours first, in the order of their legend.
    #[must_use]
    pub fn policies(&self) -> Vec<(&str, Ink)> {
        const ORDER: [&str; 11] = [
            "latency",
            "demand",
            "waiting",
            "waiting-k8s",
            "concurrency",
            "kv",
            "queue-kv",
            "velocity",
            "slo-loop",
            "static",
            "clairvoyant",
        ];
        let mut names: Vec<&str> = self.spots.iter().map(|spot| spot.policy.as_str()).collect();
        names.sort_by_key(|name| (ORDER.iter().position(|own| own == name).unwrap_or(ORDER.len()), *name));
        names.dedup();
        names.into_iter().enumerate().map(|(index, name)| (name, ink(name, index))).collect()
    }

    /// The chart, of the given height in pixels.
    #[must_use]
    pub fn chart(&self, height: f64) -> Chart {
        let costs =
            || self.spots.iter().map(|spot| spot.cost).filter(|cost| !self.relative || *cost <= DEAREST);
        let least = costs().fold(f64::INFINITY, f64::min);
        let most = costs().fold(0.0, f64::max);
        let room = ((most - least) * 0.04).max(0.02);
        let label = |cost: f64| if self.relative { format!("{}×", number(cost)) } else { number(cost) };
        let x = if least.is_finite() {
            Scale::between((least - room).max(0.0), most + room, label)
        } else {
            Scale::between(0.0, 1.0, label)
        };
        let y = Scale::logarithmic(LOWEST, 1.0, |share| {
            let or_less = if share <= LOWEST * 1.001 { "≤ " } else { "" };
            format!("{or_less}{}%", number(share * 100.0))
        });
        let mut chart = Chart::new(height, x, y);
        chart.line([(0.0, 0.02), (f64::MAX, 0.02)], "eight thin dashed");
        for (policy, ink) in self.policies() {
            let drawn = |spot: &&Spot| !self.relative || spot.cost <= DEAREST;
            let efficient: Vec<&Spot> = self.efficient(policy).into_iter().filter(drawn).collect();
            chart.line(efficient.iter().map(|spot| (spot.cost, spot.violations)), ink.line);
            for spot in self.spots.iter().filter(|spot| spot.policy == policy).filter(drawn) {
                let radius = match efficient.as_slice() {
                    // A default and the setting that it is are one place.
                    _ if !efficient
                        .iter()
                        .any(|own| own.cost == spot.cost && own.violations == spot.violations) =>
                    {
                        1.75
                    }
                    [_] => 5.0,
                    _ => 3.5,
                };
                let title = format!(
                    "{}: {}% missed at {}{}",
                    named(&spot.policy, &spot.setting),
                    number(spot.violations * 100.0),
                    number(spot.cost),
                    if self.relative { "× the clairvoyant's hours" } else { " replica-hours" }
                );
                chart.dot((spot.cost, spot.violations), radius, ink.dot, &title);
            }
        }
        chart
    }

    /// What the axes are: across and up.
    #[must_use]
    pub const fn axes(&self) -> (&'static str, &'static str) {
        if self.relative {
            ("replica-hours, as a multiple of the clairvoyant's", "requests that missed a target")
        } else {
            ("replica-hours", "requests that missed a target")
        }
    }

    /// A file of its own, for documentation.
    #[must_use]
    pub fn file(&self, title: &str) -> String {
        let legend: Vec<(&str, &str)> =
            self.policies().into_iter().map(|(name, ink)| (ink.line, name)).collect();
        self.chart(340.0).file(860.0, title, self.axes(), &legend)
    }

    /// The settings of a policy that are worth their cost, cheapest first: each misses fewer
    /// requests than every cheaper one.
    #[must_use]
    pub fn efficient(&self, policy: &str) -> Vec<&Spot> {
        let mut spots: Vec<&Spot> = self.spots.iter().filter(|spot| spot.policy == policy).collect();
        spots.sort_by(|one, other| {
            (one.cost, one.violations).partial_cmp(&(other.cost, other.violations)).unwrap_or(Ordering::Equal)
        });
        let mut least = f64::INFINITY;
        spots.retain(|spot| {
            let better = spot.violations < least;
            least = least.min(spot.violations);
            better
        });
        spots
    }

    /// The violations of a policy at a cost: the least of its settings up to it, and of the
    /// mixtures of two neighbours. `None` where every setting is dearer.
    #[must_use]
    pub fn violations_at(&self, policy: &str, cost: f64) -> Option<f64> {
        let spots = self.efficient(policy);
        let affordable = spots.iter().filter(|spot| spot.cost <= cost).map(|spot| spot.violations);
        let mixed = spots.windows(2).filter(|pair| pair[0].cost <= cost && cost < pair[1].cost).map(|pair| {
            let share = (cost - pair[0].cost) / (pair[1].cost - pair[0].cost);
            pair[0].violations + (pair[1].violations - pair[0].violations) * share
        });
        affordable.chain(mixed).min_by(f64::total_cmp)
    }

    /// The least cost at which a policy misses no more than `violations`, mixtures of two
    /// neighbouring settings included; `None` where none of its settings gets there.
    #[must_use]
    pub fn cost_at(&self, policy: &str, violations: f64) -> Option<f64> {
        let spots = self.efficient(policy);
        let reached = spots.iter().filter(|spot| spot.violations <= violations).map(|spot| spot.cost);
        let mixed = spots
            .windows(2)
            .filter(|pair| pair[0].violations > violations && pair[1].violations <= violations);
        let mixed = mixed.map(|pair| {
            let share = (pair[0].violations - violations) / (pair[0].violations - pair[1].violations);
            pair[0].cost + (pair[1].cost - pair[0].cost) * share
        });
        reached.chain(mixed).min_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{group::cells, testing::outcome},
        *,
    };

    fn spot(policy: &str, setting: &str, cost: f64, violations: f64) -> Spot {
        Spot { policy: policy.to_owned(), setting: setting.to_owned(), cost, violations }
    }

    #[test]
    fn one_setting_for_everything_is_the_mean_over_the_cells() {
        let outcomes = [
            outcome("a", "clairvoyant", "", 100.0, 0.99, 4.0),
            outcome("a", "static", "replicas=5", 100.0, 0.9, 6.0),
            outcome("a", "static", "replicas=9", 100.0, 1.0, 12.0),
            outcome("b", "clairvoyant", "", 100.0, 1.0, 10.0),
            outcome("b", "static", "replicas=5", 100.0, 0.5, 8.0),
        ];
        let frontier = Frontier::over(&cells(&outcomes));
        let names: Vec<String> =
            frontier.spots.iter().map(|spot| named(&spot.policy, &spot.setting)).collect();
        assert_eq!(names, ["clairvoyant", "static:replicas=5"], "what did not run everywhere is no mean");
        assert!((frontier.spots[1].cost - 1.15).abs() < 1e-9);
        assert!((frontier.spots[1].violations - 0.3).abs() < 1e-9);
    }

    #[test]
    fn between_two_settings_a_mixture_of_them_is_possible() {
        let spots = vec![
            spot("concurrency", "target=64", 1.0, 0.30),
            spot("concurrency", "target=16", 2.0, 0.10),
            spot("concurrency", "target=8", 3.0, 0.01),
        ];
        let frontier = Frontier { spots, relative: true };
        let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-9;
        assert!(close(frontier.violations_at("concurrency", 1.5), 0.20));
        assert!(close(frontier.violations_at("concurrency", 9.0), 0.01));
        assert_eq!(frontier.violations_at("concurrency", 0.9), None);
        assert!(close(frontier.cost_at("concurrency", 0.10), 2.0));
        assert!(close(frontier.cost_at("concurrency", 0.02), 2.0 + 0.08 / 0.09));
        assert_eq!(frontier.cost_at("concurrency", 0.001), None);
    }

    #[test]
    fn a_setting_that_costs_more_and_misses_more_is_not_on_the_curve() {
        let spots = vec![
            spot("concurrency", "target=8", 2.5, 0.0),
            spot("concurrency", "target=16", 1.9, 0.01),
            spot("concurrency", "target=32", 2.8, 0.1),
            spot("concurrency", "target=64", 1.9, 0.2),
        ];
        let frontier = Frontier { spots, relative: true };
        let settings: Vec<&str> =
            frontier.efficient("concurrency").into_iter().map(|spot| spot.setting.as_str()).collect();
        assert_eq!(settings, ["target=16", "target=8"]);
    }

    #[test]
    fn every_policy_has_a_curve_and_a_name_in_the_file() {
        let spots = vec![spot("mine<", "", 1.5, 0.4), spot("static", "replicas=3", 2.0, 0.0)];
        let file = Frontier { spots, relative: true }.file("All traces");
        assert!(
            file.contains("mine&lt;") && file.contains(">static<") && file.contains("replicas=3"),
            "{file}"
        );
        assert!(Frontier { spots: Vec::new(), relative: false }.file("none").contains("</svg>"));
    }
}
