//! Who a server has to be, and the TLS that makes sure of it.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use thiserror::Error;
use tokio_rustls::TlsConnector;

use super::fetch::ScrapeError;

/// Who the server at an address has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// Whoever answers there, in plaintext.
    #[default]
    Anybody,
    /// Whoever answers there, over TLS. For pods, which are addressed by an IP for which no
    /// authority vouches; whose IP it is comes from the watch on the Kubernetes API.
    Encrypted,
    /// A server whose certificate is valid for this DNS name, over TLS.
    Verified(Box<str>),
}

/// The client could not be made.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("failed to set up TLS")]
    Tls(#[from] rustls::Error),
    #[error("failed to read the certificate authorities in {path}")]
    ReadAuthorities { path: PathBuf, source: io::Error },
    #[error("{path} holds no certificate authorities that can be used")]
    NoAuthorities { path: PathBuf },
}

/// The TLS side of the client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tls {
    unverified: TlsConnector,
    /// `None` where there is no authority to verify a certificate with.
    verified: Option<TlsConnector>,
}

impl Tls {
    pub(super) fn new() -> Result<Self, ClientError> {
        let verifier = Arc::new(AnyCertificate(Arc::new(aws_lc_rs::default_provider())));
        let unverified = connector(|builder| builder.dangerous().with_custom_certificate_verifier(verifier))?;
        Ok(Self { unverified, verified: None })
    }

    /// Verifies certificates with the authorities of the system and those in the file `more`
    /// (PEM). An image may be without any authority of the system.
    pub(super) fn with_authorities(self, more: Option<PathBuf>) -> Result<Self, ClientError> {
        let mut authorities = RootCertStore::empty();
        if let Some(path) = more {
            let pem = std::fs::read(&path)
                .map_err(|source| ClientError::ReadAuthorities { path: path.clone(), source })?;
            let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            authorities.add_parsable_certificates(read.unwrap_or_default());
            if authorities.is_empty() {
                return Err(ClientError::NoAuthorities { path });
            }
        }
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if authorities.is_empty() {
            return Ok(Self { verified: None, ..self });
        }
        let verified = connector(|builder| builder.with_root_certificates(authorities))?;
        Ok(Self { verified: Some(verified), ..self })
    }

    /// How to talk TLS to `peer`; `None` where it is to be plaintext.
    ///
    /// # Errors
    /// Where its certificate can't be verified.
    pub(super) fn connector(
        &self,
        peer: &Peer,
        address: SocketAddr,
    ) -> Result<Option<(&TlsConnector, ServerName<'static>)>, ScrapeError> {
        let unverified = |problem: &str| ScrapeError::Certificate(problem.to_owned());
        match peer {
            Peer::Anybody => Ok(None),
            Peer::Encrypted => Ok(Some((&self.unverified, ServerName::IpAddress(address.ip().into())))),
            Peer::Verified(name) => {
                let connector = self.verified.as_ref();
                let connector = connector
                    .ok_or_else(|| unverified("there is no certificate authority to verify it with"))?;
                let name = ServerName::try_from(name.to_string())
                    .map_err(|_| unverified(&format!("{name:?} is no DNS name")))?;
                Ok(Some((connector, name)))
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("verifies", &self.verified.is_some()).finish_non_exhaustive()
    }
}

fn connector(
    choose: impl FnOnce(
        ConfigBuilder<ClientConfig, WantsVerifier>,
    ) -> ConfigBuilder<ClientConfig, WantsClientCert>,
) -> Result<TlsConnector, ClientError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let mut config = choose(builder).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes any certificate, and holds the server to nothing that is in it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The TLS error inside: what an IO error holds is not its source, and one may hold another.
pub(super) fn held_tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let held = error.get_ref()?;
    held.downcast_ref().or_else(|| held_tls_error(held.downcast_ref()?))
}
