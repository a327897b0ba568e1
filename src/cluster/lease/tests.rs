use serde_json::json;
use tokio_util::task::TaskTracker;

use super::*;
use sim::api_server::ByPath;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/keda/leases/keda-kaito-scaler";

struct Process {
    leads: watch::Receiver<bool>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Process {
    fn start(api: &ByPath, identity: &str) -> Self {
        let candidate = Candidate {
            client: api.client(),
            namespace: "keda".into(),
            lease: "keda-kaito-scaler".into(),
            identity: identity.into(),
            timing: Timing::default(),
            clock: Clock::start(),
        };
        let (sender, leads) = watch::channel(false);
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(candidate.run(sender, shutdown.clone()));
        tasks.close();
        Self { leads, shutdown, tasks }
    }

    async fn leading(&mut self, wanted: bool) {
        self.leads.wait_for(|leads| *leads == wanted).await.unwrap();
    }

    async fn stop(&self) {
        self.shutdown.cancel();
        self.tasks.wait().await;
    }
}

fn holder(api: &ByPath) -> String {
    api.get(PATH).unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_hands_over_at_once_when_it_ends() {
    let api = ByPath::new();
    let mut first = Process::start(&api, "first");
    first.leading(true).await;
    let mut second = Process::start(&api, "second");
    let begin = Instant::now();
    // Long enough for the Lease to end if it were not renewed.
    api.until(|api| api.requests("PUT") > 20).await;
    assert!(begin.elapsed() > Timing::default().lease_duration());
    assert!(!*second.leads.borrow());
    assert_eq!(holder(&api), "first");

    first.stop().await;
    let begin = Instant::now();
    second.leading(true).await;
    assert!(begin.elapsed() <= Timing::default().retry_period(), "{:?}", begin.elapsed());
    let spec = &api.get(PATH).unwrap()["spec"];
    assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&json!("second"), &json!(1)));
    second.stop().await;
    assert_eq!(holder(&api), "");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_died_is_succeeded_after_the_duration_on_our_clock() {
    let api = ByPath::new();
    // Its clock is a year ahead, and it asked for 30 seconds.
    let spec = json!({"holderIdentity": "dead", "leaseDurationSeconds": 30, "renewTime": "2099-01-01T00:00:00.000000Z"});
    api.put(PATH, json!({"metadata": {"uid": "1"}, "spec": spec}));
    let begin = Instant::now();
    let mut process = Process::start(&api, "me");
    process.leading(true).await;
    assert_eq!(begin.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_holder_cut_off_from_the_api_stops_to_lead_before_another_may() {
    let api = ByPath::new();
    let mut process = Process::start(&api, "me");
    process.leading(true).await;
    let begin = Instant::now();
    api.fail(|_, _| Some(503));
    process.leading(false).await;
    let timing = Timing::default();
    assert!(begin.elapsed() <= timing.renew_deadline(), "{:?}", begin.elapsed());
    assert!(begin.elapsed() >= timing.renew_deadline().saturating_sub(timing.retry_period()));
    // It is the holder still, and leads again as soon as it can say so.
    api.fail(|_, _| None);
    process.leading(true).await;
    assert_eq!(api.get(PATH).unwrap()["spec"]["leaseTransitions"], json!(0));
}

#[tokio::test(start_paused = true)]
async fn of_many_that_start_at_once_one_leads() {
    let api = ByPath::new();
    let processes: Vec<_> = (0..10).map(|n| Process::start(&api, &format!("candidate-{n}"))).collect();
    api.until(|api| api.requests("PUT") > 20).await;
    assert!(api.requests("POST") > 1, "several tried to create it");
    let leading: Vec<_> =
        processes.iter().enumerate().filter(|(_, process)| *process.leads.borrow()).collect();
    assert_eq!(leading.len(), 1);
    assert_eq!(holder(&api), format!("candidate-{}", leading[0].0));
}
