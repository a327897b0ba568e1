//! Plain HTTP for people, probes and Prometheus: `/metrics`, `/livez`, `/readyz`,
//! `/debug/targets`. Holds no secret and no profiler.

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::{mpsc, oneshot};

use crate::{metrics::Metrics, readiness::Readiness, targets::DebugRequest, tasks::Tasks};

/// What the pages are made from.
#[derive(Clone, Debug)]
pub struct Admin {
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub debug_requests: mpsc::Sender<DebugRequest>,
}

impl Admin {
    /// The pages. A panic in `tasks`' care costs the request that it happened in.
    pub fn routes(self, tasks: Tasks) -> Router {
        let contained = from_fn(move |request: Request, next: Next| {
            let tasks = tasks.clone();
            async move {
                let answer = tasks.run_contained("page", next.run(request)).await;
                answer.unwrap_or_else(|| {
                    (StatusCode::INTERNAL_SERVER_ERROR, "a panic, see the log\n").into_response()
                })
            }
        });
        Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(|| std::future::ready("ok\n")))
            .route("/readyz", get(readyz))
            .route("/debug/targets", get(targets))
            .layer(contained)
            .with_state(self)
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.page() {
        Ok(page) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], page).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let waits_for = admin.readiness.waits_for();
    if waits_for.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, waits_for.join("\n") + "\n").into_response()
}

async fn targets(State(admin): State<Admin>) -> Response {
    let (answer, described) = oneshot::channel();
    if admin.debug_requests.send(DebugRequest(answer)).await.is_ok()
        && let Ok(described) = described.await
    {
        return Json(described).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response()
}
