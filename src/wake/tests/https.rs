//! Sources over https: the pod is dialled, and its certificate is the Service's or not believed.

use tokio_rustls::TlsAcceptor;

use super::*;
use crate::pki::{
    chain::CaMaterial,
    mint, pem,
    testing::{YEAR, now},
};
use scaler_core::cert::{Policy, Role};

/// A server with a certificate for `name` that `ca` has signed. Answers everybody with a page.
async fn serve(ca: &CaMaterial, name: &str) -> (SocketAddr, JoinSet<()>) {
    let policy = Policy { role: Role::Server, leaf_life: YEAR, dns_names: vec![name.to_owned()] };
    let leaf = mint::leaf(&policy, ca, now()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.certificate], leaf.key)
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not believe us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let body = page("demo-inferencepool", 2);
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, tasks)
}

async fn read(client: &SourceClient, address: SocketAddr) -> Result<Option<f64>, Fault> {
    let reader = Reader::new(client.clone(), None);
    let pools = [Arc::from("demo-inferencepool")];
    let samples =
        reader.read(&source("https://epp:8443"), address, &pools, LONG, &mut Memory::default()).await?;
    Ok(samples[0].queued)
}

#[tokio::test]
async fn a_certificate_is_verified_for_the_name_of_the_service() {
    let (ca, other) = (mint::ca(YEAR, now()).unwrap(), mint::ca(YEAR, now()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, pem::encode_certificates([&ca.certificate])).unwrap();
    let pages = || PageClient::new(1 << 20).unwrap();
    let believing = SourceClient::new(pages(), Some(file)).unwrap();
    let unbelieving = SourceClient::new(pages(), None).unwrap();

    let (good, _tasks) = serve(&ca, "epp.team-a.svc").await;
    assert_eq!(read(&believing, good).await, Ok(Some(2.0)));
    let refused = |read: Result<_, Fault>, part: &str| match read {
        Err(Fault::Certificate(why)) => assert!(why.contains(part), "{why}"),
        other => panic!("{other:?}"),
    };
    refused(read(&unbelieving, good).await, "");
    let (elsewhere, _tasks) = serve(&ca, "epp.team-b.svc").await;
    refused(read(&believing, elsewhere).await, "epp.team-b.svc");
    let (strange, _tasks) = serve(&other, "epp.team-a.svc").await;
    refused(read(&believing, strange).await, "");
}

#[test]
fn a_file_without_authorities_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let made = || SourceClient::new(PageClient::new(1 << 20).unwrap(), Some(file.clone()));
    assert!(made().unwrap_err().to_string().starts_with("failed to read the certificate authorities in "));
    std::fs::write(&file, "nothing").unwrap();
    assert!(made().unwrap_err().to_string().ends_with("holds no certificate authorities that can be used"));
}
