//! The store against an API server that the test plays, in virtual time.

mod feed;
mod store;
