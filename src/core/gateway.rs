//! The gateway's endpoint picker (EPP): where demand shows while there is no replica.

use super::exposition::{Selector, select};

/// Requests that its flow control holds, by the name it has had since the rename, and before.
const QUEUE: [&str; 2] = ["llm_d_epp_flow_control_queue_size", "inference_extension_flow_control_queue_size"];
/// Requests that it refused; with flow control off, the only thing that moves without
/// replicas.
const ERRORS: &str = "llm_d_epp_request_error_total";

/// One scrape of one endpoint picker, for one inference pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GatewaySample {
    /// Requests held, over all fairness classes and priorities. `None` where flow control is
    /// off and the family is missing.
    pub queued: Option<f64>,
    /// Requests refused because no endpoint could serve, since the picker started.
    pub refused_total: f64,
}

/// Reads an endpoint picker's page for one inference pool. Compiled once.
#[derive(Clone, Debug)]
pub struct GatewayPage {
    selector: Selector,
    pool: String,
}

impl GatewayPage {
    /// For the InferencePool `pool`.
    #[must_use]
    pub fn of(pool: &str) -> Self {
        Self { selector: Selector::new([QUEUE[0], QUEUE[1], ERRORS]), pool: pool.to_owned() }
    }

    /// Sums the series of the pool. A series without an `inference_pool` label counts: the
    /// picker then serves one pool only.
    #[must_use]
    pub fn read(&self, page: &[u8]) -> GatewaySample {
        let (mut queues, mut refused_total) = ([None; QUEUE.len()], 0.0);
        select(page, &self.selector, |selected| {
            let labels = selected.sample.labels;
            let value = selected.sample.value;
            let ours = labels.get("inference_pool").is_none_or(|pool| pool.unescape() == self.pool.as_str());
            if !ours || !value.is_finite() {
                return;
            }
            match queues.get_mut(selected.family) {
                Some(queue) => *queue = Some(queue.unwrap_or(0.0) + value.max(0.0)),
                None => {
                    let code = labels.get("error_code");
                    if code.is_some_and(|code| code.unescape() == "ServiceUnavailable") {
                        refused_total += value.max(0.0);
                    }
                }
            }
        });
        GatewaySample { queued: queues[0].or(queues[1]), refused_total }
    }
}
