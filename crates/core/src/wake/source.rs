//! Which page is read for an InferenceSet, and where that page is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    config::trigger::{Protocol, WakeSource},
    fleet::{
        ObjectName,
        model::{Gateway, InferenceSet},
        services::{METRICS_PORT, picker_service, pool_name},
    },
    names::InferenceSetKey,
};

/// A Service, and one of its ports by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    pub service: ObjectName,
    pub port: u16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// Where a source is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// At the endpoints of a Service.
    Service(ServicePort),
    /// As the endpoints file says.
    Address(SocketAddr),
}

/// A page that shows demand at zero replicas: what is scraped once for all who read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    pub protocol: Protocol,
    pub place: Place,
}

impl Source {
    /// The endpoint picker of `pool`, as KAITO and its chart name and serve it.
    #[must_use]
    pub fn picker(namespace: &Arc<str>, pool: &str) -> Self {
        let service = ObjectName { namespace: namespace.clone(), name: picker_service(pool).into() };
        Self { protocol: Protocol::Http, place: Place::Service(ServicePort { service, port: METRICS_PORT }) }
    }

    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self { protocol: Protocol::Http, place: Place::Address(address) }
    }

    /// A Service in `namespace` that its user names.
    #[must_use]
    pub fn named(namespace: &Arc<str>, named: &WakeSource) -> Self {
        let service = ObjectName { namespace: namespace.clone(), name: named.service.as_str().into() };
        Self { protocol: named.protocol, place: Place::Service(ServicePort { service, port: named.port }) }
    }

    #[must_use]
    pub fn service(&self) -> Option<&ServicePort> {
        match &self.place {
            Place::Service(service) => Some(service),
            Place::Address(_) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol == Protocol::Https {
            f.write_str("https://")?;
        }
        match &self.place {
            Place::Service(service) => write!(f, "{service}"),
            Place::Address(address) => write!(f, "{address}"),
        }
    }
}

/// What is read for one InferenceSet: one pool's series on one page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reading {
    pub source: Source,
    /// The InferencePool, as the page names it.
    pub pool: Arc<str>,
}

impl Reading {
    /// What is read for `set`, whose user may have `named` a Service; `None` where there is
    /// nothing to read.
    #[must_use]
    pub fn of(set: &InferenceSet, named: Option<&WakeSource>) -> Option<Self> {
        let gateway = set.gateway.as_ref();
        let picker = gateway.and_then(|gateway| gateway.picker.clone());
        // Whoever writes the endpoints file says where things are; there are no Services.
        let in_file = picker.as_ref().is_some_and(|picker| picker.service().is_none());
        let source = match named {
            Some(named) if !in_file => Source::named(&set.key.namespace, named),
            _ => picker?,
        };
        let pool = gateway.map_or_else(|| pool_name(&set.key.name).into(), |gateway| gateway.pool.clone());
        Some(Self { source, pool })
    }

    /// What is to be tried for an InferenceSet, whether its picker exists or not; `None` while
    /// the InferenceSet itself is not known.
    #[must_use]
    pub fn to_try(
        set: &InferenceSetKey,
        named: Option<&WakeSource>,
        pools: &BTreeMap<InferenceSetKey, Arc<str>>,
    ) -> Option<Self> {
        let pool = pools.get(set)?.clone();
        let source = named.map_or_else(
            || Source::picker(&set.namespace, &pool),
            |named| Source::named(&set.namespace, named),
        );
        Some(Self { source, pool })
    }
}

/// Where a Service's port answers, or why it leads nowhere: its ready endpoints, each once and in
/// order, at least one.
pub type Found = Result<Arc<[SocketAddr]>, Missing>;

/// Why a Service's port leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no such Service, or one without a selector and without endpoints.
    Service,
    Port,
    /// No endpoint is ready.
    Endpoint,
}

/// Who may be shown the token of the account that reads metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The operator has listed the Service.
    Listed,
    /// KAITO would name the picker of these pools so. Only a pool that itself names the
    /// Service makes it theirs.
    PickerOf(Vec<Arc<str>>),
    /// A tenant has named it: nothing.
    Tenant,
}

impl Trust {
    /// `pools`: those that are read there. `listed`: the operator's list.
    #[must_use]
    pub fn of(source: &Source, pools: &BTreeSet<Arc<str>>, listed: &BTreeSet<ObjectName>) -> Self {
        let Place::Service(ServicePort { service, port }) = &source.place else { return Self::Tenant };
        if listed.contains(service) {
            return Self::Listed;
        }
        let is_picker_of = |pool: &&Arc<str>| *port == METRICS_PORT && *picker_service(pool) == *service.name;
        let owners: Vec<_> = pools.iter().filter(is_picker_of).cloned().collect();
        if owners.is_empty() { Self::Tenant } else { Self::PickerOf(owners) }
    }
}

impl Gateway {
    /// A gateway whose picker answers at `address`.
    #[must_use]
    pub fn at(address: SocketAddr, pool: &str) -> Self {
        Self { pool: pool.into(), picker: Some(Source::at(address)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(gateway: Option<Gateway>) -> InferenceSet {
        InferenceSet {
            key: InferenceSetKey::new("team-a", "demo"),
            replicas: 0,
            ready_replicas: 0,
            endpoints: Vec::new(),
            gateway,
        }
    }

    #[test]
    fn what_is_named_is_read_instead_of_the_picker() {
        let pool = "chat-inferencepool";
        let picker = Source::picker(&"team-a".into(), pool);
        assert_eq!(picker.to_string(), "team-a/chat-inferencepool-epp:9090");
        let named = WakeSource::parse("https://epp:8443").unwrap();
        let unseen = Gateway { pool: pool.into(), picker: None };
        let seen = Gateway { pool: pool.into(), picker: Some(picker) };
        let in_file = Gateway::at("127.0.0.1:9090".parse().unwrap(), pool);
        let cases = [
            (None, None, None),
            (None, Some(&named), Some("https://team-a/epp:8443 demo-inferencepool")),
            (Some(unseen.clone()), None, None),
            (Some(unseen), Some(&named), Some("https://team-a/epp:8443 chat-inferencepool")),
            (Some(seen.clone()), None, Some("team-a/chat-inferencepool-epp:9090 chat-inferencepool")),
            (Some(seen), Some(&named), Some("https://team-a/epp:8443 chat-inferencepool")),
            (Some(in_file), Some(&named), Some("127.0.0.1:9090 chat-inferencepool")),
        ];
        for (gateway, named, expected) in cases {
            let reading = Reading::of(&set(gateway.clone()), named);
            let told = reading.map(|reading| format!("{} {}", reading.source, reading.pool));
            assert_eq!(told.as_deref(), expected, "{gateway:?} {named:?}");
        }
    }

    #[test]
    fn a_picker_is_tried_before_anybody_has_seen_it() {
        let key = InferenceSetKey::new("team-a", "chat-decode");
        let mut pools = BTreeMap::new();
        assert_eq!(Reading::to_try(&key, None, &pools), None);
        pools.insert(key.clone(), "chat-inferencepool".into());
        let reading = Reading::to_try(&key, None, &pools).unwrap();
        assert_eq!(reading.source.to_string(), "team-a/chat-inferencepool-epp:9090");
        let named = WakeSource::parse("epp:9090").unwrap();
        let reading = Reading::to_try(&key, Some(&named), &pools).unwrap();
        assert_eq!(
            (reading.source.to_string(), &*reading.pool),
            ("team-a/epp:9090".into(), "chat-inferencepool")
        );
    }

    #[test]
    fn a_token_is_for_listed_services_and_for_pickers() {
        let listed = BTreeSet::from([ObjectName::new("team-a", "shared-epp")]);
        let pools = BTreeSet::from([Arc::from("demo-inferencepool"), Arc::from("chat-inferencepool")]);
        let source = |namespace: &str, service: &str| {
            Source::named(&namespace.into(), &WakeSource::parse(service).unwrap())
        };
        let cases = [
            (source("team-a", "shared-epp:9090"), Trust::Listed),
            (source("team-b", "shared-epp:9090"), Trust::Tenant),
            (
                source("team-a", "demo-inferencepool-epp:9090"),
                Trust::PickerOf(vec!["demo-inferencepool".into()]),
            ),
            (source("team-a", "demo-inferencepool-epp:9002"), Trust::Tenant),
            (source("team-a", "evil:9090"), Trust::Tenant),
            // A picker, but of none of the pools that are read there.
            (source("team-a", "other-inferencepool-epp:9090"), Trust::Tenant),
            (Source::at("127.0.0.1:9090".parse().unwrap()), Trust::Tenant),
        ];
        for (source, expected) in cases {
            assert_eq!(Trust::of(&source, &pools, &listed), expected, "{source}");
        }
    }
}
