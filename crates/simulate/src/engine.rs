//! A model of one vLLM replica.

mod spec;

pub use self::spec::{EngineSpec, EngineSpecError};
