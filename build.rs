//! Compiles the protocol with protox, so that no `protoc` has to be installed.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-env-changed=GIT_COMMIT");
    // A linked worktree has a file in this place; cargo would build anew each time for a path that is not there.
    if Path::new(".git/HEAD").exists() {
        println!("cargo::rerun-if-changed=.git/HEAD");
    }
    println!("cargo::rustc-env=GIT_COMMIT={}", commit());
    let descriptors = protox::compile(["externalscaler.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("externalscaler.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
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
