use proptest::prelude::*;

use super::*;

const YEAR: Duration = Duration::from_secs(365 * DAY.as_secs());
const NAMES: [&str; 2] = ["scaler.keda", "scaler.keda.svc"];

/// Day `n` of a calendar that starts in 2001.
fn day(n: u64) -> Moment {
    Moment::from_unix(Duration::from_secs(978_307_200) + DAY * u32::try_from(n).unwrap())
}

fn years(n: u64) -> u64 {
    n * 365
}

fn ca(id: u8, from: u64, to: u64) -> Ca {
    Ca {
        fingerprint: Fingerprint([id; 32]),
        validity: Validity { not_before: day(from), not_after: day(to) },
        can_sign: true,
    }
}

fn leaf(issuer: u8, from: u64, to: u64) -> Leaf {
    Leaf {
        fingerprint: Fingerprint([0xee; 32]),
        validity: Validity { not_before: day(from), not_after: day(to) },
        issuer: Fingerprint([issuer; 32]),
        dns_names: NAMES.map(String::from).into(),
    }
}

fn observed(cas: &[Ca], leaf: Leaf) -> Observed {
    Observed { cas: cas.into(), leaf: LeafState::Usable(leaf), existing_scaler_runs: false }
}

fn policy(leaf_life: Duration) -> Policy {
    Policy { role: Role::Server, leaf_life, dns_names: NAMES.map(String::from).into() }
}

/// The plan, where leaves live for a year.
fn planned(observed: &Observed, on: u64) -> Plan {
    plan(observed, &policy(YEAR), day(on))
}

fn issue(by: u8, reason: Reason) -> Plan {
    Plan::IssueLeaf { by: Fingerprint([by; 32]), reason }
}

fn switch(to: u8, reason: Reason) -> Plan {
    Plan::SwitchLeaf { to: Fingerprint([to; 32]), reason }
}

fn keep(until: u64) -> Plan {
    Plan::Keep { until: day(until), note: None }
}

#[test]
fn names_are_those_of_the_contract() {
    assert_eq!(
        server_names("keda-kaito-scaler-svc", "keda"),
        [
            "keda-kaito-scaler-svc.keda",
            "keda-kaito-scaler-svc.keda.svc",
            "keda-kaito-scaler-svc.keda.svc.cluster",
            "keda-kaito-scaler-svc.keda.svc.cluster.local",
        ]
    );
}

#[test]
fn a_leaf_is_renewed_ninety_days_ahead_or_in_the_last_third_of_a_shorter_life() {
    let chain = |life| observed(&[ca(1, 0, years(20))], leaf(1, 0, life));
    for (life, kept_until) in [(365, 275), (270, 180), (90, 60), (3, 2)] {
        assert_eq!(planned(&chain(life), kept_until - 1), keep(kept_until), "{life} days");
        assert_eq!(planned(&chain(life), kept_until), issue(1, Reason::RenewalDue), "{life} days");
    }
}

#[test]
fn what_cannot_be_used_is_made_anew_by_the_same_ca() {
    let good = leaf(1, 0, 365);
    let usable = |change: fn(&mut Leaf)| {
        let mut leaf = good.clone();
        change(&mut leaf);
        LeafState::Usable(leaf)
    };
    let refused = || Flaw::Refused("bad serial".into());
    for (state, reason) in [
        (LeafState::Absent, Reason::Absent),
        (LeafState::Unusable(Flaw::KeyMismatch), Reason::Flawed(Flaw::KeyMismatch)),
        (LeafState::Unusable(Flaw::Untrusted), Reason::Flawed(Flaw::Untrusted)),
        (LeafState::Unusable(refused()), Reason::Flawed(refused())),
        (usable(|leaf| leaf.validity.not_after = day(9)), Reason::Expired),
        (LeafState::Unusable(Flaw::WrongUsage), Reason::Flawed(Flaw::WrongUsage)),
        (usable(|leaf| drop(leaf.dns_names.pop())), Reason::NamesMissing(vec![NAMES[1].into()])),
    ] {
        let mut chain = observed(&[ca(1, 0, years(20))], good.clone());
        chain.leaf = state;
        assert_eq!(planned(&chain, 10), issue(1, reason.clone()));
        // Without a CA that can sign there is nothing to build on.
        chain.cas[0].can_sign = false;
        assert_eq!(planned(&chain, 10), Plan::Found { reason: reason.clone() });
        chain.cas.clear();
        let reason = if matches!(chain.leaf, LeafState::Usable(_)) && reason != Reason::Expired {
            Reason::CaExpired
        } else {
            reason
        };
        assert_eq!(planned(&chain, 10), Plan::Found { reason });
    }
}

#[test]
fn a_leaf_does_not_outlive_its_ca() {
    let chain = observed(&[ca(1, 0, 100)], leaf(1, 0, 365));
    assert_eq!(planned(&chain, 101), Plan::Found { reason: Reason::CaExpired });
}

#[test]
fn a_clock_that_is_behind_changes_nothing() {
    let chain = observed(&[ca(1, 100, years(20))], leaf(1, 100, 465));
    let note = Some(Note::NotYetValid);
    assert_eq!(planned(&chain, 99), Plan::Keep { until: day(100), note });
}

#[test]
fn the_next_ca_is_published_a_leaf_before_it_signs() {
    // Renewals fall on days 275, 550 and 825; a leaf of day 825 would outlive the CA.
    let old = ca(1, 0, 1_000);
    let chain = |cas: &[Ca]| observed(cas, leaf(1, 0, 365));
    assert_eq!(planned(&chain(&[old]), 200), keep(275));
    let renewed = |cas: &[Ca], from| observed(cas, leaf(1, from, from + 365));
    assert_eq!(planned(&renewed(&[old], 275), 459), keep(460));
    assert_eq!(planned(&renewed(&[old], 275), 460), Plan::AddCa { reason: Reason::CaEnds });

    let both = [old, ca(2, 460, years(20))];
    assert_eq!(planned(&renewed(&both, 275), 461), keep(550));
    assert_eq!(planned(&renewed(&both, 275), 550), issue(1, Reason::RenewalDue));
    assert_eq!(planned(&renewed(&both, 550), 824), keep(825));
    assert_eq!(planned(&renewed(&both, 550), 825), switch(2, Reason::RenewalDue));

    let after = [ca(2, 460, years(20)), old];
    let switched = observed(&after, leaf(2, 825, 1_190));
    assert!(matches!(planned(&switched, 1_000), Plan::Keep { .. }), "the old CA stays until its end");
    assert_eq!(planned(&switched, 1_001), Plan::DropCas { gone: vec![old.fingerprint] });
}

#[test]
fn a_ca_taken_over_late_signs_a_short_leaf_rather_than_a_ca_nobody_knows() {
    let both = [ca(1, 0, 700), ca(2, 400, years(20))];
    let chain = |leaf_end| observed(&both, leaf(1, 300, leaf_end));
    assert_eq!(planned(&chain(510), 500), issue(1, Reason::RenewalDue), "200 days are worthwhile");
    // Ten days before the old CA's last worthwhile day peers do not know the new one yet; it
    // takes over at the last call, half of the leaf's 90 days before its end.
    assert_eq!(planned(&chain(665), 575), keep(620));
    assert_eq!(planned(&chain(665), 620), switch(2, Reason::RenewalDue));
}

#[test]
fn a_lost_ca_key_leads_to_another_ca_at_once_and_to_its_leaf_as_late_as_possible() {
    let mut keyless = ca(1, 0, years(10));
    keyless.can_sign = false;
    let alone = observed(&[keyless], leaf(1, 0, 365));
    assert_eq!(planned(&alone, 5), Plan::AddCa { reason: Reason::CaKeyMissing });
    let both = observed(&[keyless, ca(2, 5, years(20))], leaf(1, 0, 365));
    assert_eq!(planned(&both, 6), keep(275));
    assert_eq!(planned(&both, 275), keep(320));
    assert_eq!(planned(&both, 320), switch(2, Reason::RenewalDue));
}

#[test]
fn beside_the_existing_scaler_only_a_leaf_that_it_cannot_judge_is_replaced() {
    let mut chain = observed(&[ca(1, 0, years(20))], leaf(1, 0, 365));
    chain.existing_scaler_runs = true;
    assert_eq!(planned(&chain, 10), keep(275));
    assert_eq!(planned(&chain, 300), Plan::WaitForExistingScaler { reason: Reason::RenewalDue });
    chain.leaf = LeafState::Absent;
    assert_eq!(planned(&chain, 10), Plan::WaitForExistingScaler { reason: Reason::Absent });
    let refused = Flaw::Refused("an empty name".into());
    chain.leaf = LeafState::Unusable(refused.clone());
    assert_eq!(planned(&chain, 10), issue(1, Reason::Flawed(refused.clone())));
    chain.cas[0].can_sign = false;
    let reason = Reason::Flawed(refused);
    assert_eq!(planned(&chain, 10), Plan::WaitForExistingScaler { reason }, "no new CA beside it");
}

/// A chain that does what its plans say, as the writer does.
struct Cluster {
    chain: Observed,
    next_id: u8,
}

impl Cluster {
    fn new_ca(&mut self, leaf_life: Duration, now: Moment) -> Ca {
        self.next_id += 1;
        Ca {
            fingerprint: Fingerprint([self.next_id; 32]),
            validity: Validity { not_before: now, not_after: now + ca_life(leaf_life) },
            can_sign: true,
        }
    }

    /// Carries out `plan`; says for how long there is nothing else to do.
    fn carry_out(&mut self, plan: Plan, leaf_life: Duration, now: Moment) -> Option<Moment> {
        let signer = match plan {
            Plan::Keep { until, .. } => return Some(until),
            Plan::WaitForExistingScaler { .. } => panic!("there is none"),
            Plan::Found { .. } => {
                let new = self.new_ca(leaf_life, now);
                self.chain.cas.insert(0, new);
                new.fingerprint
            }
            Plan::AddCa { .. } => {
                let new = self.new_ca(leaf_life, now);
                self.chain.cas.push(new);
                return None;
            }
            Plan::DropCas { gone } => {
                self.chain.cas.retain(|ca| !gone.contains(&ca.fingerprint));
                return None;
            }
            Plan::IssueLeaf { by, .. } => by,
            Plan::SwitchLeaf { to, .. } => {
                self.chain.cas.sort_by_key(|ca| ca.fingerprint != to);
                to
            }
        };
        let ca = self.chain.cas.iter().find(|ca| ca.fingerprint == signer).unwrap();
        let not_after = (now + leaf_life).min(ca.validity.not_after);
        let mut new = leaf(1, 0, 1);
        new.issuer = signer;
        new.validity = Validity { not_before: now, not_after };
        self.chain.leaf = LeafState::Usable(new);
        None
    }

    fn leaf(&self) -> &Leaf {
        match &self.chain.leaf {
            LeafState::Usable(leaf) => leaf,
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    /// Through sixty years: the leaf is always valid, and a peer that read CAs and leaf at any
    /// time within the last leaf's life still trusts and is trusted.
    #[test]
    fn a_peer_that_reads_once_in_a_leafs_life_is_never_cut_off(
        life_days in 30_u32..=1_825,
        age_of_ca in 0.0..1.0,
        patience in 1_u32..30,
    ) {
        let leaf_life = DAY * life_days;
        let policy = policy(leaf_life);
        // A chain of the existing scaler, its CA of ten years good for at least two more leaves.
        let life = u64::from(life_days);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a day of ten years")]
        let age = (age_of_ca * (years(10) - 2 * life) as f64) as u64;
        let mut cluster =
            Cluster { chain: observed(&[ca(1, 0, years(10))], leaf(1, age, age + life)), next_id: 1 };
        let mut now = day(age);
        let end = day(age) + 60 * YEAR;
        // What peers have read, with the day: the CAs that they trust and the leaf they present.
        let mut read = vec![(now, cluster.chain.cas.clone(), cluster.leaf().clone())];
        let mut writes = 0;
        while now < end {
            match cluster.carry_out(plan(&cluster.chain, &policy, now), leaf_life, now) {
                // Late by up to `patience` days, as after an outage, but for short lives not at all.
                Some(until) => {
                    prop_assert!(until > now);
                    now = until + DAY * patience.min(life_days / 20);
                }
                None => writes += 1,
            }
            prop_assert!(writes < 2_000);
            let leaf = cluster.leaf().clone();
            prop_assert!(!leaf.validity.has_expired(now), "expired on {:?}", now);
            for (at, cas, held) in &read {
                if now.saturating_since(*at) <= leaf_life.saturating_sub(lead(leaf_life)) {
                    let trusts = cas.iter().any(|ca| ca.fingerprint == leaf.issuer && !ca.validity.has_expired(now));
                    prop_assert!(trusts, "a peer of {at:?} does not know the CA in use on {now:?}");
                    let trusted = cluster.chain.cas.iter().any(|ca| ca.fingerprint == held.issuer);
                    prop_assert!(trusted || held.validity.has_expired(now));
                }
            }
            read.retain(|(at, ..)| now.saturating_since(*at) <= leaf_life);
            read.push((now, cluster.chain.cas.clone(), leaf));
        }
        prop_assert!(cluster.chain.cas.len() <= 3, "{:?}", cluster.chain.cas);
    }
}
