//! KEDA external scaler for KAITO InferenceSets: pod watchers feed scrape tasks, scrape tasks
//! feed one aggregator, and every answer to KEDA is read from the snapshot it publishes. Read
//! [`run`] for how the parts are wired, [`core`] for everything that decides, and
//! ARCHITECTURE.md for the map.

pub mod aggregator;
pub mod check_install;
pub mod cli;
pub mod cluster;
pub mod discovery;
pub mod metrics;
pub mod open_files;
pub mod pki;
pub mod provision;
pub mod readiness;
pub mod run;
pub mod scrape;
pub mod serve;
pub mod targets;
pub mod tasks;
pub mod telemetry;
pub mod wake;

/// The release, with the commit it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("GIT_COMMIT"), ")");
/// The commit this was built from, or `unknown` where the build could not tell.
pub const COMMIT: &str = env!("GIT_COMMIT");

/// An error and everything behind it, in one line.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
