//! Against a small scaler whose answers the test sets.

use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

use super::*;
use keda_proto::{
    GetMetricSpecResponse, GetMetricsResponse, IsActiveResponse, MetricValue,
    external_scaler_server::{ExternalScaler, ExternalScalerServer},
};

/// What the scaler says now.
#[derive(Clone, Copy, Debug)]
struct Answers {
    /// `None` is an error.
    value: Option<f64>,
    active: bool,
    /// Metric specs are answered; until then whoever asks for them waits.
    specs: bool,
}

impl Answers {
    const IDLE: Self = Self { value: Some(0.0), active: false, specs: true };
}

type Frames = mpsc::Sender<Result<IsActiveResponse, Status>>;

struct Scaler {
    answers: watch::Receiver<Answers>,
    opened: mpsc::Sender<Frames>,
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    type StreamIsActiveStream = ReceiverStream<Result<IsActiveResponse, Status>>;
    type StreamMetricSpecStream = ReceiverStream<Result<GetMetricSpecResponse, Status>>;

    async fn is_active(&self, _: Request<ScaledObjectRef>) -> Result<Response<IsActiveResponse>, Status> {
        Ok(Response::new(IsActiveResponse { result: self.answers.borrow().active }))
    }

    async fn stream_is_active(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let (frames, stream) = mpsc::channel(4);
        self.opened.send(frames).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_metric_spec(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<GetMetricSpecResponse>, Status> {
        self.answers.clone().wait_for(|answers| answers.specs).await.unwrap();
        let metric_specs =
            vec![MetricSpec { metric_name: "waiting".into(), target_size: 10, target_size_float: 10.0 }];
        Ok(Response::new(GetMetricSpecResponse { metric_specs }))
    }

    async fn get_metrics(
        &self,
        request: Request<GetMetricsRequest>,
    ) -> Result<Response<GetMetricsResponse>, Status> {
        assert_eq!(request.into_inner().metric_name, "waiting");
        let value = self.answers.borrow().value.ok_or_else(|| Status::unavailable("nothing is known"))?;
        let value = MetricValue { metric_name: "waiting".into(), metric_value: 0, metric_value_float: value };
        Ok(Response::new(GetMetricsResponse { metric_values: vec![value] }))
    }

    async fn stream_metric_spec(
        &self,
        _: Request<ScaledObjectRef>,
    ) -> Result<Response<Self::StreamMetricSpecStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// KEDA and a scaler, connected; everything ends with it.
struct Bench {
    answers: watch::Sender<Answers>,
    opened: mpsc::Receiver<Frames>,
    scale: Scale,
    journal: Journal,
    _tasks: JoinSet<()>,
}

async fn bench(replicas: u32, answers: Answers) -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answers, answered) = watch::channel(answers);
    let (opening, opened) = mpsc::channel(4);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let scaler = ExternalScalerServer::new(Scaler { answers: answered, opened: opening });
        let server = tonic::transport::Server::builder().add_service(scaler);
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    let (scale, journal) = (Scale::new(replicas), Journal::default());
    let object = ScaledObject {
        namespace: "default".into(),
        name: "phi-4".into(),
        triggers: vec![Trigger { push: true, metadata: HashMap::from([("threshold".into(), "10".into())]) }],
        min_replicas: 0,
        max_replicas: 5,
        cooldown: Duration::from_millis(20),
        polling_interval: Duration::from_millis(10),
        sync_period: Duration::from_millis(10),
        behavior: Behavior::kubernetes_default(1, 5),
    };
    let keda = run(object, address, scale.clone(), journal.clone(), Clock::start(), CancellationToken::new());
    tasks.spawn(async move { keda.await.unwrap() });
    Bench { answers, opened, scale, journal, _tasks: tasks }
}

impl Bench {
    async fn replicas(&self, wanted: u32) {
        self.scale.watch().wait_for(|replicas| *replicas == wanted).await.unwrap();
    }

    /// Waits until something of this kind happened.
    async fn event(&self, wanted: impl Fn(&Event) -> bool) {
        let mut ticks = time::interval(Duration::from_millis(1));
        while !self.journal.since(0).iter().any(|(_, event)| wanted(event)) {
            ticks.tick().await;
        }
    }

    fn scaled(&self) -> Vec<(u32, u32, Cause)> {
        let entries = self.journal.since(0).into_iter();
        let scaled = entries.filter_map(|(_, event)| match event {
            Event::Scaled { from, to, cause } => Some((from, to, cause)),
            _ => None,
        });
        scaled.collect()
    }
}

#[tokio::test]
async fn a_pushed_true_wakes_and_a_pushed_false_does_nothing() {
    let mut bench = bench(0, Answers::IDLE).await;
    let frames = bench.opened.recv().await.unwrap();
    bench.event(|event| matches!(event, Event::Polled { .. })).await;
    frames.send(Ok(IsActiveResponse { result: false })).await.unwrap();
    bench.event(|event| *event == Event::Pushed { trigger: 0, active: false }).await;
    assert_eq!(bench.scale.replicas(), 0);
    bench.answers.send_modify(|answers| answers.active = true);
    frames.send(Ok(IsActiveResponse { result: true })).await.unwrap();
    bench.replicas(1).await;
    assert_eq!(bench.scaled().len(), 1);
}

#[tokio::test]
async fn zero_to_many_and_back() {
    let bench = bench(0, Answers::IDLE).await;
    bench.event(|event| matches!(event, Event::Polled { .. })).await;
    assert_eq!(bench.scale.replicas(), 0);
    bench.answers.send_replace(Answers { value: Some(33.0), active: true, specs: true });
    bench.replicas(4).await;
    bench.answers.send_replace(Answers::IDLE);
    bench.replicas(0).await;
    assert_eq!(bench.scaled(), [(0, 1, Cause::Poll), (1, 4, Cause::Hpa), (4, 0, Cause::Cooldown)]);
}

#[tokio::test]
async fn an_error_holds() {
    let bench = bench(2, Answers { value: None, active: false, specs: true }).await;
    bench
        .event(|event| matches!(event, Event::CallFailed { error, .. } if error == "nothing is known"))
        .await;
    // Several polls and syncs later nothing has moved; then an answer moves it.
    let failed = |bench: &Bench| {
        bench.journal.since(0).iter().filter(|(_, event)| matches!(event, Event::CallFailed { .. })).count()
    };
    let mut ticks = time::interval(Duration::from_millis(1));
    while failed(&bench) < 12 {
        ticks.tick().await;
    }
    assert_eq!((bench.scale.replicas(), bench.scaled()), (2, vec![]));
    bench.answers.send_replace(Answers { value: Some(50.0), active: true, specs: true });
    bench.replicas(5).await;
}

#[tokio::test]
async fn the_scale_is_written_on_top_of_what_was_read() {
    let scale = Scale::new(1);
    assert!(scale.change(1, 3));
    assert!(!scale.change(1, 2), "somebody else was faster");
    assert!(!scale.change(3, 3), "nothing to write");
    assert_eq!(scale.replicas(), 3);
}

#[tokio::test]
async fn a_push_is_lost_on_a_keda_that_does_not_know_the_metrics_yet() {
    let mut bench = bench(0, Answers { specs: false, ..Answers::IDLE }).await;
    let frames = bench.opened.recv().await.unwrap();
    frames.send(Ok(IsActiveResponse { result: true })).await.unwrap();
    bench.event(|event| *event == Event::Pushed { trigger: 0, active: true }).await;
    bench.answers.send_replace(Answers::IDLE);
    bench.event(|event| matches!(event, Event::Polled { .. })).await;
    assert_eq!(bench.scaled(), []);
    frames.send(Ok(IsActiveResponse { result: true })).await.unwrap();
    bench.replicas(1).await;
}

#[tokio::test]
async fn a_poll_that_fails_costs_the_stream() {
    let mut bench = bench(0, Answers::IDLE).await;
    let frames = bench.opened.recv().await.unwrap();
    bench.event(|event| matches!(event, Event::Polled { .. })).await;
    bench.answers.send_modify(|answers| answers.value = None);
    frames.closed().await;
    bench.event(|event| matches!(event, Event::StreamEnded { error: Some(_), .. })).await;
    // The next one is on another connection.
    bench.answers.send_replace(Answers::IDLE);
    let frames = bench.opened.recv().await.unwrap();
    frames.send(Ok(IsActiveResponse { result: true })).await.unwrap();
    bench.replicas(1).await;
}

#[test]
fn a_stream_is_opened_ever_later_until_one_ends_well() {
    let mut backoff = Backoff::new();
    let (good, bad) = (true, false);
    let ends = [bad, bad, bad, bad, bad, bad, bad, good, bad, good, good];
    let pauses = ends.map(|ended_well| backoff.after(ended_well).as_secs());
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 2, 4, 2, 2]);
}
