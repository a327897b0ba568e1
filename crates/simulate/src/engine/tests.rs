use proptest::prelude::*;

use super::*;
use crate::{
    preset::{PRESETS, fit::Quantity, table::Workload},
    random::Random,
    trace::{Prefix, Request},
};

const ENGINE: EngineSpec = EngineSpec {
    a_ns: 10_000_000,
    c_ns: 1_000_000,
    b_ns: 100_000,
    d_ps: 0,
    kv_tokens: 8192,
    max_seqs: 8,
    chunk: 2048,
    max_waiting: 8,
};

const MS: u64 = 1000;

fn request(at_us: u64, input_tokens: u32, output_tokens: u32) -> Offered {
    let request = Request { at_us, input_tokens, output_tokens, prefix: Prefix::UNKNOWN };
    Offered { request, tag: 0 }
}

fn served(replica: &mut Replica) -> Vec<(u64, u64)> {
    replica.take_served().map(|served| (served.first_token_us, served.finished_us)).collect()
}

/// One request alone: its times can be worked out by hand.
#[test]
fn a_single_request_takes_its_prefill_and_one_step_a_token() {
    let mut replica = Replica::new(ENGINE);
    replica.offer(request(0, 100, 3), 0).unwrap();
    assert_eq!((replica.waiting(), replica.running()), (0, 1));
    // 10 + 1 + 100 × 0.1 = 21 ms for the first token, then two steps of 11 ms.
    replica.advance(43 * MS - 1);
    assert!(!replica.has_served());
    replica.advance(43 * MS);
    assert_eq!(served(&mut replica), [(21 * MS, 43 * MS)]);
    assert!(replica.is_idle());
    let page = replica.scrape(0).clone();
    assert_eq!((page.generation_tokens, page.prompt_tokens, page.succeeded), (3, 100, 1));
    assert_eq!((page.steps, page.step_tokens), (3, 102));
    assert_eq!((page.time_to_first_token.sum_us, page.inter_token.count), (21 * MS, 2));
    assert_eq!((page.inter_token.sum_us, page.end_to_end.sum_us), (22 * MS, 43 * MS));
}

/// A long prompt is prefilled in pieces that leave room for the decodes, which go on.
#[test]
fn prefill_is_chunked_and_shares_its_budget_with_decodes() {
    let mut replica = Replica::new(EngineSpec { chunk: 100, ..ENGINE });
    replica.offer(request(0, 100, 50), 0).unwrap();
    replica.advance(21 * MS);
    replica.offer(request(0, 250, 2), 21 * MS).unwrap();
    // The step under way ends at 32 ms. Then 99, 99 and 52 tokens, each beside one decode.
    replica.advance(32 * MS + 2 * (12_000 + 9_900) + 12_000 + 5_200);
    let page = replica.scrape(0).clone();
    assert_eq!((page.steps, page.step_tokens), (5, 100 + 1 + 100 + 100 + 53));
    assert_eq!((page.running, page.generation_tokens), (2, 1 + 4 + 1));
    assert_eq!(page.time_to_first_token.count, 2);
}

#[test]
fn kaito_refuses_once_more_than_the_limit_wait() {
    let mut replica = Replica::new(ENGINE);
    let accepted = (0..20).filter(|_| replica.offer(request(0, 10, 50), 0).is_ok()).count();
    // One is admitted at once and its step is under way; then 9 wait (8 is not "more than 8").
    assert_eq!((accepted, replica.waiting(), replica.scrape(0).rejected), (10, 9, 10));
}

#[test]
fn a_full_cache_preempts_the_newest_and_what_it_had_is_computed_anew() {
    let mut replica = Replica::new(EngineSpec { kv_tokens: 210, ..ENGINE });
    for tag in 0..2 {
        let mut offered = request(0, 90, 60);
        offered.tag = tag;
        replica.offer(offered, 0).unwrap();
    }
    replica.advance(10_000 * MS);
    let order: Vec<_> = replica.take_served().map(|served| served.tag).collect();
    assert_eq!(order, [0, 1], "the older one is not held up");
    let page = replica.scrape(0).clone();
    assert_eq!((page.preemptions, page.generation_tokens, page.succeeded), (1, 120, 2));
    assert_eq!((page.prompt_tokens, page.kv_usage), (180, 0.0));
    // Both fit until together they hold 210, and the second is prefilled twice.
    assert!(page.step_tokens > 180 + 118, "{page:?}");
    assert_eq!(page.time_to_first_token.count, 2);
}

#[test]
fn what_is_too_long_for_the_cache_still_runs_by_itself() {
    let mut replica = Replica::new(EngineSpec { kv_tokens: 50, ..ENGINE });
    for _ in 0..2 {
        replica.offer(request(0, 90, 10), 0).unwrap();
    }
    replica.advance(10 * MS);
    assert_eq!((replica.running(), replica.waiting(), replica.kv_usage()), (1, 1, 1.0));
    replica.advance(10_000 * MS);
    assert_eq!((served(&mut replica).len(), replica.scrape(0).preemptions), (2, 0));
}

#[test]
fn a_shared_prefix_is_computed_once_while_it_stays_cached() {
    let with = |hashes: &[u64], input_tokens| {
        let mut offered = request(0, input_tokens, 1);
        offered.request.prefix = Prefix::new(hashes);
        offered
    };
    let mut replica = Replica::new(ENGINE);
    // Each is served before the next comes.
    let mut now = 0;
    let mut took = |offered: Offered| {
        replica.offer(offered, now).unwrap();
        replica.advance(now + 10_000 * MS);
        let (first, _) = served(&mut replica)[0];
        let took = first - now;
        now += 10_000 * MS;
        (took, replica.scrape(0).kv_usage)
    };
    // 11 ms and 0.1 ms for each token that is computed; the last block is not full.
    assert_eq!(took(with(&[1, 2, 3], 1100)), (11 * MS + 110_000, 0.0));
    assert_eq!(took(with(&[1, 2, 4], 1100)), (11 * MS + 7_600, 0.0));
    assert_eq!(took(with(&[9, 2, 4], 1100)).0, 11 * MS + 110_000);
    // Of a prompt that is cached as a whole the last block is computed all the same.
    assert_eq!(took(with(&[1, 2], 1024)).0, 11 * MS + 51_200);
    // One that fills the cache drives everything out.
    assert_eq!(took(request(0, 8192, 1)).1, 0.0);
    assert_eq!(took(with(&[1, 2, 3], 1100)).0, 11 * MS + 110_000);
}

#[test]
fn a_step_may_cost_more_the_longer_the_contexts() {
    let mut replica = Replica::new(EngineSpec { d_ps: 1_000_000, ..ENGINE });
    replica.offer(request(0, 100, 3), 0).unwrap();
    // 1 µs for each token of context: 101, then 102.
    replica.advance(1000 * MS);
    assert_eq!(served(&mut replica), [(21 * MS, 43 * MS + 101 + 102)]);
}

/// Poisson arrivals at one server with a fixed service time: mean wait ρ·D / 2(1 − ρ).
#[test]
fn a_batch_of_one_is_an_m_d_1_queue() {
    let spec = EngineSpec { a_ns: 10_000_000, b_ns: 0, c_ns: 0, max_seqs: 1, max_waiting: 100_000, ..ENGINE };
    for load in [0.5, 0.8] {
        let mut replica = Replica::new(spec);
        let mut random = Random::seeded(3);
        let (mut now, mut waited, requests) = (0.0, 0, 400_000);
        for _ in 0..requests {
            now += random.exponential(10_000.0 / load);
            let at = whole(now);
            replica.offer(request(at, 1, 1), at).unwrap();
            waited +=
                replica.take_served().map(|served| served.finished_us - served.at_us - 10_000).sum::<u64>();
        }
        let (mean, expected) = (waited as f64 / f64::from(requests), load * 10_000.0 / (2.0 * (1.0 - load)));
        assert!((mean / expected - 1.0).abs() < 0.05, "load {load}: {mean} instead of {expected}");
    }
}

/// Poisson arrivals, answers of about exponential length and steps that do not depend on the
/// batch: M/M/c, whose mean wait is Erlang's.
#[test]
fn a_large_batch_is_an_m_m_c_queue() {
    let (servers, load, mean_tokens) = (16_u32, 0.85, 400.0);
    let spec = EngineSpec {
        a_ns: 1_000_000,
        b_ns: 0,
        c_ns: 0,
        max_seqs: servers,
        kv_tokens: 10_000_000,
        max_waiting: 100_000,
        ..ENGINE
    };
    let mut replica = Replica::new(spec);
    let mut random = Random::seeded(5);
    let service_us = mean_tokens * 1000.0;
    let (mut now, requests) = (0.0, 500_000);
    for _ in 0..requests {
        now += random.exponential(service_us / (load * f64::from(servers)));
        let tokens = u32::try_from(whole(random.exponential(mean_tokens) + 0.5)).unwrap().max(1);
        replica.offer(request(whole(now), 1, tokens), whole(now)).unwrap();
    }
    let offered = load * f64::from(servers);
    let mut blocked = 1.0;
    for k in 1..=servers {
        blocked = offered * blocked / (f64::from(k) + offered * blocked);
    }
    let waits = blocked / (1.0 - load * (1.0 - blocked));
    let expected = waits * service_us / (f64::from(servers) * (1.0 - load));
    let queue_time = replica.scrape(0).queue_time;
    let mean = queue_time.sum_us as f64 / queue_time.count as f64;
    assert!((mean / expected - 1.0).abs() < 0.08, "{mean} instead of {expected}");
}

/// The replica itself, not only its law, against every cell of the measured tables that the law
/// is held to: all requests of a batch prefilled in one step, as they were measured.
#[test]
fn a_replica_takes_the_time_that_was_measured() {
    let mut cells = 0;
    for preset in PRESETS {
        let Some(fit) = preset.fit().unwrap() else { continue };
        for cell in fit.compared.iter().filter(|cell| cell.outside.is_none()) {
            let Workload { batch, prompt, answer } = cell.workload;
            let spec = EngineSpec { chunk: (batch * prompt).max(256), ..preset.engine().unwrap() };
            let mut replica = Replica::new(spec);
            // While this one is served the batch gathers.
            replica.offer(request(0, 1, 1), 0).unwrap();
            let begins = replica.next_change_us().unwrap();
            (0..batch).for_each(|_| replica.offer(request(0, prompt, answer), 0).unwrap());
            replica.advance(1000 * 1_000_000);
            let last = replica.take_served().next_back().unwrap();
            let took_us = match cell.quantity {
                Quantity::Prefill => last.first_token_us - begins,
                Quantity::Itl => (last.finished_us - last.first_token_us) / u64::from(answer - 1),
            };
            let error = took_us as f64 / 1000.0 / cell.measured - 1.0;
            assert!(error.abs() <= 0.1, "{}: {error:.3} for {cell:?}", preset.name);
            cells += 1;
        }
    }
    assert!(cells >= 80, "{cells}");
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn whole(number: f64) -> u64 {
    number as u64
}

type Arrival = (u64, u32, u32, u64);

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    prop::collection::vec((0_u64..80, 1_u32..1500, 1_u32..60, 0_u64..4), 1..120)
}

/// Small enough to preempt and to evict.
fn tight() -> impl Strategy<Value = EngineSpec> {
    (1500_u64..9000, 1_u32..9, 8_u32..300, prop::bool::ANY).prop_map(
        |(kv_tokens, max_seqs, chunk, context)| EngineSpec {
            kv_tokens,
            max_seqs,
            chunk,
            d_ps: if context { 20_000 } else { 0 },
            ..ENGINE
        },
    )
}

fn offered((_, input_tokens, output_tokens, family): &Arrival, at_us: u64) -> Offered {
    let prefix = match family {
        0 => Prefix::UNKNOWN,
        family => Prefix::new(&[*family, 10 + family, 20 + u64::from(*input_tokens)]),
    };
    let request = Request { at_us, input_tokens: *input_tokens, output_tokens: *output_tokens, prefix };
    Offered { request, tag: at_us }
}

proptest! {
    /// Whatever comes in is waiting, running, served or refused, and no limit is exceeded; in
    /// the end every answer has the length that was asked for, preempted or not.
    #[test]
    fn requests_and_tokens_are_conserved(spec in tight(), arrivals in arrivals()) {
        let mut replica = Replica::new(spec);
        let (mut now, mut offers, mut done, mut refused, mut tokens) = (0, 0, 0, 0, 0);
        for arrival in &arrivals {
            now += arrival.0 * MS;
            offers += 1;
            match replica.offer(offered(arrival, now), now) {
                Ok(()) => tokens += u64::from(arrival.2),
                Err(_) => refused += 1,
            }
            done += replica.take_served().count();
            prop_assert_eq!(offers, replica.waiting() + replica.running() + done + refused);
            prop_assert_eq!(replica.held().count(), replica.waiting() + replica.running());
            prop_assert!(replica.running() <= spec.max_seqs as usize);
            prop_assert!((0.0..=1.0).contains(&replica.kv_usage()));
        }
        replica.advance(now + 100_000_000_000);
        let last: Vec<_> = replica.take_served().collect();
        prop_assert!(last.iter().all(|one| one.at_us < one.first_token_us && one.first_token_us <= one.finished_us));
        done += last.len();
        let page = replica.scrape(0).clone();
        prop_assert_eq!((page.succeeded, page.rejected), (done as u64, refused as u64));
        prop_assert_eq!((page.waiting, page.running, page.kv_usage), (0, 0, 0.0));
        prop_assert_eq!((page.generation_tokens, page.generation_tokens_of_answered), (tokens, tokens));
        prop_assert_eq!(page.time_to_first_token.count + page.inter_token.count, tokens);
        prop_assert_eq!(page.end_to_end.count, page.succeeded);
    }

    /// The model is the same however often it is looked at.
    #[test]
    fn looking_more_often_changes_nothing(spec in tight(), arrivals in arrivals()) {
        let (mut coarse, mut fine) = (Replica::new(spec), Replica::new(spec));
        let mut now = 0;
        for arrival in &arrivals {
            for look in 0..arrival.0 {
                fine.advance(now + look * MS);
            }
            now += arrival.0 * MS;
            let _ = coarse.offer(offered(arrival, now), now);
            let _ = fine.offer(offered(arrival, now), now);
        }
        prop_assert_eq!(coarse.scrape(0), fine.scrape(0));
        coarse.advance(now + 10_000_000_000);
        for look in 0..200 {
            fine.advance(now + look * 777 * MS);
        }
        fine.advance(now + 10_000_000_000);
        prop_assert_eq!(coarse.scrape(0), fine.scrape(0));
        prop_assert!(coarse.take_served().eq(fine.take_served()));
    }
}
