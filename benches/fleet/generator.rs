//! The load: a simulated fleet on a thread of its own, with values that move.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use clock::Clock;
use sim::{
    endpoints_file,
    fleet::{Fleet, Health, Plan},
};
use tokio::{sync::oneshot, time};
use tokio_util::sync::CancellationToken;

/// A fleet that is being served. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Generator {
    pub fleet: Arc<Fleet>,
    /// The endpoints file that lists it.
    pub file: PathBuf,
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

/// How often the values of busy endpoints move.
const MOVES: Duration = Duration::from_millis(500);

impl Generator {
    /// Serves a fleet. The members from `quiet` on keep the values that they are given; those
    /// before it move by themselves.
    pub(crate) async fn start(
        plan: Plan,
        quiet: usize,
        health: impl Fn(usize) -> Health + Send + 'static,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let (give, given) = oneshot::channel();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::spawn(move || {
            runtime.block_on(async move {
                let fleet = Fleet::start(plan, health).map(Arc::new);
                let busy = fleet.as_ref().ok().cloned();
                if give.send(fleet).is_err() {
                    return;
                }
                if let Some(fleet) = busy {
                    stopped.run_until_cancelled(move_values(&fleet, quiet)).await;
                }
            });
        });
        let fleet = given.await.context("the generator's thread has ended")??;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("endpoints.json");
        endpoints_file::write(&file, &fleet.listing(Clock::wall())).await?;
        Ok(Self { fleet, file, stop, thread: Some(thread), _folder: folder })
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

async fn move_values(fleet: &Fleet, quiet: usize) {
    let mut ticks = time::interval(MOVES);
    let mut step = 0_u32;
    loop {
        ticks.tick().await;
        step = step.wrapping_add(1);
        for member in fleet.members.iter().take(quiet) {
            for (load, salt) in member.loads.iter().zip(0_u32..) {
                let value = step.wrapping_mul(31).wrapping_add(salt * 7) % 40;
                load.set(value, 1 + value % 16);
            }
        }
    }
}
