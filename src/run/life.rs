//! What every part of the process is started with.

use clock::Clock;
use tokio_util::sync::CancellationToken;

use crate::{readiness::Gates, tasks::Tasks};

/// The clock, the gates of readiness, the tasks, and what ends them. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub clock: Clock,
    pub gates: Gates,
    pub tasks: Tasks,
    /// Ends what writes to the cluster.
    pub writers: CancellationToken,
    /// Ends everything that is not ended in an order of its own.
    pub cancel: CancellationToken,
}

impl Life {
    pub(super) fn begin() -> Self {
        let cancel = CancellationToken::new();
        Self {
            clock: Clock::start(),
            gates: Gates::new(),
            tasks: Tasks::new(),
            writers: cancel.child_token(),
            cancel,
        }
    }
}
