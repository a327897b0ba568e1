//! The page of a gateway's endpoint picker (EPP): where demand shows while there is no replica.

use std::sync::Arc;

use memchr::memmem;

use crate::exposition::{Selector, select};

/// Requests that its flow control holds, by the name it has had since the rename, and before.
const QUEUE: [&str; 2] = ["llm_d_epp_flow_control_queue_size", "inference_extension_flow_control_queue_size"];
/// Requests that it refused, by the names it has had, newest first; with flow control off, the
/// only thing that moves without replicas.
const ERRORS: [&str; 3] = [
    "llm_d_epp_request_error_total",
    "inference_objective_request_error_total",
    "inference_model_request_error_total",
];
/// How the families of a picker start, by the present and the former names.
const PREFIXES: [&str; 4] =
    ["llm_d_epp_", "inference_extension_", "inference_objective_", "inference_model_"];

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
        Self { selector: Selector::new(QUEUE.iter().chain(&ERRORS)) }
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
        let mut tallies = vec![Tally::default(); pools.len()];
        // Of series without a pool, for all.
        let mut of_all = Tally::default();
        let mut by_name: Vec<usize> = (0..pools.len()).collect();
        by_name.sort_by(|a, b| pools[*a].cmp(&pools[*b]));
        let mut is_picker = false;
        select(page, &self.selector, |selected| {
            is_picker = true;
            let labels = selected.sample.labels;
            let value = selected.sample.value;
            if !value.is_finite() {
                return;
            }
            let is_refusal = selected.family >= QUEUE.len();
            if is_refusal
                && labels.get("error_code").is_none_or(|code| code.unescape() != "ServiceUnavailable")
            {
                return;
            }
            let Some(pool) = labels.get("inference_pool") else {
                of_all.add(selected.family, value);
                return;
            };
            let pool = pool.unescape();
            let first = by_name.partition_point(|index| *pools[*index] < *pool);
            let ours = by_name[first..].iter().take_while(|index| *pools[**index] == *pool);
            for index in ours {
                tallies[*index].add(selected.family, value);
            }
        });
        if !is_picker && !PREFIXES.iter().any(|prefix| memmem::find(page, prefix.as_bytes()).is_some()) {
            return None;
        }
        Some(tallies.into_iter().map(|tally| tally.with(&of_all).sample()).collect())
    }
}

/// What a page says of one pool, by the families in the selector's order.
#[derive(Clone, Debug, Default)]
struct Tally([Option<f64>; QUEUE.len() + ERRORS.len()]);

impl Tally {
    fn add(&mut self, family: usize, value: f64) {
        if let Some(sum) = self.0.get_mut(family) {
            *sum = Some(sum.unwrap_or(0.0) + value.max(0.0));
        }
    }

    fn with(mut self, more: &Self) -> Self {
        for (family, value) in more.0.iter().enumerate() {
            if let Some(value) = value {
                self.add(family, *value);
            }
        }
        self
    }

    /// All names of a family are one thing: the newest that is there counts.
    fn sample(self) -> GatewaySample {
        let (queues, errors) = self.0.split_at(QUEUE.len());
        let newest = |names: &[Option<f64>]| names.iter().find_map(|value| *value);
        GatewaySample { queued: newest(queues), refused_total: newest(errors).unwrap_or(0.0) }
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
            (
                // As it was called before, and before that; no series has a pool.
                "inference_objective_request_error_total{error_code=\"ServiceUnavailable\",model_name=\"m\"} 4\n\
                 inference_objective_request_error_total{error_code=\"ServiceUnavailable\",model_name=\"n\"} 1\n\
                 inference_objective_request_error_total{error_code=\"Internal\",model_name=\"m\"} 9\n",
                Some(vec![(None, 5.0), (None, 5.0)]),
            ),
            (
                "inference_model_request_error_total{error_code=\"ServiceUnavailable\"} 4\n\
                 inference_objective_request_error_total{error_code=\"ServiceUnavailable\"} 4\n\
                 llm_d_epp_request_error_total{error_code=\"ServiceUnavailable\"} 4\n",
                Some(vec![(None, 4.0), (None, 4.0)]),
            ),
            ("inference_objective_request_total{model_name=\"m\"} 9\n", Some(vec![(None, 0.0), (None, 0.0)])),
        ] {
            assert_eq!(read(page), expected, "{page}");
        }
    }

    #[test]
    fn a_page_costs_no_more_for_many_pools() {
        let page: String = (0..4_000)
            .map(|n| format!("llm_d_epp_flow_control_queue_size{{inference_pool=\"{n}\"}} {n}\n"))
            .chain(["llm_d_epp_request_error_total{error_code=\"ServiceUnavailable\"} 2\n".to_owned()])
            .collect();
        // Twice over: nobody promises that they differ.
        let pools: Vec<Arc<str>> = (0..8_000).map(|n| (n % 4_000).to_string().into()).collect();
        let samples = GatewayPage::default().read(page.as_bytes(), &pools).unwrap();
        for (n, sample) in samples.iter().enumerate() {
            let queued = Some(f64::from(u32::try_from(n % 4_000).unwrap()));
            assert_eq!(*sample, GatewaySample { queued, refused_total: 2.0 });
        }
    }
}
