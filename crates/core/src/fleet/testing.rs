//! A cluster for tests: its objects, and the indexes that follow them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    ObjectName,
    collection::{Collection, Object, Touched},
    index::{Index, Objects},
    inference_set::InferenceSetObject,
    model::{FleetEvent, InferenceSet},
    pod::Member,
    ports::{Ports, Scope, Sources},
    services::{Service, ServiceSlice},
};
use crate::{
    names::InferenceSetKey,
    wake::{Found, ServicePort},
};

#[derive(Debug, Default)]
pub(super) struct World {
    pods: Collection<Member>,
    inference_sets: Collection<InferenceSetObject>,
    slices: Collection<ServiceSlice>,
    scope: Option<Scope>,
    services: Collection<Service>,
    pub index: Index,
    pub ports: Ports,
    places: BTreeMap<ServicePort, Found>,
}

pub(super) fn name(name: &str) -> ObjectName {
    ObjectName::new("team-a", name)
}

pub(super) fn key(name: &str) -> InferenceSetKey {
    InferenceSetKey::new("team-a", name)
}

pub(super) fn pod(set: &str, name: &str, uid: &str) -> Value {
    json!({
        "metadata": {
            "namespace": "team-a",
            "name": name,
            "uid": uid,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"inferenceset.kaito.sh/created-by": set},
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    })
}

pub(super) fn set(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"namespace": "team-a", "name": name}, "spec": {"replicas": replicas}})
}

pub(super) fn slice(service: &str, name: &str, ip: Option<&str>) -> Value {
    let labels = json!({"kubernetes.io/service-name": service});
    let metadata = json!({"namespace": "team-a", "name": name, "labels": labels});
    let addresses: Vec<_> = ip.into_iter().collect();
    let ports = json!([{"name": "http-metrics", "port": 9190}]);
    json!({"metadata": metadata, "endpoints": [{"addresses": addresses}], "ports": ports})
}

/// An object as the API writes it, with its name.
fn read<T: Object>(object: &Value) -> (ObjectName, Option<T>) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap();
    let raw = serde_json::from_value(object.clone()).unwrap();
    (ObjectName::new(text("namespace"), text("name")), T::read(raw))
}

fn list<T: Object>(collection: &mut Collection<T>, all: &[Value]) -> Touched<T> {
    collection.list(all.iter().map(read))
}

fn apply<T: Object>(collection: &mut Collection<T>, object: &Value) -> Touched<T> {
    let (name, object) = read(object);
    collection.apply(name, object)
}

macro_rules! objects {
    ($world:expr) => {
        Objects { pods: &$world.pods, inference_sets: &$world.inference_sets, slices: &$world.slices }
    };
}

impl World {
    pub(super) fn list_pods(&mut self, pods: &[Value]) {
        list(&mut self.pods, pods).into_iter().for_each(|set| self.index.touch_pods(set));
    }

    pub(super) fn apply_pod(&mut self, pod: &Value) {
        apply(&mut self.pods, pod).into_iter().for_each(|set| self.index.touch_pods(set));
    }

    pub(super) fn delete_pod(&mut self, pod: &ObjectName) {
        self.pods.apply(pod.clone(), None).into_iter().for_each(|set| self.index.touch_pods(set));
    }

    pub(super) fn list_sets(&mut self, sets: &[Value]) {
        let touched = list(&mut self.inference_sets, sets);
        self.touch_sets(touched);
    }

    pub(super) fn apply_set(&mut self, set: &Value) {
        let touched = apply(&mut self.inference_sets, set);
        self.touch_sets(touched);
    }

    pub(super) fn delete_set(&mut self, set: &ObjectName) {
        let touched = self.inference_sets.apply(set.clone(), None);
        self.touch_sets(touched);
    }

    fn touch_sets(&mut self, sets: Vec<InferenceSetKey>) {
        for set in sets {
            self.index.touch_set(&set, objects!(self), &mut self.ports);
        }
    }

    pub(super) fn list_slices(&mut self, scope: Scope, slices: &[Value]) {
        let touched = list(&mut self.slices, slices);
        self.scope = Some(scope);
        self.touch_slices(touched);
        self.ports.touch_unfound();
    }

    pub(super) fn apply_slice(&mut self, slice: &Value) {
        let touched = apply(&mut self.slices, slice);
        self.touch_slices(touched);
    }

    pub(super) fn delete_slice(&mut self, slice: &ObjectName) {
        let touched = self.slices.apply(slice.clone(), None);
        self.touch_slices(touched);
    }

    fn touch_slices(&mut self, services: Vec<ObjectName>) {
        for service in services {
            self.index.touch_service(&service, objects!(self));
            self.ports.touch(&service);
        }
    }

    pub(super) fn list_services(&mut self, services: &[Value]) {
        list(&mut self.services, services);
        self.ports.touch_unfound();
    }

    pub(super) fn apply_service(&mut self, service: &Value) {
        apply(&mut self.services, service).iter().for_each(|service| self.ports.touch(service));
    }

    pub(super) fn delete_service(&mut self, service: &ObjectName) {
        self.services.apply(service.clone(), None).iter().for_each(|service| self.ports.touch(service));
    }

    pub(super) fn take_events(&mut self) -> Vec<FleetEvent> {
        self.index.take_events(objects!(self))
    }

    /// What has changed of where ports answer.
    pub(super) fn take_ports(&mut self) -> Vec<(ServicePort, Option<Found>)> {
        let sources = Sources { slices: &self.slices, scope: self.scope.as_ref(), services: &self.services };
        self.ports.take(sources)
    }

    /// Where all ports answer, as what was told of them adds up.
    pub(super) fn places(&mut self) -> &BTreeMap<ServicePort, Found> {
        for (port, found) in self.take_ports() {
            match found {
                Some(found) => drop(self.places.insert(port, found)),
                None => drop(self.places.remove(&port)),
            }
        }
        &self.places
    }

    /// The names of the Services whose EndpointSlices matter.
    pub(super) fn service_names(&self) -> BTreeSet<String> {
        match self.ports.scope(usize::MAX) {
            Scope::Named(names) => names.iter().map(ToString::to_string).collect(),
            Scope::All => panic!("there are not that many"),
        }
    }
}

/// Each event in a line: what, how many replicas, the UIDs of its endpoints, its gateway.
pub(super) fn told(world: &mut World) -> Vec<String> {
    let set = |set: &InferenceSet| {
        let uids: Vec<_> = set.endpoints.iter().map(|endpoint| &*endpoint.uid.0).collect();
        let picker = set.gateway.as_ref().and_then(|gateway| gateway.picker.as_ref());
        let gateway = picker.map(|picker| format!(" @{picker}"));
        format!("{} {} [{}]{}", set.key.name, set.replicas, uids.join(" "), gateway.unwrap_or_default())
    };
    let event = |event: FleetEvent| match event {
        FleetEvent::Applied(applied) => set(&applied),
        FleetEvent::Deleted(key) => format!("{} gone", key.name),
        FleetEvent::Reset(mut sets) => {
            sets.sort_by(|a, b| a.key.cmp(&b.key));
            format!("all: {}", sets.iter().map(set).collect::<Vec<_>>().join(", "))
        }
        FleetEvent::Alive => "alive".to_owned(),
    };
    world.take_events().into_iter().map(event).collect()
}

/// With demo (one pod of two replicas) and chat (asleep), all told.
pub(super) fn world() -> World {
    let mut world = World::default();
    world.list_pods(&[pod("demo", "demo-a-0", "u-1")]);
    world.list_sets(&[set("demo", 2), set("chat", 0)]);
    assert_eq!(told(&mut world), ["all: chat 0 [], demo 2 [u-1]"]);
    world
}
