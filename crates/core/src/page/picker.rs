//! The page of a gateway's endpoint picker (EPP): where demand shows while there is no replica.

use std::sync::Arc;

use memchr::memmem;

use crate::exposition::{Selector, select};

/// Requests that its flow control holds, by the name it has had since the rename, and before.
const QUEUE: [&str; 2] = ["llm_d_epp_flow_control_queue_size", "inference_extension_flow_control_queue_size"];
/// Requests that it refused; with flow control off, the only thing that moves without
/// replicas.
const ERRORS: &str = "llm_d_epp_request_error_total";
/// How the families of a picker start, by the present and the former name.
const PREFIXES: [&str; 2] = ["llm_d_epp_", "inference_extension_"];

/// One scrape of one endpoint picker, for one inference pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GatewaySample {
    /// Requests held, over all fairness classes and priorities. `None` where the family is
    /// missing: flow control is off, or has held nothing since the picker started, for a
    /// labelled gauge has no series before. A page cannot tell the two apart.
    pub queued: Option<f64>,
    /// Requests refused because no endpoint could serve, since the picker started.
    pub refused_total: f64,
}

/// Reads an endpoint picker's page. Compiled once.
#[derive(Clone, Debug)]
pub struct GatewayPage {
    selector: Selector,
}

impl Default for GatewayPage {
    fn default() -> Self {
        Self { selector: Selector::new([QUEUE[0], QUEUE[1], ERRORS]) }
    }
}

impl GatewayPage {
    /// Sums the series of each pool, in the order of `pools`. A series without an
    /// `inference_pool` label counts for each: the picker then serves one pool only.
    ///
    /// `None` where the page has no family of a picker at all. One that has some, and none of
    /// those that are read, is a picker that nobody has asked anything yet.
    #[must_use]
    pub fn read(&self, page: &[u8], pools: &[Arc<str>]) -> Option<Vec<GatewaySample>> {
        let mut queues = vec![[None; QUEUE.len()]; pools.len()];
        let mut refused = vec![0.0; pools.len()];
        let mut is_picker = false;
        select(page, &self.selector, |selected| {
            is_picker = true;
            let labels = selected.sample.labels;
            let value = selected.sample.value;
            if !value.is_finite() {
                return;
            }
            let of_pool = labels.get("inference_pool");
            let readers = pools.iter().zip(queues.iter_mut().zip(&mut refused));
            let ours =
                readers.filter(|(pool, _)| of_pool.is_none_or(|of_pool| *of_pool.unescape() == ***pool));
            for (_, (queues, refused)) in ours {
                match queues.get_mut(selected.family) {
                    Some(queue) => *queue = Some(queue.unwrap_or(0.0) + value.max(0.0)),
                    None => {
                        let code = labels.get("error_code");
                        if code.is_some_and(|code| code.unescape() == "ServiceUnavailable") {
                            *refused += value.max(0.0);
                        }
                    }
                }
            }
        });
        if !is_picker && !PREFIXES.iter().any(|prefix| memmem::find(page, prefix.as_bytes()).is_some()) {
            return None;
        }
        let samples = queues.into_iter().zip(refused);
        Some(
            samples
                .map(|(queues, refused_total)| GatewaySample {
                    queued: queues[0].or(queues[1]),
                    refused_total,
                })
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &str) -> Option<Vec<(Option<f64>, f64)>> {
        let pools = [Arc::from("a"), Arc::from("b")];
        let samples = GatewayPage::default().read(page.as_bytes(), &pools)?;
        Some(samples.iter().map(|sample| (sample.queued, sample.refused_total)).collect())
    }

    #[test]
    fn each_pool_has_its_own_series_of_one_page() {
        let idle = Some(vec![(None, 0.0), (None, 0.0)]);
        for (page, expected) in [
            ("", None),
            ("vllm:num_requests_waiting 3\n", None),
            ("go_goroutines 7\nllm_d_epp_ready_endpoints{name=\"a\"} 0\n", idle.clone()),
            ("inference_extension_info{commit=\"x\"} 1\n", idle),
            (
                "llm_d_epp_flow_control_queue_size{inference_pool=\"a\",priority=\"0\"} 2\n\
                 llm_d_epp_flow_control_queue_size{inference_pool=\"a\",priority=\"1\"} 3\n\
                 llm_d_epp_flow_control_queue_size{inference_pool=\"other\",priority=\"1\"} 9\n",
                Some(vec![(Some(5.0), 0.0), (None, 0.0)]),
            ),
            (
                // Both names are one queue.
                "llm_d_epp_flow_control_queue_size{inference_pool=\"b\"} 2\n\
                 inference_extension_flow_control_queue_size{inference_pool=\"b\"} 2\n",
                Some(vec![(None, 0.0), (Some(2.0), 0.0)]),
            ),
            (
                "llm_d_epp_request_error_total{error_code=\"ServiceUnavailable\"} 4\n\
                 llm_d_epp_request_error_total{error_code=\"BadRequest\"} 7\n",
                Some(vec![(None, 4.0), (None, 4.0)]),
            ),
        ] {
            assert_eq!(read(page), expected, "{page}");
        }
    }
}
