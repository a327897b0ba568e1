//! One replica: a queue, a batch, and the steps that are under way.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::{EngineSpec, prefix_cache::PrefixCache};
use crate::{
    page::{Page, Times, bounds},
    trace::{Prefix, Request},
};

/// A request as a replica gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// The request.
    pub request: Request,
    /// Whatever its sender wants to know of it later.
    pub tag: u64,
}

/// KAITO's 429: too many requests wait already. Gives the request back.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueFull(pub Offered);

/// A request that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The tag that it was offered with.
    pub tag: u64,
    /// When its client first sent it.
    pub at_us: u64,
    /// Length of the answer.
    pub output_tokens: u32,
    /// When its first token came.
    pub first_token_us: u64,
    /// When its last token came.
    pub finished_us: u64,
}

/// A request that waits, for the first time or again after a preemption.
#[derive(Clone, Debug)]
struct Waiting {
    offered: Offered,
    received_us: u64,
    /// 0 unless preempted.
    generated: u32,
    /// Of the first and of the newest token, where there is one.
    first_token_us: Option<u64>,
    last_token_us: u64,
    scheduled_before: bool,
}

#[derive(Clone, Debug)]
struct Sequence {
    waiting: Waiting,
    /// In the order of admission; tells which is the newest, and whether a slot still holds
    /// the sequence that was meant.
    serial: u64,
    /// Leading blocks of the prompt that are pinned in the prefix cache.
    pinned: u32,
    /// Tokens of its own in the KV cache when it began to decode, or the whole prompt's while it
    /// is prefilled.
    held: u64,
    /// Tokens that are still to be prefilled; 0 while it decodes.
    to_prefill: u32,
    /// Tokens of it that the step under way prefills.
    prefilled_now: u32,
    /// Count of decode steps when it began to decode.
    joined_step: u64,
    /// Count of decode steps at which it has its last token.
    finish_step: u64,
}

/// Steps of the same length one after the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    begins_us: u64,
    step_us: u64,
    /// Steps until something changes, at least 1.
    left: u64,
    prefilled: u32,
}

/// One replica. It is a function of its inputs: time is passed in, nothing is random, and it
/// makes no difference how often [`Replica::advance`] is called.
#[derive(Clone, Debug)]
pub struct Replica {
    spec: EngineSpec,
    queue: VecDeque<Waiting>,
    slots: Vec<Option<Sequence>>,
    free: Vec<u32>,
    /// Slots whose prompt is not done yet, in the order of admission.
    prefilling: Vec<u32>,
    /// Finish step, serial and slot of those that decode; may hold some that were preempted.
    decoding: BinaryHeap<Reverse<(u64, u64, u32)>>,
    decoders: u32,
    /// Decode steps so far: every sequence that decodes gets one token in each.
    decode_steps: u64,
    /// Tokens that sequences hold beside pinned blocks.
    own_tokens: u64,
    /// Sum of the contexts of those that decode.
    context: u64,
    cache: PrefixCache,
    next_serial: u64,
    run: Option<Run>,
    page: Page,
    served: Vec<Served>,
}

impl Replica {
    /// An idle replica.
    #[must_use]
    pub fn new(spec: EngineSpec) -> Self {
        Self {
            spec: EngineSpec { chunk: spec.chunk.max(spec.max_seqs), ..spec },
            queue: VecDeque::new(),
            slots: Vec::new(),
            free: Vec::new(),
            prefilling: Vec::new(),
            decoding: BinaryHeap::new(),
            decoders: 0,
            decode_steps: 0,
            own_tokens: 0,
            context: 0,
            cache: PrefixCache::default(),
            next_serial: 0,
            run: None,
            page: Page::default(),
            served: Vec::new(),
        }
    }

    /// A request comes in at `now_us`.
    pub fn offer(&mut self, offered: Offered, now_us: u64) -> Result<(), QueueFull> {
        self.advance(now_us);
        if self.queue.len() > self.spec.max_waiting as usize {
            self.page.rejected += 1;
            return Err(QueueFull(offered));
        }
        self.queue.push_back(Waiting {
            offered,
            received_us: now_us,
            generated: 0,
            first_token_us: None,
            last_token_us: 0,
            scheduled_before: false,
        });
        match &mut self.run {
            // It is looked at when the step under way ends.
            Some(run) => run.left = 1,
            None => self.plan(now_us),
        }
        Ok(())
    }

    /// Runs every step that ends by `now_us`.
    pub fn advance(&mut self, now_us: u64) {
        while let Some(run) = self.run {
            let done = (now_us.saturating_sub(run.begins_us) / run.step_us).min(run.left);
            if done == 0 {
                return;
            }
            let ends = run.begins_us + done * run.step_us;
            self.complete(&run, done, ends);
            if done == run.left {
                self.plan(ends);
            } else {
                self.run = Some(Run { begins_us: ends, left: run.left - done, ..run });
            }
        }
    }

    /// When this replica next changes by itself, at the latest; `None` while it is idle.
    #[must_use]
    pub fn next_change_us(&self) -> Option<u64> {
        self.run.map(|run| run.begins_us + run.left * run.step_us)
    }

    /// Requests that wait for a place in the batch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Requests in the batch.
    #[must_use]
    pub fn running(&self) -> usize {
        self.decoders as usize + self.prefilling.len()
    }

    /// Whether it holds no request.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.run.is_none()
    }

    /// The share of the KV cache that is in use, 0 to 1.
    #[must_use]
    pub fn kv_usage(&self) -> f64 {
        (self.used_tokens() as f64 / self.spec.kv_tokens as f64).min(1.0)
    }

    /// How many tokens of a prompt that begins with `prefix` the prefix cache holds.
    #[must_use]
    pub fn cached_tokens(&self, prefix: &Prefix) -> u64 {
        self.cache.hits(prefix.blocks()) as u64 * u64::from(Prefix::BLOCK_TOKENS)
    }

    /// The metrics page, as a scrape at `now_us` finds it.
    pub fn scrape(&mut self, now_us: u64) -> &Page {
        self.advance(now_us);
        self.page.running = u32::try_from(self.running()).unwrap_or(u32::MAX);
        self.page.waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        self.page.kv_usage = self.kv_usage();
        &self.page
    }

    /// The page that the last [`Replica::scrape`] found.
    #[must_use]
    pub const fn page(&self) -> &Page {
        &self.page
    }

    /// Hands over the requests that were answered since the last call.
    pub fn take_served(&mut self) -> std::vec::Drain<'_, Served> {
        self.served.drain(..)
    }

    /// Whether [`Replica::take_served`] has something.
    #[must_use]
    pub fn has_served(&self) -> bool {
        !self.served.is_empty()
    }

    /// The requests that it holds, waiting ones first.
    pub fn held(&self) -> impl Iterator<Item = &Offered> {
        let running = self.slots.iter().flatten().map(|sequence| &sequence.waiting);
        self.queue.iter().chain(running).map(|waiting| &waiting.offered)
    }

    fn used_tokens(&self) -> u64 {
        self.own_tokens + u64::from(self.cache.pinned()) * u64::from(Prefix::BLOCK_TOKENS)
    }

    /// Makes room for `tokens` more by dropping cached blocks that nobody uses; `false` where
    /// that does not suffice.
    fn make_room(&mut self, tokens: u64) -> bool {
        if self.used_tokens() + tokens > self.spec.kv_tokens {
            return false;
        }
        let block = u64::from(Prefix::BLOCK_TOKENS);
        while self.own_tokens + tokens + self.cache.len() as u64 * block > self.spec.kv_tokens {
            if !self.cache.evict() {
                break;
            }
        }
        true
    }

    /// Decides about the step that begins at `now_us`, and for how many steps it goes on.
    fn plan(&mut self, now_us: u64) {
        let mut preempted = false;
        while !self.make_room(u64::from(self.decoders)) && self.running() > 1 {
            self.preempt_newest(now_us);
            preempted = true;
        }
        let mut budget = self.spec.chunk - self.decoders;
        let mut prefilled = 0;
        let mut in_step = self.decoders;
        for slot in &self.prefilling {
            let Some(sequence) = &mut self.slots[*slot as usize] else { continue };
            let tokens = sequence.to_prefill.min(budget);
            sequence.prefilled_now = tokens;
            budget -= tokens;
            prefilled += tokens;
            in_step += u32::from(tokens > 0);
        }
        while !preempted && budget > 0 && self.running() < self.spec.max_seqs as usize {
            let Some(tokens) = self.admit_next(budget, now_us) else { break };
            budget -= tokens;
            prefilled += tokens;
            in_step += 1;
        }
        if in_step == 0 {
            self.run = None;
            return;
        }
        let left = if prefilled > 0 || self.spec.d_ps > 0 { 1 } else { self.steady_steps() };
        let step_us = self.step_us(in_step, prefilled);
        self.run = Some(Run { begins_us: now_us, step_us, left, prefilled });
    }

    /// Steps until a sequence has its last token or the KV cache is full.
    fn steady_steps(&mut self) -> u64 {
        let finish = self.first_finish().map_or(1, |finish| finish - self.decode_steps);
        let room = self.spec.kv_tokens.saturating_sub(self.used_tokens()) / u64::from(self.decoders.max(1));
        finish.min(room).max(1)
    }

    /// The count of decode steps at which the next sequence has its last token.
    fn first_finish(&mut self) -> Option<u64> {
        while let Some(Reverse((finish, serial, slot))) = self.decoding.peek().copied() {
            if self.slots[slot as usize].as_ref().is_some_and(|sequence| sequence.serial == serial) {
                return Some(finish);
            }
            self.decoding.pop();
        }
        None
    }

    fn step_us(&self, in_step: u32, prefilled: u32) -> u64 {
        let EngineSpec { a_ns, b_ns, c_ns, d_ps, .. } = self.spec;
        let nanoseconds =
            a_ns + c_ns * u64::from(in_step) + b_ns * u64::from(prefilled) + d_ps * self.context / 1000;
        ((nanoseconds + 500) / 1000).max(1)
    }

    /// Takes the first that waits into the batch, where it fits, and says how many of its
    /// tokens the step prefills.
    fn admit_next(&mut self, budget: u32, now_us: u64) -> Option<u32> {
        let next = self.queue.front()?;
        let request = &next.offered.request;
        let blocks = full_blocks(request);
        let length = request.input_tokens.max(1) + next.generated;
        // The last token is always computed: its output is what is wanted.
        let most = ((length - 1) / Prefix::BLOCK_TOKENS) as usize;
        let hits = self.cache.hits(&request.prefix.blocks()[..blocks]).min(most);
        let prefix = request.prefix.clone();
        let hashes = &prefix.blocks()[..hits];
        for hash in hashes {
            self.cache.pin(*hash);
        }
        let cached = u32::try_from(hits).unwrap_or(0) * Prefix::BLOCK_TOKENS;
        let own = length - cached;
        // What is too long for the replica altogether still runs, by itself.
        if !self.make_room(u64::from(own) + u64::from(self.decoders)) && self.running() > 0 {
            self.cache.unpin(hashes);
            return None;
        }
        let mut waiting = self.queue.pop_front()?;
        if !waiting.scheduled_before {
            waiting.scheduled_before = true;
            observe(&mut self.page.queue_time, &bounds::REQUEST, now_us - waiting.received_us, 1);
            self.page.prompt_tokens_cached += u64::from(cached);
        }
        self.own_tokens += u64::from(own);
        let tokens = own.min(budget);
        self.next_serial += 1;
        let sequence = Sequence {
            waiting,
            serial: self.next_serial,
            pinned: u32::try_from(hits).unwrap_or(0),
            held: u64::from(own),
            to_prefill: own,
            prefilled_now: tokens,
            joined_step: 0,
            finish_step: 0,
        };
        let slot = self.put(sequence);
        self.prefilling.push(slot);
        Some(tokens)
    }

    fn put(&mut self, sequence: Sequence) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(sequence);
                slot
            }
            None => {
                self.slots.push(Some(sequence));
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        }
    }

    /// Puts the newest sequence back to the head of the queue; what it had is computed anew.
    fn preempt_newest(&mut self, now_us: u64) {
        let serial = |slot: &Option<Sequence>| slot.as_ref().map(|sequence| sequence.serial);
        let newest = (0_u32..).zip(&self.slots).max_by_key(|(_, slot)| serial(slot)).map(|(index, _)| index);
        let Some(slot) = newest else { return };
        let decodes = self.slots[slot as usize].as_ref().is_some_and(|sequence| sequence.to_prefill == 0);
        let Some(mut waiting) = self.release(slot) else { return };
        if decodes {
            waiting.last_token_us = now_us;
        } else {
            self.prefilling.retain(|other| *other != slot);
        }
        self.page.preemptions += 1;
        self.queue.push_front(waiting);
    }

    /// Takes a sequence out of the batch and frees what it holds.
    fn release(&mut self, slot: u32) -> Option<Waiting> {
        let mut sequence = self.slots[slot as usize].take()?;
        self.free.push(slot);
        let mut held = sequence.held;
        if sequence.to_prefill == 0 {
            let grown = self.decode_steps - sequence.joined_step;
            held += grown;
            self.decoders -= 1;
            let waiting = &mut sequence.waiting;
            waiting.generated += u32::try_from(grown).unwrap_or(u32::MAX);
            self.context -= u64::from(waiting.offered.request.input_tokens) + u64::from(waiting.generated);
        }
        self.own_tokens -= held;
        let blocks = &sequence.waiting.offered.request.prefix.blocks()[..sequence.pinned as usize];
        self.cache.unpin(blocks);
        Some(sequence.waiting)
    }

    /// `done` steps of `run` have ended, the last one at `now_us`.
    fn complete(&mut self, run: &Run, done: u64, now_us: u64) {
        let decoders = u64::from(self.decoders);
        self.page.steps += done;
        self.page.step_tokens += (decoders + u64::from(run.prefilled)) * done;
        self.page.generation_tokens += decoders * done;
        observe(&mut self.page.inter_token, &bounds::INTER_TOKEN, run.step_us, decoders * done);
        self.decode_steps += done;
        self.own_tokens += decoders * done;
        self.context += decoders * done;
        // Blocks that nobody uses give way to what has grown.
        self.make_room(0);
        while self.first_finish().is_some_and(|finish| finish <= self.decode_steps) {
            if let Some(Reverse((_, _, slot))) = self.decoding.pop() {
                self.finish(slot, now_us);
            }
        }
        if run.prefilled > 0 {
            let mut prefilling = std::mem::take(&mut self.prefilling);
            prefilling.retain(|slot| self.still_prefills(*slot, now_us));
            self.prefilling = prefilling;
        }
    }

    /// Counts what the step prefilled of the sequence. With the last of it comes a token.
    fn still_prefills(&mut self, slot: u32, now_us: u64) -> bool {
        let Some(sequence) = &mut self.slots[slot as usize] else { return false };
        sequence.to_prefill -= sequence.prefilled_now;
        sequence.prefilled_now = 0;
        if sequence.to_prefill > 0 {
            return true;
        }
        let waiting = &mut sequence.waiting;
        let request = &waiting.offered.request;
        waiting.generated += 1;
        self.page.generation_tokens += 1;
        if waiting.first_token_us.is_none() {
            waiting.first_token_us = Some(now_us);
            self.page.prompt_tokens += u64::from(request.input_tokens);
            let took = now_us - waiting.received_us;
            observe(&mut self.page.time_to_first_token, &bounds::TIME_TO_FIRST_TOKEN, took, 1);
        } else {
            let took = now_us - waiting.last_token_us;
            observe(&mut self.page.inter_token, &bounds::INTER_TOKEN, took, 1);
        }
        // What was computed is in the prefix cache from now on.
        let blocks = full_blocks(request);
        for hash in &request.prefix.blocks()[(sequence.pinned as usize).min(blocks)..blocks] {
            self.cache.pin(*hash);
        }
        let moved = u32::try_from(blocks).unwrap_or(0).saturating_sub(sequence.pinned);
        sequence.pinned += moved;
        let moved = u64::from(moved) * u64::from(Prefix::BLOCK_TOKENS);
        sequence.held -= moved;
        self.own_tokens -= moved;
        sequence.joined_step = self.decode_steps;
        sequence.finish_step =
            self.decode_steps + u64::from(request.output_tokens.saturating_sub(waiting.generated));
        self.decoders += 1;
        self.context += u64::from(request.input_tokens) + u64::from(waiting.generated);
        let (finish, serial) = (sequence.finish_step, sequence.serial);
        if finish == self.decode_steps {
            self.finish(slot, now_us);
        } else {
            self.decoding.push(Reverse((finish, serial, slot)));
        }
        false
    }

    fn finish(&mut self, slot: u32, now_us: u64) {
        let Some(waiting) = self.release(slot) else { return };
        let request = &waiting.offered.request;
        self.page.succeeded += 1;
        self.page.prompt_tokens_of_answered += u64::from(request.input_tokens);
        self.page.generation_tokens_of_answered += u64::from(waiting.generated);
        observe(&mut self.page.end_to_end, &bounds::REQUEST, now_us - waiting.received_us, 1);
        self.served.push(Served {
            tag: waiting.offered.tag,
            at_us: request.at_us,
            output_tokens: request.output_tokens,
            first_token_us: waiting.first_token_us.unwrap_or(now_us),
            finished_us: now_us,
        });
    }
}

/// Blocks of the prompt that are full: only those are ever shared.
fn full_blocks(request: &Request) -> usize {
    request.prefix.blocks().len().min((request.input_tokens / Prefix::BLOCK_TOKENS) as usize)
}

fn observe<const BUCKETS: usize>(
    times: &mut Times<BUCKETS>,
    bounds: &[f64; BUCKETS],
    took_us: u64,
    count: u64,
) {
    if count == 0 {
        return;
    }
    let seconds = took_us as f64 / 1e6;
    let bucket = bounds.partition_point(|bound| *bound < seconds);
    if let Some(bucket) = times.buckets.get_mut(bucket) {
        *bucket += count;
    }
    times.count += count;
    times.sum_us += took_us * count;
}
