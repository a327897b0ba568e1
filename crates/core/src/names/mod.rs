//! The identities that the rest of the program keys things by.

mod labels;
mod metric;
mod pattern;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

pub use self::{
    labels::{LabelMatchers, MatchError},
    metric::{InvalidMetricName, MetricName},
};

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
