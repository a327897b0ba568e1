//! One decision about one target: from what is known of its endpoints to the snapshot that KEDA
//! is answered from, and when activation is pushed.
//!
//! A decision has two steps. The replicas are sorted by what they count as ([`population`]), and each
//! metric of the trigger is read once over them, into plain values ([`readings`]). [`aggregate`] and
//! [`policy`] make of these what KEDA gets. [`evaluate`] puts the two together.

pub mod activation;
mod aggregate;
pub mod evaluate;
pub mod fill;
mod policy;
mod population;
pub mod push;
mod readings;
pub mod snapshot;
pub mod warning;
