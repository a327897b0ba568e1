//! The identities that the rest of the program keys things by.

use std::{fmt, sync::Arc};

/// An InferenceSet by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InferenceSetKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl InferenceSetKey {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for InferenceSetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod's UID: the identity of an endpoint. A pod that is made again under the same name
/// has another UID and is another endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub Arc<str>);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a metric family as a user writes it and as the page prints it, for example
/// `vllm:num_requests_waiting`. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricName(Arc<str>);

impl MetricName {
    /// What [`Self::parse`] takes, in words.
    pub const ALLOWED: &str = "a metric name: letters, digits, _ and :, not starting with a digit";

    /// # Errors
    /// Where `name` is not a metric name: empty, or with a character other than letters,
    /// digits, `_` and `:`, or starting with a digit.
    pub fn parse(name: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if name.is_empty() || !name.chars().all(legal) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!(
                "{name:?} is not a metric name: allowed are letters, digits, _ and :, not starting with a digit"
            ));
        }
        Ok(Self(name.into()))
    }

    /// The name of a family that this program knows.
    pub(crate) fn known(name: &'static str) -> Self {
        debug_assert!(Self::parse(name).is_ok(), "{name}");
        Self(name.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
