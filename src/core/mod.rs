//! The pure core: everything that decides. No IO, no clock, no async: values in, values out.
//! `tests/layering.rs` keeps it so.

pub mod annotations;
pub mod check;
pub mod exposition;
pub mod fields;
pub mod fleet;
pub mod go_duration;
pub mod names;
pub mod problem;
pub mod sample;
pub mod scaledobject;
pub mod time;
pub mod trigger;
