//! Where the ports of Services answer, and which pool is whose: told by discovery, each port
//! followed by those who read it and by nobody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use scaler_core::{
    names::InferenceSetKey,
    wake::{Found, ServicePort},
};

/// The InferencePool of each InferenceSet that is known.
pub type Pools = BTreeMap<InferenceSetKey, Arc<str>>;

/// Where ports answer, as far as the cluster has been heard. Cheap to clone; all clones are the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Directory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    ports: Mutex<Ports>,
    /// Followers of some port have come, or its last one has gone.
    requested: Notify,
    pools: watch::Sender<Pools>,
}

#[derive(Debug, Default)]
struct Ports {
    entries: BTreeMap<ServicePort, Entry>,
    /// Whether each port has followers now, of those for which that has changed.
    requests: BTreeMap<ServicePort, bool>,
}

#[derive(Debug, Default)]
struct Entry {
    /// `None` while it can't be known.
    found: Option<Found>,
    followers: usize,
    /// There from the first follower on.
    changes: Option<watch::Sender<Option<Found>>>,
}

impl Directory {
    /// Follows where `port` answers. As long as somebody does, it is looked up.
    #[must_use]
    pub fn follow(&self, port: &ServicePort) -> FollowedPort {
        let mut ports = self.ports();
        let entry = ports.entries.entry(port.clone()).or_default();
        entry.followers += 1;
        let is_first = entry.followers == 1;
        let found = entry.changes.get_or_insert_with(|| watch::Sender::new(entry.found.clone())).subscribe();
        if is_first {
            ports.requests.insert(port.clone(), true);
            self.0.requested.notify_one();
        }
        FollowedPort { directory: self.clone(), port: port.clone(), found }
    }

    /// The pools, for whoever wants to know of each change.
    #[must_use]
    pub fn pools(&self) -> watch::Receiver<Pools> {
        self.0.pools.subscribe()
    }

    /// The ports that somebody follows.
    #[must_use]
    pub fn followed(&self) -> BTreeSet<ServicePort> {
        let ports = self.ports();
        let followed = ports.entries.iter().filter(|(_, entry)| entry.followers > 0);
        followed.map(|(port, _)| port.clone()).collect()
    }

    /// Waits until ports are followed that were not, or are no longer. Loses nothing where it
    /// is dropped.
    pub async fn requested(&self) {
        self.0.requested.notified().await;
    }

    /// Whether ports are followed now, of those for which that may have changed since the last
    /// call.
    #[must_use]
    pub fn take_requests(&self) -> BTreeMap<ServicePort, bool> {
        std::mem::take(&mut self.ports().requests)
    }

    /// Tells those who follow `port` where it answers now; `None` where that can't be known.
    pub fn tell(&self, port: ServicePort, found: Option<Found>) {
        let mut ports = self.ports();
        if found.is_none() && !ports.entries.contains_key(&port) {
            return;
        }
        let entry = ports.entries.entry(port.clone()).or_default();
        entry.found.clone_from(&found);
        if let Some(changes) = &entry.changes {
            changes.send_if_modified(|before| {
                let is_news = *before != found;
                *before = found;
                is_news
            });
        }
        ports.drop_unused(&port);
    }

    /// Tells which pool is `set`'s; `None` where that is gone.
    pub fn tell_pool(&self, set: InferenceSetKey, pool: Option<Arc<str>>) {
        self.0.pools.send_if_modified(|pools| match pool {
            Some(pool) => pools.insert(set, pool.clone()) != Some(pool),
            None => pools.remove(&set).is_some(),
        });
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        // Each change is one step: a panic leaves nothing half done.
        self.0.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ports {
    /// Nothing is kept of a port that nobody follows and of which nothing is known.
    fn drop_unused(&mut self, port: &ServicePort) {
        if self.entries.get(port).is_some_and(|entry| entry.followers == 0 && entry.found.is_none()) {
            self.entries.remove(port);
        }
    }
}

/// One port that is followed until this is dropped.
#[derive(Debug)]
pub struct FollowedPort {
    directory: Directory,
    port: ServicePort,
    found: watch::Receiver<Option<Found>>,
}

impl FollowedPort {
    /// Where it answers now; `None` while it can't be known.
    #[must_use]
    pub fn find(&mut self) -> Option<Found> {
        self.found.borrow_and_update().clone()
    }

    /// Waits until it answers elsewhere than [`Self::find`] last said. For ever where there is
    /// nobody who could tell.
    pub async fn moved(&mut self) {
        if self.found.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for FollowedPort {
    fn drop(&mut self) {
        let mut ports = self.directory.ports();
        let Some(entry) = ports.entries.get_mut(&self.port) else { return };
        entry.followers -= 1;
        if entry.followers == 0 {
            entry.changes = None;
            ports.requests.insert(self.port.clone(), false);
            ports.drop_unused(&self.port);
            self.directory.0.requested.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use scaler_core::{fleet::ObjectName, wake::Missing};

    fn port(service: &str) -> ServicePort {
        ServicePort { service: ObjectName::new("team-a", service), port: 9090 }
    }

    fn at(last: u8) -> Option<Found> {
        Some(Ok([([10, 0, 0, last], 9090).into()].into()))
    }

    /// Endpoints come and go all the time, and thousands of sources are read.
    #[test]
    fn only_those_who_follow_a_port_hear_of_it() {
        let directory = Directory::default();
        let mut followers: Vec<_> =
            (0..1_000).map(|number| directory.follow(&port(&format!("epp-{number}")))).collect();
        directory.tell(port("epp-7"), at(1));
        directory.tell(port("of-nobody"), at(2));
        let mut woken = |directory: &Directory, found| {
            directory.tell(port("epp-7"), found);
            let moved = |(number, follower): (usize, &mut FollowedPort)| {
                let is_moved = follower.moved().now_or_never().is_some();
                is_moved.then(|| (number, follower.find()))
            };
            followers.iter_mut().enumerate().filter_map(moved).collect::<Vec<_>>()
        };
        assert_eq!(woken(&directory, at(1)), [(7, at(1))]);
        assert_eq!(woken(&directory, at(1)), [], "the same is no news");
        assert_eq!(woken(&directory, Some(Err(Missing::Endpoint))), [(7, Some(Err(Missing::Endpoint)))]);
        assert_eq!(woken(&directory, None), [(7, None)]);
    }

    #[test]
    fn what_is_followed_is_asked_for_and_what_is_known_is_found_at_once() {
        let directory = Directory::default();
        let first = directory.follow(&port("epp"));
        assert!(directory.requested().now_or_never().is_some());
        assert_eq!(directory.take_requests(), BTreeMap::from([(port("epp"), true)]));
        directory.tell(port("epp"), at(1));
        let mut second = directory.follow(&port("epp"));
        assert_eq!(second.find(), at(1));
        drop(first);
        assert!(directory.requested().now_or_never().is_none(), "it is still followed");
        assert_eq!(directory.followed(), BTreeSet::from([port("epp")]));
        drop(second);
        assert!(directory.requested().now_or_never().is_some());
        assert_eq!(directory.take_requests(), BTreeMap::from([(port("epp"), false)]));
        assert_eq!(directory.followed(), BTreeSet::new());
        directory.tell(port("epp"), None);
        assert!(directory.ports().entries.is_empty(), "nothing is kept");
    }

    #[test]
    fn a_pool_is_told_once() {
        let directory = Directory::default();
        let mut pools = directory.pools();
        let set = InferenceSetKey::new("team-a", "demo");
        for (pool, is_news) in
            [(Some("a"), true), (Some("a"), false), (Some("b"), true), (None, true), (None, false)]
        {
            directory.tell_pool(set.clone(), pool.map(Arc::from));
            assert_eq!(pools.has_changed().unwrap(), is_news, "{pool:?}");
            assert_eq!(pools.borrow_and_update().get(&set).map(AsRef::as_ref), pool);
        }
    }
}
