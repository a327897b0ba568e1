//! What whoever puts a model to sleep is told.

use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use clock::Clock;
use scaler_core::{
    names::InferenceSetKey,
    wake::{Answers, Asked, Readability, ServicePort, pace::Pace},
};

struct Rig {
    api: ByPath,
    directory: Directory,
    asked: watch::Sender<Arc<Asked>>,
    answers: watch::Receiver<Arc<Answers>>,
    _tasks: JoinSet<()>,
}

impl Rig {
    fn start() -> Self {
        let api = api();
        let reader = reader(credentials(&api, &[]));
        let (directory, asked, answers) =
            (Directory::default(), watch::Sender::default(), watch::Sender::default());
        let (sender, reports) = mpsc::channel(16);
        // Ten seconds are long for a test over real sockets.
        let often = Duration::from_millis(20);
        let pace = Pace { asleep: often, awake: often, ..Pace::default() };
        let gauge = prometheus_client::metrics::gauge::Gauge::default();
        let pool =
            SourcePool::new("a test", reader.clone(), Clock::start(), directory.clone(), pace, gauge, sender);
        let follow = answers.subscribe();
        let prober =
            Prober::new(reader, (pool, reports), directory.pools(), asked.subscribe(), answers.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(prober.run(CancellationToken::new()));
        Self { api, directory, asked, answers: follow, _tasks: tasks }
    }

    fn know(&self, service: &str, port: u16, place: Result<SocketAddr, Missing>) {
        let service = ObjectName::new("team-a", service);
        let place = place.map(|address| [address].into());
        self.directory.tell(ServicePort { service, port }, Some(place));
    }

    fn know_set(&self, name: &str) {
        let (set, pool) = (InferenceSetKey::new("team-a", name), format!("{name}-inferencepool"));
        self.directory.tell_pool(set, Some(pool.into()));
    }

    fn ask(&self, asked: &[(&str, Option<&str>)]) {
        let asked = asked.iter().map(|(name, named)| {
            (InferenceSetKey::new("team-a", name), named.map(|named| WakeSource::parse(named).unwrap()))
        });
        self.asked.send_replace(Arc::new(asked.collect()));
    }

    /// Waits until `name` is answered so; `None` is that nothing is known.
    async fn until(&mut self, name: &str, expected: impl Fn(Option<&Readability>) -> bool) {
        let set = InferenceSetKey::new("team-a", name);
        let answered = self.answers.wait_for(|answers| expected(answers.get(&set)));
        timeout(LONG, answered).await.unwrap_or_else(|_| panic!("{name} is not answered so")).unwrap();
    }
}

fn readable(answer: Option<&Readability>) -> bool {
    answer == Some(&Readability::Readable)
}

fn says(part: &str) -> impl Fn(Option<&Readability>) -> bool {
    move |answer| matches!(answer, Some(Readability::Unreadable(why)) if why.to_string().contains(part))
}

#[tokio::test]
async fn a_source_is_tried_as_soon_as_it_can_be_and_what_is_missing_is_said() {
    let mut rig = Rig::start();
    let server = Server::that_wants_a_token().await;
    rig.ask(&[("demo", None)]);
    // Nothing is known of the InferenceSet, then nothing of its picker.
    rig.know_set("demo");
    rig.know("demo-inferencepool-epp", 9090, Err(Missing::Service));
    rig.until("demo", says("there is no Service team-a/demo-inferencepool-epp")).await;
    rig.know("demo-inferencepool-epp", 9090, Ok(server.address));
    rig.until("demo", says("there is no InferencePool demo-inferencepool")).await;
    put_pool(&rig.api, "demo-inferencepool", "demo-inferencepool-epp");
    // It looks again after ten seconds; another pool stands for that time.
    rig.know_set("chat");
    rig.know("chat-inferencepool-epp", 9090, Ok(server.address));
    put_pool(&rig.api, "chat-inferencepool", "chat-inferencepool-epp");
    rig.ask(&[("demo", None), ("chat", None)]);
    rig.until("chat", readable).await;
    rig.ask(&[("chat", None)]);
    rig.until("demo", |answer| answer.is_none()).await;
    rig.until("chat", readable).await;
}

#[tokio::test]
async fn what_passes_takes_nothing_back_and_what_lasts_does() {
    let mut rig = Rig::start();
    let server = Server::start(|_| (200, page("demo-inferencepool", 0))).await;
    let elsewhere = Server::start(|_| (503, String::new())).await;
    rig.know_set("demo");
    rig.know("epp", 80, Ok(server.address));
    rig.know("other", 80, Ok(elsewhere.address));
    rig.ask(&[("demo", Some("epp:80"))]);
    rig.until("demo", readable).await;

    // A restart: no answer for as long as it takes to be asked a few times.
    server.answers(|_| (503, String::new()));
    let mut seen = server.seen.clone();
    let before = seen.borrow().len();
    timeout(LONG, seen.wait_for(|seen| seen.len() >= before + 2)).await.unwrap().unwrap();
    rig.know("epp", 80, Err(Missing::Endpoint));
    rig.until("demo", readable).await;
    server.answers(|_| (401, String::new()));
    rig.know("epp", 80, Ok(server.address));
    rig.until("demo", says("add team-a/epp to wakeSource.allowedServices")).await;
    server.answers(|_| (200, "up 1\n".into()));
    rig.until("demo", says("not the metrics page of an endpoint picker")).await;

    // Another source is another story, and one that only fails is not known.
    rig.ask(&[("demo", Some("other:80"))]);
    rig.until("demo", |answer| answer.is_none()).await;
    assert!(server.seen().iter().all(Option::is_none), "what a tenant names is shown no token");
}
