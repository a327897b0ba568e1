//! A pod's metrics endpoint, as the scaler meets it: KAITO's page without any vLLM family
//! while the model is on its way, vLLM's page, whole or filtered, once it serves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;

use super::{
    cluster::{Pod, Stage},
    http::{Answer, query_values},
    page::{Page, Template, value},
};
use scaler_core::time::Moment;

/// Renders the pages of one model's replicas.
#[derive(Debug)]
pub struct ModelServer {
    template: Template,
    /// Pages compiled so far, by the query that asks for them.
    compiled: Mutex<HashMap<String, Arc<Page>>>,
}

/// Beyond this many different queries somebody is playing; they are compiled each time.
const MAX_COMPILED: usize = 64;

impl ModelServer {
    #[must_use]
    pub fn new(model: &str) -> Self {
        Self { template: Template::recorded(model), compiled: Mutex::default() }
    }

    /// What `pod` answers at `now`.
    #[must_use]
    pub fn answer(&self, pod: &Pod, path: &str, query: Option<&str>, now: Moment) -> Answer {
        match (pod.stage(now), path) {
            // The download server knows one path.
            (Stage::Downloading | Stage::Loading, "/metrics") => {
                Answer::page(download_page(pod.download_remaining(now)))
            }
            // vLLM filters only below the mount point, on the path with the slash.
            (Stage::Serving | Stage::Terminating, "/metrics") => self.page(pod, ""),
            (Stage::Serving | Stage::Terminating, "/metrics/") => self.page(pod, query.unwrap_or_default()),
            (Stage::Unscheduled, _) => Answer::status(StatusCode::SERVICE_UNAVAILABLE),
            _ => Answer::status(StatusCode::NOT_FOUND),
        }
    }

    fn page(&self, pod: &Pod, query: &str) -> Answer {
        Answer::page(self.compiled(query).render(|slot| value(&pod.replica, slot)))
    }

    fn compiled(&self, query: &str) -> Arc<Page> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = compiled.get(query) {
            return page.clone();
        }
        let names = query_values(query, "name[]");
        let filter = (!names.is_empty()).then_some(names.as_slice());
        let page = Arc::new(self.template.compile(filter, |_| true));
        if compiled.len() < MAX_COMPILED {
            compiled.insert(query.into(), page.clone());
        }
        page
    }
}

/// KAITO's own gauges, all that there is before the engine runs.
fn download_page(remaining: Duration) -> String {
    let speed = if remaining.is_zero() { 0.0 } else { 4.1e8 };
    format!(
        "# HELP kaito_model_download_speed_bytes_per_second Model download speed\n\
         # TYPE kaito_model_download_speed_bytes_per_second gauge\n\
         kaito_model_download_speed_bytes_per_second {speed:?}\n\
         # HELP kaito_model_download_remaining_seconds Time until the model is downloaded, -1 if unknown\n\
         # TYPE kaito_model_download_remaining_seconds gauge\n\
         kaito_model_download_remaining_seconds {:?}\n",
        remaining.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{at, cluster};

    #[test]
    fn what_a_pod_answers_follows_its_stage() {
        let (server, mut cluster) = (ModelServer::new("phi-4"), cluster());
        cluster.scale_to(1, at(0));
        cluster.bind_all(at(1000));
        let ask = |path, query, now| server.answer(&cluster.pods()[0], path, query, at(now));
        let text = |answer: Answer| String::from_utf8(answer.body.to_vec()).unwrap();

        for now in [2000, 5000] {
            let page = text(ask("/metrics", None, now));
            assert!(page.contains("kaito_model_download") && !page.contains("vllm:"), "{page}");
            assert_eq!(ask("/metrics/", Some("name[]=x"), now).status, StatusCode::NOT_FOUND);
        }
        let filter = Some("name[]=vllm%3Anum_requests_waiting&name[]=vllm:no_such");
        let filtered = text(ask("/metrics/", filter, 6000));
        assert_eq!(filtered.lines().count(), 3, "{filtered}");
        assert!(filtered.ends_with("vllm:num_requests_waiting{engine=\"0\",model_name=\"phi-4\"} 0.0\n"));
        let plain = text(ask("/metrics", filter, 6000));
        assert!(plain.len() > 45_000, "without the slash there is no filter");
        assert_eq!(plain, text(ask("/metrics/", None, 6000)));
        assert_eq!(ask("/other", None, 6000).status, StatusCode::NOT_FOUND);
    }
}
