//! Under which names Services are found.

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
