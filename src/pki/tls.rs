//! TLS configurations, made from chains as they stand.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    sign::SingleCertAndKey,
};
use thiserror::Error;

use super::chain::Chain;
use scaler_core::time::Moment;

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("there is no certificate to present")]
    NoIdentity,
    #[error("no CA of the client certificates can be used")]
    NoClientCa,
    #[error("failed to set up the verification of client certificates")]
    Verifier(#[source] VerifierBuilderError),
    #[error("failed to choose TLS versions")]
    Versions(#[source] rustls::Error),
}

/// Makes aws-lc-rs the process's cryptography, for the clients that look it up there. To be
/// called once, before any of them is made; later calls change nothing.
pub fn install_crypto() {
    // It fails only where another was installed, and then the process has one.
    drop(aws_lc_rs::default_provider().install_default());
}

/// KEDA's side: trusts every CA of the server chain and presents the client chain's leaf.
pub fn client_config(server: &Chain, client: &Chain) -> Result<ClientConfig, TlsError> {
    let identity = client.identity.as_ref().ok_or(TlsError::NoIdentity)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(server.cas.iter().map(|ca| ca.certificate.clone()));
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity))));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Presents the server chain's leaf and requires a client certificate of a CA of the client
/// chain that has not expired. TLS 1.2 and 1.3.
pub fn server_config(server: &Chain, client: &Chain, now: Moment) -> Result<ServerConfig, TlsError> {
    let identity = server.identity.as_ref().ok_or(TlsError::NoIdentity)?;
    let mut roots = RootCertStore::empty();
    // The TLS library does not look at the dates of what it is told to trust.
    let alive = client.cas.iter().filter(|ca| !ca.facts.validity.has_expired(now));
    roots.add_parsable_certificates(alive.map(|ca| ca.certificate.clone()));
    if roots.is_empty() {
        return Err(TlsError::NoClientCa);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity))));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not verify the client's certificate again. KEDA keeps one
    // connection, so there is nothing to save.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
