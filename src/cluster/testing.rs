//! A Kubernetes API server that a test plays: each call waits until the test answers it.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::service_fn;
use url::Url;

use sim::api_server::rbac;

/// Nothing that a test waits for takes longer.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);

type Frames = StreamBody<UnboundedReceiverStream<Result<Frame<Bytes>, Infallible>>>;

/// The server's side.
pub(crate) struct ScriptedApi {
    calls: mpsc::UnboundedReceiver<Call>,
    /// Calls that came while another was waited for.
    parked: VecDeque<Call>,
}

/// A call that waits for its answer.
pub(crate) struct Call {
    pub path: String,
    pub query: BTreeMap<String, String>,
    answer: oneshot::Sender<Response<Frames>>,
}

/// A watch that is open until this is dropped.
pub(crate) struct OpenWatch {
    body: mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>,
}

impl ScriptedApi {
    pub(crate) fn start() -> (Client, Self) {
        let (sender, calls) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Body>| {
            let sender = sender.clone();
            async move {
                assert_eq!(request.method(), http::Method::GET, "discovery only reads");
                let unlisted = rbac::unlisted(request.method(), request.uri());
                assert_eq!(unlisted, None, "not listed in sim::api_server::rbac");
                let url = Url::parse(&format!("http://api{}", request.uri())).unwrap();
                let (answer, answered) = oneshot::channel();
                let query = url.query_pairs().into_owned().collect();
                let call = Call { path: url.path().to_owned(), query, answer };
                let gone = || io::Error::other("the connection broke");
                sender.send(call).map_err(|_| gone())?;
                answered.await.map_err(|_| gone())
            }
        });
        (Client::new(service, "default"), Self { calls, parked: VecDeque::new() })
    }

    /// The next call for `path`. Gives up after an hour of virtual time, for without an end a
    /// test would wait for ever.
    pub(crate) async fn next(&mut self, path: &str) -> Call {
        if let Some(found) = self.parked.iter().position(|call| call.path == path) {
            return self.parked.remove(found).unwrap();
        }
        let found = async {
            loop {
                let call = self.calls.recv().await.expect("the client is gone");
                if call.path == path {
                    return call;
                }
                self.parked.push_back(call);
            }
        };
        timeout(LONGEST, found).await.unwrap_or_else(|_| panic!("nobody asks for {path}"))
    }
}

impl Call {
    #[track_caller]
    pub(crate) fn asks(&self, expected: &[(&str, Option<&str>)]) {
        for (key, value) in expected {
            assert_eq!(self.query.get(*key).map(String::as_str), *value, "{key} in {:?}", self.query);
        }
    }

    /// Answers with a whole list.
    pub(crate) fn list(self, version: &str, items: &[Value]) {
        self.page(version, items, None);
    }

    pub(crate) fn page(self, version: &str, items: &[Value], next: Option<&str>) {
        assert!(!self.query.contains_key("watch"), "{:?} is no list", self.query);
        let metadata = json!({"resourceVersion": version, "continue": next.unwrap_or_default()});
        self.json(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}),
        );
    }

    /// Opens a watch.
    pub(crate) fn watch(self) -> OpenWatch {
        self.asks(&[("watch", Some("true")), ("allowWatchBookmarks", Some("true"))]);
        OpenWatch { body: self.respond(StatusCode::OK) }
    }

    /// What a group version serves.
    pub(crate) fn resources(self, plurals: &[&str]) {
        let resources: Vec<_> = plurals
            .iter()
            .map(|name| {
                let kind = match *name {
                    "inferencesets" => "InferenceSet",
                    _ => "Any",
                };
                json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["list"]})
            })
            .collect();
        let group = self.path.trim_start_matches("/apis/").to_owned();
        self.json(
            StatusCode::OK,
            &json!({"kind": "APIResourceList", "groupVersion": group, "resources": resources}),
        );
    }

    pub(crate) fn fail(self, code: u16, message: &str) {
        self.fail_with(code, message, 0);
    }

    pub(crate) fn fail_with(self, code: u16, message: &str, retry_after_seconds: u32) {
        let details = json!({"retryAfterSeconds": retry_after_seconds});
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "message": message, "reason": "", "details": details,
        });
        self.json(StatusCode::from_u16(code).unwrap(), &status);
    }

    fn json(self, status: StatusCode, body: &Value) {
        let sender = self.respond(status);
        sender.send(Ok(Frame::data(body.to_string().into()))).unwrap();
    }

    fn respond(self, status: StatusCode) -> mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>> {
        let (sender, frames) = mpsc::unbounded_channel();
        let body = StreamBody::new(UnboundedReceiverStream::new(frames));
        let response = Response::builder().status(status).body(body).unwrap();
        assert!(self.answer.send(response).is_ok(), "the caller has gone");
        sender
    }
}

impl OpenWatch {
    /// Sends an event; false where nobody listens any more.
    pub(crate) fn send(&self, kind: &str, object: &Value) -> bool {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.body.send(Ok(Frame::data(line.into()))).is_ok()
    }

    pub(crate) fn bookmark(&self, version: &str) -> bool {
        let metadata = json!({"resourceVersion": version});
        self.send("BOOKMARK", &json!({"kind": "Any", "apiVersion": "v1", "metadata": metadata}))
    }

    pub(crate) fn error(&self, code: u16) -> bool {
        self.send(
            "ERROR",
            &json!({"kind": "Status", "status": "Failure", "code": code, "message": "so it is"}),
        )
    }
}

pub(crate) fn pod(name: &str, uid: &str, version: &str) -> Value {
    json!({
        "metadata": {
            "namespace": "team-a",
            "name": name,
            "uid": uid,
            "resourceVersion": version,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"inferenceset.kaito.sh/created-by": "demo"},
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    })
}

pub(crate) fn inference_set(name: &str, replicas: u32, version: &str) -> Value {
    let metadata = json!({"namespace": "team-a", "name": name, "resourceVersion": version});
    json!({"metadata": metadata, "spec": {"replicas": replicas}})
}

/// What is logged by this thread while the guard lives.
pub(crate) fn logs() -> (tracing::subscriber::DefaultGuard, impl Fn() -> String) {
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let page = Page::default();
    let writer = page.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let read = move || String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    (tracing::subscriber::set_default(subscriber), read)
}
