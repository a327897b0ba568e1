//! Demand as a fluid: how much of an engine's time requests take, and how many replicas that
//! fills, without queues, cold starts or rounding.

use crate::{
    engine::EngineSpec,
    trace::{Request, Trace, TraceError},
    world::{SECOND, World},
};

/// Over how much of the trace the replicas at the start are reckoned.
const START_US: u64 = 300 * SECOND;

/// The nanoseconds of engine time that a request adds to the steps it takes part in.
#[must_use]
pub fn work_ns(engine: &EngineSpec, request: &Request) -> u64 {
    engine.b_ns * u64::from(request.input_tokens) + engine.c_ns * u64::from(request.output_tokens)
}

/// The share of its time that an engine has for work while a token takes no longer than
/// `tpot_us`: every step costs a, whatever is in it. At least 0.05.
#[must_use]
pub fn capacity(engine: &EngineSpec, tpot_us: u64) -> f64 {
    (1.0 - engine.a_ns as f64 / (tpot_us as f64 * 1000.0)).max(0.05)
}

/// The KV tokens × seconds that a request holds while each of its tokens takes `tpot_us`.
#[must_use]
pub fn token_seconds(request: &Request, tpot_us: u64) -> f64 {
    let output = f64::from(request.output_tokens);
    (f64::from(request.input_tokens) + output / 2.0) * output * (tpot_us as f64 / 1e6)
}

/// The replicas, not rounded, that requests of `work_ns` and `token_seconds` in `span_us` fill.
#[must_use]
pub fn replicas(world: &World, work_ns: u64, token_seconds: f64, span_us: u64) -> f64 {
    let seconds = span_us as f64 / 1e6;
    let compute = work_ns as f64 / 1e9 / seconds / capacity(&world.engine, world.slo.tpot_us);
    let memory = token_seconds / seconds / world.engine.kv_tokens as f64;
    compute.max(memory)
}

/// With how many replicas a run starts.
pub fn replicas_at_start(world: &World, trace: &dyn Trace) -> Result<u32, TraceError> {
    let (mut work, mut held) = (0, 0.0);
    for request in trace.open()? {
        let request = request?;
        if request.at_us >= START_US {
            break;
        }
        work += work_ns(&world.engine, &request);
        held += token_seconds(&request, world.slo.tpot_us);
    }
    let wanted = world.start_margin * replicas(world, work, held, START_US);
    Ok(hpa::ceiling(wanted).clamp(world.min_replicas, world.max_replicas))
}

/// The replicas, not rounded, that the whole trace needs on average.
pub fn mean_replicas(world: &World, trace: &dyn Trace) -> Result<f64, TraceError> {
    let (mut work, mut held, mut last_us) = (0_u128, 0.0, 0);
    for request in trace.open()? {
        let request = request?;
        work += u128::from(work_ns(&world.engine, &request));
        held += token_seconds(&request, world.slo.tpot_us);
        last_us = request.at_us;
    }
    if last_us == 0 {
        return Ok(0.0);
    }
    Ok(replicas(world, u64::try_from(work).unwrap_or(u64::MAX), held, last_us))
}
