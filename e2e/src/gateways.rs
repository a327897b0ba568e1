//! Endpoint pickers of gateways (EPPs): what they say of the requests that they hold, to
//! everybody or only to those whose token the API server knows and lets read metrics.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sim::gateway::page;
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::api::Api;

/// The port of its metrics.
const PORT: u16 = 9090;

/// What a picker holds, and since when somebody knows.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    requests: Option<usize>,
    /// When the page first showed this number.
    shown: Option<Instant>,
}

/// One pool's endpoint picker.
#[derive(Debug)]
pub(crate) struct Gateway {
    pool: String,
    held: watch::Sender<Held>,
    asks_for_token: watch::Sender<bool>,
    refused: watch::Sender<u64>,
}

impl Gateway {
    fn new(pool: &str) -> Self {
        Self {
            pool: pool.to_owned(),
            held: watch::channel(Held::default()).0,
            asks_for_token: watch::channel(false).0,
            refused: watch::channel(0).0,
        }
    }

    /// Holds so many requests from now on.
    pub(crate) fn hold(&self, requests: usize) {
        self.held.send_replace(Held { requests: Some(requests), shown: None });
    }

    /// Whether metrics are for those only who may read them.
    pub(crate) fn ask_for_token(&self, asks: bool) {
        self.asks_for_token.send_replace(asks);
    }

    /// How many were turned away.
    pub(crate) fn refused(&self) -> u64 {
        *self.refused.borrow()
    }

    /// When the page was first read with what is held now.
    pub(crate) async fn shown(&self) -> Instant {
        let mut held = self.held.subscribe();
        let shown = held.wait_for(|held| held.shown.is_some()).await.ok().and_then(|held| held.shown);
        shown.unwrap_or_else(Instant::now)
    }

    /// Serves at `address` until `stop`; `api` reviews tokens.
    pub(crate) async fn serve(
        self: Arc<Self>,
        address: IpAddr,
        api: &Api,
        stop: CancellationToken,
    ) -> Result<()> {
        let listener = TcpListener::bind(SocketAddr::new(address, PORT)).await;
        let listener = listener.with_context(|| format!("failed to listen on {address}"))?;
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let (gateway, api) = (self.clone(), api.clone());
            connections.spawn(async move {
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (gateway, api) = (gateway.clone(), api.clone());
                    async move { Ok::<_, Infallible>(gateway.answer(&api, &request).await) }
                });
                // A client that goes away is no news.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(
        &self,
        api: &Api,
        request: &http::Request<hyper::body::Incoming>,
    ) -> Response<Full<Bytes>> {
        let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let (status, body) = match (*self.asks_for_token.borrow(), token) {
            _ if request.uri().path() != "/metrics" => (StatusCode::NOT_FOUND, String::new()),
            (false, _) => (StatusCode::OK, self.page()),
            (true, None) => (StatusCode::UNAUTHORIZED, String::new()),
            (true, Some(_)) => (StatusCode::OK, String::new()),
        };
        let (status, body) = match token {
            Some(token) if body.is_empty() && status == StatusCode::OK => match review(api, token).await {
                StatusCode::OK => (StatusCode::OK, self.page()),
                refused => (refused, String::new()),
            },
            _ => (status, body),
        };
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            self.refused.send_modify(|refused| *refused += 1);
        }
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
        response.body(Full::new(body.into())).unwrap_or_default()
    }

    fn page(&self) -> String {
        self.held.send_if_modified(|held| {
            let is_first = held.shown.is_none();
            held.shown.get_or_insert_with(Instant::now);
            is_first
        });
        page(&self.pool, self.held.borrow().requests, 0)
    }
}

/// What a picker asks of the API server about a token: whose it is, and whether they may read
/// its metrics.
async fn review(api: &Api, token: &str) -> StatusCode {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    });
    let Ok(review) = api.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await else {
        return StatusCode::INTERNAL_SERVER_ERROR;
    };
    if review.pointer("/status/authenticated").and_then(Value::as_bool) != Some(true) {
        return StatusCode::UNAUTHORIZED;
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": review.pointer("/status/user/username"),
            "groups": review.pointer("/status/user/groups"),
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        },
    });
    match api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await {
        Ok(review) if review.pointer("/status/allowed") == Some(&Value::Bool(true)) => StatusCode::OK,
        Ok(_) => StatusCode::FORBIDDEN,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Every picker, by its namespace and its pool's name.
#[derive(Debug, Default)]
pub(crate) struct Gateways(Mutex<HashMap<(String, String), Arc<Gateway>>>);

impl Gateways {
    pub(crate) fn of(&self, namespace: &str, pool: &str) -> Arc<Gateway> {
        let mut gateways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), pool.to_owned());
        gateways.entry(key).or_insert_with(|| Arc::new(Gateway::new(pool))).clone()
    }
}
