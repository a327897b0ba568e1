//! What model servers export: the families we know, what they mean, under which names they
//! went and go, and how one page becomes a [`PodSample`](crate::page::sample::PodSample).
//!
//! vLLM is what KAITO runs, and all of its families are known; of other engines those that
//! scaling needs, and some more.

mod doubt;
mod families;
pub mod picker;
mod read;
pub mod sample;
pub mod scan;
mod similar;
mod table;
mod tally;
#[cfg(test)]
mod tests;
pub mod usage;
mod wanted;

pub use self::{
    doubt::{Doubt, doubt},
    families::{
        Concept, Engine, Family, Merge, Overlap, Unit, adds_up, aliases, engine_of, family, known_families,
        overlap, same_concept, unit,
    },
    read::{NotMetrics, PageRead, read_page},
    wanted::{SharedWanted, Wanted},
};
