//! What a Secret holds, parsed and judged.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use k8s_openapi::ByteString;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::{
    CertificateError, Error as TlsError, RootCertStore, SupportedCipherSuite,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::aws_lc_rs::{self, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use x509_parser::prelude::{ASN1Time, FromDer as _, GeneralName, X509Certificate};

use super::pem;
use scaler_core::{
    cert::{Ca, Fingerprint, Flaw, Leaf, LeafState, Observed, Role, Validity},
    time::Moment,
};

/// The contents of a Secret.
pub type Contents = BTreeMap<String, ByteString>;

/// The key of a chain's Secret that holds its CA certificates.
pub const CA_CERTIFICATES: &str = "ca.crt";
/// The key under which the existing scaler keeps the CA's private key in the same Secret.
pub const LEGACY_CA_KEY: &str = "ca.key";

/// The keys of a chain's Secret that hold the leaf and its private key.
#[must_use]
pub fn leaf_keys(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Server => ("server.crt", "server.key"),
        Role::Client => ("tls.crt", "tls.key"),
    }
}

/// The key of the CA Secret that holds a chain's signing keys, one after the other.
#[must_use]
pub fn signing_keys_key(role: Role) -> &'static str {
    match role {
        Role::Server => "server-ca.key",
        Role::Client => "client-ca.key",
    }
}

/// A CA certificate, with its private key where that is at hand.
#[derive(Debug)]
pub struct CaMaterial {
    pub facts: Ca,
    pub certificate: CertificateDer<'static>,
    pub key: Option<PrivateKeyDer<'static>>,
}

/// A chain as a Secret holds it.
pub struct Chain {
    pub role: Role,
    /// In the order of `ca.crt`.
    pub cas: Vec<CaMaterial>,
    pub leaf: LeafState,
    /// The leaf's certificate and key; there whenever the leaf is usable.
    pub identity: Option<Arc<CertifiedKey>>,
    /// The signing key lies in the leaf's Secret, as the existing scaler left it.
    pub has_legacy_key: bool,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cas: Vec<_> = self.cas.iter().map(|ca| ca.facts).collect();
        f.debug_struct("Chain")
            .field("role", &self.role)
            .field("cas", &cas)
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

impl Chain {
    /// Reads the chain's Secret. `signing_keys` is what the CA Secret holds for it, if anything;
    /// without it the chain can be served but not renewed.
    #[must_use]
    pub fn read(role: Role, secret: &Contents, signing_keys: Option<&[u8]>) -> Self {
        let text =
            |key: &str| secret.get(key).map(|value| value.0.as_slice()).filter(|value| !value.is_empty());
        let legacy_keys = text(LEGACY_CA_KEY);
        let mut keys = key_pairs(signing_keys.unwrap_or_default());
        keys.extend(key_pairs(legacy_keys.unwrap_or_default()));

        let certificates = pem::readable_certificates(text(CA_CERTIFICATES).unwrap_or_default());
        let cas =
            certificates.into_iter().filter_map(|certificate| CaMaterial::read(certificate, &keys)).collect();
        let mut chain = Self {
            role,
            cas,
            leaf: LeafState::Absent,
            identity: None,
            has_legacy_key: legacy_keys.is_some(),
        };
        let (certificate, key) = leaf_keys(role);
        if let (Some(certificate), Some(key)) = (text(certificate), text(key)) {
            (chain.leaf, chain.identity) = match chain.read_leaf(certificate, key) {
                Ok((leaf, identity)) => (LeafState::Usable(leaf), Some(Arc::new(identity))),
                Err(flaw) => (LeafState::Unusable(flaw), None),
            };
        }
        chain
    }

    /// The leaf, or what is wrong with it whatever the time.
    pub fn usable_leaf(&self) -> Result<&Leaf, String> {
        match &self.leaf {
            LeafState::Usable(leaf) => Ok(leaf),
            LeafState::Absent => Err(format!("there is no {} certificate yet", self.role)),
            LeafState::Unusable(flaw) => Err(format!("the {} certificate cannot be used: {flaw}", self.role)),
        }
    }

    /// What the rotation rules look at.
    #[must_use]
    pub fn observed(&self, existing_scaler_runs: bool) -> Observed {
        let cas = self.cas.iter().map(|ca| ca.facts).collect();
        Observed { cas, leaf: self.leaf.clone(), existing_scaler_runs }
    }

    #[must_use]
    pub fn ca(&self, fingerprint: Fingerprint) -> Option<&CaMaterial> {
        self.cas.iter().find(|ca| ca.facts.fingerprint == fingerprint)
    }

    fn read_leaf(&self, certificate: &[u8], key: &[u8]) -> Result<(Leaf, CertifiedKey), Flaw> {
        let unreadable = |what: &str, error: &dyn fmt::Display| Flaw::Unreadable(format!("{what}: {error}"));
        let certificates =
            pem::certificates(certificate).map_err(|error| unreadable("certificate", &error))?;
        let key = pem::private_key(key).map_err(|error| unreadable("private key", &error))?;
        let key = any_supported_type(&key).map_err(|error| unreadable("private key", &error))?;
        let der = certificates[0].clone();
        let parsed = parse(&der).ok_or_else(|| unreadable("certificate", &"not X.509"))?;
        let identity = CertifiedKey::new(certificates, key);
        identity.keys_match().map_err(|_| Flaw::KeyMismatch)?;

        let usage = parsed.extended_key_usage().ok().flatten();
        let fits = usage.is_none_or(|usage| match self.role {
            _ if usage.value.any => true,
            Role::Server => usage.value.server_auth,
            Role::Client => usage.value.client_auth,
        });
        if !fits {
            return Err(Flaw::WrongUsage);
        }
        let mut leaf = Leaf {
            fingerprint: fingerprint(&der),
            validity: validity(&parsed),
            issuer: Fingerprint([0; 32]),
            dns_names: dns_names(&parsed),
        };
        leaf.issuer = self.issuer(&der, &leaf)?;
        Ok((leaf, identity))
    }

    /// The CA that signed the leaf, as the TLS library sees it. Time is left out of it: the
    /// rotation rules look at that.
    fn issuer(&self, der: &CertificateDer<'_>, leaf: &Leaf) -> Result<Fingerprint, Flaw> {
        let mut flaw = Flaw::Untrusted;
        for ca in &self.cas {
            match verify(self.role, der, leaf, &ca.certificate) {
                Ok(()) => return Ok(ca.facts.fingerprint),
                Err(TlsError::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                )) => {}
                Err(error) => flaw = Flaw::Refused(error.to_string()),
            }
        }
        Err(flaw)
    }
}

impl CaMaterial {
    /// `None` where the certificate is not X.509.
    pub(super) fn read(certificate: CertificateDer<'static>, keys: &[KeyPair]) -> Option<Self> {
        let parsed = parse(&certificate)?;
        let public_key = parsed.public_key().raw;
        let key = keys.iter().find(|key| key.subject_public_key_info() == public_key);
        let key = key.and_then(|key| PrivateKeyDer::try_from(key.serialize_der()).ok());
        let facts = Ca {
            fingerprint: fingerprint(&certificate),
            validity: validity(&parsed),
            can_sign: key.is_some(),
        };
        Some(Self { facts, certificate, key })
    }
}

fn key_pairs(text: &[u8]) -> Vec<KeyPair> {
    pem::readable_private_keys(text).iter().filter_map(|key| KeyPair::try_from(key).ok()).collect()
}

/// Asks the TLS library whether it would accept `leaf` from a peer if it trusted `ca` alone.
fn verify(
    role: Role,
    der: &CertificateDer<'_>,
    leaf: &Leaf,
    ca: &CertificateDer<'static>,
) -> Result<(), TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
    let general = |error: &dyn fmt::Display| TlsError::General(error.to_string());
    let at = UnixTime::since_unix_epoch(leaf.validity.not_before.since_unix());
    match role {
        Role::Client => WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| general(&error))?
            .verify_client_cert(der, &[], at)
            .map(drop),
        Role::Server => {
            // Which names have to be there is the rotation rules' question; any will do here.
            let name = leaf.dns_names.iter().find_map(|name| ServerName::try_from(name.clone()).ok());
            let name = name.ok_or_else(|| general(&"it has no DNS name"))?;
            WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| general(&error))?
                .verify_server_cert(der, &[], &name, &[], at)
                .map(drop)
        }
    }
}

/// When the certificate that a peer presented ends; `None` where it cannot be parsed.
#[must_use]
pub fn expiry(certificate: &CertificateDer<'_>) -> Option<Moment> {
    Some(moment(parse(certificate)?.validity().not_after))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

fn fingerprint(der: &CertificateDer<'_>) -> Fingerprint {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let sha256 = match suite {
        SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
    };
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sha256.hash(der).as_ref());
    Fingerprint(bytes)
}

fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity { not_before: moment(validity.not_before), not_after: moment(validity.not_after) }
}

fn moment(time: ASN1Time) -> Moment {
    Moment::from_unix(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)))
}

/// The DNS names of the SAN, without the empty one that the existing scaler puts first.
fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) if !name.is_empty() => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
