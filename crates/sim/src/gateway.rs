//! The gateway's endpoint picker (EPP) with flow control: it holds requests while nobody can
//! take them and sends each to the least loaded replica. At zero replicas its queue is the
//! only sign that anybody wants the model.

use std::{collections::VecDeque, fmt::Write};

use super::{cluster::Cluster, traffic::Request};
use scaler_core::time::Moment;

/// The queue in front of one `InferencePool`.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The name of the `InferencePool`; the label `inference_pool` of its metrics.
    pool: String,
    /// Requests are held back while every replica has this many waiting; `None` never holds
    /// back while any replica serves, and leaves the refusing to KAITO's cap.
    hold_at_waiting: Option<usize>,
    held: VecDeque<Request>,
    /// Whether any request was ever queued: the gauge has no series before.
    queued_once: bool,
    refused: u64,
}

impl Gateway {
    #[must_use]
    pub fn new(pool: &str, hold_at_waiting: Option<usize>) -> Self {
        Self { pool: pool.into(), hold_at_waiting, held: VecDeque::new(), queued_once: false, refused: 0 }
    }

    /// A request comes in and queues.
    pub fn receive(&mut self, request: Request) {
        self.queued_once = true;
        self.held.push_back(request);
    }

    /// Sends on what the replicas can take.
    pub fn dispatch(&mut self, cluster: &mut Cluster, now: Moment) {
        while let Some(request) = self.held.front().copied() {
            let least_loaded = cluster
                .serving(now)
                .min_by_key(|replica| (replica.waiting(), replica.running()))
                .filter(|replica| self.hold_at_waiting.is_none_or(|limit| replica.waiting() < limit));
            let Some(replica) = least_loaded else { return };
            if replica.offer(request, now).is_err() {
                self.refused += 1;
            }
            self.held.pop_front();
        }
    }

    /// Requests that are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Requests whose client got a 429.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Its metrics page; nothing of the queue before the first request.
    #[must_use]
    pub fn page(&self, serving: usize) -> String {
        page(&self.pool, self.queued_once.then_some(self.held.len()), serving)
    }
}

/// An endpoint picker's metrics page: the queue under its present and its former name, as
/// llm-d's EPP prints them.
#[must_use]
pub fn page(pool: &str, held: Option<usize>, serving: usize) -> String {
    let mut page = String::new();
    let labels = format!(
        "{{fairness_id=\"\",inference_pool=\"{pool}\",model_name=\"\",priority=\"0\",target_model_name=\"\"}}"
    );
    for name in ["inference_extension_flow_control_queue_size", "llm_d_epp_flow_control_queue_size"] {
        if let Some(held) = held {
            let _ = writeln!(
                page,
                "# HELP {name} Requests that the flow control layer holds.\n\
                 # TYPE {name} gauge\n\
                 {name}{labels} {held}"
            );
        }
    }
    let _ = writeln!(
        page,
        "# HELP llm_d_epp_ready_endpoints Endpoints of the pool that can take requests.\n\
         # TYPE llm_d_epp_ready_endpoints gauge\n\
         llm_d_epp_ready_endpoints{{name=\"{pool}\"}} {serving}"
    );
    page
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::tests::{at, cluster};

    fn request() -> Request {
        Request { sent: at(0), prompt_tokens: 10, output_tokens: 100 }
    }

    fn queue_size(gateway: &Gateway) -> Option<String> {
        let page = gateway.page(0);
        page.lines()
            .find_map(|line| line.strip_prefix("llm_d_epp_flow_control_queue_size{"))
            .and_then(|rest| rest.rsplit_once(' ').map(|(_, value)| value.to_owned()))
    }

    #[test]
    fn it_holds_while_nobody_serves_and_says_so() {
        let (mut gateway, mut cluster) = (Gateway::new("phi-4-inferencepool", None), cluster());
        assert_eq!(queue_size(&gateway), None);
        (0..5).for_each(|_| gateway.receive(request()));
        gateway.dispatch(&mut cluster, at(0));
        assert_eq!((gateway.held(), queue_size(&gateway).as_deref()), (5, Some("5")));
        assert!(gateway.page(0).contains("inference_pool=\"phi-4-inferencepool\""));

        cluster.scale_to(1, at(0));
        gateway.dispatch(&mut cluster, at(0));
        assert_eq!(gateway.held(), 5, "a loading replica takes nothing");
        let ready = at(0) + Duration::from_secs(60);
        cluster.bind_all(ready);
        gateway.dispatch(&mut cluster, ready);
        assert_eq!((gateway.held(), queue_size(&gateway).as_deref()), (0, Some("0")));
    }

    #[test]
    fn it_spreads_over_the_least_loaded_and_stops_at_its_limit() {
        for (limit, held, refused) in [(Some(2), 34, 0), (None, 0, 20)] {
            let (mut gateway, mut cluster) = (Gateway::new("pool", limit), cluster());
            cluster.scale_to(2, at(0));
            let ready = at(0) + Duration::from_secs(60);
            cluster.bind_all(ready);
            (0..40).for_each(|_| gateway.receive(request()));
            gateway.dispatch(&mut cluster, ready);
            let loads: Vec<_> =
                cluster.serving(ready).map(|replica| replica.waiting() + replica.running()).collect();
            assert_eq!(loads[0], loads[1], "{limit:?}");
            assert_eq!((gateway.held(), gateway.refused()), (held, refused), "{limit:?}");
        }
    }
}
