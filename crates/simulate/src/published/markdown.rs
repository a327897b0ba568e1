//! The published comparison as Markdown.

use std::fmt::Write as _;

use super::TRACES;
use crate::{
    outcome::Outcome,
    report::{
        frontier::Frontier,
        group::{Cell, GOAL, Group, cells},
        palette::meaning,
        text::percent,
    },
};

/// A multiple of the clairvoyant's hours that most would pay.
const AFFORDABLE: f64 = 1.35;

/// What stands before and after what is generated.
const BEGIN: &str = "<!-- simulate: begin -->";
const END: &str = "<!-- simulate: end -->";

/// A page whose part between the markers is replaced by `text`.
///
/// # Errors
/// Where a marker is missing, which is named.
pub fn between_markers(page: &str, text: &str) -> Result<String, String> {
    let missing = |marker| format!("the page has no line {marker}");
    let begin = page.find(BEGIN).ok_or_else(|| missing(BEGIN))? + BEGIN.len();
    let end = begin + page[begin..].find(END).ok_or_else(|| missing(END))?;
    Ok(format!("{}\n{}\n{}", &page[..begin], text.trim_end(), &page[end..]))
}

/// The tables: one setting for everything, and each trace by itself.
#[must_use]
pub fn tables(outcomes: &[Outcome]) -> String {
    let cells = cells(outcomes);
    let recorded = |cell: &&Cell<'_>| TRACES.iter().any(|trace| trace.name == cell.trace && trace.recorded);
    let steady: Vec<Cell<'_>> = cells.iter().filter(recorded).cloned().collect();
    let mut text = String::new();
    overall(&mut text, &steady);
    text.push('\n');
    each(&mut text, &cells);
    text
}

/// One row a policy: the mean over the recorded traces and the cold starts.
fn overall(text: &mut String, cells: &[Cell<'_>]) {
    let frontier = Frontier::over(cells);
    let _ = writeln!(
        text,
        "| policy | | at its default: missed (worst) | hours | reversals | one setting for all: missed at {AFFORDABLE} × hours \
         | hours for {}% in time |\n|---|---|---|---|---|---|---|",
        GOAL * 100.0
    );
    for (policy, _) in frontier.policies() {
        let defaults: Vec<(&Cell<'_>, &Group<'_>)> = cells
            .iter()
            .filter_map(|cell| {
                let own = |group: &&Group<'_>| group.policy == policy && group.setting.is_empty();
                Some((cell, cell.groups.iter().find(own)?))
            })
            .collect();
        let mean = |of: &dyn Fn(&Cell<'_>, &Group<'_>) -> f64| {
            let sum: f64 = defaults.iter().map(|(cell, group)| of(cell, group)).sum();
            (!defaults.is_empty()).then(|| sum / defaults.len() as f64)
        };
        let worst = defaults.iter().map(|(_, group)| group.violations()).fold(0.0, f64::max);
        let missed = mean(&|_, group| group.violations());
        let hours = mean(&|cell, group| cell.relative(group.hours()).unwrap_or(f64::NAN));
        let reversals = mean(&|_, group| group.mean(|run| run.reversals as f64));
        let _ = writeln!(
            text,
            "| {policy} | {} | {} | {} | {} | {} | {} |",
            meaning(policy).unwrap_or_default(),
            or_dash(missed, |share| format!("{} ({})", percent(share), percent(worst))),
            or_dash(hours, times),
            or_dash(reversals, |count| format!("{count:.0}")),
            or_dash(frontier.violations_at(policy, AFFORDABLE), percent),
            frontier.cost_at(policy, 1.0 - GOAL).map_or_else(|| "never".to_owned(), times),
        );
    }
}

/// One row a trace and cold start: each policy with the setting that hindsight would choose.
fn each(text: &mut String, cells: &[Cell<'_>]) {
    let all = Frontier {
        spots: cells.iter().flat_map(|cell| Frontier::of_cell(cell).spots).collect(),
        relative: true,
    };
    let policies: Vec<&str> = all.policies().into_iter().map(|(policy, _)| policy).collect();
    let _ = writeln!(text, "| trace, cold start | at most | {} |", policies.join(" | "));
    let _ = writeln!(text, "|---|---|{}", "---|".repeat(policies.len()));
    for cell in cells {
        let ceiling = cell.groups.first().map(|group| group.mean(|run| run.ceiling));
        let columns = policies.iter().map(|policy| {
            or_dash(best(cell, policy), |group: &Group<'_>| {
                let hours =
                    cell.relative(group.hours()).map_or_else(|| format!("{:.1} h", group.hours()), times);
                format!("{} at {hours}", percent(group.violations()))
            })
        });
        let columns: Vec<String> = columns.collect();
        let _ = writeln!(
            text,
            "| {}, {} s | {} | {} |",
            cell.trace,
            cell.cold_start_seconds,
            or_dash(ceiling, |share| percent(1.0 - share)),
            columns.join(" | ")
        );
    }
}

/// The cheapest setting that reaches the goal, or else the one that misses least.
fn best<'a, 'b>(cell: &'b Cell<'a>, policy: &str) -> Option<&'b Group<'a>> {
    let own = || cell.groups.iter().filter(|group| group.policy == policy);
    let good = own().filter(|group| group.violations() <= 1.0 - GOAL);
    good.min_by(|one, other| one.hours().total_cmp(&other.hours()))
        .or_else(|| own().min_by(|one, other| one.violations().total_cmp(&other.violations())))
}

fn times(factor: f64) -> String {
    format!("{factor:.2} ×")
}

fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::outcome;

    #[test]
    fn what_is_between_the_markers_is_replaced() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = between_markers(&page, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(between_markers(&new, "new").unwrap(), new);
        assert_eq!(between_markers("a", "b").unwrap_err(), "the page has no line <!-- simulate: begin -->");
    }

    #[test]
    fn the_tables_have_the_defaults_and_what_hindsight_would_choose() {
        let outcomes = [
            outcome("azure", "waiting", "threshold=1", 100.0, 0.9, 12.0),
            outcome("azure", "waiting", "", 100.0, 0.6, 10.0),
            outcome("azure", "static", "times=2", 100.0, 0.99, 16.0),
            outcome("azure", "clairvoyant", "", 100.0, 0.99, 10.0),
            outcome("bursts", "waiting", "", 100.0, 0.1, 1.0),
        ];
        let text = tables(&outcomes);
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
        assert!(
            rows[1].starts_with("| waiting | ")
                && rows[1].ends_with("| 40% (40%) | 1.00 × | 3 | 10% | never |"),
            "{text}"
        );
        assert!(rows[2].ends_with("| - | - | - | - | 1.60 × |"), "{text}");
        assert_eq!(rows[5], "| azure, 100 s | 0.50% | 10% at 1.20 × | 1.0% at 1.60 × | 1.0% at 1.00 × |");
        assert_eq!(rows[6], "| bursts, 100 s | 0.50% | 90% at 1.0 h | - | - |");
    }
}
