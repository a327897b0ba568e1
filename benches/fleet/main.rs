//! The whole scaler under the load of a large fleet: `cargo bench --bench fleet -- all`.
//!
//! The scaler is the real binary in a process of its own, on a core of its own where there
//! are two; the simulated fleet and the stand-in for KEDA share the other. Everything is on
//! loopback addresses. Without an argument a small fleet shows that it all still runs.

mod cores;
mod figures;
mod generator;
mod keda;
mod report;
mod scaler;
mod shards;
mod sleepers;
mod start;
mod steady;
mod tls;

use std::time::Duration;

use anyhow::{Result, bail};
use keda_kaito_scaler::open_files;
use sim::fleet::Filtering;

use crate::{cores::Cores, report::Report, sleepers::Sleepers, steady::Scene};

const SECOND: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let cores = Cores::take();
    open_files::raise_limit();
    // `cargo bench` and `cargo test` add flags of their own.
    let mut parts: Vec<String> = std::env::args().skip(1).filter(|part| !part.starts_with('-')).collect();
    let smoke = parts.is_empty();
    if smoke || parts.iter().any(|part| part == "all") {
        parts = ALL.map(str::to_owned).into();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut report = Report::begin(&cores, smoke);
        for part in &parts {
            run(part, smoke, &cores, &mut report).await?;
        }
        report.end()
    })
}

const ALL: [&str; 10] =
    ["idle", "filtered", "plain", "dead", "tls", "sleepers", "start", "restart", "soak", "shards"];

async fn run(part: &str, smoke: bool, cores: &Cores, report: &mut Report) -> Result<()> {
    let window = if smoke { SECOND } else { 8 * SECOND };
    // Any number, for who develops.
    let wished = std::env::var("BENCH_FLEET_SIZE").ok().and_then(|size| size.parse().ok());
    let size = |full: usize| wished.unwrap_or(if smoke { 50 } else { full });
    let scene = |endpoints| Scene {
        endpoints,
        filtering: Filtering::Works,
        interval: if smoke { SECOND / 5 } else { SECOND },
        window,
        dead_percent: 0,
    };
    let sizes = |full: &[usize]| match wished {
        Some(size) => vec![size],
        None if smoke => vec![50],
        None => full.to_vec(),
    };
    match part {
        "idle" => report.idle(start::idle(cores, window).await?),
        "filtered" => {
            for endpoints in sizes(&[100, 1_000, 3_000, 10_000]) {
                report.steady(&scene(endpoints).measure(cores).await?);
            }
        }
        "plain" => {
            for endpoints in sizes(&[100, 1_000, 3_000]) {
                let scene = Scene { filtering: Filtering::GivesNothing, ..scene(endpoints) };
                report.steady(&scene.measure(cores).await?);
            }
        }
        "dead" => {
            // In turn, so that what else the machine does falls on both alike.
            let mut outcomes = vec![];
            for dead_percent in [0, 30].repeat(if smoke { 1 } else { 2 }) {
                let outcome = Scene { dead_percent, ..scene(size(1_000)) }.measure(cores).await?;
                report.steady(&outcome);
                outcomes.push(outcome);
            }
            report.dead(&outcomes);
        }
        "tls" => {
            for calls in tls::calls(cores, window).await? {
                report.tls(calls);
            }
        }
        "start" => report.start(start::start(cores, size(1_000)).await?),
        "restart" => report.restart(start::restart(cores, size(2_000)).await?),
        "soak" => {
            let (interval, length) = (SECOND / 10, if smoke { SECOND } else { 40 * SECOND });
            report.soak(start::soak(cores, size(500), interval, length).await?);
        }
        "sleepers" => {
            let full = [(1, 500), (100, 500), (1_000, 500), (100, 0), (1_000, 0)];
            for (count, budget) in if smoke { vec![(5, 500)] } else { full.to_vec() } {
                let scene = Sleepers { count, budget, window: if smoke { SECOND } else { 12 * SECOND } };
                report.slept(scene.measure(cores).await?);
            }
        }
        "shards" => {
            for count in if smoke { vec![2] } else { vec![1, 2, 4] } {
                report.sharded(shards::divide(cores, size(2_000), count, window).await?);
            }
        }
        other => bail!("{other:?} is no part of this bench: it has all, {}", ALL.join(", ")),
    }
    Ok(())
}
