//! A connection to one server: in plaintext, or over TLS.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{
    fetch::ScrapeError,
    tls::{Peer, Tls, held_tls_error},
};

/// The bytes to and from one server.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    /// Boxed, for it is large and rare.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// A new connection to `address`, where the server has to be `peer`.
    pub(super) async fn connect(address: SocketAddr, peer: &Peer, tls: &Tls) -> Result<Self, ScrapeError> {
        let stream = TcpStream::connect(address).await.map_err(connect_error)?;
        // A request is one small write.
        stream.set_nodelay(true).map_err(connect_error)?;
        let Some((connector, name)) = tls.connector(peer, address)? else { return Ok(Self::Plain(stream)) };
        // Boxed, for each task has room for it set aside.
        let stream = Box::pin(connector.connect(name, stream)).await.map_err(connect_error)?;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Waits until there is something to read. Over TLS it does not wait: what there is may be
    /// no part of an answer.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Tls(_) => Ok(()),
        }
    }

    /// False where the server has closed it, or said something that nobody asked for. Asks the
    /// kernel only where the runtime has seen something happen.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(stream) => {
                let seen = stream.try_read(&mut [0]);
                seen.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            // A ticket for a later session is nothing that is said.
            Self::Tls(stream) => stream.read(&mut [0]).now_or_never().is_none(),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn connect_error(error: io::Error) -> ScrapeError {
    if let Some(rustls::Error::InvalidCertificate(problem)) = held_tls_error(&error) {
        return ScrapeError::Certificate(problem.to_string());
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ScrapeError::Refused,
        _ => ScrapeError::Connect(error.to_string()),
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
