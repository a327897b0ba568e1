//! Tables for people as the figures come, JSON at the end.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    cores::Cores,
    shards::Sharded,
    sleepers::Slept,
    start::{Idle, Restart, Soak, Start},
    steady::Outcome,
    tls::Calls,
};

/// What was measured so far.
#[derive(Debug)]
pub(crate) struct Report {
    figures: serde_json::Map<String, Value>,
    smoke: bool,
    /// The last line was one of the table of steady fleets.
    in_table: bool,
}

const STEADY: &str = "| endpoints | page | dead | scrapes/s | CPU s/s | CPU a scrape | memory (peak) | lag p50/p99 \
     | activation p50/p99 (n) | GetMetrics p50/p99 | scraped/s | load's CPU |";

impl Report {
    pub(crate) fn begin(cores: &Cores, smoke: bool) -> Self {
        let commit = keda_kaito_scaler::COMMIT;
        println!("commit {commit}; scaler on a core of its own: {}", cores.pinned());
        let figures = json!({"commit": commit, "pinned": cores.pinned()});
        Self { figures: figures.as_object().cloned().unwrap_or_default(), smoke, in_table: false }
    }

    pub(crate) fn steady(&mut self, outcome: &Outcome) {
        let Outcome { scrape_lag: lag, activation, get_metrics: calls, .. } = *outcome;
        if !std::mem::replace(&mut self.in_table, true) {
            println!("\n{STEADY}\n{}", "|---".repeat(STEADY.matches('|').count() - 1) + "|");
        }
        println!(
            "| {} | {} | {} % | {:.0} | {:.3} | {:.1} µs | {:.1} ({:.1}) MiB | {:.2} / {:.2} ms | {:.0} / {:.0} ms ({}) \
             | {:.2} / {:.2} ms | {:.1} MB | {:.2} |",
            outcome.endpoints,
            outcome.page,
            outcome.dead_percent,
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
        if outcome.dead_percent == 0 {
            for complaint in outcome.complaints.iter().take(3) {
                println!("the scaler warned ({} times): {complaint}", outcome.warnings);
            }
        }
        self.add("steady", outcome);
    }

    pub(crate) fn idle(&mut self, idle: Idle) {
        let line = format!(
            "no target: {:.1} MiB, {:.2} ms of processor time a second",
            mebibytes(idle.resident_bytes),
            idle.processor * 1e3
        );
        self.say("idle", &line, idle);
    }

    pub(crate) fn start(&mut self, start: Start) {
        let line = format!(
            "start with {} targets and {} endpoints, from exec: listens after {:.0} ms, first value {:.0} ms, \
             every target's {:.0} ms, calls refused: {}",
            start.targets,
            start.endpoints,
            start.listening,
            start.first_value,
            start.all_values,
            start.refused
        );
        self.say("start", &line, start);
    }

    pub(crate) fn restart(&mut self, restart: Restart) {
        let Restart { streams, reopened } = restart;
        let line = format!("restart: {streams} streams are open again {reopened:.0} ms after exec");
        self.say("restart", &line, restart);
    }

    pub(crate) fn tls(&mut self, calls: Calls) {
        let line = format!(
            "GetMetrics over mutual TLS, {} callers on one connection: p50 {:.3}, p99 {:.3} ms, {:.0} calls/s, \
             failed: {}, first calls refused: {}; CPU s/s of the scaler {:.2}, of the callers {:.2}",
            calls.callers,
            calls.latency.p50,
            calls.latency.p99,
            calls.per_second,
            calls.failed,
            calls.first_refused,
            calls.processor,
            calls.callers_processor
        );
        self.say("tls", &line, calls);
    }

    pub(crate) fn soak(&mut self, soak: Soak) {
        let points = soak
            .resident
            .iter()
            .map(|(scrapes, resident)| format!("{scrapes:.0}: {:.2}", mebibytes(*resident)));
        let line = format!(
            "soak of {} endpoints every {} s, MiB after so many scrapes of each: {}",
            soak.endpoints,
            soak.interval_seconds,
            points.collect::<Vec<_>>().join(", ")
        );
        self.say("soak", &line, soak);
    }

    pub(crate) fn slept(&mut self, slept: Slept) {
        let Slept { one_by_one, together, .. } = slept;
        let line = format!(
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
        self.say("sleepers", &line, slept);
    }

    pub(crate) fn sharded(&mut self, divided: Sharded) {
        let line = format!(
            "{} endpoints on {} shard(s): fullest {:.2} of an even share, {:.0} scrapes/s, {:.3} CPU s/s and {:.1} MiB \
             in all; to one shard more {} of {} InferenceSets moved, served there after {:.0} ms, calls failed: {}",
            divided.endpoints,
            divided.shards,
            divided.fullest,
            divided.scrapes_per_second,
            divided.processor,
            mebibytes(divided.resident_bytes),
            divided.moved,
            divided.sets,
            divided.handed_over,
            divided.calls_failed
        );
        self.say("shards", &line, divided);
    }

    fn say(&mut self, key: &str, line: &str, figure: impl serde::Serialize) {
        if std::mem::take(&mut self.in_table) {
            println!();
        }
        println!("{line}");
        self.add(key, figure);
    }

    fn add(&mut self, key: &str, figure: impl serde::Serialize) {
        let list = self.figures.entry(key).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(serde_json::to_value(figure).unwrap_or_default());
        }
    }

    /// By how much dead endpoints move the lag of the others: medians of alternating runs.
    pub(crate) fn dead(&mut self, outcomes: &[Outcome]) {
        let lag = |dead: bool, percentile: fn(&Outcome) -> f64| {
            let runs = outcomes.iter().filter(|outcome| (outcome.dead_percent > 0) == dead);
            let mut values: Vec<f64> = runs.map(percentile).collect();
            values.sort_by(f64::total_cmp);
            // The mean of the middle two, where there is no middle.
            values
                .get(values.len() / 2)
                .copied()
                .map_or(f64::NAN, |upper| f64::midpoint(upper, values[(values.len() - 1) / 2]))
        };
        let [p50, p99]: [fn(&Outcome) -> f64; 2] = [|it| it.scrape_lag.p50, |it| it.scrape_lag.p99];
        let figure = json!({
            "p50_without": lag(false, p50), "p50_with": lag(true, p50),
            "p99_without": lag(false, p99), "p99_with": lag(true, p99),
        });
        let line = format!(
            "lag of the living without and with 30 % dead, medians of {} runs each: p50 {:.2} and {:.2} ms, \
             p99 {:.2} and {:.2} ms ({:+.0} %)",
            outcomes.len() / 2,
            lag(false, p50),
            lag(true, p50),
            lag(false, p99),
            lag(true, p99),
            (lag(true, p99) / lag(false, p99) - 1.0) * 100.0,
        );
        self.say("dead", &line, figure);
    }

    /// Writes the figures down.
    pub(crate) fn end(self) -> Result<()> {
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
