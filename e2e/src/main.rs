//! Proves the scaler end to end: a real etcd, API server and controller manager, real KEDA and
//! real Helm, with stand-ins only for what needs machines: KAITO, the kubelet, kube-proxy and
//! the model servers. Read [`world`] for how it is brought up, [`stage`] for what
//! a scenario is made of, and [`scenarios`] for what is proved.
#![expect(clippy::large_futures, reason = "there are a few dozen, each in a task of its own")]

mod api;
mod certificates;
mod control_plane;
mod earlier;
mod gateways;
mod helm;
mod kaito;
mod keda;
mod kubelet;
mod models;
mod process;
mod proxy;
mod report;
mod sandbox;
mod scenarios;
mod stage;
mod vllm;
mod world;

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use tokio::{
    io::copy_bidirectional,
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::{
    control_plane::{API_SERVER, Folders},
    keda::Release,
    report::Report,
    scenarios::Scenario,
    stage::Stage,
    vllm::Installation,
    world::{Setup, World},
};

/// End-to-end tests of keda-kaito-scaler.
#[derive(Debug, Parser)]
#[command(name = "e2e")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios: those that are named, or all.
    Run {
        #[command(flatten)]
        common: Common,
        /// Names of scenarios, or the beginning of their names.
        names: Vec<String>,
        /// Write what was measured there.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// What benches/vllm/setup.sh installed: adds the scenario that takes a real vLLM.
        #[arg(long, value_name = "FOLDER")]
        vllm: Option<PathBuf>,
        /// Stay up after a failure until Ctrl-C, to look around.
        #[arg(long)]
        keep: bool,
    },
    /// Bring up the cluster, with the scaler installed, until Ctrl-C.
    DevCluster {
        #[command(flatten)]
        common: Common,
        /// Port of the API server on this machine; 0 takes any.
        #[arg(long, default_value_t = 16443)]
        port: u16,
    },
    /// Name every scenario.
    List,
}

#[derive(Clone, Debug, Args)]
struct Common {
    /// KEDA's version.
    #[arg(long, default_value = "2.21.0")]
    keda: String,
    /// Where `make e2e-tools` put its programs.
    #[arg(long, value_name = "FOLDER", default_value = ".tools/e2e")]
    tools: PathBuf,
    #[arg(long, value_name = "FILE", default_value = ".tools/bin/helm")]
    helm: PathBuf,
    /// The scaler's program under test.
    #[arg(long, value_name = "FILE", default_value = "target/debug/keda-kaito-scaler")]
    scaler: PathBuf,
    #[arg(long, value_name = "FOLDER", default_value = "charts/keda-kaito-scaler")]
    chart: PathBuf,
    /// This crate's folder.
    #[arg(long, value_name = "FOLDER", default_value = "e2e")]
    files: PathBuf,
    /// What the run leaves: logs, certificates, state. Replaced by the next run.
    #[arg(long, value_name = "FOLDER", default_value = "target/e2e")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter =
        filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,e2e=info,kube_client=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr).init();
    match begin(cli.command) {
        Ok(code) => code,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(command: Command) -> Result<ExitCode> {
    if matches!(command, Command::List) {
        for Scenario { name, shows, disturbs, .. } in scenarios::all() {
            println!("{name:<24} {shows}{}", if disturbs { " (alone)" } else { "" });
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !sandbox::is_inside() {
        let listener = match &command {
            Command::DevCluster { port, .. } => Some(
                TcpListener::bind((API_SERVER.0, *port))
                    .with_context(|| format!("failed to listen on port {port}"))?,
            ),
            _ => None,
        };
        sandbox::enter(listener)?;
    }
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start")?;
    let code = runtime.block_on(async {
        tokio::select! {
            code = inside(command) => code,
            // Everything else ends with this process.
            () = interrupted() => bail!("interrupted"),
        }
    });
    runtime.shutdown_background();
    code
}

async fn interrupted() {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn inside(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run { common, names, json, vllm, keep } => {
            run(&common, &names, json.as_deref(), vllm.as_deref(), keep).await
        }
        Command::DevCluster { common, .. } => dev_cluster(&common).await,
        Command::List => Ok(ExitCode::SUCCESS),
    }
}

async fn run(
    common: &Common,
    names: &[String],
    json: Option<&Path>,
    vllm: Option<&Path>,
    keep: bool,
) -> Result<ExitCode> {
    let is_named = |scenario: &Scenario| {
        names.is_empty() || names.iter().any(|name| scenario.name.starts_with(name.as_str()))
    };
    // A real vLLM is not for everybody: 6 GB, and some minutes.
    let known = if vllm.is_some() { scenarios::REAL.to_vec() } else { scenarios::all() };
    let chosen: Vec<Scenario> = known.into_iter().filter(is_named).collect();
    if chosen.is_empty() {
        bail!("no scenario is called {names:?}; `e2e list` names them");
    }
    let begun = Instant::now();
    let (report, tasks) = (Arc::new(Report::default()), TaskTracker::new());
    let mut setup = setup(common)?;
    setup.vllm = vllm.map(std::path::absolute).transpose().context("not a path")?.map(Installation);
    let logs = setup.folders.logs.clone();
    let world = bring_up(setup, &report, &tasks).await;
    let world =
        world.with_context(|| format!("the cluster did not come up; logs are in {}", logs.display()))?;
    info!("the cluster is up after {:.1} s", begun.elapsed().as_secs_f64());

    let (alone, beside): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|scenario| scenario.disturbs);
    let mut running = JoinSet::new();
    for scenario in beside {
        running.spawn(play(world.clone(), scenario));
    }
    while running.join_next().await.is_some() {}
    for scenario in alone {
        play(world.clone(), scenario).await;
    }
    let complaints = world.complaints()?;
    let failure = (!complaints.is_empty()).then(|| complaints.join("\n"));
    report.end("the scaler's logs", begun.elapsed(), failure);
    println!("\n{}", report.table());
    if let Some(path) = json {
        report.write(path, &common.keda)?;
    }
    let failures = report.failures();
    for (scenario, failure) in &failures {
        println!("FAILED {scenario}: {failure}");
    }
    println!(
        "{} in {:.0} s",
        if failures.is_empty() { "all passed" } else { "failed" },
        begun.elapsed().as_secs_f64()
    );
    if !failures.is_empty() {
        println!("logs are in {}", logs.display());
        if keep {
            println!(
                "kept up until Ctrl-C: nsenter --all --target PID, with the id of the e2e process that is inside"
            );
            std::future::pending::<()>().await;
        }
    }
    // Every process ends with this one.
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn play(world: Arc<World>, scenario: Scenario) {
    let (name, begun) = (scenario.name, Instant::now());
    info!("{name}: {}", scenario.shows);
    let played = async {
        let stage = Stage::set(&world, name).await?;
        (scenario.run)(stage.clone()).await?;
        stage.clear(scenario.disturbs).await
    };
    let failure = match timeout(scenario.limit, played).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some(format!("not done after {:?}", scenario.limit)),
    };
    let took = begun.elapsed();
    match &failure {
        None => info!("{name}: ok after {:.1} s", took.as_secs_f64()),
        Some(failure) => error!("{name}: FAILED after {:.1} s: {failure}", took.as_secs_f64()),
    }
    world.report.end(name, took, failure);
}

fn setup(common: &Common) -> Result<Setup> {
    let absolute =
        |path: &Path| std::path::absolute(path).with_context(|| format!("not a path: {}", path.display()));
    let folder = absolute(&common.folder)?;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    let folders = Folders {
        programs: absolute(&common.tools)?,
        certificates: folder.join("certificates"),
        logs: folder.join("logs"),
        state: folder.join("state"),
    };
    fs::create_dir_all(&folders.state)
        .with_context(|| format!("failed to make {}", folders.state.display()))?;
    let setup = Setup {
        keda: Release(folders.programs.join(format!("keda-{}", common.keda))),
        folders,
        scaler: absolute(&common.scaler)?,
        helm: absolute(&common.helm)?,
        chart: absolute(&common.chart)?,
        files: absolute(&common.files)?,
        vllm: None,
    };
    for program in [&setup.scaler, &setup.helm, &setup.keda.0] {
        if !program.exists() {
            bail!("{} is missing: make e2e-tools builds it", program.display());
        }
    }
    Ok(setup)
}

async fn bring_up(setup: Setup, report: &Arc<Report>, tasks: &TaskTracker) -> Result<Arc<World>> {
    let hosts = sandbox::furnish(&setup.folders.state)?;
    Ok(Arc::new(World::start(setup, hosts, report.clone(), tasks).await?))
}

async fn dev_cluster(common: &Common) -> Result<ExitCode> {
    let listener = sandbox::inherited_listener().context("no port was passed on")?;
    let port = listener.local_addr().context("no port was passed on")?.port();
    let (report, tasks) = (Arc::new(Report::default()), TaskTracker::new());
    let world = bring_up(setup(common)?, &report, &tasks).await?;
    let folders = &world.setup.folders;
    let kubeconfig = folders.state.join("kubeconfig");
    let [inner, outer] = [API_SERVER.1, port].map(|port| format!("https://{}:{port}", API_SERVER.0));
    certificates::write(&kubeconfig, &world.plane.admin.replace(&inner, &outer))?;
    println!("The cluster is up until Ctrl-C. Logs: {}", folders.logs.display());
    println!("export KUBECONFIG={}", kubeconfig.display());
    listener.set_nonblocking(true).context("failed to serve the port")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("failed to serve the port")?;
    loop {
        let (mut client, _) = listener.accept().await.context("failed to serve the port")?;
        tasks.spawn(async move {
            let Ok(mut server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], API_SERVER.1))).await
            else {
                return;
            };
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
