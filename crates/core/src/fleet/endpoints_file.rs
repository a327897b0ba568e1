//! The endpoints file: what is watched where there is no Kubernetes API, as its text says it.

use std::{collections::HashSet, net::SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{
    model::{Endpoint, Gateway, InferenceSet, Readiness},
    services::pool_name,
};
use crate::{
    config::{
        problem::{Excerpt, Problem},
        yaml::YamlProblem,
    },
    names::{InferenceSetKey, PodUid},
    time::Moment,
};

/// The whole file, read and checked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointsDocument {
    /// Required: a file that is being written, and still empty, must not read as "no fleet".
    inference_sets: Vec<SetEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SetEntry {
    namespace: String,
    name: String,
    #[serde(deserialize_with = "replicas")]
    replicas: u32,
    #[serde(default, deserialize_with = "ready_replicas")]
    ready_replicas: Option<u32>,
    #[serde(default)]
    endpoints: Vec<EndpointEntry>,
    gateway: Option<GatewayEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EndpointEntry {
    pod: String,
    uid: Option<String>,
    #[serde(default, deserialize_with = "address_or_none")]
    address: Option<SocketAddr>,
    #[serde(deserialize_with = "phase")]
    phase: Readiness,
    #[serde(default, deserialize_with = "since")]
    since: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GatewayEntry {
    #[serde(deserialize_with = "address")]
    address: SocketAddr,
}

/// Reads one value; what it must be is said where it is something else.
fn value<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    key: &str,
    allowed: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    read(&value).ok_or_else(|| {
        de::Error::custom(Problem::invalid(
            key,
            value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            allowed,
        ))
    })
}

/// The same, and `None` where the key is missing or null.
fn optional<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    key: &str,
    allowed: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    value(deserializer, key, allowed, |it| if it.is_null() { Some(None) } else { read(it).map(Some) })
}

const A_COUNT: &str = "a whole number from 0 to 2147483647";
const AN_ADDRESS: &str = "IP:PORT, such as 127.0.1.1:5000";

fn a_count(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok().filter(|&count| count <= i32::MAX.unsigned_abs())
}

fn an_address(value: &Value) -> Option<SocketAddr> {
    value.as_str()?.parse().ok()
}

fn replicas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    value(deserializer, "replicas", A_COUNT, a_count)
}

fn ready_replicas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    optional(deserializer, "readyReplicas", A_COUNT, a_count)
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    value(deserializer, "address", AN_ADDRESS, an_address)
}

fn address_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    optional(deserializer, "address", AN_ADDRESS, an_address)
}

fn since<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    optional(deserializer, "since", "a time such as 2026-01-02T03:04:05Z", |it| it.as_str()?.parse().ok())
}

fn phase<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Readiness, D::Error> {
    value(deserializer, "phase", "one of Ready, NotReady, Terminating", |it| match it.as_str()? {
        "Ready" => Some(Readiness::Ready),
        "NotReady" => Some(Readiness::NotReady),
        "Terminating" => Some(Readiness::Terminating),
        _ => None,
    })
}

impl EndpointsDocument {
    /// Reads the file's text.
    ///
    /// # Errors
    /// With what is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Self = serde_saphyr::from_str(text).map_err(|error| {
            let YamlProblem { line, text } = YamlProblem::from(&error);
            line.map_or_else(|| text.clone(), |line| format!("line {line}: {text}"))
        })?;
        let mut seen = HashSet::new();
        for set in &document.inference_sets {
            let key = InferenceSetKey::new(&set.namespace, &set.name);
            let shown = key.to_string();
            let shown = Excerpt(&shown);
            let mut uids = HashSet::new();
            for endpoint in &set.endpoints {
                if !uids.insert(endpoint.uid(&key)) {
                    let uid = Excerpt(endpoint.uid.as_ref().unwrap_or(&endpoint.pod));
                    return Err(format!("inferenceSet {shown} has the endpoint {uid} twice"));
                }
            }
            if !seen.insert((set.namespace.as_str(), set.name.as_str())) {
                return Err(format!("inferenceSet {shown} is listed twice"));
            }
        }
        Ok(document)
    }

    /// The InferenceSets that are listed. `first_seen` says since when an endpoint is known
    /// whose entry does not say it.
    pub fn into_inference_sets(self, mut first_seen: impl FnMut(&PodUid) -> Moment) -> Vec<InferenceSet> {
        self.inference_sets.into_iter().map(|set| set.into_inference_set(&mut first_seen)).collect()
    }
}

impl EndpointEntry {
    /// Its identity: as it is written, or made of its pod's name.
    fn uid(&self, set: &InferenceSetKey) -> PodUid {
        PodUid(
            self.uid.as_ref().map_or_else(|| format!("{set}/{}", self.pod).into(), |uid| uid.as_str().into()),
        )
    }
}

impl SetEntry {
    fn into_inference_set(self, mut first_seen: impl FnMut(&PodUid) -> Moment) -> InferenceSet {
        let key = InferenceSetKey::new(&self.namespace, &self.name);
        let is_ready = |endpoint: &&EndpointEntry| endpoint.phase == Readiness::Ready;
        let ready = self.endpoints.iter().filter(is_ready).count();
        let endpoint = |entry: EndpointEntry| {
            let uid = entry.uid(&key);
            let written = entry.since.and_then(|since| since.as_duration().try_into().ok());
            let since = written.map_or_else(|| first_seen(&uid), Moment::from_unix);
            Endpoint { uid, pod: entry.pod.into(), address: entry.address, readiness: entry.phase, since }
        };
        InferenceSet {
            replicas: self.replicas,
            ready_replicas: self.ready_replicas.unwrap_or_else(|| u32::try_from(ready).unwrap_or(u32::MAX)),
            endpoints: self.endpoints.into_iter().map(endpoint).collect(),
            gateway: self.gateway.map(|gateway| Gateway::at(gateway.address, &pool_name(&self.name))),
            key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
inferenceSets:
  - namespace: default
    name: phi-4
    replicas: 2
    readyReplicas: 1
    endpoints:
      - {pod: phi-4-a-0, address: "127.0.1.1:5000", phase: Ready, uid: u-1, since: "2026-01-02T03:04:05Z"}
      - {pod: phi-4-b-0, phase: NotReady}
    gateway: {address: "127.0.9.1:9090"}
"#;

    fn read(text: &str) -> Result<Vec<InferenceSet>, String> {
        let now = Moment::from_unix(std::time::Duration::from_secs(1));
        Ok(EndpointsDocument::parse(text)?.into_inference_sets(|_| now))
    }

    #[test]
    fn reads_every_field() {
        let sets = read(GOOD).unwrap();
        let [set] = &sets[..] else { panic!("{sets:?}") };
        assert_eq!(set.key, InferenceSetKey::new("default", "phi-4"));
        assert_eq!((set.replicas, set.ready_replicas), (2, 1));
        assert_eq!(set.gateway, Some(Gateway::at("127.0.9.1:9090".parse().unwrap(), "phi-4-inferencepool")));
        let [a, b] = &set.endpoints[..] else { panic!("{set:?}") };
        assert_eq!((&*a.uid.0, &*a.pod, a.readiness), ("u-1", "phi-4-a-0", Readiness::Ready));
        assert_eq!(a.since, Moment::from_unix(std::time::Duration::from_secs(1_767_323_045)));
        assert_eq!((b.address, b.readiness), (None, Readiness::NotReady));
    }

    #[test]
    fn json_is_yaml() {
        let json = r#"{"inferenceSets":[{"namespace":"a","name":"b","replicas":0,"endpoints":[]}]}"#;
        assert_eq!(read(json).unwrap().len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases = [
            (GOOD.replace("replicas: 2", "replicas: two"), ["line 5", "two"]),
            (GOOD.replace("phase: NotReady", "phase: Redy"), ["line 9", "Redy"]),
            (GOOD.replace("127.0.9.1:9090", "nowhere"), ["line 10", "address"]),
            (GOOD.replace("replicas: 2", "replica: 2"), ["line 5", "replica"]),
            (GOOD.replace("{pod: phi-4-b-0", "{uid: u-1, pod: phi-4-b-0"), ["default/phi-4", "u-1 twice"]),
            (GOOD.replace("uid: u-1", "uid: default/phi-4/phi-4-b-0"), ["default/phi-4", "phi-4-b-0 twice"]),
            (
                GOOD.replace("2026-01-02T03:04:05Z", "yesterday"),
                ["line 8: since is \"yesterday\"", "must be a time such as 2026-01-02T03:04:05Z"],
            ),
            (
                GOOD.replace("readyReplicas: 1", "readyReplicas: 4294967295"),
                ["line 6", "from 0 to 2147483647"],
            ),
            (format!("{GOOD}---\n{GOOD}"), ["line 13", "multiple YAML documents"]),
            (GOOD.replace("127.0.1.1:5000", "here"), ["line 8", "address is \"here\", but must be IP:PORT"]),
        ];
        for (text, expected) in cases {
            let error = read(&text).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{part:?} is not in: {error}");
            }
            // One position, one line, and nothing of the library.
            assert!(
                !error.contains('\n') && !error.contains("<input>") && !error.contains("from_str"),
                "{error}"
            );
            assert!(error.matches("line ").count() <= 1, "{error}");
        }
    }
}
