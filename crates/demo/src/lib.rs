//! `demo`: the scaler at work on this machine. A simulated fleet and gateway on loopback, the
//! real engine, and a stand-in for KEDA and the HPA that speaks the real protocol.
//!
//! To zero and back goes the way it goes in a cluster: annotations opt in, the provisioner has
//! the gateway tried and makes the ScaledObject, KEDA's stand-in follows that one, and the
//! engine reads the gateway and pushes. Not as in a cluster are the API server, which is in
//! memory, where the engine finds pods and gateway, which is the endpoints file, and times,
//! which are compressed.

mod history;
mod observe;
mod opt_in;
mod plots;
mod report;
mod scenario;
mod stage;
mod summary;
mod terminal;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

pub use self::summary::DemoSummary;
use self::{
    history::{Frame, History},
    observe::Observer,
    plots::Source,
    scenario::Scenario,
    stage::{Gate, Stage},
    terminal::Screen,
};
use clock::Clock;
use keda_kaito_scaler::run::{self, RunOptions};
use sim::keda::{self, Journal, Scale, ScaledObject};

/// What `demo` is told.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Compressed to ten seconds.
    pub fast: bool,
    /// Where the report goes.
    pub report: PathBuf,
}

/// Plays the demo to its end (or to an interrupt), shows it on standard output and writes the
/// report.
pub async fn run(options: DemoOptions) -> Result<DemoSummary> {
    let scenario = if options.fast { Scenario::fast() } else { Scenario::whole() };
    let folder = Folder::new().context("failed to make a folder for the endpoints file")?;
    let endpoints_file = folder.0.join("endpoints.json");
    let mut stage = Stage::new(scenario, endpoints_file.clone(), Clock::start());
    let gate = stage.set().await?;
    let object = opt_in::scaled_object(&stage.scenario, gate.address, stage.clock).await?;
    println!(
        "Opted in by annotations: the gateway was read, so the ScaledObject that was made goes to zero.\n"
    );
    let engine =
        run::start(RunOptions::for_file(endpoints_file)).await.context("failed to start the engine")?;
    stage.begin();
    // Whatever becomes of the play, the engine stops in its own order.
    let played = play(&stage, gate, object, engine.grpc_address(), engine.metrics_address()).await;
    engine.stop().await;

    let (history, scaler_share) = played?;
    let summary = DemoSummary::of(&stage, &history, scaler_share);
    let source = Source { history: &history, scenario: &stage.scenario };
    report::write(&options.report, source, &summary).await?;
    println!("\n{summary}\n  Report: {}", options.report.display());
    Ok(summary)
}

/// Runs the world and KEDA around the engine. Gives what was seen, and the engine's own share
/// of an activation in milliseconds.
async fn play(
    stage: &Stage,
    gate: Gate,
    object: ScaledObject,
    grpc: SocketAddr,
    metrics: SocketAddr,
) -> Result<(History, Option<f64>)> {
    let (scale, journal, stop) = (Scale::new(0), Journal::default(), CancellationToken::new());
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let world = stage.clone().play(gate, scale.clone(), stop.clone());
    tasks.spawn(async move { Ok(world.await?) });
    let autoscaling = keda::run(object, grpc, scale.clone(), journal.clone(), stage.clock, stop.clone());
    tasks.spawn(async move { Ok(autoscaling.await?) });

    let observer = Observer::new(metrics)?;
    let history = tokio::select! {
        history = film(stage, &scale, &journal, &observer) => history?,
        // Neither task ends before it is told to, unless it fails.
        Some(ended) = tasks.join_next() => {
            ended??;
            bail!("a part of the demo ended early");
        }
    };
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok((history, observer.activation_latency().await?))
}

/// Takes and shows frames until the model is asleep again, time is up, or somebody interrupts.
async fn film(stage: &Stage, scale: &Scale, journal: &Journal, observer: &Observer) -> Result<History> {
    let mut history = History::new(stage.began);
    let mut screen = Screen::standard();
    let deadline = stage.scenario.deadline;
    let mut frames = interval(stage.scenario.frame);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupted = signal(SignalKind::interrupt()).context("failed to listen for interrupts")?;
    let mut asleep_since: Option<f64> = None;
    loop {
        tokio::select! {
            _ = frames.tick() => {}
            _ = interrupted.recv() => return Ok(history),
        }
        // A frame without the engine's word is better than none: the first come before the
        // engine has a target at all.
        let targets = observer.targets().await.unwrap_or_default();
        history.add(Frame::take(stage, scale, journal, &targets), journal);
        screen.show(&history, deadline.as_secs_f64())?;
        let Some(frame) = history.frames.last() else { continue };
        let (at, over) = (Duration::from_secs_f64(frame.at), frame.rate <= 0.0 && frame.wanted == 0);
        let was_awake = history.frames.iter().any(|frame| frame.wanted > 0);
        asleep_since = asleep_since.or(Some(frame.at)).filter(|_| over && was_awake && frame.pods.is_empty());
        // A little of the silence belongs into the picture.
        let settled = asleep_since.is_some_and(|since| frame.at - since > deadline.as_secs_f64() / 25.0);
        if settled || at >= deadline {
            return Ok(history);
        }
    }
}

/// A folder of its own below the system's temporary one, removed with its content.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let base = std::env::temp_dir();
        let mut attempt = 0_u32;
        loop {
            let path = base.join(format!("keda-kaito-scaler-demo-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1000 => {
                    attempt += 1;
                }
                made => return made.map(|()| Self(path)),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing can be done about a folder that does not want to go.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
