//! The report: one page with everything in it, for light and dark, without a network.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use super::{
    plots::{self, PlotError, Source},
    summary::DemoSummary,
};
use sim::keda::{Cause, Event};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error(transparent)]
    Plot(#[from] PlotError),
    #[error("failed to write the report to {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// Writes the report, making its folder where that is not there.
pub(crate) async fn write(path: &Path, source: Source<'_>, summary: &DemoSummary) -> Result<(), ReportError> {
    let page = page(source, summary)?;
    let failed = |source| ReportError::Write { path: path.into(), source };
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(failed)?;
    }
    tokio::fs::write(path, page).await.map_err(failed)
}

const STYLE: &str = include_str!("report.css");

/// A plot with its title, what its colours mean and what to see in it.
struct Section {
    title: &'static str,
    legend: &'static [(&'static str, &'static str)],
    text: &'static str,
    svg: String,
}

fn page(source: Source<'_>, summary: &DemoSummary) -> Result<String, ReportError> {
    let mut tiles = String::new();
    for (label, value, explanation) in summary.lines() {
        let _ = writeln!(
            tiles,
            "<div class=\"tile\"><h3>{}</h3><p class=\"value\">{}</p><p>{}</p></div>",
            escaped(label),
            escaped(&value),
            escaped(&explanation)
        );
    }
    let sections: String = sections(source)?.iter().map(section).collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>keda-kaito-scaler demo</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>From zero to {most} replicas and back</h1>\n\
         <p>One run of <code>keda-kaito-scaler demo</code>: the real scaler, which read simulated vLLM servers and \
         their gateway over HTTP, and a stand-in for KEDA and the HPA, which called it over gRPC. The model opted in \
         by its annotations, and the ScaledObject was made once the gateway had been read. Time is compressed: a \
         model starts in seconds, and the HPA and KEDA act in seconds too.</p></header>\n\
         <section class=\"tiles\">\n{tiles}</section>\n{sections}{decisions}\
         <footer>keda-kaito-scaler {version}</footer>\n</main>\n</body>\n</html>\n",
        most = summary.most_replicas,
        decisions = decisions(source),
        version = escaped(env!("CARGO_PKG_VERSION")),
    ))
}

fn sections(source: Source<'_>) -> Result<[Section; 5], PlotError> {
    Ok([
        Section {
            title: "Demand",
            legend: &[("one", "requests per second")],
            text: "What clients send. At first nobody asks and there is no replica; then a burst, a plateau, and a \
                   quiet end.",
            svg: plots::demand(source)?,
        },
        Section {
            title: "Where the requests are",
            legend: &[("one", "held at the gateway"), ("two", "waiting at replicas"), ("three", "running")],
            text: "At zero replicas the gateway's queue is the only sign of demand, and it is what wakes the model. \
                   With the first replica the queue moves to the replicas, whose own queues KAITO caps.",
            svg: plots::queue(source)?,
        },
        Section {
            title: "Replicas",
            legend: &[("four", "wanted (spec.replicas)"), ("three", "serving"), ("two", "push received")],
            text: "The push makes 0 into 1 as soon as a request waits. From 1 on the HPA decides. The gap between \
                   wanted and serving is the time that a replica takes to start.",
            svg: plots::replicas(source)?,
        },
        Section {
            title: "What the values ask for, and what plain sums would",
            legend: &[("one", "the scaler's values"), ("two", "plain sums: no answer counts as 0")],
            text: "Replicas that the two metrics ask for, before the HPA's tolerance, windows and steps. A replica \
                   that loads, or that does not answer, is unknown, and unknown is not zero: the scaler fills it in, \
                   so that it neither dilutes a known scale-up nor starts a scale-down. A plain sum takes it for \
                   idle, and asks for less than there is as soon as a replica is silent.",
            svg: plots::asked(source)?,
        },
        Section {
            title: "Who did what",
            legend: &[("two", "frame on KEDA's stream"), ("four", "write of spec.replicas")],
            text: "Pushes come on the edge, not on a ticker; while the model is awake none is needed.",
            svg: plots::events(source)?,
        },
    ])
}

fn section(section: &Section) -> String {
    let mut legend = String::new();
    for (colour, meaning) in section.legend {
        let _ =
            write!(legend, "<span><i style=\"background:var(--{colour})\"></i>{}</span>", escaped(meaning));
    }
    format!(
        "<section>\n<h2>{}</h2>\n<p>{}</p>\n<div class=\"legend\">{legend}</div>\n\
         <figure role=\"img\" aria-label=\"{}\">{}</figure>\n</section>\n",
        escaped(section.title),
        escaped(section.text),
        escaped(section.title),
        section.svg
    )
}

/// Every write of spec.replicas, with the decision record of that time.
fn decisions(source: Source<'_>) -> String {
    let history = source.history;
    let rows: String = history
        .events
        .iter()
        .filter_map(|(at, event)| {
            let Event::Scaled { from, to, cause } = event else { return None };
            let seconds = history.seconds(*at);
            let who = match cause {
                Cause::Push => "KEDA, on a push",
                Cause::Poll => "KEDA, on a poll",
                Cause::Cooldown => "KEDA, after the cooldown period",
                Cause::Hpa => "HPA",
            };
            // What the HPA acted on stood before its write; a wake-up comes with the decision
            // itself, which the next frame shows.
            let frame = match cause {
                Cause::Push | Cause::Poll => history.frames.iter().find(|frame| frame.at >= seconds),
                Cause::Hpa | Cause::Cooldown => history.frames.iter().rev().find(|frame| frame.at <= seconds),
            };
            let why = frame.map(|frame| frame.why.as_str()).unwrap_or_default();
            Some(format!(
                "<tr><td>{seconds:.2} s</td><td>{from} → {to}</td><td>{who}</td><td>{}</td></tr>\n",
                escaped(why)
            ))
        })
        .collect();
    format!(
        "<section>\n<h2>Decisions</h2>\n<p>Every write of spec.replicas, and what <code>/debug/targets</code> gave as \
         the reason at the time.</p>\n<div class=\"wide\"><table>\n<thead><tr><th>at</th><th>replicas</th><th>by</th>\
         <th>why</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n</section>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn text_can_not_become_markup() {
        assert_eq!(escaped("<b>\"a\" & b</b>"), "&lt;b&gt;&quot;a&quot; &amp; b&lt;/b&gt;");
    }
}
