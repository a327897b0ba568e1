//! KEDA external scaler for KAITO InferenceSets. See ARCHITECTURE.md for the map.

pub mod clock;
pub mod core;
#[cfg(test)]
mod fake_api;
pub mod lease;
pub mod pki;
pub mod serve;

/// KEDA's protocol, generated from `proto/externalscaler.proto`.
#[allow(clippy::pedantic, reason = "generated code")]
pub mod proto {
    tonic::include_proto!("externalscaler");

    /// The compiled descriptors, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/externalscaler.bin"));
}
