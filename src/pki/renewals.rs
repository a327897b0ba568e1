//! Certificates that were renewed, from when KEDA surely finds the new ones.
//!
//! Followed by every replica from its start on, so that one which takes the lead knows how long
//! they have been there.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::{
    sync::watch::{Receiver, Sender},
    time::{Instant, sleep_until},
};

use super::store::Standing;

/// From a renewal until KEDA is made to begin anew. It reads Secrets through caches of its own,
/// and whoever begins with the old ones has to be made to begin once more.
const SETTLED: Duration = Duration::from_secs(30);

/// Tells `certificates` which ones ScaledObjects are to name, for as long as anybody listens.
pub async fn follow(standing: Receiver<Standing>, certificates: Sender<Option<Arc<str>>>) {
    let mut renewals = Renewals::new(standing);
    loop {
        certificates.send_replace(renewals.current.clone());
        tokio::select! {
            () = renewals.renewed() => {}
            () = certificates.closed() => return,
        }
    }
}

#[derive(Debug)]
struct Renewals {
    standing: Receiver<Standing>,
    /// `None` while they are not known.
    current: Option<Arc<str>>,
    /// Those that will be, and when.
    next: Option<(Arc<str>, Instant)>,
}

impl Renewals {
    fn new(mut standing: Receiver<Standing>) -> Self {
        let current = standing.borrow_and_update().found_by_keda.clone();
        Self { standing, current, next: None }
    }

    /// Waits until they are others. Loses nothing where it is dropped.
    async fn renewed(&mut self) {
        loop {
            let found = self.standing.borrow_and_update().found_by_keda.clone();
            match found.filter(|found| self.current.as_ref() != Some(found)) {
                None => self.next = None,
                // The first ones: nobody has begun with others.
                Some(found) if self.current.is_none() => {
                    self.current = Some(found);
                    return;
                }
                Some(found) if self.next.as_ref().is_none_or(|(next, _)| *next != found) => {
                    self.next = Some((found, Instant::now() + SETTLED));
                }
                Some(_) => {}
            }
            let due = self.next.as_ref().map(|(_, at)| *at);
            tokio::select! {
                changed = self.standing.changed() => if changed.is_err() {
                    // Nobody renews any more; what was found still holds.
                    pending::<()>().await;
                },
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                    self.current = self.next.take().map(|(next, _)| next);
                    return;
                }
            }
        }
    }
}
