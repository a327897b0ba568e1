//! The Services behind which wake-up sources are: how KAITO and its chart name the endpoint
//! picker's, and where a Service's port answers.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::Deserialize;

use super::{ObjectName, collection::Object};

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The picker's port for metrics, and its name in the Service and its EndpointSlices, as its
/// chart gives them.
pub const METRICS_PORT: u16 = 9090;
pub const METRICS_PORT_NAME: &str = "http-metrics";

/// The InferencePool of the InferenceSet or MultiRoleInference `name`.
#[must_use]
pub fn pool_name(name: &str) -> String {
    format!("{name}-inferencepool")
}

/// The Service of the endpoint picker of `pool`. Its chart cuts the pool's name to 40
/// characters, whatever the fortieth is.
#[must_use]
pub fn picker_service(pool: &str) -> String {
    let start: String = pool.chars().take(40).collect();
    format!("{start}-epp")
}

/// The fields of an EndpointSlice that are used.
#[derive(Clone, Debug, Deserialize)]
pub struct EndpointSliceObject {
    metadata: Metadata,
    #[serde(default)]
    endpoints: Option<Vec<SliceEndpoint>>,
    #[serde(default)]
    ports: Option<Vec<SlicePort>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    namespace: Arc<str>,
    name: Arc<str>,
    #[serde(default)]
    labels: Labels,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    service: Option<Arc<str>>,
}

#[derive(Clone, Debug, Deserialize)]
struct SliceEndpoint {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: SliceConditions,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SliceConditions {
    ready: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlicePort {
    name: Option<String>,
    port: Option<u16>,
}

impl EndpointSliceObject {
    /// The Service whose endpoints these are.
    #[must_use]
    pub fn service(&self) -> Option<ObjectName> {
        let service = self.metadata.labels.service.clone()?;
        Some(ObjectName { namespace: self.metadata.namespace.clone(), name: service })
    }

    /// Its ready endpoints, and by name on which ports they answer.
    #[must_use]
    pub fn slice(&self) -> Slice {
        // The API: an unknown condition is to be read as ready.
        let ready = |endpoint: &&SliceEndpoint| endpoint.conditions.ready.unwrap_or(true);
        let endpoints = self.endpoints.iter().flatten().filter(ready);
        // The API: what an address beyond the first means is not defined.
        let addresses = endpoints.filter_map(|endpoint| endpoint.addresses.first());
        let ips: BTreeSet<IpAddr> = addresses.filter_map(|address| address.parse().ok()).collect();
        let ports = self.ports.iter().flatten();
        Slice {
            ips: ips.into_iter().collect(),
            ports: ports
                .filter_map(|port| Some((port.name.as_deref().unwrap_or_default().into(), port.port?)))
                .collect(),
        }
    }
}

/// What is used of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Of the ready endpoints, in order.
    pub ips: Vec<IpAddr>,
    /// By name, which is empty where a Service's only port has none: the port of the pods.
    pub ports: Vec<(Arc<str>, u16)>,
}

impl Slice {
    /// Where the port of this name answers, in order.
    pub fn addresses(&self, port_name: &str) -> impl Iterator<Item = SocketAddr> {
        let port = self.port(port_name);
        self.ips.iter().filter_map(move |ip| Some(SocketAddr::new(*ip, port?)))
    }

    #[must_use]
    pub fn port(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|(other, _)| **other == *name).map(|(_, port)| *port)
    }
}

/// The fields of a Service that are used.
#[derive(Clone, Debug, Deserialize)]
pub struct ServiceObject {
    metadata: Metadata,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ServiceSpec {
    #[serde(default)]
    ports: Option<Vec<ServicePortField>>,
}

#[derive(Clone, Debug, Deserialize)]
struct ServicePortField {
    name: Option<Arc<str>>,
    port: u16,
}

impl ServiceObject {
    /// Its ports by number, with their names; an empty name where there is only one.
    #[must_use]
    pub fn ports(&self) -> Vec<(u16, Arc<str>)> {
        let ports = self.spec.ports.iter().flatten();
        ports.map(|port| (port.port, port.name.clone().unwrap_or_default())).collect()
    }
}

/// The ports of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ObjectName,
    /// By number, with their names; an empty name where there is only one.
    pub ports: Vec<(u16, Arc<str>)>,
}

impl Object for Service {
    type Raw = ServiceObject;
    type Key = ObjectName;

    fn read(raw: ServiceObject) -> Option<Self> {
        let Metadata { namespace, name, .. } = &raw.metadata;
        let name = ObjectName { namespace: namespace.clone(), name: name.clone() };
        Some(Self { name, ports: raw.ports() })
    }

    fn keys(&self) -> Vec<ObjectName> {
        vec![self.name.clone()]
    }
}

/// The part of a Service's endpoints that one EndpointSlice holds: a dual-stack Service has one
/// for each family, and a large one has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSlice {
    pub service: ObjectName,
    pub slice: Slice,
}

impl Object for ServiceSlice {
    type Raw = EndpointSliceObject;
    type Key = ObjectName;

    fn read(raw: EndpointSliceObject) -> Option<Self> {
        Some(Self { service: raw.service()?, slice: raw.slice() })
    }

    fn keys(&self) -> Vec<ObjectName> {
        vec![self.service.clone()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_service_is_named_as_the_chart_names_it() {
        for (name, service) in [
            ("demo", "demo-inferencepool-epp"),
            ("llama-3-3-70b-instruct", "llama-3-3-70b-instruct-inferencepool-epp"),
            // Cut in the middle, and right behind a dash.
            ("deepseek-r1-distill-qwen-14b-chat", "deepseek-r1-distill-qwen-14b-chat-infere-epp"),
            ("deepseek-r1-distill-llama-8b-for-chats1", "deepseek-r1-distill-llama-8b-for-chats1--epp"),
        ] {
            assert_eq!(picker_service(&pool_name(name)), service);
        }
    }

    fn slice(endpoints: &Value, ports: &Value) -> EndpointSliceObject {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "team-a",
                "name": "demo-inferencepool-epp-4fz",
                "labels": {"kubernetes.io/service-name": "demo-inferencepool-epp"},
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        }))
        .unwrap()
    }

    #[test]
    fn the_addresses_are_of_the_ready_endpoints() {
        let ports = json!([{"name": "grpc-ext-proc", "port": 9002}, {"name": "http-metrics", "port": 9190}]);
        let ready = json!({"addresses": ["10.0.0.9"], "conditions": {"ready": true}});
        let other = json!({"addresses": ["10.0.0.10"], "conditions": {"ready": true}});
        let starting = json!({"addresses": ["10.0.0.2"], "conditions": {"ready": false}});
        let unknown = json!({"addresses": ["fd00::2"], "conditions": {}});
        for (endpoints, ports, expected) in [
            (json!([ready]), &ports, vec!["10.0.0.9:9190"]),
            (json!([starting, ready]), &ports, vec!["10.0.0.9:9190"]),
            (json!([other, ready]), &ports, vec!["10.0.0.9:9190", "10.0.0.10:9190"]),
            (json!([ready, other, ready]), &ports, vec!["10.0.0.9:9190", "10.0.0.10:9190"]),
            (json!([starting]), &ports, vec![]),
            (json!([unknown]), &ports, vec!["[fd00::2]:9190"]),
            // Nothing says what more than one address of an endpoint means.
            (json!([{"addresses": ["10.0.0.9", "10.0.0.8"]}]), &ports, vec!["10.0.0.9:9190"]),
            (json!([{"addresses": []}]), &ports, vec![]),
            (json!([ready]), &json!([{"name": "grpc", "port": 9002}]), vec![]),
            (json!([ready]), &json!(null), vec![]),
            (json!(null), &ports, vec![]),
        ] {
            let slice = slice(&endpoints, ports);
            let addresses: Vec<_> =
                slice.slice().addresses(METRICS_PORT_NAME).map(|address| address.to_string()).collect();
            assert_eq!(addresses, expected, "{endpoints}");
            assert_eq!(slice.service(), Some(ObjectName::new("team-a", "demo-inferencepool-epp")));
        }
        let unnamed = slice(&json!([ready]), &json!([{"port": 8080}])).slice();
        assert_eq!(unnamed.addresses("").collect::<Vec<_>>(), ["10.0.0.9:8080".parse().unwrap()]);
    }

    #[test]
    fn a_service_names_its_ports() {
        let service = |spec: Value| {
            let metadata = json!({"namespace": "team-a", "name": "epp"});
            serde_json::from_value::<ServiceObject>(json!({"metadata": metadata, "spec": spec}))
                .unwrap()
                .ports()
        };
        let ports =
            json!({"ports": [{"name": "grpc", "port": 9002, "targetPort": 1}, {"name": "web", "port": 80}]});
        assert_eq!(service(ports), [(9002, "grpc".into()), (80, "web".into())]);
        assert_eq!(service(json!({"ports": [{"port": 80}]})), [(80, "".into())]);
        assert_eq!(service(json!({"type": "ExternalName"})), []);
    }
}
