//! The report: one page with everything in it, for light and dark, without scripts and without
//! a network.

use std::fmt::Write as _;

use super::{
    frontier::Frontier,
    group::{Cell, GOAL, Group, cells},
    palette::{Ink, ink, meaning},
    scale::number,
    svg::{self, escaped},
    text::{header, percent, row},
    timeline::plots,
};
use crate::outcome::Outcome;

/// Runs over time that one comparison shows; the rest is in its table.
const SHOWN: usize = 12;

/// What the runs had in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// The engine, as the command line names it.
    pub engine: String,
    /// Seconds until the first token, for a request to be in time.
    pub ttft_target: f64,
    /// Seconds between tokens, for a request to be in time.
    pub tpot_target: f64,
    pub router: String,
    /// The command that made the page.
    pub command: String,
    /// What was worth saying of the traces when they were read.
    pub notes: Vec<String>,
}

/// The page.
#[must_use]
pub fn page(outcomes: &[Outcome], context: &Context) -> String {
    let cells = cells(outcomes);
    let sections: String = cells.iter().map(|cell| section(cell, context)).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>What the traffic would have cost</title>\n\
         <style>\n{chart}{page}</style>\n</head>\n<body>\n<main>\n<header>\n\
         <h1>What the traffic would have cost, and who waited</h1>\n\
         <p>The same requests, replayed against every policy: a model of vLLM, the HPA's arithmetic, cold starts, in \
         virtual time. A request is in time if its first token comes within {ttft} s and its others every {tpot} ms in \
         the mean; one that is refused or lost is not. A replica-hour is paid for from a pod's creation to its end, \
         loading and draining included.</p>\n{facts}{notes}</header>\n{overall}{sections}\
         <footer>keda-kaito-scaler simulate {version}<br><code>{command}</code></footer>\n</main>\n</body>\n</html>\n",
        chart = svg::STYLE,
        page = include_str!("report.css"),
        ttft = number(context.ttft_target),
        tpot = number(context.tpot_target * 1e3),
        facts = facts(outcomes, context),
        notes = notes(context),
        overall = overall(&cells),
        version = escaped(env!("CARGO_PKG_VERSION")),
        command = escaped(&context.command),
    )
}

fn facts(outcomes: &[Outcome], context: &Context) -> String {
    let mut traces: Vec<&str> = outcomes.iter().map(|run| run.trace.as_str()).collect();
    traces.sort_unstable();
    traces.dedup();
    let most = outcomes.iter().map(|run| run.requests).max().unwrap_or_default();
    let (traces, noun) = match traces.as_slice() {
        [one] => ((*one).to_owned(), "trace"),
        several => (several.len().to_string(), "traces"),
    };
    let requests = number(most as f64);
    let facts = [
        (traces.as_str(), noun),
        (requests.as_str(), "requests scored"),
        (context.engine.as_str(), "engine"),
        (context.router.as_str(), "router"),
    ];
    let mut text = String::from("<div class=\"facts\">");
    for (value, name) in facts.into_iter().filter(|(value, _)| !value.is_empty()) {
        let _ = write!(text, "<div><b>{}</b><span>{}</span></div>", escaped(value), escaped(name));
    }
    text + "</div>\n"
}

fn notes(context: &Context) -> String {
    if context.notes.is_empty() {
        return String::new();
    }
    let mut list = String::from("<ul class=\"notes\">");
    for note in &context.notes {
        let _ = write!(list, "<li>{}</li>", escaped(note));
    }
    list + "</ul>\n"
}

/// One setting for everything, where there are several cells to have it for.
fn overall(cells: &[Cell<'_>]) -> String {
    let frontier = Frontier::over(cells);
    if cells.len() < 2 || frontier.spots.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>One setting for everything</h2>\n<p>Each point is a policy with one setting, its mean over all \
         traces and cold starts below.</p>\n{}</section>\n",
        picture(&frontier, "One setting for everything")
    )
}

/// A frontier with its legend and its axes.
fn picture(frontier: &Frontier, name: &str) -> String {
    let (across, up) = frontier.axes();
    let legend: Vec<(Ink, &str)> = frontier.policies().into_iter().map(|(name, ink)| (ink, name)).collect();
    format!(
        "{}<p class=\"axis\">{up}</p>\n<figure>{}</figure>\n<p class=\"axis across\">{across}</p>\n",
        legend_of(legend.iter().map(|(ink, name)| (ink.line, *name, meaning(name)))),
        frontier.chart(300.0).inline(name)
    )
}

fn legend_of<'a>(entries: impl Iterator<Item = (&'a str, &'a str, Option<&'a str>)>) -> String {
    let mut legend = String::from("<div class=\"legend\">");
    for (class, name, meaning) in entries {
        let title = meaning.map(|meaning| format!(" title=\"{}\"", escaped(meaning)));
        let _ = write!(
            legend,
            "<span{}><svg><line class=\"line {class}\" x1=\"0\" x2=\"22\" y1=\"5\" y2=\"5\"/></svg>{}</span>",
            title.unwrap_or_default(),
            escaped(name)
        );
    }
    legend + "</div>\n"
}

fn section(cell: &Cell<'_>, context: &Context) -> String {
    let frontier = Frontier::of_cell(cell);
    format!(
        "<section>\n<h2>{}</h2>\n<p>{}</p>\n{}{}{}</section>\n",
        escaped(&cell.title()),
        escaped(&verdict(cell)),
        picture(&frontier, &cell.title()),
        table(cell),
        runs(cell, context)
    )
}

/// What to see in the picture, in a sentence.
fn verdict(cell: &Cell<'_>) -> String {
    let goal = number(GOAL * 100.0);
    let real = || cell.groups.iter().filter(|group| group.policy != "clairvoyant");
    let reaching = real().filter(|group| group.violations() <= 1.0 - GOAL);
    let cost = |group: &Group<'_>| {
        let hours = number(group.hours());
        cell.relative(group.hours()).map_or_else(
            || format!("{hours} replica-hours"),
            |times| {
                format!("{hours} replica-hours, {times:.2} times those of a policy that knows the future")
            },
        )
    };
    if let Some(cheapest) = reaching.min_by(|one, other| one.hours().total_cmp(&other.hours())) {
        return format!(
            "The cheapest way to serve {goal}% in time is {}: {}. {}",
            cheapest.name(),
            cost(cheapest),
            "Further down is fewer missed, further left is cheaper; the dashed line is that share."
        );
    }
    let Some(best) = real().min_by(|one, other| one.violations().total_cmp(&other.violations())) else {
        return "Nothing but the limit was replayed.".to_owned();
    };
    let ceiling = best.mean(|run| run.ceiling);
    format!(
        "Nothing here serves {goal}% in time. The least is missed by {}: {} at {}. With the largest number of replicas all \
         the time {} would be.",
        best.name(),
        percent(best.violations()),
        cost(best),
        percent(1.0 - ceiling)
    )
}

fn table(cell: &Cell<'_>) -> String {
    let names = header().map(|name| format!("<th>{}</th>", escaped(name))).concat();
    let mut rows = String::new();
    for group in &cell.groups {
        let class = if group.violations() <= 1.0 - GOAL { " class=\"good\"" } else { "" };
        let fields = row(cell, group);
        let _ = write!(rows, "<tr{class}>");
        for (index, field) in fields.iter().enumerate() {
            if index == 0 {
                let colour = colour(cell, group.policy);
                let _ =
                    write!(rows, "<td><i style=\"background:var(--{colour})\"></i>{}</td>", escaped(field));
            } else {
                let _ = write!(rows, "<td>{}</td>", escaped(field));
            }
        }
        rows.push_str("</tr>\n");
    }
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn colour(cell: &Cell<'_>, policy: &str) -> &'static str {
    let frontier = Frontier::of_cell(cell);
    let found = frontier.policies().into_iter().find(|(name, _)| *name == policy);
    found.map_or_else(|| ink(policy, 0), |(_, ink)| ink).dot
}

/// The runs over time: of each policy the setting that missed least for its hours comes first,
/// and only that one is shown where there are many.
fn runs(cell: &Cell<'_>, context: &Context) -> String {
    let mut shown: Vec<&Group<'_>> = Vec::new();
    for group in &cell.groups {
        let rival = shown.iter().position(|other| other.policy == group.policy);
        match rival {
            Some(_) if cell.groups.len() <= SHOWN => shown.push(group),
            Some(index) if better(group, shown[index]) => shown[index] = group,
            Some(_) => {}
            None => shown.push(group),
        }
    }
    let mut text = String::new();
    for (index, group) in shown.into_iter().take(SHOWN).enumerate() {
        let Some(timeline) = group.timeline().filter(|timeline| !timeline.points.is_empty()) else {
            continue;
        };
        let open = if index == 0 { " open" } else { "" };
        let _ = write!(
            text,
            "<details{open}><summary>{}<span>{} missed, {} replica-hours{}</span></summary>\n<div class=\"plots\">\n",
            escaped(&group.name()),
            percent(group.violations()),
            number(group.hours()),
            if group.seeds() > 1 { "; the first seed over time" } else { "" }
        );
        for plot in plots(timeline, context.ttft_target) {
            let _ = writeln!(
                text,
                "<div><h3>{}</h3>{}<figure>{}</figure></div>",
                escaped(plot.title),
                legend_of(plot.legend.iter().map(|(class, name)| (*class, *name, None))),
                plot.chart.inline(plot.title)
            );
        }
        text.push_str("</div></details>\n");
    }
    text
}

/// Whether a setting is the better representative of its policy: one that reaches the goal
/// rather than one that does not, then the cheaper, or the one that misses less.
fn better(one: &Group<'_>, other: &Group<'_>) -> bool {
    let reaches = |group: &Group<'_>| group.violations() <= 1.0 - GOAL;
    match (reaches(one), reaches(other)) {
        (true, true) => one.hours() < other.hours(),
        (false, false) => one.violations() < other.violations(),
        (reaches, _) => reaches,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::outcome, *};

    fn context() -> Context {
        Context {
            engine: "8b@a100x2".to_owned(),
            ttft_target: 2.0,
            tpot_target: 0.1,
            router: "least".to_owned(),
            command: "simulate azure.csv --against '<script>'".to_owned(),
            notes: vec!["line 3 has `<b>` as the time".to_owned()],
        }
    }

    fn comparison() -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for (trace, factor) in [("azure", 1.0), ("deepseek", 2.0)] {
            for (policy, setting, attainment, hours) in [
                ("latency", "headroom=0.10", 0.975, 6.6),
                ("latency", "headroom=0.15", 0.985, 7.0),
                ("latency", "headroom=0.30", 0.997, 8.1),
                ("demand", "threshold=16", 0.97, 7.9),
                ("demand", "threshold=32", 0.93, 6.8),
                ("waiting", "threshold=10", 0.52, 5.9),
                ("waiting", "threshold=2", 0.71, 6.4),
                ("waiting-k8s", "threshold=2", 0.66, 17.0),
                ("concurrency", "target=8", 0.96, 9.8),
                ("concurrency", "target=32", 0.85, 6.9),
                ("kv", "target=0.8", 0.31, 4.9),
                ("velocity", "", 0.94, 8.9),
                ("slo-loop", "", 0.93, 10.5),
                ("static", "replicas=6", 0.8, 6.0),
                ("static", "replicas=8", 0.973, 8.0),
                ("static", "replicas=10", 0.9992, 10.0),
                ("clairvoyant", "headroom=0.00", 0.972, 5.6),
                ("clairvoyant", "headroom=0.10", 0.992, 5.9),
            ] {
                outcomes.push(outcome(trace, policy, setting, 100.0, attainment, hours * factor));
            }
        }
        outcomes
    }

    #[test]
    fn the_page_needs_nothing_but_itself_and_shows_text_as_text() {
        let page = page(&comparison(), &context());
        for outside in ["<script", "src=", "href=", "url(", "@import", "http://", "https://"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("&lt;script&gt;") && page.contains("`&lt;b&gt;`"));
        assert!(
            page.contains("The cheapest way to serve 98% in time is latency:headroom=0.15: 7 replica-hours")
        );
        assert!(page.len() < 2_000_000, "{}", page.len());
    }

    #[test]
    fn where_nobody_reaches_the_goal_it_says_so() {
        let outcomes = [outcome("spikes", "waiting", "", 300.0, 0.4, 5.0)];
        let page = page(&outcomes, &context());
        assert!(
            page.contains("Nothing here serves 98% in time. The least is missed by waiting: 60% at 5"),
            "{page}"
        );
    }

    #[test]
    fn nothing_replayed_is_a_page_too() {
        assert!(page(&[], &Context::default()).contains("</html>"));
    }

    #[test]
    fn dump_for_looking() {
        if let Ok(folder) = std::env::var("REPORT_DUMP") {
            std::fs::write(format!("{folder}/report.html"), page(&comparison(), &context())).unwrap();
            let outcomes = comparison();
            std::fs::write(
                format!("{folder}/frontier.svg"),
                Frontier::over(&cells(&outcomes))
                    .file("Missed targets against cost, one setting for all traces"),
            )
            .unwrap();
        }
    }
}
