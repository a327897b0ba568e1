//! A run over time, as charts.

use super::{
    scale::{Scale, number},
    svg::{Chart, stepped},
};
use crate::outcome::{Point, Timeline};

/// The most points of a curve: more are not seen, and a page has many curves.
const POINTS: usize = 480;
const HEIGHT: f64 = 110.0;

/// A chart with its title and what its colours mean.
#[derive(Clone, Debug)]
pub struct Plot {
    pub title: &'static str,
    pub legend: &'static [(&'static str, &'static str)],
    pub chart: Chart,
}

/// How several values become one.
#[derive(Clone, Copy)]
enum Merge {
    Mean,
    Largest,
}

/// The values of a timeline with at most [`POINTS`] points: time in seconds and value.
fn series(timeline: &Timeline, merge: Merge, of: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let together = timeline.points.len().div_ceil(POINTS).max(1);
    let seconds = timeline.interval_us as f64 / 1e6;
    let merged = timeline.points.chunks(together).enumerate().map(|(index, points)| {
        let values = points.iter().map(&of);
        let value = match merge {
            Merge::Mean => values.sum::<f64>() / points.len() as f64,
            Merge::Largest => values.fold(0.0, f64::max),
        };
        ((index * together) as f64 * seconds, value)
    });
    merged.collect()
}

fn highest(series: &[(f64, f64)]) -> f64 {
    series.iter().map(|(_, value)| *value).fold(0.0, f64::max)
}

/// The charts of a run: load, replicas, queue, time to the first token, violations.
/// `ttft_target` is in seconds.
#[must_use]
pub fn plots(timeline: &Timeline, ttft_target: f64) -> Vec<Plot> {
    let seconds = timeline.interval_us as f64 / 1e6;
    let end = timeline.points.len() as f64 * seconds;
    let time = || Scale::time(0.0, end);
    let from_zero = |series: &[(f64, f64)]| Scale::from_zero(highest(series), number);

    let load = series(timeline, Merge::Mean, |point| point.arrivals as f64 / seconds);
    let mut load_chart = Chart::new(HEIGHT, time(), from_zero(&load));
    load_chart.area(&load, "one");
    load_chart.line(load.iter().copied(), "one thin");

    let serving = series(timeline, Merge::Mean, |point| point.serving);
    let present = series(timeline, Merge::Mean, |point| point.serving + point.loading);
    let wanted = series(timeline, Merge::Mean, |point| point.wanted);
    let mut replicas = Chart::new(HEIGHT, time(), Scale::counts(highest(&wanted).max(highest(&present))));
    replicas.area(&stepped(&present), "two");
    // What is serving takes the colour of what is loading away.
    replicas.area(&stepped(&serving), "none");
    replicas.area(&stepped(&serving), "three");
    replicas.line(stepped(&serving), "three thin");
    replicas.line(stepped(&wanted), "four");

    let queued = series(timeline, Merge::Largest, |point| point.queued);
    let mut queue = Chart::new(HEIGHT, time(), from_zero(&queued));
    queue.area(&queued, "two");
    queue.line(queued.iter().copied(), "two thin");

    let ttft = series(timeline, Merge::Largest, |point| point.ttft_p95);
    let top = highest(&ttft).max(ttft_target) * 1.5;
    let scale = Scale::decades(ttft_target / 100.0, top, |value| format!("{} s", number(value)));
    let mut first_token = Chart::new(HEIGHT, time(), scale);
    // Where nobody had a first token there is nothing to draw, and no zero either.
    for run in ttft.split(|(_, value)| *value <= 0.0) {
        first_token.line(run.iter().copied(), "one");
    }
    first_token.line([(0.0, ttft_target), (end, ttft_target)], "two thin dashed");

    let missed = series(timeline, Merge::Mean, |point| point.violations as f64 * 60.0 / seconds);
    let mut violations = Chart::new(HEIGHT, time(), from_zero(&missed));
    violations.area(&missed, "six");
    violations.line(missed.iter().copied(), "six thin");

    vec![
        Plot { title: "Offered load, requests a second", legend: &[], chart: load_chart },
        Plot {
            title: "Replicas",
            legend: &[("four", "wanted"), ("three", "serving"), ("two", "loading")],
            chart: replicas,
        },
        Plot { title: "Requests that wait", legend: &[], chart: queue },
        Plot {
            title: "Time to the first token, 95th percentile",
            legend: &[("one", "measured"), ("two", "target")],
            chart: first_token,
        },
        Plot { title: "Missed targets a minute", legend: &[], chart: violations },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_no_more_points_than_are_seen() {
        let points = (0..2880_u64).map(|index| Point { violations: index % 6, ..Point::default() }).collect();
        let timeline = Timeline { interval_us: 60_000_000, points };
        let means = series(&timeline, Merge::Mean, |point| point.violations as f64);
        assert_eq!((means.len(), means[1]), (480, (360.0, 2.5)));
        let largest = series(&timeline, Merge::Largest, |point| point.violations as f64);
        assert_eq!(largest[479], (172_440.0, 5.0));
    }

    #[test]
    fn a_run_without_points_can_be_drawn() {
        assert_eq!(plots(&Timeline::default(), 2.0).len(), 5);
    }
}
