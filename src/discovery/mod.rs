//! Where InferenceSets and their endpoints come from.

pub mod file;
pub mod kube;
