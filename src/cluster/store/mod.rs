//! The cluster as this process knows it: each kind of object is watched once, whoever reads it,
//! and kept in one index that all of them share.
//!
//! ```text
//! API server ─► feed ─► Collection (pure, core) ◄─ read ── discovery, provisioning, certificates
//!                └────► Subscription: which keys have changed ──►┘
//! ```
//! A subscriber is told what has changed and not how, so that one who is slow owes no more than
//! a key for each object, and a new list is one difference. What is not followed by anybody is
//! not watched.

mod envelope;
mod feed;
mod informer;
pub mod kinds;
mod served;

#[cfg(test)]
mod tests;

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::BoxFuture;
use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{
    feed::{Ended, Feed},
    informer::{Shared, WeakInformer},
    served::{Resolver, Seen},
};
pub use self::{
    informer::{Changes, Informer, Known, Serving, Subscription},
    served::{Group, Kind, Resource},
};
use scaler_core::fleet::collection::Object;

/// A collection of the API, or a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    pub path: String,
    /// A label selector.
    pub labels: Option<String>,
    /// Only the object of this name.
    pub name: Option<String>,
}

impl Selection {
    /// Everything at `path`.
    #[must_use]
    pub fn all(path: &str) -> Self {
        Self { path: path.to_owned(), labels: None, name: None }
    }

    fn fields(&self) -> Option<String> {
        self.name.as_ref().map(|name| format!("metadata.name={name}"))
    }
}

/// What is followed: where it is in the API, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// For people, in the plural.
    what: &'static str,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    At(Selection),
    Served { kind: Kind, name: Option<String> },
}

impl Source {
    /// What every API server has.
    #[must_use]
    pub fn at(what: &'static str, selection: Selection) -> Self {
        Self { what, place: Place::At(selection) }
    }

    /// What may be missing, in the best version that is served.
    #[must_use]
    pub fn served(what: &'static str, kind: Kind) -> Self {
        Self { what, place: Place::Served { kind, name: None } }
    }

    /// Only the object of this name.
    #[must_use]
    pub fn named(mut self, only: &str) -> Self {
        match &mut self.place {
            Place::At(Selection { name, .. }) | Place::Served { name, .. } => *name = Some(only.to_owned()),
        }
        self
    }
}

/// The informers of one process. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    client: Client,
    /// By the type of its objects, and what it follows: a `WeakInformer` of that type.
    informers: Mutex<HashMap<(TypeId, Source), Box<dyn Registered>>>,
    resolvers: Mutex<HashMap<Group, Resolver>>,
    jobs: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
}

/// What keeps the store up to date, for as long as it [runs](Self::run).
#[must_use = "nothing is watched without it"]
pub struct StoreRunner {
    jobs: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl fmt::Debug for StoreRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreRunner").finish_non_exhaustive()
    }
}

impl StoreRunner {
    /// Watches what is followed, until `cancel`. Nothing else ends it: what fails is tried
    /// again, and what is missing is waited for. A panic of any part is one of the whole.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(job) = self.jobs.recv() => drop(running.spawn(job)),
                Some(ended) = running.join_next() => {
                    if let Err(error) = ended
                        && error.is_panic()
                    {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
                else => cancel.cancelled().await,
            }
        }
    }
}

impl Store {
    /// A store in which nothing is followed yet.
    #[must_use]
    pub fn new(client: Client) -> (Self, StoreRunner) {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let (informers, resolvers) = (Mutex::default(), Mutex::default());
        (Self(Arc::new(Inner { client, informers, resolvers, jobs })), StoreRunner { jobs: inbox })
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Follows `source` for as long as what is returned, or a clone of it, lives. All who follow
    /// the same share one watch.
    #[must_use]
    pub fn follow<T: Object + Send + Sync + 'static>(&self, source: Source) -> Informer<T>
    where
        T::Key: Send + Sync,
    {
        let mut informers = locked(&self.0.informers);
        let key = (TypeId::of::<T>(), source.clone());
        let known: Option<&dyn Any> = informers.get(&key).map(|known| &**known as &dyn Any);
        let known = known.and_then(|known| known.downcast_ref::<WeakInformer<T>>());
        if let Some(informer) = known.and_then(WeakInformer::upgrade) {
            return informer;
        }
        informers.retain(|_, informer| informer.is_alive());
        let (informer, shared) = Informer::new();
        informers.insert(key, Box::new(informer.downgrade()));
        drop(informers);
        let targets = match source.place {
            Place::At(selection) => Targets::Fixed(selection),
            Place::Served { kind, name } => {
                let resolver = self.resolver(kind.group);
                Targets::Served { seen: resolver.follow(kind), resolver, kind, name }
            }
        };
        self.start(source.what, shared, targets);
        informer
    }

    /// Follows what the sender says, and nothing while that is `None`. What is known is kept
    /// until the next list.
    #[must_use]
    pub fn follow_chosen<T: Object + Send + Sync + 'static>(
        &self,
        what: &'static str,
    ) -> (watch::Sender<Option<Selection>>, Informer<T>)
    where
        T::Key: Send + Sync,
    {
        let (informer, shared) = Informer::new();
        let (choose, chosen) = watch::channel(None);
        self.start(what, shared, Targets::Chosen(chosen));
        (choose, informer)
    }

    fn start<T: Object + Send + Sync + 'static>(
        &self,
        what: &'static str,
        shared: Arc<Shared<T>>,
        targets: Targets,
    ) where
        T::Key: Send + Sync,
    {
        let may_be_missing = matches!(targets, Targets::Served { .. });
        let feed = Feed::new(self.0.client.clone(), what, may_be_missing, shared.clone());
        let job = async move {
            tokio::select! {
                () = shared.unused() => {}
                () = targets.follow(feed, &shared) => {}
            }
        };
        // Without a runner nothing is watched, and nothing becomes known.
        drop(self.0.jobs.send(Box::pin(job)));
    }

    fn resolver(&self, group: Group) -> Resolver {
        let mut resolvers = locked(&self.0.resolvers);
        let start = || {
            let resolver = Resolver::new(group);
            drop(self.0.jobs.send(Box::pin(resolver.clone().run(self.0.client.clone()))));
            resolver
        };
        resolvers.entry(group).or_insert_with(start).clone()
    }
}

/// An informer of whatever type.
trait Registered: Any + Send {
    fn is_alive(&self) -> bool;
}

impl<T: Object + Send + Sync + 'static> Registered for WeakInformer<T>
where
    T::Key: Send + Sync,
{
    fn is_alive(&self) -> bool {
        self.upgrade().is_some()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one step: a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an informer follows at present, and next.
enum Targets {
    Fixed(Selection),
    Chosen(watch::Receiver<Option<Selection>>),
    Served { resolver: Resolver, seen: watch::Receiver<Seen>, kind: Kind, name: Option<String> },
}

impl Targets {
    async fn follow<T: Object>(self, mut feed: Feed<Arc<Shared<T>>>, shared: &Shared<T>) {
        match self {
            Self::Fixed(selection) => drop(feed.follow(selection).await),
            Self::Chosen(mut chosen) => loop {
                let current = chosen.borrow_and_update().clone();
                let follow = async {
                    match current {
                        Some(selection) => drop(feed.follow(selection).await),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = chosen.changed() => if changed.is_err() { return },
                    () = follow => return,
                }
            },
            Self::Served { resolver, mut seen, kind, name } => loop {
                let find = |seen: &Seen| seen.find(kind).map(Option::<&Resource>::cloned);
                let found = find(&seen.borrow_and_update());
                shared.set_serving(match &found {
                    None => Serving::Unknown,
                    Some(None) => Serving::Missing,
                    Some(Some(resource)) => Serving::As(resource.clone()),
                });
                let follow = async {
                    match found.clone().flatten() {
                        Some(resource) => feed.follow(resource.selection(name.as_deref())).await,
                        None => std::future::pending().await,
                    }
                };
                let ended = tokio::select! {
                    changed = seen.wait_for(|seen| find(seen) != found) => {
                        if changed.is_err() { return }
                        continue;
                    }
                    ended = follow => ended,
                };
                if ended == Ended::Unread {
                    return;
                }
                // The CRD is gone. What it described is kept, and soon no longer believed.
                resolver.doubt();
                if seen.changed().await.is_err() {
                    return;
                }
            },
        }
    }
}
