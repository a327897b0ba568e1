//! One run: a trace through a policy, in virtual time.

use std::{collections::VecDeque, time::Duration};

use crate::{
    engine::Offered,
    fleet::{Census, Fleet},
    fluid,
    hpa::{Hpa, ScaleTarget},
    keda::Keda,
    outcome::Outcome,
    policy::{Decision, Policy, Seen},
    random::Random,
    router::{Gateway, Sent},
    score::Score,
    trace::{Request, RequestStream, Trace, TraceError},
    world::{SECOND, World},
};

/// How often the HPA syncs.
const SYNC_S: u64 = 15;

/// How often an endpoint picker looks whether what it holds can go on.
const DISPATCH_US: u64 = SECOND / 20;

/// How often and how long after a refusal a client tries again.
const RETRIES: u64 = 3;
const RETRY_AFTER_US: u64 = SECOND;

/// For how long after the last arrival answers are awaited.
const AFTERMATH_US: u64 = 1800 * SECOND;

/// Replays `trace` through `policy`. The outcome has no names and no ceiling yet.
pub fn replay(world: &World, trace: &dyn Trace, policy: &mut dyn Policy) -> Result<Outcome, TraceError> {
    let replicas = match policy.start() {
        Some(replicas) => replicas,
        None => fluid::replicas_at_start(world, trace)?,
    };
    let mut run = Run::new(world, trace.open()?, policy, replicas)?;
    while run.step(policy)? {}
    Ok(run.finish())
}

struct Run<'a> {
    world: &'a World,
    arrivals: RequestStream,
    next_arrival: Option<Request>,
    last_arrival_us: u64,
    /// When each refused request comes again, soonest first. A request's tag says how often it
    /// has been refused.
    retries: VecDeque<(u64, Offered)>,
    next_second_us: u64,
    next_dispatch_us: u64,
    fleet: Fleet,
    /// The fleet since the last second.
    census: Census,
    gateway: Gateway,
    score: Score,
    hpa: Hpa,
    sync_phase: u64,
    keda: Keda,
    work_ns: u128,
    token_steps: f64,
}

impl<'a> Run<'a> {
    fn new(
        world: &'a World,
        arrivals: RequestStream,
        policy: &dyn Policy,
        replicas: u32,
    ) -> Result<Self, TraceError> {
        let scaling = policy.scaling();
        let mut phases = Random::stream(world.seed, u64::MAX - 1);
        let sync_phase = u64::from(phases.below(15));
        let poll_seconds = u32::try_from(scaling.polling_interval_us / SECOND).unwrap_or(u32::MAX).max(1);
        let keda = Keda::new(&scaling, u64::from(phases.below(poll_seconds)) * SECOND);
        let fleet = Fleet::new(world, replicas);
        let mut run = Self {
            world,
            arrivals,
            next_arrival: None,
            last_arrival_us: 0,
            retries: VecDeque::new(),
            next_second_us: SECOND,
            next_dispatch_us: u64::MAX,
            census: fleet.census(0),
            fleet,
            gateway: Gateway::new(world),
            score: Score::new(world.slo, world.warm_up_us),
            hpa: Hpa::new(scaling.behavior),
            sync_phase,
            keda,
            work_ns: 0,
            token_steps: 0.0,
        };
        run.next_arrival = run.arrivals.next().transpose()?;
        Ok(run)
    }

    /// What happens next in time; `false` at the end. Of what happens at the same time a second
    /// comes last, so that it sees the rest.
    fn step(&mut self, policy: &mut dyn Policy) -> Result<bool, TraceError> {
        let arrival_us = self.next_arrival.as_ref().map_or(u64::MAX, |request| request.at_us);
        let retry_us = self.retries.front().map_or(u64::MAX, |(at, _)| *at);
        let now_us = arrival_us.min(retry_us).min(self.next_dispatch_us).min(self.next_second_us);
        if now_us == arrival_us {
            self.arrive(now_us)?;
        } else if now_us == retry_us {
            if let Some((_, offered)) = self.retries.pop_front() {
                self.send(offered, now_us);
            }
        } else if now_us == self.next_dispatch_us {
            self.dispatch(now_us);
        } else {
            self.second(policy, now_us);
            self.next_second_us += SECOND;
            return Ok(!self.is_over(now_us));
        }
        Ok(true)
    }

    fn is_over(&self, now_us: u64) -> bool {
        let idle = self.fleet.held().1 == 0 && self.gateway.held() == 0 && self.retries.is_empty();
        self.next_arrival.is_none() && (idle || now_us > self.last_arrival_us + AFTERMATH_US)
    }

    fn arrive(&mut self, now_us: u64) -> Result<(), TraceError> {
        let next = self.arrivals.next().transpose()?;
        let Some(request) = std::mem::replace(&mut self.next_arrival, next) else { return Ok(()) };
        self.score.arrived(&request, self.fleet.spec_replicas() == 0);
        if now_us >= self.world.warm_up_us {
            self.work_ns += u128::from(fluid::work_ns(&self.world.engine, &request));
            self.token_steps += fluid::token_steps(&request);
        }
        self.last_arrival_us = now_us;
        self.send(Offered { request, tag: 0 }, now_us);
        Ok(())
    }

    fn send(&mut self, offered: Offered, now_us: u64) {
        match self.gateway.send(offered, &mut self.fleet, now_us) {
            Sent::Accepted => {}
            Sent::Held => self.next_dispatch_us = self.next_dispatch_us.min(now_us + DISPATCH_US),
            Sent::Refused(offered) => self.refuse(offered, now_us),
        }
    }

    fn refuse(&mut self, mut offered: Offered, now_us: u64) {
        if offered.tag < RETRIES {
            offered.tag += 1;
            self.retries.push_back((now_us + RETRY_AFTER_US, offered));
        } else {
            self.score.refused(offered.request.at_us);
        }
    }

    fn dispatch(&mut self, now_us: u64) {
        for offered in self.gateway.release(&mut self.fleet, now_us) {
            self.refuse(offered, now_us);
        }
        self.next_dispatch_us = if self.gateway.held() > 0 { now_us + DISPATCH_US } else { u64::MAX };
    }

    /// A second has passed: everything is looked at, and decided.
    fn second(&mut self, policy: &mut dyn Policy, now_us: u64) {
        self.fleet.advance(now_us);
        self.take_answers();
        self.fleet.remove_drained(now_us);
        for offered in self.fleet.take_lost() {
            self.score.lost(offered.request.at_us);
        }
        let spec_replicas = self.fleet.spec_replicas();
        if self.next_arrival.is_some() || now_us < self.last_arrival_us + SECOND {
            let queued = self.fleet.held().0 + self.gateway.held();
            self.score.second(now_us, spec_replicas, self.census, queued);
        }
        let census = self.fleet.census(now_us);
        let decision = policy.decide(&Seen {
            now_us,
            spec_replicas,
            // KAITO writes what it wants, not what there is.
            status_replicas: spec_replicas,
            pods: &self.fleet.seen(now_us),
            gateway: Some(self.gateway.seen()),
        });
        let wanted = match decision {
            Decision::Replicas(replicas) => replicas,
            Decision::Scaler { metrics, active } => {
                let awake = self.keda.step(spec_replicas, active, now_us);
                if (now_us / SECOND) % SYNC_S == self.sync_phase {
                    let (spec_replicas, status_replicas) = (awake, spec_replicas);
                    let target = ScaleTarget { spec_replicas, status_replicas, ready_pods: census.serving };
                    self.hpa.sync(target, &metrics, Duration::from_micros(now_us))
                } else {
                    awake
                }
            }
        };
        if wanted != spec_replicas {
            self.score.scaled(spec_replicas, wanted, now_us);
            self.fleet.scale_to(wanted, now_us);
        }
        self.census = self.fleet.census(now_us);
    }

    fn take_answers(&mut self) {
        let Self { fleet, score, .. } = self;
        fleet.take_served(|served| score.served(&served));
    }

    fn finish(mut self) -> Outcome {
        self.take_answers();
        let held = self.fleet.held().1 + self.gateway.held() + self.retries.len();
        let span_us = self.last_arrival_us.saturating_sub(self.world.warm_up_us);
        let fluid_hours = if span_us == 0 {
            0.0
        } else {
            let work_ns = u64::try_from(self.work_ns).unwrap_or(u64::MAX);
            let replicas = fluid::replicas(self.world, work_ns, self.token_steps, span_us);
            replicas * span_us as f64 / 3.6e9
        };
        self.score.finish(held as u64, self.fleet.preemptions(), fluid_hours)
    }
}

#[cfg(test)]
mod tests;
