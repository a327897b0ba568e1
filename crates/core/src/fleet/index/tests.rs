use std::collections::{BTreeMap, HashMap};

use proptest::{collection::vec, prelude::*};

use crate::fleet::{
    model::FleetEvent,
    testing::{World, key, name, pod, set, told, world},
};

#[test]
fn nothing_is_told_before_both_lists() {
    for pods_first in [true, false] {
        let mut world = World::default();
        for pods in [pods_first, !pods_first] {
            assert_eq!(told(&mut world), [""; 0]);
            if pods {
                world.list_pods(&[pod("demo", "demo-a-0", "u-1")]);
            } else {
                world.list_sets(&[set("demo", 2)]);
            }
        }
        assert_eq!(told(&mut world), ["all: demo 2 [u-1]"]);
        assert_eq!(told(&mut world), [""; 0]);
    }
}

#[test]
fn an_empty_cluster_is_told_too() {
    let mut world = World::default();
    world.list_pods(&[]);
    world.list_sets(&[]);
    assert_eq!(told(&mut world), ["all: "]);
}

#[test]
fn changes_are_told_once_and_what_is_no_change_is_not() {
    let mut world = world();
    world.apply_pod(&pod("demo", "demo-b-0", "u-2"));
    world.apply_set(&set("demo", 3));
    assert_eq!(told(&mut world), ["demo 3 [u-1 u-2]"]);
    world.apply_pod(&pod("demo", "demo-b-0", "u-2"));
    world.apply_set(&set("demo", 3));
    assert_eq!(told(&mut world), [""; 0]);
    world.delete_pod(&name("demo-a-0"));
    world.delete_pod(&name("never-seen-0"));
    assert_eq!(told(&mut world), ["demo 3 [u-2]"]);
    world.delete_set(&name("demo"));
    world.delete_set(&name("never-seen"));
    assert_eq!(told(&mut world), ["demo gone"]);
}

#[test]
fn a_pod_made_again_under_its_name_is_another_endpoint() {
    let mut world = world();
    // With the deletion in between, and with it missed.
    world.delete_pod(&name("demo-a-0"));
    world.apply_pod(&pod("demo", "demo-a-0", "u-2"));
    assert_eq!(told(&mut world), ["demo 2 [u-2]"]);
    world.apply_pod(&pod("demo", "demo-a-0", "u-3"));
    assert_eq!(told(&mut world), ["demo 2 [u-3]"]);
    world.delete_pod(&name("demo-a-0"));
    assert_eq!(told(&mut world), ["demo 2 []"]);
}

#[test]
fn a_pod_moves_with_its_label() {
    let mut world = world();
    world.apply_pod(&pod("chat", "demo-a-0", "u-1"));
    assert_eq!(told(&mut world), ["chat 0 [u-1]", "demo 2 []"]);
}

#[test]
fn pods_wait_for_their_inference_set() {
    let mut world = world();
    world.apply_pod(&pod("late", "late-a-0", "u-9"));
    assert_eq!(told(&mut world), ["late gone"]);
    world.apply_set(&set("late", 1));
    assert_eq!(told(&mut world), ["late 1 [u-9]"]);
}

#[test]
fn a_list_is_told_as_the_difference_it_makes() {
    let mut world = world();
    world.apply_pod(&pod("demo", "demo-b-0", "u-2"));
    told(&mut world);
    world.list_pods(&[pod("demo", "demo-b-0", "u-2"), pod("demo", "demo-c-0", "u-3")]);
    assert_eq!(told(&mut world), ["demo 2 [u-2 u-3]"]);
    world.list_sets(&[set("demo", 2), set("new", 1)]);
    assert_eq!(told(&mut world), ["chat gone", "new 1 []"]);
    world.list_pods(&[]);
    assert_eq!(told(&mut world), ["demo 2 []"]);
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
        let mut world = World::default();
        world.list_pods(&[]);
        world.list_sets(&sets.map(|name| set(name, 1)));
        let mut told = HashMap::new();
        let mut truth = BTreeMap::new();
        for step in std::iter::once(Step::Delete(0)).chain(steps) {
            match step {
                Step::Apply(pod, set) => {
                    world.apply_pod(&object(pod, set));
                    truth.insert(pod, set);
                }
                Step::Delete(pod) => {
                    world.delete_pod(&name(&format!("pod-{pod}-0")));
                    truth.remove(&pod);
                }
                Step::List(pods) => {
                    truth = pods.into_iter().collect();
                    let objects: Vec<_> = truth.iter().map(|(pod, set)| object(*pod, *set)).collect();
                    world.list_pods(&objects);
                }
            }
            for event in world.take_events() {
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
