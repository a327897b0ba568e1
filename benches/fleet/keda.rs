//! KEDA as the scaler sees it: one connection, a StreamIsActive for each target, and polls.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use keda_proto::{GetMetricsRequest, ScaledObjectRef, external_scaler_client::ExternalScalerClient};
use sim::fleet::{Fleet, NAMESPACE};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};
use tonic::transport::{Channel, Endpoint};

/// KEDA's one connection to the scaler.
#[derive(Clone, Debug)]
pub(crate) struct Keda {
    client: ExternalScalerClient<Channel>,
}

/// A trigger of a ScaledObject, as KEDA sends it with each call.
pub(crate) fn target(model: &str, scrape_interval: Duration) -> ScaledObjectRef {
    let interval = format!("{}ms", scrape_interval.as_millis());
    let metadata = [
        ("inferenceSetNamespace", NAMESPACE),
        ("inferenceSetName", model),
        ("metricName", METRIC),
        ("threshold", "10"),
        ("activationHold", "0s"),
        ("scrapeInterval", &interval),
    ];
    ScaledObjectRef {
        name: model.to_owned(),
        namespace: NAMESPACE.to_owned(),
        scaler_metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}

const METRIC: &str = "vllm:num_requests_waiting";

/// A target for each InferenceSet of the fleet.
pub(crate) fn targets(fleet: &Fleet, scrape_interval: Duration) -> Arc<Vec<ScaledObjectRef>> {
    Arc::new(fleet.members.iter().map(|member| target(&member.name, scrape_interval)).collect())
}

/// For how long a connection or a first value is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

impl Keda {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        Ok(Self::over(endpoint.connect().await.context("failed to connect to the scaler")?))
    }

    pub(crate) fn over(channel: Channel) -> Self {
        Self { client: ExternalScalerClient::new(channel) }
    }

    /// The value of a target's metric.
    pub(crate) async fn get_metrics(&self, target: &ScaledObjectRef) -> Result<f64, tonic::Status> {
        let request =
            GetMetricsRequest { scaled_object_ref: Some(target.clone()), metric_name: METRIC.to_owned() };
        let values = self.client.clone().get_metrics(request).await?.into_inner().metric_values;
        values
            .first()
            .map(|value| value.metric_value_float)
            .ok_or_else(|| tonic::Status::internal("the scaler gave no value"))
    }

    /// One sample, as KEDA takes it: GetMetrics, whose time is given, then IsActive.
    pub(crate) async fn sample(&self, target: &ScaledObjectRef) -> Result<Duration, tonic::Status> {
        let asked = Instant::now();
        self.get_metrics(target).await?;
        let answered = asked.elapsed();
        self.client.clone().is_active(target.clone()).await?;
        Ok(answered)
    }

    /// Asks until each target has a value, all at once.
    pub(crate) async fn await_values(&self, targets: &Arc<Vec<ScaledObjectRef>>) -> Result<()> {
        let mut asking = JoinSet::new();
        for number in 0..targets.len() {
            let (keda, targets) = (self.clone(), targets.clone());
            asking.spawn(async move {
                while let Err(status) = keda.get_metrics(&targets[number]).await {
                    drop(status);
                    time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        time::timeout(PATIENCE, asking.join_all()).await.context("not every target has a value")?;
        Ok(())
    }

    /// Asks each target for its value, all at once.
    pub(crate) fn ask_once(
        &self,
        targets: &Arc<Vec<ScaledObjectRef>>,
    ) -> JoinSet<Result<f64, tonic::Status>> {
        let mut asking = JoinSet::new();
        for number in 0..targets.len() {
            let (keda, targets) = (self.clone(), targets.clone());
            asking.spawn(async move { keda.get_metrics(&targets[number]).await });
        }
        asking
    }

    /// Polls all targets in turn, each once in `period`, for `window`. Gives the times of
    /// GetMetrics and the number of calls that failed.
    pub(crate) async fn poll(
        &self,
        targets: &Arc<Vec<ScaledObjectRef>>,
        period: Duration,
        window: Duration,
    ) -> (Vec<Duration>, usize) {
        let end = Instant::now() + window;
        let pause = period / u32::try_from(targets.len().max(1)).unwrap_or(u32::MAX);
        let mut ticks = time::interval(pause.max(Duration::from_millis(1)));
        let (mut times, mut failed) = (vec![], 0);
        for number in (0..targets.len()).cycle() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = time::sleep_until(end) => break,
            }
            match self.sample(&targets[number]).await {
                Ok(time) => times.push(time),
                Err(_) => failed += 1,
            }
        }
        (times, failed)
    }

    /// Opens a StreamIsActive for each target, and again where one ends.
    pub(crate) fn open_streams(&self, targets: &Arc<Vec<ScaledObjectRef>>) -> Streams {
        let opened = Arc::new(AtomicUsize::new(0));
        let (mut tasks, mut frames) = (JoinSet::new(), Vec::with_capacity(targets.len()));
        for number in 0..targets.len() {
            let (say, said) = watch::channel(None);
            frames.push(said);
            let (keda, targets, opened) = (self.clone(), targets.clone(), opened.clone());
            tasks.spawn(async move {
                loop {
                    let stream = keda.client.clone().stream_is_active(targets[number].clone()).await;
                    let Ok(mut stream) = stream.map(tonic::Response::into_inner) else {
                        time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    opened.fetch_add(1, Ordering::Relaxed);
                    while let Ok(Some(frame)) = stream.message().await {
                        if frame.result {
                            say.send_replace(Some(Instant::now()));
                        }
                    }
                }
            });
        }
        Streams { frames, opened, _tasks: tasks }
    }
}

/// An open StreamIsActive for each target. They are closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Streams {
    /// When the last `true` came, by target.
    pub frames: Vec<watch::Receiver<Option<Instant>>>,
    opened: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Streams {
    /// How many streams were opened so far, over all targets.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// Waits until so many were opened.
    pub(crate) async fn await_open(&self, count: usize) -> Result<()> {
        let all = async {
            while self.opened() < count {
                time::sleep(Duration::from_millis(1)).await;
            }
        };
        let opened = time::timeout(PATIENCE, all).await;
        opened.with_context(|| format!("{} of {count} streams were opened", self.opened()))
    }
}
