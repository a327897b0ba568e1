//! Discovery from the Kubernetes API: pods of InferenceSets, the InferenceSets themselves,
//! and the EndpointSlices of the endpoint pickers in front of them.
//!
//! ```text
//! feed: pods ────────────┐
//! feed: InferenceSets ───┼─► index (pure, core::cluster) ─► FleetEvent
//! feed: EndpointSlices ──┘         │
//!          ▲ which Services matter │
//!          └───────────────────────┘
//! ```

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
    core::{
        cluster::{
            gateway::{EndpointSliceObject, SERVICE_NAME},
            index::Index,
            inference_set::InferenceSetObject,
            pod::{CREATED_BY, PodObject},
        },
        fleet::FleetEvent,
    },
    readiness::{Gate, Gates},
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
    Slices(News<EndpointSliceObject>),
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

    /// Tells `events` of the fleet until `cancel`. Nothing ends it: what fails is tried again,
    /// and what is missing is waited for.
    pub async fn run(self, events: mpsc::Sender<FleetEvent>, cancel: CancellationToken) {
        let Self { client, kaito, fleet } = self;
        let (changes, inbox) = mpsc::channel(CHANGES);
        let (pickers, wanted) = watch::channel(BTreeSet::new());
        let feeds = async {
            tokio::join!(
                Feed::new(client.clone(), pods(), changes.clone(), Change::Pods).follow(),
                follow_sets(&client, &changes, kaito),
                follow_slices(&client, &changes, wanted),
            )
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = fold(inbox, pickers, events, fleet) => {}
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
async fn follow_slices(
    client: &Client,
    changes: &mpsc::Sender<Change>,
    mut wanted: watch::Receiver<BTreeSet<Arc<str>>>,
) {
    loop {
        let names = wanted.borrow_and_update().clone();
        let follow = async {
            if names.is_empty() {
                std::future::pending::<()>().await;
            }
            Feed::new(client.clone(), slices(&names), changes.clone(), Change::Slices).follow().await;
        };
        let more_wanted = wanted.wait_for(|wanted| !wanted.is_subset(&names));
        tokio::select! {
            more = more_wanted => if more.is_err() { return },
            () = follow => return,
        }
        sleep(GATHER).await;
    }
}

fn slices(services: &BTreeSet<Arc<str>>) -> Collection {
    let labels = if services.len() > MOST_NAMES {
        SERVICE_NAME.to_owned()
    } else {
        let names: Vec<_> = services.iter().map(AsRef::as_ref).collect();
        format!("{SERVICE_NAME} in ({})", names.join(","))
    };
    Collection {
        what: "EndpointSlices",
        path: "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
        labels: Some(labels),
        may_be_missing: false,
    }
}

/// Folds changes into the index and tells what comes of them, in batches: a rollout changes
/// one InferenceSet many times in a moment.
async fn fold(
    mut inbox: mpsc::Receiver<Change>,
    pickers: watch::Sender<BTreeSet<Arc<str>>>,
    events: mpsc::Sender<FleetEvent>,
    gate: Gate,
) {
    let mut index = Index::default();
    let mut pulse = Pulse::new();
    let mut gate = Some(gate);
    let mut batch = Vec::with_capacity(CHANGES);
    while inbox.recv_many(&mut batch, CHANGES).await > 0 {
        let now = Instant::now();
        for change in batch.drain(..) {
            match change {
                Change::Pods(_) => pulse.beat(Source::Pods),
                Change::Sets(_) => pulse.beat(Source::InferenceSets),
                // A gateway adds to what is known of the fleet; its absence takes nothing away.
                Change::Slices(_) => {}
            }
            apply(&mut index, change);
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
        pickers.send_if_modified(|current| {
            let wanted = index.pickers();
            let news = *current != wanted;
            *current = wanted;
            news
        });
    }
}

fn apply(index: &mut Index, change: Change) {
    match change {
        Change::Pods(News::Listed(pods)) => index.list_pods(&pods),
        Change::Pods(News::Applied(pod)) => index.apply_pod(&pod),
        Change::Pods(News::Deleted(pod)) => index.delete_pod(&pod),
        Change::Sets(News::Listed(sets)) => index.list_sets(&sets),
        Change::Sets(News::Applied(set)) => index.apply_set(&set),
        Change::Sets(News::Deleted(set)) => index.delete_set(&set),
        Change::Slices(News::Listed(slices)) => index.list_slices(&slices),
        Change::Slices(News::Applied(slice)) => index.apply_slice(&slice),
        Change::Slices(News::Deleted(slice)) => index.delete_slice(&slice),
        Change::Pods(News::Heard) | Change::Sets(News::Heard) | Change::Slices(News::Heard) => {}
    }
}
