//! Folds lists and changes of pods, InferenceSets and EndpointSlices into fleet events.
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
    gateway::{EndpointSliceObject, picker_service},
    inference_set::InferenceSetObject,
    pod::{Member, PodObject},
};
use crate::core::{
    fleet::{Endpoint, FleetEvent, Gateway, InferenceSet},
    names::InferenceSetKey,
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
    /// By slice: the Service it belongs to, and a ready endpoint's address.
    slices: HashMap<ObjectName, (ObjectName, Option<SocketAddr>)>,
    changed: BTreeSet<InferenceSetKey>,
    pods_listed: bool,
    sets_listed: bool,
    told: bool,
}

/// What an InferenceSet itself says.
#[derive(Debug, PartialEq)]
struct Facts {
    replicas: u32,
    ready_replicas: u32,
    pool: Arc<str>,
    picker: ObjectName,
}

impl Facts {
    fn of(set: &InferenceSetObject) -> Self {
        let pool = set.pool();
        let picker = ObjectName { namespace: set.key().namespace, name: picker_service(&pool).into() };
        Self { replicas: set.replicas(), ready_replicas: set.ready_replicas(), pool: pool.into(), picker }
    }
}

impl Index {
    /// All pods there are: those that are missing are gone.
    pub fn list_pods(&mut self, pods: &[PodObject]) {
        self.pods_listed = true;
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
        self.sets_listed = true;
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
            self.sets.insert(key.clone(), facts);
            self.changed.insert(key);
        }
    }

    pub fn delete_set(&mut self, set: &ObjectName) {
        self.forget_set(InferenceSetKey { namespace: set.namespace.clone(), name: set.name.clone() });
    }

    fn forget_set(&mut self, set: InferenceSetKey) {
        if self.sets.remove(&set).is_some() {
            self.changed.insert(set);
        }
    }

    /// All EndpointSlices of endpoint pickers there are.
    pub fn list_slices(&mut self, slices: &[EndpointSliceObject]) {
        let listed: BTreeSet<_> = slices.iter().map(Named::object_name).collect();
        let gone: Vec<_> = self.slices.keys().filter(|slice| !listed.contains(*slice)).cloned().collect();
        for slice in &gone {
            self.delete_slice(slice);
        }
        for slice in slices {
            self.apply_slice(slice);
        }
    }

    pub fn apply_slice(&mut self, slice: &EndpointSliceObject) {
        let name = slice.object_name();
        let new = slice.service().map(|service| (service, slice.metrics_address()));
        if self.slices.get(&name) == new.as_ref() {
            return;
        }
        self.delete_slice(&name);
        if let Some((service, address)) = new {
            if address.is_some() {
                self.mark_sets_behind(&service);
            }
            self.slices.insert(name, (service, address));
        }
    }

    pub fn delete_slice(&mut self, slice: &ObjectName) {
        if let Some((service, Some(_))) = self.slices.remove(slice) {
            self.mark_sets_behind(&service);
        }
    }

    fn mark_sets_behind(&mut self, picker: &ObjectName) {
        let behind = self.sets.iter().filter(|(_, facts)| facts.picker == *picker);
        self.changed.extend(behind.map(|(set, _)| set.clone()));
    }

    /// Whether all there is has been listed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pods_listed && self.sets_listed
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
        // A dual-stack Service has a slice for each family, and a large one has several.
        let pickers = self.slices.values().filter(|(service, _)| *service == facts.picker);
        let picker = pickers.filter_map(|(_, address)| *address).min();
        InferenceSet {
            key: key.clone(),
            replicas: facts.replicas,
            ready_replicas: facts.ready_replicas,
            endpoints: endpoints.cloned().collect(),
            gateway: picker.map(|address| Gateway { address, pool: facts.pool.clone() }),
        }
    }

    /// The names of the Services whose EndpointSlices matter.
    #[must_use]
    pub fn pickers(&self) -> BTreeSet<Arc<str>> {
        self.sets.values().map(|facts| facts.picker.name.clone()).collect()
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
        serde_json::from_value(json!({"metadata": metadata, "endpoints": [{"addresses": addresses}]}))
            .unwrap()
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
            let gateway = set.gateway.as_ref().map(|gateway| format!(" @{}", gateway.address));
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

    #[test]
    fn the_gateway_is_a_ready_picker_of_the_pool() {
        let mut index = index();
        let service = "chat-inferencepool-epp";
        assert!(index.pickers().contains(service));
        index.list_slices(&[slice(service, "v6", Some("fd00::1")), slice(service, "v4", Some("10.0.0.7"))]);
        assert_eq!(told(&mut index), ["chat 0 [] @10.0.0.7:9090"]);
        index.apply_slice(&slice(service, "v4", None));
        assert_eq!(told(&mut index), ["chat 0 [] @[fd00::1]:9090"]);
        index.delete_slice(&name("v6"));
        assert_eq!(told(&mut index), ["chat 0 []"]);
        index.apply_slice(&slice("unrelated", "other", Some("10.0.0.8")));
        index.list_slices(&[]);
        assert_eq!(told(&mut index), [""; 0]);
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
