use super::*;
use crate::pki::testing::{YEAR, founded, legacy_secret, now, policy};
use scaler_core::cert::{Flaw, LeafState, Reason, plan};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A chain's Secret and its entry in the CA Secret, with the steps that were taken.
struct Cluster {
    role: Role,
    secret: Contents,
    signing_keys: String,
}

impl Cluster {
    fn legacy(role: Role) -> Self {
        Self { role, secret: legacy_secret(role), signing_keys: String::new() }
    }

    fn chain(&self) -> Chain {
        Chain::read(self.role, &self.secret, Some(self.signing_keys.as_bytes()))
    }

    fn plan(&self, now: Moment) -> Plan {
        plan(&self.chain().observed(false), &policy(self.role), now)
    }

    fn carry_out(&mut self, plan: &Plan, existing_scaler_runs: bool, now: Moment) {
        let policy = policy(self.role);
        let renewed = carry_out(plan, &self.chain(), &self.secret, &policy, existing_scaler_runs, now);
        let renewed = renewed.unwrap().expect("something to write");
        self.secret = renewed.secret;
        if let Some(keys) = renewed.signing_keys {
            self.signing_keys = keys;
        }
    }

    fn has(&self, key: &str) -> bool {
        self.secret.contains_key(key)
    }
}

#[test]
fn a_leaf_of_an_rsa_ca_is_made_without_moving_its_key_while_the_existing_scaler_runs() {
    for role in Role::BOTH {
        let mut cluster = Cluster::legacy(role);
        let before = cluster.secret.clone();
        let by = cluster.chain().cas[0].facts.fingerprint;
        let reason = Reason::Flawed(Flaw::Refused("a test says so".into()));
        cluster.carry_out(&Plan::IssueLeaf { by, reason: reason.clone() }, true, now());
        assert_eq!(cluster.secret["ca.crt"], before["ca.crt"]);
        assert_eq!(cluster.secret["ca.key"], before["ca.key"]);
        assert_eq!(cluster.signing_keys, "");
        let (certificate, _) = leaf_keys(role);
        assert_ne!(cluster.secret[certificate], before[certificate]);
        assert!(matches!(cluster.plan(now()), Plan::Keep { .. }), "{:?}", cluster.chain());

        cluster.carry_out(&Plan::IssueLeaf { by, reason }, false, now());
        assert!(!cluster.has("ca.key"), "now it moves");
        assert!(cluster.signing_keys.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
        assert!(cluster.chain().cas[0].facts.can_sign);
        assert!(matches!(cluster.plan(now()), Plan::Keep { .. }));
    }
}

#[test]
fn a_chain_lives_on_from_the_existing_scalers_ca_to_ours() {
    for role in Role::BOTH {
        let mut cluster = Cluster::legacy(role);
        let first = cluster.chain().cas[0].facts;
        let (mut now, mut steps) = (now(), Vec::new());
        // The CA of the existing scaler ends in 2050.
        while now < first.validity.not_after + YEAR {
            match cluster.plan(now) {
                Plan::Keep { until, note } => {
                    assert_eq!(note, None);
                    now = until;
                }
                step => {
                    cluster.carry_out(&step, false, now);
                    assert!(!cluster.has("ca.key"));
                    let LeafState::Usable(leaf) = cluster.chain().leaf else {
                        panic!("{:?}", cluster.chain())
                    };
                    assert!(!leaf.validity.has_expired(now));
                    steps.push(step);
                }
            }
        }
        let cas = cluster.chain().cas;
        assert!(cas.iter().all(|ca| ca.facts.fingerprint != first.fingerprint), "the old CA is gone");
        let count = |wanted: fn(&Plan) -> bool| steps.iter().filter(|step| wanted(step)).count();
        assert_eq!(count(|step| matches!(step, Plan::AddCa { .. })), 1, "{steps:?}");
        assert_eq!(count(|step| matches!(step, Plan::SwitchLeaf { .. })), 1);
        assert_eq!(count(|step| matches!(step, Plan::DropCas { .. })), 1);
        assert_eq!(count(|step| matches!(step, Plan::Found { .. })), 0);
        let keys = pem::readable_private_keys(cluster.signing_keys.as_bytes());
        assert_eq!(keys.len(), 1, "the old CA's key went when the new one took over");
    }
}

#[test]
fn new_certificates_are_backdated_a_little_and_end_with_their_ca() {
    let made_at = now();
    let (secret, keys) = founded(Role::Server, made_at);
    let mut cluster = Cluster { role: Role::Server, secret, signing_keys: keys };
    let LeafState::Usable(leaf) = cluster.chain().leaf else { panic!() };
    assert_eq!(made_at.saturating_since(leaf.validity.not_before).as_secs().div_ceil(60), 60);
    assert_eq!(leaf.validity.not_after.since_unix().as_secs(), (made_at + YEAR).since_unix().as_secs());

    let ca = cluster.chain().cas[0].facts;
    let late = ca.validity.not_after - DAY;
    cluster.carry_out(&Plan::IssueLeaf { by: ca.fingerprint, reason: Reason::Expired }, false, late);
    let LeafState::Usable(leaf) = cluster.chain().leaf else { panic!() };
    assert_eq!(leaf.validity.not_after, ca.validity.not_after);
}

#[test]
fn a_lost_signing_key_is_an_error_not_another_ca() {
    let cluster = Cluster { signing_keys: String::new(), ..Cluster::legacy(Role::Client) };
    let mut secret = cluster.secret.clone();
    secret.remove("ca.key");
    let chain = Chain::read(Role::Client, &secret, None);
    let by = chain.cas[0].facts.fingerprint;
    let plan = Plan::IssueLeaf { by, reason: Reason::Absent };
    let failed = carry_out(&plan, &chain, &secret, &policy(Role::Client), false, now());
    assert!(matches!(failed, Err(MintError::NoSigningKey(ca)) if ca == by));
}
