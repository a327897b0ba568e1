//! GET over a TCP connection that its user keeps: what nearly every scrape is.
//!
//! Written on the socket because of its numbers. Ten thousand endpoints are ten thousand
//! connections that rest nearly all of the time, and a general client keeps buffers, a task
//! and two channels for each; here a resting connection is its socket. What is not a plain
//! GET to an address over plaintext goes through the general client.

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

use http::HeaderValue;
use reqwest::Url;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    answer::{Answer, AnswerError, Complete},
    fetch::ScrapeError,
    page::{Buffer, Buffers, Page},
};

/// The most that is set aside for a body before it is there, in bytes.
const MOST_AHEAD: usize = 256 * 1024;
/// The least room that a read gets.
const LEAST_ROOM: usize = 4 * 1024;

/// A connection without a request on it.
#[derive(Debug)]
pub(super) struct Resting(TcpStream);

/// The address behind a URL that this client is for: plaintext, and no name to look up.
pub(super) fn plain_address(url: &Url) -> Option<SocketAddr> {
    if url.scheme() != "http" || !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let host: IpAddr = url.host_str()?.trim_matches(['[', ']']).parse().ok()?;
    Some(SocketAddr::new(host, url.port_or_known_default()?))
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) address: SocketAddr,
    pub(super) url: &'a Url,
    /// The header of that name.
    pub(super) authorization: Option<&'a HeaderValue>,
}

/// Fetches a page over the connection that rests, which leads to the same address, or over a
/// new one. At most `limit` bytes are taken for a page.
pub(super) async fn get(
    connection: &mut Option<Resting>,
    request: &Request<'_>,
    limit: usize,
    buffers: &Buffers,
) -> Result<Page, ScrapeError> {
    // Taken out: whoever drops this future in the middle leaves no half an answer behind.
    if let Some(resting) = connection.take().filter(Resting::is_alive) {
        match exchange(resting.0, connection, request, limit, buffers).await {
            // The server closed the kept connection while the request was on its way: that
            // says nothing about the page.
            Err(Failure::Unanswered) => {}
            done => return done.map_err(Failure::into),
        }
    }
    let stream = TcpStream::connect(request.address).await.map_err(connect_error)?;
    // A request is one small write.
    stream.set_nodelay(true).map_err(connect_error)?;
    exchange(stream, connection, request, limit, buffers).await.map_err(Failure::into)
}

impl Resting {
    /// False where the server has closed it, or said something that nobody asked for. Asks
    /// the kernel only where the runtime has seen something happen.
    pub(super) fn is_alive(&self) -> bool {
        let seen = self.0.try_read(&mut [0]);
        seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
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

impl From<Failure> for ScrapeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unanswered => Self::Broken,
            Failure::Answered(error) => error,
        }
    }
}

/// Sends the request and receives the answer. Leaves `stream` in `connection` where it can be
/// used again.
async fn exchange(
    mut stream: TcpStream,
    connection: &mut Option<Resting>,
    request: &Request<'_>,
    limit: usize,
    buffers: &Buffers,
) -> Result<Page, Failure> {
    send(&mut stream, request, buffers).await.map_err(|_| Failure::Unanswered)?;
    stream.readable().await.map_err(|_| Failure::Unanswered)?;
    // No buffer was held while there was nothing to put into it.
    let mut buffer = buffers.take();
    let answer = receive(&mut stream, &mut buffer, limit).await?;
    if answer.keep_alive {
        *connection = Some(Resting(stream));
    }
    match answer.status {
        200 => Ok(buffer.into_page(answer.body)),
        status if (300..400).contains(&status) => Err(Failure::Answered(ScrapeError::Redirect(status))),
        status => Err(Failure::Answered(ScrapeError::Status(status))),
    }
}

async fn send(stream: &mut TcpStream, request: &Request<'_>, buffers: &Buffers) -> io::Result<()> {
    let Request { address, url, authorization } = *request;
    let mut buffer = buffers.take();
    let bytes = &mut buffer.bytes;
    write!(bytes, "GET {}", url.path())?;
    if let Some(query) = url.query() {
        write!(bytes, "?{query}")?;
    }
    // Plain text, so that a server that also speaks OpenMetrics does not choose that.
    write!(
        bytes,
        " HTTP/1.1\r\nhost: {address}\r\nuser-agent: {}\r\naccept: {}\r\n",
        super::client::USER_AGENT,
        super::client::ACCEPT
    )?;
    if let Some(authorization) = authorization {
        bytes.extend_from_slice(b"authorization: ");
        bytes.extend_from_slice(authorization.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let sent = stream.write_all(bytes).await;
    if authorization.is_some() {
        // Buffers are shared: the next page must not be read over a token.
        bytes.fill(0);
    }
    sent
}

async fn receive(stream: &mut TcpStream, buffer: &mut Buffer, limit: usize) -> Result<Complete, Failure> {
    let mut answer = Answer::new(limit);
    let bytes = &mut buffer.bytes;
    loop {
        bytes.reserve(answer.expected().clamp(LEAST_ROOM, MOST_AHEAD));
        match stream.read_buf(bytes).await {
            Ok(0) | Err(_) if bytes.is_empty() => return Err(Failure::Unanswered),
            Ok(0) => return answer.closed().map_err(Failure::from),
            Ok(_) => {}
            Err(_) => return Err(Failure::Answered(ScrapeError::Broken)),
        }
        if let Some(complete) = answer.advance(bytes).map_err(Failure::from)? {
            return Ok(complete);
        }
        if let Some(status) = answer.status().filter(|status| *status != 200) {
            // An error's body is not waited for; then the connection is in its way.
            return Ok(Complete { status, body: 0..0, keep_alive: false });
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn connect_error(error: io::Error) -> ScrapeError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ScrapeError::Refused,
        _ => ScrapeError::Connect(error.to_string()),
    }
}
