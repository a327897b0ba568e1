//! Certificates for tests.

use std::{sync::Arc, time::Duration};

use k8s_openapi::ByteString;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use super::{
    chain::{Chain, Contents, leaf_keys},
    mint::carry_out,
    pem,
};
use clock::Clock;
use scaler_core::{
    cert::{Plan, Policy, Reason, Role, server_names},
    time::Moment,
};

/// What the existing scaler leaves behind (`tests/data/pki/make.go`).
pub(crate) mod legacy {
    pub(crate) struct Texts {
        pub(crate) ca: &'static str,
        pub(crate) ca_key: &'static str,
        pub(crate) leaf: &'static str,
        pub(crate) leaf_key: &'static str,
    }

    macro_rules! text {
        ($path:literal) => {
            include_str!(concat!("../../tests/data/pki/", $path))
        };
    }

    pub(crate) const SERVER: Texts = Texts {
        ca: text!("server/ca.crt"),
        ca_key: text!("server/ca.key"),
        leaf: text!("server/server.crt"),
        leaf_key: text!("server/server.key"),
    };

    pub(crate) const CLIENT: Texts = Texts {
        ca: text!("client/ca.crt"),
        ca_key: text!("client/ca.key"),
        leaf: text!("client/tls.crt"),
        leaf_key: text!("client/tls.key"),
    };
}

pub(crate) const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(crate) fn now() -> Moment {
    Clock::start().now()
}

pub(crate) fn policy(role: Role) -> Policy {
    let dns_names = match role {
        Role::Server => server_names("keda-kaito-scaler-svc", "keda"),
        Role::Client => Vec::new(),
    };
    Policy { role, leaf_life: YEAR, dns_names }
}

pub(crate) fn contents<const N: usize>(entries: [(&str, &str); N]) -> Contents {
    entries.map(|(key, text)| (key.to_owned(), ByteString(text.into()))).into()
}

/// The Secret of the existing scaler.
pub(crate) fn legacy_secret(role: Role) -> Contents {
    let texts = match role {
        Role::Server => legacy::SERVER,
        Role::Client => legacy::CLIENT,
    };
    let (certificate, key) = leaf_keys(role);
    contents([
        ("ca.crt", texts.ca),
        ("ca.key", texts.ca_key),
        (certificate, texts.leaf),
        (key, texts.leaf_key),
    ])
}

/// A Secret that a new CA and leaf were made for, as of `now`, and its signing keys.
pub(crate) fn founded(role: Role, now: Moment) -> (Contents, String) {
    let empty = Contents::new();
    let chain = Chain::read(role, &empty, None);
    let plan = Plan::Found { reason: Reason::Absent };
    let made = carry_out(&plan, &chain, &empty, &policy(role), false, now).unwrap().unwrap();
    (made.secret, made.signing_keys.unwrap())
}

/// A chain that was just founded.
pub(crate) fn new_chain(role: Role, now: Moment) -> Chain {
    let (secret, keys) = founded(role, now);
    Chain::read(role, &secret, Some(keys.as_bytes()))
}

/// KEDA's side: trusts the server's CAs and presents the client's leaf, if there is one.
pub(crate) fn client_config(server: &Chain, client: Option<&Contents>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(server.cas.iter().map(|ca| ca.certificate.clone()));
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        None => config.with_no_client_auth(),
        Some(secret) => {
            let certificates = pem::certificates(&secret["tls.crt"].0).unwrap();
            let key = pem::private_key(&secret["tls.key"].0).unwrap();
            config.with_client_auth_cert(certificates, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
