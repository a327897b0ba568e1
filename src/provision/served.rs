//! Which of the resources that provisioning needs the API server serves, and under which
//! version.

use std::time::Duration;

use kube::{
    Client,
    core::{ApiResource, GroupVersionKind},
};
use thiserror::Error;
use tracing::{info, warn};

/// Versions are few and change with an upgrade of KAITO or KEDA: asking costs three small
/// requests.
const RECHECK: Duration = Duration::from_secs(60);
const RETRY: (Duration, Duration) = (Duration::from_secs(1), RECHECK);

const KAITO: [&str; 2] = ["kaito.sh/v1beta1", "kaito.sh/v1alpha1"];
const KEDA: [&str; 1] = ["keda.sh/v1alpha1"];

/// The resources to be watched, each in the version to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub inference_sets: ApiResource,
    pub scaled_objects: ApiResource,
    /// Without them only `max-replicas` says how far to scale.
    pub workspaces: Option<ApiResource>,
    pub multi_role_inferences: Option<ApiResource>,
}

#[derive(Debug, Error)]
enum NotServed {
    #[error("the API server serves no {kind} of {group}")]
    Missing { kind: &'static str, group: &'static str },
    #[error("failed to ask for the resources of {version}")]
    Ask { version: &'static str, source: kube::Error },
}

/// Waits until KAITO's InferenceSets and KEDA's ScaledObjects are served. Says once what it
/// waits for.
pub(super) async fn wait_for_served(client: &Client) -> Served {
    let mut said = String::new();
    let mut pause = RETRY.0;
    loop {
        match look(client).await {
            Ok(served) => {
                let version = &served.inference_sets.api_version;
                info!(%version, "InferenceSets and ScaledObjects are served");
                return served;
            }
            Err(error) => {
                let text = crate::error_chain(&error);
                if text != said {
                    warn!(reason = %text, "nothing can be provisioned yet");
                    said = text;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

impl Served {
    /// Resolves once the API server serves something else: a newer version, or one of the
    /// resources no longer.
    pub(super) async fn changed(&self, client: &Client) {
        loop {
            tokio::time::sleep(RECHECK).await;
            match look(client).await {
                Ok(served) if served == *self => {}
                // An API server that can't be asked has not changed what it serves.
                Err(NotServed::Ask { .. }) => {}
                Ok(_) | Err(NotServed::Missing { .. }) => return,
            }
        }
    }
}

async fn look(client: &Client) -> Result<Served, NotServed> {
    let mut kaito = Vec::new();
    for version in KAITO {
        kaito.extend(resources(client, version).await?);
    }
    let keda = resources(client, KEDA[0]).await?;
    // The newer version stands first.
    let find = |all: &[ApiResource], kind| all.iter().find(|resource| resource.kind == kind).cloned();
    let require =
        |all: &[ApiResource], kind, group| find(all, kind).ok_or(NotServed::Missing { kind, group });
    Ok(Served {
        inference_sets: require(&kaito, "InferenceSet", "kaito.sh")?,
        scaled_objects: require(&keda, "ScaledObject", "keda.sh")?,
        workspaces: find(&kaito, "Workspace"),
        multi_role_inferences: find(&kaito, "MultiRoleInference"),
    })
}

/// What one group's version holds; nothing where it isn't served.
async fn resources(client: &Client, version: &'static str) -> Result<Vec<ApiResource>, NotServed> {
    let list = match client.list_api_group_resources(version).await {
        Ok(list) => list,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
        Err(source) => return Err(NotServed::Ask { version, source }),
    };
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    let whole = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
    Ok(whole
        .map(|resource| {
            let gvk = GroupVersionKind::gvk(group, number, &resource.kind);
            ApiResource::from_gvk_with_plural(&gvk, &resource.name)
        })
        .collect())
}
