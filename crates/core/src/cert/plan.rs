//! The rotation rules: one chain, one moment, one step.

use std::{fmt, time::Duration};

use super::{Ca, DAY, Fingerprint, Flaw, Leaf, LeafState, Moment, Observed, Role};

/// The most that a certificate is replaced before its end.
const LONGEST_LEAD: Duration = Duration::from_secs(90 * DAY.as_secs());

/// The least life of a CA. See [`ca_life`].
const TEN_YEARS: Duration = Duration::from_secs(3_650 * DAY.as_secs());

/// What the operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub role: Role,
    /// How long a new leaf lives. Above zero.
    pub leaf_life: Duration,
    /// The DNS names that the leaf has to carry.
    pub dns_names: Vec<String>,
}

/// The one next step for a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing to do before `until`.
    Keep { until: Moment, note: Option<Note> },
    /// There is something to do, but the scaler being replaced runs and would fight it.
    WaitForExistingScaler { reason: Reason },
    /// Make a new CA, trusted from now on ahead of the others, and a leaf of it.
    Found { reason: Reason },
    /// Make another CA and publish it at the end of `ca.crt`. It signs nothing yet.
    AddCa { reason: Reason },
    /// Make a new leaf, signed by the CA that signs.
    IssueLeaf { by: Fingerprint, reason: Reason },
    /// Make a new leaf, signed by a CA that from now on is the one that signs.
    SwitchLeaf { to: Fingerprint, reason: Reason },
    /// Take CAs out of `ca.crt` that have expired, and with them all that they signed.
    DropCas { gone: Vec<Fingerprint> },
}

/// What an operator should know of a chain that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The leaf's time has not come. This machine's clock or the one that made the leaf is
    /// wrong, which another leaf does not repair.
    NotYetValid,
}

/// Why something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Absent,
    Flawed(Flaw),
    Expired,
    /// The leaf lacks these names.
    NamesMissing(Vec<String>),
    /// The CA that signed the leaf has expired.
    CaExpired,
    /// The leaf's end comes near.
    RenewalDue,
    /// The CA that signs is too short for the leaf after next.
    CaEnds,
    /// The key of the CA that signs is lost.
    CaKeyMissing,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there was no certificate"),
            Self::Flawed(flaw) => write!(f, "the certificate could not be used: {flaw}"),
            Self::Expired => f.write_str("the certificate had expired"),
            Self::NamesMissing(names) => write!(f, "the certificate lacked {}", names.join(", ")),
            Self::CaExpired => f.write_str("the certificate's CA had expired"),
            Self::RenewalDue => f.write_str("the certificate was near its end"),
            Self::CaEnds => f.write_str("the CA comes near its end"),
            Self::CaKeyMissing => f.write_str("the CA's private key is missing"),
        }
    }
}

/// How long before its end a certificate that lives for `life` is replaced: 90 days, or the
/// last third of a shorter life.
#[must_use]
pub fn lead(life: Duration) -> Duration {
    LONGEST_LEAD.min(life / 3)
}

/// How long a CA lives whose leaves live for `leaf_life`: long enough to sign for half of its
/// life and to be published a leaf's life before that.
#[must_use]
pub fn ca_life(leaf_life: Duration) -> Duration {
    TEN_YEARS.max(4 * leaf_life)
}

/// The next step.
#[must_use]
pub fn plan(observed: &Observed, policy: &Policy, now: Moment) -> Plan {
    let chain = Chain {
        alive: observed.cas.iter().filter(|ca| !ca.validity.has_expired(now)).collect(),
        leaf_life: policy.leaf_life,
        now,
    };
    let step = match sound_leaf(&observed.leaf, &chain, policy) {
        Ok(leaf) => chain.maintain(leaf, &observed.cas),
        Err(reason) => chain.replace(reason),
    };
    if observed.existing_scaler_runs { beside_existing_scaler(step) } else { step }
}

/// The existing scaler's rotator looks after the same Secret and makes anew what it finds
/// invalid, both CAs included. It sees nothing wrong in a leaf that only our TLS library
/// refuses, and it accepts another leaf of the same CA: that is the one thing to put right, so
/// that the new pod can become ready and the old one can leave.
fn beside_existing_scaler(step: Plan) -> Plan {
    match step {
        Plan::IssueLeaf { reason: Reason::Flawed(Flaw::Refused(_)), .. } | Plan::Keep { .. } => step,
        Plan::WaitForExistingScaler { reason }
        | Plan::Found { reason }
        | Plan::AddCa { reason }
        | Plan::IssueLeaf { reason, .. }
        | Plan::SwitchLeaf { reason, .. } => Plan::WaitForExistingScaler { reason },
        Plan::DropCas { .. } => Plan::WaitForExistingScaler { reason: Reason::CaExpired },
    }
}

/// The leaf, or what is wrong with it.
fn sound_leaf<'a>(state: &'a LeafState, chain: &Chain<'_>, policy: &Policy) -> Result<&'a Leaf, Reason> {
    let leaf = match state {
        LeafState::Absent => return Err(Reason::Absent),
        LeafState::Unusable(flaw) => return Err(Reason::Flawed(flaw.clone())),
        LeafState::Usable(leaf) => leaf,
    };
    if leaf.validity.has_expired(chain.now) {
        return Err(Reason::Expired);
    }
    if chain.issuer(leaf).is_none() {
        return Err(Reason::CaExpired);
    }
    let missing: Vec<_> =
        policy.dns_names.iter().filter(|name| !leaf.dns_names.contains(name)).cloned().collect();
    if missing.is_empty() { Ok(leaf) } else { Err(Reason::NamesMissing(missing)) }
}

/// The CAs that have not expired, and what signing needs to know.
struct Chain<'a> {
    alive: Vec<&'a Ca>,
    leaf_life: Duration,
    now: Moment,
}

impl Chain<'_> {
    fn issuer(&self, leaf: &Leaf) -> Option<&Ca> {
        self.alive.iter().copied().find(|ca| ca.fingerprint == leaf.issuer)
    }

    /// Whether peers have had a leaf's life to read this CA.
    fn is_known(&self, ca: &Ca) -> bool {
        let is_first = self.alive.first().is_some_and(|first| first.fingerprint == ca.fingerprint);
        is_first || self.now >= ca.validity.not_before + self.leaf_life
    }

    /// The CA to sign the next leaf: one that peers know, and of those one that outlives the
    /// leaf; where none is left that could sign for a worthwhile time, one they may not know.
    fn signer(&self) -> Option<&Ca> {
        let worthwhile = 2 * lead(self.leaf_life);
        let able = || {
            self.alive
                .iter()
                .copied()
                .filter(|ca| ca.can_sign && ca.validity.remaining(self.now) > worthwhile)
        };
        let outlives_leaf = |ca: &&Ca| ca.validity.remaining(self.now) >= self.leaf_life;
        able()
            .filter(|ca| self.is_known(ca))
            .find(outlives_leaf)
            .or_else(|| able().find(|ca| self.is_known(ca)))
            .or_else(|| able().max_by_key(|ca| ca.validity.not_after))
    }

    fn sign(&self, signer: &Ca, reason: Reason) -> Plan {
        let by = signer.fingerprint;
        if self.alive.first().is_some_and(|first| first.fingerprint == by) {
            Plan::IssueLeaf { by, reason }
        } else {
            Plan::SwitchLeaf { to: by, reason }
        }
    }

    /// There is no leaf to go on with.
    fn replace(&self, reason: Reason) -> Plan {
        match self.signer() {
            Some(signer) => self.sign(signer, reason),
            None => Plan::Found { reason },
        }
    }

    /// The leaf is sound: see to it that it stays so.
    fn maintain(&self, leaf: &Leaf, all: &[Ca]) -> Plan {
        if leaf.validity.not_before > self.now {
            return Plan::Keep { until: leaf.validity.not_before, note: Some(Note::NotYetValid) };
        }
        let Some(issuer) = self.issuer(leaf) else { return self.replace(Reason::CaExpired) };
        let leaf_lead = lead(leaf.validity.life());
        let renew_at = leaf.validity.not_after - leaf_lead;
        // A CA that peers may not know is used only when the time for them to read it is up.
        let last_call = leaf.validity.not_after - leaf_lead / 2;

        let is_due = |signer: &Ca| self.now >= if self.is_known(signer) { renew_at } else { last_call };
        if let Some(signer) = self.signer().filter(|signer| is_due(signer)) {
            return self.sign(signer, Reason::RenewalDue);
        }
        let publish_at = self.switch_at(issuer, renew_at) - self.leaf_life;
        let has_successor =
            self.alive.iter().any(|ca| ca.can_sign && ca.validity.not_after > issuer.validity.not_after);
        if !has_successor && self.now >= publish_at {
            let reason = if issuer.can_sign { Reason::CaEnds } else { Reason::CaKeyMissing };
            return Plan::AddCa { reason };
        }
        let gone: Vec<_> =
            all.iter().filter(|ca| ca.validity.has_expired(self.now)).map(|ca| ca.fingerprint).collect();
        if !gone.is_empty() {
            return Plan::DropCas { gone };
        }
        let ahead = [renew_at, last_call, publish_at];
        let ends = self.alive.iter().map(|ca| ca.validity.not_after + Duration::from_secs(1));
        let until = ahead.into_iter().chain(ends).filter(|at| *at > self.now).min();
        Plan::Keep { until: until.unwrap_or(leaf.validity.not_after), note: None }
    }

    /// The first renewal, from the one at `renew_at` on, at which `issuer` is too short for
    /// another leaf.
    fn switch_at(&self, issuer: &Ca, renew_at: Moment) -> Moment {
        let spare = issuer.validity.remaining(renew_at + self.leaf_life);
        let outlives_next = issuer.validity.not_after >= renew_at + self.leaf_life;
        if !issuer.can_sign || !outlives_next {
            return renew_at;
        }
        let step = self.leaf_life.saturating_sub(lead(self.leaf_life));
        let renewals = spare.as_nanos() / step.as_nanos().max(1) + 1;
        renew_at + step.saturating_mul(u32::try_from(renewals).unwrap_or(u32::MAX))
    }
}
