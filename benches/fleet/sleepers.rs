//! Models that have no replica, each behind a gateway of its own: what it costs to watch over
//! them, and how soon KEDA hears of a request that waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;
use sim::fleet::{Filtering, Health, Plan};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use crate::{
    cores::Cores,
    figures::Spread,
    generator::Generator,
    keda::{self, Keda},
    scaler::{Scaler, usage},
};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleepers {
    pub count: usize,
    /// `--wake-budget`, in scrapes a second; 0 is without limit.
    pub budget: u32,
    pub window: Duration,
}

/// As many are woken one after another, each several times.
const PROBED: usize = 50;

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Slept {
    pub sleepers: usize,
    pub budget: u32,
    pub scrapes_per_second: f64,
    /// Processor seconds a second, of the scaler alone.
    pub processor: f64,
    pub resident_bytes: u64,
    /// From a request in the gateway's queue to the frame on KEDA's stream; the wait for the
    /// next scrape is in it.
    pub one_by_one: Spread,
    /// The same, where all are woken in one moment.
    pub together: Spread,
    pub lost: usize,
    /// From the sample that shows the request to the frame, as the scaler itself counts it: how
    /// many of all took at most 5 ms.
    pub within_5_ms: u64,
    pub frames: u64,
    /// Processor seconds a second of the generator and the stand-in for KEDA.
    pub generator_processor: f64,
}

impl Sleepers {
    pub(crate) async fn measure(self, cores: &Cores) -> Result<Slept> {
        let plan =
            Plan { inference_sets: self.count, endpoints_each: 0, gateways: true, pages: Filtering::Works };
        let generator = Generator::start(plan, 0, |_| Health::Serves).await?;
        let fleet = &generator.fleet;
        let file = generator.file.to_str().context("a path in UTF-8")?;
        let budget = self.budget.to_string();
        let flags = ["--endpoints-file", file, "--insecure-grpc", "--wake-budget", &budget];
        let scaler = Scaler::run(cores, &flags, 0)?;
        let keda = Keda::connect(scaler.grpc).await?;
        let targets = keda::targets(fleet, Duration::from_secs(1));
        let streams = keda.open_streams(&targets);
        streams.await_open(self.count).await?;
        keda.await_values(&targets).await?;
        // A round later each source is on its grid.
        time::sleep(Duration::from_secs(4)).await;

        let (before, scraped, own) = (scaler.usage()?, fleet.meter.read(), usage("self")?);
        let started = Instant::now();
        time::sleep(self.window).await;
        let seconds = started.elapsed().as_secs_f64();
        let (after, now_scraped, own_after) = (scaler.usage()?, fleet.meter.read(), usage("self")?);

        let mut probes = JoinSet::new();
        let (stop, stopped) = watch::channel(false);
        let members = || fleet.members.iter().zip(&streams.frames);
        for (number, (member, frames)) in members().enumerate().take(PROBED) {
            let probe = Probe { held: member.held.clone(), frames: frames.clone(), number };
            probes.spawn(probe.run(stopped.clone()));
        }
        time::sleep(self.window).await;
        stop.send_replace(true);
        let probed = probes.join_all().await;
        // All are quiet again.
        time::sleep(Duration::from_secs(5)).await;

        let mut waking = JoinSet::new();
        let woken = Instant::now();
        for (member, frames) in members() {
            let mut frames = frames.clone();
            frames.mark_unchanged();
            member.held.store(1, Ordering::Relaxed);
            waking.spawn(async move { frame(&mut frames, woken).await });
        }
        let together = waking.join_all().await;

        let (within_5_ms, frames) = scaler.activations().await?;
        let lost = probed.iter().map(|(_, lost)| lost).sum::<usize>();
        Ok(Slept {
            sleepers: self.count,
            budget: self.budget,
            scrapes_per_second: (now_scraped.plain - scraped.plain) as f64 / seconds,
            processor: (after.processor - before.processor) / seconds,
            resident_bytes: after.resident,
            lost: lost + together.iter().filter(|seen| seen.is_none()).count(),
            one_by_one: Spread::of(probed.into_iter().flat_map(|(seen, _)| seen).collect()),
            together: Spread::of(together.into_iter().flatten().collect()),
            within_5_ms,
            frames,
            generator_processor: (own_after.processor - own.processor) / seconds,
        })
    }
}

/// The time from `since` to the next frame.
async fn frame(frames: &mut watch::Receiver<Option<Instant>>, since: Instant) -> Option<Duration> {
    time::timeout(Duration::from_secs(10), frames.changed()).await.ok()?.ok()?;
    frames.borrow_and_update().map(|frame| frame.saturating_duration_since(since))
}

/// Lets a request wait at a gateway, and waits for KEDA to be told.
struct Probe {
    held: Arc<AtomicU32>,
    frames: watch::Receiver<Option<Instant>>,
    number: usize,
}

impl Probe {
    /// Gives the times from the request to the frame, and how many frames never came.
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> (Vec<Duration>, usize) {
        let (mut seen, mut lost) = (vec![], 0);
        // Longer than two scrapes at any pace here, and no multiple of one.
        let pause = Duration::from_millis(4_130 + 37 * u64::try_from(self.number).unwrap_or(0));
        while time::timeout(pause, stop.wait_for(|stop| *stop)).await.is_err() {
            self.frames.mark_unchanged();
            let appeared = Instant::now();
            self.held.store(1, Ordering::Relaxed);
            match frame(&mut self.frames, appeared).await {
                Some(time) => seen.push(time),
                None => lost += 1,
            }
            self.held.store(0, Ordering::Relaxed);
        }
        (seen, lost)
    }
}
