//! What model servers export: the families we know, what they mean, under which names they
//! went and go, and how one page becomes a [`PodSample`](crate::page::sample::PodSample).
//!
//! vLLM is what KAITO runs; SGLang, TensorRT-LLM and TGI are known by the three families that
//! scaling needs of them.

mod families;
pub mod picker;
mod read;
pub mod sample;
pub mod scan;
mod similar;
#[cfg(test)]
mod tests;
mod wanted;

pub use self::{
    families::{
        Concept, Engine, Family, Merge, Unit, adds_up, aliases, family, known_families, same_concept, unit,
    },
    read::{PageRead, read_page},
    wanted::{SharedWanted, Wanted},
};
