//! The work divided among several scalers, as docs/scaling.md says, and what one more of them
//! moves.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use futures::future;
use keda_proto::ScaledObjectRef;
use scaler_core::{fleet::shard::Shards, names::InferenceSetKey};
use serde::Serialize;
use sim::fleet::{Filtering, Health, Plan};
use tokio::time::Instant;

use crate::{
    cores::Cores,
    generator::Generator,
    keda::{self, Keda, Streams},
    scaler::Scaler,
};

/// Replicas of one InferenceSet.
const EACH: usize = 10;
const POLL: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(1);

/// What came out. All shards have one core together.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sharded {
    pub endpoints: usize,
    pub shards: u32,
    /// InferenceSets on the fullest shard, against an even share.
    pub fullest: f64,
    /// Processor seconds a second and memory, of all shards together.
    pub processor: f64,
    pub resident_bytes: u64,
    pub scrapes_per_second: f64,
    /// InferenceSets that went to one shard more, of all.
    pub moved: usize,
    pub sets: usize,
    /// Milliseconds until each of them had its stream and its value there.
    pub handed_over: f64,
    /// Calls that failed all the while, of those that moved and those that stayed.
    pub calls_failed: usize,
}

/// One scaler with the targets that are its share.
struct Shard {
    scaler: Scaler,
    keda: Keda,
    targets: Arc<Vec<ScaledObjectRef>>,
    _streams: Streams,
}

impl Shard {
    async fn start(
        cores: &Cores,
        generator: &Generator,
        targets: impl Iterator<Item = ScaledObjectRef>,
    ) -> Result<Self> {
        let scaler = Scaler::start(cores, &generator.file, 0)?;
        Self::take_over(scaler, targets).await
    }

    /// Hands `targets` to a scaler that runs.
    async fn take_over(scaler: Scaler, targets: impl Iterator<Item = ScaledObjectRef>) -> Result<Self> {
        let keda = Keda::connect(scaler.grpc).await?;
        let targets = Arc::new(targets.collect::<Vec<_>>());
        let streams = keda.open_streams(&targets);
        streams.await_open(targets.len()).await?;
        keda.await_values(&targets).await?;
        Ok(Self { scaler, keda, targets, _streams: streams })
    }

    /// Polls as KEDA does; gives how many calls failed.
    async fn poll(&self, window: Duration) -> usize {
        self.keda.poll(&self.targets, POLL, window).await.1
    }
}

/// Divides a fleet among `count` scalers, and then among one more.
pub(crate) async fn divide(cores: &Cores, endpoints: usize, count: u32, window: Duration) -> Result<Sharded> {
    let sets = (endpoints / EACH).max(1);
    let plan = Plan { inference_sets: sets, endpoints_each: EACH, gateways: false, pages: Filtering::Works };
    let generator = Generator::start(plan, sets, |_| Health::Serves).await?;
    let all = keda::targets(&generator.fleet, INTERVAL);
    let shards = |count| NonZeroU32::new(count).map(Shards::new).context("no shard at all");
    let (before, after) = (shards(count)?, shards(count + 1)?);
    let of = |shards: Shards, number| {
        let mine = move |target: &&ScaledObjectRef| {
            shards.of(&InferenceSetKey::new(&target.namespace, &target.name)) == number
        };
        all.iter().filter(mine).cloned()
    };

    let mut running = vec![];
    for number in 0..count {
        running.push(Shard::start(cores, &generator, of(before, number)).await?);
    }
    let fullest = running.iter().map(|shard| shard.targets.len()).max().unwrap_or(0);
    let poll_all = async |window| {
        let failed = future::join_all(running.iter().map(|shard| shard.poll(window))).await;
        failed.into_iter().sum::<usize>()
    };
    let usage = || -> Result<(f64, u64)> {
        running.iter().try_fold((0.0, 0), |(processor, resident), shard| {
            let usage = shard.scaler.usage()?;
            Ok((processor + usage.processor, resident + usage.resident))
        })
    };
    // The first scrapes come at once; a round later each endpoint is on its grid.
    poll_all(INTERVAL * 2).await;
    let ((processor, _), scraped, started) =
        (usage()?, generator.fleet.meter.read().filtered, Instant::now());
    let mut calls_failed = poll_all(window).await;
    let seconds = started.elapsed().as_secs_f64();
    let ((processor_after, resident_bytes), scraped_after) =
        (usage()?, generator.fleet.meter.read().filtered);

    // One more: it is up before it is given anything.
    let scaler = Scaler::start(cores, &generator.file, 0)?;
    let handing_over = async {
        let begun = Instant::now();
        let newest = Shard::take_over(scaler, of(after, count)).await?;
        Ok::<_, anyhow::Error>((newest, begun.elapsed()))
    };
    let (handed_over, failed_meanwhile) = tokio::join!(handing_over, poll_all(INTERVAL * 2));
    let (newest, handed_over) = handed_over?;
    calls_failed += failed_meanwhile + newest.poll(INTERVAL * 2).await;
    Ok(Sharded {
        endpoints: sets * EACH,
        shards: count,
        fullest: fullest as f64 * f64::from(count) / sets as f64,
        processor: (processor_after - processor) / seconds,
        resident_bytes,
        scrapes_per_second: (scraped_after - scraped) as f64 / seconds,
        moved: newest.targets.len(),
        sets,
        handed_over: handed_over.as_secs_f64() * 1e3,
        calls_failed,
    })
}
