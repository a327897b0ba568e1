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

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    answer::{Answer, Complete},
    fetch::{Request, ScrapeError},
    page::{Buffer, Buffers, Page},
    stream::Stream,
    tls::{Peer, Tls},
};

/// The most that is set aside for a body before it is there, in bytes.
const MOST_AHEAD: usize = 256 * 1024;
/// The least room that a read gets.
const LEAST_ROOM: usize = 4 * 1024;

/// A connection without a request on it. It belongs to the server that it leads to.
#[derive(Debug)]
pub(super) struct Resting {
    stream: Stream,
    address: SocketAddr,
    peer: Peer,
}

/// Fetches a page over the connection that rests, where it leads to the server that is asked
/// for, or over a new one. At most `limit` bytes are taken for a page.
pub(super) async fn get(
    connection: &mut Option<Resting>,
    request: &Request<'_>,
    tls: &Tls,
    limit: usize,
    buffers: &Buffers,
) -> Result<Page, ScrapeError> {
    // Taken out: whoever drops this future in the middle leaves no half an answer behind.
    if let Some(mut resting) = connection.take()
        && resting.leads_to(request)
        && resting.is_alive()
    {
        match exchange(resting, connection, request, limit, buffers).await {
            // The server closed the kept connection while the request was on its way: that
            // says nothing about the page.
            Err(Failure::Unanswered) => {}
            done => return done.map_err(Failure::into),
        }
    }
    let Request { address, peer, .. } = *request;
    let stream = Stream::connect(address, peer, tls).await?;
    let fresh = Resting { stream, address, peer: peer.clone() };
    exchange(fresh, connection, request, limit, buffers).await.map_err(Failure::into)
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
    limit: usize,
    buffers: &Buffers,
) -> Result<Page, Failure> {
    let stream = &mut used.stream;
    send(stream, request, buffers).await.map_err(|_| Failure::Unanswered)?;
    stream.readable().await.map_err(|_| Failure::Unanswered)?;
    // No buffer was held while there was nothing to put into it.
    let mut buffer = buffers.take();
    let answer = receive(stream, &mut buffer, limit).await?;
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
        super::client::USER_AGENT,
        super::client::ACCEPT
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

async fn receive(stream: &mut Stream, buffer: &mut Buffer, limit: usize) -> Result<Complete, Failure> {
    let mut answer = Answer::new(limit);
    let bytes = &mut buffer.bytes;
    loop {
        bytes.reserve(answer.expected().clamp(LEAST_ROOM, MOST_AHEAD));
        match stream.read_buf(bytes).await {
            Ok(0) | Err(_) if bytes.is_empty() => return Err(Failure::Unanswered),
            Ok(0) => return answer.closed().map_err(Failure::Answered),
            Ok(_) => {}
            Err(_) => return Err(Failure::Answered(ScrapeError::Broken)),
        }
        if let Some(complete) = answer.advance(bytes).map_err(Failure::Answered)? {
            return Ok(complete);
        }
        if let Some(status) = answer.status().filter(|status| *status != 200) {
            // An error's body is not waited for; then the connection is in its way.
            return Ok(Complete { status, body: 0..0, keep_alive: false });
        }
    }
}
