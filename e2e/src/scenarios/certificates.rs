//! Mutual TLS between KEDA and the scaler, and its renewal under open connections.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use k8s_openapi::ByteString;
use keda_kaito_scaler::pki::tls::install_crypto;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{Scenario, alone, beside};
use crate::{
    api::{SCALED_OBJECT, SECRET, SERVICE, text},
    certificates::Authority,
    keda::NAMESPACE,
    stage::{LATER, SOON, Stage},
};

pub(super) const ALL: &[Scenario] = &[
    beside("foreign-client", "only KEDA's certificate is let in", |stage| foreign_client(stage).boxed()),
    alone("rotation", "certificates and their CAs are renewed while KEDA's streams are open", |stage| {
        rotation(stage).boxed()
    }),
];

const SERVER: &str = "keda-kaito-scaler-server-certs";
const CLIENT: &str = "keda-kaito-scaler-client-certs";
const HOST: &str = "keda-kaito-scaler-svc.keda.svc.cluster.local";

/// What a Secret holds.
async fn contents(stage: &Stage, name: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let secret = stage.api().get(&SECRET.named(NAMESPACE, name)).await?.context("no such Secret")?;
    read(&secret)
}

fn read(secret: &Value) -> Result<BTreeMap<String, Vec<u8>>> {
    let data = secret.get("data").cloned().unwrap_or_default();
    let data: BTreeMap<String, ByteString> = serde_json::from_value(data).context("the Secret is empty")?;
    Ok(data.into_iter().map(|(key, value)| (key, value.0)).collect())
}

async fn foreign_client(stage: Stage) -> Result<()> {
    install_crypto();
    let (server, client) = (contents(&stage, SERVER).await?, contents(&stage, CLIENT).await?);
    let part = |key: &str| client.get(key).map(Vec::as_slice).context("the client's Secret is empty");
    let authorities = server.get("ca.crt").context("the server's Secret is empty")?;
    let kedas_own = (part("tls.crt")?, part("tls.key")?);
    let foreign = Authority::new("keda-kaito-scaler-ca")?.leaf("keda-kaito-scaler-client", None, &[])?;
    let foreign = (foreign.certificate.as_bytes(), foreign.key.as_bytes());
    for (who, identity, is_welcome) in [
        ("KEDA", Some(kedas_own), true),
        ("a foreign client", Some(foreign), false),
        ("a client without a certificate", None, false),
    ] {
        let answered = call(&stage, authorities, identity).await;
        ensure!(answered.is_ok() == is_welcome, "{who} got: {answered:?}");
    }
    Ok(())
}

/// Opens HTTP/2 at the scaler's Service, and waits for the server's first frame.
async fn call(stage: &Stage, authorities: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<()> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        roots.add(authority.context("ca.crt cannot be read")?).context("ca.crt cannot be used")?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
            let key = PrivateKeyDer::from_pem_slice(key).context("a key cannot be read")?;
            config.with_client_auth_cert(chain.context("a certificate cannot be read")?, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let service =
        stage.api().get(&SERVICE.named(NAMESPACE, "keda-kaito-scaler-svc")).await?.context("no Service")?;
    let address = format!("{}:10450", text(&service, "/spec/clusterIP"));
    let name = ServerName::try_from(HOST).context("not a name")?;
    let answered = async {
        let tcp = TcpStream::connect(&address).await.context("failed to connect")?;
        let mut tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .context("failed to agree on TLS")?;
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .context("failed to write")?;
        let mut frame = [0; 9];
        tls.read_exact(&mut frame).await.context("failed to read")?;
        Ok(())
    };
    timeout(Duration::from_secs(5), answered).await.context("no answer")?
}

async fn rotation(stage: Stage) -> Result<()> {
    let world = &stage.world;
    let model = stage.annotated("demo", 5, &[]).await?;
    stage.ready("demo").await?;
    model.wait_in_all(18.0);
    stage.wants("demo", 2, LATER).await?;
    stage.has("demo", 2).await?;
    stage.metric_is("demo", 18.0).await?;
    world.streams_are_open(SOON).await?;
    let failed_before = failed_streams(&stage).await?;
    let begun_with = named(stage.api().get(&SCALED_OBJECT.named(&stage.namespace, "demo")).await?.as_ref());
    ensure!(!begun_with.is_empty(), "the trigger does not say with which certificates KEDA began");

    // The keys of both CAs are lost, and then the certificates: everything is made anew.
    let mut old = vec![];
    stage.api().merge(&SECRET.named(NAMESPACE, "keda-kaito-scaler-ca"), json!({"data": null})).await?;
    for (name, keys) in [(SERVER, ["server.crt", "server.key"]), (CLIENT, ["tls.crt", "tls.key"])] {
        let before = contents(&stage, name).await?;
        old.push((name, keys[0], before));
        let lost: serde_json::Map<_, _> = keys.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
        stage.api().merge(&SECRET.named(NAMESPACE, name), json!({"data": lost})).await?;
    }
    let begun = Instant::now();
    let renewed = async {
        for (name, leaf, before) in &old {
            let what = "is signed by a new CA, and both CAs are trusted";
            stage
                .api()
                .until(&SECRET.named(NAMESPACE, name), what, LATER, |secret| {
                    let now = read(secret.ok_or("not there")?).map_err(|error| error.to_string())?;
                    let first = |secret: &BTreeMap<String, Vec<u8>>| {
                        secret.get("ca.crt").and_then(|cas| CertificateDer::pem_slice_iter(cas).next()?.ok())
                    };
                    let trusted =
                        now.get("ca.crt").map_or(0, |cas| CertificateDer::pem_slice_iter(cas).count());
                    let is_new = now.get(*leaf).is_some_and(|leaf_now| Some(leaf_now) != before.get(*leaf))
                        && first(&now) != first(before);
                    (is_new && trusted >= 2)
                        .then_some(())
                        .ok_or_else(|| format!("{trusted} CAs, another one first: {is_new}"))
                })
                .await?;
        }
        Ok(())
    };
    stage.steady("demo", 2, renewed).await?;
    stage.figure("everything lost → both chains are made anew", "s", &[begun.elapsed().as_secs_f64()]);

    // What was open is open, and answers.
    world.streams_are_open(SOON).await?;
    let failed = failed_streams(&stage).await?;
    ensure!(failed == failed_before, "streams ended with an error: {failed} after {failed_before}");
    model.wait_in_all(17.0);
    stage.steady("demo", 2, stage.metric_is("demo", 17.0)).await?;
    // What KEDA builds anew uses the new certificates.
    stage.annotated("late", 5, &[]).await?;
    stage.ready("late").await?;
    stage.hpa_says("late", 0.0, 10.0).await?;

    // An old connection that breaks is opened anew with them, and KEDA goes on asking.
    let streams = world.streams().await?;
    let (serving, _) = streams.iter().max_by_key(|(_, open)| **open).context("no pod")?;
    let begun = Instant::now();
    world.kubelet.kill(serving).await?;
    model.wait_in_all(18.0);
    stage.steady("demo", 2, stage.metric_is("demo", 18.0)).await?;
    stage.figure("scaler killed after that → KEDA gets values", "s", &[begun.elapsed().as_secs_f64()]);
    // Its push streams are another matter: KEDA 2.21 goes on with the certificates that it had when it
    // began to watch a ScaledObject ("the scaler is closed"), until the ScaledObject's spec changes.
    for name in ["demo", "late"] {
        let object = SCALED_OBJECT.named(&stage.namespace, name);
        let names_the_new_ones = stage.api().until(&object, "names the new certificates", LATER, |object| {
            let now = named(object);
            (now != begun_with).then_some(()).ok_or(now)
        });
        stage.steady("demo", 2, names_the_new_ones).await?;
    }
    let begun = Instant::now();
    stage.steady("demo", 2, world.streams_are_open(SOON)).await?;
    stage.figure("new certificates named → KEDA's streams are back", "s", &[begun.elapsed().as_secs_f64()]);
    world.scaler_available(2).await
}

/// The certificates that a ScaledObject's trigger names.
fn named(object: Option<&Value>) -> String {
    object.map(|object| text(object, "/spec/triggers/0/metadata/certificates")).unwrap_or_default()
}

/// StreamIsActive calls that ended with anything but OK, over all pods that live.
async fn failed_streams(stage: &Stage) -> Result<f64> {
    let mut failed = 0.0;
    for address in stage.world.scaler_pods().await?.into_values() {
        let Ok(page) = stage.world.page(&address, "/metrics").await else { continue };
        let ended = page.lines().filter(|line| {
            line.starts_with("grpc_server_handled_total{")
                && line.contains("StreamIsActive")
                && !line.contains("grpc_code=\"OK\"")
        });
        failed += ended.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(failed)
}
