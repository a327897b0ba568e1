//! The demo's command line. Its live table owns the terminal, so nothing is logged unless
//! `RUST_LOG` asks for it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use demo::DemoOptions;
use keda_kaito_scaler::telemetry::{self, LogFormat};

/// Watch keda-kaito-scaler work on this machine: a simulated fleet, the real engine, a stand-in
/// for KEDA and the HPA.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Args {
    /// Compressed to ten seconds.
    #[arg(long)]
    fast: bool,
    /// Where the report goes.
    #[arg(long, value_name = "FILE", default_value = "target/demo/report.html")]
    report: PathBuf,
}

fn main() -> Result<ExitCode> {
    let Args { fast, report } = Args::parse();
    telemetry::start("off", LogFormat::Text);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("failed to start the runtime")?.block_on(demo::run(DemoOptions { fast, report }))?;
    Ok(ExitCode::SUCCESS)
}
