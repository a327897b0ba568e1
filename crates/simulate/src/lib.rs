//! A simulator in virtual time: it replays a trace of inference requests against a model of
//! vLLM replicas that an autoscaler adds and removes, and says what that cost and who waited.
//!
//! Time is whole microseconds from the trace's start, whatever is random comes from one seed,
//! and nothing depends on the machine's `libm`: the same input gives the same bytes everywhere.

pub use hpa;

pub mod cli;
pub mod compare;
pub mod engine;
pub mod fleet;
pub mod fluid;
pub mod keda;
pub mod outcome;
pub mod page;
pub mod policies;
pub mod policy;
pub mod preset;
pub mod published;
pub mod random;
pub mod replay;
pub mod report;
pub mod router;
pub mod score;
pub mod trace;
pub mod world;
