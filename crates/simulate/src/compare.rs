//! Many runs: every trace with every cold start, policy and seed, side by side.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::{
    outcome::Outcome,
    policies::{Choice, Context, PolicyError},
    replay::replay,
    trace::{Trace, TraceError},
    world::{ColdStart, World},
};

/// A trace that can be drawn anew for each seed.
pub trait Source: fmt::Debug + Sync {
    /// The trace of a seed.
    fn of_seed(&self, seed: u64) -> Arc<dyn Trace>;
}

/// What is compared.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The traces.
    pub traces: &'a [&'a dyn Source],
    /// The world of every run but for its cold start and its seed.
    pub world: World,
    /// The cold starts.
    pub cold_starts: Vec<ColdStart>,
    /// The policies, each with its settings.
    pub policies: Vec<Choice>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The annotations of the policy `annotations`.
    pub annotations: Arc<BTreeMap<String, String>>,
}

#[derive(Clone, Copy)]
struct Job<'a> {
    trace: usize,
    cold_start: ColdStart,
    policy: &'a Choice,
    seed: u64,
}

impl Comparison<'_> {
    /// Replays everything on `threads` threads and hands the outcomes to `each` in a fixed order:
    /// by trace, cold start, policy and seed. Ends early where `each` fails.
    pub fn run<E: From<PolicyError>>(
        &self,
        threads: usize,
        mut each: impl FnMut(Outcome) -> Result<(), E>,
    ) -> Result<(), E> {
        let ceilings = self.ceilings(threads)?;
        let jobs = self.jobs();
        in_order(
            &jobs,
            threads,
            |job| self.one(*job),
            |index, outcome: Result<Outcome, PolicyError>| {
                let job = &jobs[index];
                let ceiling = ceilings.get(&(job.trace, job.seed)).copied().unwrap_or_default();
                each(Outcome { ceiling, ..outcome? })
            },
        )
    }

    fn jobs(&self) -> Vec<Job<'_>> {
        let mut jobs = Vec::new();
        for trace in 0..self.traces.len() {
            for cold_start in &self.cold_starts {
                for policy in &self.policies {
                    let of = |seed: &u64| Job { trace, cold_start: *cold_start, policy, seed: *seed };
                    jobs.extend(self.seeds.iter().map(of));
                }
            }
        }
        jobs
    }

    /// What the largest allowed number of replicas attains, by trace and seed.
    fn ceilings(&self, threads: usize) -> Result<BTreeMap<(usize, u64), f64>, PolicyError> {
        let full: Choice = format!("static:n={}", self.world.max_replicas).parse()?;
        let jobs: Vec<_> = (0..self.traces.len())
            .flat_map(|trace| {
                let cold_start = self.world.cold_start;
                self.seeds.iter().map(move |seed| (trace, cold_start, *seed))
            })
            .map(|(trace, cold_start, seed)| Job { trace, cold_start, policy: &full, seed })
            .collect();
        let mut ceilings = BTreeMap::new();
        let put = |index: usize, outcome: Result<Outcome, PolicyError>| {
            let job: &Job<'_> = &jobs[index];
            ceilings.insert((job.trace, job.seed), outcome?.attainment);
            Ok::<_, PolicyError>(())
        };
        in_order(&jobs, threads, |job| self.one(*job), put)?;
        Ok(ceilings)
    }

    fn one(&self, job: Job<'_>) -> Result<Outcome, PolicyError> {
        let world = World { cold_start: job.cold_start, seed: job.seed, ..self.world.clone() };
        let trace = self.traces[job.trace].of_seed(job.seed);
        let annotations = Arc::clone(&self.annotations);
        let context = Context { world, trace, annotations };
        let mut policy = job.policy.make(&context)?;
        let outcome = replay(&context.world, context.trace.as_ref(), policy.as_mut())
            .map_err(|error: TraceError| PolicyError::from(error))?;
        Ok(Outcome {
            trace: context.trace.name().to_owned(),
            policy: job.policy.name().to_owned(),
            setting: job.policy.setting(),
            cold_start_seconds: job.cold_start.mean_us as f64 / 1e6,
            seed: job.seed,
            ..outcome
        })
    }
}

/// Does every job on a few threads and takes the results in the order of the jobs.
fn in_order<J: Sync, R: Send, E>(
    jobs: &[J],
    threads: usize,
    work: impl Fn(&J) -> R + Sync,
    mut take: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    let send = Mutex::new(send);
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            let send = send.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (next, work) = (&next, &work);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { break };
                    // Nobody listens any more where an earlier one failed.
                    if send.send((index, work(job))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let (mut done, mut awaited) = (BTreeMap::new(), 0);
        // Moved in, so that those that still work notice when it is gone.
        let receive = receive;
        for (index, result) in &receive {
            done.insert(index, result);
            while let Some(result) = done.remove(&awaited) {
                take(awaited, result)?;
                awaited += 1;
            }
        }
        Ok(())
    })
}
