//! The endpoints file: what the scaler watches where there is no Kubernetes API.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use scaler_core::time::Moment;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointsFile {
    pub inference_sets: Vec<InferenceSet>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceSet {
    pub namespace: String,
    pub name: String,
    /// Wanted.
    pub replicas: u32,
    pub ready_replicas: u32,
    pub endpoints: Vec<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayAddress>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    pub pod: String,
    pub uid: String,
    /// Absent while the pod has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    pub phase: Phase,
    #[serde(serialize_with = "rfc_3339")]
    pub since: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Phase {
    Ready,
    NotReady,
    Terminating,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayAddress {
    pub address: SocketAddr,
}

fn rfc_3339<S: Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
    let since_epoch = SignedDuration::try_from(moment.since_unix()).map_err(serde::ser::Error::custom)?;
    let timestamp = Timestamp::from_duration(since_epoch).map_err(serde::ser::Error::custom)?;
    serializer.collect_str(&timestamp)
}

/// Why the endpoints file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("failed to render the endpoints file")]
    Render(#[from] serde_json::Error),
    #[error("failed to write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("failed to rename the new endpoints file to {path}")]
    Rename { path: PathBuf, source: std::io::Error },
}

/// Replaces the file in one step: a reader sees the old one or the new one, never a half.
pub async fn write(path: &Path, file: &EndpointsFile) -> Result<(), WriteError> {
    let json = serde_json::to_vec_pretty(file)?;
    let fresh = path.with_extension("new");
    tokio::fs::write(&fresh, json)
        .await
        .map_err(|source| WriteError::Write { path: fresh.clone(), source })?;
    tokio::fs::rename(&fresh, path).await.map_err(|source| WriteError::Rename { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{at, cluster};

    #[tokio::test]
    async fn a_write_replaces_the_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.json");
        let mut cluster = cluster();
        for replicas in [1, 3] {
            cluster.scale_to(replicas, at(0));
            write(&path, &cluster.listing(None, at(0))).await.unwrap();
            let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(read["inferenceSets"][0]["replicas"], replicas);
            assert_eq!(read["inferenceSets"][0]["endpoints"].as_array().unwrap().len(), replicas as usize);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named() {
        let error =
            write(Path::new("/no/such/folder/endpoints.json"), &EndpointsFile { inference_sets: vec![] })
                .await
                .unwrap_err();
        assert_eq!(error.to_string(), "failed to write /no/such/folder/endpoints.new");
    }
}
