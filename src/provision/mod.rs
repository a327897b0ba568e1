//! Provisioning: from InferenceSets and their annotations to ScaledObjects in the cluster.
//!
//! ```text
//! store ─► queue ─► step (pure: decide, build, plan) ─► write, at a limited rate
//!          └─ one task, which owns all of it ──────┘   └ up to ten at a time ┘
//! ```
//! Only the replica that leads provisions, and only once KEDA can reach the scaler: a
//! ScaledObject that is there before its endpoint makes KEDA keep a broken connection. While
//! one of these is not so, nothing runs and nothing is watched; when it ceases to be so, the
//! whole [`session`] is dropped, and with it every request that is under way.
//!
//! An InferenceSet for which nothing is to be done costs no request.

mod asking;
mod notices;
mod observed;
mod queue;
mod session;
mod step;
mod write;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::asking::WakeSources;
use crate::{cluster::store::Store, metrics::Metrics};

/// What provisioning needs from the rest of the program.
#[derive(Clone)]
pub struct Provisioner {
    pub store: Store,
    /// `HOST:PORT` under which KEDA reaches the scaler; it goes into every trigger.
    pub scaler_address: String,
    /// Which certificates ScaledObjects are to name (`pki::renewals`); `None` while that is
    /// not known.
    pub certificates: Receiver<Option<Arc<str>>>,
    /// The pod's name, for events.
    pub instance: Option<String>,
    pub metrics: Metrics,
    pub wake_sources: WakeSources,
    /// At least 1. Events count too; lists and watches don't.
    pub writes_per_second: u32,
}

impl fmt::Debug for Provisioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provisioner").field("scaler_address", &self.scaler_address).finish_non_exhaustive()
    }
}

impl Provisioner {
    pub const WRITES_PER_SECOND: u32 = 50;

    /// Provisions while `leader` is true, from the time on when `live` resolves: the listener
    /// serves, and its certificates and the ClusterTriggerAuthentication are in the cluster.
    /// Ends when `cancel` is, or when there is nobody left who could say that we lead.
    pub async fn run(
        self,
        live: impl Future<Output = ()> + Send,
        leader: Receiver<bool>,
        cancel: CancellationToken,
    ) {
        let provision = async {
            live.await;
            self.while_leading(leader).await;
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = provision => {}
        }
    }

    async fn while_leading(&self, mut leader: Receiver<bool>) {
        while leader.wait_for(|leads| *leads).await.is_ok() {
            tokio::select! {
                // First, so that not one more write is begun.
                biased;
                lost = leader.wait_for(|leads| !*leads) => {
                    if lost.is_err() {
                        return;
                    }
                    info!("no longer the leader, provisioning stops");
                }
                never = session::Session::new(self).run() => match never {},
            }
        }
    }
}
