//! A queueing model of one vLLM replica, with continuous batching: every engine step takes
//! the running sequences one token further, and takes longer the more of them there are.
//!
//! It is a function of its inputs: time is passed in, nothing is random, and it makes no
//! difference how often [`Replica::advance`] is called.

use std::{collections::VecDeque, time::Duration};

use super::traffic::Request;
use scaler_core::time::Moment;

/// Bucket bounds as vLLM prints them; +Inf is implied.
pub mod bounds {
    pub const TIME_TO_FIRST_TOKEN: &[f64] = &[
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
        40.0, 80.0, 160.0, 640.0, 2560.0,
    ];
    pub const INTER_TOKEN: &[f64] = &[
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
        80.0,
    ];
    /// End to end, and its parts: queue, inference, prefill, decode.
    pub const REQUEST: &[f64] = &[
        0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
        480.0, 960.0, 1920.0, 7680.0,
    ];
    pub const TOKENS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
    pub const STEP_TOKENS: &[f64] =
        &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
}

/// What a replica's hardware and settings allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Engine {
    /// vLLM's `--max-num-seqs`: the largest batch. KAITO refuses requests (429) while more
    /// than this many wait.
    pub max_num_seqs: u32,
    /// Tokens that the KV cache holds.
    pub kv_tokens: u32,
    /// A decode step with an empty batch.
    pub step: Duration,
    /// What each sequence of the batch adds to a step.
    pub step_per_sequence: Duration,
    /// What each prompt token that is prefilled in a step adds to it.
    pub step_per_prompt_token: Duration,
    /// The most prompt tokens that one step prefills (vLLM's `--max-num-batched-tokens`).
    pub max_batched_tokens: u32,
}

/// A cumulative histogram with fixed bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    bounds: &'static [f64],
    /// One for each bound, then one for +Inf; not cumulative.
    counts: Vec<u64>,
    sum: f64,
}

impl Observed {
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub fn observe(&mut self, value: f64) {
        self.observe_many(value, 1);
    }

    fn observe_many(&mut self, value: f64, times: u32) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += u64::from(times);
        }
        self.sum += value * f64::from(times);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    #[must_use]
    pub const fn sum(&self) -> f64 {
        self.sum
    }

    /// Observations at or below `bound`.
    #[must_use]
    pub fn at_or_below(&self, bound: f64) -> u64 {
        let buckets = self.bounds.partition_point(|own| *own <= bound) + usize::from(bound.is_infinite());
        self.counts.iter().take(buckets).sum()
    }

    #[must_use]
    pub const fn bounds(&self) -> &'static [f64] {
        self.bounds
    }
}

/// Everything the replica counts, as its metrics page prints it.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub time_to_first_token: Observed,
    pub inter_token: Observed,
    pub end_to_end: Observed,
    pub queue: Observed,
    pub inference: Observed,
    pub prefill: Observed,
    pub decode: Observed,
    pub prompt: Observed,
    pub generation: Observed,
    pub step_tokens: Observed,
    pub prompt_tokens: u64,
    pub generation_tokens: u64,
    /// Requests answered.
    pub succeeded: u64,
    /// Requests refused with 429 by KAITO's cap on the queue.
    pub rejected: u64,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            time_to_first_token: Observed::new(bounds::TIME_TO_FIRST_TOKEN),
            inter_token: Observed::new(bounds::INTER_TOKEN),
            end_to_end: Observed::new(bounds::REQUEST),
            queue: Observed::new(bounds::REQUEST),
            inference: Observed::new(bounds::REQUEST),
            prefill: Observed::new(bounds::REQUEST),
            decode: Observed::new(bounds::REQUEST),
            prompt: Observed::new(bounds::TOKENS),
            generation: Observed::new(bounds::TOKENS),
            step_tokens: Observed::new(bounds::STEP_TOKENS),
            prompt_tokens: 0,
            generation_tokens: 0,
            succeeded: 0,
            rejected: 0,
        }
    }
}

/// KAITO's 429: more than `max_num_seqs` requests wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the replica's queue is full")]
pub struct QueueFull;

/// A request that was answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    pub request: Request,
    pub first_token: Moment,
    pub finished: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Sequence {
    request: Request,
    received: Moment,
    scheduled: Moment,
    first_token: Option<Moment>,
    last_token: Moment,
    generated: u32,
}

/// One replica: a queue, a batch, and the step that is under way.
#[derive(Clone, Debug)]
pub struct Replica {
    engine: Engine,
    waiting: VecDeque<(Request, Moment)>,
    running: Vec<Sequence>,
    /// When the step under way began and ends; `None` while there is nothing to do.
    step: Option<(Moment, Moment)>,
    measured: Measured,
    served: Vec<Served>,
}

impl Replica {
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            waiting: VecDeque::new(),
            running: Vec::new(),
            step: None,
            measured: Measured::default(),
            served: Vec::new(),
        }
    }

    /// A request comes in at `now`.
    pub fn offer(&mut self, request: Request, now: Moment) -> Result<(), QueueFull> {
        self.advance(now);
        if self.waiting.len() > self.engine.max_num_seqs as usize {
            self.measured.rejected += 1;
            return Err(QueueFull);
        }
        self.waiting.push_back((request, now));
        if self.step.is_none() {
            self.begin_step(now);
        }
        Ok(())
    }

    /// Runs every step that ends by `now`.
    pub fn advance(&mut self, now: Moment) {
        while let Some((began, ends)) = self.step
            && ends <= now
        {
            self.finish_step(began, ends);
            self.begin_step(ends);
        }
    }

    /// Requests that wait for a place in the batch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Requests in the batch.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The share of the KV cache that is in use, 0..=1.
    #[must_use]
    pub fn kv_usage(&self) -> f64 {
        let held: u32 =
            self.running.iter().map(|sequence| sequence.request.prompt_tokens + sequence.generated).sum();
        (f64::from(held) / f64::from(self.engine.kv_tokens)).min(1.0)
    }

    #[must_use]
    pub const fn measured(&self) -> &Measured {
        &self.measured
    }

    /// The requests that were answered since the last call.
    pub fn take_served(&mut self) -> Vec<Served> {
        std::mem::take(&mut self.served)
    }

    /// Admits what fits and starts the next step, or goes idle.
    fn begin_step(&mut self, now: Moment) {
        // A sequence reserves its whole length, so that nothing is ever preempted.
        let length = |request: &Request| request.prompt_tokens + request.output_tokens;
        let mut reserved: u32 = self.running.iter().map(|sequence| length(&sequence.request)).sum();
        let mut prefilled = 0;
        while let Some((request, received)) = self.waiting.front().copied() {
            let alone = self.running.is_empty();
            let batch_full = self.running.len() >= self.engine.max_num_seqs as usize;
            let fits = reserved + length(&request) <= self.engine.kv_tokens
                && prefilled + request.prompt_tokens <= self.engine.max_batched_tokens;
            // What is too long for the replica altogether still runs, by itself.
            if batch_full || !(fits || alone) {
                break;
            }
            self.waiting.pop_front();
            reserved += length(&request);
            prefilled += request.prompt_tokens;
            self.measured.queue.observe(seconds(now, received));
            self.running.push(Sequence {
                request,
                received,
                scheduled: now,
                first_token: None,
                last_token: now,
                generated: 0,
            });
        }
        let batch = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        self.step = (batch > 0).then(|| {
            let takes = self.engine.step
                + self.engine.step_per_sequence * batch
                + self.engine.step_per_prompt_token * prefilled;
            (now, now + takes.max(Duration::from_micros(1)))
        });
        if batch > 0 {
            self.measured.step_tokens.observe(f64::from(batch + prefilled));
        }
    }

    /// Every sequence of the batch has one more token at `now`.
    fn finish_step(&mut self, began: Moment, now: Moment) {
        let measured = &mut self.measured;
        let step = seconds(now, began);
        let decoding = self.running.iter().filter(|sequence| sequence.first_token.is_some()).count();
        measured.inter_token.observe_many(step, u32::try_from(decoding).unwrap_or(u32::MAX));
        for sequence in &mut self.running {
            sequence.generated += 1;
            sequence.last_token = now;
            measured.generation_tokens += 1;
            if sequence.first_token.is_none() {
                sequence.first_token = Some(now);
                measured.prompt_tokens += u64::from(sequence.request.prompt_tokens);
                measured.time_to_first_token.observe(seconds(now, sequence.received));
            }
        }
        let served = &mut self.served;
        self.running.retain(|sequence| {
            let unfinished = sequence.generated < sequence.request.output_tokens;
            if !unfinished {
                let first_token = sequence.first_token.unwrap_or(now);
                measured.end_to_end.observe(seconds(now, sequence.received));
                measured.inference.observe(seconds(now, sequence.scheduled));
                measured.prefill.observe(seconds(first_token, sequence.scheduled));
                measured.decode.observe(seconds(now, first_token));
                measured.prompt.observe(f64::from(sequence.request.prompt_tokens));
                measured.generation.observe(f64::from(sequence.generated));
                measured.succeeded += 1;
                served.push(Served { request: sequence.request, first_token, finished: now });
            }
            unfinished
        });
    }
}

fn seconds(later: Moment, earlier: Moment) -> f64 {
    later.saturating_since(earlier).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENGINE: Engine = Engine {
        max_num_seqs: 8,
        kv_tokens: 8192,
        step: Duration::from_millis(10),
        step_per_sequence: Duration::from_millis(1),
        step_per_prompt_token: Duration::from_micros(100),
        max_batched_tokens: 2048,
    };

    fn at(milliseconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1000) + Duration::from_millis(milliseconds))
    }

    fn request(sent: u64, prompt_tokens: u32, output_tokens: u32) -> Request {
        Request { sent: at(sent), prompt_tokens, output_tokens }
    }

    /// One request alone: its times can be worked out by hand.
    #[test]
    fn a_single_request_takes_its_prefill_and_one_step_a_token() {
        let mut replica = Replica::new(ENGINE);
        replica.offer(request(0, 100, 3), at(0)).unwrap();
        assert_eq!((replica.waiting(), replica.running()), (0, 1));
        // 10 + 1 + 100 × 0.1 = 21 ms for the first token, then two steps of 11 ms.
        replica.advance(at(42));
        assert_eq!(replica.take_served(), []);
        replica.advance(at(43));
        let served = replica.take_served();
        assert_eq!((served[0].first_token, served[0].finished), (at(21), at(43)));
        assert_eq!((replica.running(), replica.measured().generation_tokens), (0, 3));
        let measured = replica.measured();
        assert!((measured.time_to_first_token.sum() - 0.021).abs() < 1e-9);
        assert!((measured.end_to_end.sum() - 0.043).abs() < 1e-9);
        assert_eq!((measured.inter_token.count(), measured.queue.count()), (2, 1));
    }

    #[test]
    fn kaito_refuses_once_more_than_the_batch_limit_wait() {
        let mut replica = Replica::new(ENGINE);
        let outcomes: Vec<_> = (0..20).map(|_| replica.offer(request(0, 10, 50), at(0)).is_ok()).collect();
        // One is admitted at once and its step is under way; then 9 wait (8 is not "more than 8").
        assert_eq!(outcomes.iter().filter(|accepted| **accepted).count(), 10);
        assert_eq!((replica.waiting(), replica.measured().rejected), (9, 10));
    }

    #[test]
    fn the_kv_cache_bounds_the_batch_and_an_oversized_request_still_runs() {
        let mut replica = Replica::new(Engine { kv_tokens: 250, ..ENGINE });
        for _ in 0..3 {
            replica.offer(request(0, 90, 10), at(0)).unwrap();
        }
        replica.advance(at(30));
        assert_eq!((replica.running(), replica.waiting()), (2, 1));
        let mut replica = Replica::new(Engine { kv_tokens: 50, ..ENGINE });
        replica.offer(request(0, 90, 10), at(0)).unwrap();
        replica.advance(at(10_000));
        assert_eq!(replica.take_served().len(), 1);
    }

    #[test]
    fn a_fuller_batch_is_slower_for_each_but_faster_in_all() {
        let run = |load: u32| {
            let mut replica = Replica::new(ENGINE);
            for _ in 0..load {
                replica.offer(request(0, 10, 100), at(0)).unwrap();
            }
            replica.advance(at(60_000));
            let last = replica.take_served().iter().map(|served| served.finished).max().unwrap();
            (last.saturating_since(at(0)), replica.measured().decode.sum() / f64::from(load))
        };
        let (one, eight) = (run(1), run(8));
        assert!(eight.1 > one.1 * 1.3, "each sequence is slower: {one:?} {eight:?}");
        assert!(eight.0 < one.0 * 8, "and the batch beats eight in turn: {one:?} {eight:?}");
    }

    #[test]
    fn buckets_count_what_lies_at_or_below_their_bound() {
        let mut observed = Observed::new(bounds::REQUEST);
        for value in [0.3, 0.31, 9000.0] {
            observed.observe(value);
        }
        let table = [(0.3, 1), (0.5, 2), (7680.0, 2), (f64::INFINITY, 3)];
        assert!(table.iter().all(|(bound, count)| observed.at_or_below(*bound) == *count));
    }

    fn arrivals() -> impl Strategy<Value = Vec<(u64, u32, u32)>> {
        prop::collection::vec((0_u64..80, 1_u32..400, 1_u32..60), 1..120)
    }

    proptest! {
        /// Whatever comes in is waiting, running, served or refused; and no limit is exceeded.
        #[test]
        fn requests_are_conserved_and_limits_hold(arrivals in arrivals()) {
            let mut replica = Replica::new(ENGINE);
            let (mut now, mut offered, mut served) = (0, 0, 0);
            for (gap, prompt, output) in arrivals {
                now += gap;
                offered += 1;
                let _ = replica.offer(request(now, prompt, output), at(now));
                served += replica.take_served().len();
                let refused = usize::try_from(replica.measured().rejected).unwrap();
                prop_assert_eq!(offered, replica.waiting() + replica.running() + served + refused);
                prop_assert!(replica.waiting() <= 9 && replica.running() <= 8);
                prop_assert!((0.0..=1.0).contains(&replica.kv_usage()));
            }
            replica.advance(at(now + 600_000));
            served += replica.take_served().len();
            prop_assert_eq!(replica.measured().succeeded, u64::try_from(served).unwrap());
            prop_assert_eq!((replica.waiting(), replica.running()), (0, 0));
            prop_assert_eq!(replica.measured().end_to_end.count(), replica.measured().succeeded);
        }

        /// The model is the same however often it is looked at.
        #[test]
        fn looking_more_often_changes_nothing(arrivals in arrivals()) {
            let (mut coarse, mut fine) = (Replica::new(ENGINE), Replica::new(ENGINE));
            let mut now = 0;
            for (gap, prompt, output) in arrivals {
                for step in now..now + gap {
                    fine.advance(at(step));
                }
                now += gap;
                let _ = coarse.offer(request(now, prompt, output), at(now));
                let _ = fine.offer(request(now, prompt, output), at(now));
            }
            prop_assert_eq!(coarse.measured(), fine.measured());
            prop_assert_eq!(coarse.waiting(), fine.waiting());
        }

        /// One more request never makes the queue shorter.
        #[test]
        fn more_demand_never_means_a_shorter_queue(load in 1_usize..30, after in 0_u64..400) {
            let queue = |load| {
                let mut replica = Replica::new(ENGINE);
                for _ in 0..load {
                    let _ = replica.offer(request(0, 50, 40), at(0));
                }
                replica.advance(at(after));
                replica.waiting() + replica.running()
            };
            prop_assert!(queue(load + 1) >= queue(load));
        }
    }
}
