//! A fleet that is scraped and asked for, in its everyday state: what it costs, and how late
//! everything is.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use serde::Serialize;
use sim::fleet::{Filtering, Health, Load, Plan};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use crate::{
    cores::Cores,
    figures::{Spread, lags},
    generator::Generator,
    keda::{self, Keda},
    scaler::{Scaler, usage},
};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub endpoints: usize,
    pub filtering: Filtering,
    pub interval: Duration,
    /// For what the scaler uses.
    pub window: Duration,
    /// Of each hundred endpoints as many hang, refuse or reset, a third each.
    pub dead_percent: usize,
}

/// Replicas of one InferenceSet.
const EACH: usize = 10;
/// KEDA's and the HPA's pace: each target is asked for once in this time.
const POLL: Duration = Duration::from_secs(15);
/// The targets whose activation is measured, at most: each is a request at the generator and a
/// frame now and then, which must not become a load of its own.
const PROBED: usize = 250;

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub endpoints: usize,
    pub targets: usize,
    pub page: &'static str,
    pub interval_seconds: f64,
    pub dead_percent: usize,
    /// Answered scrapes a second, of all endpoints.
    pub scrapes_per_second: f64,
    /// Processor seconds a second, of the scaler alone.
    pub processor: f64,
    pub microseconds_per_scrape: f64,
    pub processor_per_1000_endpoints: f64,
    pub resident_bytes: u64,
    pub peak_bytes: u64,
    pub bytes_scraped_per_second: f64,
    /// Of endpoints that are well.
    pub scrape_lag: Spread,
    pub activation: Spread,
    pub activations_lost: usize,
    pub get_metrics: Spread,
    pub calls_failed: usize,
    /// What the scaler warned of. Dead endpoints are worth a warning each.
    pub warnings: usize,
    #[serde(skip)]
    pub complaints: Vec<String>,
    /// Processor seconds a second of the generator and the stand-in for KEDA.
    pub generator_processor: f64,
}

impl Scene {
    pub(crate) async fn measure(self, cores: &Cores) -> Result<Outcome> {
        let members = (self.endpoints / EACH).max(1);
        let plan =
            Plan { inference_sets: members, endpoints_each: EACH, gateways: false, pages: self.filtering };
        // The other half stands still, so that a value that appears is an activation.
        let busy = members.div_ceil(2);
        let health = move |number| self.health(number);
        let generator = Generator::start(plan, busy, health).await?;
        let fleet = &generator.fleet;
        let scaler = Scaler::start(cores, &generator.file, 0)?;
        let keda = Keda::connect(scaler.grpc).await?;
        let targets = keda::targets(fleet, self.interval);
        let streams = keda.open_streams(&targets);
        streams.await_open(members).await?;
        keda.await_values(&targets).await?;
        // The first scrapes come at once; a round later each endpoint is on its grid.
        let settling = self.interval * 3;
        keda.poll(&targets, POLL, settling).await;

        let loads = || fleet.members.iter().flat_map(|member| &member.loads);
        for load in loads() {
            drop(load.take_arrivals());
        }
        let (before, scraped, own) = (scaler.usage()?, fleet.meter.read(), usage("self")?);
        let started = Instant::now();
        let (_, failed) = keda.poll(&targets, POLL, self.window).await;
        let seconds = started.elapsed().as_secs_f64();
        let (after, now_scraped, own_after) = (scaler.usage()?, fleet.meter.read(), usage("self")?);
        let healthy = loads().enumerate().filter(|(number, _)| self.health(*number) == Health::Serves);
        let lag = healthy.flat_map(|(_, load)| lags(&load.take_arrivals(), self.interval)).collect();
        let scrapes = (now_scraped.filtered + now_scraped.plain - scraped.filtered - scraped.plain) as f64;

        ensure!(scrapes > 0.0, "nothing was scraped");

        // Now with calls as close together as the latencies of many take.
        let quiet: Vec<_> = (busy..members).take(PROBED).collect();
        let mut probes = JoinSet::new();
        let (stop, stopped) = watch::channel(false);
        for member in quiet {
            let well = (0..EACH).find(|number| self.health(member * EACH + number) == Health::Serves);
            let Some(load) = well.map(|number| fleet.members[member].loads[number].clone()) else { continue };
            let frames = streams.frames[member].clone();
            let probe = Probe { load, frames, interval: self.interval, number: member };
            probes.spawn(probe.run(stopped.clone()));
        }
        let pace = Duration::from_millis(5) * u32::try_from(targets.len())?;
        let (times, failed_then) = keda.poll(&targets, pace, self.window).await;
        stop.send_replace(true);
        let probed = probes.join_all().await;
        let peak = scaler.usage()?.peak;
        let complaints = scaler.complaints();

        let processor = (after.processor - before.processor) / seconds;
        Ok(Outcome {
            endpoints: members * EACH,
            targets: members,
            page: if self.filtering == Filtering::Works { "filtered" } else { "plain" },
            interval_seconds: self.interval.as_secs_f64(),
            dead_percent: self.dead_percent,
            scrapes_per_second: scrapes / seconds,
            processor,
            microseconds_per_scrape: processor * seconds / scrapes * 1e6,
            processor_per_1000_endpoints: processor / (members * EACH) as f64 * 1e3,
            resident_bytes: after.resident,
            peak_bytes: peak,
            bytes_scraped_per_second: (now_scraped.bytes - scraped.bytes) as f64 / seconds,
            scrape_lag: Spread::of(lag),
            activations_lost: probed.iter().map(|(_, lost)| lost).sum(),
            activation: Spread::of(probed.into_iter().flat_map(|(seen, _)| seen).collect()),
            get_metrics: Spread::of(times),
            calls_failed: failed + failed_then,
            warnings: complaints.len(),
            complaints,
            generator_processor: (own_after.processor - own.processor) / seconds,
        })
    }

    fn health(&self, number: usize) -> Health {
        // Spread over all InferenceSets, and in turn.
        let place = number * 37 % 100;
        match place {
            place if place >= self.dead_percent => Health::Serves,
            place if place % 3 == 0 => Health::Hangs,
            place if place % 3 == 1 => Health::Refuses,
            _ => Health::Resets,
        }
    }
}

/// Lets demand appear at one endpoint of a target, and waits for KEDA to be told.
struct Probe {
    load: Arc<Load>,
    frames: watch::Receiver<Option<Instant>>,
    interval: Duration,
    number: usize,
}

impl Probe {
    /// Gives the times from the value to the frame, and how many frames never came.
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> (Vec<Duration>, usize) {
        let (mut seen, mut lost) = (vec![], 0);
        // A frame follows a scrape, so whoever waits for whole intervals always sees the same
        // wait. Steps of the golden ratio spread evenly, over probes and in each of them.
        let pause = |step: usize| self.interval.mul_f64(2.0 + (step as f64 * 0.618_033_988_75).fract());
        let patience = self.interval * 3 + Duration::from_secs(2);
        for step in self.number.. {
            if time::timeout(pause(step), stop.wait_for(|stop| *stop)).await.is_ok() {
                break;
            }
            self.frames.mark_unchanged();
            let appeared = Instant::now();
            self.load.set(1, 1);
            match time::timeout(patience, self.frames.changed()).await {
                Ok(Ok(())) => {
                    let frame = *self.frames.borrow();
                    seen.extend(frame.map(|frame| frame.duration_since(appeared)));
                }
                _ => lost += 1,
            }
            self.load.set(0, 0);
        }
        (seen, lost)
    }
}
