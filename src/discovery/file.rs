//! Discovery from a file, for one machine and for tests. The file is read again whenever it
//! changes; a broken one keeps what the last good one said.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use notify::{RecursiveMode, Watcher};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use clock::Clock;
use scaler_core::{
    config::{problem::Problem, yaml::YamlProblem},
    fleet::{
        model::{Endpoint, FleetEvent, Gateway, InferenceSet, Readiness},
        services::pool_name,
    },
    names::{InferenceSetKey, PodUid},
    time::Moment,
};

#[derive(Debug, Error)]
pub enum FileError {
    #[error("failed to read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a valid endpoints file: {problem}")]
    Invalid { path: PathBuf, problem: String },
    #[error("failed to watch {path}")]
    Watch { path: PathBuf, source: notify::Error },
}

/// The file's format.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
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

/// A file and what was first seen in it when. Gives InferenceSets; does not watch.
#[derive(Debug)]
pub struct EndpointsFile {
    path: PathBuf,
    clock: Clock,
    /// An endpoint without `since` is as old as our knowledge of it.
    first_seen: HashMap<PodUid, Moment>,
}

impl EndpointsFile {
    #[must_use]
    pub fn new(path: PathBuf, clock: Clock) -> Self {
        Self { path, clock, first_seen: HashMap::new() }
    }

    /// Reads the file.
    pub fn read(&mut self) -> Result<Vec<InferenceSet>, FileError> {
        let text = fs::read_to_string(&self.path)
            .map_err(|source| FileError::Read { path: self.path.clone(), source })?;
        let invalid = |problem: String| FileError::Invalid { path: self.path.clone(), problem };
        let document = parse(&text).map_err(invalid)?;
        let now = self.clock.now();
        let mut seen = HashMap::new();
        let sets = document.inference_sets.into_iter().map(|set| {
            set.into_inference_set(|uid| {
                let first = *self.first_seen.get(uid).unwrap_or(&now);
                seen.insert(uid.clone(), first);
                first
            })
        });
        let sets = sets.collect();
        self.first_seen = seen;
        Ok(sets)
    }
}

fn parse(text: &str) -> Result<Document, String> {
    let document: Document = serde_saphyr::from_str(text).map_err(|error| {
        let YamlProblem { line, text } = YamlProblem::from(&error);
        line.map_or_else(|| text.clone(), |line| format!("line {line}: {text}"))
    })?;
    let mut seen = HashSet::new();
    for set in &document.inference_sets {
        let key = (set.namespace.as_str(), set.name.as_str());
        if !seen.insert(key) {
            return Err(format!("inferenceSet {}/{} is listed twice", key.0, key.1));
        }
        let mut uids = HashSet::new();
        for endpoint in &set.endpoints {
            let uid = endpoint.uid.as_ref().unwrap_or(&endpoint.pod);
            if !uids.insert(uid) {
                return Err(format!("inferenceSet {}/{} has the endpoint {uid} twice", key.0, key.1));
            }
        }
    }
    Ok(document)
}

impl SetEntry {
    fn into_inference_set(self, mut first_seen: impl FnMut(&PodUid) -> Moment) -> InferenceSet {
        let key = InferenceSetKey::new(&self.namespace, &self.name);
        let is_ready = |endpoint: &&EndpointEntry| endpoint.phase == Readiness::Ready;
        let ready = self.endpoints.iter().filter(is_ready).count();
        let endpoint = |entry: EndpointEntry| {
            let uid = entry.uid.unwrap_or_else(|| format!("{key}/{}", entry.pod));
            let uid = PodUid(uid.into());
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

/// Reads the file now and again at each change, until `cancel`.
///
/// # Errors
/// Where the first reading fails or the file can't be watched; a later reading that fails is
/// logged, and what was read before still holds.
pub async fn watch(
    mut file: EndpointsFile,
    events: mpsc::Sender<FleetEvent>,
    cancel: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, FileError> {
    let changes = Changes::of(&file.path)?;
    // Watched first and read after it: no change can fall in between.
    let mut before = file.read()?;
    drop(events.send(FleetEvent::Reset(before.clone())).await);
    Ok(async move {
        let mut changes = changes;
        let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + ALIVE, ALIVE);
        let mut broken = false;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = changes.next() => if !changed { return },
                // Read again as well: a directory that was itself replaced tells of no change.
                _ = alive.tick() => if events.send(FleetEvent::Alive).await.is_err() { return },
            }
            match file.read() {
                Ok(sets) => {
                    if broken {
                        info!(path = %file.path.display(), "endpoints file is valid again");
                    }
                    broken = false;
                    if sets != before {
                        before.clone_from(&sets);
                        if events.send(FleetEvent::Reset(sets)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    if !broken {
                        let error = crate::error_chain(&error);
                        warn!(%error, "endpoints file is broken; what it said before still holds");
                    }
                    broken = true;
                }
            }
        }
    })
}

/// A file that does not change is still heard from.
const ALIVE: std::time::Duration = std::time::Duration::from_secs(30);

/// Tells of changes in a file's directory: an atomic rename, or a changed symbolic link as
/// with a mounted `ConfigMap`, never touches the file itself.
struct Changes {
    _watcher: notify::RecommendedWatcher,
    notices: mpsc::Receiver<()>,
}

impl Changes {
    fn of(path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::Watch { path: path.to_owned(), source };
        // One place: further changes while one is being read are one more reading.
        let (notice, notices) = mpsc::channel(1);
        let name = path.file_name().map(OsStr::to_owned);
        // Others may keep files in the same directory. A mounted `ConfigMap` changes its link.
        let is_ours = move |path: &PathBuf| {
            let changed = path.file_name();
            changed == name.as_deref() || changed == Some(OsStr::new("..data"))
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is an access, and no change.
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(&is_ours)) {
                // Full: a reading is to come anyway. Closed: nobody follows any more.
                let _ = notice.try_send(());
            }
        });
        let mut watcher = watcher.map_err(failed)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        watcher.watch(directory.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive).map_err(failed)?;
        Ok(Self { _watcher: watcher, notices })
    }

    async fn next(&mut self) -> bool {
        self.notices.recv().await.is_some()
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

    fn read(text: &str) -> Result<Vec<InferenceSet>, FileError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints.yaml");
        fs::write(&path, text).unwrap();
        EndpointsFile::new(path, Clock::start()).read()
    }

    #[tokio::test]
    async fn reads_every_field() {
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

    #[tokio::test]
    async fn json_is_yaml() {
        let json = r#"{"inferenceSets":[{"namespace":"a","name":"b","replicas":0,"endpoints":[]}]}"#;
        assert_eq!(read(json).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_is_wrong_is_named_with_its_line() {
        let cases = [
            (GOOD.replace("replicas: 2", "replicas: two"), ["line 5", "two"]),
            (GOOD.replace("phase: NotReady", "phase: Redy"), ["line 9", "Redy"]),
            (GOOD.replace("127.0.9.1:9090", "nowhere"), ["line 10", "address"]),
            (GOOD.replace("replicas: 2", "replica: 2"), ["line 5", "replica"]),
            (GOOD.replace("phi-4-b-0", "u-1"), ["default/phi-4", "u-1 twice"]),
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
            let error = read(&text).unwrap_err().to_string();
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

    #[tokio::test]
    async fn follows_renames_and_survives_a_broken_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints.yaml");
        let replace = |text: &str| {
            let draft = directory.path().join("draft");
            fs::write(&draft, text).unwrap();
            fs::rename(&draft, &path).unwrap();
        };
        replace(GOOD);
        let (send, mut events) = mpsc::channel(8);
        let cancel = CancellationToken::new();
        let file = EndpointsFile::new(path.clone(), Clock::start());
        let following = watch(file, send, cancel.clone()).await.unwrap();
        let check = async {
            let replicas = |event: Option<FleetEvent>| match event {
                Some(FleetEvent::Reset(sets)) => sets[0].replicas,
                other => panic!("{other:?}"),
            };
            assert_eq!(replicas(events.recv().await), 2);
            replace("inferenceSets: {");
            replace(&GOOD.replace("replicas: 2", "replicas: 5"));
            assert_eq!(replicas(events.recv().await), 5);
            fs::write(&path, GOOD.replace("replicas: 2", "replicas: 7")).unwrap();
            assert_eq!(replicas(events.recv().await), 7);
            cancel.cancel();
        };
        tokio::join!(following, check);
    }
}
