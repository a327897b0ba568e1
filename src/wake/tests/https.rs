//! Sources over https: the pod is dialled, and its certificate is the Service's or not believed.

use std::net::{IpAddr, Ipv4Addr};

use tokio::{sync::mpsc, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::pki::{
    chain::CaMaterial,
    mint, pem,
    testing::{YEAR, now},
};
use clock::Clock;
use scaler_core::{
    cert::{Policy, Role},
    wake::pace::Pace,
};

/// A server at `address` with a certificate for `name` that `ca` has signed. Answers everybody
/// with a page that says `queued`, over connections that it keeps.
async fn serve(address: SocketAddr, ca: &CaMaterial, name: &str, queued: u32) -> (SocketAddr, JoinSet<()>) {
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
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let page = page("demo-inferencepool", queued);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, acceptor) = (listener.accept().await.unwrap().0, acceptor.clone());
            let answer = answer.clone();
            connections.spawn(async move {
                // A client that does not believe us ends the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    request.push(byte);
                    if request.ends_with(b"\r\n\r\n") {
                        request.clear();
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        stream.flush().await.unwrap();
                    }
                }
            });
        }
    });
    (address, tasks)
}

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A CA, and a client that believes it.
fn believing(folder: &tempfile::TempDir) -> (CaMaterial, PageClient) {
    let ca = mint::ca(YEAR, now()).unwrap();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, pem::encode_certificates([&ca.certificate])).unwrap();
    (ca, PageClient::new(1 << 20).unwrap().with_authorities(Some(file)).unwrap())
}

async fn read(client: &PageClient, address: SocketAddr) -> Result<Option<f64>, Fault> {
    let reader = Reader::new(client.clone(), None);
    let pools = [Arc::from("demo-inferencepool")];
    let mut endpoint = SourceEndpoint::new(source("https://epp:8443"), address);
    let samples = reader.read(&mut endpoint, &pools, LONG).await?;
    Ok(samples[0].queued)
}

#[tokio::test]
async fn a_certificate_is_verified_for_the_name_of_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let ((ca, believing), other) = (believing(&folder), mint::ca(YEAR, now()).unwrap());
    let unbelieving = PageClient::new(1 << 20).unwrap().with_authorities(None).unwrap();

    let (good, _tasks) = serve(ANY, &ca, "epp.team-a.svc", 2).await;
    assert_eq!(read(&believing, good).await, Ok(Some(2.0)));
    let refused = |read: Result<_, Fault>, part: &str| match read {
        Err(Fault::Certificate(why)) => assert!(why.contains(part), "{why}"),
        other => panic!("{other:?}"),
    };
    refused(read(&unbelieving, good).await, "");
    let (elsewhere, _tasks) = serve(ANY, &ca, "epp.team-b.svc", 2).await;
    refused(read(&believing, elsewhere).await, "epp.team-b.svc");
    let (strange, _tasks) = serve(ANY, &other, "epp.team-a.svc", 2).await;
    refused(read(&believing, strange).await, "");
}

/// What the reports on `source` say is held, from the first that says so.
async fn until_held(reports: &mut mpsc::Receiver<SourceReport>, source: &Source, queued: f64) {
    let seen = async {
        loop {
            let report = reports.recv().await.unwrap();
            let held = report.outcome.ok().and_then(|samples| samples[0].1.queued);
            if report.source == *source && held == Some(queued) {
                return;
            }
        }
    };
    timeout(LONG, seen).await.expect("the endpoint is not read");
}

/// The pod that leaves a Service may answer on for minutes, over the connection that it has.
#[tokio::test]
async fn an_endpoint_that_takes_the_place_of_another_is_read_while_that_still_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, client) = believing(&folder);
    let (old, _serving) = serve(ANY, &ca, "epp.team-a.svc", 1).await;
    // Another pod, the same port.
    let new = SocketAddr::from(([127, 0, 0, 2], old.port()));
    let (new, _serving_too) = serve(new, &ca, "epp.team-a.svc", 2).await;

    let epp = source("https://epp:8443");
    let directory = Directory::default();
    let answers_at = |address: SocketAddr| {
        directory.tell(epp.service().unwrap().clone(), Some(Ok([address].into())));
    };
    let (sender, mut reports) = mpsc::channel(16);
    let mut pool = SourcePool::new(
        "a test",
        Reader::new(client, None),
        Clock::start(),
        directory.clone(),
        Pace { asleep: Duration::from_millis(5), ..Pace::default() },
        prometheus_client::metrics::gauge::Gauge::default(),
        sender,
    );
    answers_at(old);
    let pools = Arc::from([Arc::from("demo-inferencepool")]);
    pool.apply(&epp, Some(SourcePlan { pools, asleep: true }));
    until_held(&mut reports, &epp, 1.0).await;
    answers_at(new);
    until_held(&mut reports, &epp, 2.0).await;
}

/// A Service whose two ports lead to two pods, both over https.
#[tokio::test]
async fn each_port_of_a_service_is_read_where_it_leads() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, client) = believing(&folder);
    let (first, _serving) = serve(ANY, &ca, "epp.team-a.svc", 1).await;
    let (second, _serving_too) = serve(SocketAddr::from(([127, 0, 0, 2], 0)), &ca, "epp.team-a.svc", 2).await;
    let reader = Reader::new(client, None);
    let mut endpoints = [("https://epp:8443", first, 1.0), ("https://epp:8444", second, 2.0)]
        .map(|(named, at, queued)| (SourceEndpoint::new(source(named), at), queued));
    let pools = [Arc::from("demo-inferencepool")];
    for _ in 0..3 {
        let [(one, in_one), (other, in_other)] = &mut endpoints;
        let (read, read_too) = tokio::join!(reader.read(one, &pools, LONG), reader.read(other, &pools, LONG));
        assert_eq!((read.unwrap()[0].queued, read_too.unwrap()[0].queued), (Some(*in_one), Some(*in_other)));
    }
}

#[test]
fn a_file_without_authorities_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let made = || PageClient::new(1 << 20).unwrap().with_authorities(Some(file.clone()));
    assert!(made().unwrap_err().to_string().starts_with("failed to read the certificate authorities in "));
    std::fs::write(&file, "nothing").unwrap();
    assert!(made().unwrap_err().to_string().ends_with("holds no certificate authorities that can be used"));
}
