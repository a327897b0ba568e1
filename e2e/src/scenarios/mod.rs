//! The scenarios, one file for each group. A new one: a function in the file of its group, and
//! a line in that file's `ALL`. A new group: a file, and a line in [`all`].

mod certificates;
mod failures;
mod provisioning;
mod real;
mod release;
mod scaling;
mod unknown;
mod zero;

use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;

use crate::stage::Stage;

/// Something that has to hold in a cluster.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Also its namespace.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// It restarts or breaks something that others need, so it runs alone.
    pub disturbs: bool,
    /// How long it may take.
    pub limit: Duration,
    pub run: Run,
}

const LIMIT: Duration = Duration::from_secs(240);

type Run = fn(Stage) -> BoxFuture<'static, Result<()>>;

/// A scenario that runs beside others.
const fn beside(name: &'static str, shows: &'static str, run: Run) -> Scenario {
    Scenario { name, shows, disturbs: false, limit: LIMIT, run }
}

/// A scenario that runs alone, after those that do not.
const fn alone(name: &'static str, shows: &'static str, run: Run) -> Scenario {
    Scenario { name, shows, disturbs: true, limit: LIMIT, run }
}

pub(crate) use real::ALL as REAL;

/// Every scenario, in the order in which those that run alone do.
pub(crate) fn all() -> Vec<Scenario> {
    [provisioning::ALL, scaling::ALL, unknown::ALL, zero::ALL, certificates::ALL, failures::ALL, release::ALL]
        .concat()
}
