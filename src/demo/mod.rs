//! `demo`: the scaler at work on this machine. A simulated fleet and gateway on loopback, the
//! real engine, and a stand-in for KEDA and the HPA that speaks the real protocol.

mod history;
mod observe;
mod plots;
mod report;
mod scenario;
mod stage;
mod summary;
mod terminal;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use tokio::{
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
    stage::Stage,
    terminal::Screen,
};
use crate::{
    clock::Clock,
    run::{self, RunOptions},
    sim::keda::{self, Journal, Scale},
};

/// What `demo` is told.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Compressed to ten seconds.
    pub fast: bool,
    /// Where the report goes.
    pub report: PathBuf,
}

/// Plays the demo to its end, shows it on standard output and writes the report.
pub async fn run(options: DemoOptions) -> Result<DemoSummary> {
    let scenario = if options.fast { Scenario::fast() } else { Scenario::whole() };
    let folder = Folder::new().context("failed to make a folder for the endpoints file")?;
    let endpoints_file = folder.0.join("endpoints.json");
    let clock = Clock::start();
    let stage = Stage::new(scenario, endpoints_file.clone(), clock);
    let gate = stage.set().await?;
    let engine =
        run::start(RunOptions::for_file(endpoints_file)).await.context("failed to start the engine")?;

    let (scale, journal, stop) = (Scale::new(0), Journal::default(), CancellationToken::new());
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let playing = stage.clone().play(gate, scale.clone(), stop.clone());
    tasks.spawn(async move { Ok(playing.await?) });
    let object = stage.scenario.scaled_object.clone();
    let autoscaling =
        keda::run(object, engine.grpc_address(), scale.clone(), journal.clone(), clock, stop.clone());
    tasks.spawn(async move { Ok(autoscaling.await?) });

    let observer = Observer::new(engine.metrics_address())?;
    let filmed = tokio::select! {
        filmed = film(&stage, &scale, &journal, &observer) => filmed,
        // Neither task ends before it is told to, unless it fails.
        Some(ended) = tasks.join_next() => Err(match ended? {
            Ok(()) => anyhow::anyhow!("a part of the demo ended early"),
            Err(error) => error,
        }),
    };
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let scaler_share = observer.activation_latency().await;
    engine.stop().await;

    let history = filmed?;
    let summary = DemoSummary::of(&stage, &history, scaler_share?);
    let source = Source { history: &history, scenario: &stage.scenario };
    report::write(&options.report, source, &summary).await?;
    println!("\n{summary}\n  Report: {}", options.report.display());
    Ok(summary)
}

/// Takes and shows frames until the model is asleep again, or time is up.
async fn film(stage: &Stage, scale: &Scale, journal: &Journal, observer: &Observer) -> Result<History> {
    let mut history = History::new(stage.began);
    let mut screen = Screen::standard();
    let deadline = stage.scenario.deadline;
    let mut frames = interval(stage.scenario.frame);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asleep_since: Option<f64> = None;
    loop {
        frames.tick().await;
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
