//! What decides about the number of replicas: either through the HPA, as the scaler does, or
//! past it, as a fixed number and a clairvoyant do.

use std::fmt;

use crate::{
    hpa::{Behavior, Metric},
    page::Page,
};

/// One way to decide. A policy is made anew for every run.
pub trait Policy: fmt::Debug {
    /// What the ScaledObject says around the decisions; asked once, before the run.
    fn scaling(&self) -> Scaling;

    /// With how many replicas the run starts, all of them ready; `None` for what the world
    /// starts with.
    fn start(&mut self) -> Option<u32> {
        None
    }

    /// Decides at `seen.now_us`, once a simulated second, from nothing but what is seen.
    fn decide(&mut self, seen: &Seen<'_>) -> Decision;
}

/// The ScaledObject around a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// The HPA's steps and limits.
    pub behavior: Behavior,
    /// KEDA's `minReplicaCount`; 0 allows to scale to zero.
    pub min_replicas: u32,
    /// KEDA's `pollingInterval` in microseconds.
    pub polling_interval_us: u64,
    /// KEDA's `cooldownPeriod` in microseconds.
    pub cooldown_us: u64,
    /// Whether activity is pushed as well (trigger `external-push`).
    pub push: bool,
}

/// What the HPA or KEDA would be told, or the number itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Through the HPA and KEDA.
    Scaler {
        /// What each metric of the ScaledObject is answered with.
        metrics: Vec<Metric>,
        /// KEDA's `IsActive`; `None` where the call would fail.
        active: Option<bool>,
    },
    /// Past both: the number of replicas, at once.
    Replicas(u32),
}

/// What can be seen of the fleet at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Microseconds since the trace's start.
    pub now_us: u64,
    /// `spec.replicas` of the scale target.
    pub spec_replicas: u32,
    /// `status.replicas` of the scale target.
    pub status_replicas: u32,
    /// Every pod that exists, oldest first, draining ones too.
    pub pods: &'a [PodSeen<'a>],
    /// What an endpoint picker holds; `None` where the router holds nothing.
    pub gateway: Option<GatewaySeen>,
}

/// One pod as the API server and its metrics page show it.
#[derive(Clone, Copy, Debug)]
pub struct PodSeen<'a> {
    /// Unique over the run.
    pub uid: u64,
    /// When the pod was created.
    pub created_us: u64,
    /// When it became ready; `None` while it loads.
    pub ready_us: Option<u64>,
    /// Whether it has been asked to end.
    pub draining: bool,
    /// What its page says; `None` while nothing listens yet.
    pub page: Option<&'a Page>,
}

/// An endpoint picker's flow control as its page shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewaySeen {
    /// Requests that it holds now.
    pub held: u32,
    /// Requests that it has refused so far.
    pub refused: u64,
}
