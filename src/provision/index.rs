//! What is known of the cluster, kept by the one task that plans.

use std::collections::{BTreeSet, HashMap};

use kube::core::DynamicObject;
use kube_runtime::watcher::Event;

use super::{
    observed::{Hpa, InferenceSet, MultiRoleInference, ScaledObject, Workspace},
    served::Served,
};
use scaler_core::names::InferenceSetKey;

/// One kind of object, as much of it as provisioning reads.
pub(super) trait Observed: Sized + PartialEq {
    /// `None` for an object that has nothing to do with us, or that misses what it must have.
    fn read(object: DynamicObject) -> Option<Self>;

    /// The InferenceSets whose plan depends on this object.
    fn concerns(&self) -> Vec<InferenceSetKey>;

    /// Grows with every change of the object; 0 where nobody but the watch brings it.
    fn version(&self) -> u64 {
        0
    }
}

/// Namespace and name.
type ObjectKey = (String, String);

/// Every object of one kind, and which InferenceSet it concerns.
#[derive(Debug)]
pub(super) struct Collection<T> {
    objects: HashMap<ObjectKey, T>,
    concerning: HashMap<InferenceSetKey, BTreeSet<ObjectKey>>,
    /// What a list has brought so far; it replaces everything at its end, in one step.
    listing: Option<HashMap<ObjectKey, T>>,
    complete: bool,
}

#[derive(Debug)]
pub(super) struct Index {
    pub inference_sets: Collection<InferenceSet>,
    pub workspaces: Collection<Workspace>,
    pub multi_role_inferences: Collection<MultiRoleInference>,
    pub scaled_objects: Collection<ScaledObject>,
    pub hpas: Collection<Hpa>,
}

impl Index {
    pub(super) fn new(served: &Served) -> Self {
        Self {
            inference_sets: Collection::new(false),
            workspaces: Collection::new(served.workspaces.is_none()),
            multi_role_inferences: Collection::new(served.multi_role_inferences.is_none()),
            scaled_objects: Collection::new(false),
            hpas: Collection::new(false),
        }
    }

    /// Whether everything was listed once. Before that nothing may be planned: what looks
    /// absent may just not have come yet.
    pub(super) fn is_complete(&self) -> bool {
        self.inference_sets.complete
            && self.workspaces.complete
            && self.multi_role_inferences.complete
            && self.scaled_objects.complete
            && self.hpas.complete
    }
}

impl<T: Observed> Collection<T> {
    /// `complete` where no list is to come.
    fn new(complete: bool) -> Self {
        Self { objects: HashMap::new(), concerning: HashMap::new(), listing: None, complete }
    }

    /// The objects that concern an InferenceSet, by name.
    pub(super) fn of(&self, set: &InferenceSetKey) -> impl Iterator<Item = &T> {
        self.concerning.get(set).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// Every InferenceSet that an object of this kind concerns.
    pub(super) fn concerned(&self) -> impl Iterator<Item = InferenceSetKey> {
        self.concerning.keys().cloned()
    }

    /// Takes in what the watch says; gives the InferenceSets whose plan may have changed.
    pub(super) fn take(&mut self, event: Event<DynamicObject>) -> Vec<InferenceSetKey> {
        match event {
            Event::Apply(object) => self.observe(object),
            Event::Delete(object) => self.replace(object_key(&object), None),
            Event::Init => {
                self.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = object_key(&object);
                if let (Some(listing), Some(read)) = (&mut self.listing, T::read(object)) {
                    listing.insert(key, read);
                }
                Vec::new()
            }
            Event::InitDone => {
                self.complete = true;
                let listed = self.listing.take().unwrap_or_default();
                let gone: Vec<_> =
                    self.objects.keys().filter(|key| !listed.contains_key(*key)).cloned().collect();
                let gone = gone.into_iter().map(|key| (key, None));
                let listed = listed.into_iter().map(|(key, object)| (key, Some(object)));
                gone.chain(listed).flat_map(|(key, object)| self.replace(key, object)).collect()
            }
        }
    }

    /// Takes in one object as it is now: the answer to a request, which may be ahead of the
    /// watch.
    pub(super) fn observe(&mut self, object: DynamicObject) -> Vec<InferenceSetKey> {
        self.replace(object_key(&object), T::read(object))
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Vec<InferenceSetKey> {
        self.replace((namespace.to_owned(), name.to_owned()), None)
    }

    fn replace(&mut self, key: ObjectKey, new: Option<T>) -> Vec<InferenceSetKey> {
        let old = self.objects.remove(&key);
        let is_news = match (&old, &new) {
            (Some(old), Some(new)) => old != new && old.version() <= new.version(),
            (old, new) => old.is_some() || new.is_some(),
        };
        if !is_news {
            self.objects.extend(old.map(|old| (key, old)));
            return Vec::new();
        }
        let mut touched = Vec::new();
        for set in old.iter().flat_map(Observed::concerns) {
            if let Some(keys) = self.concerning.get_mut(&set) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.concerning.remove(&set);
                }
            }
            touched.push(set);
        }
        if let Some(new) = new {
            for set in new.concerns() {
                self.concerning.entry(set.clone()).or_default().insert(key.clone());
                touched.push(set);
            }
            self.objects.insert(key, new);
        }
        touched
    }
}

fn object_key(object: &DynamicObject) -> ObjectKey {
    let metadata = &object.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}
