//! Which kinds the API server serves of the groups that come with CRDs, and in which version.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use kube::Client;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{Selection, feed::pauses};
use crate::error_chain;

/// A group of the API that may be missing, or served in other versions than today.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    Kaito,
    Keda,
}

impl Group {
    /// Each with its group, the best first. What is used of a kind is the same in each.
    pub(super) const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Kaito => &["kaito.sh/v1beta1", "kaito.sh/v1alpha1"],
            Self::Keda => &[scaler_core::provision::API_VERSION],
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kaito => "kaito.sh",
            Self::Keda => "keda.sh",
        })
    }
}

/// A kind of such a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    pub group: Group,
    /// As in an object's `kind`.
    pub name: &'static str,
    /// Whether its absence is nothing to wait for.
    pub is_optional: bool,
}

/// A kind as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Group and version, as in an object's `apiVersion`.
    pub api_version: &'static str,
    pub plural: String,
}

impl Resource {
    /// All objects of the kind, or the one of this name.
    pub(super) fn selection(&self, name: Option<&str>) -> Selection {
        Selection {
            path: format!("/apis/{}/{}", self.api_version, self.plural),
            labels: None,
            name: name.map(str::to_owned),
        }
    }
}

/// What was seen of a group.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The kinds that were looked for.
    looked_for: BTreeSet<&'static str>,
    /// By kind, each in the best version that has it.
    served: BTreeMap<String, Resource>,
}

impl Seen {
    /// Where a kind is served; `None` before it was looked for.
    pub(super) fn find(&self, kind: Kind) -> Option<Option<&Resource>> {
        self.looked_for.contains(kind.name).then(|| self.served.get(kind.name))
    }
}

/// One group, looked at from time to time by [`Resolver::run`]. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    group: Group,
    seen: Arc<watch::Sender<Seen>>,
    /// The kinds that somebody follows.
    wanted: Arc<watch::Sender<Vec<Kind>>>,
    doubts: Arc<Notify>,
}

/// An upgrade of KAITO or KEDA hurts nothing meanwhile: the older version goes on being served.
const RECHECK: Duration = Duration::from_secs(60);
/// The pause before looking again for a kind that has just gone: another API server may go on
/// saying that it is there for a while.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

impl Resolver {
    pub(super) fn new(group: Group) -> Self {
        Self { group, seen: Arc::default(), wanted: Arc::default(), doubts: Arc::default() }
    }

    /// Follows where `kind` is served. It changes with each look.
    pub(super) fn follow(&self, kind: Kind) -> watch::Receiver<Seen> {
        self.wanted.send_if_modified(|wanted| {
            let is_new = !wanted.contains(&kind);
            if is_new {
                wanted.push(kind);
            }
            is_new
        });
        self.seen.subscribe()
    }

    /// Something that was served seems to have gone: looks soon.
    pub(super) fn doubt(&self) {
        self.doubts.notify_one();
    }

    /// Looks for ever. An API server that can't be asked has not changed what it serves.
    pub(super) async fn run(self, client: Client) {
        let mut wanted = self.wanted.subscribe();
        let mut pauses = pauses();
        let mut said = None;
        loop {
            let kinds = wanted.borrow_and_update().clone();
            let missing = match look(&client, self.group, &kinds).await {
                Ok(seen) => {
                    let missing = kinds.iter().filter(|kind| !kind.is_optional);
                    let missing =
                        missing.map(|kind| kind.name).filter(|kind| !seen.served.contains_key(*kind));
                    let missing = missing.collect::<Vec<_>>().join(", ");
                    self.say(&mut said, &missing, &seen);
                    self.seen.send_replace(seen);
                    !missing.is_empty()
                }
                Err(error) => {
                    let error = error_chain(&error);
                    if said.replace(error.clone()).is_none_or(|said| said != error) {
                        warn!(group = %self.group, error, "can't tell what the API server serves");
                    }
                    true
                }
            };
            let pause = if missing {
                pauses.next().unwrap_or(RECHECK)
            } else {
                pauses = super::feed::pauses();
                RECHECK
            };
            tokio::select! {
                () = sleep(pause) => {}
                changed = wanted.changed() => if changed.is_err() { return },
                () = self.doubts.notified() => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Says what is `missing`, once, and that nothing is any more.
    fn say(&self, said: &mut Option<String>, missing: &str, seen: &Seen) {
        if said.as_deref() == Some(missing) {
            debug!(group = %self.group, missing, "still so");
        } else if missing.is_empty() {
            let served =
                seen.served.iter().map(|(kind, resource)| format!("{kind} {}", resource.api_version));
            let served = served.collect::<Vec<_>>().join(", ");
            info!(group = %self.group, served, "the API server serves what is needed");
        } else {
            warn!(group = %self.group, missing, "the API server does not serve what is needed: waiting for its CRDs");
        }
        *said = Some(missing.to_owned());
    }
}

/// Asked of the discovery API, which is open to every account: reading CRDs takes a right that
/// is not needed for anything else. A version may be served without some kind, as
/// kaito.sh/v1beta1 was without InferenceSets before KAITO 0.11.
async fn look(client: &Client, group: Group, kinds: &[Kind]) -> kube::Result<Seen> {
    let looked_for: BTreeSet<_> = kinds.iter().map(|kind| kind.name).collect();
    let mut served = BTreeMap::new();
    for &api_version in group.versions() {
        if looked_for.iter().all(|kind| served.contains_key(*kind)) {
            break;
        }
        let list = match client.list_api_group_resources(api_version).await {
            Ok(list) => list,
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error),
        };
        let whole = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
        for resource in whole.filter(|resource| looked_for.contains(&*resource.kind)) {
            served.entry(resource.kind).or_insert(Resource { api_version, plural: resource.name });
        }
    }
    Ok(Seen { looked_for, served })
}
