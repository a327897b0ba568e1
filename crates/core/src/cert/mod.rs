//! Certificates as values: what is known of those in use, and when they are replaced.
//!
//! There are two independent chains, one for each [`Role`]. Each is a short list of CAs
//! (`ca.crt`), of which the first signs, and one leaf. KEDA reads its copies of `ca.crt` and of
//! the client leaf when it builds a scaler and perhaps never again before that leaf ends, so
//! whatever a peer has to trust is published one leaf's life before it is used, and whatever a
//! peer may still hold stays trusted until it has expired.

mod plan;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use super::time::Moment;
pub use plan::{Note, Plan, Policy, Reason, ca_life, lead, plan};

pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// This program's, which KEDA verifies.
    Server,
    /// KEDA's, which this program verifies.
    Client,
}

impl Role {
    pub const BOTH: [Self; 2] = [Self::Server, Self::Client];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

/// The DNS names that a server leaf carries: every name under which KEDA may dial the Service.
#[must_use]
pub fn server_names(service: &str, namespace: &str) -> Vec<String> {
    ["", ".svc", ".svc.cluster", ".svc.cluster.local"]
        .map(|suffix| format!("{service}.{namespace}{suffix}"))
        .into()
}

/// The SHA-256 of a certificate's DER form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    /// The first eight bytes in hex: enough to tell one CA from another.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// When a certificate is valid, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Moment,
    pub not_after: Moment,
}

impl Validity {
    #[must_use]
    pub fn life(self) -> Duration {
        self.not_after.saturating_since(self.not_before)
    }

    #[must_use]
    pub fn remaining(self, now: Moment) -> Duration {
        self.not_after.saturating_since(now)
    }

    #[must_use]
    pub fn has_expired(self, now: Moment) -> bool {
        now > self.not_after
    }
}

/// A CA certificate of `ca.crt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ca {
    pub fingerprint: Fingerprint,
    pub validity: Validity,
    /// Its private key is at hand.
    pub can_sign: bool,
}

/// A leaf with its private key, signed by a CA of `ca.crt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub fingerprint: Fingerprint,
    pub validity: Validity,
    /// The CA that signed it.
    pub issuer: Fingerprint,
    pub dns_names: Vec<String>,
}

/// What there is of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafState {
    /// Certificate or key is not there.
    Absent,
    Unusable(Flaw),
    Usable(Leaf),
}

/// Why a leaf cannot be used, whatever the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Certificate or key cannot be parsed; says how.
    Unreadable(String),
    /// The private key is another certificate's.
    KeyMismatch,
    /// Its extended key usage does not allow the role.
    WrongUsage,
    /// No CA of `ca.crt` signed it.
    Untrusted,
    /// A CA of `ca.crt` signed it, but the TLS library refuses the chain; says why.
    Refused(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
            Self::KeyMismatch => f.write_str("its private key belongs to another certificate"),
            Self::WrongUsage => f.write_str("it was made for another use"),
            Self::Untrusted => f.write_str("no CA in ca.crt signed it"),
            Self::Refused(why) => write!(f, "the TLS library refuses it: {why}"),
        }
    }
}

/// One chain as it stands in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// In the order of `ca.crt`: the CA that signs is first.
    pub cas: Vec<Ca>,
    pub leaf: LeafState,
    /// A pod of the scaler that this program replaces runs and rotates the same Secret.
    pub existing_scaler_runs: bool,
}
