//! Discovery from a file, for one machine and for tests. The file is read again whenever it
//! changes; a broken one keeps what the last good one said.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use notify::{RecursiveMode, Watcher};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use clock::Clock;
use scaler_core::{
    fleet::{
        endpoints_file::EndpointsDocument,
        model::{FleetEvent, InferenceSet},
    },
    names::PodUid,
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
        let document = EndpointsDocument::parse(&text).map_err(invalid)?;
        let now = self.clock.now();
        let mut seen = HashMap::new();
        let sets = document.into_inference_sets(|uid| {
            let first = *self.first_seen.get(uid).unwrap_or(&now);
            seen.insert(uid.clone(), first);
            first
        });
        self.first_seen = seen;
        Ok(sets)
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

    const GOOD: &str = "inferenceSets: [{namespace: default, name: phi-4, replicas: 2}]";

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
