//! What users write: the metadata of triggers, annotations on InferenceSets, and how what is
//! wrong with them is told.

pub mod annotations;
pub mod fields;
pub mod go_duration;
pub mod problem;
pub mod trigger;
pub mod yaml;
