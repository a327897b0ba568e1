//! The requests that carry out a step. Everything was decided before; here bytes move.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::{ApiResource, DynamicObject},
};
use kube_runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::Value;
use thiserror::Error;
use tokio::{
    sync::Mutex,
    time::{Interval, MissedTickBehavior},
};
use tracing::{info, warn};

use super::notices::{Notice, Subject};
use crate::cluster::api;
use scaler_core::{
    event_note,
    names::InferenceSetKey,
    provision::{Action, FIELD_MANAGER, Plan, Target},
};

/// A request that takes longer is given up; the API server's own limit is 60 s.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// What is to be written for one InferenceSet.
#[derive(Debug)]
pub(super) struct Work {
    pub set: InferenceSetKey,
    pub plan: Plan,
    pub untold: Vec<Notice>,
    pub subject: Subject,
}

#[derive(Debug)]
pub(super) struct Written {
    pub set: InferenceSetKey,
    pub end: End,
    /// The notices that became events.
    pub told: Vec<Notice>,
    pub subject: Subject,
}

#[derive(Debug)]
pub(super) enum End {
    Done,
    /// As [`Self::Done`], and the ScaledObject has this version now.
    Applied {
        version: u64,
    },
    /// The ScaledObject is not what was planned upon. Holds its name, and the version that it
    /// has now, unless it is gone.
    Conflict {
        name: String,
        version: Option<u64>,
    },
    Failed(WriteError),
}

#[derive(Debug, Error)]
pub(super) enum WriteError {
    #[error("failed to apply ScaledObject {name}")]
    Apply { name: String, source: RequestError },
    #[error("failed to take over ScaledObject {name}")]
    TakeOver { name: String, source: RequestError },
    #[error("failed to delete ScaledObject {name}")]
    Delete { name: String, source: RequestError },
    #[error("failed to read ScaledObject {name} after a conflict")]
    Read { name: String, source: RequestError },
    #[error("failed to write event {reason}")]
    Event { reason: &'static str, source: RequestError },
}

#[derive(Debug, Error)]
pub(super) enum RequestError {
    #[error("{}", message(.0))]
    Answer(kube::Error),
    #[error("no answer in {} s", REQUEST_LIMIT.as_secs())]
    TimedOut,
}

/// The API server's own words where there are any.
fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

impl RequestError {
    fn code(&self) -> u16 {
        match self {
            Self::Answer(kube::Error::Api(status)) => status.code,
            _ => 0,
        }
    }
}

impl WriteError {
    /// What the API server, or a webhook, has against the ScaledObject itself; trying again
    /// will not help, and its user should know.
    pub(super) fn rejection(&self) -> Option<String> {
        match self {
            Self::Apply { source, .. } | Self::TakeOver { source, .. }
                if matches!(source.code(), 400 | 403 | 422) =>
            {
                Some(format!("the ScaledObject was refused: {source}"))
            }
            _ => None,
        }
    }
}

/// Writes, at a limited rate. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
    scaled_objects: ApiResource,
    reporter: Reporter,
    /// One turn for each write, handed out in the order in which they are asked for.
    turns: Arc<Mutex<Interval>>,
}

impl Writer {
    pub(super) fn new(client: Client, instance: Option<String>, writes_per_second: u32) -> Self {
        let mut turns = tokio::time::interval(Duration::from_secs(1) / writes_per_second.max(1));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance };
        Self { client, scaled_objects: api::scaled_objects(), reporter, turns: Arc::new(Mutex::new(turns)) }
    }

    /// Carries out one step.
    pub(super) async fn carry_out(self, work: Work) -> Written {
        let Work { set, plan, untold, subject } = work;
        let mut end = self.change(&set, plan, &subject).await;
        let mut told = Vec::new();
        for notice in untold {
            warn!(inference_set = %set, reason = notice.reason, "{}", notice.note);
            match self.tell(EventType::Warning, &notice.subject, notice.reason, &notice.note).await {
                Ok(()) => told.push(notice),
                Err(error) if matches!(end, End::Done | End::Applied { .. }) => end = End::Failed(error),
                Err(_) => {}
            }
        }
        Written { set, end, told, subject }
    }

    async fn change(&self, set: &InferenceSetKey, plan: Plan, subject: &Subject) -> End {
        match self.try_change(set, plan, subject).await {
            Ok(end) => end,
            Err(error) => End::Failed(error),
        }
    }

    async fn try_change(
        &self,
        set: &InferenceSetKey,
        plan: Plan,
        subject: &Subject,
    ) -> Result<End, WriteError> {
        for surplus in plan.surplus {
            self.delete(set, surplus, "there is an older one for the same InferenceSet", subject).await?;
        }
        match plan.action {
            Action::Nothing | Action::Conflict(_) => Ok(End::Done),
            Action::Delete(target) => {
                self.delete(set, target, "auto-provision is off", subject).await?;
                Ok(End::Done)
            }
            // Without force: where an object of somebody else came up meanwhile, it is theirs.
            Action::Create(object) => self.apply(set, &object, false).await,
            Action::Apply(object) => self.apply(set, &object, true).await,
            Action::Adopt { patch, object } => self.adopt(set, patch, object).await,
        }
    }

    async fn apply(&self, set: &InferenceSetKey, object: &Value, force: bool) -> Result<End, WriteError> {
        let name = name(object);
        let mut parameters = PatchParams::apply(FIELD_MANAGER);
        parameters.force = force;
        let api = self.api(set);
        match self.request(api.patch(name, &parameters, &Patch::Apply(object))).await {
            Ok(applied) => {
                info!(inference_set = %set, scaled_object = name, created = !force, "applied");
                Ok(End::Applied { version: version(&applied) })
            }
            Err(error) if error.code() == 409 => self.look_again(set, name).await,
            Err(source) => Err(WriteError::Apply { name: name.to_owned(), source }),
        }
    }

    async fn adopt(&self, set: &InferenceSetKey, patch: Value, mut object: Value) -> Result<End, WriteError> {
        let name = name(&object).to_owned();
        let failed = |source| WriteError::TakeOver { name: name.clone(), source };
        let patch = serde_json::from_value(patch)
            .map_err(|error| failed(RequestError::Answer(kube::Error::SerdeError(error))))?;
        let patch = Patch::<()>::Json(patch);
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api(set);
        match self.request(api.patch(&name, &parameters, &patch)).await {
            Ok(patched) => {
                object["metadata"]["resourceVersion"] = patched.metadata.resource_version.into();
                info!(inference_set = %set, scaled_object = name, "taken over from the replaced scaler");
                self.apply(set, &object, true).await
            }
            Err(error) if error.code() == 409 => self.look_again(set, &name).await,
            Err(error) => Err(failed(error)),
        }
    }

    async fn look_again(&self, set: &InferenceSetKey, name: &str) -> Result<End, WriteError> {
        let api = self.api(set);
        let now = self.request(api.get_opt(name)).await;
        let now = now.map_err(|source| WriteError::Read { name: name.to_owned(), source })?;
        Ok(End::Conflict { name: name.to_owned(), version: now.as_ref().map(version) })
    }

    async fn delete(
        &self,
        set: &InferenceSetKey,
        target: Target,
        why: &str,
        subject: &Subject,
    ) -> Result<(), WriteError> {
        let Target { name, uid, .. } = target;
        let only_this = Preconditions { uid: Some(uid), resource_version: None };
        let parameters = DeleteParams::default().preconditions(only_this);
        let api = self.api(set);
        match self.request(api.delete(&name, &parameters)).await {
            Ok(_) => {
                info!(inference_set = %set, scaled_object = name, "deleted: {why}");
                let note = format!("ScaledObject {name} was deleted: {why}");
                self.tell(EventType::Normal, subject, "ScaledObjectCleanedUp", &note).await
            }
            // It is gone already, or another one has its name now.
            Err(error) if matches!(error.code(), 404 | 409) => Ok(()),
            Err(source) => Err(WriteError::Delete { name, source }),
        }
    }

    async fn tell(
        &self,
        type_: EventType,
        subject: &Subject,
        reason: &'static str,
        note: &str,
    ) -> Result<(), WriteError> {
        let reference = ObjectReference {
            api_version: Some(subject.api_version.clone()),
            kind: Some(subject.kind.to_owned()),
            namespace: Some(subject.key.namespace.to_string()),
            name: Some(subject.key.name.to_string()),
            uid: Some(subject.uid.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(event_note::shortened(note)),
            action: "Provision".to_owned(),
            secondary: None,
        };
        // A recorder of its own for each: a shared one takes a second event of the same reason
        // for a repetition of the first, and keeps the first one's note.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        self.request(recorder.publish(&event, &reference))
            .await
            .map_err(|source| WriteError::Event { reason, source })
    }

    /// Sends a request when its turn has come.
    async fn request<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, RequestError> {
        self.turns.lock().await.tick().await;
        match tokio::time::timeout(REQUEST_LIMIT, request).await {
            Ok(answer) => answer.map_err(RequestError::Answer),
            Err(_) => Err(RequestError::TimedOut),
        }
    }

    fn api(&self, set: &InferenceSetKey) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &set.namespace, &self.scaled_objects)
    }
}

/// The version of an object, in which the API server counts all changes; 0 where it has none.
fn version(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
