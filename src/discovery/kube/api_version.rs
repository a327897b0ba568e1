//! Which version of the InferenceSet API the cluster serves, and waiting for one.

use std::{fmt, time::Duration};

use kube::Client;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::feed::pauses;
use crate::error_chain;

/// A version of the API that has InferenceSets; what is used of them is the same in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVersion {
    V1Beta1,
    V1Alpha1,
}

impl ApiVersion {
    /// The best first.
    const ALL: [Self; 2] = [Self::V1Beta1, Self::V1Alpha1];
    const PLURAL: &str = "inferencesets";

    /// Group and version, as in `apiVersion`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1Beta1 => "kaito.sh/v1beta1",
            Self::V1Alpha1 => "kaito.sh/v1alpha1",
        }
    }

    /// The path of the collection of all InferenceSets.
    pub(super) fn path(self) -> String {
        format!("/apis/{self}/{}", Self::PLURAL)
    }

    /// The best version that the cluster serves; `None` where it serves none, because KAITO is
    /// not installed or is older than InferenceSets.
    ///
    /// Asked of the discovery API, which is open to every account: reading CRDs takes a right
    /// that is not needed for anything else. A version may be served without having
    /// InferenceSets, as v1beta1 was before KAITO 0.11.
    pub async fn served(client: &Client) -> kube::Result<Option<Self>> {
        for version in Self::ALL {
            match client.list_api_group_resources(version.as_str()).await {
                Ok(list) if list.resources.iter().any(|resource| resource.name == Self::PLURAL) => {
                    return Ok(Some(version));
                }
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Waits until the cluster serves one, and says once that it waits.
    pub(super) async fn wait_for_any(client: &Client) -> Self {
        let mut said = false;
        let mut pauses = pauses();
        loop {
            match Self::served(client).await {
                Ok(Some(version)) => {
                    info!(%version, "the InferenceSet API is served");
                    return version;
                }
                Ok(None) if !said => {
                    warn!("the InferenceSet CRD of kaito.sh is not installed: waiting for it");
                    said = true;
                }
                Err(error) if !said => {
                    warn!(error = error_chain(&error), "can't tell whether the InferenceSet API is served");
                    said = true;
                }
                Ok(None) | Err(_) => debug!("still no InferenceSet API"),
            }
            sleep(pauses.next().unwrap_or(RECHECK)).await;
        }
    }

    /// Waits until another version is the best that the cluster serves: KAITO was upgraded, or
    /// rolled back.
    pub(super) async fn wait_for_other(self, client: &Client) -> Self {
        loop {
            sleep(RECHECK).await;
            if let Ok(Some(version)) = Self::served(client).await
                && version != self
            {
                info!(was = %self, %version, "another version of the InferenceSet API is served");
                return version;
            }
        }
    }
}

/// An upgrade of KAITO hurts nothing meanwhile: the older version goes on being served.
const RECHECK: Duration = Duration::from_secs(300);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
