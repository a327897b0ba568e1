//! Many targets: what they cost is counted, in turns that the test makes by hand.

use super::*;
use crate::aggregator::inbox::{BATCH, Batch};

/// An aggregator that stands still, and the ends of its queues.
struct ByHand {
    clock: Clock,
    targets: Targets,
    asked: Asked,
    metrics: Metrics,
    inbox: Inbox,
    reports: mpsc::Sender<ScrapeReport>,
    aggregator: Aggregator<Asked>,
    _rest: (mpsc::Sender<FleetEvent>, mpsc::Sender<SourceReport>, mpsc::Sender<DebugRequest>),
}

impl ByHand {
    fn new() -> Self {
        let clock = Clock::start();
        let (registered, registrations) = mpsc::unbounded_channel();
        let (fleet, fleet_inbox) = mpsc::channel(16);
        let (source, sources) = mpsc::channel(16);
        let (asking, debug_requests) = mpsc::channel(1);
        let (reports, report_inbox) = mpsc::channel(BATCH);
        let targets = Targets::new(registered, clock, Tenancy::OwnNamespace);
        let (asked, metrics) = (Asked::default(), Metrics::default());
        let aggregator = Aggregator::new(clock, asked.clone(), targets.clone(), metrics.clone());
        let inbox =
            Inbox { fleet: fleet_inbox, registrations, debug_requests, reports: report_inbox, sources };
        Self { clock, targets, asked, metrics, inbox, reports, aggregator, _rest: (fleet, source, asking) }
    }

    fn call(&self, set: &str, more: &[(&str, &str)]) -> Arc<Target> {
        let mut metadata = HashMap::new();
        let common = [
            ("inferenceSetNamespace", "team-a"),
            ("inferenceSetName", set),
            ("metricName", "vllm:num_requests_waiting"),
            ("threshold", "10"),
        ];
        for (key, text) in common.iter().chain(more) {
            metadata.insert((*key).to_owned(), (*text).to_owned());
        }
        self.targets.find_or_register("team-a", set, &metadata, None).unwrap()
    }

    /// One turn with all that waits, as far as it fits in.
    fn turn(&mut self) {
        let mut batch = Batch::default();
        self.inbox.fill(&mut batch);
        self.aggregator.turn(&mut batch, false);
    }

    fn discover(&mut self, pod: &str) {
        let endpoint = Endpoint {
            uid: PodUid(pod.into()),
            pod: pod.into(),
            address: Some("127.0.0.1:5000".parse().unwrap()),
            readiness: READY,
            since: self.clock.now(),
        };
        let set = InferenceSet {
            key: InferenceSetKey::new("team-a", "demo"),
            replicas: 1,
            ready_replicas: 1,
            endpoints: vec![endpoint],
            gateway: Some(Gateway::at("127.0.9.1:9090".parse().unwrap(), "demo-inferencepool")),
        };
        self.aggregator
            .turn(&mut Batch { fleet: vec![FleetEvent::Reset(vec![set])], ..Batch::default() }, false);
    }

    /// A report from whatever is scraped, with nothing in it.
    fn report(&self) -> ScrapeReport {
        let pods = self.asked.pods.lock().unwrap();
        let (id, plan) = pods.iter().next().expect("a pod is scraped");
        let sample = PodSample { engine: true, ..PodSample::default() };
        let scraped = Scraped { sample, page: PageKind::Filtered, bytes: 0, rejected: 0 };
        let now = self.clock.now();
        ScrapeReport::new(id.clone(), now, now, plan.wanted.clone(), Ok(scraped))
    }

    /// Decisions about a target, and requests to the scraper.
    fn steps(&self) -> (usize, usize) {
        (self.aggregator.decisions, self.asked.times.load(Ordering::Relaxed))
    }
}

/// What `count` triggers on one InferenceSet cost, from their first call to the last's expiry.
fn cost(count: usize, at_once: bool, one_metric: bool) -> (usize, usize) {
    let mut hand = ByHand::new();
    hand.discover("a");
    for number in 0..count {
        let (threshold, metric) = ((number + 1).to_string(), format!("vllm:number_{number}"));
        let metric = if one_metric { "vllm:num_requests_waiting" } else { &metric };
        hand.call("demo", &[("threshold", &threshold), ("metricName", metric)]);
        if !at_once {
            hand.turn();
        }
    }
    while !hand.inbox.registrations.is_empty() {
        hand.turn();
    }
    let report = hand.report();
    hand.aggregator.turn(&mut Batch { reports: vec![report], ..Batch::default() }, false);
    hand.steps()
}

#[tokio::test(start_paused = true)]
async fn a_trigger_costs_the_same_however_many_others_there_are() {
    for (at_once, one_metric) in [(true, true), (true, false), (false, true), (false, false)] {
        for count in [100, 200, 800] {
            let (decisions, asked) = cost(count, at_once, one_metric);
            // Once as it comes, and once for each sample; the first few as others join.
            assert!(decisions <= 3 * count, "{decisions} decisions about {count} ({at_once}, {one_metric})");
            // The endpoint is asked for more only where somebody wants more.
            let most = if one_metric { 3 } else { 2 + count };
            assert!(asked <= most, "asked {asked} times for {count} ({at_once}, {one_metric})");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn targets_that_expire_together_leave_in_one_step() {
    let mut hand = ByHand::new();
    hand.discover("a");
    let kept = hand.call("demo", &[]);
    for number in 0..500 {
        hand.call("demo", &[("threshold", &(number + 20).to_string())]);
    }
    // One that waits to be taken in for longer than anybody asks for it is never taken in.
    hand.turn();
    assert!(!hand.inbox.registrations.is_empty());
    tokio::time::advance(Duration::from_secs(601)).await;
    assert!(kept.take_up(hand.clock.now()));
    let (decisions, asked) = hand.steps();
    hand.aggregator.turn(&mut Batch::default(), true);
    while !hand.inbox.registrations.is_empty() {
        hand.turn();
    }
    let groups: Vec<usize> = hand.aggregator.groups.values().map(|group| group.targets().count()).collect();
    assert_eq!((groups, hand.targets.len()), (vec![1], 1));
    let (more_decisions, more_asked) = hand.steps();
    assert!(more_decisions - decisions <= 2, "{more_decisions} - {decisions}");
    assert!(more_asked - asked <= 1, "{more_asked} - {asked}");

    // The last one takes the rest along: its wake source too.
    assert!(!hand.asked.sources.lock().unwrap().is_empty());
    tokio::time::advance(Duration::from_secs(601)).await;
    hand.aggregator.turn(&mut Batch::default(), true);
    assert!(hand.aggregator.groups.is_empty() && hand.aggregator.by_set.is_empty());
    assert!(hand.asked.pods.lock().unwrap().is_empty() && hand.asked.sources.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_new_targets_delays_a_scrape_by_a_turn() {
    let mut hand = ByHand::new();
    hand.discover("a");
    let target = hand.call("demo", &[]);
    hand.turn();
    for number in 0..10 * BATCH {
        hand.call(&format!("other-{number}"), &[]);
    }
    hand.reports.try_send(hand.report()).unwrap();
    hand.turn();
    assert_eq!(hand.aggregator.groups.len(), 1 + BATCH, "no more than fits into a turn");
    assert_eq!(hand.metrics.scrapes.get_or_create(&ScrapeLabels { outcome: "ok" }).get(), 1);
    assert!(!value(&target).unwrap_err().contains("none of 1 replicas"), "{:?}", value(&target));
}

#[tokio::test(start_paused = true)]
async fn many_targets_over_many_samples_are_decided_about_at_a_pace() {
    let mut hand = ByHand::new();
    hand.discover("a");
    for number in 0..900 {
        hand.call("demo", &[("threshold", &(number + 1).to_string())]);
    }
    while !hand.inbox.registrations.is_empty() {
        hand.turn();
    }
    let (before, _) = hand.steps();
    // A hundred samples in ten milliseconds, which is about one evaluation of 900.
    for _ in 0..100 {
        let report = hand.report();
        hand.aggregator.turn(&mut Batch { reports: vec![report], ..Batch::default() }, false);
        tokio::time::advance(Duration::from_micros(100)).await;
    }
    let (decisions, _) = hand.steps();
    assert!((900..=3 * 900).contains(&(decisions - before)), "{decisions} - {before}");
}
