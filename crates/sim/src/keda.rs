//! KEDA and the HPA, as an external scaler meets them: the real protocol over a real socket.
//!
//! After KEDA 2.21: one connection carries everything; a pushed `true` wakes a target that
//! sleeps, unless KEDA does not know the trigger's metrics yet, and a pushed `false` is ignored;
//! a sample is GetMetrics, then IsActive, and an error of either is an error of both; a poll that
//! fails twice costs the connection and every stream on it; an ended stream is opened again after
//! a pause that doubles unless it ended well.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use clock::Clock;
use hpa::{Behavior, Hpa, Metric, ScaleTarget, Target};
use keda_proto::{
    GetMetricsRequest, MetricSpec, ScaledObjectRef, external_scaler_client::ExternalScalerClient,
};
use scaler_core::time::Moment;

/// A ScaledObject, as far as it matters here.
#[derive(Clone, Debug)]
pub struct ScaledObject {
    pub namespace: String,
    pub name: String,
    pub triggers: Vec<Trigger>,
    /// `minReplicaCount`; 0 allows to scale to zero.
    pub min_replicas: u32,
    pub max_replicas: u32,
    /// `cooldownPeriod`: from the last activity to zero.
    pub cooldown: Duration,
    /// `pollingInterval`.
    pub polling_interval: Duration,
    /// How often the HPA syncs; 15 s in Kubernetes.
    pub sync_period: Duration,
    /// The HPA's behavior; its limits are those of this object.
    pub behavior: Behavior,
}

/// One trigger of a ScaledObject.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// Type `external-push` rather than `external`: keeps a StreamIsActive open.
    pub push: bool,
    pub metadata: HashMap<String, String>,
}

/// The scale subresource: `spec.replicas`, which KEDA and the HPA write and KAITO follows.
#[derive(Clone, Debug)]
pub struct Scale(watch::Sender<u32>);

impl Scale {
    #[must_use]
    pub fn new(replicas: u32) -> Self {
        Self(watch::Sender::new(replicas))
    }

    #[must_use]
    pub fn replicas(&self) -> u32 {
        *self.0.borrow()
    }

    /// Every change from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u32> {
        self.0.subscribe()
    }

    /// Writes `to` if the replicas are `from` still, as an update of a Kubernetes object is
    /// refused when it is based on an old version. Says whether it was written.
    #[must_use]
    pub fn change(&self, from: u32, to: u32) -> bool {
        self.0.send_if_modified(|replicas| {
            let written = *replicas == from && from != to;
            if written {
                *replicas = to;
            }
            written
        })
    }
}

/// Something that happened, in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    StreamOpened {
        trigger: usize,
    },
    StreamEnded {
        trigger: usize,
        error: Option<String>,
    },
    /// A frame on a trigger's StreamIsActive.
    Pushed {
        trigger: usize,
        active: bool,
    },
    /// `spec.replicas` was written.
    Scaled {
        from: u32,
        to: u32,
        cause: Cause,
    },
    /// The HPA read a trigger: the value and its target.
    Metric {
        trigger: usize,
        value: f64,
        target: f64,
    },
    /// KEDA looked at a trigger.
    Polled {
        trigger: usize,
        active: bool,
    },
    CallFailed {
        trigger: usize,
        error: String,
    },
}

/// Who changed `spec.replicas`, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// KEDA, on a pushed `true`.
    Push,
    /// KEDA, because a poll found a sleeping target active.
    Poll,
    /// KEDA, after the cooldown period.
    Cooldown,
    Hpa,
}

/// What happened so far, with its time.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Vec<(Moment, Event)>>>);

impl Journal {
    fn entries(&self) -> MutexGuard<'_, Vec<(Moment, Event)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, at: Moment, event: Event) {
        self.entries().push((at, event));
    }

    /// The entries from the `from`-th on.
    #[must_use]
    pub fn since(&self, from: usize) -> Vec<(Moment, Event)> {
        self.entries().get(from..).unwrap_or_default().to_vec()
    }

    /// The latest entry for which `pick` gives something.
    pub fn latest<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Option<T> {
        self.entries().iter().rev().find_map(|(_, event)| pick(event))
    }
}

/// Why the scaler could not be reached at all.
#[derive(Debug, thiserror::Error)]
#[error("failed to connect to the scaler at {address}")]
pub struct ConnectError {
    address: SocketAddr,
    source: tonic::transport::Error,
}

/// KEDA's pause before it opens a stream again: it doubles with each, and only a stream that ends
/// well sets it back, however long one has lived.
struct Backoff(Duration);

impl Backoff {
    const SHORTEST: Duration = Duration::from_secs(2);
    const LONGEST: Duration = Duration::from_secs(60);

    const fn new() -> Self {
        Self(Self::SHORTEST)
    }

    /// The pause after a stream that `ended_well` or did not.
    fn after(&mut self, ended_well: bool) -> Duration {
        let pause = if ended_well { Self::SHORTEST } else { self.0 };
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }
}

/// Runs KEDA and an HPA for one ScaledObject against the scaler at `scaler`, until `stop`.
pub async fn run(
    object: ScaledObject,
    scaler: SocketAddr,
    scale: Scale,
    journal: Journal,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), ConnectError> {
    let failed = |source| ConnectError { address: scaler, source };
    let endpoint = Endpoint::from_shared(format!("http://{scaler}")).map_err(failed)?;
    let connection = Connection::over(endpoint.connect().await.map_err(failed)?);
    let keda = Arc::new(Keda {
        last_active: Mutex::new(None),
        known: Mutex::default(),
        connection: Mutex::new(connection),
        endpoint,
        object,
        scale,
        journal,
        clock,
    });
    let mut tasks = JoinSet::new();
    for (index, trigger) in keda.object.triggers.iter().enumerate() {
        if trigger.push {
            tasks.spawn(keda.clone().listen(index));
        }
    }
    tasks.spawn(keda.clone().poll());
    tasks.spawn(keda.clone().autoscale());
    // None of them ends by itself; dropping the set ends them all.
    stop.cancelled().await;
    Ok(())
}

/// What KEDA's scalers of one ScaledObject share while no other ScaledObject does.
#[derive(Clone)]
struct Connection {
    client: ExternalScalerClient<Channel>,
    /// Ends the streams on it.
    closed: CancellationToken,
}

impl Connection {
    fn over(channel: Channel) -> Self {
        Self { client: ExternalScalerClient::new(channel), closed: CancellationToken::new() }
    }
}

struct Keda {
    object: ScaledObject,
    endpoint: Endpoint,
    connection: Mutex<Connection>,
    scale: Scale,
    journal: Journal,
    clock: Clock,
    /// `status.lastActiveTime`.
    last_active: Mutex<Option<Moment>>,
    /// `status.externalMetricNames`: the triggers whose metrics are named there.
    known: Mutex<BTreeSet<usize>>,
}

impl Keda {
    fn record(&self, event: Event) {
        self.journal.record(self.clock.now(), event);
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Clears the scalers of the ScaledObject: the next call dials anew.
    fn drop_connection(&self) {
        let fresh = Connection::over(self.endpoint.connect_lazy());
        std::mem::replace(&mut *self.connection(), fresh).closed.cancel();
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reference(&self, trigger: usize) -> ScaledObjectRef {
        ScaledObjectRef {
            name: self.object.name.clone(),
            namespace: self.object.namespace.clone(),
            scaler_metadata: self.object.triggers[trigger].metadata.clone(),
        }
    }

    /// Keeps a trigger's StreamIsActive open.
    async fn listen(self: Arc<Self>, trigger: usize) {
        let mut backoff = Backoff::new();
        loop {
            let ended = self.follow_stream(trigger).await;
            let pause = backoff.after(ended.is_ok());
            let error = ended.err().map(|status| status.message().into());
            self.record(Event::StreamEnded { trigger, error });
            time::sleep(pause).await;
        }
    }

    async fn follow_stream(&self, trigger: usize) -> Result<(), tonic::Status> {
        let Connection { client, closed } = self.connection().clone();
        let followed = closed.run_until_cancelled(self.follow_frames(trigger, client)).await;
        followed.unwrap_or_else(|| Err(tonic::Status::cancelled("the connection is closing")))
    }

    async fn follow_frames(
        &self,
        trigger: usize,
        mut client: ExternalScalerClient<Channel>,
    ) -> Result<(), tonic::Status> {
        let mut frames = client.stream_is_active(self.reference(trigger)).await?.into_inner();
        self.record(Event::StreamOpened { trigger });
        while let Some(frame) = frames.message().await? {
            self.record(Event::Pushed { trigger, active: frame.result });
            // KEDA ignores a pushed `false`, for other triggers may be active, and drops a `true`
            // while it initialises.
            if frame.result && self.known().contains(&trigger) {
                self.active(Cause::Push);
            }
        }
        Ok(())
    }

    /// KEDA's own loop: looks whether the target is active.
    async fn poll(self: Arc<Self>) {
        let mut ticks = time::interval(self.object.polling_interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (mut any_active, mut any_failed) = (false, false);
            for trigger in 0..self.object.triggers.len() {
                let sample = match self.sample(trigger).await {
                    Ok(sample) => Ok(sample),
                    Err(_) => self.sample(trigger).await,
                };
                match sample {
                    Ok(sample) => {
                        any_active |= sample.active;
                        self.record(Event::Polled { trigger, active: sample.active });
                    }
                    Err(status) => {
                        any_failed = true;
                        self.record(Event::CallFailed { trigger, error: status.message().into() });
                    }
                }
            }
            if any_failed {
                self.drop_connection();
            }
            if any_active {
                self.active(Cause::Poll);
            } else if !any_failed {
                self.inactive();
            }
        }
    }

    /// The HPA's loop.
    async fn autoscale(self: Arc<Self>) {
        let mut hpa = Hpa::new(Behavior {
            // The HPA that KEDA makes never has a minimum of 0; zero is KEDA's own business.
            min_replicas: self.object.min_replicas.max(1),
            max_replicas: self.object.max_replicas,
            ..self.object.behavior.clone()
        });
        let mut ticks = time::interval(self.object.sync_period);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.scale.replicas() == 0 {
                continue;
            }
            let mut metrics = vec![];
            for trigger in 0..self.object.triggers.len() {
                match self.sample(trigger).await {
                    Ok(sample) => {
                        for (value, target) in sample.values {
                            self.record(Event::Metric { trigger, value, target });
                            metrics.push(Metric { total: Some(value), target: Target::AverageValue(target) });
                        }
                    }
                    Err(status) => {
                        self.record(Event::CallFailed { trigger, error: status.message().into() });
                        metrics.push(Metric { total: None, target: Target::AverageValue(1.0) });
                    }
                }
            }
            // KAITO writes the wanted number into status.replicas, so both are the same.
            let replicas = self.scale.replicas();
            let target =
                ScaleTarget { spec_replicas: replicas, status_replicas: replicas, ready_pods: replicas };
            let desired = hpa.sync(target, &metrics, self.clock.now().since_unix());
            self.write(replicas, desired, Cause::Hpa);
        }
    }

    /// One sample of a trigger: its metric specs' values with their targets, then whether it
    /// is active.
    async fn sample(&self, trigger: usize) -> Result<Sample, tonic::Status> {
        let mut client = self.connection().client.clone();
        let specs = client.get_metric_spec(self.reference(trigger)).await?.into_inner().metric_specs;
        if specs.is_empty() {
            return Err(tonic::Status::internal("the scaler gave no metric spec"));
        }
        self.known().insert(trigger);
        let mut values = Vec::with_capacity(specs.len());
        for spec in specs {
            let request = GetMetricsRequest {
                scaled_object_ref: Some(self.reference(trigger)),
                metric_name: spec.metric_name.clone(),
            };
            let response = client.get_metrics(request).await?.into_inner();
            let total = response.metric_values.iter().map(|value| {
                if value.metric_value_float > 0.0 {
                    value.metric_value_float
                } else {
                    value.metric_value as f64
                }
            });
            values.push((total.sum(), target(&spec)));
        }
        let active = client.is_active(self.reference(trigger)).await?.into_inner().result;
        Ok(Sample { values, active })
    }

    /// A trigger is active: wakes the target where it sleeps.
    fn active(&self, cause: Cause) {
        *self.last_active() = Some(self.clock.now());
        if self.scale.replicas() == 0 {
            self.write(0, self.object.min_replicas.max(1), cause);
        }
    }

    /// No trigger is active: zero, once the cooldown period is over.
    fn inactive(&self) {
        let replicas = self.scale.replicas();
        let cooled = self.last_active().is_none_or(|at| at + self.object.cooldown < self.clock.now());
        if self.object.min_replicas == 0 && replicas > 0 && cooled {
            self.write(replicas, 0, Cause::Cooldown);
        }
    }

    fn last_active(&self) -> MutexGuard<'_, Option<Moment>> {
        self.last_active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, from: u32, to: u32, cause: Cause) {
        if self.scale.change(from, to) {
            self.record(Event::Scaled { from, to, cause });
        }
    }
}

struct Sample {
    /// For each metric spec its total and its target.
    values: Vec<(f64, f64)>,
    active: bool,
}

fn target(spec: &MetricSpec) -> f64 {
    if spec.target_size_float > 0.0 { spec.target_size_float } else { spec.target_size as f64 }
}

#[cfg(test)]
#[path = "keda_tests.rs"]
mod tests;
