//! Calls of the API server, which may never answer.

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server did not answer within {} s", LIMIT.as_secs())]
    Silent,
}

/// The answer to `call`, if it comes in time.
pub(super) async fn answer<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    Ok(timeout(LIMIT, call).await.map_err(|_| CallError::Silent)??)
}
