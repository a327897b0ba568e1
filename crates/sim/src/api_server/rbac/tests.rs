use std::{collections::BTreeMap, fs};

use serde::Deserialize;

use super::*;

const SNAPSHOT: &str = "../../charts/keda-kaito-scaler/tests/__snapshot__/rbac_test.yaml.snap";

/// Rights that the API server wants to see for calls of another verb or resource.
const IMPLIED: &[Access] = &[
    // Server-side apply of an object that is not there is authorised as its creation.
    access("pki::authentication", Cluster, AUTHENTICATIONS, &[], &["create"]),
    access("provision", Cluster, SCALED_OBJECTS, &[], &["create"]),
    // A ScaledObject blocks its owner's deletion, which the admission plugin
    // OwnerReferencesPermissionEnforcement ties to this.
    access("provision", Cluster, ["kaito.sh", "inferencesets/finalizers"], &[], &["update"]),
];

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
