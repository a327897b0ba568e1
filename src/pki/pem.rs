//! PEM, the text form of certificates and keys. The one place that uses `rustls-pemfile`
//! and `pem`.

use std::{io, iter};

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_pemfile::Item;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum PemError {
    #[error("failed to parse PEM")]
    Parse(#[source] io::Error),
    #[error("there is no certificate in it")]
    NoCertificate,
    #[error("there is no private key in it")]
    NoKey,
}

fn items(mut text: &[u8]) -> impl Iterator<Item = Result<Item, PemError>> {
    iter::from_fn(move || rustls_pemfile::read_one(&mut text).transpose())
        .map(|item| item.map_err(PemError::Parse))
}

/// All certificates of `text`, in order; at least one.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut found = Vec::new();
    for item in items(text) {
        if let Item::X509Certificate(certificate) = item? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(PemError::NoCertificate) } else { Ok(found) }
}

/// The certificates of `text` that can be read; the rest is left out.
#[must_use]
pub fn readable_certificates(text: &[u8]) -> Vec<CertificateDer<'static>> {
    // A reader over a slice always gets ahead, so this ends.
    let read = items(text).filter_map(Result::ok);
    read.filter_map(|item| if let Item::X509Certificate(one) = item { Some(one) } else { None }).collect()
}

/// The first private key of `text`: PKCS#8, PKCS#1 or SEC1.
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    items(text).find_map(|item| item.map(as_key).transpose()).unwrap_or(Err(PemError::NoKey))
}

/// The private keys of `text` that can be read; the rest is left out.
#[must_use]
pub fn readable_private_keys(text: &[u8]) -> Vec<PrivateKeyDer<'static>> {
    items(text).filter_map(Result::ok).filter_map(as_key).collect()
}

fn as_key(item: Item) -> Option<PrivateKeyDer<'static>> {
    match item {
        Item::Pkcs1Key(key) => Some(key.into()),
        Item::Pkcs8Key(key) => Some(key.into()),
        Item::Sec1Key(key) => Some(key.into()),
        _ => None,
    }
}

/// The text form of certificates, one after the other.
pub fn encode_certificates<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    certificates.into_iter().map(|one| encode("CERTIFICATE", one)).collect()
}

/// The text form of private keys, one after the other.
pub fn encode_private_keys<'a>(keys: impl IntoIterator<Item = &'a PrivateKeyDer<'a>>) -> String {
    let label = |key: &PrivateKeyDer<'_>| match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    keys.into_iter().map(|key| encode(label(key), key.secret_der())).collect()
}

/// The private keys of `first`, then those of `second` that are not among them.
#[must_use]
pub fn union_of_private_keys(first: &[u8], second: &[u8]) -> String {
    let mut keys = readable_private_keys(first);
    for key in readable_private_keys(second) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    encode_private_keys(&keys)
}

/// RFC 7468.
fn encode(label: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::legacy;

    #[test]
    fn what_is_written_is_what_was_read() {
        let [server, client] = [legacy::SERVER, legacy::CLIENT];
        for (certificate, key) in
            [(server.ca, server.ca_key), (server.leaf, server.leaf_key), (client.leaf, client.leaf_key)]
        {
            assert_eq!(encode_certificates(&certificates(certificate.as_bytes()).unwrap()), certificate);
            assert_eq!(encode_private_keys([&private_key(key.as_bytes()).unwrap()]), key);
        }
        let both = [server.ca, client.ca].concat();
        assert_eq!(encode_certificates(&certificates(both.as_bytes()).unwrap()), both);
    }

    #[test]
    fn base64_is_padded() {
        for (der, line) in [(&b"f"[..], "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg==")] {
            assert_eq!(encode("X", der), format!("-----BEGIN X-----\n{line}\n-----END X-----\n"));
        }
    }

    #[test]
    fn what_is_damaged_is_an_error_or_left_out() {
        let good = legacy::SERVER.ca;
        let damaged = good.replacen("MII", "M!!", 1);
        assert!(matches!(certificates(damaged.as_bytes()), Err(PemError::Parse(_))));
        assert!(matches!(certificates(b""), Err(PemError::NoCertificate)));
        assert!(matches!(private_key(good.as_bytes()), Err(PemError::NoKey)));
        let mixed = [damaged.as_str(), good].concat();
        assert_eq!(readable_certificates(mixed.as_bytes()).len(), 1);
    }
}
