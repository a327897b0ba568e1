//! Tells the program which commit it is built from.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GIT_COMMIT");
    // A linked worktree has a file in this place; cargo would build anew each time for a path that is not there.
    if Path::new(".git/HEAD").exists() {
        println!("cargo::rerun-if-changed=.git/HEAD");
    }
    println!("cargo::rustc-env=GIT_COMMIT={}", commit());
}

/// The commit that is built: given by `GIT_COMMIT` where there is no repository (an image's
/// build), else asked of git.
fn commit() -> String {
    let given = env::var("GIT_COMMIT").ok().filter(|commit| !commit.is_empty());
    let ask_git = || {
        let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
        let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !commit.is_empty()).then_some(commit)
    };
    given.or_else(ask_git).unwrap_or_else(|| "unknown".to_owned())
}
