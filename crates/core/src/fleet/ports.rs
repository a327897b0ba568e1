//! Where the ports of Services answer: of those that are followed, and looked up again only
//! where something of their Service has changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    ObjectName,
    collection::Collection,
    services::{METRICS_PORT, METRICS_PORT_NAME, Service, ServiceSlice, Slice},
};
use crate::wake::{Found, Missing, ServicePort};

/// The Services whose EndpointSlices a list is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    /// Those of these names, in every namespace.
    Named(BTreeSet<Arc<str>>),
}

impl Scope {
    /// Whether the EndpointSlices of `service` are among them.
    #[must_use]
    pub fn includes(&self, service: &ObjectName) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(&service.name),
        }
    }

    /// Whether all that `other` is about is among them.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Named(_), Self::All) => false,
            (Self::Named(names), Self::Named(others)) => others.is_subset(names),
        }
    }
}

/// The objects that say where ports answer.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    pub slices: &'a Collection<ServiceSlice>,
    /// What the newest list of EndpointSlices was about; `None` before the first.
    pub scope: Option<&'a Scope>,
    pub services: &'a Collection<Service>,
}

/// The ports that are followed, and what was told of each.
#[derive(Debug, Default)]
pub struct Ports {
    followed: BTreeMap<ServicePort, Port>,
    /// The names of their Services, and how many of the ports are of each.
    names: BTreeMap<Arc<str>, usize>,
    /// Those to be looked up anew.
    stale: BTreeSet<ServicePort>,
    needs_services: bool,
}

#[derive(Debug)]
struct Port {
    followers: usize,
    /// `None` while it can't be known.
    told: Option<Found>,
}

impl Ports {
    /// One more wants to know where `port` answers.
    pub fn follow(&mut self, port: &ServicePort) {
        if let Some(known) = self.followed.get_mut(port) {
            known.followers += 1;
            return;
        }
        self.followed.insert(port.clone(), Port { followers: 1, told: None });
        *self.names.entry(port.service.name.clone()).or_default() += 1;
        self.stale.insert(port.clone());
    }

    /// One of those who wanted to know no longer does.
    pub fn unfollow(&mut self, port: &ServicePort) {
        let Some(known) = self.followed.get_mut(port) else { return };
        known.followers -= 1;
        if known.followers > 0 {
            return;
        }
        self.followed.remove(port);
        self.stale.insert(port.clone());
        if let Some(count) = self.names.get_mut(&port.service.name) {
            *count -= 1;
            if *count == 0 {
                self.names.remove(&port.service.name);
            }
        }
    }

    /// Something has changed about the EndpointSlices of `service`, or about itself.
    pub fn touch(&mut self, service: &ObjectName) {
        let port = |port| ServicePort { service: service.clone(), port };
        let followed = self.followed.range(port(0)..=port(u16::MAX));
        self.stale.extend(followed.map(|(port, _)| port.clone()));
    }

    /// More has been listed than before: what was not there, or not known, may be now.
    pub fn touch_unfound(&mut self) {
        let unfound = self.followed.iter().filter(|(_, port)| !matches!(port.told, Some(Ok(_))));
        self.stale.extend(unfound.map(|(port, _)| port.clone()));
    }

    /// Where ports answer now, of those for which that has changed since the last call; `None`
    /// where it can't be known, or is no longer followed.
    pub fn take(&mut self, sources: Sources<'_>) -> Vec<(ServicePort, Option<Found>)> {
        let mut changed = Vec::new();
        for port in std::mem::take(&mut self.stale) {
            let Some(known) = self.followed.get_mut(&port) else {
                changed.push((port, None));
                continue;
            };
            self.needs_services |=
                sources.slices.has(&port.service) && conventional_name(&port, sources).is_none();
            let found = look_up(&port, sources);
            if known.told != found {
                known.told.clone_from(&found);
                changed.push((port, found));
            }
        }
        changed
    }

    /// The Services whose EndpointSlices matter: all where they have more than `most` names.
    #[must_use]
    pub fn scope(&self, most: usize) -> Scope {
        if self.names.len() > most { Scope::All } else { Scope::Named(self.names.keys().cloned().collect()) }
    }

    /// Whether some port could be found only by what its Service says, and not by the name that
    /// the picker's chart gives it.
    #[must_use]
    pub fn needs_services(&self) -> bool {
        self.needs_services
    }
}

/// `None` while it cannot be known.
fn look_up(port: &ServicePort, sources: Sources<'_>) -> Option<Found> {
    let Sources { slices, scope, services } = sources;
    if !slices.has(&port.service) {
        return scope?.includes(&port.service).then_some(Err(Missing::Service));
    }
    let name = match services.get(&port.service) {
        Some(service) => match service.ports.iter().find(|(number, _)| *number == port.port) {
            Some((_, name)) => name,
            None => return Some(Err(Missing::Port)),
        },
        None => match conventional_name(port, sources) {
            Some(name) => name,
            None if services.is_listed() => return Some(Err(Missing::Service)),
            None => return None,
        },
    };
    let addresses: BTreeSet<_> =
        slices.of(&port.service).flat_map(|part| part.slice.addresses(name)).collect();
    // A pod of a dual-stack Service is in a slice of each family, and is one endpoint.
    let has_v4 = addresses.iter().any(SocketAddr::is_ipv4);
    let one_family: Vec<_> = addresses.into_iter().filter(|address| address.is_ipv4() || !has_v4).collect();
    Some(if one_family.is_empty() { Err(Missing::Endpoint) } else { Ok(one_family.into()) })
}

/// The name of the port where it is the one that the picker's chart gives.
fn conventional_name(port: &ServicePort, sources: Sources<'_>) -> Option<&'static str> {
    // An EndpointSlice without endpoints need not have ports.
    let fits = |slice: &Slice| slice.ips.is_empty() || slice.port(METRICS_PORT_NAME).is_some();
    let mut slices = sources.slices.of(&port.service);
    (port.port == METRICS_PORT && slices.all(|part| fits(&part.slice))).then_some(METRICS_PORT_NAME)
}

#[cfg(test)]
mod tests;
