//! Namespaces of the harness's own: a network in which every address of a cluster can be had,
//! a mount table with a hosts file for the names of Services, and a process tree that the
//! kernel ends together with the harness, however that ends.

use std::{
    env,
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write},
    net::TcpListener,
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Pods get their addresses from here.
pub(crate) const POD_NETWORK: &str = "10.244.0.0/16";
/// Services get their addresses from here.
pub(crate) const SERVICE_NETWORK: &str = "10.96.0.0/16";

/// Set for the process inside.
const INSIDE: &str = "E2E_INSIDE";

/// Whether this process is the one inside.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Starts this program anew, inside, in place of this process. A `listener` of the network
/// outside is passed on; [`inherited_listener`] gives it back.
pub(crate) fn enter(listener: Option<TcpListener>) -> Result<()> {
    let program = env::current_exe().context("failed to find this program's own file")?;
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare.arg(program).args(env::args_os().skip(1)).env(INSIDE, "1");
    unshare.stdin(
        listener.map_or_else(Stdio::null, |listener| Stdio::from(std::os::fd::OwnedFd::from(listener))),
    );
    Err(unshare.exec()).context(
        "failed to make namespaces with unshare: run as root, or where unprivileged user namespaces are allowed",
    )
}

/// The listener that [`enter`] was given.
pub(crate) fn inherited_listener() -> io::Result<TcpListener> {
    Ok(TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Makes the network usable, and mounts a hosts file that [`Hosts`] writes.
pub(crate) fn furnish(folder: &Path) -> Result<Hosts> {
    run("ip", &["link", "set", "lo", "up"])?;
    // A route of this kind makes each address of the network one of this machine's.
    for network in [POD_NETWORK, SERVICE_NETWORK] {
        run("ip", &["route", "add", "local", network, "dev", "lo"])?;
    }
    let hosts = Hosts(folder.join("hosts"));
    hosts.write(std::iter::empty())?;
    run("mount", &["--bind", &hosts.0.to_string_lossy(), "/etc/hosts"])?;
    Ok(hosts)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("failed to run {program}"))?;
    if !output.status.success() {
        bail!("{program} {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The hosts file inside, in which Services have their names: the cluster's DNS.
#[derive(Debug)]
pub(crate) struct Hosts(PathBuf);

impl Hosts {
    /// Replaces all names. The file is mounted, so it is written in place.
    pub(crate) fn write(&self, names: impl Iterator<Item = (String, String)>) -> Result<()> {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (address, name) in names {
            let _ = writeln!(text, "{address} {name}");
        }
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(&self.0);
        file.and_then(|mut file| file.write_all(text.as_bytes())).context("failed to write the hosts file")
    }
}
