//! The HTTP/1.1 answer: in pieces and whole alike, within its bounds, and as hyper reads it
//! where both take it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Bytes,
    client::conn::http1,
    rt::{Read, ReadBufCursor, Write},
};

use crate::http_answer::{Answer, AnswerError, MAX_FRAMING, MAX_HEAD};

/// The largest body that is taken here.
const LIMIT: usize = 4096;
/// Of the line that announces a chunk.
const CHUNK_LINE: usize = 256;

/// What came of an answer, without whether its connection lives on: that depends on what came
/// with its last piece.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Complete(u16, Vec<u8>),
    TooLarge,
    /// No HTTP, or not all of an answer: a head that is cut off may be either, and it depends on
    /// its pieces which of them shows first.
    Broken,
}

/// The first byte says in how large pieces the rest comes.
pub fn check(input: &[u8]) {
    let Some((pieces, wire)) = input.split_first() else { return };
    let whole = receive(wire, wire.len().max(1));
    for size in [1, usize::from(*pieces) + 2] {
        assert_eq!(receive(wire, size), whole, "in pieces of {size}");
    }
    if let Outcome::Complete(200, body) = &whole
        && let Some((status, theirs)) = hyper_reads(wire)
    {
        assert_eq!((status, &theirs), (200, body), "hyper reads something else");
    }
}

/// Receives `wire` in pieces of `size` bytes, after which the server closes.
fn receive(wire: &[u8], size: usize) -> Outcome {
    let (mut answer, mut buffer) = (Answer::new(LIMIT), Vec::new());
    for piece in wire.chunks(size) {
        buffer.extend_from_slice(piece);
        match answer.advance(&mut buffer) {
            Ok(Some(complete)) => return Outcome::Complete(complete.status, buffer[complete.body].to_vec()),
            Ok(None) => {}
            Err(error) => return failed(&error),
        }
        // Heads before the body, or framing behind it; never all of them.
        let body = if answer.status() == Some(200) { LIMIT } else { wire.len() };
        let most = MAX_HEAD.max(MAX_FRAMING) + body + 2 * CHUNK_LINE;
        assert!(buffer.len() <= most + size, "{} bytes are held", buffer.len());
    }
    match answer.closed() {
        Ok(complete) => Outcome::Complete(complete.status, buffer[complete.body].to_vec()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &AnswerError) -> Outcome {
    crate::text::assert_presentable(&error.to_string(), 1);
    match error {
        AnswerError::TooLarge { .. } => Outcome::TooLarge,
        AnswerError::NotHttp(_) | AnswerError::CutOff => Outcome::Broken,
    }
}

/// What hyper makes of `wire`, where it takes it.
fn hyper_reads(wire: &[u8]) -> Option<(u16, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    runtime.block_on(async {
        let (mut sender, connection) =
            http1::handshake::<_, Empty<Bytes>>(Wire { bytes: wire.to_vec(), at: 0, asked: false })
                .await
                .ok()?;
        let request =
            hyper::Request::builder().uri("/metrics").header("host", "pod").body(Empty::new()).ok()?;
        let exchange = async {
            let response = sender.send_request(request).await.ok()?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            Some((status, body.to_vec()))
        };
        let connection = async {
            // What is wrong with it shows in the exchange.
            let _ = connection.await;
            std::future::pending::<Infallible>().await
        };
        let mut exchange = std::pin::pin!(exchange);
        let mut connection = std::pin::pin!(connection);
        std::future::poll_fn(|context| {
            // In turn, until the exchange ends: nothing else moves it.
            for _ in 0..1_000_000 {
                if let Poll::Ready(done) = exchange.as_mut().poll(context) {
                    return Poll::Ready(done);
                }
                if let Poll::Ready(never) = connection.as_mut().poll(context) {
                    match never {}
                }
            }
            panic!("hyper does not come to an end");
        })
        .await
    })
}

/// A server that says its piece once it was asked, and closes.
struct Wire {
    bytes: Vec<u8>,
    at: usize,
    asked: bool,
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if !this.asked {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let rest = &this.bytes[this.at..];
        let taken = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..taken]);
        this.at += taken;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.get_mut().asked = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
