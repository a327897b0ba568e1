//! Every call of the Kubernetes API that the program makes, held against what the chart
//! grants.
//!
//! Each API server that tests use fails the test at a call that is not listed here, so that the
//! list cannot miss a call of code that runs against one of them. That is all code but
//! `run::notices`, whose calls were taken from its source.

use http::{Method, Uri};

/// The namespaces for which the chart's snapshot is rendered, and in which tests run.
const RELEASE_NAMESPACE: &str = "keda";
const KEDA_NAMESPACE: &str = "keda-system";

/// Where a right holds, or has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// In all namespaces, or on what has none.
    Cluster,
    /// In the release's namespace.
    Release,
    /// In KEDA's namespace.
    Keda,
}
use Scope::{Cluster, Keda, Release};

/// What some part of the program asks for.
struct Access {
    /// The part of the program that makes the call.
    #[cfg_attr(not(test), expect(dead_code, reason = "what a failing test names"))]
    who: &'static str,
    scope: Scope,
    group: &'static str,
    /// With its subresource, as RBAC writes it.
    resource: &'static str,
    /// The objects by name; none where it is about any.
    names: &'static [&'static str],
    verbs: &'static [&'static str],
}

const fn access(
    who: &'static str,
    scope: Scope,
    [group, resource]: [&'static str; 2],
    names: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Access {
    Access { who, scope, group, resource, names, verbs }
}

const LEASES: [&str; 2] = ["coordination.k8s.io", "leases"];
const SECRETS: [&str; 2] = ["", "secrets"];
const PODS: [&str; 2] = ["", "pods"];
const SERVICES: [&str; 2] = ["", "services"];
const ENDPOINT_SLICES: [&str; 2] = ["discovery.k8s.io", "endpointslices"];
const TOKENS: [&str; 2] = ["", "serviceaccounts/token"];
const POOLS: [&str; 2] = ["inference.networking.k8s.io", "inferencepools"];
const OLDER_POOLS: [&str; 2] = ["inference.networking.x-k8s.io", "inferencepools"];
const HPAS: [&str; 2] = ["autoscaling", "horizontalpodautoscalers"];
const INFERENCE_SETS: [&str; 2] = ["kaito.sh", "inferencesets"];
const WORKSPACES: [&str; 2] = ["kaito.sh", "workspaces"];
const MULTI_ROLE_INFERENCES: [&str; 2] = ["kaito.sh", "multiroleinferences"];
const SCALED_OBJECTS: [&str; 2] = ["keda.sh", "scaledobjects"];
const AUTHENTICATIONS: [&str; 2] = ["keda.sh", "clustertriggerauthentications"];
const EVENTS: [&str; 2] = ["events.k8s.io", "events"];

const LEASE: &[&str] = &["keda-kaito-scaler"];
const CHAINS: &[&str] = &["keda-kaito-scaler-client-certs", "keda-kaito-scaler-server-certs"];
const CA: &[&str] = &["keda-kaito-scaler-ca"];
const AUTHENTICATION: &[&str] = &["keda-kaito-scaler-creds"];
const READER: &[&str] = &["keda-kaito-scaler-metrics-reader"];
const SERVICE: &[&str] = &["keda-kaito-scaler-svc"];

const CALLS: &[Access] = &[
    access("lease", Release, LEASES, &[], &["create"]),
    access("lease", Release, LEASES, LEASE, &["get", "update"]),
    access("pki::store", Keda, SECRETS, CHAINS, &["list", "watch", "get", "update"]),
    access("pki::store", Release, SECRETS, CA, &["get", "update"]),
    access("pki::store", Release, PODS, &[], &["list"]),
    access("pki::store", Release, SERVICES, SERVICE, &["get"]),
    access("pki::authentication", Cluster, AUTHENTICATIONS, AUTHENTICATION, &["list", "watch", "patch"]),
    access("check_install", Cluster, PODS, &[], &["list"]),
    access("check_install", Keda, SECRETS, CHAINS, &["get"]),
    access("check_install", Cluster, AUTHENTICATIONS, AUTHENTICATION, &["get"]),
    access("check_install", Release, SERVICES, SERVICE, &["get"]),
    access("discovery::cluster", Cluster, PODS, &[], &["list", "watch"]),
    access("discovery::cluster", Cluster, INFERENCE_SETS, &[], &["list", "watch"]),
    access("discovery::cluster", Cluster, ENDPOINT_SLICES, &[], &["list", "watch"]),
    access("discovery::cluster", Cluster, SERVICES, &[], &["list", "watch"]),
    access("wake::credentials", Release, TOKENS, READER, &["create"]),
    access("wake::credentials", Cluster, POOLS, &[], &["get"]),
    access("wake::credentials", Cluster, OLDER_POOLS, &[], &["get"]),
    access("provision", Cluster, INFERENCE_SETS, &[], &["list", "watch"]),
    access("provision", Cluster, WORKSPACES, &[], &["list", "watch"]),
    access("provision", Cluster, MULTI_ROLE_INFERENCES, &[], &["list", "watch"]),
    access("provision", Cluster, HPAS, &[], &["list", "watch"]),
    access("provision", Cluster, SCALED_OBJECTS, &[], &["list", "watch", "get", "patch", "delete"]),
    access("run::notices", Cluster, SCALED_OBJECTS, &[], &["list"]),
    access("run::teller", Cluster, SCALED_OBJECTS, &[], &["get"]),
    access("events", Cluster, EVENTS, &[], &["create", "patch"]),
];

/// A request as the API server authorises it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub verb: &'static str,
    group: String,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
}

impl Request {
    /// `None` for what is not about objects, such as the discovery of resources, which every
    /// account may do.
    pub fn parse(method: &Method, path: &str, query: &str) -> Option<Self> {
        let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let (group, rest) = match segments.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let (resource, name) = match rest {
            [resource] => ((*resource).to_owned(), None),
            [resource, name] => ((*resource).to_owned(), Some(*name)),
            [resource, name, subresource] => (format!("{resource}/{subresource}"), Some(*name)),
            _ => return None,
        };
        let parameters = || query.split('&');
        let verb = match (method.as_str(), name) {
            ("GET", Some(_)) => "get",
            ("GET", None) if parameters().any(|pair| pair == "watch=true") => "watch",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", Some(_)) => "delete",
            _ => "deletecollection",
        };
        let selected = parameters().find_map(|pair| pair.strip_prefix("fieldSelector=metadata.name%3D"));
        Some(Self {
            verb,
            group: group.to_owned(),
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.or(selected).map(str::to_owned),
        })
    }

    /// Whether one of [`CALLS`] is about it.
    fn is_listed(&self) -> bool {
        CALLS.iter().any(|call| {
            let in_scope = match call.scope {
                Cluster => true,
                Release => self.namespace.as_deref() == Some(RELEASE_NAMESPACE),
                Keda => self.namespace.as_deref() == Some(KEDA_NAMESPACE),
            };
            let is_named = self.name.as_deref().is_some_and(|name| call.names.contains(&name));
            (call.group, call.resource) == (&self.group, &self.resource)
                && call.verbs.contains(&self.verb)
                && in_scope
                && (call.names.is_empty() || is_named)
        })
    }
}

/// The call, described, where it is not listed here and a cluster would refuse it.
pub fn unlisted(method: &Method, uri: &Uri) -> Option<String> {
    let request = Request::parse(method, uri.path(), uri.query().unwrap_or_default())?;
    (!request.is_listed()).then(|| format!("{request:?}"))
}

#[cfg(test)]
mod tests;
