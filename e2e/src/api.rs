//! The Kubernetes API, as the harness talks to it: objects are JSON, conditions are awaited by
//! watches, and what was seen last is told where a condition does not come true.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use futures::{StreamExt, pin_mut};
use kube::{
    Client, Config,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        PostParams,
    },
    config::{KubeConfigOptions, Kubeconfig},
};
use kube_runtime::watcher::{self, Event};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::TaskTracker;

/// A kind of objects: its apiVersion and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(pub &'static str, pub &'static str);

pub(crate) const CRD: Kind = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition");
pub(crate) const DEPLOYMENT: Kind = Kind("apps/v1", "Deployment");
pub(crate) const ENDPOINT_SLICE: Kind = Kind("discovery.k8s.io/v1", "EndpointSlice");
pub(crate) const EVENT: Kind = Kind("events.k8s.io/v1", "Event");
pub(crate) const HPA: Kind = Kind("autoscaling/v2", "HorizontalPodAutoscaler");
pub(crate) const INFERENCE_SET: Kind = Kind("kaito.sh/v1beta1", "InferenceSet");
pub(crate) const LEASE: Kind = Kind("coordination.k8s.io/v1", "Lease");
pub(crate) const NAMESPACE: Kind = Kind("v1", "Namespace");
pub(crate) const POD: Kind = Kind("v1", "Pod");
pub(crate) const SCALED_OBJECT: Kind = Kind("keda.sh/v1alpha1", "ScaledObject");
pub(crate) const SECRET: Kind = Kind("v1", "Secret");
pub(crate) const SERVICE: Kind = Kind("v1", "Service");
pub(crate) const SERVICE_ACCOUNT: Kind = Kind("v1", "ServiceAccount");
pub(crate) const TRIGGER_AUTHENTICATION: Kind = Kind("keda.sh/v1alpha1", "ClusterTriggerAuthentication");
pub(crate) const WORKSPACE: Kind = Kind("kaito.sh/v1beta1", "Workspace");

impl Kind {
    /// The object `name`, which is in no namespace where that is empty.
    pub(crate) fn named(self, namespace: &str, name: &str) -> Object {
        Object { kind: self, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn resource(self) -> ApiResource {
        resource(self.0, self.1)
    }
}

fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// Which object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind: Kind(_, kind), namespace, name } = self;
        write!(f, "{kind} {namespace}{}{name}", if namespace.is_empty() { "" } else { "/" })
    }
}

/// All objects of a kind, by namespace and name.
pub(crate) type Objects = Arc<BTreeMap<(String, String), Value>>;

/// A client of the API server.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Api")
    }
}

/// The API server's words where they are all that matters; kube would print its status twice.
fn short(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow!("{} ({})", status.message, status.code),
        error => error.into(),
    }
}

/// Who writes, in managedFields.
const MANAGER: &str = "e2e";
/// Between attempts to watch; the API server is restarted under some scenarios.
const RETRY: Duration = Duration::from_millis(200);

impl Api {
    /// A client with the rights that `kubeconfig` (its text) gives.
    pub(crate) async fn connect(kubeconfig: &str) -> Result<Self> {
        let kubeconfig = Kubeconfig::from_yaml(kubeconfig).context("the kubeconfig is not valid")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.context("the kubeconfig is not valid")?;
        config.default_retry = false;
        Ok(Self { client: Client::try_from(config).context("failed to make a client")? })
    }

    fn of(&self, resource: &ApiResource, namespace: &str) -> kube::Api<DynamicObject> {
        if namespace.is_empty() {
            kube::Api::all_with(self.client.clone(), resource)
        } else {
            kube::Api::namespaced_with(self.client.clone(), namespace, resource)
        }
    }

    fn at(&self, object: &Object) -> kube::Api<DynamicObject> {
        self.of(&object.kind.resource(), &object.namespace)
    }

    /// Applies an object, server-side and by force.
    pub(crate) async fn apply(&self, object: &Value) -> Result<Value> {
        let (api, name) = self.place(object)?;
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = api.patch(&name, &parameters, &Patch::Apply(object)).await;
        value(
            applied
                .map_err(short)
                .with_context(|| format!("failed to apply {} {name}", text(object, "/kind")))?,
        )
    }

    /// Creates an object, under another field manager where one is named.
    pub(crate) async fn create(&self, object: &Value, manager: Option<&str>) -> Result<Value> {
        let (api, name) = self.place(object)?;
        let object: DynamicObject = serde_json::from_value(object.clone()).context("not an object")?;
        let parameters = PostParams { field_manager: manager.map(str::to_owned), ..PostParams::default() };
        value(
            api.create(&parameters, &object)
                .await
                .map_err(short)
                .with_context(|| format!("failed to create {name}"))?,
        )
    }

    fn place(&self, object: &Value) -> Result<(kube::Api<DynamicObject>, String)> {
        let (api_version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
        let name = text(object, "/metadata/name");
        if api_version.is_empty() || kind.is_empty() || name.is_empty() {
            bail!("an object lacks apiVersion, kind or name: {object}");
        }
        Ok((self.of(&resource(&api_version, &kind), &text(object, "/metadata/namespace")), name))
    }

    pub(crate) async fn get(&self, object: &Object) -> Result<Option<Value>> {
        let found = self.at(object).get_opt(&object.name).await;
        found.map_err(short).with_context(|| format!("failed to get {object}"))?.map(value).transpose()
    }

    /// The objects of a kind in `namespace`, or everywhere where that is empty.
    pub(crate) async fn list(&self, kind: Kind, namespace: &str) -> Result<Vec<Value>> {
        let listed = self.of(&kind.resource(), namespace).list(&ListParams::default()).await;
        listed
            .map_err(short)
            .with_context(|| format!("failed to list {}", kind.1))?
            .items
            .into_iter()
            .map(value)
            .collect()
    }

    pub(crate) async fn merge(&self, object: &Object, patch: Value) -> Result<Value> {
        let patched =
            self.at(object).patch(&object.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        value(patched.map_err(short).with_context(|| format!("failed to patch {object}"))?)
    }

    pub(crate) async fn merge_status(&self, object: &Object, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        let patched = self.at(object).patch_status(&object.name, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(short).with_context(|| format!("failed to patch the status of {object}"))
    }

    /// Deletes an object, if it is there.
    pub(crate) async fn delete(&self, object: &Object) -> Result<()> {
        self.delete_with(object, &DeleteParams::default()).await
    }

    /// Deletes a pod that has ended, as a kubelet does.
    pub(crate) async fn delete_at_once(&self, object: &Object, uid: &str) -> Result<()> {
        let preconditions = kube::api::Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.delete_with(object, &parameters.grace_period(0)).await
    }

    async fn delete_with(&self, object: &Object, parameters: &DeleteParams) -> Result<()> {
        match self.at(object).delete(&object.name, parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(short(error)).with_context(|| format!("failed to delete {object}")),
        }
    }

    /// A path of the API, as it is answered.
    pub(crate) async fn raw(&self, path: &str) -> Result<Value> {
        let request = http::Request::get(path).body(vec![]).context("not a path")?;
        self.client.request(request).await.map_err(short).with_context(|| format!("failed to get {path}"))
    }

    /// A path of the API server that answers in plain text.
    pub(crate) async fn raw_text(&self, path: &str) -> Result<String> {
        let request = http::Request::get(path).body(vec![]).context("not a path")?;
        self.client
            .request_text(request)
            .await
            .map_err(short)
            .with_context(|| format!("failed to get {path}"))
    }

    /// Posts to a path, such as a subresource's.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = http::Request::post(path).header("Content-Type", "application/json");
        let request = request.body(body.to_string().into_bytes()).context("not a path")?;
        self.client.request(request).await.map_err(short).with_context(|| format!("failed to post to {path}"))
    }

    /// A token of a ServiceAccount.
    pub(crate) async fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 24 * 3600},
        });
        Ok(text(&self.post(&path, &request).await?, "/status/token"))
    }

    /// Awaits a condition of one object: `test` gives what was waited for, or what it saw
    /// instead.
    pub(crate) async fn until<T>(
        &self,
        object: &Object,
        what: &str,
        limit: Duration,
        mut test: impl FnMut(Option<&Value>) -> Result<T, String>,
    ) -> Result<T> {
        let key = (object.namespace.clone(), object.name.clone());
        let fields = format!("metadata.name={}", object.name);
        let config = watcher::Config::default().fields(&fields);
        let api = self.at(object);
        self.until_watched(api, config, &format!("{object} {what}"), limit, |all| test(all.get(&key))).await
    }

    /// Awaits a condition of all objects of a kind in `namespace`.
    pub(crate) async fn until_all<T>(
        &self,
        kind: Kind,
        namespace: &str,
        what: &str,
        limit: Duration,
        test: impl FnMut(&BTreeMap<(String, String), Value>) -> Result<T, String>,
    ) -> Result<T> {
        let api = self.of(&kind.resource(), namespace);
        self.until_watched(api, watcher::Config::default(), what, limit, test).await
    }

    async fn until_watched<T>(
        &self,
        api: kube::Api<DynamicObject>,
        config: watcher::Config,
        what: &str,
        limit: Duration,
        mut test: impl FnMut(&BTreeMap<(String, String), Value>) -> Result<T, String>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let events = watcher::watcher(api, config);
        pin_mut!(events);
        let (mut all, mut listed) = (BTreeMap::new(), BTreeMap::new());
        let mut seen = "nothing yet".to_owned();
        loop {
            let event = timeout_at(deadline, events.next()).await;
            let event = event.map_err(|_| anyhow!("waited {limit:?} for: {what}. Seen last: {seen}"))?;
            match event {
                Some(Ok(event)) => {
                    if fold(event, &mut all, &mut listed) {
                        match test(&all) {
                            Ok(found) => return Ok(found),
                            Err(instead) => seen = instead,
                        }
                    }
                }
                Some(Err(error)) => {
                    seen = format!("{seen}; then: {error}");
                    sleep(RETRY).await;
                }
                None => bail!("the watch ended while waiting for: {what}. Seen last: {seen}"),
            }
        }
    }

    /// All objects of a kind, kept up to date by a task of `tasks`.
    pub(crate) fn mirror(&self, kind: Kind, tasks: &TaskTracker) -> watch::Receiver<Objects> {
        let (sender, receiver) = watch::channel(Objects::default());
        let api = self.of(&kind.resource(), "");
        tasks.spawn(async move {
            let events = watcher::watcher(api, watcher::Config::default());
            pin_mut!(events);
            let (mut all, mut listed) = (BTreeMap::new(), BTreeMap::new());
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        if fold(event, &mut all, &mut listed) && sender.send(Arc::new(all.clone())).is_err() {
                            return;
                        }
                    }
                    Err(_) => sleep(RETRY).await,
                }
            }
        });
        receiver
    }
}

/// Awaits a condition that nothing can be watched for: asks `test` over and over.
pub(crate) async fn until_asked<T, F>(what: &str, limit: Duration, mut test: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match test().await {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => {
                bail!("waited {limit:?} for: {what}. Seen last: {seen}")
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Folds a watch's event. Whether `all` is complete and may be looked at.
fn fold(
    event: Event<DynamicObject>,
    all: &mut BTreeMap<(String, String), Value>,
    listed: &mut BTreeMap<(String, String), Value>,
) -> bool {
    let key = |object: &DynamicObject| {
        let metadata = &object.metadata;
        (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
    };
    match event {
        Event::Init => {
            listed.clear();
            return false;
        }
        Event::InitApply(object) => {
            listed.insert(key(&object), value(object).unwrap_or_default());
            return false;
        }
        Event::InitDone => *all = std::mem::take(listed),
        Event::Apply(object) => {
            all.insert(key(&object), value(object).unwrap_or_default());
        }
        Event::Delete(object) => {
            all.remove(&key(&object));
        }
    }
    true
}

fn value(object: DynamicObject) -> Result<Value> {
    serde_json::to_value(object).context("an object is no JSON")
}

/// The text at `pointer`, or nothing.
pub(crate) fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The whole number at `pointer`.
pub(crate) fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The label of an object.
pub(crate) fn label(object: &Value, name: &str) -> String {
    let labels = object.pointer("/metadata/labels");
    labels.and_then(|labels| labels.get(name)).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The condition `kind` of an object: its status, reason and message.
pub(crate) fn condition(object: &Value, kind: &str) -> (String, String) {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| text(condition, "/type") == kind);
    found.map_or_else(
        || (String::new(), format!("no condition {kind}")),
        |found| (text(found, "/status"), format!("{}: {}", text(found, "/reason"), text(found, "/message"))),
    )
}

/// Every document of a YAML file.
pub(crate) fn documents(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("not YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}
