//! KEDA's external scaler protocol, generated from `proto/externalscaler.proto`.

pub use self::generated::*;

/// The compiled descriptors, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/externalscaler.bin"));

#[allow(clippy::pedantic, missing_debug_implementations, reason = "generated code")]
mod generated {
    tonic::include_proto!("externalscaler");
}
