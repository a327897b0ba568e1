//! The pure core: everything that decides. No IO, no clock, no async: values in, values out.
//! Its Cargo.toml has nothing that could do IO, and `tests/layering.rs` of the workspace holds
//! the arrows between its folders.

pub mod cert;
pub mod check;
pub mod config;
pub mod decision;
pub mod endpoint;
pub mod event_note;
pub mod exposition;
pub mod fleet;
pub mod lease;
pub mod names;
pub mod page;
pub mod provision;
mod steps;
pub mod time;
pub mod wake;
