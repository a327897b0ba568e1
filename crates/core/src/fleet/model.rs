//! What discovery knows: InferenceSets and the endpoints that serve them.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    names::{InferenceSetKey, PodUid},
    time::Moment,
    wake::Source,
};

/// One InferenceSet as the Kubernetes API (or the endpoints file) describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct InferenceSet {
    pub key: InferenceSetKey,
    /// `spec.replicas`: how many are wanted.
    pub replicas: u32,
    /// `status.readyReplicas`.
    pub ready_replicas: u32,
    /// Every pod that serves or is to serve, Terminating ones included.
    pub endpoints: Vec<Endpoint>,
    /// The gateway that holds requests while there is no replica; `None` where there is none.
    pub gateway: Option<Gateway>,
}

/// One pod that serves or is to serve the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub uid: PodUid,
    /// The pod's name, for people.
    pub pod: Arc<str>,
    /// Where its model server listens; `None` until the pod has an address.
    pub address: Option<SocketAddr>,
    pub readiness: Readiness,
    /// When the pod was created.
    pub since: Moment,
}

/// What Kubernetes says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    NotReady,
    /// It has a deletionTimestamp.
    Terminating,
}

/// How a gateway reaches an InferenceSet: the only place where demand shows at zero replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The InferencePool, as the gateway's metrics name it.
    pub pool: Arc<str>,
    /// The endpoint picker that KAITO's naming gives the pool; `None` where there is none.
    pub picker: Option<Source>,
}

/// What discovery tells the aggregator. `Reset` replaces everything in one step, so that a
/// relist never shows a moment in which half of the fleet is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum FleetEvent {
    Applied(InferenceSet),
    Deleted(InferenceSetKey),
    Reset(Vec<InferenceSet>),
    /// All of the source was heard from a moment ago, whether anything changed or not. Where
    /// this stays away, what was told before is no longer believed.
    Alive,
}
