//! Scrapes endpoints: one task each, a filtered page where the server can give one.

pub mod client;
pub mod fetch;
