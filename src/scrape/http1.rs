//! GET over a connection that its user keeps.
//!
//! Written on the socket because of its numbers. Ten thousand endpoints are ten thousand
//! connections that rest nearly all of the time, and a general client keeps buffers, a task
//! and two channels for each; here a resting connection is its socket. And a general client
//! pools connections by name, while two pods behind one name are two servers.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
};

use bytes::BufMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout_at,
};

use super::{
    answer::{Answer, AnswerError, Complete, MAX_HEAD},
    fetch::{Request, ScrapeError},
    large::{LARGE, LargePages},
    page::{Buffer, Buffers, Page},
    stream::Stream,
    tls::{Peer, Tls},
};

const USER_AGENT: &str = concat!("keda-kaito-scaler/", env!("CARGO_PKG_VERSION"));
/// Plain text, so that a server that also speaks OpenMetrics does not choose that.
const ACCEPT: &str = "text/plain;version=0.0.4";

/// The most that is read at once, and set aside for a body before it is there, in bytes.
const MOST_AT_ONCE: usize = 64 * 1024;
/// The least room that a read gets.
const LEAST_ROOM: usize = 4 * 1024;

/// What the answers to all requests of a client may take.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// The largest page that is read, in bytes.
    pub(super) limit: usize,
    pub(super) buffers: Buffers,
    pub(super) large: LargePages,
}

/// A connection without a request on it. It belongs to the server that it leads to.
#[derive(Debug)]
pub(super) struct Resting {
    stream: Stream,
    address: SocketAddr,
    peer: Peer,
}

/// Fetches a page over the connection that rests, where it leads to the server that is asked
/// for, or over a new one.
pub(super) async fn get(
    connection: &mut Option<Resting>,
    request: &Request<'_>,
    tls: &Tls,
    room: &Room,
) -> Result<Page, ScrapeError> {
    // Taken out: whoever drops this future in the middle leaves no half an answer behind.
    if let Some(mut resting) = connection.take()
        && resting.leads_to(request)
        && resting.is_alive()
    {
        match exchange(resting, connection, request, room).await {
            // The server closed the kept connection while the request was on its way: that
            // says nothing about the page.
            Err(Failure::Unanswered) => {}
            done => return done.map_err(Failure::into),
        }
    }
    let Request { address, peer, .. } = *request;
    let stream = Stream::connect(address, peer, tls).await?;
    let fresh = Resting { stream, address, peer: peer.clone() };
    exchange(fresh, connection, request, room).await.map_err(Failure::into)
}

impl Resting {
    fn leads_to(&self, request: &Request<'_>) -> bool {
        self.address == request.address && self.peer == *request.peer
    }

    /// False where the server has closed it, or said something that nobody asked for.
    pub(super) fn is_alive(&mut self) -> bool {
        self.stream.is_quiet()
    }
}

/// Why an exchange gave no page.
#[derive(Debug)]
enum Failure {
    /// Not one byte came back.
    Unanswered,
    Answered(ScrapeError),
}

impl From<AnswerError> for Failure {
    fn from(error: AnswerError) -> Self {
        Self::Answered(error.into())
    }
}

impl From<ScrapeError> for Failure {
    fn from(error: ScrapeError) -> Self {
        Self::Answered(error)
    }
}

impl From<Failure> for ScrapeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unanswered => Self::Broken,
            Failure::Answered(error) => error,
        }
    }
}

/// Sends the request and receives the answer. Leaves `used` in `connection` where it can be
/// used again.
async fn exchange(
    mut used: Resting,
    connection: &mut Option<Resting>,
    request: &Request<'_>,
    room: &Room,
) -> Result<Page, Failure> {
    let stream = &mut used.stream;
    send(stream, request, &room.buffers).await.map_err(|_| Failure::Unanswered)?;
    stream.readable().await.map_err(|_| Failure::Unanswered)?;
    // No buffer was held while there was nothing to put into it.
    let mut buffer = room.buffers.take();
    let answer = receive(stream, &mut buffer, request.namespace, room).await?;
    if answer.keep_alive {
        *connection = Some(used);
    }
    match answer.status {
        200 => Ok(buffer.into_page(answer.body)),
        status if (300..400).contains(&status) => Err(Failure::Answered(ScrapeError::Redirect(status))),
        status => Err(Failure::Answered(ScrapeError::Status(status))),
    }
}

async fn send(stream: &mut Stream, request: &Request<'_>, buffers: &Buffers) -> io::Result<()> {
    let Request { url, authorization, .. } = *request;
    let mut buffer = buffers.take();
    let bytes = &mut buffer.bytes;
    write!(bytes, "GET {}", url.path())?;
    if let Some(query) = url.query() {
        write!(bytes, "?{query}")?;
    }
    // Plain text, so that a server that also speaks OpenMetrics does not choose that.
    write!(
        bytes,
        " HTTP/1.1\r\nhost: {}:{}\r\nuser-agent: {}\r\naccept: {}\r\n",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or_default(),
        USER_AGENT,
        ACCEPT
    )?;
    if let Some(authorization) = authorization {
        bytes.extend_from_slice(b"authorization: ");
        bytes.extend_from_slice(authorization.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let sent = match stream.write_all(bytes).await {
        Ok(()) => stream.flush().await,
        failed => failed,
    };
    if authorization.is_some() {
        // Buffers are shared: the next page must not be read over a token.
        bytes.fill(0);
    }
    sent
}

async fn receive(
    stream: &mut Stream,
    buffer: &mut Buffer,
    namespace: &str,
    room: &Room,
) -> Result<Complete, Failure> {
    let mut answer = Answer::new(room.limit);
    loop {
        if buffer.bytes.len().saturating_add(answer.expected()) > LARGE {
            // Boxed, for it is rare, and each task has room for it set aside.
            return Box::pin(receive_large(stream, buffer, answer, namespace, room)).await;
        }
        if let Some(complete) = receive_some(stream, &mut buffer.bytes, &mut answer, room.limit).await? {
            return Ok(complete);
        }
    }
}

/// Goes on with an answer that has turned out to be large, once it is admitted.
async fn receive_large(
    stream: &mut Stream,
    buffer: &mut Buffer,
    mut answer: Answer,
    namespace: &str,
    room: &Room,
) -> Result<Complete, Failure> {
    let bytes = &mut buffer.bytes;
    let announced = answer.announces_its_size().then(|| bytes.len().saturating_add(answer.expected()));
    let mut admission = room.large.admit(namespace, announced).await?;
    loop {
        if bytes.len().saturating_add(answer.expected()) > admission.size() {
            admission.grow().await?;
        }
        let received =
            timeout_at(admission.deadline, receive_some(stream, bytes, &mut answer, room.limit)).await;
        admission.received(bytes.len());
        if let Some(complete) = received.map_err(|_| ScrapeError::Stalled)?? {
            admission.completed();
            buffer.admission = Some(Box::new(admission));
            return Ok(complete);
        }
        // However fast it comes: others have their turn between two pieces.
        tokio::task::yield_now().await;
    }
}

/// Receives what has come, and waits where nothing has. `None` where more is to come.
async fn receive_some(
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    answer: &mut Answer,
    limit: usize,
) -> Result<Option<Complete>, Failure> {
    reserve(bytes, answer.expected().clamp(LEAST_ROOM, MOST_AT_ONCE), limit);
    match stream.read_buf(&mut bytes.limit(MOST_AT_ONCE)).await {
        Ok(0) | Err(_) if bytes.is_empty() && answer.is_untouched() => return Err(Failure::Unanswered),
        Ok(0) => return Ok(answer.closed().map(Some)?),
        Ok(_) => {}
        Err(_) => return Err(Failure::Answered(ScrapeError::Broken)),
    }
    if let Some(complete) = answer.advance(bytes)? {
        return Ok(Some(complete));
    }
    // An error's body is not waited for; then the connection is in its way.
    let failed = answer.status().filter(|status| *status != 200);
    Ok(failed.map(|status| Complete { status, body: 0..0, keep_alive: false }))
}

/// Makes room for `more` bytes. A buffer grows by doubling, so that it is seldom moved, but not
/// beyond what the largest answer takes.
fn reserve(bytes: &mut Vec<u8>, more: usize, limit: usize) {
    let (held, needed) = (bytes.capacity(), bytes.len() + more);
    if held < needed {
        let most = limit.saturating_add(MAX_HEAD + MOST_AT_ONCE);
        bytes.reserve_exact((2 * held).min(most).max(needed) - bytes.len());
    }
}
