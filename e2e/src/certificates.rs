//! The cluster's own certificates: as kubeadm would make them, but for a day.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("failed to make a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context("failed to sign a CA")?;
        Ok(Self { certificate: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    /// A certificate for `name`, of the group `group`, which serves under `hosts` (names or
    /// addresses).
    pub(crate) fn leaf(&self, name: &str, group: Option<&str>, hosts: &[&str]) -> Result<Leaf> {
        let key = KeyPair::generate().context("failed to make a key")?;
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).context("a host is not valid")?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).context("failed to sign a certificate")?;
        Ok(Leaf { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl Leaf {
    /// Writes `name`.crt and `name`.key.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        write(&folder.join(format!("{name}.crt")), &self.certificate)?;
        write(&folder.join(format!("{name}.key")), &self.key)
    }
}

/// The key pair that signs tokens of accounts: `sa.key` and `sa.pub`.
pub(crate) fn token_keys(folder: &Path) -> Result<()> {
    let key = KeyPair::generate().context("failed to make a key")?;
    write(&folder.join("sa.key"), &key.serialize_pem())?;
    write(&folder.join("sa.pub"), &key.public_key_pem())
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}
