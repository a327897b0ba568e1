//! One core for the scaler under test, another for everything else.

use std::{fs, os::unix::process::CommandExt, process::Command};

/// Set for the process that runs on its core already.
const PINNED: &str = "BENCH_FLEET_PINNED";

/// The core of the scaler and the core of the load, or nothing where there are no two, or no
/// `taskset` (util-linux) to choose them with.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    scaler: Option<String>,
}

impl Cores {
    /// Starts this program anew on the second core that it may use, where it has two: threads
    /// inherit their core, so it is chosen before there are any.
    pub(crate) fn take() -> Self {
        if let Ok(scaler) = std::env::var(PINNED) {
            return Self { scaler: Some(scaler).filter(|core| !core.is_empty()) };
        }
        let allowed = allowed();
        if let [scaler, load, ..] = &allowed[..]
            && let Ok(program) = std::env::current_exe()
        {
            let mut again = Command::new("taskset");
            again.args(["-c", load]).arg(program).args(std::env::args_os().skip(1)).env(PINNED, scaler);
            // Comes back only where there is no taskset.
            let error = again.exec();
            println!("not pinned to cores: {error}");
        }
        Self { scaler: None }
    }

    /// Whether scaler and load have a core each.
    pub(crate) fn pinned(&self) -> bool {
        self.scaler.is_some()
    }

    /// A command that runs `program` on the scaler's core.
    pub(crate) fn command(&self, program: &str) -> Command {
        match &self.scaler {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", core, program]);
                command
            }
            None => Command::new(program),
        }
    }
}

/// The numbers of the cores that this process may use.
fn allowed() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?)
    });
    ranges.flatten().map(|core| core.to_string()).collect()
}
