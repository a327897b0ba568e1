//! What a run looked like, for people.

pub mod scale;
pub mod svg;
