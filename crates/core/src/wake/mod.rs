//! What wakes a model that has no replica: the endpoint picker (EPP) of the gateway that holds
//! requests meanwhile, or another Service that its user names. Which page is read for whom,
//! to whom a token may be shown, what it means that one can't be read, and how often.

pub mod fault;
pub mod pace;
pub mod source;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub use self::{
    fault::{Fault, Withheld, judge},
    source::{Found, Missing, Place, Reading, ServicePort, Source},
};
use super::names::InferenceSetKey;
use crate::config::trigger::WakeSource;

/// The InferenceSets whose wake-up source is to be tried, each with the source that its user
/// names; `None` is the picker that KAITO's naming gives it.
pub type Asked = BTreeMap<InferenceSetKey, Option<WakeSource>>;

/// What came of trying, for each InferenceSet that was asked about. One that is missing has
/// not been tried.
pub type Answers = BTreeMap<InferenceSetKey, Readability>;

/// Whether a wake-up source can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readability {
    /// A page with at least one of the signals was read, and since then nothing has said that
    /// the source is gone or closed. A picker that merely restarts stays readable.
    Readable,
    /// It can't be read, and that will not pass by itself.
    Unreadable(Obstacle),
}

/// Why a wake-up source can't be read. `Display` is what its user reads: it names the source
/// and exactly what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle(pub Arc<str>);

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
