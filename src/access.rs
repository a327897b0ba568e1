//! Every call of the Kubernetes API that the program makes, held against what the chart
//! grants.
//!
//! Each API server that tests use fails the test at a call that is not listed here, so that the
//! list cannot miss a call of code that runs against one of them. That is all code but
//! `run::notices`, whose calls were taken from its source.

use std::{collections::BTreeMap, fs};

use http::{Method, Uri};
use serde::Deserialize;

/// The namespaces for which the chart's snapshot is rendered, and in which tests run.
const RELEASE_NAMESPACE: &str = "keda";
const KEDA_NAMESPACE: &str = "keda-system";
const SNAPSHOT: &str = "charts/keda-kaito-scaler/tests/__snapshot__/rbac_test.yaml.snap";

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
    access("discovery::kube", Cluster, PODS, &[], &["list", "watch"]),
    access("discovery::kube", Cluster, INFERENCE_SETS, &[], &["list", "watch"]),
    access("discovery::kube", Cluster, ENDPOINT_SLICES, &[], &["list", "watch"]),
    access("discovery::kube", Cluster, SERVICES, &[], &["list", "watch"]),
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

/// Rights that the API server wants to see for calls of another verb or resource.
const IMPLIED: &[Access] = &[
    // Server-side apply of an object that is not there is authorised as its creation.
    access("pki::authentication", Cluster, AUTHENTICATIONS, &[], &["create"]),
    access("provision", Cluster, SCALED_OBJECTS, &[], &["create"]),
    // A ScaledObject blocks its owner's deletion, which the admission plugin
    // OwnerReferencesPermissionEnforcement ties to this.
    access("provision", Cluster, ["kaito.sh", "inferencesets/finalizers"], &[], &["update"]),
];

/// A request as the API server authorises it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) verb: &'static str,
    group: String,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
}

impl Request {
    /// `None` for what is not about objects, such as the discovery of resources, which every
    /// account may do.
    pub(crate) fn parse(method: &Method, path: &str, query: &str) -> Option<Self> {
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
pub(crate) fn unlisted(method: &Method, uri: &Uri) -> Option<String> {
    let request = Request::parse(method, uri.path(), uri.query().unwrap_or_default())?;
    (!request.is_listed()).then(|| format!("{request:?}"))
}

/// One verb on one resource, of one name or of any.
#[derive(Debug)]
struct Right {
    scope: Scope,
    group: String,
    resource: String,
    name: Option<String>,
    verb: String,
}

impl Right {
    fn is_for_the_same(&self, other: &Self) -> bool {
        (&self.group, &self.resource, &self.verb) == (&other.group, &other.resource, &other.verb)
    }

    fn allows(&self, wanted: &Self) -> bool {
        self.is_for_the_same(wanted)
            && (self.scope == Cluster || self.scope == wanted.scope)
            && (self.name.is_none() || self.name == wanted.name)
    }
}

fn product(scope: Scope, groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]) -> Vec<Right> {
    let names: Vec<_> =
        if names.is_empty() { vec![None] } else { names.iter().map(|name| Some(*name)).collect() };
    let mut rights = Vec::new();
    for (&group, &resource) in groups.iter().flat_map(|group| resources.iter().map(move |one| (group, one))) {
        for (&name, &verb) in names.iter().flat_map(|name| verbs.iter().map(move |verb| (name, verb))) {
            rights.push(Right {
                scope,
                group: group.to_owned(),
                resource: resource.to_owned(),
                name: name.map(str::to_owned),
                verb: verb.to_owned(),
            });
        }
    }
    rights
}

impl Access {
    fn rights(&self) -> Vec<Right> {
        product(self.scope, &[self.group], &[self.resource], self.names, self.verbs)
    }
}

#[derive(Deserialize)]
struct Document {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Metadata {
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

/// What the chart grants the scaler's account, as its own tests rendered it.
fn granted() -> Vec<Right> {
    let snapshot = fs::read_to_string(SNAPSHOT).unwrap();
    let tests: BTreeMap<String, BTreeMap<u32, String>> = serde_saphyr::from_str(&snapshot).unwrap();
    let documents = tests.values().flat_map(BTreeMap::values);
    let documents = documents.map(|document| serde_saphyr::from_str::<Document>(document).unwrap());
    documents
        .flat_map(|document| {
            let scope = match (document.kind.as_str(), document.metadata.namespace.as_deref()) {
                ("ClusterRole" | "ClusterRoleBinding", None) => Cluster,
                (_, Some(RELEASE_NAMESPACE)) => Release,
                (_, Some(KEDA_NAMESPACE)) => Keda,
                other => panic!("{other:?}"),
            };
            document.rules.into_iter().flat_map(move |rule| {
                let [groups, resources, names, verbs] =
                    [&rule.api_groups, &rule.resources, &rule.resource_names, &rule.verbs]
                        .map(|all| all.iter().map(String::as_str).collect::<Vec<_>>());
                product(scope, &groups, &resources, &names, &verbs)
            })
        })
        .collect()
}

#[test]
fn the_chart_grants_every_call() {
    let granted = granted();
    for access in CALLS.iter().chain(IMPLIED) {
        for wanted in access.rights() {
            assert!(granted.iter().any(|right| right.allows(&wanted)), "{}: {wanted:?}", access.who);
        }
    }
}

#[test]
fn the_chart_grants_nothing_that_is_not_used_and_nothing_wider_than_it_is_used() {
    let all: Vec<_> = CALLS.iter().chain(IMPLIED).flat_map(Access::rights).collect();
    let unused: Vec<_> = granted()
        .into_iter()
        .filter(|right| {
            let is_exact = |used: &Right| used.scope == right.scope && used.name == right.name;
            !all.iter().any(|used| right.is_for_the_same(used) && is_exact(used))
        })
        .collect();
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn a_request_is_known_by_what_the_api_server_authorises() {
    let cases = [
        ("GET", "/api/v1/pods", "", "list", false, true),
        ("GET", "/api/v1/pods", "watch=true&resourceVersion=1", "watch", false, true),
        ("GET", "/api/v1/namespaces/keda/secrets/keda-kaito-scaler-ca", "", "get", true, true),
        ("GET", "/api/v1/namespaces/keda/secrets/other", "", "get", true, false),
        ("GET", "/api/v1/namespaces/team-a/secrets/keda-kaito-scaler-ca", "", "get", true, false),
        ("GET", "/api/v1/namespaces/keda-system/secrets", "", "list", false, false),
        (
            "GET",
            "/api/v1/namespaces/keda-system/secrets",
            "fieldSelector=metadata.name%3Dkeda-kaito-scaler-client-certs",
            "list",
            true,
            true,
        ),
        ("PATCH", "/apis/keda.sh/v1alpha1/namespaces/team-a/scaledobjects/demo", "", "patch", true, true),
        ("PUT", "/apis/keda.sh/v1alpha1/namespaces/team-a/scaledobjects/demo", "", "update", true, false),
        (
            "DELETE",
            "/apis/keda.sh/v1alpha1/namespaces/team-a/scaledobjects",
            "",
            "deletecollection",
            false,
            false,
        ),
        ("POST", "/apis/events.k8s.io/v1/namespaces/team-a/events", "", "create", false, true),
    ];
    for (method, path, query, verb, is_named, is_listed) in cases {
        let request = Request::parse(&method.parse().unwrap(), path, query).unwrap();
        let found = (request.verb, request.name.is_some(), request.is_listed());
        assert_eq!(found, (verb, is_named, is_listed), "{method} {path}?{query}");
    }
    assert_eq!(Request::parse(&Method::GET, "/apis/kaito.sh/v1beta1", ""), None);
}
