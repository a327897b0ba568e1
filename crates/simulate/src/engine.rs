//! A model of one vLLM replica: continuous batching with chunked prefill, a KV cache that grows
//! with every token and preempts where it overflows, and a prefix cache.

mod prefix_cache;
mod replica;
mod spec;
#[cfg(test)]
mod tests;

pub use self::{
    replica::{Offered, QueueFull, Replica, Served},
    spec::{EngineSpec, EngineSpecError},
};
