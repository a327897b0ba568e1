//! A Kubernetes API server that a test plays: each call waits until the test answers it.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::{Client, client::Body};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::service_fn;

use sim::access;

/// Nothing that a test waits for takes longer.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

type Frames = StreamBody<UnboundedReceiverStream<Result<Frame<Bytes>, Infallible>>>;

/// The server's side.
pub(super) struct FakeApi {
    calls: mpsc::UnboundedReceiver<Call>,
    /// Calls that came while another was waited for.
    parked: VecDeque<Call>,
}

/// A call that waits for its answer.
pub(super) struct Call {
    pub path: String,
    pub query: BTreeMap<String, String>,
    answer: oneshot::Sender<Response<Frames>>,
}

/// A watch that is open until this is dropped.
pub(super) struct OpenWatch {
    body: mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>,
}

impl FakeApi {
    pub(super) fn start() -> (Client, Self) {
        let (sender, calls) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Body>| {
            let sender = sender.clone();
            async move {
                assert_eq!(request.method(), http::Method::GET, "discovery only reads");
                let unlisted = access::unlisted(request.method(), request.uri());
                assert_eq!(unlisted, None, "not listed in sim::access");
                let url = Url::parse(&format!("http://api{}", request.uri())).unwrap();
                let (answer, answered) = oneshot::channel();
                let query = url.query_pairs().into_owned().collect();
                let call = Call { path: url.path().to_owned(), query, answer };
                let gone = || std::io::Error::other("the connection broke");
                sender.send(call).map_err(|_| gone())?;
                answered.await.map_err(|_| gone())
            }
        });
        (Client::new(service, "default"), Self { calls, parked: VecDeque::new() })
    }

    /// The next call for `path`. Gives up after an hour of virtual time, for without an end a
    /// test would wait for ever.
    pub(super) async fn next(&mut self, path: &str) -> Call {
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
    pub(super) fn asks(&self, expected: &[(&str, Option<&str>)]) {
        for (key, value) in expected {
            assert_eq!(self.query.get(*key).map(String::as_str), *value, "{key} in {:?}", self.query);
        }
    }

    /// Answers with a whole list.
    pub(super) fn list(self, version: &str, items: &[Value]) {
        self.page(version, items, None);
    }

    pub(super) fn page(self, version: &str, items: &[Value], next: Option<&str>) {
        assert!(!self.query.contains_key("watch"), "{:?} is no list", self.query);
        let metadata = json!({"resourceVersion": version, "continue": next.unwrap_or_default()});
        self.json(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}),
        );
    }

    /// Opens a watch.
    pub(super) fn watch(self) -> OpenWatch {
        self.asks(&[("watch", Some("true")), ("allowWatchBookmarks", Some("true"))]);
        OpenWatch { body: self.respond(StatusCode::OK) }
    }

    /// What a group version serves.
    pub(super) fn resources(self, plurals: &[&str]) {
        let resources: Vec<_> = plurals
            .iter()
            .map(|name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "Any", "verbs": ["list"]}))
            .collect();
        let group = self.path.trim_start_matches("/apis/").to_owned();
        self.json(
            StatusCode::OK,
            &json!({"kind": "APIResourceList", "groupVersion": group, "resources": resources}),
        );
    }

    pub(super) fn fail(self, code: u16, message: &str) {
        self.fail_with(code, message, 0);
    }

    pub(super) fn fail_with(self, code: u16, message: &str, retry_after_seconds: u32) {
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
    pub(super) fn send(&self, kind: &str, object: &Value) -> bool {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.body.send(Ok(Frame::data(line.into()))).is_ok()
    }

    pub(super) fn bookmark(&self, version: &str) -> bool {
        let metadata = json!({"resourceVersion": version});
        self.send("BOOKMARK", &json!({"kind": "Any", "apiVersion": "v1", "metadata": metadata}))
    }

    pub(super) fn error(&self, code: u16) -> bool {
        self.send(
            "ERROR",
            &json!({"kind": "Status", "status": "Failure", "code": code, "message": "so it is"}),
        )
    }
}
