use super::*;
use crate::pki::testing::{contents, founded, legacy, legacy_secret, new_chain, now, policy};
use scaler_core::cert::{Plan, plan, server_names};

fn usable(chain: &Chain) -> &Leaf {
    match &chain.leaf {
        LeafState::Usable(leaf) => leaf,
        other => panic!("{} leaf: {other:?}", chain.role),
    }
}

/// RSA-2048 in PKCS#1, an empty DNS name first, serial number 0 of the CA: none of it troubles
/// rustls, so such Secrets are taken over as they are.
#[test]
fn the_existing_scalers_chains_are_usable() {
    for role in Role::BOTH {
        let chain = Chain::read(role, &legacy_secret(role), None);
        let leaf = usable(&chain);
        assert_eq!(leaf.issuer, chain.cas[0].facts.fingerprint);
        assert!(chain.cas[0].facts.can_sign && chain.has_legacy_key && chain.identity.is_some());
        let names = if role == Role::Server { server_names("keda-kaito-scaler-svc", "keda") } else { vec![] };
        assert_eq!(leaf.dns_names, names);
        for running in [false, true] {
            let plan = plan(&chain.observed(running), &policy(role), now());
            assert!(matches!(plan, Plan::Keep { note: None, .. }), "{plan:?}");
        }
    }
}

#[test]
fn a_new_chain_is_usable_and_kept() {
    for role in Role::BOTH {
        let chain = new_chain(role, now());
        let leaf = usable(&chain);
        assert_eq!(leaf.dns_names, policy(role).dns_names);
        assert!(chain.cas[0].facts.can_sign && !chain.has_legacy_key);
        assert!(matches!(plan(&chain.observed(false), &policy(role), now()), Plan::Keep { note: None, .. }));
    }
}

type Check<'a> = &'a dyn Fn(&LeafState) -> bool;

#[test]
fn flaws_are_told_apart() {
    let server = legacy_secret(Role::Server);
    let text = |secret: &Contents, key: &str| String::from_utf8(secret[key].0.clone()).unwrap();
    let (other, _) = founded(Role::Server, now());
    let garbage = legacy::SERVER.leaf.replacen("MII", "M!!", 1);
    let client_as_server = {
        let client = legacy_secret(Role::Client);
        contents([
            ("ca.crt", legacy::CLIENT.ca),
            ("server.crt", &text(&client, "tls.crt")),
            ("server.key", &text(&client, "tls.key")),
        ])
    };
    let with = |key: &str, value: &str| {
        let mut secret = server.clone();
        secret.insert(key.into(), ByteString(value.into()));
        secret
    };
    let is_unreadable = |leaf: &LeafState| matches!(leaf, LeafState::Unusable(Flaw::Unreadable(_)));
    let is = |flaw: Flaw| move |leaf: &LeafState| *leaf == LeafState::Unusable(flaw.clone());
    let cases: [(&str, Contents, Check<'_>); 9] = [
        ("empty Secret", Contents::new(), &|leaf| *leaf == LeafState::Absent),
        ("empty value", with("server.key", ""), &|leaf| *leaf == LeafState::Absent),
        ("corrupted certificate", with("server.crt", &garbage), &is_unreadable),
        ("no certificate", with("server.crt", "hello"), &is_unreadable),
        ("corrupted key", with("server.key", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n"), &is_unreadable),
        ("another's key", with("server.key", legacy::SERVER.ca_key), &is(Flaw::KeyMismatch)),
        ("another's CA", with("ca.crt", &text(&other, "ca.crt")), &is(Flaw::Untrusted)),
        ("corrupted CA", with("ca.crt", &garbage), &is(Flaw::Untrusted)),
        ("client's leaf", client_as_server, &is(Flaw::WrongUsage)),
    ];
    for (name, secret, check) in cases {
        let chain = Chain::read(Role::Server, &secret, None);
        assert!(check(&chain.leaf), "{name}: {:?}", chain.leaf);
        assert!(chain.identity.is_none());
    }
}

#[test]
fn the_issuer_is_found_among_cas_of_the_same_name() {
    let mut secret = legacy_secret(Role::Client);
    let (other, _) = founded(Role::Client, now());
    let both = [other["ca.crt"].0.clone(), secret["ca.crt"].0.clone()].concat();
    secret.insert("ca.crt".into(), ByteString(both));
    let chain = Chain::read(Role::Client, &secret, None);
    assert_eq!(usable(&chain).issuer, chain.cas[1].facts.fingerprint);
    assert!(!chain.cas[0].facts.can_sign && chain.cas[1].facts.can_sign);
}

#[test]
fn fingerprints_are_sha256() {
    // openssl x509 -in server/ca.crt -outform DER | sha256sum
    let expected = include_str!("../../../tests/data/pki/server/ca.sha256").trim();
    let chain = Chain::read(Role::Server, &legacy_secret(Role::Server), None);
    assert!(expected.starts_with(&chain.cas[0].facts.fingerprint.to_string()), "{expected}");
}
