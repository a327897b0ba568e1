//! From an HTTP request to its answer.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    ApiServer, Change, Installed, Place, Received, SILENCE, State, managed, rbac, selector::Selector, status,
};

type Answer = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;
/// An object, or a code and a message.
type Outcome = Result<Value, (u16, String)>;

impl ApiServer {
    pub(super) async fn answer(&self, request: Request<Body>) -> Result<Answer, Infallible> {
        let (parts, body) = request.into_parts();
        let (latency, answer_latency) = {
            let mut state = self.state();
            if state.holds_to_rbac
                && let Some(call) = rbac::unlisted(&parts.method, &parts.uri)
            {
                state.unlisted = Some(call);
            }
            let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
            state.requests.push(Received { method, path, at: Instant::now() });
            self.announce();
            state.faults.latencies()
        };
        tokio::time::sleep(latency).await;
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let query: HashMap<String, String> =
            parts.uri.query().unwrap_or_default().split('&').filter_map(pair).collect();
        let content =
            parts.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
        let selector = Selector::of(parts.uri.query().unwrap_or_default());
        let (method, path) = (&parts.method, parts.uri.path());
        let called = Called { method, path, query: &query, selector, content, body: &body };
        match self.carry_out(&called) {
            Carried::Watch(answer) => Ok(answer),
            Carried::Nothing => std::future::pending().await,
            Carried::Read(outcome) => Ok(whole(outcome)),
            Carried::Written(outcome) => {
                tokio::time::sleep(answer_latency).await;
                Ok(whole(outcome))
            }
        }
    }

    fn carry_out(&self, called: &Called<'_>) -> Carried {
        let mut state = self.state();
        match called.refusal(&mut state) {
            Some((SILENCE, _)) => return Carried::Nothing,
            Some(refusal) => return Carried::Read(Err(refusal)),
            None => {}
        }
        let query = called.query;
        if query.get("watch").is_some_and(|watch| watch == "true") {
            let from = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
            return match called.address(&state) {
                Some(address) => {
                    let ended = state.ended.get(&address.installed.plural).copied().unwrap_or(0);
                    Carried::Watch(self.watch(address, from, ended))
                }
                None => {
                    Carried::Read(Err((404, "the server could not find the requested resource".to_owned())))
                }
            };
        }
        let outcome = called.answer(&mut state);
        self.announce();
        if *called.method == Method::GET { Carried::Read(outcome) } else { Carried::Written(outcome) }
    }

    /// Every change of a kind after `from`, for as long as somebody reads, and bookmarks.
    fn watch(&self, address: Address, from: u64, ended: u64) -> Answer {
        let (server, activity) = (self.clone(), self.activity.subscribe());
        let lines = stream::unfold(
            (server, activity, address, from),
            move |(server, mut activity, address, from)| async move {
                let bookmark_due = Instant::now() + BOOKMARK;
                loop {
                    activity.borrow_and_update();
                    if server.state().ended.get(&address.installed.plural).is_some_and(|now| *now > ended) {
                        return None;
                    }
                    if let Some((event, version)) = server.next_event(&address, from, bookmark_due) {
                        return Some((format!("{event}\n"), (server, activity, address, version)));
                    }
                    tokio::select! {
                        changed = activity.changed() => changed.ok()?,
                        () = tokio::time::sleep_until(bookmark_due) => {}
                    }
                }
            },
        );
        answer(StatusCode::OK, lines.map(|line| Ok(Frame::data(line.into()))).boxed())
    }

    /// The first event of a watch after the version `from`, and its version.
    fn next_event(&self, address: &Address, from: u64, bookmark_due: Instant) -> Option<(Value, u64)> {
        let state = self.state();
        let at = state.history.partition_point(|change| change.version <= from);
        let mut changes = state.history[at..].iter();
        if let Some(change) = changes.find(|change| address.covers(&change.place, &change.object)) {
            let Change { version, what, object, .. } = change;
            return Some((json!({"type": what, "object": address.shown(object.clone())}), *version));
        }
        let version = state.version.max(from);
        let bookmark = json!({"metadata": {"resourceVersion": version.to_string()}});
        (Instant::now() >= bookmark_due)
            .then(|| (json!({"type": "BOOKMARK", "object": address.shown(bookmark)}), version))
    }
}

/// What came of a request.
enum Carried {
    Watch(Answer),
    Read(Outcome),
    Written(Outcome),
    /// There is to be no answer.
    Nothing,
}

/// From the last event of a watch to a bookmark.
const BOOKMARK: Duration = Duration::from_secs(60);

/// What a path names.
#[derive(Clone, Debug)]
struct Address {
    installed: Installed,
    namespace: Option<String>,
    name: Option<String>,
    selector: Selector,
}

impl Address {
    fn covers(&self, place: &Place, object: &Value) -> bool {
        place.group == self.installed.group
            && place.plural == self.installed.plural
            && self.selector.covers(object)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == place.namespace)
    }

    /// An object in the version that was asked for.
    fn shown(&self, mut object: Value) -> Value {
        object["apiVersion"] = self.api_version().into();
        object["kind"] = self.installed.kind.clone().into();
        object
    }

    fn api_version(&self) -> String {
        format!("{}/{}", self.installed.group, self.installed.version).trim_start_matches('/').to_owned()
    }

    fn place(&self, name: &str) -> Place {
        Place {
            group: self.installed.group.clone(),
            plural: self.installed.plural.clone(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        }
    }
}

struct Called<'a> {
    method: &'a Method,
    path: &'a str,
    query: &'a HashMap<String, String>,
    selector: Result<Selector, String>,
    content: &'a str,
    body: &'a [u8],
}

impl Called<'_> {
    fn refusal(&self, state: &mut State) -> Option<(u16, String)> {
        let fault = state.faults.of(self.method, self.path);
        fault.or_else(|| self.selector.as_ref().err().map(|unknown| (400, unknown.clone())))
    }

    fn address(&self, state: &State) -> Option<Address> {
        let mut parts: Vec<&str> = self.path.split('/').skip(1).collect();
        if parts.first() == Some(&"api") {
            parts.splice(0..1, ["apis", ""]);
        }
        let (group, version, rest) = match &parts[..] {
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, plural, name) = match rest {
            ["namespaces", namespace, plural] => (Some(*namespace), *plural, None),
            ["namespaces", namespace, plural, name] => (Some(*namespace), *plural, Some(*name)),
            [plural] => (None, *plural, None),
            [plural, name] => (None, *plural, Some(*name)),
            _ => return None,
        };
        let mut installed = state.installed.iter();
        let installed =
            installed.find(|it| it.group == group && it.version == version && it.plural == plural)?;
        Some(Address {
            installed: installed.clone(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            selector: self.selector.clone().unwrap_or_default(),
        })
    }

    fn answer(&self, state: &mut State) -> Outcome {
        if let Some(resources) = self.resources(state) {
            return Ok(resources);
        }
        if *self.method == Method::POST && self.path.ends_with("/token") {
            return self.token(state);
        }
        let Some(address) = self.address(state) else {
            return Err((404, "the server could not find the requested resource".to_owned()));
        };
        match (self.method, &address.name) {
            (&Method::GET, None) => Ok(list(state, &address)),
            (&Method::GET, Some(name)) => {
                let object = state.objects.get(&address.place(name)).cloned();
                object.map(|object| address.shown(object)).ok_or_else(|| not_found(name))
            }
            (&Method::POST, None) => {
                let object = self.object()?;
                let place = address.place(object["metadata"]["name"].as_str().unwrap_or_default());
                if state.objects.contains_key(&place) {
                    return Err((409, format!("{} already exists", place.name)));
                }
                Ok(address.shown(state.put(place, object)))
            }
            (&Method::PUT, Some(name)) => {
                let (object, place) = (self.object()?, address.place(name));
                let version = &object["metadata"]["resourceVersion"];
                match state.objects.get(&place) {
                    None => Err(not_found(name)),
                    Some(stored)
                        if !version.is_null() && stored["metadata"]["resourceVersion"] != *version =>
                    {
                        Err((409, "the object has been modified".to_owned()))
                    }
                    Some(_) => Ok(address.shown(state.put(place, object))),
                }
            }
            (&Method::PATCH, Some(name)) => self.patch(state, &address, name),
            (&Method::DELETE, Some(name)) => self.delete(state, &address.place(name)),
            _ => Err((405, format!("{} is not simulated here", self.method))),
        }
    }

    /// What one version of a group holds; `None` where the path asks for something else.
    fn resources(&self, state: &State) -> Option<Value> {
        let (group, version) = self.path.strip_prefix("/apis/")?.split_once('/')?;
        let installed = state.installed.iter().filter(|it| it.group == group && it.version == version);
        let resources: Vec<Value> = installed
            .map(|it| json!({"name": it.plural, "kind": it.kind, "namespaced": true, "singularName": "", "verbs": []}))
            .collect();
        let list = json!({"kind": "APIResourceList", "groupVersion": format!("{group}/{version}"), "resources": resources});
        (!resources.is_empty()).then_some(list)
    }

    fn patch(&self, state: &mut State, address: &Address, name: &str) -> Outcome {
        let place = address.place(name);
        let existing = state.objects.get(&place);
        let given = self.object()?;
        let changed = if self.content.starts_with("application/apply-patch") {
            let manager = self.query.get("fieldManager").map_or("", String::as_str);
            let force = self.query.get("force").is_some_and(|force| force == "true");
            managed::apply(existing, &given, manager, force).map_err(|message| (409, message))?
        } else {
            let existing = existing.ok_or_else(|| not_found(name))?;
            let mut changed = existing.clone();
            if self.content.starts_with("application/json-patch") {
                json_patch(&mut changed, &given).map_err(|message| (422, message))?;
            } else {
                managed::merge(&mut changed, &given);
            }
            if changed["metadata"]["resourceVersion"] != existing["metadata"]["resourceVersion"] {
                return Err((409, "the object has been modified".to_owned()));
            }
            changed
        };
        Ok(address.shown(state.put(place, changed)))
    }

    /// A token for an account, named `token-1` and so on.
    fn token(&self, state: &mut State) -> Outcome {
        let mut request = self.object()?;
        state.tokens += 1;
        request["status"] = json!({"token": format!("token-{}", state.tokens), "expirationTimestamp": null});
        Ok(request)
    }

    fn delete(&self, state: &mut State, place: &Place) -> Outcome {
        let Some(mut object) = state.objects.get(place).cloned() else { return Err(not_found(&place.name)) };
        let wanted = self.object().unwrap_or_default()["preconditions"]["uid"].clone();
        if !wanted.is_null() && wanted != object["metadata"]["uid"] {
            return Err((409, format!("the UID in the precondition is {wanted}")));
        }
        let has_finalizers = object["metadata"]["finalizers"].as_array().is_some_and(|it| !it.is_empty());
        if has_finalizers {
            object["metadata"]["deletionTimestamp"] = "2026-11-02T00:00:00Z".into();
            Ok(state.put(place.clone(), object))
        } else {
            state.remove(place);
            Ok(object)
        }
    }

    fn object(&self) -> Outcome {
        serde_json::from_slice(self.body).map_err(|error| (400, error.to_string()))
    }
}

fn list(state: &State, address: &Address) -> Value {
    let objects = state.objects.iter().filter(|(place, object)| address.covers(place, object));
    let items: Vec<Value> = objects.map(|(_, object)| address.shown(object.clone())).collect();
    json!({
        "kind": format!("{}List", address.installed.kind),
        "apiVersion": address.api_version(),
        "metadata": {"resourceVersion": state.version.to_string()},
        "items": items,
    })
}

/// As much of RFC 6902 as sets members of objects.
fn json_patch(object: &mut Value, steps: &Value) -> Result<(), String> {
    for step in steps.as_array().into_iter().flatten() {
        let path = step["path"].as_str().unwrap_or_default();
        let (parent, member) = path.rsplit_once('/').unwrap_or_default();
        let member = member.replace("~1", "/").replace("~0", "~");
        let parent = object.pointer_mut(parent).and_then(Value::as_object_mut);
        let parent = parent.ok_or_else(|| format!("{path} is not there"))?;
        match step["op"].as_str() {
            Some("add" | "replace") => parent.insert(member, step["value"].clone()),
            Some("remove") => parent.remove(&member),
            other => return Err(format!("{other:?} is not simulated")),
        };
    }
    Ok(())
}

fn not_found(name: &str) -> (u16, String) {
    (404, format!("{name} not found"))
}

fn pair(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    Some((key.to_owned(), value.to_owned()))
}

fn whole(outcome: Outcome) -> Answer {
    let (code, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err((code, message)) => {
            (StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), status(code, &message))
        }
    };
    answer(code, stream::once(std::future::ready(Ok(Frame::data(body.to_string().into())))).boxed())
}

fn answer(code: StatusCode, body: BoxStream<'static, Result<Frame<Bytes>, Infallible>>) -> Answer {
    let mut answer = Response::new(StreamBody::new(body));
    *answer.status_mut() = code;
    answer
}
