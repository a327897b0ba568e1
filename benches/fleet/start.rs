//! From nothing: what an idle scaler takes, how soon a new one is of use, and whether its memory
//! grows.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use sim::fleet::{Filtering, Health, Plan};
use tokio::time;

use crate::{
    cores::Cores,
    generator::Generator,
    keda::{self, Keda},
    scaler::Scaler,
};

/// A scaler without any target.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Idle {
    pub resident_bytes: u64,
    pub processor: f64,
}

pub(crate) async fn idle(cores: &Cores, window: Duration) -> Result<Idle> {
    let nothing = Plan { inference_sets: 0, endpoints_each: 0, gateways: false, pages: Filtering::Works };
    let generator = Generator::start(nothing, 0, |_| Health::Serves).await?;
    let scaler = Scaler::start(cores, &generator.file, 0)?;
    time::sleep(Duration::from_secs(1)).await;
    let before = scaler.usage()?;
    time::sleep(window).await;
    let after = scaler.usage()?;
    let processor = (after.processor - before.processor) / window.as_secs_f64();
    Ok(Idle { resident_bytes: after.resident, processor })
}

/// Milliseconds since the scaler was executed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Start {
    pub targets: usize,
    pub endpoints: usize,
    /// It listens.
    pub listening: f64,
    /// The first GetMetrics is answered with a value.
    pub first_value: f64,
    /// The first GetMetrics of every target is answered with a value; all were asked at once.
    pub all_values: f64,
    /// Calls that were refused until then.
    pub refused: usize,
}

pub(crate) async fn start(cores: &Cores, targets: usize) -> Result<Start> {
    let each = 2;
    let plan =
        Plan { inference_sets: targets, endpoints_each: each, gateways: false, pages: Filtering::Works };
    let generator = Generator::start(plan, 0, |_| Health::Serves).await?;
    let objects = keda::targets(&generator.fleet, Duration::from_secs(1));
    let scaler = Scaler::start(cores, &generator.file, 0)?;
    let passed = || scaler.executed.elapsed().as_secs_f64() * 1e3;
    let listening = passed();
    let keda = Keda::connect(scaler.grpc).await?;
    let streams = keda.open_streams(&objects);
    let mut answers = keda.ask_once(&objects);
    let (mut first_value, mut all_values, mut refused, mut complaint) = (f64::NAN, f64::NAN, 0, None);
    while let Some(answer) = answers.join_next().await {
        all_values = passed();
        match answer? {
            Ok(_) => first_value = first_value.min(all_values),
            Err(status) => {
                complaint.get_or_insert(status);
                refused += 1;
            }
        }
    }
    streams.await_open(targets).await?;
    if let Some(complaint) = complaint {
        println!("refused with {complaint}");
    }
    Ok(Start { targets, endpoints: targets * each, listening, first_value, all_values, refused })
}

/// What a restart does to KEDA's streams.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Restart {
    pub streams: usize,
    /// Milliseconds from the execution of the new scaler until each stream is open again, with
    /// a client that tries every 50 ms. KEDA itself waits for 2 s first.
    pub reopened: f64,
}

pub(crate) async fn restart(cores: &Cores, streams: usize) -> Result<Restart> {
    let plan = Plan { inference_sets: streams, endpoints_each: 1, gateways: false, pages: Filtering::Works };
    let generator = Generator::start(plan, 0, |_| Health::Serves).await?;
    let objects = keda::targets(&generator.fleet, Duration::from_secs(1));
    let first = Scaler::start(cores, &generator.file, 0)?;
    let port = first.grpc.port();
    let keda = Keda::connect(first.grpc).await?;
    let open = keda.open_streams(&objects);
    open.await_open(streams).await?;
    keda.await_values(&objects).await?;
    let before = open.opened();
    drop(first);
    let second = Scaler::start(cores, &generator.file, port)?;
    open.await_open(before + streams).await?;
    Ok(Restart { streams, reopened: second.executed.elapsed().as_secs_f64() * 1e3 })
}

/// Memory over time, with the interval so short that much of it passes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Soak {
    pub endpoints: usize,
    pub interval_seconds: f64,
    /// Scrapes of each endpoint until then, and what was resident, in bytes.
    pub resident: Vec<(f64, u64)>,
}

pub(crate) async fn soak(
    cores: &Cores,
    endpoints: usize,
    interval: Duration,
    length: Duration,
) -> Result<Soak> {
    let sets = endpoints / 10;
    let plan = Plan { inference_sets: sets, endpoints_each: 10, gateways: false, pages: Filtering::Works };
    let generator = Generator::start(plan, sets, |_| Health::Serves).await?;
    let fleet = &generator.fleet;
    let objects = keda::targets(fleet, interval);
    let scaler = Scaler::start(cores, &generator.file, 0)?;
    let keda = Keda::connect(scaler.grpc).await?;
    let streams = keda.open_streams(&objects);
    streams.await_open(sets).await?;
    keda.await_values(&objects).await?;
    let mut resident = vec![];
    let steps = 10;
    for _ in 0..steps {
        keda.poll(&objects, Duration::from_secs(1), length / steps).await;
        fleet.members.iter().flat_map(|member| &member.loads).for_each(|load| drop(load.take_arrivals()));
        let each = fleet.meter.read().filtered as f64 / endpoints as f64;
        resident.push((each, scaler.usage()?.resident));
    }
    Ok(Soak { endpoints, interval_seconds: interval.as_secs_f64(), resident })
}
