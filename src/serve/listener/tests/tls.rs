//! Mutual TLS with real handshakes.

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::Endpoint;

use super::*;
use crate::pki::{
    chain::{Chain, Contents},
    testing::{YEAR, client_config, founded, legacy_secret, new_chain, now},
    tls::server_config,
};
use scaler_core::cert::Role;

const HOST: &str = "keda-kaito-scaler-svc.keda.svc.cluster.local";

/// What the cluster holds: the server's chain, and the client's Secret and chain.
struct Certificates {
    server: Chain,
    client_secret: Contents,
    client: Chain,
}

impl Certificates {
    fn new() -> Self {
        let (client_secret, _) = founded(Role::Client, now());
        let client = Chain::read(Role::Client, &client_secret, None);
        Self { server: new_chain(Role::Server, now()), client_secret, client }
    }

    fn legacy() -> Self {
        let client_secret = legacy_secret(Role::Client);
        Self {
            server: Chain::read(Role::Server, &legacy_secret(Role::Server), None),
            client: Chain::read(Role::Client, &client_secret, None),
            client_secret,
        }
    }

    fn config(&self) -> ServerConfig {
        server_config(&self.server, &self.client, now()).unwrap()
    }

    async fn serve(&self) -> (Rig, Arc<ArcSwap<ServerConfig>>) {
        let config = Arc::new(ArcSwap::from_pointee(self.config()));
        (Rig::secured(Security::Tls(Arc::clone(&config)), Limits::default()).await, config)
    }

    /// KEDA with the certificates of the cluster.
    fn keda(&self) -> ClientConfig {
        client_config(&self.server, Some(&self.client_secret))
    }
}

async fn handshake(rig: &Rig, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(rig.address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), tcp).await
}

async fn client(
    rig: &Rig,
    config: ClientConfig,
) -> Result<ExternalScalerClient<Channel>, tonic::transport::Error> {
    let (address, connector) = (rig.address, TlsConnector::from(Arc::new(config)));
    let dial = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            connector.connect(ServerName::try_from(HOST).unwrap(), tcp).await.map(TokioIo::new)
        }
    });
    let channel = Endpoint::from_static("http://scaler").connect_with_connector(dial).await?;
    Ok(ExternalScalerClient::new(channel))
}

#[tokio::test]
async fn keda_is_served_with_new_and_with_the_existing_scalers_certificates() {
    for certificates in [Certificates::new(), Certificates::legacy()] {
        let (mut rig, _) = certificates.serve().await;
        let mut keda = client(&rig, certificates.keda()).await.unwrap();
        assert!(keda.is_active(ScaledObjectRef::default()).await.unwrap().into_inner().result);
        assert_eq!(rig.events.recv().await, Some(Event::Opened(0)));
    }
}

#[tokio::test]
async fn who_has_no_valid_client_certificate_is_refused() {
    let certificates = Certificates::new();
    let (stranger, _) = founded(Role::Client, now());
    // Of a CA that is trusted, but the leaf has ended.
    let (expired, _) = founded(Role::Client, now() - 2 * YEAR);
    let expired_chain = Chain::read(Role::Client, &expired, None);
    assert!(!expired_chain.cas[0].facts.validity.has_expired(now()));

    for (presented, trusted, alert) in [
        (None, &certificates.client, "NoCertificatesPresented"),
        // All CAs have the same name, so it looks like a forgery.
        (Some(&stranger), &certificates.client, "BadSignature"),
        (Some(&expired), &expired_chain, "Expired"),
    ] {
        let config =
            Arc::new(ArcSwap::from_pointee(server_config(&certificates.server, trusted, now()).unwrap()));
        let mut rig = Rig::secured(Security::Tls(config), Limits::default()).await;
        let mut raw = handshake(&rig, client_config(&certificates.server, presented)).await.unwrap();
        assert!(raw.read(&mut [0]).await.is_err(), "the server sends an alert");
        match rig.events.recv().await.unwrap() {
            Event::Refused(why) => assert!(why.contains(alert), "{why} instead of {alert}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(rig.serving.connections(), 0);
    }
}

#[tokio::test]
async fn tls_1_1_is_refused() {
    let (mut rig, _) = Certificates::new().serve().await;
    let mut hello = vec![0x03, 0x02];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0x00, 0x2f, 0xc0, 0x13, 1, 0]);
    // Signature algorithms, groups and point formats: all that is wrong is the version.
    hello.extend([0, 22, 0, 13, 0, 4, 0, 2, 4, 1, 0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0]);
    let mut record = vec![22, 3, 1];
    let length = u16::try_from(hello.len()).unwrap();
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(hello);
    let mut peer = TcpStream::connect(rig.address).await.unwrap();
    peer.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).await.unwrap();
    let (alert, fatal, protocol_version) = (21, 2, 70);
    assert_eq!((answer[0], &answer[5..]), (alert, &[fatal, protocol_version][..]), "{answer:?}");
    assert!(matches!(rig.events.recv().await, Some(Event::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_after_the_handshake_is_dropped_after_two_seconds() {
    let certificates = Certificates::new();
    let (mut rig, _) = certificates.serve().await;
    let before = Instant::now();
    let mut silent = handshake(&rig, certificates.keda()).await.unwrap();
    assert!(!matches!(silent.read(&mut [0]).await, Ok(1..)));
    assert_eq!(before.elapsed().as_secs(), Limits::default().admission.as_secs());
    assert_eq!(rig.events.recv().await, Some(Event::Refused("TooSlow".into())));
}

#[tokio::test]
async fn a_plaintext_client_is_reported_once_until_its_address_gets_in() {
    let certificates = Certificates::new();
    let (mut rig, _) = certificates.serve().await;
    let refused = || Some(Event::Refused("PlaintextClient".into()));
    for reported in [true, false] {
        rig.raw().await.call("IsActive", "a").await;
        assert_eq!(rig.events.recv().await, refused());
        if reported {
            assert_eq!(rig.events.recv().await, Some(Event::PlaintextClient));
        }
    }
    let keda = client(&rig, certificates.keda()).await.unwrap();
    assert_eq!(rig.events.recv().await, Some(Event::Opened(2)));
    drop(keda);
    assert_eq!(rig.events.recv().await, Some(Event::Closed(2)));
    rig.raw().await.call("IsActive", "a").await;
    assert_eq!(rig.events.recv().await, refused());
    assert_eq!(rig.events.recv().await, Some(Event::PlaintextClient));
}

#[tokio::test]
async fn leaves_of_both_cas_are_accepted_while_both_are_in_the_bundle() {
    let (old, new) = (Certificates::legacy(), Certificates::new());
    for [first, second] in [[&old, &new], [&new, &old]] {
        let both = [first, second].map(|one| one.client_secret["ca.crt"].0.clone()).concat();
        let mut secret = first.client_secret.clone();
        secret.insert("ca.crt".into(), k8s_openapi::ByteString(both));
        let certificates = Certificates {
            server: new_chain(Role::Server, now()),
            client: Chain::read(Role::Client, &secret, None),
            client_secret: secret,
        };
        let (rig, _) = certificates.serve().await;
        for one in [first, second] {
            let config = client_config(&certificates.server, Some(&one.client_secret));
            let mut keda = client(&rig, config).await.unwrap();
            assert!(keda.is_active(ScaledObjectRef::default()).await.unwrap().into_inner().result);
        }
    }
}

#[tokio::test]
async fn rotation_leaves_open_streams_alone_and_serves_new_connections_with_the_new_leaf() {
    let old = Certificates::new();
    let (rig, config) = old.serve().await;
    let mut keda = client(&rig, old.keda()).await.unwrap();
    let mut stream = keda.stream_is_active(ScaledObjectRef::default()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().result);

    // Nothing of the old is left: the hardest rotation.
    let new = Certificates::new();
    config.store(Arc::new(new.config()));

    let after = handshake(&rig, new.keda()).await.unwrap();
    let presented = after.get_ref().1.peer_certificates().unwrap();
    assert_eq!(presented, new.server.identity.as_ref().unwrap().cert);
    assert!(handshake(&rig, old.keda()).await.is_err(), "the old CA does not know the new leaf");

    assert!(keda.is_active(ScaledObjectRef::default()).await.unwrap().into_inner().result);
    rig.service.end_streams.cancel();
    assert!(stream.message().await.unwrap().is_none(), "the stream went on and ended with OK");
}
