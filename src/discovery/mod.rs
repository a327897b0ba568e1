//! Where InferenceSets and their endpoints come from.

pub mod cluster;
pub mod file;
