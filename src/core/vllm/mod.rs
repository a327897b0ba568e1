//! What model servers export: the families we know, what they mean, under which names they
//! went and go, and how one page becomes a [`PodSample`](super::sample::PodSample).
//!
//! vLLM is what KAITO runs; SGLang, TensorRT-LLM and TGI are known by the three families that
//! scaling needs of them.

mod families;
mod read;
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
