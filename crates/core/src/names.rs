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

/// The domain of a cluster's Services, as Kubernetes clusters have it unless told otherwise.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// The name under which a Service is found from anywhere in the cluster.
#[must_use]
pub fn service_host(service: &str, namespace: &str, cluster_domain: &str) -> String {
    format!("{service}.{namespace}.svc.{cluster_domain}")
}

/// A cluster's domain as it is given in a flag, with or without a dot at its end.
///
/// # Errors
/// Where it is not a DNS name in small letters.
pub fn parse_cluster_domain(text: &str) -> Result<String, String> {
    let domain = text.strip_suffix('.').unwrap_or(text);
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() <= 253 && domain.split('.').all(is_label) {
        return Ok(domain.to_owned());
    }
    Err(format!(
        "{text:?} is not a DNS name: labels of small letters, digits and -, with dots between them, \
         such as {CLUSTER_DOMAIN}"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_domain_is_a_dns_name() {
        for (text, domain) in [
            ("cluster.local", Some("cluster.local")),
            ("k8s.example.com.", Some("k8s.example.com")),
            ("internal", Some("internal")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("Cluster.local", None),
            ("-a.b", None),
            ("a b", None),
            ("svc:80", None),
        ] {
            assert_eq!(parse_cluster_domain(text).ok().as_deref(), domain, "{text:?}");
        }
        let refused = parse_cluster_domain("Cluster.local").unwrap_err();
        assert!(refused.contains("\"Cluster.local\"") && refused.contains("cluster.local"), "{refused}");
        assert!(parse_cluster_domain(&"a.".repeat(130)).is_err());
    }
}
