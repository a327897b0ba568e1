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

/// The KV tokens that a request holds, summed over the steps that take part in its answer.
#[must_use]
pub fn token_steps(request: &Request) -> f64 {
    let output = f64::from(request.output_tokens);
    (f64::from(request.input_tokens) + output / 2.0) * output
}

/// The replicas, not rounded, that requests of `work_ns` and `token_steps` in `span_us` fill:
/// so many that a token takes no longer than it may, and so many that their KV caches hold the
/// batches. As many tokens as a full cache holds share the a of each step; so a replica spends
/// `a · token steps / kv` on steps beside the work.
#[must_use]
pub fn replicas(world: &World, work_ns: u64, token_steps: f64, span_us: u64) -> f64 {
    let World { engine, slo, .. } = world;
    let span_ns = span_us as f64 * 1e3;
    let compute = work_ns as f64 / capacity(engine, slo.tpot_us);
    let memory = work_ns as f64 + engine.a_ns as f64 * token_steps / engine.kv_tokens as f64;
    compute.max(memory) / span_ns
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
        held += token_steps(&request);
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
        held += token_steps(&request);
        last_us = request.at_us;
    }
    if last_us == 0 {
        return Ok(0.0);
    }
    Ok(replicas(world, u64::try_from(work).unwrap_or(u64::MAX), held, last_us))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::trace::{InMemory, Prefix};

    fn world(kv_tokens: u64) -> World {
        World::new(EngineSpec::of_milliseconds(20.0, 0.5, 0.2, kv_tokens))
    }

    fn request(at_us: u64) -> Request {
        Request { at_us, input_tokens: 1000, output_tokens: 200, prefix: Prefix::UNKNOWN }
    }

    #[test]
    fn a_request_fills_its_work_or_its_cache() {
        // 200 ms of prefill and 100 ms of decoding; a fifth of the time is the steps' own.
        assert_eq!(work_ns(&world(1).engine, &request(0)), 300_000_000);
        let need = |kv_tokens| replicas(&world(kv_tokens), 300_000_000, token_steps(&request(0)), SECOND);
        assert!((need(1_000_000) - 0.3 / 0.8).abs() < 1e-9);
        // Batches of 10: 200 tokens take 20 ms each, shared by 10, beside the work.
        assert!((need(11_000) - (0.3 + 200.0 * 0.02 / 10.0)).abs() < 1e-9);
    }

    #[test]
    fn the_first_five_minutes_say_how_many_there_are_at_first() {
        let requests: Arc<[_]> = (0..600).map(|index| request(index * SECOND)).collect();
        let trace = InMemory { name: String::new(), requests };
        let of = |start_margin, min_replicas| {
            let world = World { min_replicas, start_margin, ..world(1_000_000) };
            replicas_at_start(&world, &trace).unwrap()
        };
        assert_eq!((of(1.4, 1), of(10.0, 1), of(1.4, 3), of(1000.0, 1)), (1, 4, 3, 24));
        let mean = mean_replicas(&world(1_000_000), &trace).unwrap();
        assert!((mean / 0.375 - 600.0 / 599.0).abs() < 1e-9, "{mean}");
    }
}
