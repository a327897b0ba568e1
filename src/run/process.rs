//! The process around the engine: its runtime, its signals, and how it ends.

use std::{io, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::Running;

/// How long the runtime may take to end its tasks. One that never yields is left behind.
const LEFT_BEHIND: Duration = Duration::from_millis(100);

/// How the engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a signal, and in order.
    Stopped,
    /// By a second signal, in the midst of it.
    CutShort,
    /// A part failed that the process can't do without.
    Failed,
}

impl End {
    /// The exit status of a process that ends like this.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::CutShort | Self::Failed => 1,
        }
    }
}

/// Runs `work` on a runtime of its own. What it leaves running is not waited for.
///
/// # Errors
/// Where the runtime can't be started.
pub fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LEFT_BEHIND);
    Ok(done)
}

/// Runs until SIGTERM or SIGINT, or until a part fails, and stops what runs.
///
/// # Errors
/// Where signals can't be received.
pub async fn until_ended(running: Running) -> io::Result<End> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        // It is logged already.
        _ = running.failed() => {
            running.abandon().await;
            return Ok(End::Failed);
        }
    }
    info!("shutting down; a second signal ends it at once");
    Ok(tokio::select! {
        () = running.stop() => End::Stopped,
        _ = terminated.recv() => End::CutShort,
        _ = interrupted.recv() => End::CutShort,
    })
}
