//! What changes of the cluster's objects mean for InferenceSets: the events of the fleet.
//!
//! Nothing is told before pods and InferenceSets have been listed once. From then on each
//! change of what is used is told once, and a new list as the difference that it makes: an
//! InferenceSet always changes whole, so a list never shows a moment in which half of its
//! endpoints are gone.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::Arc,
};

use super::{
    ObjectName,
    collection::Collection,
    inference_set::InferenceSetObject,
    model::{FleetEvent, Gateway, InferenceSet},
    pod::Member,
    ports::Ports,
    services::ServiceSlice,
};
use crate::{names::InferenceSetKey, wake::Source};

/// The objects of which the fleet consists.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a> {
    pub pods: &'a Collection<Member>,
    pub inference_sets: &'a Collection<InferenceSetObject>,
    pub slices: &'a Collection<ServiceSlice>,
}

impl Objects<'_> {
    /// Whether all there is has been listed.
    #[must_use]
    pub fn are_listed(&self) -> bool {
        self.pods.is_listed() && self.inference_sets.is_listed()
    }
}

/// What is to be told of InferenceSets, and what was.
#[derive(Debug, Default)]
pub struct Index {
    gateways: HashMap<InferenceSetKey, Picker>,
    /// The InferenceSets behind each picker, whether that exists or not.
    behind: HashMap<ObjectName, BTreeSet<InferenceSetKey>>,
    /// The pickers that exist: their Services have EndpointSlices.
    pickers: BTreeSet<ObjectName>,
    changed: BTreeSet<InferenceSetKey>,
    told: bool,
    /// Of which InferenceSets the pool has changed.
    pools: BTreeSet<InferenceSetKey>,
}

/// An InferenceSet's pool, and the source that KAITO's naming gives it.
#[derive(Debug, PartialEq)]
struct Picker {
    pool: Arc<str>,
    source: Source,
}

impl Picker {
    fn of(set: &InferenceSetObject) -> Self {
        let pool = set.pool();
        Self { source: Source::picker(&set.key().namespace, &pool), pool: pool.into() }
    }

    fn service(&self) -> Option<&ObjectName> {
        self.source.service().map(|port| &port.service)
    }
}

impl Index {
    /// Pods of `set` have come, changed or gone.
    pub fn touch_pods(&mut self, set: InferenceSetKey) {
        self.changed.insert(set);
    }

    /// `set` itself has come, changed or gone. The port of its picker is followed while it is
    /// there.
    pub fn touch_set(&mut self, set: &InferenceSetKey, objects: Objects<'_>, ports: &mut Ports) {
        self.changed.insert(set.clone());
        let picker = objects.inference_sets.of(set).next().map(Picker::of);
        if self.gateways.get(set) == picker.as_ref() {
            return;
        }
        self.pools.insert(set.clone());
        if let Some(before) = self.gateways.remove(set) {
            before.source.service().into_iter().for_each(|port| ports.unfollow(port));
            if let Some(service) = before.service()
                && let Some(behind) = self.behind.get_mut(service)
            {
                behind.remove(set);
                if behind.is_empty() {
                    self.behind.remove(service);
                    self.pickers.remove(service);
                }
            }
        }
        let Some(picker) = picker else { return };
        picker.source.service().into_iter().for_each(|port| ports.follow(port));
        if let Some(service) = picker.service() {
            self.behind.entry(service.clone()).or_default().insert(set.clone());
            if objects.slices.has(service) {
                self.pickers.insert(service.clone());
            }
        }
        self.gateways.insert(set.clone(), picker);
    }

    /// EndpointSlices of `service` have come, changed or gone.
    pub fn touch_service(&mut self, service: &ObjectName, objects: Objects<'_>) {
        let Some(behind) = self.behind.get(service) else { return };
        let is_news = if objects.slices.has(service) {
            self.pickers.insert(service.clone())
        } else {
            self.pickers.remove(service)
        };
        if is_news {
            self.changed.extend(behind.iter().cloned());
        }
    }

    /// What has changed since the last call: at first everything, in one step. Empty until
    /// all has been listed.
    pub fn take_events(&mut self, objects: Objects<'_>) -> Vec<FleetEvent> {
        if !objects.are_listed() {
            return Vec::new();
        }
        let changed = mem::take(&mut self.changed);
        if !mem::replace(&mut self.told, true) {
            let sets = objects.inference_sets.keys().filter_map(|key| inference_set(key, objects));
            return vec![FleetEvent::Reset(sets.collect())];
        }
        let event = |key: InferenceSetKey| match inference_set(&key, objects) {
            Some(set) => FleetEvent::Applied(set),
            None => FleetEvent::Deleted(key),
        };
        changed.into_iter().map(event).collect()
    }

    /// The pool of each InferenceSet for which that has changed since the last call; `None`
    /// where the InferenceSet is gone.
    pub fn take_pools(&mut self) -> Vec<(InferenceSetKey, Option<Arc<str>>)> {
        let changed = mem::take(&mut self.pools).into_iter();
        changed
            .map(|set| {
                let pool = self.gateways.get(&set).map(|picker| picker.pool.clone());
                (set, pool)
            })
            .collect()
    }
}

fn inference_set(key: &InferenceSetKey, objects: Objects<'_>) -> Option<InferenceSet> {
    let set = objects.inference_sets.of(key).next()?;
    let picker = Picker::of(set);
    let is_there = picker.service().is_some_and(|service| objects.slices.has(service));
    Some(InferenceSet {
        key: key.clone(),
        replicas: set.replicas(),
        ready_replicas: set.ready_replicas(),
        endpoints: objects.pods.of(key).map(|member| member.endpoint.clone()).collect(),
        gateway: Some(Gateway { pool: picker.pool, picker: is_there.then_some(picker.source) }),
    })
}

#[cfg(test)]
mod tests;
