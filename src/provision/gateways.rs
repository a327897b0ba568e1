//! Which InferenceSets may go to zero because a gateway holds their requests, as discovery
//! tells.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use tokio::sync::watch::{self, Receiver};
use tokio_util::time::{DelayQueue, delay_queue};

use crate::core::{
    fleet::{FleetEvent, InferenceSet},
    names::InferenceSetKey,
};

/// Listens to what discovery tells the aggregator.
#[derive(Debug)]
pub struct Gateways {
    found: watch::Sender<Arc<BTreeSet<InferenceSetKey>>>,
}

impl Gateways {
    /// None is known yet.
    #[must_use]
    pub fn new() -> (Self, Receiver<Arc<BTreeSet<InferenceSetKey>>>) {
        let (found, receiver) = watch::channel(Arc::default());
        (Self { found }, receiver)
    }

    pub fn heard(&self, event: &FleetEvent) {
        match event {
            FleetEvent::Applied(set) => self.change(&set.key, set.gateway.is_some()),
            FleetEvent::Deleted(key) => self.change(key, false),
            FleetEvent::Reset(sets) => {
                let with_gateway = |set: &&InferenceSet| set.gateway.is_some();
                let now: BTreeSet<_> = sets.iter().filter(with_gateway).map(|set| set.key.clone()).collect();
                self.found.send_if_modified(|found| {
                    let news = **found != now;
                    if news {
                        *found = Arc::new(now);
                    }
                    news
                });
            }
            FleetEvent::Alive => {}
        }
    }

    fn change(&self, key: &InferenceSetKey, there: bool) {
        self.found.send_if_modified(|found| {
            let news = found.contains(key) != there;
            if news && there {
                Arc::make_mut(found).insert(key.clone());
            } else if news {
                Arc::make_mut(found).remove(key);
            }
            news
        });
    }
}

/// For how long a gateway that can't be seen is believed in. An endpoint picker that is
/// replaced is away for a while, and so is everything right after a start; to ask for a replica
/// then would wake every sleeping model.
pub(super) const GRACE: Duration = Duration::from_secs(600);

/// InferenceSets that go to zero and whose gateway can't be seen.
#[derive(Debug, Default)]
pub(super) struct Missed {
    believed: HashMap<InferenceSetKey, delay_queue::Key>,
    given_up: HashSet<InferenceSetKey>,
    ends: DelayQueue<InferenceSetKey>,
}

impl Missed {
    /// Whether a gateway is to be counted on: it is seen, or the InferenceSet goes to zero
    /// already and it has not been missed for long.
    pub fn counts_on_gateway(&mut self, set: &InferenceSetKey, seen: bool, goes_to_zero: bool) -> bool {
        if seen || !goes_to_zero {
            self.forget(set);
            return seen;
        }
        if self.given_up.contains(set) {
            return false;
        }
        let ends = &mut self.ends;
        self.believed.entry(set.clone()).or_insert_with(|| ends.insert(set.clone(), GRACE));
        true
    }

    pub fn forget(&mut self, set: &InferenceSetKey) {
        self.given_up.remove(set);
        if let Some(end) = self.believed.remove(set) {
            self.ends.try_remove(&end);
        }
    }

    /// Waits until one is given up. For ever where none is missed. Loses nothing where it is
    /// dropped.
    pub async fn next_given_up(&mut self) -> InferenceSetKey {
        match self.ends.next().await {
            Some(ended) => {
                let set = ended.into_inner();
                self.believed.remove(&set);
                self.given_up.insert(set.clone());
                set
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::core::fleet::Gateway;

    #[test]
    fn keeps_the_sets_that_have_one_and_tells_changes_only() {
        let set = |name: &str, has_gateway: bool| InferenceSet {
            key: InferenceSetKey::new("team-a", name),
            replicas: 1,
            ready_replicas: 1,
            endpoints: Vec::new(),
            gateway: has_gateway
                .then(|| Gateway { address: SocketAddr::from(([127, 0, 0, 1], 9090)), pool: "pool".into() }),
        };
        let (gateways, mut found) = Gateways::new();
        for (event, names, news) in [
            (FleetEvent::Reset(vec![set("a", true), set("b", false)]), "a", true),
            (FleetEvent::Applied(set("a", true)), "a", false),
            (FleetEvent::Applied(set("b", true)), "a b", true),
            (FleetEvent::Applied(set("a", false)), "b", true),
            (FleetEvent::Alive, "b", false),
            (FleetEvent::Reset(vec![set("b", true)]), "b", false),
            (FleetEvent::Deleted(InferenceSetKey::new("team-a", "b")), "", true),
            (FleetEvent::Deleted(InferenceSetKey::new("team-a", "b")), "", false),
        ] {
            gateways.heard(&event);
            assert_eq!(found.has_changed().unwrap(), news, "{event:?}");
            let now: Vec<_> = found.borrow_and_update().iter().map(|key| key.name.to_string()).collect();
            assert_eq!(now.join(" "), names, "{event:?}");
        }
    }
}
