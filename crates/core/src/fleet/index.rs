//! Folds lists and changes of pods, InferenceSets, EndpointSlices and Services into fleet
//! events, and into the directory of where wake-up sources answer.
//!
//! Nothing is told before pods and InferenceSets have been listed once. From then on each
//! change of what is used is told once, and a new list as the difference that it makes: an
//! InferenceSet always changes whole, so a list never shows a moment in which half of its
//! endpoints are gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    net::SocketAddr,
    sync::Arc,
};

use super::{
    Named, ObjectName,
    inference_set::InferenceSetObject,
    pod::{Member, PodObject},
};
use crate::fleet::services::{EndpointSliceObject, METRICS_PORT, METRICS_PORT_NAME, ServiceObject, Slice};
use crate::{
    fleet::model::{Endpoint, FleetEvent, Gateway, InferenceSet},
    names::InferenceSetKey,
    wake::{Directory, Missing, ServicePort, Source},
};

/// All that is known of the cluster, and what of it has changed since it was last told.
#[derive(Debug, Default)]
pub struct Index {
    sets: HashMap<InferenceSetKey, Facts>,
    /// By InferenceSet, whether that is known or not, and by pod name: a pod that is made
    /// again under its name takes its predecessor's place.
    endpoints: HashMap<InferenceSetKey, BTreeMap<Arc<str>, Endpoint>>,
    /// Whose each pod is: its labels may change, and a deletion must find it.
    owners: HashMap<ObjectName, InferenceSetKey>,
    /// By Service, and by their names: a dual-stack Service has a slice for each family, and a
    /// large one has several.
    slices: HashMap<ObjectName, BTreeMap<Arc<str>, Slice>>,
    /// Whose each slice is: a deletion must find it.
    slice_owners: HashMap<ObjectName, ObjectName>,
    /// By Service: its ports with their names.
    services: HashMap<ObjectName, Vec<(u16, Arc<str>)>>,
    listed: Listed,
    /// Ports of Services, beside those of pickers, that somebody wants to read.
    wanted: BTreeSet<ServicePort>,
    /// The directory has changed since it was last taken.
    directory_changed: bool,
    changed: BTreeSet<InferenceSetKey>,
    told: bool,
}

/// Of what all there is has been heard.
#[derive(Debug, Default)]
struct Listed {
    pods: bool,
    sets: bool,
    /// A Service that was not in question then is not known yet.
    slices: Option<Scope>,
    services: bool,
}

/// The Services whose EndpointSlices a list is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    /// Those of these names, in every namespace.
    Named(BTreeSet<Arc<str>>),
}

impl Scope {
    fn includes(&self, service: &ObjectName) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(&service.name),
        }
    }
}

/// What an InferenceSet itself says.
#[derive(Debug, PartialEq)]
struct Facts {
    replicas: u32,
    ready_replicas: u32,
    pool: Arc<str>,
    picker: Source,
}

impl Facts {
    fn of(set: &InferenceSetObject) -> Self {
        let pool = set.pool();
        let picker = Source::picker(&set.key().namespace, &pool);
        Self { replicas: set.replicas(), ready_replicas: set.ready_replicas(), pool: pool.into(), picker }
    }
}

impl Index {
    /// All pods there are: those that are missing are gone.
    pub fn list_pods(&mut self, pods: &[PodObject]) {
        self.listed.pods = true;
        let listed: BTreeSet<_> = pods.iter().map(Named::object_name).collect();
        let gone: Vec<_> = self.owners.keys().filter(|pod| !listed.contains(*pod)).cloned().collect();
        for pod in &gone {
            self.delete_pod(pod);
        }
        for pod in pods {
            self.apply_pod(pod);
        }
    }

    /// A pod that is new or has changed.
    pub fn apply_pod(&mut self, pod: &PodObject) {
        let name = pod.object_name();
        let member = pod.member();
        // A pod that has ended, or is another InferenceSet's now, is gone from its former one.
        if self.owners.get(&name) != member.as_ref().map(|member| &member.set) {
            self.delete_pod(&name);
        }
        let Some(Member { set, endpoint }) = member else { return };
        let endpoints = self.endpoints.entry(set.clone()).or_default();
        if endpoints.get(&name.name) != Some(&endpoint) {
            endpoints.insert(name.name.clone(), endpoint);
            self.changed.insert(set.clone());
        }
        self.owners.insert(name, set);
    }

    pub fn delete_pod(&mut self, pod: &ObjectName) {
        let Some(set) = self.owners.remove(pod) else { return };
        if let Some(endpoints) = self.endpoints.get_mut(&set) {
            endpoints.remove(&pod.name);
            if endpoints.is_empty() {
                self.endpoints.remove(&set);
            }
        }
        self.changed.insert(set);
    }

    /// All InferenceSets there are.
    pub fn list_sets(&mut self, sets: &[InferenceSetObject]) {
        self.listed.sets = true;
        let listed: BTreeSet<_> = sets.iter().map(InferenceSetObject::key).collect();
        let gone: Vec<_> = self.sets.keys().filter(|set| !listed.contains(*set)).cloned().collect();
        for set in gone {
            self.forget_set(set);
        }
        for set in sets {
            self.apply_set(set);
        }
    }

    pub fn apply_set(&mut self, set: &InferenceSetObject) {
        let (key, facts) = (set.key(), Facts::of(set));
        if self.sets.get(&key) != Some(&facts) {
            let before = self.sets.insert(key.clone(), facts);
            self.directory_changed |= before.is_none_or(|before| before.pool != self.sets[&key].pool);
            self.changed.insert(key);
        }
    }

    pub fn delete_set(&mut self, set: &ObjectName) {
        self.forget_set(InferenceSetKey { namespace: set.namespace.clone(), name: set.name.clone() });
    }

    fn forget_set(&mut self, set: InferenceSetKey) {
        if self.sets.remove(&set).is_some() {
            self.directory_changed = true;
            self.changed.insert(set);
        }
    }

    /// All EndpointSlices there are of the Services in `scope`.
    pub fn list_slices(&mut self, scope: Scope, slices: &[EndpointSliceObject]) {
        let listed: BTreeSet<_> = slices.iter().map(Named::object_name).collect();
        let gone: Vec<_> =
            self.slice_owners.keys().filter(|slice| !listed.contains(*slice)).cloned().collect();
        for slice in &gone {
            self.delete_slice(slice);
        }
        for slice in slices {
            self.apply_slice(slice);
        }
        self.directory_changed |= self.listed.slices.replace(scope.clone()) != Some(scope);
    }

    pub fn apply_slice(&mut self, slice: &EndpointSliceObject) {
        let name = slice.object_name();
        let Some(service) = slice.service() else { return self.delete_slice(&name) };
        if self.slice_owners.get(&name).is_some_and(|owner| *owner != service) {
            self.delete_slice(&name);
        }
        let new = slice.slice();
        let slices = self.slices.entry(service.clone()).or_default();
        let is_first = slices.is_empty();
        if slices.insert(name.name.clone(), new.clone()).as_ref() != Some(&new) {
            self.directory_changed = true;
        }
        if is_first {
            self.mark_sets_behind(&service);
        }
        self.slice_owners.insert(name, service);
    }

    pub fn delete_slice(&mut self, slice: &ObjectName) {
        let Some(service) = self.slice_owners.remove(slice) else { return };
        self.directory_changed = true;
        let Some(slices) = self.slices.get_mut(&service) else { return };
        slices.remove(&slice.name);
        if slices.is_empty() {
            self.slices.remove(&service);
            self.mark_sets_behind(&service);
        }
    }

    fn mark_sets_behind(&mut self, service: &ObjectName) {
        let is_behind =
            |facts: &Facts| facts.picker.service().is_some_and(|picker| picker.service == *service);
        let behind = self.sets.iter().filter(|(_, facts)| is_behind(facts));
        self.changed.extend(behind.map(|(set, _)| set.clone()));
    }

    /// All Services there are.
    pub fn list_services(&mut self, services: &[ServiceObject]) {
        self.directory_changed |= !mem::replace(&mut self.listed.services, true);
        let listed: BTreeSet<_> = services.iter().map(Named::object_name).collect();
        let gone: Vec<_> =
            self.services.keys().filter(|service| !listed.contains(*service)).cloned().collect();
        for service in &gone {
            self.delete_service(service);
        }
        for service in services {
            self.apply_service(service);
        }
    }

    pub fn apply_service(&mut self, service: &ServiceObject) {
        let ports = service.ports();
        let before = self.services.insert(service.object_name(), ports.clone());
        self.directory_changed |= before.as_ref() != Some(&ports);
    }

    pub fn delete_service(&mut self, service: &ObjectName) {
        self.directory_changed |= self.services.remove(service).is_some();
    }

    /// The ports of Services that somebody wants to read, beside those of pickers.
    pub fn want(&mut self, wanted: BTreeSet<ServicePort>) {
        if self.wanted != wanted {
            self.wanted = wanted;
            self.directory_changed = true;
        }
    }

    /// Whether all there is has been listed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.listed.pods && self.listed.sets
    }

    /// What has changed since the last call: at first everything, in one step. Empty until
    /// all has been listed.
    pub fn take_events(&mut self) -> Vec<FleetEvent> {
        if !self.is_complete() {
            return Vec::new();
        }
        let changed = mem::take(&mut self.changed);
        if !mem::replace(&mut self.told, true) {
            let sets = self.sets.iter().map(|(key, facts)| self.inference_set(key, facts));
            return vec![FleetEvent::Reset(sets.collect())];
        }
        let event = |key: InferenceSetKey| match self.sets.get(&key) {
            Some(facts) => FleetEvent::Applied(self.inference_set(&key, facts)),
            None => FleetEvent::Deleted(key),
        };
        changed.into_iter().map(event).collect()
    }

    fn inference_set(&self, key: &InferenceSetKey, facts: &Facts) -> InferenceSet {
        let endpoints = self.endpoints.get(key).into_iter().flat_map(BTreeMap::values);
        let is_there = |picker: &&Source| {
            picker.service().is_some_and(|picker| self.slices.contains_key(&picker.service))
        };
        InferenceSet {
            key: key.clone(),
            replicas: facts.replicas,
            ready_replicas: facts.ready_replicas,
            endpoints: endpoints.cloned().collect(),
            gateway: Some(Gateway {
                pool: facts.pool.clone(),
                picker: Some(&facts.picker).filter(is_there).cloned(),
            }),
        }
    }

    /// Every port that is looked up, those of pickers included.
    fn looked_up(&self) -> BTreeSet<&ServicePort> {
        let pickers = self.sets.values().filter_map(|facts| facts.picker.service());
        pickers.chain(&self.wanted).collect()
    }

    /// The names of the Services whose EndpointSlices matter.
    #[must_use]
    pub fn service_names(&self) -> BTreeSet<Arc<str>> {
        self.looked_up().into_iter().map(|port| port.service.name.clone()).collect()
    }

    /// Whether some port can be found only by what its Service says, and not by the name that
    /// the picker's chart gives it.
    #[must_use]
    pub fn needs_services(&self) -> bool {
        self.looked_up().into_iter().any(|port| {
            let has_slices = self.slices.contains_key(&port.service);
            has_slices && self.conventional_name(port).is_none()
        })
    }

    /// The directory, where it has changed since it was last taken.
    pub fn take_directory(&mut self) -> Option<Directory> {
        if !mem::take(&mut self.directory_changed) {
            return None;
        }
        let places = self.looked_up().into_iter();
        let places = places.filter_map(|port| Some((port.clone(), self.look_up(port)?)));
        Some(Directory {
            places: places.collect(),
            pools: self.sets.iter().map(|(set, facts)| (set.clone(), facts.pool.clone())).collect(),
        })
    }

    /// `None` while it cannot be known.
    fn look_up(&self, port: &ServicePort) -> Option<Result<SocketAddr, Missing>> {
        let Some(slices) = self.slices.get(&port.service) else {
            let listed = self.listed.slices.as_ref()?.includes(&port.service);
            return listed.then_some(Err(Missing::Service));
        };
        let name = match self.services.get(&port.service) {
            Some(ports) => match ports.iter().find(|(number, _)| *number == port.port) {
                Some((_, name)) => name,
                None => return Some(Err(Missing::Port)),
            },
            None => match self.conventional_name(port) {
                Some(name) => name,
                None if self.listed.services => return Some(Err(Missing::Service)),
                None => return None,
            },
        };
        let addresses = slices.values().filter_map(|slice| slice.address(name));
        Some(addresses.min().ok_or(Missing::Endpoint))
    }

    /// The name of the port where it is the one that the picker's chart gives.
    fn conventional_name(&self, port: &ServicePort) -> Option<&'static str> {
        let mut slices = self.slices.get(&port.service)?.values();
        // An EndpointSlice without endpoints need not have ports.
        let fits = |slice: &Slice| slice.ip.is_none() || slice.port(METRICS_PORT_NAME).is_some();
        (port.port == METRICS_PORT && slices.all(fits)).then_some(METRICS_PORT_NAME)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;

    use super::*;

    fn pod(set: &str, name: &str, uid: &str) -> PodObject {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "team-a",
                "name": name,
                "uid": uid,
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"inferenceset.kaito.sh/created-by": set},
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        }))
        .unwrap()
    }

    fn set(name: &str, replicas: u32) -> InferenceSetObject {
        let metadata = json!({"namespace": "team-a", "name": name});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"replicas": replicas}})).unwrap()
    }

    fn slice(service: &str, name: &str, ip: Option<&str>) -> EndpointSliceObject {
        let labels = json!({"kubernetes.io/service-name": service});
        let metadata = json!({"namespace": "team-a", "name": name, "labels": labels});
        let addresses: Vec<_> = ip.into_iter().collect();
        let ports = json!([{"name": "http-metrics", "port": 9190}]);
        let endpoints = json!([{"addresses": addresses}]);
        serde_json::from_value(json!({"metadata": metadata, "endpoints": endpoints, "ports": ports})).unwrap()
    }

    fn key(name: &str) -> InferenceSetKey {
        InferenceSetKey::new("team-a", name)
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("team-a", name)
    }

    /// Each event in a line: what, how many replicas, the UIDs of its endpoints, its gateway.
    fn told(index: &mut Index) -> Vec<String> {
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
        index.take_events().into_iter().map(event).collect()
    }

    /// With demo (one pod of two replicas) and chat (asleep), all told.
    fn index() -> Index {
        let mut index = Index::default();
        index.list_pods(&[pod("demo", "demo-a-0", "u-1")]);
        index.list_sets(&[set("demo", 2), set("chat", 0)]);
        assert_eq!(told(&mut index), ["all: chat 0 [], demo 2 [u-1]"]);
        index
    }

    #[test]
    fn nothing_is_told_before_both_lists() {
        for pods_first in [true, false] {
            let mut index = Index::default();
            for pods in [pods_first, !pods_first] {
                assert_eq!(told(&mut index), [""; 0]);
                if pods {
                    index.list_pods(&[pod("demo", "demo-a-0", "u-1")]);
                } else {
                    index.list_sets(&[set("demo", 2)]);
                }
            }
            assert_eq!(told(&mut index), ["all: demo 2 [u-1]"]);
            assert_eq!(told(&mut index), [""; 0]);
        }
    }

    #[test]
    fn an_empty_cluster_is_told_too() {
        let mut index = Index::default();
        index.list_pods(&[]);
        index.list_sets(&[]);
        assert_eq!(told(&mut index), ["all: "]);
    }

    #[test]
    fn changes_are_told_once_and_what_is_no_change_is_not() {
        let mut index = index();
        index.apply_pod(&pod("demo", "demo-b-0", "u-2"));
        index.apply_set(&set("demo", 3));
        assert_eq!(told(&mut index), ["demo 3 [u-1 u-2]"]);
        index.apply_pod(&pod("demo", "demo-b-0", "u-2"));
        index.apply_set(&set("demo", 3));
        assert_eq!(told(&mut index), [""; 0]);
        index.delete_pod(&name("demo-a-0"));
        index.delete_pod(&name("never-seen-0"));
        assert_eq!(told(&mut index), ["demo 3 [u-2]"]);
        index.delete_set(&name("demo"));
        index.delete_set(&name("never-seen"));
        assert_eq!(told(&mut index), ["demo gone"]);
    }

    #[test]
    fn a_pod_made_again_under_its_name_is_another_endpoint() {
        let mut index = index();
        // With the deletion in between, and with it missed.
        index.delete_pod(&name("demo-a-0"));
        index.apply_pod(&pod("demo", "demo-a-0", "u-2"));
        assert_eq!(told(&mut index), ["demo 2 [u-2]"]);
        index.apply_pod(&pod("demo", "demo-a-0", "u-3"));
        assert_eq!(told(&mut index), ["demo 2 [u-3]"]);
        index.delete_pod(&name("demo-a-0"));
        assert_eq!(told(&mut index), ["demo 2 []"]);
    }

    #[test]
    fn a_pod_moves_with_its_label() {
        let mut index = index();
        index.apply_pod(&pod("chat", "demo-a-0", "u-1"));
        assert_eq!(told(&mut index), ["chat 0 [u-1]", "demo 2 []"]);
    }

    #[test]
    fn pods_wait_for_their_inference_set() {
        let mut index = index();
        index.apply_pod(&pod("late", "late-a-0", "u-9"));
        assert_eq!(told(&mut index), ["late gone"]);
        index.apply_set(&set("late", 1));
        assert_eq!(told(&mut index), ["late 1 [u-9]"]);
    }

    #[test]
    fn a_list_is_told_as_the_difference_it_makes() {
        let mut index = index();
        index.apply_pod(&pod("demo", "demo-b-0", "u-2"));
        told(&mut index);
        index.list_pods(&[pod("demo", "demo-b-0", "u-2"), pod("demo", "demo-c-0", "u-3")]);
        assert_eq!(told(&mut index), ["demo 2 [u-2 u-3]"]);
        index.list_sets(&[set("demo", 2), set("new", 1)]);
        assert_eq!(told(&mut index), ["chat gone", "new 1 []"]);
        index.list_pods(&[]);
        assert_eq!(told(&mut index), ["demo 2 []"]);
    }

    fn port(service: &str, port: u16) -> ServicePort {
        ServicePort { service: name(service), port }
    }

    fn scope(services: &[&str]) -> Scope {
        Scope::Named(services.iter().map(|service| Arc::from(*service)).collect())
    }

    #[test]
    fn a_picker_is_there_while_its_service_has_slices() {
        let mut index = index();
        let service = "chat-inferencepool-epp";
        let at = port(service, 9090);
        assert!(index.service_names().contains(service));
        assert_eq!(index.take_directory().unwrap().places.get(&at), None, "not looked up yet");
        index.list_slices(
            scope(&[service]),
            &[slice(service, "v6", Some("fd00::1")), slice(service, "v4", Some("10.0.0.7"))],
        );
        assert_eq!(told(&mut index), ["chat 0 [] @team-a/chat-inferencepool-epp:9090"]);
        let place = |index: &mut Index| index.take_directory().unwrap().places.remove(&at);
        assert_eq!(place(&mut index), Some(Ok("10.0.0.7:9190".parse().unwrap())));
        index.apply_slice(&slice(service, "v4", None));
        assert_eq!(place(&mut index), Some(Ok("[fd00::1]:9190".parse().unwrap())));
        index.apply_slice(&slice(service, "v6", None));
        assert_eq!(place(&mut index), Some(Err(Missing::Endpoint)));
        assert_eq!(told(&mut index), [""; 0], "it restarts");
        assert_eq!(index.take_directory(), None, "nothing new");
        index.delete_slice(&name("v6"));
        index.delete_slice(&name("v4"));
        assert_eq!(told(&mut index), ["chat 0 []"]);
        assert_eq!(place(&mut index), Some(Err(Missing::Service)));
        index.apply_slice(&slice("unrelated", "other", Some("10.0.0.8")));
        index.list_slices(Scope::All, &[]);
        assert_eq!(told(&mut index), [""; 0]);
    }

    #[test]
    fn a_port_is_found_by_the_name_that_its_service_gives_it() {
        let mut index = index();
        let (web, other) = (port("epp", 80), port("epp", 81));
        index.want(BTreeSet::from([web.clone(), other.clone()]));
        assert!(index.service_names().contains("epp"));
        assert!(!index.needs_services(), "there is nothing to look up");
        index.list_slices(Scope::All, &[slice("epp", "x", Some("10.0.0.7"))]);
        assert!(index.needs_services());
        assert_eq!(index.take_directory().unwrap().places.get(&web), None);
        let service = |port_name: &str| {
            let ports = json!([{"name": port_name, "port": 80, "targetPort": 9190}]);
            serde_json::from_value::<ServiceObject>(
                json!({"metadata": {"namespace": "team-a", "name": "epp"}, "spec": {"ports": ports}}),
            )
            .unwrap()
        };
        index.list_services(&[service("http-metrics")]);
        let places = index.take_directory().unwrap().places;
        assert_eq!(places[&web], Ok("10.0.0.7:9190".parse().unwrap()));
        assert_eq!(places[&other], Err(Missing::Port));
        index.apply_service(&service("of-no-slice"));
        assert_eq!(index.take_directory().unwrap().places[&web], Err(Missing::Endpoint));
        index.delete_service(&name("epp"));
        assert_eq!(index.take_directory().unwrap().places[&web], Err(Missing::Service));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Apply(u8, u8),
        Delete(u8),
        List(Vec<(u8, u8)>),
    }

    proptest! {
        /// However the pods came about, what was told adds up to what there is.
        #[test]
        fn the_events_add_up_to_the_state(steps in vec(prop_oneof![
            (0..4_u8, 0..3_u8).prop_map(|(pod, set)| Step::Apply(pod, set)),
            (0..4_u8).prop_map(Step::Delete),
            vec((0..4_u8, 0..3_u8), 0..4).prop_map(Step::List),
        ], 0..20)) {
            let sets = ["demo", "chat", "code"];
            let object = |pod_number: u8, set: u8| {
                pod(sets[usize::from(set)], &format!("pod-{pod_number}-0"), &format!("u-{pod_number}"))
            };
            let mut index = Index::default();
            index.list_pods(&[]);
            index.list_sets(&sets.map(|name| set(name, 1)));
            let mut told = HashMap::new();
            let mut truth = BTreeMap::new();
            for step in std::iter::once(Step::Delete(0)).chain(steps) {
                match step {
                    Step::Apply(pod, set) => {
                        index.apply_pod(&object(pod, set));
                        truth.insert(pod, set);
                    }
                    Step::Delete(pod) => {
                        index.delete_pod(&name(&format!("pod-{pod}-0")));
                        truth.remove(&pod);
                    }
                    Step::List(pods) => {
                        truth = pods.into_iter().collect();
                        let objects: Vec<_> = truth.iter().map(|(pod, set)| object(*pod, *set)).collect();
                        index.list_pods(&objects);
                    }
                }
                for event in index.take_events() {
                    match event {
                        FleetEvent::Reset(sets) => told.extend(sets.into_iter().map(|set| (set.key, set.endpoints))),
                        FleetEvent::Applied(set) => drop(told.insert(set.key, set.endpoints)),
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                for (number, name) in (0..).zip(sets) {
                    let of_set = truth.iter().filter(|(_, set)| **set == number);
                    let expected: Vec<_> = of_set.map(|(pod, _)| format!("u-{pod}")).collect();
                    let uids: Vec<_> = told[&key(name)].iter().map(|endpoint| endpoint.uid.to_string()).collect();
                    prop_assert_eq!(uids, expected);
                }
            }
        }
    }
}
