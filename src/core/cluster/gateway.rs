//! Where the endpoint picker of an InferenceSet's gateway answers, by the names that KAITO
//! and its chart give.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::Deserialize;

use super::{Named, ObjectName};

/// The label of an EndpointSlice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The picker's port for metrics, by the name and number that its chart gives.
const METRICS_PORT: (&str, u16) = ("http-metrics", 9090);

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

    /// Where a ready picker serves its metrics; of several, always the same one.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        let (name, default) = METRICS_PORT;
        let named = |port: &&SlicePort| port.name.as_deref() == Some(name);
        let port = self.ports.iter().flatten().find(named).and_then(|port| port.port).unwrap_or(default);
        // The API: an unknown condition is to be read as ready.
        let ready = |endpoint: &&SliceEndpoint| endpoint.conditions.ready.unwrap_or(true);
        let endpoints = self.endpoints.iter().flatten().filter(ready);
        let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
        let ip = addresses.filter_map(|address| address.parse::<IpAddr>().ok()).min()?;
        Some(SocketAddr::new(ip, port))
    }
}

impl Named for EndpointSliceObject {
    fn object_name(&self) -> ObjectName {
        ObjectName { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
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
    fn the_address_is_of_a_ready_endpoint() {
        let ports = json!([{"name": "grpc-ext-proc", "port": 9002}, {"name": "http-metrics", "port": 9190}]);
        let ready = json!({"addresses": ["10.0.0.9"], "conditions": {"ready": true}});
        let other = json!({"addresses": ["10.0.0.10"], "conditions": {"ready": true}});
        let starting = json!({"addresses": ["10.0.0.2"], "conditions": {"ready": false}});
        let unknown = json!({"addresses": ["fd00::2"], "conditions": {}});
        for (endpoints, ports, expected) in [
            (json!([ready]), &ports, Some("10.0.0.9:9190")),
            (json!([starting, ready]), &ports, Some("10.0.0.9:9190")),
            (json!([other, ready]), &ports, Some("10.0.0.9:9190")),
            (json!([ready, other]), &ports, Some("10.0.0.9:9190")),
            (json!([starting]), &ports, None),
            (json!([unknown]), &ports, Some("[fd00::2]:9190")),
            (json!([ready]), &json!([{"name": "grpc", "port": 9002}]), Some("10.0.0.9:9090")),
            (json!([ready]), &json!(null), Some("10.0.0.9:9090")),
            (json!(null), &ports, None),
        ] {
            let slice = slice(&endpoints, ports);
            assert_eq!(slice.metrics_address(), expected.map(|text| text.parse().unwrap()), "{endpoints}");
            assert_eq!(slice.service(), Some(ObjectName::new("team-a", "demo-inferencepool-epp")));
        }
    }
}
