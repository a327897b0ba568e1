//! How many files the process may have open: a connection to each endpoint takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// With fewer than this a large fleet cannot be scraped.
const ENOUGH: u64 = 4_096;

/// Raises the process's limit of open files to the most that it may set itself. The usual
/// soft limit, 1,024, is there for programs that use `select`, which this one does not.
pub fn raise_limit() {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, ..before };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        debug!(error = &error as &dyn std::error::Error, "failed to raise the limit of open files");
    }
    let limit = getrlimit(Resource::Nofile).current;
    debug!(before = ?before.current, ?limit, "open files");
    if let Some(limit) = limit
        && limit < ENOUGH
    {
        warn!(limit, "few files may be open: each endpoint takes one, so raise the hard limit (ulimit -Hn)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One below the hard limit cannot be what the process started with or raised itself to,
    /// and is enough for the tests that run beside this one.
    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let lower = Some(hard.map_or(1 << 20, |hard| hard - 1));
        setrlimit(Resource::Nofile, Rlimit { current: lower, maximum: hard }).unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, lower);
        raise_limit();
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: hard, maximum: hard });
    }
}
