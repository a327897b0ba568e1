//! Over real loopback sockets. Where a test says something about time, tokio's clock is paused:
//! it moves only when every task waits and no socket is ready.

mod tls;

use std::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::{Stream, StreamExt as _, future::join_all, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tonic::{Code, Status, service::Routes, transport::Channel};

use super::*;
use keda_proto::{
    self, GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, ScaledObjectRef,
    external_scaler_client::ExternalScalerClient, external_scaler_server::ExternalScalerServer,
};

const GRACE: Duration = Duration::from_secs(60);
/// A name that makes [`Scripted`] send on a stream as fast as the client takes it.
const FIREHOSE: &str = "firehose";
/// A name at which [`Scripted`] panics.
const BUG: &str = "bug";

/// Sends `true` on each stream and ends them all on demand.
#[derive(Clone, Default)]
struct Scripted {
    end_streams: CancellationToken,
    sent: Arc<AtomicUsize>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl keda_proto::external_scaler_server::ExternalScaler for Scripted {
    type StreamIsActiveStream = Answers<IsActiveResponse>;
    type StreamMetricSpecStream = Answers<GetMetricSpecResponse>;

    async fn is_active(
        &self,
        request: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<IsActiveResponse>, Status> {
        assert!(request.remote_addr().is_some());
        assert!(request.extensions().get::<Arc<Peer>>().is_some());
        assert!(request.get_ref().name != BUG, "this call finds a bug");
        Ok(tonic::Response::new(IsActiveResponse { result: true }))
    }

    async fn stream_is_active(
        &self,
        request: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<Self::StreamIsActiveStream>, Status> {
        let (end, sent) = (self.end_streams.clone(), Arc::clone(&self.sent));
        let active = move || {
            sent.fetch_add(1, Ordering::SeqCst);
            Ok(IsActiveResponse { result: true })
        };
        let answers: Self::StreamIsActiveStream = if request.into_inner().name == FIREHOSE {
            Box::pin(stream::repeat_with(active))
        } else {
            let rest = stream::once(async move { end.cancelled_owned().await }).filter_map(async |()| None);
            Box::pin(stream::iter([active()]).chain(rest))
        };
        Ok(tonic::Response::new(answers))
    }

    async fn get_metric_spec(
        &self,
        _: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<GetMetricSpecResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_metrics(
        &self,
        _: tonic::Request<GetMetricsRequest>,
    ) -> Result<tonic::Response<GetMetricsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn stream_metric_spec(
        &self,
        _: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<Self::StreamMetricSpecStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[derive(Debug, PartialEq)]
enum Event {
    Opened(u64),
    Closed(u64),
    Refused(String),
    PlaintextClient,
}

struct Recorder(mpsc::UnboundedSender<Event>);

impl Observe for Recorder {
    fn opened(&self, peer: &Arc<Peer>) {
        self.0.send(Event::Opened(peer.connection)).unwrap();
    }

    fn closed(&self, peer: &Arc<Peer>) {
        // The test may be over.
        let _ = self.0.send(Event::Closed(peer.connection));
    }

    fn refused(&self, _: SocketAddr, refusal: &Refusal) {
        let _ = self.0.send(Event::Refused(format!("{refusal:?}")));
    }

    fn plaintext_client(&self, _: IpAddr) {
        self.0.send(Event::PlaintextClient).unwrap();
    }
}

struct Rig {
    serving: Serving,
    address: SocketAddr,
    service: Scripted,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Rig {
    async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        Self::secured(Security::Plaintext, limits).await
    }

    async fn secured(security: Security, limits: Limits) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let service = Scripted::default();
        let (seen, events) = mpsc::unbounded_channel();
        let listener = Listener {
            name: "listener",
            tasks: Tasks::new(),
            socket,
            security,
            service: Routes::new(ExternalScalerServer::new(service.clone())),
            observer: Arc::new(Recorder(seen)),
            limits,
        };
        Self { serving: listener.serve(), address, service, events }
    }

    async fn client(&self) -> ExternalScalerClient<Channel> {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        ExternalScalerClient::new(endpoint.connect().await.unwrap())
    }

    async fn raw(&self) -> RawClient {
        RawClient { tcp: TcpStream::connect(self.address).await.unwrap() }
    }
}

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

/// An HTTP/2 client that shows the frames in the order in which they came.
struct RawClient {
    tcp: TcpStream,
}

impl RawClient {
    /// Sends the preface and one call on stream 1.
    async fn call(&mut self, method: &str, name: &str) {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        // HPACK: `POST` and `http` by index, the rest as literals that are not indexed.
        let mut headers = vec![0x83, 0x86];
        let literal = |out: &mut Vec<u8>, text: &str| {
            out.push(u8::try_from(text.len()).unwrap());
            out.extend(text.as_bytes());
        };
        headers.push(0x04);
        literal(&mut headers, &format!("/externalscaler.ExternalScaler/{method}"));
        headers.push(0x01);
        literal(&mut headers, "scaler");
        headers.extend([0x0f, 0x10]);
        literal(&mut headers, "application/grpc");
        headers.push(0x00);
        literal(&mut headers, "te");
        literal(&mut headers, "trailers");
        bytes.extend(frame(HEADERS, 0x4, 1, &headers));
        let mut message = vec![0, 0, 0, 0, u8::try_from(name.len() + 2).unwrap(), 0x0a];
        literal(&mut message, name);
        bytes.extend(frame(DATA, END_STREAM, 1, &message));
        self.tcp.write_all(&bytes).await.unwrap();
    }

    /// The next frame's type and flags; `None` at the end of the connection.
    async fn frame(&mut self) -> Option<(u8, u8)> {
        let mut head = [0; 9];
        self.tcp.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.tcp.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4]))
    }

    async fn frames_until(&mut self, wanted: u8) -> Vec<u8> {
        let mut types = Vec::new();
        while types.last() != Some(&wanted) {
            types.push(self.frame().await.expect("the connection ended early").0);
        }
        types
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn goaway_is_on_the_wire_before_a_stream_ends() {
    let rig = Rig::start().await;
    let mut client = rig.raw().await;
    client.call("StreamIsActive", "a").await;
    client.frames_until(DATA).await;

    rig.serving.goaway().await;
    rig.service.end_streams.cancel();

    let mut order = Vec::new();
    while let Some((kind, flags)) = client.frame().await {
        if kind == GOAWAY || (kind == HEADERS && flags & END_STREAM != 0) {
            order.push(kind);
        }
        if kind == HEADERS {
            break;
        }
    }
    assert_eq!(order, [GOAWAY, HEADERS]);
}

#[tokio::test]
async fn a_call_that_panics_costs_itself_alone() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let mut answers = client.stream_is_active(ScaledObjectRef::default()).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().result);
    let object = ScaledObjectRef { name: BUG.into(), ..ScaledObjectRef::default() };
    assert!(client.is_active(object).await.is_err());
    assert!(client.is_active(ScaledObjectRef::default()).await.unwrap().into_inner().result);
    assert_eq!(rig.serving.connections(), 1, "over the same connection");
    rig.service.end_streams.cancel();
    assert!(answers.message().await.unwrap().is_none(), "the stream ended with OK");
}

#[tokio::test]
async fn an_open_stream_outlives_goaway_and_ends_with_ok() {
    let mut rig = Rig::start().await;
    let mut client = rig.client().await;
    let mut answers = client.stream_is_active(ScaledObjectRef::default()).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().result);

    rig.serving.goaway().await;
    // The client dials again for its next calls; tonic's lets the one fail that meets the GOAWAY.
    while client.is_active(ScaledObjectRef::default()).await.is_err() {}
    rig.service.end_streams.cancel();
    assert!(answers.message().await.unwrap().is_none(), "the stream ended with OK");
    assert!(answers.trailers().await.is_ok());

    assert_eq!(rig.serving.stop(GRACE).await, Stopped::Drained);
    assert_eq!(rig.events.recv().await, Some(Event::Opened(0)));
    assert_eq!(rig.events.recv().await, Some(Event::Opened(1)));
    let refused = client.is_active(ScaledObjectRef::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "nobody listens any more: {refused:?}");
}

#[tokio::test]
async fn a_connection_after_goaway_is_answered_and_told_to_leave() {
    let rig = Rig::start().await;
    rig.serving.goaway().await;
    let mut client = rig.raw().await;
    client.call("IsActive", "a").await;
    let (mut goaway, mut answered) = (false, false);
    while !(goaway && answered) {
        let (kind, flags) = client.frame().await.expect("both come before the end");
        goaway |= kind == GOAWAY;
        answered |= kind == HEADERS && flags & END_STREAM != 0;
    }
}

#[tokio::test(start_paused = true)]
async fn stop_cuts_who_does_not_leave_in_time() {
    let rig = Rig::start().await;
    let mut client = rig.raw().await;
    client.call("StreamIsActive", "a").await;
    client.frames_until(DATA).await;
    let before = Instant::now();
    let grace = Duration::from_secs(7);
    assert_eq!(rig.serving.stop(grace).await, Stopped::Cut { connections: 1 });
    assert_eq!(before.elapsed().as_secs(), grace.as_secs());
}

#[tokio::test]
async fn two_thousand_streams_share_one_connection() {
    let rig = Rig::start().await;
    let client = rig.client().await;
    let mut streams = join_all((0..2_000).map(|_| {
        let mut client = client.clone();
        async move { client.stream_is_active(ScaledObjectRef::default()).await.unwrap().into_inner() }
    }))
    .await;
    for stream in &mut streams {
        assert!(stream.message().await.unwrap().unwrap().result);
    }
    let mut unary = client.clone();
    assert!(unary.is_active(ScaledObjectRef::default()).await.unwrap().into_inner().result);
    assert_eq!(rig.serving.connections(), 1);

    rig.serving.goaway().await;
    rig.service.end_streams.cancel();
    for stream in &mut streams {
        assert!(stream.message().await.unwrap().is_none());
    }
    drop((client, unary, streams));
    assert_eq!(rig.serving.stop(GRACE).await, Stopped::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_dropped_after_two_seconds() {
    let mut rig = Rig::start().await;
    let mut silent = TcpStream::connect(rig.address).await.unwrap();
    let mut mumbling = TcpStream::connect(rig.address).await.unwrap();
    mumbling.write_all(b"PRI * HT").await.unwrap();
    let before = Instant::now();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(mumbling.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(before.elapsed().as_secs(), Limits::default().admission.as_secs());
    for _ in 0..2 {
        assert_eq!(rig.events.recv().await, Some(Event::Refused("TooSlow".into())));
    }
}

#[tokio::test]
async fn a_thousand_silent_peers_delay_nobody() {
    // With this limit a call that had to wait for any of them would not return.
    let limits = Limits { admission: Duration::from_secs(3_600), ..Limits::default() };
    let mut rig = Rig::with(limits).await;
    // One after the other, or they would overflow the kernel's accept queue instead.
    let mut silent = Vec::new();
    while silent.len() < 1_000 {
        silent.push(TcpStream::connect(rig.address).await.unwrap());
    }
    let mut client = rig.client().await;
    assert!(client.is_active(ScaledObjectRef::default()).await.unwrap().into_inner().result);

    assert_eq!(rig.serving.connections(), 1);
    // All but as many as may wait had to make room.
    let mut displaced = 0;
    while displaced < silent.len() - limits.pending {
        match rig.events.recv().await.unwrap() {
            Event::Refused(refusal) if refusal == "Displaced" => displaced += 1,
            other => assert_eq!(other, Event::Opened(1_000)),
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_sent_no_more_than_its_window() {
    let rig = Rig::start().await;
    let mut deaf = rig.raw().await;
    deaf.call("StreamIsActive", FIREHOSE).await;

    // Each call of another client lets the server work; it stops to send when the window is full.
    let mut client = rig.client().await;
    let (mut sent, mut unchanged) = (0, 0);
    while unchanged < 50 || sent == 0 {
        client.is_active(ScaledObjectRef::default()).await.unwrap();
        let now = rig.service.sent.load(Ordering::SeqCst);
        unchanged = if now == sent { unchanged + 1 } else { 0 };
        sent = now;
    }
    // The client's window, and one batch of messages (32 KiB) that tonic encodes ahead.
    let (message, window, ahead) = (5 + 2, 65_535, 32 << 10);
    assert!(
        sent * message <= window + ahead + 1_024,
        "{sent} messages were made for a client that reads nothing"
    );
}

#[tokio::test]
async fn who_speaks_another_protocol_is_told_apart() {
    let mut rig = Rig::start().await;
    for (says, refusal) in
        [(&b"\x16\x03\x01"[..], "TlsClient"), (b"GET / HTTP/1.1\r\n\r\n", "NotHttp2"), (b"", "Closed")]
    {
        let mut peer = TcpStream::connect(rig.address).await.unwrap();
        peer.write_all(says).await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(rig.events.recv().await, Some(Event::Refused(refusal.into())), "{says:?}");
    }
    let gone = rig.client().await;
    assert_eq!(rig.events.recv().await, Some(Event::Opened(3)));
    drop(gone);
    assert_eq!(rig.events.recv().await, Some(Event::Closed(3)));
}

#[tokio::test]
async fn stop_does_not_wait_for_peers_that_are_not_admitted() {
    let mut rig = Rig::start().await;
    let _silent = TcpStream::connect(rig.address).await.unwrap();
    let mut client = rig.client().await;
    client.is_active(ScaledObjectRef::default()).await.unwrap();
    drop(client);
    assert_eq!(rig.serving.stop(GRACE).await, Stopped::Drained);
    let mut seen = Vec::new();
    while let Ok(event) = rig.events.try_recv() {
        seen.push(event);
    }
    assert!(seen.contains(&Event::Refused("Stopping".into())), "{seen:?}");
}
