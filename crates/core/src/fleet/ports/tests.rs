use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{
    fleet::testing::{World, name, slice, told, world},
    wake::Found,
};

fn port(service: &str, port: u16) -> ServicePort {
    ServicePort { service: name(service), port }
}

/// Where a port answers.
fn at_all(addresses: &[&str]) -> Found {
    Ok(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

fn scope(services: &[&str]) -> Scope {
    Scope::Named(services.iter().map(|service| Arc::from(*service)).collect())
}

#[test]
fn a_picker_is_there_while_its_service_has_slices() {
    let mut world = world();
    let service = "chat-inferencepool-epp";
    let at = port(service, 9090);
    assert!(world.service_names().contains(service));
    assert_eq!(world.places().get(&at), None, "not looked up yet");
    world.list_slices(
        scope(&[service]),
        &[slice(service, "v6", Some("fd00::1")), slice(service, "v4", Some("10.0.0.7"))],
    );
    assert_eq!(told(&mut world), ["chat 0 [] @team-a/chat-inferencepool-epp:9090"]);
    let place = |world: &mut World| world.places().get(&at).cloned();
    assert_eq!(place(&mut world), Some(at_all(&["10.0.0.7:9190"])), "one pod in two families");
    world.apply_slice(&slice(service, "more", Some("10.0.0.6")));
    assert_eq!(place(&mut world), Some(at_all(&["10.0.0.6:9190", "10.0.0.7:9190"])));
    world.delete_slice(&name("more"));
    world.apply_slice(&slice(service, "v4", None));
    assert_eq!(place(&mut world), Some(at_all(&["[fd00::1]:9190"])));
    world.apply_slice(&slice(service, "v6", None));
    assert_eq!(place(&mut world), Some(Err(Missing::Endpoint)));
    assert_eq!(told(&mut world), [""; 0], "it restarts");
    assert_eq!(world.take_ports(), [], "nothing new");
    world.delete_slice(&name("v6"));
    world.delete_slice(&name("v4"));
    assert_eq!(told(&mut world), ["chat 0 []"]);
    assert_eq!(place(&mut world), Some(Err(Missing::Service)));
    world.apply_slice(&slice("unrelated", "other", Some("10.0.0.8")));
    world.list_slices(Scope::All, &[]);
    assert_eq!(told(&mut world), [""; 0]);
}

#[test]
fn a_port_is_found_by_the_name_that_its_service_gives_it() {
    let mut world = world();
    let (web, other) = (port("epp", 80), port("epp", 81));
    world.ports.follow(&web);
    world.ports.follow(&other);
    assert!(world.service_names().contains("epp"));
    assert_eq!(world.places().get(&web), None);
    assert!(!world.ports.needs_services(), "there is nothing to look up");
    world.list_slices(Scope::All, &[slice("epp", "x", Some("10.0.0.7"))]);
    assert_eq!(world.places().get(&web), None);
    assert!(world.ports.needs_services());
    let service = |port_name: &str| {
        let ports = json!([{"name": port_name, "port": 80, "targetPort": 9190}]);
        json!({"metadata": {"namespace": "team-a", "name": "epp"}, "spec": {"ports": ports}})
    };
    world.list_services(&[service("http-metrics")]);
    assert_eq!(world.places()[&web], at_all(&["10.0.0.7:9190"]));
    assert_eq!(world.places()[&other], Err(Missing::Port));
    world.apply_service(&service("of-no-slice"));
    assert_eq!(world.places()[&web], Err(Missing::Endpoint));
    world.delete_service(&name("epp"));
    assert_eq!(world.places()[&web], Err(Missing::Service));
}

#[test]
fn a_port_is_followed_until_the_last_who_wants_it_leaves() {
    let mut world = World::default();
    let at = port("epp", 80);
    world.ports.follow(&at);
    world.ports.follow(&at);
    world.list_slices(Scope::All, &[]);
    assert_eq!(world.take_ports(), [(at.clone(), Some(Err(Missing::Service)))]);
    world.ports.unfollow(&at);
    assert!(world.service_names().contains("epp"));
    assert_eq!(world.take_ports(), []);
    world.ports.unfollow(&at);
    assert!(world.service_names().is_empty());
    assert_eq!(world.take_ports(), [(at.clone(), None)]);
    world.ports.unfollow(&at);
    // Who follows it anew is told again.
    world.ports.follow(&at);
    assert_eq!(world.take_ports(), [(at, Some(Err(Missing::Service)))]);
}

/// Endpoints come and go all the time: of each change only the ports of its own Service are
/// looked up, however many are followed.
#[test]
fn a_change_of_one_service_costs_nothing_for_the_others() {
    const MANY: usize = 5_000;
    let mut world = World::default();
    for number in 0..MANY {
        world.ports.follow(&port(&format!("epp-{number}"), 9090));
    }
    world.list_slices(Scope::All, &[slice("epp-7", "x", Some("10.0.0.7"))]);
    assert_eq!(world.take_ports().len(), MANY);
    for last in 1..100 {
        let ip = format!("10.0.1.{last}");
        world.apply_slice(&slice("epp-7", "x", Some(&ip)));
        assert_eq!(world.ports.stale.len(), 1);
        let found = at_all(&[&format!("{ip}:9190")]);
        assert_eq!(world.take_ports(), [(port("epp-7", 9090), Some(found))]);
    }
}

#[test]
fn many_names_are_all_there_are() {
    let mut world = World::default();
    for number in 0..3 {
        world.ports.follow(&port(&format!("epp-{number}"), 80));
        world.ports.follow(&port(&format!("epp-{number}"), 81));
    }
    assert_eq!(world.ports.scope(3), scope(&["epp-0", "epp-1", "epp-2"]));
    assert_eq!(world.ports.scope(2), Scope::All);
    for (wide, narrow, covers) in [
        (Scope::All, scope(&["a"]), true),
        (Scope::All, Scope::All, true),
        (scope(&["a", "b"]), scope(&["a"]), true),
        (scope(&["a"]), scope(&["a", "b"]), false),
        (scope(&["a"]), Scope::All, false),
    ] {
        assert_eq!(wide.covers(&narrow), covers, "{wide:?} {narrow:?}");
    }
}
