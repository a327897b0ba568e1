//! The watches that feed the index.

use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll, select_all},
};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use kube_runtime::{
    WatchStreamExt,
    watcher::{self, Event, watcher},
};
use tracing::{info, warn};

use super::{index::Index, served::Served};
use scaler_core::names::InferenceSetKey;

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    InferenceSet,
    Workspace,
    MultiRoleInference,
    ScaledObject,
    Hpa,
}

/// What one watch says.
#[derive(Debug)]
pub(super) struct Change {
    kind: Kind,
    event: Event<DynamicObject>,
}

impl Change {
    /// Takes it into the index; gives the InferenceSets whose plan may have changed.
    pub(super) fn apply(self, index: &mut Index) -> Vec<InferenceSetKey> {
        match self.kind {
            Kind::InferenceSet => index.inference_sets.take(self.event),
            Kind::Workspace => index.workspaces.take(self.event),
            Kind::MultiRoleInference => index.multi_role_inferences.take(self.event),
            Kind::ScaledObject => index.scaled_objects.take(self.event),
            Kind::Hpa => index.hpas.take(self.event),
        }
    }
}

pub(super) type Changes = SelectAll<BoxStream<'static, Change>>;

/// Watches everything that is served, in all namespaces.
pub(super) fn watch(client: &Client, served: &Served) -> Changes {
    let hpas = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("autoscaling", "v2", "HorizontalPodAutoscaler"),
        "horizontalpodautoscalers",
    );
    let sources = [
        (Kind::InferenceSet, Some(&served.inference_sets)),
        (Kind::Workspace, served.workspaces.as_ref()),
        (Kind::MultiRoleInference, served.multi_role_inferences.as_ref()),
        (Kind::ScaledObject, Some(&served.scaled_objects)),
        (Kind::Hpa, Some(&hpas)),
    ];
    select_all(
        sources
            .into_iter()
            .filter_map(|(kind, resource)| Some(watch_one(client.clone(), kind, resource?.clone()))),
    )
}

fn watch_one(client: Client, kind: Kind, resource: ApiResource) -> BoxStream<'static, Change> {
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    // It says on the edges only that it fails and works again, and goes on in any case.
    let mut failing = false;
    watcher(api, watcher::Config::default())
        .default_backoff()
        .filter_map(move |result| {
            let change = match result {
                Ok(event) => {
                    if std::mem::replace(&mut failing, false) {
                        info!(resource = resource.plural, "the watch works again");
                    }
                    // Only a ScaledObject's tell something, namely who wrote it.
                    let keep = matches!(kind, Kind::ScaledObject);
                    let event = event.modify(|object| {
                        if !keep {
                            object.metadata.managed_fields = None;
                        }
                    });
                    Some(Change { kind, event })
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(resource = resource.plural, %error, "the watch fails");
                    }
                    None
                }
            };
            std::future::ready(change)
        })
        .boxed()
}
