//! Events that people should see though nothing in particular went wrong: what a start waits
//! for, and what an upgrade has made forbidden.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    api::{Api, DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use kube_runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, warn};

use crate::{error_chain, readiness::Readiness};
use scaler_core::fleet::tenancy::trespass_of;

/// What a start may wait for before it is worth an event.
const PATIENCE: Duration = Duration::from_secs(15);
/// ScaledObjects that are listed at a time.
const PAGE: u32 = 500;

/// Writes events in the scaler's name.
pub(super) struct Notices {
    client: Client,
    recorder: Recorder,
}

impl Notices {
    pub(super) fn new(client: Client, pod: Option<String>) -> Self {
        let reporter = Reporter { controller: "keda-kaito-scaler".into(), instance: pod };
        Self { recorder: Recorder::new(client.clone(), reporter), client }
    }

    async fn warn(&self, about: &ObjectReference, reason: &str, action: &str, note: String) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(note),
            action: action.into(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            debug!(error = error_chain(&error), reason, "failed to write an event");
        }
    }

    /// Writes one event on our own pod for each gate that stays closed.
    pub(super) async fn of_waiting(&self, mut readiness: Readiness, pod: ObjectReference) {
        let mut told = BTreeSet::new();
        loop {
            sleep(PATIENCE).await;
            for waiting in readiness.waits_for() {
                let gate = waiting.split(':').next().unwrap_or_default().to_owned();
                if told.insert(gate) {
                    warn!(%waiting, "not ready yet");
                    self.warn(&pod, "Waiting", "Start", format!("Not ready yet, waiting for {waiting}"))
                        .await;
                }
            }
            if readiness.is_ready() || !readiness.changed().await {
                return;
            }
        }
    }

    /// Once this process leads, writes one event on each ScaledObject whose trigger names our
    /// `service` (in `namespace`) and an InferenceSet of another namespace: its calls are refused.
    pub(super) async fn of_trespasses(
        &self,
        mut leads: watch::Receiver<bool>,
        service: &str,
        namespace: &str,
    ) {
        while leads.wait_for(|leads| *leads).await.is_ok() {
            match self.trespasses(service, namespace).await {
                Ok(found) => {
                    for (object, note) in found {
                        warn!(namespace = object.namespace, name = object.name, note, "a trigger is refused");
                        self.warn(&object, "CrossNamespaceRefused", "Refuse", note).await;
                    }
                    return;
                }
                Err(error) => {
                    // KEDA may not be there yet; then there is nothing to warn of.
                    debug!(error = error_chain(&error), "failed to list ScaledObjects");
                    sleep(PATIENCE).await;
                }
            }
        }
    }

    async fn trespasses(
        &self,
        service: &str,
        namespace: &str,
    ) -> Result<Vec<(ObjectReference, String)>, kube::Error> {
        let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
        let resource = ApiResource::from_gvk_with_plural(&kind, "scaledobjects");
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut found = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await?;
            for object in &page.items {
                let Ok(value) = serde_json::to_value(object) else { continue };
                let Some(trespass) = trespass_of(&value, service, namespace) else { continue };
                let reference = ObjectReference {
                    api_version: Some(resource.api_version.clone()),
                    kind: Some(resource.kind.clone()),
                    namespace: object.metadata.namespace.clone(),
                    name: object.metadata.name.clone(),
                    uid: object.metadata.uid.clone(),
                    ..ObjectReference::default()
                };
                found.push((reference, trespass.to_string()));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(found),
            }
        }
    }
}

/// Exports which gates keep the process from being ready.
#[derive(Debug)]
pub(super) struct GateCollector(pub Readiness);

impl Collector for GateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let kind = ConstGauge::new(1_i64).metric_type();
        let help = "1 for each thing that is waited for before the process is ready";
        let mut family = encoder.encode_descriptor("keda_kaito_scaler_waiting", help, None, kind)?;
        for waiting in self.0.waits_for() {
            let gate = waiting.split(':').next().unwrap_or_default();
            ConstGauge::new(1_i64).encode(family.encode_family(&[("gate", gate)])?)?;
        }
        Ok(())
    }
}
