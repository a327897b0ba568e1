//! The picture of the demo over time: one frame every now and then, for the table, the
//! summary and the report.

use super::{
    observe::Target,
    scenario::{RUNNING_TARGET, WAITING_TARGET},
    stage::Stage,
};
use scaler_core::time::Moment;
use sim::{
    cluster::Stage as PodStage,
    hpa::ceiling,
    keda::{Event, Journal, Scale},
};

/// One pod in one frame.
#[derive(Clone, Debug)]
pub struct PodFrame {
    pub name: String,
    pub uid: String,
    pub stage: PodStage,
    /// How far its start is, 0..=1.
    pub started: f64,
    /// It leaves scrapes without an answer.
    pub hangs: bool,
    pub waiting: usize,
    pub running: usize,
    pub kv_usage: f64,
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Seconds since the start.
    pub at: f64,
    pub stretch: &'static str,
    /// Requests per second that clients send.
    pub rate: f64,
    /// Requests at the gateway.
    pub held: usize,
    /// `spec.replicas`.
    pub wanted: u32,
    pub pods: Vec<PodFrame>,
    pub served: usize,
    /// Requests that got a 429.
    pub refused: u64,
    /// What the HPA last read: the total of the waiting and of the running requests.
    pub values: [Option<f64>; 2],
    pub active: bool,
    /// The engine's decision record of the trigger that asks for more.
    pub why: String,
    /// What the engine says of each endpoint: UID and phase, and by which page it is scraped.
    pub phases: Vec<(String, String, Option<String>)>,
}

impl Frame {
    /// Takes the picture.
    #[must_use]
    pub fn take(stage: &Stage, scale: &Scale, journal: &Journal, targets: &[Target]) -> Self {
        let now = stage.clock.now();
        let elapsed = now.saturating_since(stage.began);
        let read = |wanted| {
            journal.latest(|event| match event {
                Event::Metric { trigger, value, .. } if *trigger == wanted => Some(*value),
                _ => None,
            })
        };
        let awake = scale.replicas() > 0;
        let values = [0, 1].map(|trigger| read(trigger).filter(|_| awake));
        let by_metric = |metric: &str| targets.iter().find(|target| target.metric.contains(metric));
        let (waiting, running) = (by_metric("waiting"), by_metric("running"));
        let asked = |value: Option<f64>, target: f64| value.map_or(0, |value| ceiling(value / target));
        let running_leads = asked(values[1], RUNNING_TARGET) > asked(values[0], WAITING_TARGET);
        let leading = if running_leads { running.or(waiting) } else { waiting.or(running) };
        let world = stage.world();
        let pods = world.cluster.pods().iter().map(|pod| PodFrame {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            stage: pod.stage(now),
            started: pod.started(now),
            hangs: stage.hangs(&world, &pod.uid, now),
            waiting: pod.replica.waiting(),
            running: pod.replica.running(),
            kv_usage: pod.replica.kv_usage(),
        });
        Self {
            at: elapsed.as_secs_f64(),
            stretch: stage.scenario.schedule.at(elapsed).map_or("over", |(stretch, _)| stretch.name),
            rate: stage.scenario.schedule.rate(elapsed),
            held: world.gateway.held(),
            wanted: scale.replicas(),
            pods: pods.collect(),
            served: world.served.len(),
            refused: world.gateway.refused() + world.bypass_refused,
            values,
            active: targets.iter().any(|target| target.active),
            why: leading.map(|target| target.why.clone()).unwrap_or_default(),
            phases: leading.map_or_else(Vec::new, |target| {
                let endpoints = target.endpoints.iter();
                endpoints.map(|one| (one.uid.clone(), one.phase.clone(), one.page.clone())).collect()
            }),
        }
    }

    fn serving_pods(&self) -> impl Iterator<Item = &PodFrame> {
        self.pods.iter().filter(|pod| pod.stage == PodStage::Serving)
    }

    /// Replicas that take requests.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.serving_pods().count()
    }

    /// Replicas on their way.
    #[must_use]
    pub fn loading(&self) -> usize {
        let arrived = |pod: &&PodFrame| matches!(pod.stage, PodStage::Serving | PodStage::Terminating);
        self.pods.len() - self.pods.iter().filter(arrived).count()
    }

    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pods.iter().map(|pod| pod.waiting).sum()
    }

    #[must_use]
    pub fn running(&self) -> usize {
        self.pods.iter().map(|pod| pod.running).sum()
    }

    /// How many replicas the values that the HPA read ask for, before tolerance, limits and
    /// windows.
    #[must_use]
    pub fn asked(&self) -> Option<u32> {
        Some(replicas_for(self.values[0]?, self.values[1]?))
    }

    /// What they would be with plain sums, which take whoever does not answer for idle.
    #[must_use]
    pub fn asked_by_plain_sums(&self) -> u32 {
        let sum = |of: fn(&PodFrame) -> usize| -> f64 {
            self.serving_pods().filter(|pod| !pod.hangs).map(|pod| of(pod) as f64).sum()
        };
        replicas_for(sum(|pod| pod.waiting), sum(|pod| pod.running))
    }
}

fn replicas_for(waiting: f64, running: f64) -> u32 {
    ceiling(waiting / WAITING_TARGET).max(ceiling(running / RUNNING_TARGET))
}

/// Every frame so far, and what KEDA and the HPA did.
#[derive(Clone, Debug)]
pub struct History {
    pub began: Moment,
    pub frames: Vec<Frame>,
    pub events: Vec<(Moment, Event)>,
}

impl History {
    #[must_use]
    pub const fn new(began: Moment) -> Self {
        Self { began, frames: vec![], events: vec![] }
    }

    /// Adds a frame, and what happened since the last one.
    pub fn add(&mut self, frame: Frame, journal: &Journal) {
        self.frames.push(frame);
        self.events.extend(journal.since(self.events.len()));
    }

    /// Seconds from the start to `at`.
    #[must_use]
    pub fn seconds(&self, at: Moment) -> f64 {
        at.saturating_since(self.began).as_secs_f64()
    }

    /// The time of the last frame, in seconds.
    #[must_use]
    pub fn length(&self) -> f64 {
        self.frames.last().map_or(0.0, |frame| frame.at)
    }

    /// Frames on which `true` was pushed, in seconds from the start.
    #[must_use]
    pub fn pushes(&self) -> Vec<f64> {
        let pushed = |(at, event): &(Moment, Event)| {
            matches!(event, Event::Pushed { active: true, .. }).then(|| self.seconds(*at))
        };
        self.events.iter().filter_map(pushed).collect()
    }

    /// Pods that existed, whether they served yet or not, times seconds: what GPUs cost.
    #[must_use]
    pub fn replica_seconds(&self) -> f64 {
        let steps = self.frames.windows(2);
        steps.map(|pair| pair[0].pods.len() as f64 * (pair[1].at - pair[0].at)).sum()
    }
}
