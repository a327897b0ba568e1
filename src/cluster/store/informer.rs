//! One kind of object, kept up to date, and those who read it.

use std::{
    collections::BTreeSet,
    fmt, mem,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Resource, Selection,
    feed::{News, Sink},
    locked,
};
use scaler_core::fleet::collection::{Collection, Object};

/// Objects of one kind as they were last heard of: read by anybody, changed by their watch
/// alone. Cheap to clone; all clones are the same.
pub struct Informer<T: Object>(Arc<Held<T>>);

struct Held<T: Object> {
    shared: Arc<Shared<T>>,
    /// Ends the watch with the last one who reads it.
    _end: DropGuard,
}

/// How the kind is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Serving {
    /// Not looked at yet, or always.
    #[default]
    Unknown,
    Missing,
    As(Resource),
}

/// What is known of one kind.
#[derive(Debug)]
pub struct Known<T: Object> {
    objects: Collection<T>,
    serving: Serving,
    selection: Selection,
    version: u64,
    heard: Option<Instant>,
}

pub(super) struct Shared<T: Object> {
    known: RwLock<Known<T>>,
    subscribers: Mutex<Vec<Weak<Inbox<T::Key>>>>,
    end: CancellationToken,
}

/// What has come since a subscriber last looked.
#[derive(Debug)]
pub struct Changes<K> {
    /// Of objects that are new, changed or gone.
    pub keys: BTreeSet<K>,
    /// There was a whole list, or the kind is served otherwise.
    pub anew: bool,
    /// The API server was heard from: what is known is as it is there.
    pub heard: bool,
}

/// One who is told of changes.
pub struct Subscription<T: Object> {
    informer: Informer<T>,
    inbox: Arc<Inbox<T::Key>>,
}

struct Inbox<K> {
    changes: Mutex<Changes<K>>,
    filled: Notify,
    /// Whether it is news that the API server was heard from.
    with_heartbeats: bool,
}

impl<T: Object> Known<T> {
    /// Group and version under which the kind is served, where it may be missing.
    #[must_use]
    pub fn api_version(&self) -> Option<&'static str> {
        match &self.serving {
            Serving::As(resource) => Some(resource.api_version),
            Serving::Unknown | Serving::Missing => None,
        }
    }

    #[must_use]
    pub fn serving(&self) -> &Serving {
        &self.serving
    }

    /// What the newest list was about.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The newest version of any object that the watch has shown, or passed. The API server
    /// counts in them across all objects.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the API server was last heard from.
    #[must_use]
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }
}

impl<T: Object> Deref for Known<T> {
    type Target = Collection<T>;

    fn deref(&self) -> &Collection<T> {
        &self.objects
    }
}

impl<T: Object> Informer<T> {
    pub(super) fn new() -> (Self, Arc<Shared<T>>) {
        let end = CancellationToken::new();
        let known = Known {
            objects: Collection::default(),
            serving: Serving::default(),
            selection: Selection::default(),
            version: 0,
            heard: None,
        };
        let shared =
            Arc::new(Shared { known: RwLock::new(known), subscribers: Mutex::default(), end: end.clone() });
        (Self(Arc::new(Held { shared: shared.clone(), _end: end.drop_guard() })), shared)
    }

    pub(super) fn downgrade(&self) -> WeakInformer<T> {
        WeakInformer(Arc::downgrade(&self.0))
    }

    /// What is known now. Not to be held for long: the watch waits meanwhile.
    #[must_use]
    pub fn read(&self) -> RwLockReadGuard<'_, Known<T>> {
        self.0.shared.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is told of each change from now on, and at first of all there is.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<T> {
        self.subscriber(false)
    }

    /// As [`Self::subscribe`], and is told too whenever the API server was heard from.
    #[must_use]
    pub fn subscribe_with_heartbeats(&self) -> Subscription<T> {
        self.subscriber(true)
    }

    fn subscriber(&self, with_heartbeats: bool) -> Subscription<T> {
        let inbox = Arc::new(Inbox { changes: Mutex::default(), filled: Notify::new(), with_heartbeats });
        // Under the lock, so that nothing comes between what is there and what changes.
        let known = self.read();
        inbox.add(|changes| {
            changes.keys.extend(known.keys().cloned());
            changes.anew = known.is_listed() || known.serving != Serving::Unknown;
            changes.heard = known.heard.is_some();
        });
        locked(&self.0.shared.subscribers).push(Arc::downgrade(&inbox));
        drop(known);
        Subscription { informer: self.clone(), inbox }
    }
}

/// An informer that may have ended.
pub(super) struct WeakInformer<T: Object>(Weak<Held<T>>);

impl<T: Object> WeakInformer<T> {
    pub(super) fn upgrade(&self) -> Option<Informer<T>> {
        self.0.upgrade().map(Informer)
    }
}

impl<T: Object> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Object> fmt::Debug for Informer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").field("objects", &self.read().len()).finish_non_exhaustive()
    }
}

impl<T: Object> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("informer", &self.informer).finish_non_exhaustive()
    }
}

impl<T: Object> Subscription<T> {
    /// Waits for changes and takes them. Loses nothing where it is dropped.
    pub async fn changed(&mut self) -> Changes<T::Key> {
        self.ready().await;
        self.take()
    }

    /// Waits until there is something to take.
    pub async fn ready(&self) {
        while !self.inbox.has_news() {
            self.inbox.filled.notified().await;
        }
    }

    /// What has come since the last call.
    pub fn take(&mut self) -> Changes<T::Key> {
        mem::take(&mut *locked(&self.inbox.changes))
    }

    /// What is known now; at least as new as what was taken.
    #[must_use]
    pub fn read(&self) -> RwLockReadGuard<'_, Known<T>> {
        self.informer.read()
    }
}

impl<K> Default for Changes<K> {
    fn default() -> Self {
        Self { keys: BTreeSet::new(), anew: false, heard: false }
    }
}

impl<K> Inbox<K> {
    fn add(&self, add: impl FnOnce(&mut Changes<K>)) {
        add(&mut locked(&self.changes));
        self.filled.notify_one();
    }

    fn has_news(&self) -> bool {
        let changes = locked(&self.changes);
        !changes.keys.is_empty() || changes.anew || (changes.heard && self.with_heartbeats)
    }
}

impl<T: Object> Shared<T> {
    /// Waits until nobody reads it any more.
    pub(super) async fn unused(&self) {
        self.end.cancelled().await;
    }

    pub(super) fn set_serving(&self, serving: Serving) {
        let mut known = self.write();
        if known.serving != serving {
            known.serving = serving;
            self.tell(&known, |changes| changes.anew = true);
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known<T>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all subscribers. The lock is held meanwhile, so that none is told twice or not at
    /// all.
    fn tell(&self, _lock: &RwLockWriteGuard<'_, Known<T>>, add: impl Fn(&mut Changes<T::Key>)) {
        locked(&self.subscribers).retain(|subscriber| {
            let inbox = subscriber.upgrade();
            inbox.as_ref().inspect(|inbox| inbox.add(&add)).is_some()
        });
    }
}

/// Takes in a whole list as one difference.
impl<T: Object> Sink for Arc<Shared<T>> {
    type Object = T;

    fn take(&mut self, news: News<T>, selection: &Selection, version: &str) -> bool {
        let mut known = self.write();
        known.version = version.parse().unwrap_or(known.version).max(known.version);
        known.heard = Some(Instant::now());
        let (keys, anew) = match news {
            News::Listed(all) => {
                known.selection.clone_from(selection);
                (known.objects.list(all), true)
            }
            News::Applied(name, object) => (known.objects.apply(name, object), false),
            News::Deleted(name) => (known.objects.apply(name, None), false),
            News::Heard => (Vec::new(), false),
        };
        self.tell(&known, |changes| {
            changes.keys.extend(keys.iter().cloned());
            changes.anew |= anew;
            changes.heard = true;
        });
        !self.end.is_cancelled()
    }
}
