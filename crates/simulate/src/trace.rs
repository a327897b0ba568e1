//! What is replayed: requests in the order of their arrival, read as a stream.

pub mod draw;
pub mod file;
pub mod format;
pub mod lines;
pub mod log;
pub mod prometheus;
pub mod rates;
pub mod record;
pub mod row;
pub mod scaled;
pub mod window;

use std::{fmt, path::PathBuf, sync::Arc};

/// One inference request of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// When its client sends it, in microseconds since the trace's first request.
    pub at_us: u64,
    /// Length of the prompt, at least 1.
    pub input_tokens: u32,
    /// Length of the answer, at least 1.
    pub output_tokens: u32,
    /// Which blocks the prompt begins with.
    pub prefix: Prefix,
}

/// The content of a prompt as hashes of its blocks of [`Prefix::BLOCK_TOKENS`] tokens each,
/// first block first: two prompts share as many leading tokens as they share leading hashes.
/// Empty where the trace does not tell; such a prompt shares nothing with any other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(Option<Arc<[u64]>>);

impl Prefix {
    /// Tokens of one block.
    pub const BLOCK_TOKENS: u32 = 512;

    /// A prompt of which nothing is known.
    pub const UNKNOWN: Self = Self(None);

    /// The prefix with these block hashes.
    #[must_use]
    pub fn new(blocks: &[u64]) -> Self {
        Self((!blocks.is_empty()).then(|| blocks.into()))
    }

    /// The hashes, first block first.
    #[must_use]
    pub fn blocks(&self) -> &[u64] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// A trace that can be opened as often as needed: once for each policy, and once more for
/// whoever looks ahead.
pub trait Trace: fmt::Debug + Send + Sync {
    /// What reports call it.
    fn name(&self) -> &str;

    /// A new stream from the first request on.
    fn open(&self) -> Result<RequestStream, TraceError>;
}

/// Requests in the order of arrival; memory is bounded however many there are. After an error
/// it ends.
pub type RequestStream = Box<dyn Iterator<Item = Result<Request, TraceError>> + Send>;

/// Why a trace can't be replayed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file can't be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The content is not a trace of the expected format.
    #[error("{0}")]
    Content(String),
}

/// A trace that lies in memory: of tests, and of small generated loads.
#[derive(Clone, Debug)]
pub struct InMemory {
    /// What reports call it.
    pub name: String,
    /// Sorted by `at_us`.
    pub requests: Arc<[Request]>,
}

impl Trace for InMemory {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Result<RequestStream, TraceError> {
        let requests = Arc::clone(&self.requests);
        let mut next = 0;
        Ok(Box::new(std::iter::from_fn(move || {
            next += 1;
            requests.get(next - 1).cloned().map(Ok)
        })))
    }
}
