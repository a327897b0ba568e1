//! What the live connections presented: KEDA reads its certificate when it builds a scaler and
//! perhaps never again, so what it holds can end long after the Secret was renewed.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

use super::chain::expiry;
use scaler_core::{cert::DAY, time::Moment};

/// How long before its end a client certificate in use is warned about.
pub const WARN_AHEAD: Duration = Duration::from_secs(30 * DAY.as_secs());

/// The client certificates of a listener's live connections. Told by whoever observes the listener.
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

impl Presented {
    /// A connection, by its number, has come up with this chain; its leaf is first.
    pub fn opened(&self, connection: u64, chain: &[CertificateDer<'_>]) {
        if let Some(end) = chain.first().and_then(expiry) {
            self.lock().ends.insert(connection, end);
        }
    }

    /// A connection has ended.
    pub fn closed(&self, connection: u64) {
        self.lock().ends.remove(&connection);
    }

    /// A client at this address speaks plaintext to the TLS port.
    pub fn plaintext_client(&self, address: IpAddr) {
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
        let chain = |made: Moment| {
            let (secret, _) = founded(Role::Client, made);
            pem::certificates(&secret["tls.crt"].0).unwrap()
        };
        assert_eq!(presented.first_end(), None);
        let (late, early) = (chain(now()), chain(now() - YEAR / 2));
        presented.opened(0, &late);
        presented.opened(1, &early);
        let seconds = |end: Option<Moment>| end.map(|end| end.since_unix().as_secs());
        assert_eq!(presented.ends().into_keys().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(seconds(presented.first_end()), expiry(&early[0]).map(|end| end.since_unix().as_secs()));
        presented.closed(1);
        assert_eq!(presented.first_end(), expiry(&late[0]));

        let address = IpAddr::from([10, 0, 0, 1]);
        presented.plaintext_client(address);
        assert_eq!(presented.plaintext_clients().await, BTreeSet::from([address]));
    }
}
