//! The command line: what is replayed, in which world, and how the result is shown.

mod values;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};

use crate::{
    compare::{Comparison, Source},
    engine::EngineSpec,
    fluid,
    outcome::{Outcome, Timeline},
    policies::{Choice, TABLE},
    preset::{self, Preset},
    report::{group, page, text},
    trace::{
        Trace,
        file::{Options, TraceFile},
        format::Format,
        prometheus,
        scaled::{Part, Scaling},
    },
    world::{ColdStart, NodeStart, Router, SECOND, Slo, World},
};

/// For how long a node without a replica stays.
const NODE_LINGER_US: u64 = 600 * SECOND;

/// The policies that are compared where none is named.
const DEFAULT_POLICIES: [&str; 4] = ["waiting", "waiting-k8s", "static", "clairvoyant"];

/// Replays traffic through the scaler's decisions, the HPA, KEDA and a model of vLLM, and says
/// what each policy costs and who waits.
#[derive(Debug, Parser)]
#[command(name = "simulate", version, after_help = after_help())]
pub struct Args {
    /// Traces, plain or gzipped; those of Azure, of Mooncake and the like, CSV (t,in,out), rates,
    /// an answer of Prometheus and the scaler's own record are told from their first line.
    #[arg(required_unless_present_any = ["models", "dump_commands"])]
    traces: Vec<PathBuf>,
    /// The traces' format, where it can't be told.
    #[arg(long)]
    format: Option<Format>,
    /// Whose minutes of a record of several targets.
    #[arg(long)]
    target: Option<String>,
    /// Requests for each request of the trace.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Scales each trace until it needs so many replicas on average, instead of --scale.
    #[arg(long, conflicts_with = "scale", value_parser = values::replicas)]
    need: Option<f64>,
    /// Seconds for each second of the trace.
    #[arg(long, default_value_t = 1.0)]
    stretch: f64,
    /// Leaves so much of each trace out at its start, as 2h or 86400s.
    #[arg(long, value_parser = values::time_us)]
    skip: Option<u64>,
    /// Replays no more of each trace than this.
    #[arg(long = "for", value_parser = values::time_us)]
    length: Option<u64>,
    /// The model and its GPUs: one of those that --models lists.
    #[arg(long, default_value = "phi-4@a100")]
    model: String,
    /// Any other engine: a step takes a + c for each sequence + b for each prompt token.
    #[arg(long, conflicts_with = "model", value_name = "a=20ms,c=0.3ms,b=0.19ms,kv=187000,…")]
    engine: Option<EngineSpec>,
    /// How long a replica takes to come up: 180s, or 180s±20%. Several make several comparisons.
    #[arg(long, value_delimiter = ',', default_value = "180s±20%", value_parser = values::cold_start)]
    cold_start: Vec<ColdStart>,
    /// How long a node takes where one has to come first.
    #[arg(long, value_parser = values::time_us)]
    node_start: Option<u64>,
    /// What a request has to meet.
    #[arg(long, default_value = "ttft=2s,tpot=100ms", value_parser = values::slo)]
    slo: Slo,
    /// A policy, as NAME or NAME:key=value,key=value. May be given several times.
    #[arg(long)]
    policy: Vec<String>,
    /// More policies, comma-separated and with their defaults.
    #[arg(long, value_delimiter = ',')]
    against: Vec<String>,
    /// Annotations of an InferenceSet (or its manifest), YAML or JSON: what they provision is
    /// compared too.
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// Who sends which request to which replica: round, least, random or epp.
    #[arg(long, default_value = "least")]
    router: Router,
    /// The least replicas; 0 allows to scale to zero.
    #[arg(long, default_value_t = 1)]
    min: u32,
    /// The most replicas.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    max: u32,
    /// The first seconds of the trace, which are not scored.
    #[arg(long, default_value = "600s", value_parser = values::time_us)]
    warm_up: u64,
    /// How long a replica that is to end may take to answer what it has; without a limit where
    /// not given.
    #[arg(long, value_parser = values::time_us)]
    grace: Option<u64>,
    /// Runs of each policy, with the seeds 1, 2, ….
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Tries each policy with several settings, for the frontier.
    #[arg(long)]
    sweep: bool,
    /// Where to write report.html and runs.jsonl.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A table, or one JSON object a line for each run.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// How many runs go on at a time; as many as there are processors where not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Lists the models and how well they fit what was measured.
    #[arg(long)]
    models: bool,
    /// Prints the commands that make a trace of what Prometheus has of one's own vLLM.
    #[arg(long)]
    dump_commands: bool,
}

/// How the result is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn after_help() -> String {
    let lines = TABLE.iter().map(|entry| format!("  {:<14}{}\n", entry.name, entry.about));
    "Policies:\n".to_owned() + &lines.collect::<Vec<_>>().concat()
}

/// Does what the arguments ask for and writes the result to `out`.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.models {
        out.write_all(preset::describe()?.as_bytes())?;
        return Ok(());
    }
    if args.dump_commands {
        out.write_all(prometheus::commands().as_bytes())?;
        return Ok(());
    }
    let world = args.world()?;
    let policies = args.policies()?;
    let annotations = match &args.annotations {
        Some(path) => values::annotations(path)?,
        None => BTreeMap::new(),
    };
    let mut notes = Vec::new();
    let traces = args.traces.iter().map(|path| args.trace(path, &world, &mut notes));
    let traces = traces.collect::<anyhow::Result<Vec<_>>>()?;
    for note in &notes {
        eprintln!("{note}");
    }
    let sources: Vec<&dyn Source> = traces.iter().map(|trace| trace as &dyn Source).collect();
    let comparison = Comparison {
        traces: &sources,
        cold_starts: args.cold_starts(),
        world,
        policies,
        seeds: (1..=args.seeds).collect(),
        annotations: Arc::new(annotations),
    };
    let threads = args.jobs.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let mut outcomes = Vec::new();
    comparison.run(threads, |mut outcome| {
        if args.output == Output::Json {
            writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        }
        // Only one run of each policy is shown over time.
        if outcome.seed > 1 || args.out.is_none() {
            outcome.detail.timeline = Timeline::default();
        }
        outcomes.push(outcome);
        Ok::<_, anyhow::Error>(())
    })?;
    if args.output == Output::Text {
        out.write_all(text::table(&group::cells(&outcomes)).as_bytes())?;
    }
    match &args.out {
        Some(dir) => args.write(dir, &outcomes, notes),
        None => Ok(()),
    }
}

impl Args {
    fn world(&self) -> anyhow::Result<World> {
        if self.min > self.max {
            bail!("--min is {}, above --max, which is {}", self.min, self.max);
        }
        let engine = match self.engine {
            Some(engine) => engine,
            None => Preset::named(&self.model)?.engine()?,
        };
        let cold_start = self.cold_starts().into_iter().next().unwrap_or(World::new(engine).cold_start);
        Ok(World {
            slo: self.slo,
            cold_start,
            router: self.router,
            min_replicas: self.min,
            max_replicas: self.max,
            warm_up_us: self.warm_up,
            grace_us: self.grace,
            ..World::new(engine)
        })
    }

    fn cold_starts(&self) -> Vec<ColdStart> {
        let node = self.node_start.map(|mean_us| NodeStart { mean_us, linger_us: NODE_LINGER_US });
        self.cold_start.iter().map(|cold_start| ColdStart { node, ..*cold_start }).collect()
    }

    fn policies(&self) -> anyhow::Result<Vec<Choice>> {
        let mut names = self.policy.clone();
        if names.is_empty() && self.against.is_empty() {
            names.extend(DEFAULT_POLICIES.map(str::to_owned));
        }
        names.extend(self.against.iter().cloned());
        if self.annotations.is_some() && !names.iter().any(|name| name == "annotations") {
            names.insert(0, "annotations".to_owned());
        }
        let mut policies = Vec::new();
        for name in names {
            let choice: Choice = name.parse()?;
            policies.extend(if self.sweep { choice.sweep() } else { vec![choice] });
        }
        let mut seen = Vec::new();
        policies.retain(|policy| {
            let name = policy.to_string();
            let new = !seen.contains(&name);
            seen.push(name);
            new
        });
        Ok(policies)
    }

    /// Opens a trace, reads it once, and notes what is worth saying of it.
    fn trace(&self, path: &Path, world: &World, notes: &mut Vec<String>) -> anyhow::Result<TraceFile> {
        let open = |scale: f64| -> anyhow::Result<TraceFile> {
            let scaling = Scaling::of(scale, self.stretch)?;
            let target = self.target.clone();
            let seconds = |us: u64| us as f64 / 1e6;
            let part = Part {
                skipped: self.skip.map_or(0.0, seconds),
                length: self.length.map_or(f64::INFINITY, seconds),
            };
            Ok(TraceFile::new(path, Options { format: self.format, part, scaling, seed: 1, target })?)
        };
        let scale = match self.need {
            Some(need) => {
                let mean = fluid::mean_replicas(world, &open(1.0)?)?;
                if mean <= 0.0 {
                    bail!("{}: it needs no replica at all, which --need can't scale", path.display());
                }
                need / mean
            }
            None => self.scale,
        };
        let file = open(scale)?;
        let survey = file.survey()?;
        notes.extend(survey.findings.sentences().iter().map(|said| format!("{}: {said}", file.name())));
        Ok(file)
    }

    fn write(&self, dir: &Path, outcomes: &[Outcome], notes: Vec<String>) -> anyhow::Result<()> {
        let put = |name: &str, content: String| {
            let path = dir.join(name);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
        };
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let lines = outcomes.iter().map(|outcome| Ok(serde_json::to_string(outcome)? + "\n"));
        put("runs.jsonl", lines.collect::<anyhow::Result<String>>()?)?;
        let context = page::Context {
            engine: self.engine.map_or_else(|| self.model.clone(), |_| "--engine".to_owned()),
            ttft_target: self.slo.ttft_us as f64 / 1e6,
            tpot_target: self.slo.tpot_us as f64 / 1e6,
            router: self.router.to_string(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            notes,
        };
        put("report.html", page::page(outcomes, &context))
    }
}

impl Source for TraceFile {
    fn of_seed(&self, seed: u64) -> Arc<dyn Trace> {
        Arc::new(self.with_seed(seed))
    }
}
