//! One call of the scaler, as KEDA makes them.

use std::{error::Error as _, io, net::SocketAddr, sync::Arc};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{InvalidDnsNameError, ServerName},
};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Status,
    transport::{Endpoint, Uri},
};

use crate::error_chain;
use keda_proto::{ScaledObjectRef, external_scaler_client::ExternalScalerClient};

#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error("{host} is not a DNS name")]
    Host { host: String, source: InvalidDnsNameError },
    #[error("failed to connect")]
    Connect(#[source] io::Error),
    #[error("failed to agree on TLS")]
    Handshake(#[source] io::Error),
    #[error("failed to open HTTP/2")]
    Http2(#[source] tonic::transport::Error),
    #[error("the call failed ({code:?}): {said}")]
    Call { code: Code, said: String },
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        // Where the connection broke the message says only that it did.
        let said = status.source().map_or_else(|| status.message().to_owned(), error_chain);
        Self::Call { code: status.code(), said }
    }
}

/// Asks for the metrics of a trigger that says nothing. What is wrong with it only the scaler
/// itself can say, and nothing is left behind: a valid one would be watched for minutes.
pub(super) async fn scaler(address: SocketAddr, host: &str, config: ClientConfig) -> Result<(), CallError> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|source| CallError::Host { host: host.to_owned(), source })?;
    let tcp = TcpStream::connect(address).await.map_err(CallError::Connect)?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    let mut tls = Some(TokioIo::new(tls.map_err(CallError::Handshake)?));
    let connection = tower::service_fn(move |_: Uri| {
        let closed = || io::Error::from(io::ErrorKind::ConnectionAborted);
        std::future::ready(tls.take().ok_or_else(closed))
    });
    let endpoint = Endpoint::from_static("http://scaler");
    let channel = endpoint.connect_with_connector(connection).await.map_err(CallError::Http2)?;
    let answer = ExternalScalerClient::new(channel).get_metric_spec(ScaledObjectRef::default()).await;
    match answer {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::InvalidArgument => Ok(()),
        Err(status) => Err(status.into()),
    }
}
