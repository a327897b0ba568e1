//! One collection of the Kubernetes API, followed for ever: listed, then watched from where
//! the list ends, listed again where the server has forgotten that place.
//!
//! kube's own watcher keeps bookmarks to itself, but they are what tells an idle collection
//! from a dead connection; and one malformed object fails its whole list. Hence this one.

use std::{collections::HashSet, pin::pin, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt;
use kube::{
    Client,
    api::{ListParams, VersionMatch, WatchEvent, WatchParams},
    core::{ObjectList, Request},
};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{Selection, envelope::Envelope};
use crate::error_chain;
use scaler_core::fleet::{ObjectName, collection::Object};

/// What has come in. An object that plays no part comes as `None`.
#[derive(Clone, Debug)]
pub(super) enum News<T> {
    /// All there is.
    Listed(Vec<(ObjectName, Option<T>)>),
    Applied(ObjectName, Option<T>),
    Deleted(ObjectName),
    /// The server was heard from, and nothing has changed.
    Heard,
}

/// Who takes news in.
pub(super) trait Sink {
    type Object: Object;

    /// `selection` is what is followed, and `version` the newest that was heard of. What is returned says whether anybody
    /// wants more.
    fn take(&mut self, news: News<Self::Object>, selection: &Selection, version: &str) -> bool;
}

/// Why following has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The API server has no such kind.
    Missing,
    /// Nobody reads the news any more.
    Unread,
}

/// The server ends a watch by itself after this long; kube takes no more than 295 s.
const WATCH_TIMEOUT_SECONDS: u32 = 285;
/// A server sends a bookmark about once a minute. A watch that is silent for longer may be a
/// dead connection: it is made anew, well before what it said is no longer believed.
const SILENCE: Duration = Duration::from_secs(75);
/// How long a list, or the answer to the start of a watch, may take.
const ANSWER: Duration = Duration::from_secs(30);
/// A watch that ends sooner than this is not what the server was asked for.
const HEALTHY: Duration = Duration::from_secs(60);
/// Objects on a page of a list that is not answered from the server's cache.
const PAGE: u32 = 500;

/// Follows one collection and tells a sink of it.
pub(super) struct Feed<S> {
    client: Client,
    /// For people, in the plural.
    what: &'static str,
    /// Whether its kind may be missing: then following it ends where it is.
    may_be_missing: bool,
    sink: S,
    selection: Selection,
    /// The newest version seen; empty before the first list.
    version: String,
    /// The server's cache could not answer the last list.
    bypass_cache: bool,
    malformed: HashSet<ObjectName>,
    pace: Pace,
}

/// How a list or a watch has failed.
#[derive(Debug, Error)]
enum Failure {
    #[error("the API server has no such kind")]
    Missing,
    #[error("the API server does not know the version asked for, no longer or not yet")]
    Forgotten,
    #[error("{}", error_chain(.0))]
    Broken(kube::Error),
    #[error("no answer within {ANSWER:?}")]
    Silent,
    #[error("nobody reads the news any more")]
    Unread,
}

impl Failure {
    /// For how long an overloaded server asks to be left alone.
    fn retry_after(&self) -> Option<Duration> {
        let Self::Broken(kube::Error::Api(status)) = self else { return None };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        Some(Duration::from_secs(seconds.into()).min(MAX_PAUSE))
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 404 => Self::Missing,
            kube::Error::Api(status) if status.code == 410 => Self::Forgotten,
            // How a server answers that is behind the version asked for.
            kube::Error::Api(status) if status.code == 504 && status.message.contains("resource version") => {
                Self::Forgotten
            }
            _ => Self::Broken(error),
        }
    }
}

impl<S: Sink> Feed<S> {
    pub(super) fn new(client: Client, what: &'static str, may_be_missing: bool, sink: S) -> Self {
        Self {
            client,
            what,
            may_be_missing,
            sink,
            selection: Selection::default(),
            version: String::new(),
            bypass_cache: false,
            malformed: HashSet::new(),
            pace: Pace::new(),
        }
    }

    /// Follows `selection`, from its list on. May be dropped, and called again for another one.
    pub(super) async fn follow(&mut self, selection: Selection) -> Ended {
        self.selection = selection;
        loop {
            let started = Instant::now();
            let failure = match self.list().await {
                Ok(()) => self.watch_on().await,
                Err(failure) => {
                    self.bypass_cache = matches!(failure, Failure::Forgotten);
                    failure
                }
            };
            match failure {
                Failure::Unread => return Ended::Unread,
                Failure::Missing if self.may_be_missing => return Ended::Missing,
                Failure::Forgotten => {
                    debug!(what = self.what, version = self.version, "forgotten: listing again");
                    if started.elapsed() < HEALTHY {
                        self.pace.pause(None).await;
                    }
                }
                failure => self.pace.failed(self.what, &failure).await,
            }
        }
    }

    /// Reads all there is: what the server has cached where that will do, for it costs etcd
    /// nothing, else page by page.
    async fn list(&mut self) -> Result<(), Failure> {
        let request = Request::new(&self.selection.path);
        let mut params = ListParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields(),
            ..ListParams::default()
        };
        if self.bypass_cache {
            params.limit = Some(PAGE);
        } else {
            // Not older than what was seen before: two API servers may be at different points.
            let seen = if self.version.is_empty() { "0" } else { &self.version };
            params.resource_version = Some(seen.to_owned());
            params.version_match = Some(VersionMatch::NotOlderThan);
        }
        let mut objects = Vec::new();
        let mut malformed = HashSet::new();
        loop {
            let page = request.list(&params).map_err(kube::Error::BuildRequest)?;
            let page = self.client.request::<ObjectList<Envelope<S::Object>>>(page);
            let page = timeout(ANSWER, page).await.map_err(|_| Failure::Silent)??;
            for object in page.items {
                let name = object.name.clone();
                match self.admit(object) {
                    Some(object) => objects.push((name, object)),
                    None => drop(malformed.insert(name)),
                }
            }
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                self.advance(page.metadata.resource_version.unwrap_or_default());
                break;
            }
            params.continue_token = next;
        }
        self.bypass_cache = false;
        self.malformed = malformed;
        debug!(what = self.what, count = objects.len(), version = self.version, "listed");
        self.tell(News::Listed(objects))
    }

    /// Watches from the newest version on, until another list is needed.
    async fn watch_on(&mut self) -> Failure {
        loop {
            let started = Instant::now();
            let ended = self.watch().await;
            let was_healthy = started.elapsed() >= HEALTHY;
            if was_healthy {
                self.pace.healthy();
            }
            match ended {
                // It goes on from where it ended or broke.
                Ok(()) | Err(Failure::Broken(_) | Failure::Silent) if was_healthy => {}
                Ok(()) => self.pace.pause(None).await,
                Err(failure @ (Failure::Broken(_) | Failure::Silent)) => {
                    self.pace.failed(self.what, &failure).await;
                }
                Err(failure) => return failure,
            }
        }
    }

    /// One watch. Ends well when the server ends it, and when it falls silent.
    async fn watch(&mut self) -> Result<(), Failure> {
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields(),
            timeout: Some(WATCH_TIMEOUT_SECONDS),
            ..WatchParams::default()
        };
        let request = Request::new(&self.selection.path).watch(&params, &self.version);
        let request = request.map_err(kube::Error::BuildRequest)?;
        let started = self.client.request_events::<Envelope<S::Object>>(request);
        let events = timeout(ANSWER, started).await.map_err(|_| Failure::Silent)??;
        let mut events = pin!(events);
        self.pace.working(self.what);
        self.tell(News::Heard)?;
        loop {
            let Ok(event) = timeout(SILENCE, events.next()).await else { return Ok(()) };
            match event {
                None => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(event)) => self.apply(event)?,
            }
        }
    }

    fn apply(&mut self, event: WatchEvent<Envelope<S::Object>>) -> Result<(), Failure> {
        let news = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.advance(object.version.clone());
                let name = object.name.clone();
                self.admit(object).map_or(News::Heard, |object| News::Applied(name, object))
            }
            WatchEvent::Deleted(object) => {
                self.advance(object.version);
                self.malformed.remove(&object.name);
                News::Deleted(object.name)
            }
            WatchEvent::Bookmark(bookmark) => {
                self.advance(bookmark.metadata.resource_version);
                News::Heard
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        };
        self.tell(news)
    }

    /// An object without a version is no reason to start from the beginning.
    fn advance(&mut self, version: String) {
        if !version.is_empty() {
            self.version = version;
        }
    }

    /// The object, or `None` where it can't be read; of each that can't be, one warning.
    fn admit(&mut self, object: Envelope<S::Object>) -> Option<Option<S::Object>> {
        match object.object {
            Ok(admitted) => {
                self.malformed.remove(&object.name);
                Some(admitted)
            }
            Err(fault) => {
                if self.malformed.insert(object.name.clone()) {
                    let (what, name) = (self.what, &object.name);
                    warn!(what, %name, fault, "an object can't be read and is left out");
                }
                None
            }
        }
    }

    fn tell(&mut self, news: News<S::Object>) -> Result<(), Failure> {
        if self.sink.take(news, &self.selection, &self.version) { Ok(()) } else { Err(Failure::Unread) }
    }
}

const MIN_PAUSE: Duration = Duration::from_millis(800);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How hard a server is tried that does not answer as it should, and whether that was said.
#[derive(Debug)]
struct Pace {
    pauses: ExponentialBackoff,
    is_broken: bool,
}

impl Pace {
    fn new() -> Self {
        Self { pauses: pauses(), is_broken: false }
    }

    /// Says so, once, and waits: at least for as long as an overloaded server asks for.
    async fn failed(&mut self, what: &str, failure: &Failure) {
        if std::mem::replace(&mut self.is_broken, true) {
            debug!(what, %failure, "still can't be watched");
        } else {
            warn!(what, %failure, "can't be watched; what is known of them gets old");
        }
        self.pause(failure.retry_after()).await;
    }

    async fn pause(&mut self, at_least: Option<Duration>) {
        let pause = self.pauses.next().unwrap_or(MAX_PAUSE);
        sleep(pause.max(at_least.unwrap_or_default())).await;
    }

    /// The next pause is short again.
    fn healthy(&mut self) {
        self.pauses = pauses();
    }

    fn working(&mut self, what: &str) {
        if std::mem::take(&mut self.is_broken) {
            info!(what, "are watched again");
        }
    }
}

/// Pauses between attempts: each about twice as long as the one before, and no two processes
/// alike.
pub(super) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_PAUSE)
        .with_max_delay(MAX_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}
