//! From accept to the end of the HTTP/2 preface: who may talk to us at all.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::Security;

/// What an HTTP/2 client says first (RFC 9113, 3.4).
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The content type that a TLS client's first record starts with.
const TLS_HANDSHAKE: u8 = 22;

/// Why a peer was turned away.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("failed to read from the peer")]
    Read(#[source] io::Error),
    #[error("the peer closed the connection before it said anything")]
    Closed,
    /// KEDA does this where it found no certificates.
    #[error("the peer speaks plaintext HTTP/2 to the TLS port")]
    PlaintextClient,
    #[error("the peer speaks neither TLS nor HTTP/2 to the TLS port: its first byte is {0:#04x}")]
    NotTls(u8),
    /// No certificate, one that is not trusted or has expired, an old protocol version.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the peer speaks TLS to the plaintext port")]
    TlsClient,
    #[error("the peer does not speak HTTP/2 with prior knowledge")]
    NotHttp2,
    #[error("the peer took too long to say what it wants")]
    TooSlow,
    #[error("the peer said nothing and made room for a newer one")]
    Displaced,
    #[error("the listener is stopping")]
    Stopping,
}

/// A TCP or a TLS stream.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Takes a peer through TLS and the preface. Has no time limit of its own.
pub(super) async fn admit(
    tcp: TcpStream,
    security: &Security,
) -> Result<(Prefaced, Vec<CertificateDer<'static>>), Refusal> {
    // Answers are small and awaited: never held back to fill a segment.
    tcp.set_nodelay(true).map_err(Refusal::Read)?;
    let mut first = [0];
    if tcp.peek(&mut first).await.map_err(Refusal::Read)? == 0 {
        return Err(Refusal::Closed);
    }
    match security {
        Security::Plaintext if first[0] == TLS_HANDSHAKE => Err(Refusal::TlsClient),
        Security::Plaintext => Ok((preface(Box::new(tcp)).await?, Vec::new())),
        Security::Tls(_) if first[0] == PREFACE[0] => Err(Refusal::PlaintextClient),
        Security::Tls(_) if first[0] != TLS_HANDSHAKE => Err(Refusal::NotTls(first[0])),
        Security::Tls(config) => {
            let acceptor = TlsAcceptor::from(config.load_full());
            let tls = acceptor.accept(tcp).await.map_err(Refusal::Handshake)?;
            let certificates = tls.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = certificates.iter().map(|one| one.clone().into_owned()).collect();
            Ok((preface(Box::new(tls)).await?, certificates))
        }
    }
}

/// Reads the preface ahead of hyper, which would wait for it without a limit.
async fn preface(mut transport: Box<dyn Transport>) -> Result<Prefaced, Refusal> {
    let mut got = [0; PREFACE.len()];
    let mut filled = 0;
    while filled < got.len() {
        let read = transport.read(&mut got[filled..]).await.map_err(Refusal::Read)?;
        if read == 0 {
            return Err(Refusal::Closed);
        }
        filled += read;
        if got[..filled] != PREFACE[..filled] {
            return Err(Refusal::NotHttp2);
        }
    }
    Ok(Prefaced { given: 0, transport })
}

/// A transport whose preface was read and is given to the reader once more.
pub(super) struct Prefaced {
    /// How much of the preface the reader has had.
    given: usize,
    transport: Box<dyn Transport>,
}

impl AsyncRead for Prefaced {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = &PREFACE[this.given..];
        if !rest.is_empty() {
            let now = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..now]);
            this.given += now;
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.transport).poll_read(cx, buf))?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefaced {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }
}
