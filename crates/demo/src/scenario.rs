//! What happens in the demo, and to whom. Time is compressed: what takes minutes on GPUs takes
//! seconds here, for the model, the HPA and KEDA alike.

use std::time::Duration;

use scaler_core::names::InferenceSetKey;
use sim::{
    cluster::{Profile, StartUp},
    hpa::{Behavior, Rules, Select, Step, StepPolicy},
    keda::{ScaledObject, Trigger},
    queueing::Engine,
    traffic::{Schedule, Stretch},
};

/// The demo's script.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub key: InferenceSetKey,
    pub schedule: Schedule,
    /// Mean tokens of a prompt and of an answer.
    pub tokens: (u32, u32),
    pub profile: Profile,
    /// Without what the model's annotations come to.
    pub scaled_object: ScaledObject,
    /// The gateway holds requests back while every replica has this many waiting.
    pub hold_at_waiting: usize,
    /// Clients that go past the gateway, for KAITO's cap on the queue to refuse.
    pub bypass: Option<Bypass>,
    /// A metrics page that hangs for a while.
    pub hang: Option<Hang>,
    /// How often the world moves on.
    pub tick: Duration,
    /// How often the picture is taken and drawn.
    pub frame: Duration,
    /// The demo ends by itself after this, whatever has happened.
    pub deadline: Duration,
}

/// Every n-th request of a stretch goes straight to the least loaded replica.
#[derive(Clone, Copy, Debug)]
pub struct Bypass {
    pub stretch: &'static str,
    pub every: u64,
}

/// The n-th serving pod, by age, does not answer scrapes between these times. It goes on
/// serving requests.
#[derive(Clone, Copy, Debug)]
pub struct Hang {
    pub pod: usize,
    pub from: Duration,
    pub until: Duration,
}

/// The triggers' targets for each replica.
pub(crate) const WAITING_TARGET: f64 = 10.0;
pub(crate) const RUNNING_TARGET: f64 = 20.0;

const NAMESPACE: &str = "default";
const NAME: &str = "phi-4";

impl Scenario {
    /// About 50 seconds.
    #[must_use]
    pub fn whole() -> Self {
        let mut scenario = Self::at_speed(1);
        scenario.bypass = Some(Bypass { stretch: BURST, every: 4 });
        // An endpoint counts as unknown after 5 s of silence, and for the last 4 of these.
        let second = Duration::from_secs(1);
        scenario.hang = Some(Hang { pod: 1, from: second * 23, until: second * 32 });
        scenario
    }

    /// The same in ten seconds, without what can't be compressed: refused requests count as
    /// demand for 30 s, and an endpoint is stale after 5 s at the earliest.
    #[must_use]
    pub fn fast() -> Self {
        Self::at_speed(5)
    }

    fn at_speed(speed: u32) -> Self {
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds) / speed;
        let rate = |requests_per_second: f64| requests_per_second * f64::from(speed);
        let stretch =
            |name, length, from, to| Stretch { name, length: seconds(length), rate: (rate(from), rate(to)) };
        let start_up = |unscheduled, downloading, loading| StartUp {
            unscheduled: seconds(unscheduled),
            downloading: seconds(downloading),
            loading: seconds(loading),
        };
        let usual = start_up(1.0, 2.5, 1.5);
        // The fourth replica's node is slow: it loads for long after the others serve.
        let slow = start_up(2.0, 5.0, 3.0);
        Self {
            key: InferenceSetKey::new(NAMESPACE, NAME),
            schedule: Schedule(vec![
                stretch("asleep", 2.5, 0.0, 0.0),
                stretch(BURST, 7.5, 40.0, 80.0),
                stretch("plateau", 22.0, 58.0, 58.0),
                stretch("fade", 2.0, 58.0, 0.0),
                stretch("quiet", 16.0, 0.0, 0.0),
            ]),
            tokens: (300, 40),
            profile: Profile {
                engine: Engine {
                    max_num_seqs: 32,
                    kv_tokens: 24_000,
                    step: seconds(0.025),
                    step_per_sequence: seconds(0.000_15),
                    step_per_prompt_token: seconds(0.000_015),
                    max_batched_tokens: 8192,
                },
                start_up: vec![usual, usual, usual, slow, usual],
                grace: seconds(10.0),
            },
            scaled_object: ScaledObject {
                namespace: NAMESPACE.into(),
                name: NAME.into(),
                triggers: triggers(speed),
                // Until it has opted in.
                min_replicas: 1,
                max_replicas: 6,
                cooldown: seconds(3.0),
                polling_interval: seconds(1.0),
                sync_period: seconds(0.5),
                behavior: behavior(seconds),
            },
            hold_at_waiting: 32,
            bypass: None,
            hang: None,
            tick: Duration::from_millis(5),
            frame: seconds(0.25),
            deadline: seconds(50.0),
        }
    }
}

const BURST: &str = "burst";

/// Two triggers, of which the HPA follows the one that asks for more: waiting requests make
/// it grow fast, running ones keep it from shrinking while all are busy and none waits. The
/// first is the one that is provisioned: only its times are written here.
fn triggers(speed: u32) -> Vec<Trigger> {
    // The shortest interval that a trigger may ask for is 100 ms.
    let scrape_interval = (250 / speed).max(100);
    let hold = 2000 / speed;
    let trigger = |push, more: &[(&str, String)]| {
        let times = [
            ("scrapeInterval", format!("{scrape_interval}ms")),
            ("scrapeTimeout", "1s".to_owned()),
            ("activationHold", format!("{hold}ms")),
        ];
        let metadata =
            times.iter().chain(more).map(|(key, text)| ((*key).to_owned(), text.clone())).collect();
        Trigger { push, metadata }
    };
    let running = [
        ("inferenceSetNamespace", NAMESPACE.to_owned()),
        ("inferenceSetName", NAME.to_owned()),
        ("metricName", "vllm:num_requests_running".to_owned()),
        ("threshold", RUNNING_TARGET.to_string()),
    ];
    vec![trigger(true, &[]), trigger(false, &running)]
}

/// Kubernetes' default behavior, compressed.
fn behavior(seconds: impl Fn(f64) -> Duration) -> Behavior {
    let rules = |window, steps: &[Step]| Rules {
        stabilization_window: seconds(window),
        policies: steps.iter().map(|step| StepPolicy { step: *step, period: seconds(1.0) }).collect(),
        select: Select::Max,
        tolerance: 0.1,
    };
    Behavior {
        min_replicas: 1,
        max_replicas: 6,
        up: rules(0.0, &[Step::Percent(100), Step::Pods(4)]),
        down: rules(4.0, &[Step::Percent(100)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_scenarios_end_in_time_and_start_and_end_with_silence() {
        for (scenario, limit) in [(Scenario::whole(), 60), (Scenario::fast(), 10)] {
            assert!(scenario.deadline <= Duration::from_secs(limit));
            assert!(scenario.schedule.length() <= scenario.deadline);
            assert!(scenario.schedule.rate(Duration::ZERO) <= 0.0);
            let end = scenario.deadline.mul_f64(0.999);
            assert!(scenario.schedule.rate(end) <= 0.0);
        }
    }

    #[test]
    fn intervals_stay_within_what_a_trigger_may_ask_for() {
        let interval =
            |scenario: &Scenario| scenario.scaled_object.triggers[0].metadata["scrapeInterval"].clone();
        assert_eq!(interval(&Scenario::whole()), "250ms");
        assert_eq!(interval(&Scenario::fast()), "100ms");
    }
}
