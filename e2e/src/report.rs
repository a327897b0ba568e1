//! What a run measured and found: a table for people, JSON for programs.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::certificates::write;

/// One figure of a scenario: a single measurement, or many.
#[derive(Clone, Debug, PartialEq)]
struct Figure {
    scenario: String,
    name: String,
    unit: &'static str,
    samples: Vec<f64>,
}

/// Everything that was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Mutex<Vec<Figure>>,
    outcomes: Mutex<Vec<Outcome>>,
}

/// How a scenario ended.
#[derive(Clone, Debug)]
struct Outcome {
    scenario: String,
    took: Duration,
    failure: Option<String>,
}

impl Report {
    /// Adds measurements of `name` to those that are there.
    pub(crate) fn add(&self, scenario: &str, name: &str, unit: &'static str, samples: &[f64]) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        match figures.iter_mut().find(|figure| figure.scenario == scenario && figure.name == name) {
            Some(figure) => figure.samples.extend(samples),
            None => figures.push(Figure {
                scenario: scenario.to_owned(),
                name: name.to_owned(),
                unit,
                samples: samples.to_vec(),
            }),
        }
    }

    pub(crate) fn end(&self, scenario: &str, took: Duration, failure: Option<String>) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.push(Outcome { scenario: scenario.to_owned(), took, failure });
    }

    /// Those that failed, with what they say.
    pub(crate) fn failures(&self) -> Vec<(String, String)> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.iter().filter_map(|one| Some((one.scenario.clone(), one.failure.clone()?))).collect()
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:<34}{:>9}  result\n", "scenario", "seconds");
        for Outcome { scenario, took, failure } in
            self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            let result = if failure.is_some() { "FAILED" } else { "ok" };
            let _ = writeln!(text, "{scenario:<34}{:>9.1}  {result}", took.as_secs_f64());
        }
        let _ = writeln!(text, "\n{:<78}{:>5}{:>10}{:>10}{:>10}", "figure", "n", "p50", "p99", "max");
        for figure in self.figures.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let name = format!("{}: {}", figure.scenario, figure.name);
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|rank| quantile(&figure.samples, rank));
            let (count, unit) = (figure.samples.len(), figure.unit);
            let _ = writeln!(text, "{name:<78}{count:>5}{p50:>10.1}{p99:>10.1}{max:>10.1} {unit}");
        }
        text
    }

    pub(crate) fn write(&self, path: &Path, keda: &str) -> Result<()> {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let figures: Vec<Value> = figures
            .iter()
            .map(|figure| {
                let [p50, p99, max] = [0.5, 0.99, 1.0].map(|rank| quantile(&figure.samples, rank));
                json!({
                    "scenario": figure.scenario, "name": figure.name, "unit": figure.unit,
                    "n": figure.samples.len(), "p50": p50, "p99": p99, "max": max, "samples": figure.samples,
                })
            })
            .collect();
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let scenarios: Vec<Value> = outcomes
            .iter()
            .map(|one| json!({"name": one.scenario, "seconds": one.took.as_secs_f64(), "failure": one.failure}))
            .collect();
        let report = json!({"keda": keda, "scenarios": scenarios, "figures": figures});
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        }
        write(path, &format!("{report:#}\n"))
    }
}

/// The smallest sample that at least the share `rank` of the samples does not exceed.
fn quantile(samples: &[f64], rank: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within the samples")]
    let index = ((rank * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_sample() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (rank, expected) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)] {
            assert_eq!(quantile(&samples, rank), expected, "{rank}");
        }
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn measurements_of_one_name_come_together() {
        let report = Report::default();
        report.add("wake", "pushed", "ms", &[1.0, 3.0]);
        report.add("wake", "pushed", "ms", &[2.0]);
        report.end("wake", Duration::from_secs(3), None);
        report.end("hang", Duration::from_secs(1), Some("no".into()));
        let table = report.table();
        assert!(table.contains("wake: pushed") && table.contains("    3       2.0       3.0"), "{table}");
        assert_eq!(report.failures(), [("hang".to_owned(), "no".to_owned())]);
    }
}
