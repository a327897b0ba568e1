//! One decision about one target: from what is known of its endpoints to the snapshot that KEDA
//! is answered from, and when activation is pushed.
//!
//! A decision has two steps. [`readings`] sorts the replicas by what they count as and reads each
//! metric of the trigger once over those that serve, into plain values. [`aggregate`] and
//! [`policy`] make of these what KEDA gets. [`evaluate`] puts the two together.

pub mod activation;
mod aggregate;
pub mod evaluate;
pub mod fill;
mod policy;
pub mod push;
mod readings;
pub mod snapshot;
pub mod warning;
