//! What the live connections presented: KEDA reads its certificate when it builds a scaler and
//! perhaps never again, so what it holds can end long after the Secret was renewed.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::chain::expiry;
use crate::serve::listener::{Observe, Peer};
use scaler_core::{cert::DAY, time::Moment};

/// How long before its end a client certificate in use is warned about.
pub const WARN_AHEAD: Duration = Duration::from_secs(30 * DAY.as_secs());

/// Observes a listener.
#[derive(Debug, Default)]
pub struct Presented {
    inner: Mutex<Inner>,
    plaintext: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// The end of the client leaf by connection.
    ends: BTreeMap<u64, Moment>,
    plaintext: BTreeSet<IpAddr>,
}

impl Presented {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the first of the client leaves on live connections ends; `None` without any.
    #[must_use]
    pub fn first_end(&self) -> Option<Moment> {
        self.lock().ends.values().min().copied()
    }

    /// The end of each live connection's client leaf, by the connection's number.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<u64, Moment> {
        self.lock().ends.clone()
    }

    /// Waits for clients that speak plaintext to the TLS port, and takes their addresses.
    pub async fn plaintext_clients(&self) -> BTreeSet<IpAddr> {
        loop {
            let addresses = mem::take(&mut self.lock().plaintext);
            if !addresses.is_empty() {
                return addresses;
            }
            self.plaintext.notified().await;
        }
    }
}

impl Observe for Presented {
    fn opened(&self, peer: &Arc<Peer>) {
        if let Some(end) = peer.certificates.first().and_then(expiry) {
            self.lock().ends.insert(peer.connection, end);
        }
    }

    fn closed(&self, peer: &Arc<Peer>) {
        self.lock().ends.remove(&peer.connection);
    }

    fn plaintext_client(&self, address: IpAddr) {
        self.lock().plaintext.insert(address);
        self.plaintext.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{
        pem,
        testing::{YEAR, founded, now},
    };
    use scaler_core::cert::Role;

    #[tokio::test]
    async fn the_first_end_is_that_of_live_connections() {
        let presented = Presented::default();
        let peer = |connection, made: Moment| {
            let (secret, _) = founded(Role::Client, made);
            let certificates = pem::certificates(&secret["tls.crt"].0).unwrap();
            Arc::new(Peer { connection, address: ([127, 0, 0, 1], 1).into(), certificates })
        };
        assert_eq!(presented.first_end(), None);
        let (late, early) = (peer(0, now()), peer(1, now() - YEAR / 2));
        presented.opened(&late);
        presented.opened(&early);
        let seconds = |end: Option<Moment>| end.map(|end| end.since_unix().as_secs());
        assert_eq!(presented.ends().into_keys().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(
            seconds(presented.first_end()),
            expiry(&early.certificates[0]).map(|end| end.since_unix().as_secs())
        );
        presented.closed(&early);
        assert_eq!(presented.first_end(), expiry(&late.certificates[0]));

        let address = IpAddr::from([10, 0, 0, 1]);
        presented.plaintext_client(address);
        assert_eq!(presented.plaintext_clients().await, BTreeSet::from([address]));
    }
}
