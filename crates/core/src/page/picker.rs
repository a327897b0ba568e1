//! The page of a gateway's endpoint picker (EPP): where demand shows while there is no replica.

use std::{collections::BTreeMap, sync::Arc};

use memchr::memmem;

use super::{
    sample::{Cumulative, Series},
    series::series_id,
};
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewaySample {
    /// Requests held, over all fairness classes and priorities. `None` where the family is
    /// missing: flow control is off, or has held nothing since the picker started, for a
    /// labelled gauge has no series before. A page cannot tell the two apart.
    pub queued: Option<f64>,
    /// Requests refused because no endpoint could serve, since the picker started, series by
    /// series.
    pub refused: Cumulative,
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
            let refusals = selected.family.checked_sub(QUEUE.len());
            if refusals.is_some()
                && labels.get("error_code").is_none_or(|code| code.unescape() != "ServiceUnavailable")
            {
                return;
            }
            let series = refusals.map(|_| series_id(labels));
            let Some(pool) = labels.get("inference_pool") else {
                of_all.add(selected.family, series, value);
                return;
            };
            let pool = pool.unescape();
            let first = by_name.partition_point(|index| *pools[*index] < *pool);
            let ours = by_name[first..].iter().take_while(|index| *pools[**index] == *pool);
            for index in ours {
                tallies[*index].add(selected.family, series, value);
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
struct Tally {
    queues: [Option<f64>; QUEUE.len()],
    /// By series.
    refusals: [BTreeMap<u64, f64>; ERRORS.len()],
}

impl Tally {
    /// `series`: which one it is, of a family of refusals.
    fn add(&mut self, family: usize, series: Option<u64>, value: f64) {
        let value = value.max(0.0);
        if let Some(queue) = self.queues.get_mut(family) {
            *queue = Some(queue.unwrap_or(0.0) + value);
        } else if let Some(refusals) = self.refusals.get_mut(family - QUEUE.len()) {
            let series = series.unwrap_or_default();
            // What is beyond the bound is taken for one series.
            let full = refusals.len() >= Cumulative::MOST_SERIES && !refusals.contains_key(&series);
            *refusals.entry(if full { u64::MAX } else { series }).or_default() += value;
        }
    }

    fn with(mut self, more: &Self) -> Self {
        for (family, queue) in more.queues.iter().enumerate() {
            if let Some(value) = queue {
                self.add(family, None, *value);
            }
        }
        for (family, refusals) in (QUEUE.len()..).zip(&more.refusals) {
            for (series, value) in refusals {
                self.add(family, Some(*series), *value);
            }
        }
        self
    }

    /// All names of a family are one thing: the newest that is there counts.
    fn sample(self) -> GatewaySample {
        let refusals = self.refusals.into_iter().find(|series| !series.is_empty()).unwrap_or_default();
        let series = refusals.into_iter().map(|(id, count)| Series { id, count, ..Series::default() });
        GatewaySample {
            queued: self.queues.into_iter().flatten().next(),
            refused: Cumulative::new(Vec::new(), series.collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(page: &str) -> Option<Vec<(Option<f64>, f64)>> {
        let pools = [Arc::from("a"), Arc::from("b")];
        let samples = GatewayPage::default().read(page.as_bytes(), &pools)?;
        Some(samples.iter().map(|sample| (sample.queued, sample.refused.count())).collect())
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
            assert_eq!((sample.queued, sample.refused.count()), (queued, 2.0));
        }
    }

    #[test]
    fn refusals_are_told_apart_by_their_labels() {
        let page = |models: &[(usize, u32)]| -> String {
            let line = |(model, count): &(usize, u32)| {
                format!(
                    "llm_d_epp_request_error_total{{model_name=\"{model}\",error_code=\"ServiceUnavailable\"}} {count}\n"
                )
            };
            models.iter().map(line).collect()
        };
        let read = |page: &str| {
            GatewayPage::default().read(page.as_bytes(), &[Arc::from("a")]).unwrap().remove(0).refused
        };
        let before = read(&page(&[(0, 1_000), (1, 3)]));
        let after = read(&page(&[(1, 4)]));
        assert_eq!((before.series.len(), before.count()), (2, 1_003.0));
        let known = before.series.iter().find(|series| series.id == after.series[0].id).unwrap();
        assert_eq!((known.count, after.series[0].count), (3.0, 4.0));
        let many: Vec<_> = (0..Cumulative::MOST_SERIES + 50).map(|model| (model, 1)).collect();
        let many = read(&page(&many));
        assert_eq!((many.series.len(), many.count()), (Cumulative::MOST_SERIES + 1, 306.0));
    }
}
