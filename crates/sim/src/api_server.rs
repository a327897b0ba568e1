//! An API server in memory: what a client of the Kubernetes API can see of one, for the kinds
//! that a test installs. It lists, watches, gets, applies server-side with field ownership,
//! patches, deletes under preconditions and keeps events.
//!
//! It knows no schema, no admission and only simple selectors; a request with another is
//! refused, so that no test passes by getting everything.

mod by_path;
mod faults;
mod listen;
mod managed;
pub mod rbac;
mod requests;
mod selector;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::Method;
use kube::Client;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use self::faults::Faults;
pub use self::{by_path::ByPath, faults::SILENCE};

/// An API server. Clones are the same one.
#[derive(Clone, Debug)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    /// Fires with each request and each change: what watches and tests wait on.
    activity: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    installed: Vec<Installed>,
    objects: BTreeMap<Place, Value>,
    history: Vec<Change>,
    version: u64,
    requests: Vec<Received>,
    faults: Faults,
    /// How many tokens were given out.
    tokens: u32,
    /// By plural, how often the watches of a kind were ended.
    ended: BTreeMap<String, u64>,
    /// A call that a cluster would refuse. Who makes it may try again for ever, so the one that
    /// waits has to be told.
    unlisted: Option<String>,
    /// Whether calls are held against the chart's RBAC.
    holds_to_rbac: bool,
}

/// A kind in one version. All versions of a group share their objects.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Installed {
    group: String,
    version: String,
    kind: String,
    plural: String,
}

/// Where an object is: group, plural, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    group: String,
    plural: String,
    namespace: String,
    name: String,
}

#[derive(Clone, Debug)]
struct Change {
    version: u64,
    place: Place,
    what: &'static str,
    object: Value,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: Method,
    /// Without its query.
    pub path: String,
    pub at: Instant,
}

impl Received {
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

impl ApiServer {
    /// With HPAs and events, which every API server has.
    #[must_use]
    pub fn new() -> Self {
        let server = Self { state: Arc::default(), activity: watch::Sender::new(()) };
        server.install("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
        server.install("events.k8s.io/v1", "Event", "events");
        server
    }

    /// The same, but [`until`](Self::until) panics at a call that the chart does not grant.
    #[must_use]
    pub fn with_chart_rbac() -> Self {
        let server = Self::new();
        server.state().holds_to_rbac = true;
        server
    }

    /// A cluster with KEDA, KAITO and gateways, held to the chart's RBAC.
    #[must_use]
    pub fn complete() -> Self {
        let server = Self::with_chart_rbac();
        for (api_version, kind, plural) in [
            ("v1", "Secret", "secrets"),
            ("v1", "Pod", "pods"),
            ("v1", "Service", "services"),
            ("coordination.k8s.io/v1", "Lease", "leases"),
            ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
            ("inference.networking.k8s.io/v1", "InferencePool", "inferencepools"),
            ("inference.networking.x-k8s.io/v1alpha2", "InferencePool", "inferencepools"),
            ("kaito.sh/v1alpha1", "MultiRoleInference", "multiroleinferences"),
            ("kaito.sh/v1beta1", "InferenceSet", "inferencesets"),
            ("kaito.sh/v1beta1", "Workspace", "workspaces"),
            ("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
            ("keda.sh/v1alpha1", "ClusterTriggerAuthentication", "clustertriggerauthentications"),
        ] {
            server.install(api_version, kind, plural);
        }
        server
    }

    /// Serves a kind, as after its CRD was installed.
    pub fn install(&self, api_version: &str, kind: &str, plural: &str) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.state().installed.push(Installed {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        });
    }

    /// A client of it. No socket is involved, so that a paused clock can stay paused.
    #[must_use]
    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request| {
            let server = server.clone();
            async move { server.answer(request).await }
        });
        Client::new(service, "default")
    }

    /// Creates an object, or replaces it whole; what is missing of its metadata is added.
    pub fn put(&self, object: Value) {
        self.put_as("kubectl", object);
    }

    /// [`Self::put`] by an Update of `manager`, unless the object says itself who wrote it.
    pub fn put_as(&self, manager: &str, object: Value) {
        let mut state = self.state();
        let place = state.place_of(&object);
        state.put(place, managed::owned_by(object, manager));
        self.announce();
    }

    /// Changes an object behind everybody's back. Does nothing where it isn't there.
    pub fn edit(&self, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        let place = state.place(kind, namespace, name);
        if let Some(mut object) = state.objects.get(&place).cloned() {
            change(&mut object);
            state.put(place, object);
        }
        self.announce();
    }

    pub fn remove(&self, kind: &str, namespace: &str, name: &str) {
        let mut state = self.state();
        let place = state.place(kind, namespace, name);
        state.remove(&place);
        self.announce();
    }

    #[must_use]
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let state = self.state();
        state.objects.get(&state.place(kind, namespace, name)).cloned()
    }

    /// Every object of a kind, by namespace and name.
    #[must_use]
    pub fn all(&self, kind: &str) -> Vec<Value> {
        let state = self.state();
        let Place { group, plural, .. } = state.place(kind, "", "");
        let of_kind = |place: &Place| place.group == group && place.plural == plural;
        state.objects.iter().filter(|(place, _)| of_kind(place)).map(|(_, object)| object.clone()).collect()
    }

    /// How many objects of a kind there are.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        let state = self.state();
        let Place { group, plural, .. } = state.place(kind, "", "");
        state.objects.keys().filter(|place| place.group == group && place.plural == plural).count()
    }

    /// Every event so far, as `REASON KIND/NAME: NOTE`, in their order.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let state = self.state();
        let created = state.history.iter().filter(|change| change.place.plural == "events");
        created
            .map(|Change { object, .. }| {
                let regarding = &object["regarding"];
                let [reason, kind, name, note] =
                    [&object["reason"], &regarding["kind"], &regarding["name"], &object["note"]].map(text);
                format!("{reason} {kind}/{name}: {note}")
            })
            .collect()
    }

    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.state().requests.clone()
    }

    /// The requests so far that were to change something.
    #[must_use]
    pub fn writes(&self) -> Vec<Received> {
        self.state().requests.iter().filter(|request| request.is_write()).cloned().collect()
    }

    /// Waits until `is_so`; looked at after every request and every change of an object.
    ///
    /// # Panics
    /// [With RBAC](Self::with_chart_rbac), where a call came in that is not listed in [`rbac`].
    pub async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let mut activity = self.activity.subscribe();
        loop {
            activity.borrow_and_update();
            assert_eq!(self.state().unlisted, None, "not listed in sim::api_server::rbac");
            if is_so(self) {
                return;
            }
            // The sender lives as long as `self`.
            let _ = activity.changed().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one step: a panicking test leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.activity.send_replace(());
    }
}

impl Drop for State {
    /// A test must not pass because nobody waited for anything after such a call.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.unlisted, None, "not listed in sim::api_server::rbac");
        }
    }
}

impl Default for ApiServer {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Stores an object under a new resourceVersion, unless nothing changes; gives what is
    /// stored then.
    fn put(&mut self, place: Place, mut object: Value) -> Value {
        let old = self.objects.get(&place);
        if let Some(old) = old {
            object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            if *old == object {
                return object;
            }
        }
        let what = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.version += 1;
        let version = self.version;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = version.to_string().into();
        if metadata["uid"].is_null() {
            metadata["uid"] = format!("uid-{version}").into();
        }
        if metadata["creationTimestamp"].is_null() {
            let (hours, minutes, seconds) = (version / 3600 % 24, version / 60 % 60, version % 60);
            metadata["creationTimestamp"] =
                format!("2026-11-01T{hours:02}:{minutes:02}:{seconds:02}Z").into();
        }
        self.objects.insert(place.clone(), object.clone());
        self.history.push(Change { version, place, what, object: object.clone() });
        object
    }

    fn remove(&mut self, place: &Place) {
        let Some(mut object) = self.objects.remove(place) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.history.push(Change { version: self.version, place: place.clone(), what: "DELETED", object });
    }

    fn place(&self, kind: &str, namespace: &str, name: &str) -> Place {
        let installed = self.installed.iter().find(|installed| installed.kind == kind);
        Place {
            group: installed.map(|it| it.group.clone()).unwrap_or_default(),
            plural: installed.map(|it| it.plural.clone()).unwrap_or_default(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Where the object of a path is.
    fn place_at(&self, path: &str) -> Place {
        let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let (group, rest) = match segments.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => ("", &[][..]),
        };
        let (namespace, plural, name) = match rest {
            ["namespaces", namespace, plural, name] => (*namespace, *plural, *name),
            [plural, name] => ("", *plural, *name),
            _ => panic!("{path} is no object's"),
        };
        let is_installed = |it: &Installed| it.group == group && it.plural == plural;
        assert!(self.installed.iter().any(is_installed), "{path} is of no installed kind");
        let [group, plural, namespace, name] = [group, plural, namespace, name].map(str::to_owned);
        Place { group, plural, namespace, name }
    }

    /// The path of an object, in the first version of its kind.
    fn path_of(&self, place: &Place) -> String {
        let mut installed = self.installed.iter();
        let installed = installed.find(|it| it.group == place.group && it.plural == place.plural);
        let version = installed.map_or("", |it| &it.version);
        let root = if place.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", place.group) };
        let namespace = if place.namespace.is_empty() {
            String::new()
        } else {
            format!("/namespaces/{}", place.namespace)
        };
        format!("{root}/{version}{namespace}/{}/{}", place.plural, place.name)
    }

    fn place_of(&self, object: &Value) -> Place {
        let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        self.place(text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
    }
}

/// A failure as the API server words it.
fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        400 => "BadRequest",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}
