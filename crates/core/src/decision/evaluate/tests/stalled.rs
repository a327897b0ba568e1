//! Engines that answer, hold requests, and generate nothing.

use super::*;
use crate::endpoint::pod::STALLED_AFTER;

/// What one page says.
#[derive(Clone, Copy)]
struct Page {
    second: u64,
    waiting: f64,
    running: f64,
    tokens: Option<f64>,
    awake: Option<bool>,
}

/// A frozen page, as an engine prints it that aborted: 106 run, 15 wait.
const FROZEN: Page = Page { second: 0, waiting: 15.0, running: 106.0, tokens: Some(50_000.0), awake: None };

fn read(pages: &[Page]) -> Pod {
    let mut stuck = pod(0, Is::Unread);
    let last = pages.iter().map(|page| page.second).max().unwrap();
    for page in pages {
        let sample = PodSample {
            readings: vec![(waiting(), Reading::Value(page.waiting))],
            demand: PodDemand { waiting: Some(page.waiting), running: Some(page.running) },
            tokens: page.tokens,
            awake: page.awake,
            engine: true,
            ..PodSample::default()
        };
        stuck.sampled(NOW - Duration::from_secs(last - page.second), PageKind::Filtered, sample);
    }
    stuck
}

#[test]
fn an_engine_that_holds_requests_and_generates_nothing_is_stalled() {
    let at = |second, page: Page| Page { second, ..page };
    let idle = Page { running: 0.0, waiting: 0.0, ..FROZEN };
    let moved = Page { tokens: Some(50_001.0), ..FROZEN };
    let silent = Page { tokens: None, ..FROZEN };
    let asleep = Page { awake: Some(false), ..FROZEN };
    let queued = Page { running: 0.0, ..FROZEN };
    // What it is about, the pages, stalled.
    let cases: [(&str, Vec<Page>, bool); 10] = [
        ("for five minutes", vec![at(0, FROZEN), at(299, FROZEN), at(300, FROZEN)], true),
        ("not for so long", vec![at(0, FROZEN), at(299, FROZEN)], false),
        ("a token meanwhile", vec![at(0, FROZEN), at(200, moved), at(300, moved)], false),
        ("and then none", vec![at(0, FROZEN), at(200, moved), at(500, moved)], true),
        ("nothing held meanwhile", vec![at(0, FROZEN), at(200, idle), at(300, FROZEN)], false),
        ("idle", vec![at(0, idle), at(400, idle)], false),
        ("a server that counts no tokens", vec![at(0, silent), at(400, silent)], false),
        ("asleep", vec![at(0, asleep), at(400, asleep)], false),
        ("what waits is held too", vec![at(0, queued), at(400, queued)], true),
        ("it counts again from 0", vec![at(0, FROZEN), at(300, Page { tokens: Some(0.0), ..FROZEN })], false),
    ];
    let one = set(1);
    for (what, pages, stalled) in cases {
        let pods = [read(&pages)];
        let observed = observed(&one, &pods);
        let snapshot = decide(&trigger(&[]), &observed);
        assert_eq!(snapshot.stalled, u32::from(stalled), "{what}");
        let reason = "1 replicas hold requests and generated nothing for 5 m";
        assert_eq!(snapshot.why().contains(reason), stalled, "{}", snapshot.why());
        let named = super::super::stalled(&trigger(&[]), &observed, NOW);
        assert_eq!(named.pods.len(), usize::from(stalled), "{what}");
    }
    assert_eq!(STALLED_AFTER, Duration::from_secs(300));
}

#[test]
fn its_requests_stay_demand_and_its_rate_is_unknown() {
    let stuck = read(&[FROZEN, Page { second: 301, ..FROZEN }]);
    let one = set(1);
    let snapshot = decide(&trigger(&[]), &observed(&one, std::slice::from_ref(&stuck)));
    assert_eq!((value(&snapshot), snapshot.demand.amount), (Ok(15.0), 121.0));
    assert_eq!(snapshot.activity, Activity::Active(Cause::Demand));

    // A rate of 0 of an engine that is asked for much would scale down.
    let tokens = metric("my_tokens_total");
    let rate = trigger(&[("aggregation", "rate"), ("metricName", tokens.as_str())]);
    let span = Duration::from_secs(300);
    let counting = |mut pod: Pod, per_second: f64, tokens_of: Option<f64>| {
        pod.keep_windows(&[WindowKey { metric: tokens.clone(), span }]);
        for second in [0_u32, 150, 300] {
            let counter = Cumulative::of_count(per_second * f64::from(second));
            let sample = PodSample {
                readings: vec![(tokens.clone(), Reading::Counter(counter))],
                demand: PodDemand { waiting: Some(5.0), running: Some(5.0) },
                tokens: tokens_of,
                engine: true,
                ..PodSample::default()
            };
            pod.sampled(NOW - Duration::from_secs(300 - u64::from(second)), PageKind::Filtered, sample);
        }
        pod
    };
    let two = set(2);
    let pods = [counting(pod(0, Is::Unread), 4.0, None), counting(pod(1, Is::Unread), 0.0, Some(7.0))];
    let snapshot = decide(&rate, &observed(&two, &pods));
    assert_eq!((value(&snapshot), snapshot.stalled), (Ok(14.0), 1), "filled in at target");
}
