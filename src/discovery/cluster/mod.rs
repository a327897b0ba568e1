//! Discovery from the cluster: what its pods, InferenceSets and the Services of wake-up sources
//! mean for the fleet.
//!
//! ```text
//! pods, InferenceSets ─┐
//! EndpointSlices ──────┼─► Index, Ports (pure, core::fleet) ─► FleetEvent
//! Services ────────────┘        ▲  which Services matter    └► Directory
//!          ▲                    └──────────────────────────────────┘ which ports are followed
//!          └─ of which Services
//! ```
//! Services are followed only where a source's port can't be found without them: it is not
//! the one that the picker's chart gives.

mod pulse;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::pulse::Pulse;
use crate::{
    cluster::{
        directory::Directory,
        store::{Informer, Selection, Store, Subscription, kinds},
    },
    readiness::{Gate, Gates},
};
use scaler_core::{
    fleet::{
        collection::Collection,
        index::{Index, Objects},
        inference_set::InferenceSetObject,
        model::FleetEvent,
        pod::Member,
        ports::{Ports, Scope, Sources},
        services::{SERVICE_NAME, Service, ServiceSlice},
    },
    wake::ServicePort,
};

/// Watches the cluster. Made before anything is served, so that its gates are closed by then.
pub struct Discovery {
    store: Store,
    /// Opens once the InferenceSet API is served.
    kaito: Gate,
    /// Opens once the fleet has been told whole.
    fleet: Gate,
}

/// InferenceSets are often made by the dozen; one list for all of them is enough.
const GATHER: Duration = Duration::from_secs(1);
/// With more names a request gets too long; then all slices of Services are read.
const MOST_NAMES: usize = 100;

impl Discovery {
    #[must_use]
    pub fn new(store: Store, gates: &Gates) -> Self {
        Self {
            store,
            kaito: gates.gate("kaito", "the InferenceSet CRD of kaito.sh, v1beta1 or v1alpha1"),
            fleet: gates.gate("fleet", "the first full list of pods and InferenceSets"),
        }
    }

    /// Tells `events` of the fleet, and `directory` of Services, until `cancel`, or until nobody
    /// listens.
    pub async fn run(
        self,
        events: mpsc::Sender<FleetEvent>,
        directory: Directory,
        cancel: CancellationToken,
    ) {
        let Self { store, kaito, fleet } = self;
        let mut followed = Followed::new(&store, directory);
        let (mut kaito, mut fleet) = (Some(kaito), Some(fleet));
        let mut pulse = Pulse::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = followed.changed() => {}
            }
            let told = followed.take(&mut pulse);
            if followed.is_kaito_there()
                && let Some(gate) = kaito.take()
            {
                gate.open();
            }
            for event in told {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            if followed.is_complete()
                && let Some(gate) = fleet.take()
            {
                info!("the fleet is known");
                gate.open();
            }
            if pulse.is_due(Instant::now()) && events.send(FleetEvent::Alive).await.is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").finish_non_exhaustive()
    }
}

/// What is followed of the cluster, and the indexes over it.
struct Followed {
    store: Store,
    pods: Subscription<Member>,
    inference_sets: Subscription<InferenceSetObject>,
    slices: Subscription<ServiceSlice>,
    slices_of: SlicesOf,
    /// From when on they are needed.
    services: Option<Subscription<Service>>,
    directory: Directory,
    /// The ports that the directory's readers follow.
    wanted: BTreeSet<ServicePort>,
    index: Index,
    ports: Ports,
}

/// Of which Services the EndpointSlices are followed.
struct SlicesOf {
    choose: watch::Sender<Option<Selection>>,
    /// What was chosen last.
    asked: Option<(Selection, Scope)>,
    /// What has been listed.
    listed: Option<Scope>,
    /// When to choose anew.
    due: Option<Instant>,
}

impl Followed {
    fn new(store: &Store, directory: Directory) -> Self {
        let (choose, slices) = store.follow_chosen("EndpointSlices");
        let pods: Informer<Member> = store.follow(kinds::pods());
        let inference_sets: Informer<InferenceSetObject> = store.follow(kinds::inference_sets());
        Self {
            store: store.clone(),
            pods: pods.subscribe_with_heartbeats(),
            inference_sets: inference_sets.subscribe_with_heartbeats(),
            slices: slices.subscribe(),
            slices_of: SlicesOf { choose, asked: None, listed: None, due: None },
            services: None,
            directory,
            wanted: BTreeSet::new(),
            index: Index::default(),
            ports: Ports::default(),
        }
    }

    /// Waits until there is something to take in.
    async fn changed(&self) {
        let services = async {
            match &self.services {
                Some(services) => services.ready().await,
                None => std::future::pending().await,
            }
        };
        let due = async {
            match self.slices_of.due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.pods.ready() => {}
            () = self.inference_sets.ready() => {}
            () = self.slices.ready() => {}
            () = services => {}
            () = self.directory.requested() => {}
            () = due => {}
        }
    }

    /// Takes in everything that has come, and tells the directory; what is to be told of the
    /// fleet is returned.
    fn take(&mut self, pulse: &mut Pulse) -> Vec<FleetEvent> {
        let [pod_changes, set_changes] = [self.pods.take(), self.inference_sets.take()];
        let slice_changes = self.slices.take();
        let service_changes = self.services.as_mut().map(Subscription::take);
        if pod_changes.heard {
            pulse.beat(pulse::Source::Pods);
        }
        if set_changes.heard {
            pulse.beat(pulse::Source::InferenceSets);
        }
        for (port, is_followed) in self.directory.take_requests() {
            match is_followed {
                true if self.wanted.insert(port.clone()) => self.ports.follow(&port),
                false if self.wanted.remove(&port) => self.ports.unfollow(&port),
                _ => {}
            }
        }

        let (pods, inference_sets, slices) =
            (self.pods.read(), self.inference_sets.read(), self.slices.read());
        let objects = Objects { pods: &pods, inference_sets: &inference_sets, slices: &slices };
        pod_changes.keys.into_iter().for_each(|set| self.index.touch_pods(set));
        for set in &set_changes.keys {
            self.index.touch_set(set, objects, &mut self.ports);
        }
        for service in &slice_changes.keys {
            self.index.touch_service(service, objects);
            self.ports.touch(service);
        }
        if slice_changes.anew && self.slices_of.has_listed(slices.selection()) {
            self.ports.touch_unfound();
        }
        if let Some(changes) = service_changes {
            changes.keys.iter().for_each(|service| self.ports.touch(service));
            if changes.anew {
                self.ports.touch_unfound();
            }
        }
        let none = Collection::default();
        let known_services = self.services.as_ref().map(Subscription::read);
        let services = known_services.as_deref().map_or(&none, |services| services);
        // Before the fleet, so that whoever is told of a picker finds it.
        let sources = Sources { slices: &slices, scope: self.slices_of.listed.as_ref(), services };
        for (port, found) in self.ports.take(sources) {
            self.directory.tell(port, found);
        }
        for (set, pool) in self.index.take_pools() {
            self.directory.tell_pool(set, pool);
        }
        let events = self.index.take_events(objects);
        drop((pods, inference_sets, slices, known_services));
        if self.services.is_none() && self.ports.needs_services() {
            self.services = Some(self.store.follow(kinds::services()).subscribe());
        }
        self.slices_of.follow(&self.ports);
        events
    }

    fn is_kaito_there(&self) -> bool {
        self.inference_sets.read().api_version().is_some()
    }

    fn is_complete(&self) -> bool {
        self.pods.read().is_listed() && self.inference_sets.read().is_listed()
    }
}

impl SlicesOf {
    /// Takes note of a list; says whether it was the one that was chosen last.
    fn has_listed(&mut self, selection: &Selection) -> bool {
        let Some((_, scope)) = self.asked.as_ref().filter(|(asked, _)| asked == selection) else {
            return false;
        };
        self.listed = Some(scope.clone());
        true
    }

    /// Chooses those that `ports` are of, some time after they are more than before. One fewer
    /// needs no other watch.
    fn follow(&mut self, ports: &Ports) {
        let needed = ports.scope(MOST_NAMES);
        let covered = match &self.asked {
            Some((_, scope)) => scope.covers(&needed),
            None => needed == Scope::Named(BTreeSet::new()),
        };
        if covered {
            self.due = None;
            return;
        }
        let now = Instant::now();
        if *self.due.get_or_insert(now + GATHER) > now {
            return;
        }
        self.due = None;
        let labels = match &needed {
            Scope::All => SERVICE_NAME.to_owned(),
            Scope::Named(names) => {
                let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
                format!("{SERVICE_NAME} in ({})", names.join(","))
            }
        };
        let selection = kinds::endpoint_slices(labels);
        self.asked = Some((selection.clone(), needed));
        self.choose.send_replace(Some(selection));
    }
}
