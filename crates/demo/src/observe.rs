//! What the engine says of itself, over its own pages.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use scaler_core::exposition::samples;

/// One entry of `/debug/targets`, as far as the demo shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    pub metric: String,
    pub value: Option<f64>,
    pub active: bool,
    pub why: String,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    pub uid: String,
    pub phase: String,
    pub page: Option<String>,
}

/// A reader of the engine's metrics port.
#[derive(Debug)]
pub(crate) struct Observer {
    client: reqwest::Client,
    targets: String,
    metrics: String,
}

/// Why the engine's pages could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObserveError {
    #[error("failed to make an HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("failed to fetch {url}")]
    Fetch { url: String, source: reqwest::Error },
    #[error("failed to read the targets")]
    Targets(#[from] serde_json::Error),
}

impl Observer {
    pub(crate) fn new(metrics_address: SocketAddr) -> Result<Self, ObserveError> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
        Ok(Self {
            client: client.map_err(ObserveError::Client)?,
            targets: format!("http://{metrics_address}/debug/targets"),
            metrics: format!("http://{metrics_address}/metrics"),
        })
    }

    /// Every target, with its decision record.
    pub(crate) async fn targets(&self) -> Result<Vec<Target>, ObserveError> {
        Ok(serde_json::from_str(&self.fetch(&self.targets).await?)?)
    }

    /// The engine's own share of an activation, in milliseconds: from the sample that showed
    /// demand to the frame on KEDA's stream, as its metrics have it. `None` before the first.
    pub(crate) async fn activation_latency(&self) -> Result<Option<f64>, ObserveError> {
        let page = self.fetch(&self.metrics).await?;
        Ok(mean(page.as_bytes(), "keda_kaito_scaler_activation_latency_seconds")
            .map(|seconds| seconds * 1000.0))
    }

    async fn fetch(&self, url: &str) -> Result<String, ObserveError> {
        let failed = |source| ObserveError::Fetch { url: url.to_owned(), source };
        let response = self.client.get(url).send().await.and_then(reqwest::Response::error_for_status);
        response.map_err(failed)?.text().await.map_err(failed)
    }
}

/// The mean of a histogram; `None` where it has no observation.
fn mean(page: &[u8], family: &str) -> Option<f64> {
    let total = |suffix: &str| {
        let ours = |name: &str| name.strip_prefix(family) == Some(suffix);
        samples(page).filter(|sample| ours(sample.name)).map(|sample| sample.value).sum::<f64>()
    };
    let count = total("_count");
    (count > 0.0).then(|| total("_sum") / count)
}

#[cfg(test)]
mod tests {
    use super::{Target, mean};

    #[test]
    fn the_mean_is_over_all_series() {
        let page = b"x_sum{a=\"1\"} 3.0\nx_sum{a=\"2\"} 5.0\nx_count{a=\"1\"} 1\nx_count{a=\"2\"} 3\nx_count_more 9\n";
        assert_eq!(mean(page, "x"), Some(2.0));
        assert_eq!(mean(page, "y"), None);
    }

    #[test]
    fn a_target_is_read_with_whatever_else_is_there() {
        let json = r#"[{"namespace": "default", "scaledObject": "phi-4", "inferenceSet": "default/phi-4",
            "metric": "vllm:num_requests_waiting", "aggregation": "sum", "value": null, "active": true,
            "replicas": 1, "known": 0, "unknown": 0, "inFlight": 1, "why": "one replica is on its way",
            "lastPush": null, "endpoints": [{"pod": "phi-4-a-0", "uid": "u", "address": null,
            "phase": "Loading", "value": null, "ageSeconds": null, "page": null, "lastError": null}]}]"#;
        let targets: Vec<Target> = serde_json::from_str(json).unwrap();
        assert_eq!((targets[0].value, targets[0].active), (None, true));
        assert_eq!(targets[0].endpoints[0].phase, "Loading");
    }
}
