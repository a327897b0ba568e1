//! The actor under a paused clock, with a scraper that only remembers what it was told.

mod many;

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::oneshot;

use super::*;
use crate::{
    scrape::{ScrapeError, ScrapeId, ScrapePlan, Scraped},
    targets::DescribedTarget,
    wake::SourcePlan,
};
use scaler_core::{
    decision::{
        activation::{Activity, Cause},
        push::{PushCause, Pusher},
    },
    endpoint::page_choice::PageKind,
    fleet::{
        model::{Endpoint, Gateway, Readiness},
        tenancy::Tenancy,
    },
    names::PodUid,
    page::{
        Wanted,
        picker::GatewaySample,
        read_page,
        sample::{PodDemand, PodSample, Reading},
    },
    wake::Source,
};

/// What the aggregator has asked to be scraped.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// How often anything was asked.
    times: Arc<AtomicUsize>,
    pods: Arc<Mutex<HashMap<ScrapeId, ScrapePlan>>>,
    sources: Arc<Mutex<HashMap<Source, SourcePlan>>>,
}

impl Scraper for Asked {
    fn apply(&mut self, id: ScrapeId, plan: ScrapePlan) {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.pods.lock().unwrap().insert(id, plan);
    }

    fn remove(&mut self, id: &ScrapeId) {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.pods.lock().unwrap().remove(id);
    }

    fn is_current(&self, report: &ScrapeReport) -> bool {
        self.pods.lock().unwrap().contains_key(&report.id)
    }

    fn tend(&mut self) {}

    fn apply_source(&mut self, source: &Source, plan: Option<SourcePlan>) {
        self.times.fetch_add(1, Ordering::Relaxed);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        match plan {
            Some(plan) => drop(sources.insert(source.clone(), plan)),
            None => drop(sources.remove(source)),
        }
    }
}

/// An aggregator at work, and every way to talk to it.
struct Rig {
    clock: Clock,
    targets: Targets,
    asked: Asked,
    questions: mpsc::Sender<DebugRequest>,
    fleet: mpsc::Sender<FleetEvent>,
    reports: mpsc::Sender<ScrapeReport>,
    sources: mpsc::Sender<SourceReport>,
    troubles: mpsc::Receiver<TroubleReport>,
    cancel: CancellationToken,
    running: tokio::task::JoinHandle<Asked>,
}

impl Rig {
    fn start() -> Self {
        let clock = Clock::start();
        let (registered, registrations) = mpsc::unbounded_channel();
        let (questions, debug_requests) = mpsc::channel(1);
        let (fleet, fleet_inbox) = mpsc::channel(16);
        let (reports, report_inbox) = mpsc::channel(16);
        let (sources, source_inbox) = mpsc::channel(16);
        let targets = Targets::new(registered, clock, Tenancy::OwnNamespace);
        let metrics = Metrics::default();
        let asked = Asked::default();
        let (telling, troubles) = mpsc::channel(16);
        let aggregator =
            Aggregator::new(clock, asked.clone(), targets.clone(), metrics).telling(Some(telling));
        let inbox = Inbox {
            registrations,
            debug_requests,
            fleet: fleet_inbox,
            reports: report_inbox,
            sources: source_inbox,
        };
        let cancel = CancellationToken::new();
        let running = tokio_util::task::TaskTracker::new().spawn(aggregator.run(inbox, cancel.clone()));
        Self { clock, targets, asked, questions, fleet, reports, sources, troubles, cancel, running }
    }

    fn target(&self, extra: &[(&str, &str)]) -> Arc<Target> {
        let mut metadata = HashMap::from([
            ("inferenceSetNamespace".to_owned(), "team-a".to_owned()),
            ("inferenceSetName".to_owned(), "demo".to_owned()),
            ("metricName".to_owned(), "vllm:num_requests_waiting".to_owned()),
            ("threshold".to_owned(), "10".to_owned()),
        ]);
        metadata.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.targets.find_or_register("team-a", "demo", &metadata, None).unwrap()
    }

    async fn discover(&self, replicas: u32, pods: &[(&str, Readiness)]) {
        self.fleet.send(FleetEvent::Applied(self.set(replicas, pods))).await.unwrap();
        self.settle().await;
    }

    fn set(&self, replicas: u32, pods: &[(&str, Readiness)]) -> InferenceSet {
        let endpoint = |(uid, readiness): &(&str, Readiness)| Endpoint {
            uid: PodUid((*uid).into()),
            pod: (*uid).into(),
            address: Some("127.0.0.1:5000".parse().unwrap()),
            readiness: *readiness,
            since: self.clock.now(),
        };
        InferenceSet {
            key: InferenceSetKey::new("team-a", "demo"),
            replicas,
            ready_replicas: replicas,
            endpoints: pods.iter().map(endpoint).collect(),
            gateway: None,
        }
    }

    /// The aggregator has taken in all that was sent: a question is answered after it.
    async fn settle(&self) -> Vec<DescribedTarget> {
        loop {
            let (answer, described) = oneshot::channel();
            self.questions.send(DebugRequest(answer)).await.unwrap();
            let described = described.await.unwrap();
            let sent = self.reports.capacity() + self.fleet.capacity() + self.sources.capacity();
            if sent == 3 * 16 {
                return described;
            }
        }
    }

    async fn report(&self, uid: &str, waiting: Result<f64, ScrapeError>) {
        let sample = waiting.map(|waiting| PodSample {
            readings: vec![(
                scaler_core::names::MetricName::parse("vllm:num_requests_waiting").unwrap(),
                Reading::Value(waiting),
            )],
            demand: PodDemand { waiting: Some(waiting), running: Some(0.0), rejected_total: 0.0 },
            engine: true,
            ..PodSample::default()
        });
        self.report_sample(uid, sample).await;
    }

    async fn report_sample(&self, uid: &str, sample: Result<PodSample, ScrapeError>) {
        let plan = {
            let pods = self.asked.pods.lock().unwrap();
            pods.iter().find(|(id, _)| &*id.uid.0 == uid).map(|(id, plan)| (id.clone(), plan.clone()))
        };
        let (id, plan) = plan.expect("the pod is scraped");
        let page = PageKind::Filtered;
        let outcome = sample.map(|sample| Scraped { sample, page, bytes: 527, rejected: 0 });
        let now = self.clock.now();
        let report = ScrapeReport::new(id, now, now, plan.wanted, outcome);
        self.reports.send(report).await.unwrap();
        self.settle().await;
    }

    /// The page of a pod that downloads its model.
    async fn downloads(&self, uid: &str, seconds: f64) {
        let sample = PodSample { download_remaining: Some(seconds), ..PodSample::default() };
        self.report_sample(uid, Ok(sample)).await;
    }

    async fn gateway_says(&self, queued: f64) {
        let sample = GatewaySample { queued: Some(queued), refused_total: 0.0 };
        let (source, plan) = {
            let sources = self.asked.sources.lock().unwrap();
            let (source, plan) = sources.iter().next().expect("a source is read");
            (source.clone(), plan.clone())
        };
        let outcome = Ok(plan.pools.iter().map(|pool| (pool.clone(), sample)).collect());
        let interval = Duration::from_millis(100);
        let report = SourceReport { source, at: self.clock.now(), interval, outcome };
        self.sources.send(report).await.unwrap();
        self.settle().await;
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.running.await.unwrap();
    }
}

fn value(target: &Target) -> Result<f64, String> {
    target.snapshot().values[0].as_ref().map(|value| value.number()).map_err(ToString::to_string)
}

const READY: Readiness = Readiness::Ready;

#[tokio::test(start_paused = true)]
async fn a_target_is_scraped_from_its_first_call_to_its_expiry() {
    let rig = Rig::start();
    rig.discover(1, &[("a", READY)]).await;
    assert!(rig.asked.pods.lock().unwrap().is_empty(), "nobody asked yet");
    let target = rig.target(&[]);
    rig.settle().await;
    assert_eq!(rig.asked.pods.lock().unwrap().len(), 1);
    rig.report("a", Ok(3.0)).await;
    assert_eq!(value(&target), Ok(3.0));

    // A call now and then keeps it; ten minutes without one let it go.
    tokio::time::advance(Duration::from_secs(590)).await;
    assert!(Arc::ptr_eq(&target, &rig.target(&[])));
    tokio::time::advance(Duration::from_secs(590)).await;
    rig.settle().await;
    assert_eq!(rig.targets.len(), 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    rig.settle().await;
    assert!(rig.targets.is_empty());
    assert!(rig.asked.pods.lock().unwrap().is_empty(), "nobody asks any more");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_round_ends_when_every_endpoint_was_asked() {
    let rig = Rig::start();
    rig.discover(2, &[("a", READY), ("b", READY)]).await;
    let target = rig.target(&[]);
    let limit = Duration::from_secs(60);
    let waits = target.first_round(limit);
    tokio::pin!(waits);
    rig.settle().await;
    rig.report("a", Ok(12.0)).await;
    assert!(futures::poll!(&mut waits).is_pending(), "b has not been asked");
    rig.report("b", Err(ScrapeError::Refused)).await;
    assert!(futures::poll!(&mut waits).is_ready());
    // b never served since it appeared, but it is Ready: unknown, and filled in.
    assert_eq!(value(&target), Ok(20.0));

    // A second target that wants more waits for pages that were asked for that.
    let other = rig.target(&[("metricName", "vllm:num_requests_running")]);
    let waits = other.first_round(limit);
    tokio::pin!(waits);
    rig.settle().await;
    assert!(futures::poll!(&mut waits).is_pending());
    // And one of an InferenceSet without any endpoint waits for nothing.
    rig.discover(0, &[]).await;
    assert!(futures::poll!(&mut waits).is_ready());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_limit() {
    let rig = Rig::start();
    rig.discover(1, &[("a", READY)]).await;
    let target = rig.target(&[]);
    let before = rig.clock.now();
    target.first_round(Duration::from_millis(900)).await;
    assert_eq!(rig.clock.now().saturating_since(before), Duration::from_millis(900));
    assert!(value(&target).unwrap_err().contains("none of 1 replicas"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_goes_stale_by_time_alone() {
    let rig = Rig::start();
    rig.discover(2, &[("a", READY), ("b", READY)]).await;
    let target = rig.target(&[]);
    rig.settle().await;
    rig.report("a", Ok(0.0)).await;
    rig.report("b", Ok(0.0)).await;
    assert_eq!(value(&target), Ok(0.0));
    // Five seconds is the staleness limit at an interval of one. a goes on, b falls silent.
    for _ in 0..6 {
        tokio::time::advance(Duration::from_millis(999)).await;
        rig.report("a", Ok(0.0)).await;
    }
    assert_eq!(value(&target), Ok(10.0), "b counts as on target");
    // Now a falls silent as well, and nothing else happens: the timer alone tells.
    tokio::time::sleep(Duration::from_secs(6)).await;
    rig.settle().await;
    assert!(value(&target).unwrap_err().contains("none of 2 replicas"));
    assert_eq!(target.snapshot().activity, Activity::Unknown);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_of_a_removed_pod_is_dropped() {
    let rig = Rig::start();
    rig.discover(1, &[("a", READY)]).await;
    let target = rig.target(&[]);
    rig.settle().await;
    let late = {
        let pods = rig.asked.pods.lock().unwrap();
        let (id, plan) = pods.iter().next().unwrap();
        let now = rig.clock.now();
        let sample = PodSample { engine: true, ..PodSample::default() };
        let scraped = Scraped { sample, page: PageKind::Filtered, bytes: 0, rejected: 0 };
        ScrapeReport::new(id.clone(), now, now, plan.wanted.clone(), Ok(scraped))
    };
    rig.discover(1, &[("a2", READY)]).await;
    rig.report("a2", Ok(4.0)).await;
    rig.reports.send(late).await.unwrap();
    rig.settle().await;
    assert_eq!(value(&target), Ok(4.0));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_relist_replaces_the_fleet_in_one_step() {
    let rig = Rig::start();
    rig.discover(2, &[("a", READY), ("b", READY)]).await;
    let target = rig.target(&[]);
    rig.settle().await;
    rig.report("a", Ok(5.0)).await;
    rig.report("b", Ok(6.0)).await;
    // a stays with its samples, b is gone and c is new.
    let set = rig.set(2, &[("a", READY), ("c", READY)]);
    rig.fleet.send(FleetEvent::Reset(vec![set])).await.unwrap();
    rig.settle().await;
    assert_eq!(value(&target), Ok(15.0), "a's five, and c filled in");
    rig.fleet.send(FleetEvent::Reset(vec![])).await.unwrap();
    rig.settle().await;
    assert_eq!(value(&target).unwrap_err(), "the InferenceSet does not exist");
    assert!(rig.asked.pods.lock().unwrap().is_empty());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_inference_set_that_changes_does_not_vouch_for_its_pods() {
    let rig = Rig::start();
    rig.discover(1, &[("a", Readiness::Ready)]).await;
    let target = rig.target(&[]);
    rig.settle().await;
    let silent = || value(&target).is_err_and(|why| why.contains("been silent"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.discover(2, &[("a", Readiness::Ready)]).await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    rig.settle().await;
    assert!(!silent());
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.settle().await;
    assert!(silent());
    rig.fleet.send(FleetEvent::Alive).await.unwrap();
    rig.settle().await;
    assert!(!silent());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn demand_at_zero_is_pushed_with_the_sample_that_shows_it() {
    let mut rig = Rig::start();
    let asleep = InferenceSet {
        gateway: Some(Gateway::at("127.0.9.1:9090".parse().unwrap(), "demo-inferencepool")),
        ..rig.set(0, &[])
    };
    rig.fleet.send(FleetEvent::Applied(asleep.clone())).await.unwrap();
    let target = rig.target(&[]);
    rig.settle().await;
    let plan = rig.asked.sources.lock().unwrap().values().next().cloned().unwrap();
    assert!(plan.asleep, "read often");
    // The initial hold is over.
    rig.gateway_says(0.0).await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    rig.gateway_says(0.0).await;
    assert_eq!(target.snapshot().activity, Activity::Inactive);

    let mut follow = target.follow();
    let mut pusher = Pusher::new();
    let first = pusher.poll(rig.clock.now(), &follow.borrow_and_update());
    assert_eq!(first.send, None);
    rig.gateway_says(1.0).await;
    assert!(follow.has_changed().unwrap());
    let state = *follow.borrow_and_update();
    assert!(state.active && state.unanswered);
    assert_eq!(state.sampled, Some(rig.clock.now()));
    assert_eq!(pusher.poll(rig.clock.now(), &state).send, Some(PushCause::Edge));
    assert_eq!(target.snapshot().activity, Activity::Active(Cause::Demand), "an IsActive agrees");
    // The same again is no news to the streams.
    rig.gateway_says(1.0).await;
    assert!(!follow.has_changed().unwrap());

    // Nobody acts for 30 s: reported once.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.gateway_says(1.0).await;
    }
    assert_eq!(target.not_honoured(), 1);
    let report = rig.troubles.try_recv().unwrap();
    assert_eq!((&*report.scaled_object, report.trouble), ("demo", Trouble::WakeNotHonoured));
    assert!(rig.troubles.try_recv().is_err());

    // KEDA acts: the gateway is scraped less often, and the loading replica keeps it active.
    rig.fleet.send(FleetEvent::Alive).await.unwrap();
    rig.fleet.send(FleetEvent::Applied(InferenceSet { replicas: 1, ..asleep })).await.unwrap();
    rig.settle().await;
    let plan = rig.asked.sources.lock().unwrap().values().next().cloned().unwrap();
    assert!(!plan.asleep, "read seldom");
    assert!(!follow.borrow_and_update().unanswered);
    rig.gateway_says(0.0).await;
    tokio::time::sleep(Duration::from_secs(80)).await;
    rig.settle().await;
    assert_eq!(target.snapshot().activity, Activity::Active(Cause::InFlight));
    assert_eq!(value(&target), Ok(10.0), "hold");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_targets_share_the_scrapes_of_a_pod() {
    let rig = Rig::start();
    rig.discover(1, &[("a", READY)]).await;
    let slow = rig.target(&[("scrapeInterval", "10s")]);
    let fast = rig.target(&[("scrapeInterval", "500ms"), ("threshold", "3")]);
    let elsewhere = rig.target(&[("metricPort", "9000")]);
    rig.settle().await;
    {
        let pods = rig.asked.pods.lock().unwrap();
        let mut plans: Vec<_> = pods.values().map(|plan| (plan.address.port(), plan.interval)).collect();
        plans.sort();
        let expected = [(5000, Duration::from_millis(500)), (9000, Duration::from_secs(1))];
        assert_eq!(plans, expected, "one for each page");
    }
    rig.report("a", Ok(7.0)).await;
    let shown = [&slow, &fast, &elsewhere].map(|target| value(target).is_ok());
    assert_eq!(shown.iter().filter(|ok| **ok).count(), if shown[2] { 1 } else { 2 });
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_description_names_what_is_wrong() {
    let rig = Rig::start();
    rig.discover(2, &[("a", READY), ("b", Readiness::NotReady)]).await;
    let _target = rig.target(&[]);
    rig.settle().await;
    rig.report("a", Ok(12.0)).await;
    rig.report("b", Err(ScrapeError::Status(503))).await;
    let described = rig.settle().await;
    let json = serde_json::to_value(&described).unwrap();
    let target = &json[0];
    assert_eq!(target["inferenceSet"], "team-a/demo");
    assert_eq!(target["value"], 20.0);
    assert_eq!((&target["known"], &target["inFlight"]), (&1.into(), &1.into()));
    assert!(target["why"].as_str().unwrap().contains("12 over 1 of 2 replicas, 1 on their way"));
    let phases = [&target["endpoints"][0]["phase"], &target["endpoints"][1]["phase"]];
    assert_eq!(phases, ["Serving", "Loading"]);
    assert_eq!(target["endpoints"][0]["page"], "filtered");
    assert_eq!(target["endpoints"][1]["lastError"], "answered with status 503");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_lost_has_a_time_of_its_own() {
    let rig = Rig::start();
    rig.discover(3, &[("a", READY), ("b", READY)]).await;
    let target = rig.target(&[]);
    rig.settle().await;
    // The third is never created, and past its deadline. Somebody asks for the target meanwhile.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(451)).await;
        rig.target(&[]);
    }
    rig.fleet.send(FleetEvent::Alive).await.unwrap();
    rig.report("a", Ok(9.0)).await;
    rig.report("b", Ok(9.0)).await;
    assert_eq!(value(&target), Ok(18.0));
    // One that served goes: it is made anew, and not a second that never comes.
    rig.discover(3, &[("a", READY)]).await;
    assert_eq!(value(&target), Ok(19.0));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_reason_goes_with_what_it_was_about() {
    let rig = Rig::start();
    rig.discover(1, &[("a", READY)]).await;
    let target = rig.target(&[]);
    rig.settle().await;
    rig.report("a", Err(ScrapeError::Status(503))).await;
    assert!(value(&target).unwrap_err().ends_with("answered with status 503"));
    // It serves, and then begins anew.
    rig.report("a", Ok(3.0)).await;
    assert_eq!(value(&target), Ok(3.0));
    tokio::time::sleep(Duration::from_secs(10)).await;
    rig.downloads("a", 42.0).await;
    assert!(value(&target).unwrap_err().ends_with("downloading, 42 s left"), "{:?}", value(&target));
    // Another one takes its place.
    rig.report("a", Err(ScrapeError::Status(500))).await;
    rig.discover(1, &[("b", READY)]).await;
    assert!(value(&target).unwrap_err().ends_with("no answer yet"), "{:?}", value(&target));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_faster_trigger_does_not_make_old_samples_unknown() {
    let rig = Rig::start();
    rig.discover(1, &[("a", READY)]).await;
    let slow = rig.target(&[("scrapeInterval", "60s")]);
    rig.settle().await;
    rig.report("a", Ok(3.0)).await;
    tokio::time::advance(Duration::from_secs(40)).await;
    let fast = rig.target(&[("scrapeInterval", "1s"), ("threshold", "5")]);
    rig.settle().await;
    assert_eq!((value(&slow), value(&fast)), (Ok(3.0), Ok(3.0)), "read when three minutes were fresh");
    // From the next sample on, the faster one's limit holds.
    rig.report("a", Ok(4.0)).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    rig.settle().await;
    assert!(value(&slow).unwrap_err().contains("none of 1 replicas"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_date_from_a_wrong_clock_ends_nothing() {
    let rig = Rig::start();
    let mut set = rig.set(1, &[("a", Readiness::NotReady)]);
    set.endpoints[0].since = rig.clock.now() + Duration::from_secs(80 * 365 * 86_400);
    rig.fleet.send(FleetEvent::Applied(set)).await.unwrap();
    let target = rig.target(&[]);
    rig.settle().await;
    assert_eq!(value(&target), Ok(10.0), "on its way, for a long time to come");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_in_blind_time_is_not_taken_back() {
    let rig = Rig::start();
    let gateway = Gateway::at("127.0.9.1:9090".parse().unwrap(), "demo-inferencepool");
    let asleep = InferenceSet { gateway: Some(gateway), ..rig.set(0, &[]) };
    rig.fleet.send(FleetEvent::Applied(asleep)).await.unwrap();
    let target = rig.target(&[]);
    rig.settle().await;
    rig.gateway_says(0.0).await;
    // Nobody asked, and the watch is silent: still a known zero.
    tokio::time::sleep(Duration::from_secs(100)).await;
    rig.gateway_says(0.0).await;
    assert_eq!((value(&target), target.snapshot().activity), (Ok(0.0), Activity::Inactive));
    // Somebody asks, so KEDA may have made replicas that we do not see: no zero, no false.
    rig.gateway_says(2.0).await;
    assert_eq!(target.snapshot().activity, Activity::Active(Cause::Demand));
    rig.gateway_says(0.0).await;
    assert_eq!(target.snapshot().activity, Activity::Unknown);
    assert!(value(&target).unwrap_err().contains("silent"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_the_page_gives_away_is_told_of_once() {
    let mut rig = Rig::start();
    rig.discover(1, &[("a", READY)]).await;
    let target = rig.target(&[("metricName", "my_requests_total")]);
    rig.settle().await;
    for count in [1, 2] {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let page = format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n\
             # TYPE my_requests_total counter\nmy_requests_total {count}\n"
        );
        let wanted = Wanted::new(target.trigger.wanted_metrics());
        rig.report_sample("a", Ok(read_page(page.as_bytes(), &wanted, PageKind::Filtered).sample)).await;
        assert!(value(&target).unwrap_err().starts_with("my_requests_total is a counter"));
    }
    let report = rig.troubles.recv().await.unwrap();
    assert_eq!(report.trouble.reason(), "MetricMisused");
    assert!(rig.troubles.try_recv().is_err());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_past_its_deadline_is_told_of_once_and_no_longer_keeps_the_model_up() {
    let mut rig = Rig::start();
    rig.discover(3, &[("a", Readiness::NotReady), ("b", Readiness::NotReady)]).await;
    let patient = rig.target(&[]);
    let hasty = rig.target(&[("inFlightDeadline", "60s")]);
    // Nobody waits, so nobody is told.
    let never = rig.target(&[("inFlightDeadline", "0s")]);
    // KEDA keeps them in use.
    for target in [&patient, &hasty, &never] {
        target.stream_opened();
    }
    rig.settle().await;
    assert_eq!(hasty.snapshot().activity, Activity::Active(Cause::InFlight));
    let wait = async |rig: &Rig, seconds: u64| {
        for _ in 0..seconds / 30 {
            tokio::time::sleep(Duration::from_secs(30)).await;
            rig.fleet.send(FleetEvent::Alive).await.unwrap();
        }
        rig.settle().await;
    };
    wait(&rig, 60).await;
    let report = rig.troubles.recv().await.unwrap();
    let note = "not up within 1m (inFlightDeadline), and no longer waited for: pod a, pod b, and 1 replica for which \
                there is no pod";
    assert_eq!((report.trouble.reason(), report.trouble.to_string().as_str()), ("ReplicaStuck", note));
    assert_eq!(hasty.snapshot().activity, Activity::Inactive, "its hold is over as well");
    assert_eq!(patient.snapshot().activity, Activity::Active(Cause::InFlight));
    wait(&rig, 900).await;
    let report = rig.troubles.recv().await.unwrap();
    assert!(report.trouble.to_string().starts_with("not up within 15m"), "{report:?}");
    assert!(rig.troubles.try_recv().is_err(), "each was told once");
    rig.stop().await;
}
