//! Makes what a [`Plan`] says: new CAs and leaves, ECDSA on P-256, and the Secrets' new contents.

use std::time::Duration;

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::{
    chain::{CA_CERTIFICATES, CaMaterial, Chain, Contents, LEGACY_CA_KEY, leaf_keys},
    pem,
};
use scaler_core::{
    cert::{Fingerprint, Plan, Policy, Role, ca_life},
    time::Moment,
};

/// The subject and only DNS name of a CA. The existing scaler's rotator looks for it, so that
/// it accepts our CA should it be installed again.
const CA_NAME: &str = "keda-kaito-scaler-ca";

/// New certificates are valid from a little before they are made, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Error)]
pub enum MintError {
    #[error("failed to make a private key")]
    Key(#[source] rcgen::Error),
    #[error("failed to sign a CA certificate")]
    Ca(#[source] rcgen::Error),
    #[error("failed to sign a {role} certificate")]
    Leaf { role: Role, source: rcgen::Error },
    #[error("the private key of CA {0} is not at hand")]
    NoSigningKey(Fingerprint),
}

/// A leaf that was just made, with its private key.
#[derive(Debug)]
pub struct Minted {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

fn params(now: Moment, not_after: Moment, life: Duration) -> CertificateParams {
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + (now - BACKDATED.min(life / 10)).since_unix();
    params.not_after = epoch + not_after.since_unix();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params
}

/// A CA of its own that is valid for `life`.
pub fn ca(life: Duration, now: Moment) -> Result<CaMaterial, MintError> {
    let key = KeyPair::generate().map_err(MintError::Key)?;
    let mut params = params(now, now + life, life);
    params.distinguished_name.push(DnType::OrganizationName, "kaito-project");
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.subject_alt_names = san(&[CA_NAME.to_owned()]).map_err(MintError::Ca)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).map_err(MintError::Ca)?;
    let certificate = certificate.der().clone();
    CaMaterial::read(certificate, &[key]).ok_or(MintError::Ca(rcgen::Error::CouldNotParseCertificate))
}

/// A leaf for `policy`, signed by `ca`. It does not outlive its CA.
pub fn leaf(policy: &Policy, ca: &CaMaterial, now: Moment) -> Result<Minted, MintError> {
    let role = policy.role;
    let failed = |source| MintError::Leaf { role, source };
    let signing_key = ca.key.as_ref().ok_or(MintError::NoSigningKey(ca.facts.fingerprint))?;
    let signing_key = KeyPair::try_from(signing_key).map_err(failed)?;
    let issuer = Issuer::from_ca_cert_der(&ca.certificate, signing_key).map_err(failed)?;

    let key = KeyPair::generate().map_err(MintError::Key)?;
    let not_after = (now + policy.leaf_life).min(ca.facts.validity.not_after);
    let mut params = params(now, not_after, policy.leaf_life);
    params.distinguished_name.push(DnType::CommonName, format!("keda-kaito-scaler-{role}"));
    params.subject_alt_names = san(&policy.dns_names).map_err(failed)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match role {
        Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Role::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.is_ca = IsCa::ExplicitNoCa;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Ok(Minted { certificate: certificate.der().clone(), key })
}

fn san(names: &[String]) -> Result<Vec<rcgen::SanType>, rcgen::Error> {
    names.iter().map(|name| Ok(rcgen::SanType::DnsName(name.as_str().try_into()?))).collect()
}

/// What the Secrets of a chain are to hold after a step.
#[derive(Debug)]
pub struct Renewed {
    /// The chain's own Secret, whole.
    pub secret: Contents,
    /// The chain's entry in the CA Secret; `None` leaves that as it is.
    pub signing_keys: Option<String>,
}

/// Carries out `plan` on paper: `None` where it asks for nothing to be written. `secret` is
/// what `chain` was read from.
pub fn carry_out(
    plan: &Plan,
    chain: &Chain,
    secret: &Contents,
    policy: &Policy,
    existing_scaler_runs: bool,
    now: Moment,
) -> Result<Option<Renewed>, MintError> {
    let mut cas: Vec<&CaMaterial> =
        chain.cas.iter().filter(|ca| !ca.facts.validity.has_expired(now)).collect();
    let made;
    let signer = match plan {
        Plan::Keep { .. } | Plan::WaitForExistingScaler { .. } => return Ok(None),
        Plan::DropCas { .. } => None,
        Plan::AddCa { .. } => {
            made = ca(ca_life(policy.leaf_life), now)?;
            cas.push(&made);
            None
        }
        Plan::Found { .. } => {
            made = ca(ca_life(policy.leaf_life), now)?;
            cas.insert(0, &made);
            Some(&made)
        }
        Plan::IssueLeaf { by, .. } | Plan::SwitchLeaf { to: by, .. } => {
            let signer = chain.ca(*by).ok_or(MintError::NoSigningKey(*by))?;
            cas.sort_by_key(|ca| ca.facts.fingerprint != *by);
            Some(signer)
        }
    };

    let mut contents = secret.clone();
    let mut set = |key: &str, text: String| contents.insert(key.to_owned(), ByteString(text.into_bytes()));
    set(CA_CERTIFICATES, pem::encode_certificates(cas.iter().map(|ca| &ca.certificate)));
    if let Some(signer) = signer {
        let (certificate_key, key_key) = leaf_keys(chain.role);
        let leaf = leaf(policy, signer, now)?;
        set(certificate_key, pem::encode_certificates([&leaf.certificate]));
        set(key_key, pem::encode_private_keys([&leaf.key]));
    }
    // The existing scaler takes a Secret without the signing key for broken and makes all anew.
    if existing_scaler_runs && chain.has_legacy_key {
        return Ok(Some(Renewed { secret: contents, signing_keys: None }));
    }
    contents.remove(LEGACY_CA_KEY);
    // A CA that was switched away from signs nothing any more.
    let first_end = cas.first().map(|ca| ca.facts.validity.not_after);
    let in_use = cas.iter().filter(|ca| Some(ca.facts.validity.not_after) >= first_end);
    let signing_keys = pem::encode_private_keys(in_use.filter_map(|ca| ca.key.as_ref()));
    Ok(Some(Renewed { secret: contents, signing_keys: Some(signing_keys) }))
}

#[cfg(test)]
mod tests;
