//! The cluster: the client of its API, what is known of it, and who leads.

pub mod api;
pub mod client;
pub mod directory;
pub mod lease;
pub mod store;

#[cfg(test)]
pub(crate) mod testing;
