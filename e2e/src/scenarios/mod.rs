//! The scenarios, one file for each group. A new one: a function in the file of its group, and
//! a line in that file's `ALL`. A new group: a file, and a line in [`all`].

mod provisioning;
mod scaling;

use anyhow::Result;
use futures::future::BoxFuture;

use crate::world::Stage;

/// Something that has to hold in a cluster.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Also its namespace.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// It restarts or breaks something that others need, so it runs alone.
    pub disturbs: bool,
    pub run: fn(Stage) -> BoxFuture<'static, Result<()>>,
}

/// A scenario that runs beside others.
const fn beside(
    name: &'static str,
    shows: &'static str,
    run: fn(Stage) -> BoxFuture<'static, Result<()>>,
) -> Scenario {
    Scenario { name, shows, disturbs: false, run }
}

/// Every scenario, those that disturb others last.
pub fn all() -> Vec<Scenario> {
    let mut all = [provisioning::ALL, scaling::ALL].concat();
    all.sort_by_key(|scenario| scenario.disturbs);
    all
}
