//! Reads wake-up sources: pages that show demand while a model has no replica.
//!
//! ```text
//! aggregator ─SourcePlan─► SourcePool ─► one task a source ─► Reader ─► PageClient ─► page
//! Prober ─────SourcePlan─►     │                               └─► Credentials ─► Kubernetes API
//!                              ◄──── Directory (where each port answers) ◄── discovery
//! ```
//! Every reading, whoever wants it, goes through the same [`Reader`]: one place decides who is
//! shown a token.

mod cached;
mod credentials;
mod prober;
mod reader;
mod sources;
#[cfg(test)]
mod tests;

pub use self::{
    credentials::{CredentialSettings, Credentials},
    prober::{PROBE_INTERVAL, Prober},
    reader::{Reader, SourceEndpoint},
    sources::{SourcePlan, SourcePool, SourceReport, TIMEOUT},
};
