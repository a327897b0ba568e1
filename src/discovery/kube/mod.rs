//! Discovery from the Kubernetes API: pods of InferenceSets, the InferenceSets themselves,
//! and the Services of wake-up sources: the endpoint pickers in front of InferenceSets, and
//! what triggers and annotations name.
//!
//! ```text
//! feed: pods ────────────┐
//! feed: InferenceSets ───┼─► index (pure, core::cluster) ─► FleetEvent
//! feed: EndpointSlices ──┤         │  ▲           └───────► Directory
//! feed: Services ────────┘         │  └─ Wants (what else is to be looked up)
//!          ▲ which Services matter │
//!          └───────────────────────┘
//! ```
//! Services are followed only where a source's port can't be found without them: it is not
//! the one that the picker's chart gives.

mod api_version;
mod feed;
mod object;
mod pulse;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::api_version::ApiVersion;
use self::{
    feed::{Collection, Feed, News},
    pulse::{Pulse, Source},
};
use crate::{
    readiness::{Gate, Gates},
    wake::Wants,
};
use scaler_core::{
    fleet::{
        index::{Index, Scope},
        inference_set::InferenceSetObject,
        model::FleetEvent,
        pod::{CREATED_BY, PodObject},
        services::{EndpointSliceObject, SERVICE_NAME, ServiceObject},
    },
    wake::Directory,
};

/// Watches the cluster. Made before anything is served, so that its gates are closed by then.
pub struct Discovery {
    client: Client,
    /// Opens once the InferenceSet API is served.
    kaito: Gate,
    /// Opens once the fleet has been told whole.
    fleet: Gate,
}

/// What one of the feeds has to say.
#[derive(Debug)]
enum Change {
    Pods(News<PodObject>),
    Sets(News<InferenceSetObject>),
    /// The Services whose EndpointSlices are listed next.
    Scope(Scope),
    Slices(News<EndpointSliceObject>),
    Services(News<ServiceObject>),
}

/// Where discovery tells and is told of Services.
#[derive(Debug)]
pub struct Lookup {
    pub directory: watch::Sender<Arc<Directory>>,
    pub wants: Wants,
}

/// What is followed because of what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Needs {
    /// The names of Services whose EndpointSlices matter.
    slices_of: BTreeSet<Arc<str>>,
    services: bool,
}

/// Changes that may wait for the index; a full queue slows the watches down.
const CHANGES: usize = 256;

impl Discovery {
    #[must_use]
    pub fn new(client: Client, gates: &Gates) -> Self {
        Self {
            client,
            kaito: gates.gate("kaito", "the InferenceSet CRD of kaito.sh, v1beta1 or v1alpha1"),
            fleet: gates.gate("fleet", "the first full list of pods and InferenceSets"),
        }
    }

    /// Tells `events` of the fleet, and `lookup` of Services, until `cancel`. Nothing ends it:
    /// what fails is tried again, and what is missing is waited for.
    pub async fn run(self, events: mpsc::Sender<FleetEvent>, lookup: Lookup, cancel: CancellationToken) {
        let Self { client, kaito, fleet } = self;
        let (changes, inbox) = mpsc::channel(CHANGES);
        let (needs, needed) = watch::channel(Needs::default());
        let feeds = async {
            tokio::join!(
                Feed::new(client.clone(), pods(), changes.clone(), Change::Pods).follow(),
                follow_sets(&client, &changes, kaito),
                follow_slices(&client, &changes, needed.clone()),
                follow_services(&client, &changes, needed),
            )
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = fold(inbox, needs, events, lookup, fleet) => {}
            _ = feeds => {}
        }
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").finish_non_exhaustive()
    }
}

fn pods() -> Collection {
    Collection {
        what: "pods",
        path: "/api/v1/pods".to_owned(),
        labels: Some(CREATED_BY.to_owned()),
        may_be_missing: false,
    }
}

/// Follows InferenceSets in the best version that is served, whenever there is one.
async fn follow_sets(client: &Client, changes: &mpsc::Sender<Change>, gate: Gate) {
    let mut version = ApiVersion::wait_for_any(client).await;
    gate.open();
    while !changes.is_closed() {
        let collection =
            Collection { what: "InferenceSets", path: version.path(), labels: None, may_be_missing: true };
        let feed = Feed::new(client.clone(), collection, changes.clone(), Change::Sets);
        version = tokio::select! {
            other = version.wait_for_other(client) => other,
            // The CRD is gone. What it described is kept, and soon no longer believed. Another
            // API server may go on saying that it is there for a while.
            () = feed.follow() => {
                sleep(LOOK_AGAIN).await;
                ApiVersion::wait_for_any(client).await
            }
        };
    }
}

/// The pause before looking again for a resource type that has just gone.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// InferenceSets are often made by the dozen; one list for all of them is enough.
const GATHER: Duration = Duration::from_secs(1);
/// With more names a request gets too long; then all slices of Services are read.
const MOST_NAMES: usize = 100;

/// Follows the EndpointSlices of the Services that are wanted, and anew when more are.
async fn follow_slices(client: &Client, changes: &mpsc::Sender<Change>, mut needed: watch::Receiver<Needs>) {
    loop {
        let names = needed.borrow_and_update().slices_of.clone();
        let follow = async {
            if names.is_empty() {
                std::future::pending::<()>().await;
            }
            let (collection, scope) = slices(&names);
            if changes.send(Change::Scope(scope)).await.is_ok() {
                Feed::new(client.clone(), collection, changes.clone(), Change::Slices).follow().await;
            }
        };
        let more_wanted = needed.wait_for(|needed| !needed.slices_of.is_subset(&names));
        tokio::select! {
            more = more_wanted => if more.is_err() { return },
            () = follow => return,
        }
        sleep(GATHER).await;
    }
}

fn slices(services: &BTreeSet<Arc<str>>) -> (Collection, Scope) {
    let (labels, scope) = if services.len() > MOST_NAMES {
        (SERVICE_NAME.to_owned(), Scope::All)
    } else {
        let names: Vec<_> = services.iter().map(AsRef::as_ref).collect();
        (format!("{SERVICE_NAME} in ({})", names.join(",")), Scope::Named(services.clone()))
    };
    let collection = Collection {
        what: "EndpointSlices",
        path: "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
        labels: Some(labels),
        may_be_missing: false,
    };
    (collection, scope)
}

/// Follows Services once they are needed, and from then on.
async fn follow_services(
    client: &Client,
    changes: &mpsc::Sender<Change>,
    mut needed: watch::Receiver<Needs>,
) {
    if needed.wait_for(|needed| needed.services).await.is_err() {
        return;
    }
    let collection = Collection {
        what: "Services",
        path: "/api/v1/services".to_owned(),
        labels: None,
        may_be_missing: false,
    };
    Feed::new(client.clone(), collection, changes.clone(), Change::Services).follow().await;
}

/// Folds changes into the index and tells what comes of them, in batches: a rollout changes
/// one InferenceSet many times in a moment.
async fn fold(
    mut inbox: mpsc::Receiver<Change>,
    needs: watch::Sender<Needs>,
    events: mpsc::Sender<FleetEvent>,
    lookup: Lookup,
    gate: Gate,
) {
    let Lookup { directory, wants } = lookup;
    let mut wanted = wants.follow();
    let mut index = Index::default();
    let mut scope = Scope::All;
    let mut pulse = Pulse::new();
    let mut gate = Some(gate);
    let mut batch = Vec::with_capacity(CHANGES);
    loop {
        tokio::select! {
            count = inbox.recv_many(&mut batch, CHANGES) => if count == 0 { return },
            // `wants` lives here too, so this does not end.
            _ = wanted.changed() => {}
        }
        index.want(wanted.borrow_and_update().values().flatten().cloned().collect());
        let now = Instant::now();
        for change in batch.drain(..) {
            match change {
                Change::Pods(_) => pulse.beat(Source::Pods),
                Change::Sets(_) => pulse.beat(Source::InferenceSets),
                // A gateway adds to what is known of the fleet; its absence takes nothing away.
                Change::Slices(_) | Change::Services(_) | Change::Scope(_) => {}
            }
            apply(&mut index, &mut scope, change);
        }
        // Before the fleet, so that whoever is told of a picker finds it.
        if let Some(news) = index.take_directory() {
            directory.send_replace(Arc::new(news));
        }
        for event in index.take_events() {
            if events.send(event).await.is_err() {
                return;
            }
        }
        if index.is_complete()
            && let Some(gate) = gate.take()
        {
            info!("the fleet is known");
            gate.open();
        }
        if pulse.is_due(now) && events.send(FleetEvent::Alive).await.is_err() {
            return;
        }
        needs.send_if_modified(|current| {
            let services = current.services || index.needs_services();
            let needed = Needs { slices_of: index.service_names(), services };
            let news = *current != needed;
            *current = needed;
            news
        });
    }
}

fn apply(index: &mut Index, scope: &mut Scope, change: Change) {
    match change {
        Change::Pods(News::Listed(pods)) => index.list_pods(&pods),
        Change::Pods(News::Applied(pod)) => index.apply_pod(&pod),
        Change::Pods(News::Deleted(pod)) => index.delete_pod(&pod),
        Change::Sets(News::Listed(sets)) => index.list_sets(&sets),
        Change::Sets(News::Applied(set)) => index.apply_set(&set),
        Change::Sets(News::Deleted(set)) => index.delete_set(&set),
        Change::Scope(next) => *scope = next,
        Change::Slices(News::Listed(slices)) => index.list_slices(scope.clone(), &slices),
        Change::Slices(News::Applied(slice)) => index.apply_slice(&slice),
        Change::Slices(News::Deleted(slice)) => index.delete_slice(&slice),
        Change::Services(News::Listed(services)) => index.list_services(&services),
        Change::Services(News::Applied(service)) => index.apply_service(&service),
        Change::Services(News::Deleted(service)) => index.delete_service(&service),
        Change::Pods(News::Heard)
        | Change::Sets(News::Heard)
        | Change::Slices(News::Heard)
        | Change::Services(News::Heard) => {}
    }
}
