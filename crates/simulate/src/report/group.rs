//! Runs that differ only in their seed, as one.

use crate::outcome::{Outcome, Timeline};

/// A trace with a cold start: what policies are compared on.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell<'a> {
    pub trace: &'a str,
    pub cold_start_seconds: f64,
    /// One for each policy and setting, in the order of the runs.
    pub groups: Vec<Group<'a>>,
    /// Replica-hours of the clairvoyant policy where it meets the targets for 98 % of the
    /// requests, or for as many as it ever does; `None` where it did not run.
    pub clairvoyant_hours: Option<f64>,
}

/// The runs of one policy with one setting on one cell, one for each seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    pub policy: &'a str,
    pub setting: &'a str,
    runs: Vec<&'a Outcome>,
}

/// The share of requests that a policy is meant to serve in time.
pub const GOAL: f64 = 0.98;

impl<'a> Group<'a> {
    /// The mean over seeds.
    pub fn mean(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        self.runs.iter().map(|run| of(run)).sum::<f64>() / self.runs.len().max(1) as f64
    }

    /// The share of requests that missed a target, 0 to 1.
    #[must_use]
    pub fn violations(&self) -> f64 {
        1.0 - self.mean(|run| run.attainment)
    }

    #[must_use]
    pub fn hours(&self) -> f64 {
        self.mean(|run| run.replica_hours)
    }

    #[must_use]
    pub const fn seeds(&self) -> usize {
        self.runs.len()
    }

    /// The policy's name with its setting.
    #[must_use]
    pub fn name(&self) -> String {
        named(self.policy, self.setting)
    }

    /// The run over time with the first seed.
    #[must_use]
    pub fn timeline(&self) -> Option<&'a Timeline> {
        self.runs.first().map(|run| &run.detail.timeline)
    }
}

/// `policy:setting`, as the command line takes it.
#[must_use]
pub fn named(policy: &str, setting: &str) -> String {
    if setting.is_empty() { policy.to_owned() } else { format!("{policy}:{setting}") }
}

/// The runs by trace and cold start, each by policy and setting.
#[must_use]
pub fn cells(outcomes: &[Outcome]) -> Vec<Cell<'_>> {
    let mut cells: Vec<Cell<'_>> = Vec::new();
    for run in outcomes {
        let same =
            |cell: &Cell<'_>| cell.trace == run.trace && cell.cold_start_seconds == run.cold_start_seconds;
        let index = cells.iter().position(same).unwrap_or_else(|| {
            let (trace, cold_start_seconds) = (run.trace.as_str(), run.cold_start_seconds);
            cells.push(Cell { trace, cold_start_seconds, groups: Vec::new(), clairvoyant_hours: None });
            cells.len() - 1
        });
        let groups = &mut cells[index].groups;
        match groups.iter_mut().find(|group| group.policy == run.policy && group.setting == run.setting) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { policy: &run.policy, setting: &run.setting, runs: vec![run] }),
        }
    }
    for cell in &mut cells {
        cell.clairvoyant_hours = hours_at_goal(&cell.groups, "clairvoyant").or_else(|| {
            let clairvoyant = cell.groups.iter().filter(|group| group.policy == "clairvoyant");
            let best = clairvoyant.min_by(|one, other| one.violations().total_cmp(&other.violations()));
            best.map(Group::hours)
        });
    }
    cells
}

/// The fewest replica-hours with which a policy meets the targets for [`GOAL`] of the requests,
/// with any of its settings.
#[must_use]
pub fn hours_at_goal(groups: &[Group<'_>], policy: &str) -> Option<f64> {
    let good = groups.iter().filter(|group| group.policy == policy && group.violations() <= 1.0 - GOAL);
    good.map(Group::hours).min_by(f64::total_cmp)
}

impl Cell<'_> {
    /// Replica-hours as a multiple of the clairvoyant policy's.
    #[must_use]
    pub fn relative(&self, hours: f64) -> Option<f64> {
        self.clairvoyant_hours.filter(|own| *own > 0.0).map(|own| hours / own)
    }

    /// The trace and the cold start, for a heading.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}, cold start {} s", self.trace, super::scale::number(self.cold_start_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::outcome, *};

    #[test]
    fn seeds_are_one_group_and_cold_starts_two_cells() {
        let outcomes = [
            outcome("azure", "waiting", "threshold=5", 100.0, 0.9, 10.0),
            outcome("azure", "waiting", "threshold=5", 100.0, 0.8, 12.0),
            outcome("azure", "waiting", "threshold=9", 100.0, 0.5, 8.0),
            outcome("azure", "clairvoyant", "", 100.0, 0.99, 8.0),
            outcome("azure", "waiting", "threshold=5", 300.0, 0.9, 10.0),
        ];
        let cells = cells(&outcomes);
        assert_eq!(cells.len(), 2);
        assert_eq!(cells[0].title(), "azure, cold start 100 s");
        let group = &cells[0].groups[0];
        assert_eq!((group.name().as_str(), group.seeds(), group.hours()), ("waiting:threshold=5", 2, 11.0));
        assert!((group.violations() - 0.15).abs() < 1e-9);
        assert_eq!(cells[0].relative(12.0), Some(1.5));
        assert_eq!((cells[1].groups.len(), cells[1].relative(12.0)), (1, None));
    }

    #[test]
    fn the_hours_at_the_goal_are_those_of_the_best_setting_that_reaches_it() {
        let outcomes = [
            outcome("a", "static", "replicas=5", 100.0, 0.97, 5.0),
            outcome("a", "static", "replicas=6", 100.0, 0.985, 6.0),
            outcome("a", "static", "replicas=7", 100.0, 0.999, 7.0),
            outcome("a", "clairvoyant", "", 100.0, 0.9, 4.0),
        ];
        let cells = cells(&outcomes);
        assert_eq!(hours_at_goal(&cells[0].groups, "static"), Some(6.0));
        assert_eq!(hours_at_goal(&cells[0].groups, "clairvoyant"), None);
        assert_eq!(cells[0].clairvoyant_hours, Some(4.0));
    }
}
