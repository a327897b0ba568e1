//! Reads wake-up sources: pages that show demand while a model has no replica.
//!
//! ```text
//! aggregator ─SourcePlan─► SourcePool ─► one task a source ─► Reader ─► SourceClient ─► page
//! Prober ─────SourcePlan─►     │                               └─► Credentials ─► Kubernetes API
//!                              ◄──── Directory (where each port answers) ◄── discovery
//! ```
//! Every reading, whoever wants it, goes through the same [`Reader`]: one place decides who is
//! shown a token.

mod client;
mod credentials;
mod prober;
mod reader;
mod sources;
#[cfg(test)]
mod tests;

pub use self::{
    client::{Dial, SourceClient, SourceClientError, SourceFetch},
    credentials::{CredentialSettings, Credentials},
    prober::{PROBE_INTERVAL, Prober},
    reader::{Memory, Reader},
    sources::{SourcePlan, SourcePool, SourceReport, TIMEOUT},
};
