//! What runs cost and who waited, for people: a table for terminals, a page, and the frontier
//! as a picture.

pub mod frontier;
pub mod group;
pub mod page;
pub mod palette;
pub mod scale;
pub mod svg;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
pub mod timeline;
