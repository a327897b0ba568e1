//! What others call: KEDA's protocol over gRPC, gRPC health, and plain HTTP for people,
//! probes and Prometheus.

pub mod admin;
pub mod health;
pub mod listener;
mod rpc;
pub mod scaler;
mod stream;

#[cfg(test)]
mod tests;
