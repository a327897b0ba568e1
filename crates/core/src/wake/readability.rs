//! Whether a source can be read: what is known of each of its endpoints, and of it as a whole.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{Fault, MOST_ENDPOINTS, Readability, judge};

/// What trying a source has shown so far.
#[derive(Clone, Debug, Default)]
pub struct SourceReadability {
    /// `None` where nothing is known of an endpoint.
    endpoints: BTreeMap<SocketAddr, Option<Readability>>,
    known: Option<Readability>,
}

impl SourceReadability {
    /// Takes in where the source answers. `explain` says what a fault means.
    pub fn found(&mut self, found: Result<&[SocketAddr], &Fault>, explain: impl FnOnce(&Fault) -> String) {
        let read = found.map_or(&[][..], |all| &all[..all.len().min(MOST_ENDPOINTS)]);
        self.endpoints.retain(|endpoint, _| read.contains(endpoint));
        for endpoint in read {
            self.endpoints.entry(*endpoint).or_default();
        }
        match found {
            Ok(_) => self.sum_up(),
            Err(fault) => self.known = judge(self.known.as_ref(), Err(fault), explain),
        }
    }

    /// Takes in what came of reading `endpoint`.
    pub fn tried(
        &mut self,
        endpoint: SocketAddr,
        read: Result<(), &Fault>,
        explain: impl FnOnce(&Fault) -> String,
    ) {
        let Some(known) = self.endpoints.get_mut(&endpoint) else { return };
        // One that is new takes the place of others that were known.
        let before = known.as_ref().or(self.known.as_ref());
        *known = judge(before, read, explain);
        self.sum_up();
    }

    /// What is known of the source: it can be read where each of its endpoints can, for requests
    /// may be held at any of them. `None` where nothing is known still.
    #[must_use]
    pub fn known(&self) -> Option<&Readability> {
        self.known.as_ref()
    }

    fn sum_up(&mut self) {
        let known = || self.endpoints.values().flatten();
        let worst = known().find(|readability| **readability != Readability::Readable);
        if let Some(worst) = worst.or_else(|| known().next()) {
            self.known = Some(worst.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wake::Missing;

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 9090))
    }

    #[test]
    fn a_source_can_be_read_where_each_of_its_endpoints_can() {
        enum Step {
            Found(Result<&'static [u8], Fault>),
            Tried(u8, Result<(), Fault>),
        }
        use Step::{Found, Tried};
        let passing = || Fault::Passing("no complete answer within 1s".into());
        let steps = [
            (Found(Err(Fault::NotLookedUp)), "nothing"),
            (Found(Err(Fault::Missing(Missing::Service))), "Missing(Service)"),
            // What was missing is there, and nothing more is known.
            (Found(Ok(&[1, 2])), "Missing(Service)"),
            (Tried(1, Ok(())), "readable"),
            (Tried(2, Err(passing())), "readable"),
            (Tried(2, Err(Fault::Forbidden)), "Forbidden"),
            (Tried(1, Ok(())), "Forbidden"),
            (Tried(2, Err(passing())), "Forbidden"),
            (Found(Ok(&[1])), "readable"),
            (Tried(2, Err(Fault::NoSignals)), "readable"),
            // A restart: no pod, and then another one that can't check tokens yet.
            (Found(Err(Fault::Missing(Missing::Endpoint))), "readable"),
            (Found(Ok(&[3])), "readable"),
            (Tried(3, Err(Fault::CannotReview)), "readable"),
            (Tried(3, Err(Fault::Status(404))), "Status(404)"),
            (Tried(3, Ok(())), "readable"),
        ];
        let mut source = SourceReadability::default();
        let explain = |fault: &Fault| format!("{fault:?}");
        for (number, (step, expected)) in steps.into_iter().enumerate() {
            match step {
                Found(found) => {
                    let found = found.map(|all| all.iter().copied().map(endpoint).collect::<Vec<_>>());
                    source.found(found.as_deref(), explain);
                }
                Tried(last, read) => source.tried(endpoint(last), read.as_ref().copied(), explain),
            }
            let known = match source.known() {
                None => "nothing".to_owned(),
                Some(Readability::Readable) => "readable".to_owned(),
                Some(Readability::Unreadable(why)) => why.to_string(),
            };
            assert_eq!(known, expected, "step {number}");
        }
    }
}
