//! Logs: to standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The level that a klog verbosity (`--v`) asks for: the existing scaler logs lifecycle at 2,
/// each RPC and decision at 4 and each scrape at 6.
#[must_use]
pub fn level(verbosity: u8) -> &'static str {
    match verbosity {
        0..=3 => "info",
        4 | 5 => "debug",
        6.. => "trace",
    }
}

/// Starts to log. `RUST_LOG` wins over `default_level`. Does nothing where a logger is there
/// already.
pub fn start(default_level: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        let others = if default_level == "off" { "off" } else { "warn" };
        // The client logs each failed request as an error; whoever made it says what it means.
        let client = "kube_client::client::builder=off";
        EnvFilter::new(format!("{others},{client},keda_kaito_scaler={default_level}"))
    });
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            registry.with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
    drop(started);
}
