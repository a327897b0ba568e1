//! What is observed of the cluster: the objects from which the steps follow, in the store.

use std::{collections::BTreeSet, sync::RwLockReadGuard};

use crate::cluster::store::{Known, Serving, Store, Subscription, kinds};
use scaler_core::{
    fleet::{collection::Object, inference_set::InferenceSetObject},
    names::InferenceSetKey,
    provision::objects::{Hpa, MultiRoleInference, ScaledObject, Workspace},
};

/// Everything that provisioning reads, for as long as it provisions.
#[derive(Debug)]
pub(super) struct Observed {
    inference_sets: Subscription<InferenceSetObject>,
    workspaces: Subscription<Workspace>,
    multi_role_inferences: Subscription<MultiRoleInference>,
    scaled_objects: Subscription<ScaledObject>,
    hpas: Subscription<Hpa>,
    /// The versions in which InferenceSets and their parents are served: objects name them.
    served_as: [Option<&'static str>; 2],
}

/// The objects as they are at one moment.
pub(super) struct View<'a> {
    pub inference_sets: RwLockReadGuard<'a, Known<InferenceSetObject>>,
    pub workspaces: RwLockReadGuard<'a, Known<Workspace>>,
    pub multi_role_inferences: RwLockReadGuard<'a, Known<MultiRoleInference>>,
    pub scaled_objects: RwLockReadGuard<'a, Known<ScaledObject>>,
    pub hpas: RwLockReadGuard<'a, Known<Hpa>>,
}

impl Observed {
    pub(super) fn new(store: &Store) -> Self {
        Self {
            inference_sets: store.follow(kinds::inference_sets()).subscribe(),
            workspaces: store.follow(kinds::workspaces()).subscribe(),
            multi_role_inferences: store.follow(kinds::multi_role_inferences()).subscribe(),
            scaled_objects: store.follow(kinds::scaled_objects()).subscribe(),
            hpas: store.follow(kinds::horizontal_pod_autoscalers()).subscribe(),
            served_as: [None; 2],
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            inference_sets: self.inference_sets.read(),
            workspaces: self.workspaces.read(),
            multi_role_inferences: self.multi_role_inferences.read(),
            scaled_objects: self.scaled_objects.read(),
            hpas: self.hpas.read(),
        }
    }

    /// Waits until there is something to take in.
    pub(super) async fn changed(&self) {
        tokio::select! {
            () = self.inference_sets.ready() => {}
            () = self.workspaces.ready() => {}
            () = self.multi_role_inferences.ready() => {}
            () = self.scaled_objects.ready() => {}
            () = self.hpas.ready() => {}
        }
    }

    /// The InferenceSets whose plan may have changed since the last call.
    pub(super) fn take(&mut self) -> BTreeSet<InferenceSetKey> {
        let mut touched = self.inference_sets.take().keys;
        touched.append(&mut self.workspaces.take().keys);
        touched.append(&mut self.multi_role_inferences.take().keys);
        touched.append(&mut self.scaled_objects.take().keys);
        touched.append(&mut self.hpas.take().keys);
        let served_as =
            [self.inference_sets.read().api_version(), self.multi_role_inferences.read().api_version()];
        if self.served_as != served_as {
            self.served_as = served_as;
            touched.extend(self.all());
        }
        touched
    }

    /// Every InferenceSet.
    pub(super) fn all(&self) -> Vec<InferenceSetKey> {
        self.inference_sets.read().keys().cloned().collect()
    }
}

impl View<'_> {
    /// What keeps everything from being known; empty where all is. Before that nothing may be
    /// planned: what looks absent may just not have come yet.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let needed = [
            ("InferenceSets", is_listed(&self.inference_sets) && is_served(&self.inference_sets)),
            ("Workspaces", is_listed(&self.workspaces)),
            ("MultiRoleInferences", is_listed(&self.multi_role_inferences)),
            ("ScaledObjects", is_listed(&self.scaled_objects) && is_served(&self.scaled_objects)),
            ("HorizontalPodAutoscalers", is_listed(&self.hpas)),
        ];
        needed.into_iter().filter(|(_, is_known)| !is_known).map(|(what, _)| what).collect()
    }
}

/// Whether all there is of a kind is known; of one that is not served there is nothing.
fn is_listed<T: Object>(known: &Known<T>) -> bool {
    known.is_listed() || *known.serving() == Serving::Missing
}

fn is_served<T: Object>(known: &Known<T>) -> bool {
    matches!(known.serving(), Serving::As(_))
}
