//! Writes Warning events on ScaledObjects: what the aggregator finds wrong with a target. The
//! replica that is asked by KEDA writes them, whoever leads: only that one knows.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    api::{Api, DynamicObject},
    core::{ApiResource, GroupVersionKind},
};
use kube_runtime::events::{Event, EventType, Recorder, Reporter};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use crate::{aggregator::TroubleReport, error_chain};
use scaler_core::{event_note, provision};

/// Between two events: where KEDA stands still, every model that sleeps has its trouble.
const PAUSE: Duration = Duration::from_millis(100);
/// The same about the same ScaledObject is not repeated for as long: one may have several
/// triggers, and a trouble may come and go.
const SILENCE: Duration = Duration::from_secs(600);
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
enum TellError {
    #[error("failed to read ScaledObject {0}")]
    Read(Arc<str>, #[source] kube::Error),
    #[error("failed to write event {0}")]
    Write(&'static str, #[source] kube::Error),
    #[error("no answer in {} s", REQUEST_LIMIT.as_secs())]
    TimedOut,
}

/// Namespace and name of a ScaledObject, and what was said of it.
type Told = (Arc<str>, Arc<str>, String);

pub(super) struct Teller {
    client: Client,
    scaled_objects: ApiResource,
    reporter: Reporter,
    told: HashMap<Told, Instant>,
}

impl Teller {
    pub(super) fn new(client: Client, pod: Option<String>) -> Self {
        let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", provision::KIND);
        Self {
            client,
            scaled_objects: ApiResource::from_gvk_with_plural(&kind, "scaledobjects"),
            reporter: Reporter { controller: provision::FIELD_MANAGER.into(), instance: pod },
            told: HashMap::new(),
        }
    }

    /// Writes what comes in, until nobody can send any more.
    pub(super) async fn run(mut self, mut reports: mpsc::Receiver<TroubleReport>) {
        while let Some(report) = reports.recv().await {
            let TroubleReport { namespace, scaled_object, trouble } = report;
            let told = (namespace, scaled_object, trouble.to_string());
            self.told.retain(|_, at| at.elapsed() < SILENCE);
            if self.told.contains_key(&told) {
                continue;
            }
            match timeout(REQUEST_LIMIT, self.tell(&told, trouble.reason())).await {
                Ok(Ok(())) => drop(self.told.insert(told, Instant::now())),
                Ok(Err(error)) => warn!(error = error_chain(&error), "no event was written"),
                Err(_) => warn!(error = error_chain(&TellError::TimedOut), "no event was written"),
            }
            sleep(PAUSE).await;
        }
    }

    async fn tell(&self, (namespace, name, note): &Told, reason: &'static str) -> Result<(), TellError> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &self.scaled_objects);
        let object = api.get_opt(name).await.map_err(|source| TellError::Read(name.clone(), source))?;
        // Without it there is nobody to tell.
        let Some(object) = object else { return Ok(()) };
        let about = ObjectReference {
            api_version: Some(provision::API_VERSION.into()),
            kind: Some(provision::KIND.into()),
            namespace: Some(namespace.to_string()),
            name: Some(name.to_string()),
            // `kubectl describe` shows only events that have it.
            uid: object.metadata.uid,
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(event_note::shortened(note)),
            action: "Scale".into(),
            secondary: None,
        };
        // A recorder of its own for each: a shared one keeps the first note of a reason.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        recorder.publish(&event, &about).await.map_err(|source| TellError::Write(reason, source))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use scaler_core::decision::warning::Trouble;
    use sim::api_server::ApiServer;

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_becomes_one_event_on_the_scaled_object() {
        let server = ApiServer::with_chart_rbac();
        server.install(provision::API_VERSION, provision::KIND, "scaledobjects");
        for name in ["demo", "other"] {
            server.put(json!({"apiVersion": provision::API_VERSION, "kind": provision::KIND,
                "metadata": {"name": name, "namespace": "team-a", "uid": format!("uid-of-{name}")}, "spec": {}}));
        }
        let (troubles, reports) = mpsc::channel(8);
        // Two triggers of one ScaledObject, another ScaledObject, and one that has gone.
        for name in ["demo", "demo", "other", "gone"] {
            let (namespace, scaled_object) = ("team-a".into(), name.into());
            let report = TroubleReport { namespace, scaled_object, trouble: Trouble::WakeNotHonoured };
            troubles.send(report).await.unwrap();
        }
        drop(troubles);
        Teller::new(server.client(), Some("scaler-0".into())).run(reports).await;
        let events = server.all("Event");
        let about = |event: &serde_json::Value| {
            let regarding = &event["regarding"];
            [&event["reason"], &event["type"], &regarding["kind"], &regarding["uid"]]
                .map(|text| text.as_str().unwrap().to_owned())
        };
        let expected = |uid: &str| ["WakeNotHonoured", "Warning", "ScaledObject", uid].map(str::to_owned);
        let mut found: Vec<_> = events.iter().map(about).collect();
        found.sort();
        assert_eq!(found, [expected("uid-of-demo"), expected("uid-of-other")]);
        assert!(events[0]["note"].as_str().unwrap().starts_with("requests wait, and 30 s after"));
    }
}
