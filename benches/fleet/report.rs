//! Tables for people as the figures come, JSON at the end.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{cores::Cores, sleepers::Slept, steady::Outcome};

/// What was measured so far.
#[derive(Debug)]
pub struct Report {
    figures: serde_json::Map<String, Value>,
    smoke: bool,
}

const STEADY: &str = "| endpoints | page | scrapes/s | CPU s/s | CPU a scrape | memory (peak) | lag p50/p99 \
     | activation p50/p99 (n) | GetMetrics p50/p99 | scraped/s | load's CPU |";

impl Report {
    pub fn begin(cores: &Cores, smoke: bool) -> Self {
        let commit = keda_kaito_scaler::COMMIT;
        println!("commit {commit}; scaler on a core of its own: {}", cores.pinned());
        println!("{STEADY}\n{}", "|---".repeat(STEADY.matches('|').count() - 1) + "|");
        let figures = json!({"commit": commit, "pinned": cores.pinned()});
        Self { figures: figures.as_object().cloned().unwrap_or_default(), smoke }
    }

    pub fn steady(&mut self, outcome: Outcome) {
        let Outcome { scrape_lag: lag, activation, get_metrics: calls, .. } = outcome;
        println!(
            "| {} | {} | {:.0} | {:.3} | {:.1} µs | {:.1} ({:.1}) MiB | {:.2} / {:.2} ms | {:.0} / {:.0} ms ({}) \
             | {:.2} / {:.2} ms | {:.1} MB | {:.2} |",
            outcome.endpoints,
            outcome.page,
            outcome.scrapes_per_second,
            outcome.processor,
            outcome.microseconds_per_scrape,
            mebibytes(outcome.resident_bytes),
            mebibytes(outcome.peak_bytes),
            lag.p50,
            lag.p99,
            activation.p50,
            activation.p99,
            activation.count,
            calls.p50,
            calls.p99,
            outcome.bytes_scraped_per_second / 1e6,
            outcome.generator_processor,
        );
        if outcome.calls_failed + outcome.activations_lost > 0 {
            println!(
                "calls failed: {}, activations lost: {}",
                outcome.calls_failed, outcome.activations_lost
            );
        }
        self.add("steady", outcome);
    }

    pub fn slept(&mut self, slept: Slept) {
        let Slept { one_by_one, together, .. } = slept;
        println!(
            "{} sleepers, budget {}/s: {:.0} scrapes/s, {:.3} CPU s/s, {:.1} MiB; request to frame one by one \
             {:.0} / {:.0} ms ({}), all at once {:.0} / {:.0} / {:.0} ms ({}); sample to frame within 5 ms: {} of \
             {}; load's CPU {:.2}",
            slept.sleepers,
            slept.budget,
            slept.scrapes_per_second,
            slept.processor,
            mebibytes(slept.resident_bytes),
            one_by_one.p50,
            one_by_one.p99,
            one_by_one.count,
            together.p50,
            together.p99,
            together.max,
            together.count,
            slept.within_5_ms,
            slept.frames,
            slept.generator_processor,
        );
        if slept.lost > 0 {
            println!("activations lost: {}", slept.lost);
        }
        self.add("sleepers", slept);
    }

    fn add(&mut self, key: &str, figure: impl serde::Serialize) {
        let list = self.figures.entry(key).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(serde_json::to_value(figure).unwrap_or_default());
        }
    }

    /// Writes the figures down.
    pub fn end(self) -> Result<()> {
        if self.smoke {
            return Ok(());
        }
        let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        let file = folder.join("bench-fleet.json");
        fs::write(&file, serde_json::to_string_pretty(&self.figures)?)
            .with_context(|| format!("failed to write {}", file.display()))?;
        println!("written to {}", file.display());
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
