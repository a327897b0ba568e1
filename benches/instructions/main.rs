//! Instructions executed by what runs for every scrape and every call, under valgrind's
//! callgrind, against the figures in `figures.json`.
//!
//! Times swing with the machine and with what else runs on it; instruction counts do not. So a
//! count that grew is a change of the code (or of the compiler), however small. Fails where one
//! grew by more than [`TOLERANCE`].
//!
//! ```text
//! make bench-instructions          compare
//! make bench-instructions-renew    write the figures anew
//! ```
//!
//! What each run saw, line by line, is left under `target/tmp/instructions/` for
//! `callgrind_annotate`. Without `--bench` (`cargo test --benches`) every case runs once, without
//! valgrind: that it runs, not what it costs.
//!
//! Whether the figures hold on another machine: valgrind shows every program the same simulated
//! processor (one with AVX2, on any host that has it), so memchr and glibc choose the same code
//! everywhere. What is left is glibc's version, which the tolerance has room for, and the
//! compiler's: renew the figures together with the compiler, in a commit of its own.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

mod cases;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail, ensure};

use cases::{CASES, Case};

/// By how much a count may grow, as a share of the figure.
const TOLERANCE: f64 = 0.10;

type Figures = BTreeMap<String, u64>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    let outcome = match arguments.iter().position(|argument| argument == "--case") {
        Some(at) => run_case(arguments.get(at + 1).map_or("", String::as_str)).map(|()| true),
        None if !has("--bench") => run_each_once(),
        None if !has_valgrind() => skip_or_fail(),
        None => count_all().and_then(|counts| if has("--renew") { renew(&counts) } else { compare(&counts) }),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn has_valgrind() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Nobody has to have valgrind, but CI does: a guard that is skipped there guards nothing.
fn skip_or_fail() -> anyhow::Result<bool> {
    ensure!(env::var_os("CI").is_none(), "there is no valgrind (apt-get install valgrind)");
    println!("skipped: instructions are counted by valgrind, which is not here (apt-get install valgrind)");
    Ok(true)
}

fn figures_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/figures.json")
}

fn run_each_once() -> anyhow::Result<bool> {
    for case in CASES {
        (case.prepare)()();
    }
    let figures = read_figures()?;
    for name in figures.keys() {
        ensure!(
            CASES.iter().any(|case| case.name == name),
            "there are figures for {name:?}, but no such case"
        );
    }
    println!("{} cases run", CASES.len());
    Ok(true)
}

fn run_case(name: &str) -> anyhow::Result<()> {
    let case = CASES.iter().find(|case| case.name == name);
    let mut work = (case.with_context(|| format!("there is no case {name:?}"))?.prepare)();
    // The first round pays for what is set up once: features of the processor are looked up, thread
    // locals made.
    work();
    counted(&mut *work);
    Ok(())
}

/// Callgrind collects while this function runs; it knows it by this name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

fn count_all() -> anyhow::Result<Figures> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    CASES.iter().map(|case| Ok((case.name.to_owned(), count(case, &folder)?))).collect()
}

fn count(case: &Case, folder: &Path) -> anyhow::Result<u64> {
    let file_name = case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let profile = folder.join(file_name).with_extension("callgrind");
    let program = env::current_exe().context("failed to find this program")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*instructions*counted*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(["--case", case.name])
        // The size of the environment moves the stack, and with it what copies cost.
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .output()
        .context("failed to run valgrind (apt-get install valgrind)")?;
    if !output.status.success() {
        bail!("{:?} failed: {}", case.name, String::from_utf8_lossy(&output.stderr));
    }
    let text =
        fs::read_to_string(&profile).with_context(|| format!("failed to read {}", profile.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    let total: u64 = total.with_context(|| format!("{} has no totals", profile.display()))?;
    ensure!(total > 0, "nothing was counted for {:?}", case.name);
    Ok(total)
}

fn read_figures() -> anyhow::Result<Figures> {
    let path = figures_path();
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("failed to understand {}", path.display()))
}

fn renew(counts: &Figures) -> anyhow::Result<bool> {
    let path = figures_path();
    let text = serde_json::to_string_pretty(counts)? + "\n";
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(true)
}

/// Prints how the counts compare with the figures. False where one grew by too much, or has
/// nothing to be compared with.
fn compare(counts: &Figures) -> anyhow::Result<bool> {
    let figures = read_figures()?;
    let mut all_good = true;
    println!("{:<36} {:>12} {:>12} {:>8}", "instructions", "figure", "now", "change");
    for case in CASES {
        let now = counts[case.name];
        let Some(figure) = figures.get(case.name).copied() else {
            println!("{:<36} {:>12} {now:>12} {:>8}  has no figure", case.name, "", "");
            all_good = false;
            continue;
        };
        let change = now as f64 / figure as f64 - 1.0;
        let remark = match change {
            _ if change > TOLERANCE => "GREW",
            _ if change < -TOLERANCE => "shrank: renew the figures, so that this is kept",
            _ => "",
        };
        all_good &= change <= TOLERANCE;
        println!("{:<36} {figure:>12} {now:>12} {:>+7.2}%  {remark}", case.name, change * 100.0);
    }
    if !all_good {
        println!(
            "\nA count that grew by over {:.0}% is a regression, or has a reason that the commit which renews \
             the figures (make bench-instructions-renew) should tell.",
            TOLERANCE * 100.0
        );
    }
    Ok(all_good)
}
