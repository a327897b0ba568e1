//! Whether the process is ready to be called, as gates that open one by one.
//!
//! Each part that has to be up holds a [`Gate`] and opens it when it is; shutting down closes
//! readiness for good, whatever the gates say.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

#[derive(Clone, Debug, Default)]
struct State {
    /// What each closed gate waits for.
    closed: BTreeMap<&'static str, String>,
    going_away: bool,
}

/// The writing side: makes gates, and closes everything on shutdown.
#[derive(Clone, Debug)]
pub struct Gates {
    state: Arc<watch::Sender<State>>,
}

/// One part's gate. Opened once its part is up; where it is dropped unopened it stays closed.
#[derive(Debug)]
#[must_use = "a gate that is not opened keeps the process unready"]
pub struct Gate {
    name: &'static str,
    state: Arc<watch::Sender<State>>,
}

/// The reading side.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: watch::Receiver<State>,
}

impl Gates {
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::default()) }
    }

    /// A closed gate; `waits_for` says for people what opens it.
    pub fn gate(&self, name: &'static str, waits_for: impl Into<String>) -> Gate {
        self.state.send_modify(|state| {
            state.closed.insert(name, waits_for.into());
        });
        Gate { name, state: self.state.clone() }
    }

    /// Unready from now on.
    pub fn go_away(&self) {
        self.state.send_modify(|state| state.going_away = true);
    }

    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness { state: self.state.subscribe() }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// Says anew what is waited for.
    pub fn waits_for(&self, what: impl Into<String>) {
        let what = what.into();
        self.state.send_if_modified(|state| {
            let current = state.closed.entry(self.name).or_default();
            let news = *current != what;
            if news {
                *current = what;
            }
            news
        });
    }

    pub fn open(self) {
        self.state.send_modify(|state| {
            state.closed.remove(self.name);
        });
    }
}

impl Readiness {
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let state = self.state.borrow();
        state.closed.is_empty() && !state.going_away
    }

    /// One line for each thing that is waited for; empty while ready.
    #[must_use]
    pub fn waits_for(&self) -> Vec<String> {
        let state = self.state.borrow();
        let going_away = state.going_away.then(|| "shutdown: the process is going away".to_owned());
        state.closed.iter().map(|(name, why)| format!("{name}: {why}")).chain(going_away).collect()
    }

    /// Waits for a change; false where none can come any more.
    pub async fn changed(&mut self) -> bool {
        self.state.changed().await.is_ok()
    }

    /// Waits until ready; false where that can't come any more.
    pub async fn ready(&mut self) -> bool {
        while !self.is_ready() {
            if !self.changed().await {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_gate_is_open_and_never_after_going_away() {
        let gates = Gates::new();
        let readiness = gates.readiness();
        assert!(readiness.is_ready());
        let (fleet, listener) = (gates.gate("fleet", "the first list"), gates.gate("listener", "a port"));
        assert_eq!(readiness.waits_for(), ["fleet: the first list", "listener: a port"]);
        fleet.open();
        assert!(!readiness.is_ready());
        listener.open();
        assert!(readiness.is_ready());
        gates.go_away();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.waits_for(), ["shutdown: the process is going away"]);
    }

    #[test]
    fn a_gate_that_is_dropped_stays_closed() {
        let gates = Gates::new();
        drop(gates.gate("fleet", "the first list"));
        assert!(!gates.readiness().is_ready());
    }

    #[tokio::test]
    async fn waiting_ends_with_readiness_or_with_its_impossibility() {
        let gates = Gates::new();
        let gate = gates.gate("fleet", "the first list");
        let mut readiness = gates.readiness();
        let (ready, ()) = tokio::join!(readiness.ready(), async { gate.open() });
        assert!(ready);
        let gate = gates.gate("never", "nothing");
        drop((gate, gates));
        assert!(!readiness.ready().await);
    }
}
