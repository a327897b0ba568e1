//! An API server in memory, for tests: objects with resource versions, conflicts, lists,
//! watches, server-side apply, and failures on demand. It panics at a call that the chart does
//! not grant ([`crate::access`]), and with it the test.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::new_without_default,
    reason = "it panics, and with it the test, at what no API server would be asked"
)]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::access;

/// A fault with this code leaves the request without an answer.
pub const SILENCE: u16 = 999;

type Fault = Box<dyn FnMut(&Method, &str) -> Option<u16> + Send>;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// Cheap to clone; all clones are the same server.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "it holds closures")]
pub struct FakeApi(Arc<Mutex<State>>);

struct State {
    /// By path, as in `/api/v1/namespaces/keda/secrets/certs`.
    objects: BTreeMap<String, Value>,
    /// Every change: its version, `ADDED` and so on, the path and the object.
    log: Vec<(u64, &'static str, String, Value)>,
    version: watch::Sender<u64>,
    /// Fires with each request and each change.
    activity: watch::Sender<()>,
    /// Requests seen, as `PUT /api/…`.
    requests: Vec<String>,
    /// Called for each request: a status code makes it fail.
    fault: Fault,
    /// How many tokens were given out.
    tokens: u32,
}

impl FakeApi {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            objects: BTreeMap::new(),
            log: Vec::new(),
            version: watch::channel(1).0,
            activity: watch::channel(()).0,
            requests: Vec::new(),
            fault: Box::new(|_, _| None),
            tokens: 0,
        })))
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let answer = api.answer(request).await;
                if answer.status() == SILENCE {
                    pending::<()>().await;
                }
                Ok::<_, Infallible>(answer)
            }
        });
        kube::Client::new(service, "keda")
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// The objects whose path starts with `prefix`, in order of their creation.
    pub fn objects(&self, prefix: &str) -> Vec<Value> {
        let state = self.0.lock().unwrap();
        let created =
            state.log.iter().filter(|(_, kind, path, _)| *kind == "ADDED" && path.starts_with(prefix));
        created.filter_map(|(_, _, path, _)| state.objects.get(path).cloned()).collect()
    }

    /// Creates or replaces an object, as another client would.
    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().store(path, object);
    }

    pub fn delete(&self, path: &str) {
        self.0.lock().unwrap().remove(path);
    }

    /// The requests so far that contain `part`, as in `PUT /api/v1/…`.
    pub fn requests(&self, part: &str) -> usize {
        self.0.lock().unwrap().requests.iter().filter(|request| request.contains(part)).count()
    }

    /// From now on asks `fault` about each request; a status code makes it fail.
    pub fn fail(&self, fault: impl FnMut(&Method, &str) -> Option<u16> + Send + 'static) {
        self.0.lock().unwrap().fault = Box::new(fault);
    }

    /// Resolves once `condition` holds for this server; checks after each request and change.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut activity = self.0.lock().unwrap().activity.subscribe();
        while !condition(self) {
            activity.changed().await.unwrap();
        }
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let mut state = self.0.lock().unwrap();
        state.requests.push(format!("{} {path}", parts.method));
        state.activity.send_replace(());
        assert_eq!(access::unlisted(&parts.method, &parts.uri), None, "not listed in sim::access");
        if let Some(code) = (state.fault)(&parts.method, path) {
            return failure(code);
        }
        let is_collection = access::Request::parse(&parts.method, path, query)
            .is_some_and(|request| ["list", "watch"].contains(&request.verb));
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match parts.method {
            Method::GET if is_collection => {
                let selection = Selection::parse(path, query);
                if query.contains("watch=true") {
                    let from = parameter(query, "resourceVersion=").unwrap().parse().unwrap();
                    return self.watch(selection, from, state.version.subscribe());
                }
                let objects = state.objects.iter();
                let items: Vec<_> = objects
                    .filter(|(path, object)| selection.has(path, object))
                    .map(|(_, one)| one)
                    .collect();
                let version = state.version.borrow().to_string();
                ok(&json!({"kind": "List", "metadata": {"resourceVersion": version}, "items": items}))
            }
            Method::GET => state.objects.get(path).map_or_else(|| failure(404), ok),
            Method::POST if path.ends_with("/token") => {
                state.tokens += 1;
                let mut given = body;
                given["status"] =
                    json!({"token": format!("token-{}", state.tokens), "expirationTimestamp": null});
                ok(&given)
            }
            Method::POST => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if state.objects.contains_key(&path) { failure(409) } else { ok(&state.store(&path, body)) }
            }
            Method::PUT => {
                let stored =
                    state.objects.get(path).map(|stored| stored["metadata"]["resourceVersion"].clone());
                match stored {
                    None => failure(404),
                    Some(version) if version != body["metadata"]["resourceVersion"] => failure(409),
                    Some(_) => ok(&state.store(path, body)),
                }
            }
            Method::PATCH => ok(&state.store(path, body)),
            other => panic!("{other} {path}"),
        }
    }

    fn watch(&self, selection: Selection, from: u64, changes: watch::Receiver<u64>) -> Response<Answer> {
        let api = self.clone();
        let lines = stream::unfold((from, changes), move |(seen, mut changes)| {
            let (api, selection) = (api.clone(), selection.clone());
            async move {
                loop {
                    let next = {
                        let state = api.0.lock().unwrap();
                        state
                            .log
                            .iter()
                            .find(|(at, _, path, object)| *at > seen && selection.has(path, object))
                            .cloned()
                    };
                    if let Some((at, kind, _, object)) = next {
                        let line = format!("{}\n", json!({"type": kind, "object": object}));
                        return Some((Ok::<_, Infallible>(Frame::data(line.into())), (at, changes)));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Response::new(UnsyncBoxBody::new(StreamBody::new(lines)))
    }
}

/// What a list or a watch asks for.
#[derive(Clone)]
struct Selection {
    /// As asked for: with a namespace, or without for all of them.
    collection: String,
    name: Option<String>,
    /// A label and its value.
    label: Option<(String, String)>,
}

impl Selection {
    fn parse(path: &str, query: &str) -> Self {
        let label = parameter(query, "labelSelector=").map(|label| label.split_once("%3D").unwrap());
        Self {
            collection: path.to_owned(),
            name: parameter(query, "fieldSelector=metadata.name%3D").map(str::to_owned),
            label: label.map(|(key, value)| (key.to_owned(), value.to_owned())),
        }
    }

    fn has(&self, path: &str, object: &Value) -> bool {
        let (collection, name) = path.rsplit_once('/').unwrap();
        let everywhere = collection.split_once("/namespaces/").map(|(start, rest)| {
            let (_, resource) = rest.split_once('/').unwrap();
            format!("{start}/{resource}")
        });
        (collection == self.collection || everywhere.as_ref() == Some(&self.collection))
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
            && self.label.as_ref().is_none_or(|(key, value)| object["metadata"]["labels"][key] == **value)
    }
}

/// The rest of the query parameter that starts like this.
fn parameter<'a>(query: &'a str, start: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(start))
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        let version = *self.version.borrow() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object["metadata"]["name"] = json!(path.rsplit('/').next());
        let kind = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(path.to_owned(), object.clone());
        self.log.push((version, kind, path.to_owned(), object.clone()));
        self.version.send_replace(version);
        self.activity.send_replace(());
        object
    }

    fn remove(&mut self, path: &str) {
        if let Some(object) = self.objects.remove(path) {
            let version = *self.version.borrow() + 1;
            self.log.push((version, "DELETED", path.to_owned(), object));
            self.version.send_replace(version);
            self.activity.send_replace(());
        }
    }
}

fn whole(object: &Value) -> Answer {
    UnsyncBoxBody::new(Full::from(object.to_string()))
}

fn ok(object: &Value) -> Response<Answer> {
    Response::new(whole(object))
}

fn failure(code: u16) -> Response<Answer> {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        _ => "Failure",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("made to fail with {code}"), "reason": reason, "code": code});
    Response::builder().status(code).body(whole(&status)).unwrap()
}
