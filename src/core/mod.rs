//! The pure core: everything that decides. No IO, no clock, no async: values in, values out.
//! `tests/layering.rs` keeps it so.

pub mod exposition;
pub mod fleet;
pub mod names;
pub mod sample;
pub mod scan;
pub mod time;
pub mod trigger;
