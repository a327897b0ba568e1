//! One collection, followed through everything that can befall it.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::cluster::{
    store::{
        Selection,
        feed::{Feed, News, Sink},
    },
    testing::{LONGEST, ScriptedApi, logs, pod},
};
use scaler_core::fleet::pod::{CREATED_BY, Member};

const PODS: &str = "/api/v1/pods";

/// Passes everything on.
struct Told(mpsc::Sender<News<Member>>);

impl Sink for Told {
    type Object = Member;

    fn take(&mut self, news: News<Member>, _: &Selection, _: &str) -> bool {
        self.0.try_send(news).is_ok()
    }
}

struct Rig {
    api: ScriptedApi,
    news: mpsc::Receiver<News<Member>>,
    following: JoinSet<()>,
}

impl Rig {
    fn start() -> Self {
        let (client, api) = ScriptedApi::start();
        let (sender, news) = mpsc::channel(16);
        let mut following = JoinSet::new();
        let pods = Selection { labels: Some(CREATED_BY.to_owned()), ..Selection::all(PODS) };
        following.spawn(async move {
            Feed::new(client, "pods", false, Told(sender)).follow(pods).await;
        });
        Self { api, news, following }
    }

    /// The next news in a line.
    async fn news(&mut self) -> String {
        let news = timeout(LONGEST, self.news.recv()).await.expect("there is no news");
        match news.expect("the feed has ended") {
            News::Listed(pods) => {
                let names: Vec<_> = pods.iter().map(|(pod, _)| pod.name.to_string()).collect();
                format!("listed {}", names.join(" "))
            }
            News::Applied(pod, _) => format!("applied {}", pod.name),
            News::Deleted(name) => format!("deleted {}", name.name),
            News::Heard => "heard".to_owned(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_and_then_a_watch_from_where_it_ends() {
    let mut rig = Rig::start();
    let list = rig.api.next(PODS).await;
    list.asks(&[
        ("labelSelector", Some("inferenceset.kaito.sh/created-by")),
        ("resourceVersion", Some("0")),
        ("resourceVersionMatch", Some("NotOlderThan")),
        ("limit", None),
    ]);
    list.list("100", &[pod("a-0", "u-1", "7"), pod("b-0", "u-2", "9")]);
    assert_eq!(rig.news().await, "listed a-0 b-0");

    let watch = rig.api.next(PODS).await;
    watch.asks(&[
        ("labelSelector", Some("inferenceset.kaito.sh/created-by")),
        ("resourceVersion", Some("100")),
        ("timeoutSeconds", Some("285")),
    ]);
    let watch = watch.watch();
    assert_eq!(rig.news().await, "heard", "an answer is a sign of life");
    watch.send("ADDED", &pod("c-0", "u-3", "101"));
    watch.send("MODIFIED", &pod("a-0", "u-1", "102"));
    watch.send("DELETED", &pod("b-0", "u-2", "103"));
    watch.bookmark("140");
    for expected in ["applied c-0", "applied a-0", "deleted b-0", "heard"] {
        assert_eq!(rig.news().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_the_server_ends_goes_on_from_the_newest_version() {
    let mut rig = Rig::start();
    rig.api.next(PODS).await.list("100", &[]);
    let watch = rig.api.next(PODS).await.watch();
    for minute in 1..5 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(watch.bookmark(&format!("{}", 100 + minute)), "idle is not dead");
    }
    tokio::time::sleep(Duration::from_secs(45)).await;
    let ended = Instant::now();
    drop(watch);
    let next = rig.api.next(PODS).await;
    next.asks(&[("watch", Some("true")), ("resourceVersion", Some("104"))]);
    assert_eq!(ended.elapsed(), Duration::ZERO, "that is how a watch ends");
    // One that ends at once is no way to go on.
    drop(next.watch());
    rig.api.next(PODS).await.watch();
    assert!(ended.elapsed() >= Duration::from_millis(800));
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_made_anew_before_the_fleet_is_given_up() {
    let mut rig = Rig::start();
    rig.api.next(PODS).await.list("100", &[]);
    let dead = rig.api.next(PODS).await.watch();
    let made = Instant::now();
    let anew = rig.api.next(PODS).await;
    assert_eq!(made.elapsed(), Duration::from_secs(75));
    anew.asks(&[("watch", Some("true")), ("resourceVersion", Some("100"))]);
    let _anew = anew.watch();
    assert!(!dead.bookmark("100"), "nobody listens to it any more");
    for expected in ["listed ", "heard", "heard"] {
        assert_eq!(rig.news().await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_version_means_another_list() {
    let mut rig = Rig::start();
    rig.api.next(PODS).await.list("100", &[pod("a-0", "u-1", "7"), pod("b-0", "u-2", "9")]);
    let watch = rig.api.next(PODS).await.watch();
    watch.bookmark("120");
    watch.error(410);
    // Not older than what was seen, from whichever server.
    let list = rig.api.next(PODS).await;
    list.asks(&[("resourceVersion", Some("120")), ("watch", None)]);
    list.fail(504, "Too large resource version: 120, current: 90");
    // Where the cache can't say, all is read in pages.
    let list = rig.api.next(PODS).await;
    list.asks(&[("resourceVersion", None), ("limit", Some("500")), ("continue", None)]);
    list.page("200", &[pod("a-0", "u-1", "7")], Some("more"));
    let list = rig.api.next(PODS).await;
    list.asks(&[("continue", Some("more")), ("limit", Some("500"))]);
    list.page("200", &[pod("c-0", "u-3", "8")], None);
    for expected in ["listed a-0 b-0", "heard", "heard", "listed a-0 c-0"] {
        assert_eq!(rig.news().await, expected);
    }
    // The watch may be told so before it starts, too.
    let watch = rig.api.next(PODS).await;
    watch.asks(&[("resourceVersion", Some("200")), ("watch", Some("true"))]);
    watch.fail(410, "too old resource version");
    rig.api.next(PODS).await.list("300", &[]);
    assert_eq!(rig.news().await, "listed ");
}

#[tokio::test(start_paused = true)]
async fn pages_that_expire_half_way_are_read_again_from_the_first() {
    let mut rig = Rig::start();
    rig.api.next(PODS).await.fail(410, "too old");
    rig.api.next(PODS).await.page("200", &[pod("a-0", "u-1", "7")], Some("more"));
    rig.api.next(PODS).await.fail(410, "the continue token is too old");
    let list = rig.api.next(PODS).await;
    list.asks(&[("continue", None), ("limit", Some("500"))]);
    list.list("300", &[pod("b-0", "u-2", "9")]);
    assert_eq!(rig.news().await, "listed b-0");
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_server_is_left_alone_for_as_long_as_it_asks() {
    let (_guard, logged) = logs();
    let mut rig = Rig::start();
    rig.api.next(PODS).await.fail_with(429, "too many requests", 7);
    let refused = Instant::now();
    let again = rig.api.next(PODS).await;
    assert!(refused.elapsed() >= Duration::from_secs(7), "{:?}", refused.elapsed());
    // Without a wish of its own, for longer and longer.
    again.fail(429, "too many requests");
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let refused = Instant::now();
        let again = rig.api.next(PODS).await;
        pauses.push(refused.elapsed());
        again.fail(500, "etcd is away");
    }
    assert!(pauses[0] < Duration::from_secs(4), "{pauses:?}");
    assert!(pauses[7] >= Duration::from_secs(30), "{pauses:?}");
    assert!(pauses[7] <= Duration::from_secs(61), "{pauses:?}");
    // Said once on the way into trouble, and once on the way out.
    let list = rig.api.next(PODS).await;
    list.list("100", &[]);
    let watch = rig.api.next(PODS).await.watch();
    watch.bookmark("100");
    for expected in ["listed ", "heard", "heard"] {
        assert_eq!(rig.news().await, expected);
    }
    let logged = logged();
    assert_eq!(logged.matches(" WARN ").count(), 1, "{logged}");
    assert!(logged.contains("too many requests"), "{logged}");
    assert_eq!(logged.matches("are watched again").count(), 1, "{logged}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_and_a_server_that_never_answers_are_survived() {
    let mut rig = Rig::start();
    drop(rig.api.next(PODS).await);
    let hangs = rig.api.next(PODS).await;
    let asked = Instant::now();
    rig.api.next(PODS).await.list("100", &[]);
    assert!(asked.elapsed() >= Duration::from_secs(30));
    drop(hangs);
    let watch = rig.api.next(PODS).await.watch();
    watch.bookmark("105");
    watch.error(500);
    // From where it was, without another list.
    let watch = rig.api.next(PODS).await;
    watch.asks(&[("watch", Some("true")), ("resourceVersion", Some("105"))]);
    drop(watch);
    let watch = rig.api.next(PODS).await;
    watch.asks(&[("watch", Some("true")), ("resourceVersion", Some("105"))]);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_object_is_left_out_with_one_warning() {
    let (_guard, logged) = logs();
    let mut rig = Rig::start();
    let mut broken = pod("broken-0", "u-9", "8");
    broken["metadata"]["creationTimestamp"] = "yesterday".into();
    rig.api.next(PODS).await.list("100", &[broken.clone(), pod("a-0", "u-1", "7")]);
    assert_eq!(rig.news().await, "listed a-0");
    let watch = rig.api.next(PODS).await.watch();
    assert_eq!(rig.news().await, "heard");
    broken["metadata"]["resourceVersion"] = "101".into();
    watch.send("MODIFIED", &broken);
    watch.send("MODIFIED", &broken);
    watch.send("ADDED", &pod("b-0", "u-2", "102"));
    for expected in ["heard", "heard", "applied b-0"] {
        assert_eq!(rig.news().await, expected);
    }
    let warnings = logged();
    assert_eq!(warnings.matches(" WARN ").count(), 1, "{warnings}");
    assert!(warnings.contains("team-a/broken-0"), "{warnings}");
    assert!(warnings.contains("metadata.creationTimestamp"), "{warnings}");
    // Another list does not repeat it; a cure is taken in, and a relapse is said anew.
    watch.error(410);
    rig.api.next(PODS).await.list("200", std::slice::from_ref(&broken));
    let watch = rig.api.next(PODS).await.watch();
    watch.send("MODIFIED", &pod("broken-0", "u-9", "201"));
    for expected in ["listed ", "heard", "applied broken-0"] {
        assert_eq!(rig.news().await, expected);
    }
    assert_eq!(logged().matches(" WARN ").count(), 1);
    watch.send("MODIFIED", &broken);
    assert_eq!(rig.news().await, "heard");
    assert_eq!(logged().matches(" WARN ").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn following_ends_with_its_reader() {
    let mut rig = Rig::start();
    rig.api.next(PODS).await.list("100", &[]);
    drop(rig.news);
    let ended = timeout(Duration::from_secs(5), rig.following.join_next()).await;
    assert!(matches!(ended, Ok(Some(Ok(())))));
}
