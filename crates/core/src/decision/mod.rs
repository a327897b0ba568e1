//! One decision about one target: from what is known of its endpoints to the snapshot that KEDA
//! is answered from, and when activation is pushed.

pub mod activation;
pub mod evaluate;
pub mod fill;
pub mod policy;
pub mod push;
pub mod snapshot;
pub mod warning;
