//! `make simulate` without arguments: the published comparison.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Instant,
};

use anyhow::{Context as _, anyhow};
use clap::Parser;
use simulate::{
    outcome::{Outcome, Timeline},
    published::{TRACES, between_markers, replay, tables},
    report::{frontier::Frontier, group::cells, page},
};

/// Replays every trace of the data folder with every policy, and writes the tables and the
/// picture of the documentation.
#[derive(Debug, Parser)]
struct Args {
    /// The folder of the traces.
    #[arg(long, default_value = "crates/simulate/data")]
    data: PathBuf,
    /// The page whose part between the markers is replaced.
    #[arg(long, default_value = "BENCHMARKS.md")]
    page: PathBuf,
    /// The picture.
    #[arg(long, default_value = "docs/simulate-frontier.svg")]
    picture: PathBuf,
    /// Where the runs and the report go.
    #[arg(long, default_value = "target/simulate")]
    out: PathBuf,
    /// Only these traces, by their names in the table; then nothing of the documentation is
    /// written.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

fn main() -> ExitCode {
    match publish(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it took is said, and decides nothing")]
fn publish(args: &Args) -> anyhow::Result<()> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes: Vec<Outcome> = Vec::new();
    if let Some(unknown) = args.only.iter().find(|name| TRACES.iter().all(|trace| trace.name != **name)) {
        let names: Vec<&str> = TRACES.iter().map(|trace| trace.name).collect();
        return Err(anyhow!("{unknown:?} is no trace of the table; there are {}", names.join(", ")));
    }
    for trace in
        TRACES.iter().filter(|trace| args.only.is_empty() || args.only.iter().any(|name| name == trace.name))
    {
        let began = Instant::now();
        let before = outcomes.len();
        replay(trace, &args.data, threads, |mut outcome| {
            if !outcome.setting.is_empty() {
                outcome.detail.timeline = Timeline::default();
            }
            outcomes.push(outcome);
        })?;
        eprintln!(
            "{}: {} runs in {:.1} s",
            trace.name,
            outcomes.len() - before,
            began.elapsed().as_secs_f64()
        );
    }
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let lines = outcomes.iter().map(|outcome| Ok(serde_json::to_string(outcome)? + "\n"));
    write(&args.out.join("runs.jsonl"), &lines.collect::<anyhow::Result<String>>()?)?;
    let context = page::Context {
        ttft_target: 2.0,
        tpot_target: 0.1,
        router: "least".to_owned(),
        command: "make simulate".to_owned(),
        ..page::Context::default()
    };
    write(&args.out.join("report.html"), &page::page(&outcomes, &context))?;
    let text = tables(&outcomes);
    if !args.only.is_empty() {
        println!("{text}");
        return Ok(());
    }
    let recorded: Vec<Outcome> = outcomes
        .into_iter()
        .filter(|outcome| TRACES.iter().any(|trace| trace.name == outcome.trace && trace.recorded))
        .collect();
    let title = "Missed targets against cost: one setting for all recorded traces";
    write(&args.picture, &Frontier::over(&cells(&recorded)).file(title))?;
    let page =
        fs::read_to_string(&args.page).with_context(|| format!("cannot read {}", args.page.display()))?;
    let page =
        between_markers(&page, &text).map_err(|problem| anyhow!("{}: {problem}", args.page.display()))?;
    write(&args.page, &page)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
