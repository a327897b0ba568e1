//! The pure core: everything that decides. No IO, no clock, no async: values in, values out.
//! `tests/layering.rs` keeps it so.

pub mod cert;
pub mod exposition;
pub mod fleet;
pub mod lease;
pub mod names;
pub mod sample;
pub mod time;
pub mod trigger;
