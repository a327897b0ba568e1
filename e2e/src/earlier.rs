//! A stand-in for the earlier (Go) scaler: its certificate rotator, which fills the Secrets and
//! puts back what it finds changed.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, SECRET},
    control_plane::base64,
};

/// Whether an image is of the earlier scaler.
pub(crate) fn is_image(image: &str) -> bool {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag).trim_start_matches('v');
    image.contains("keda-kaito-scaler")
        && ["0.3.", "0.4.", "0.5.", "0.6."].iter().any(|start| tag.starts_with(start))
}

const SECRETS: [(&str, [&str; 4]); 2] = [
    ("keda-kaito-scaler-server-certs", ["ca.crt", "ca.key", "server.crt", "server.key"]),
    ("keda-kaito-scaler-client-certs", ["ca.crt", "ca.key", "tls.crt", "tls.key"]),
];

/// Rotates certificates in `namespace` until `stop`.
pub(crate) async fn rotate(api: &Api, namespace: &str, stop: CancellationToken) -> Result<()> {
    for (name, keys) in SECRETS {
        let secret = SECRET.named(namespace, name);
        let found = api.get(&secret).await?.with_context(|| format!("{secret} is not there"))?;
        let is_filled =
            keys.iter().all(|key| found.pointer("/data").is_some_and(|data| data.get(*key).is_some()));
        if !is_filled {
            api.merge(&secret, json!({"data": chain(namespace, name, keys)?})).await?;
        }
    }
    stop.cancelled().await;
    Ok(())
}

fn chain(namespace: &str, name: &str, [ca, ca_key, leaf, leaf_key]: [&str; 4]) -> Result<Value> {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        PKCS_RSA_SHA256, RsaKeySize,
    };
    let rsa =
        || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).context("failed to make a key");
    let is_server = name.contains("server");
    let key = rsa()?;
    let mut params = CertificateParams::new(vec!["keda-kaito-scaler-ca".to_owned()]).context("not a name")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "kaito-project");
    params.distinguished_name.push(DnType::CommonName, "keda-kaito-scaler-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).context("failed to sign a CA")?;
    let authority_key = key.serialize_pem();
    let issuer = Issuer::new(params, key);
    let service = format!("keda-kaito-scaler-svc.{namespace}");
    let names = ["", ".svc", ".svc.cluster", ".svc.cluster.local"].map(|end| format!("{service}{end}"));
    let names = if is_server { names.to_vec() } else { vec![] };
    let key = rsa()?;
    let mut params = CertificateParams::new(names).context("not a name")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let usage =
        if is_server { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth };
    params.extended_key_usages = vec![usage];
    let now = clock::Clock::wall().since_unix();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now;
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(43_800 * 3600);
    let certificate = params.signed_by(&key, &issuer).context("failed to sign a certificate")?;
    Ok(json!({
        ca: base64(authority.pem().as_bytes()),
        ca_key: base64(authority_key.as_bytes()),
        leaf: base64(certificate.pem().as_bytes()),
        leaf_key: base64(key.serialize_pem().as_bytes()),
    }))
}
