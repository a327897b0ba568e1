//! What the Kubernetes API says, boiled down to a fleet: the few fields of each object that
//! are used, what they mean, and what follows for InferenceSets and for the ports of Services.

pub mod collection;
pub mod endpoints_file;
pub mod index;
pub mod inference_set;
pub mod model;
pub mod pod;
pub mod ports;
pub mod services;
pub mod shard;
pub mod shortage;
pub mod tenancy;
#[cfg(test)]
mod testing;

use std::{fmt, sync::Arc};

/// An object of a known kind, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
