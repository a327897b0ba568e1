//! The gRPC side: what KEDA talks to.

pub mod listener;
