//! Programs that the harness starts, signals by their own id, and whose logs it keeps.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{sync::watch, time::timeout};

/// A program at work, or one that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    exited: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts `command`. What it says is appended to `folder`/`name`.log.
    pub(crate) fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("failed to open {}", log.display()))?;
        let errors = file.try_clone().with_context(|| format!("failed to open {}", log.display()))?;
        let child = command.stdin(std::process::Stdio::null()).stdout(file).stderr(errors).spawn();
        let mut child = child.with_context(|| {
            format!("failed to start {name}: {}", command.get_program().to_string_lossy())
        })?;
        let pid = Pid::from_child(&child);
        let (sender, exited) = watch::channel(None);
        // A thread, since the runtime must not wait for it when the harness ends.
        std::thread::spawn(move || {
            let status = child.wait().ok();
            sender.send_replace(Some(status.unwrap_or_default()));
        });
        Ok(Self { name: name.to_owned(), pid, log, exited })
    }

    /// Awaits what depends on it. Its end is the end of that.
    pub(crate) async fn while_alive<T>(&self, depends: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = depends => result,
            status = self.exited() => bail!("{} ended with {status}; see {}", self.name, self.log.display()),
        }
    }

    /// Its exit status, once it has ended.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        *self.exited.borrow()
    }

    /// Resolves when it has ended.
    pub(crate) async fn exited(&self) -> ExitStatus {
        let mut exited = self.exited.clone();
        // The sender is dropped only after it has sent.
        exited.wait_for(Option::is_some).await.ok().and_then(|status| *status).unwrap_or_default()
    }

    /// Sends `signal`, unless it has ended: its id may be another's then.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if self.status().is_some() {
            return Ok(());
        }
        kill_process(self.pid, signal).with_context(|| format!("failed to signal {}", self.name))
    }

    /// Ends it: politely, and after `grace` for good.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        if timeout(grace, self.exited()).await.is_err() {
            self.signal(Signal::KILL)?;
        }
        Ok(self.exited().await)
    }

    /// Ends it as a crash or the kernel would.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.exited().await;
        Ok(())
    }
}
