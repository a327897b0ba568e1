//! The pure core: everything that decides. No IO, no clock, no async: values in, values out.
//! `tests/layering.rs` keeps it so.

pub mod activation;
pub mod aggregate;
pub mod annotations;
pub mod cadence;
pub mod cert;
pub mod check;
pub mod cluster;
pub mod evaluate;
pub mod event_note;
pub mod exposition;
pub mod fields;
pub mod fleet;
pub mod gateway;
pub mod go_duration;
pub mod lease;
pub mod names;
pub mod page_choice;
pub mod pod;
pub mod policy;
pub mod problem;
pub mod push;
pub mod sample;
pub mod scaledobject;
pub mod scan;
pub mod shard;
pub mod snapshot;
pub mod staleness;
pub mod tenancy;
pub mod time;
pub mod trigger;
pub mod trouble;
pub mod vllm;
pub mod wake;
pub mod window;
