//! Those who follow, and what they are told.

use std::{collections::BTreeSet, time::Duration};

use futures::FutureExt;
use serde_json::Value;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::cluster::{
    store::{Informer, Store, Subscription, kinds},
    testing::{LONGEST, OpenWatch, ScriptedApi, pod},
};
use scaler_core::{
    fleet::{ObjectName, collection::Object, pod::Member},
    names::InferenceSetKey,
};

const PODS: &str = "/api/v1/pods";

fn start() -> (Store, ScriptedApi, JoinSet<()>) {
    let (client, api) = ScriptedApi::start();
    let (store, watching) = Store::new(client);
    let mut running = JoinSet::new();
    running.spawn(watching.run(CancellationToken::new()));
    (store, api, running)
}

/// A pod of the InferenceSet `set`.
fn pod_of(set: &str, name: &str, uid: &str, version: &str) -> Value {
    let mut pod = pod(name, uid, version);
    pod["metadata"]["labels"]["inferenceset.kaito.sh/created-by"] = set.into();
    pod
}

/// The InferenceSets of which something has changed.
async fn changed(pods: &mut Subscription<Member>) -> BTreeSet<String> {
    let changes = timeout(LONGEST, pods.changed()).await.expect("nothing changes");
    changes.keys.iter().map(|set| set.name.to_string()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A watch of pods, of which one of demo and one of chat were listed.
async fn listed(api: &mut ScriptedApi) -> OpenWatch {
    let pods = [pod_of("demo", "a-0", "u-1", "7"), pod_of("chat", "b-0", "u-2", "9")];
    api.next(PODS).await.list("100", &pods);
    api.next(PODS).await.watch()
}

#[tokio::test(start_paused = true)]
async fn all_who_follow_the_same_share_one_watch() {
    let (store, mut api, _running) = start();
    let first: Informer<Member> = store.follow(kinds::pods());
    let second: Informer<Member> = store.follow(kinds::pods());
    let (mut one, mut other) = (first.subscribe(), second.subscribe());
    let watch = listed(&mut api).await;
    for pods in [&mut one, &mut other] {
        assert_eq!(changed(pods).await, names(&["chat", "demo"]));
        assert!(pods.read().is_listed());
    }
    watch.send("DELETED", &pod_of("chat", "b-0", "u-2", "101"));
    for pods in [&mut one, &mut other] {
        assert_eq!(changed(pods).await, names(&["chat"]));
    }
    // Who comes later is told of everything that is there, and asks for nothing.
    let third: Informer<Member> = store.follow(kinds::pods());
    assert_eq!(changed(&mut third.subscribe()).await, names(&["demo"]));
    assert!(timeout(Duration::from_secs(60), api.next(PODS)).await.is_err(), "one watch is enough");
    assert_eq!(first.read().version(), 101);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_follows_any_more_is_not_watched() {
    let (store, mut api, _running) = start();
    let pods: Informer<Member> = store.follow(kinds::pods());
    let mut subscription = pods.subscribe();
    let watch = listed(&mut api).await;
    changed(&mut subscription).await;
    drop(pods);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(watch.bookmark("101"), "somebody still reads");
    drop(subscription);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!watch.bookmark("102"));
    // And anew, from the beginning.
    let _pods: Informer<Member> = store.follow(kinds::pods());
    api.next(PODS).await.asks(&[("watch", None)]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_owes_no_more_than_a_key_for_each_object() {
    let (store, mut api, _running) = start();
    let mut pods = store.follow::<Member>(kinds::pods()).subscribe();
    let watch = listed(&mut api).await;
    changed(&mut pods).await;
    for version in 0..1_000 {
        watch.send("MODIFIED", &pod_of("demo", "a-0", &format!("u-{version}"), &format!("2{version:03}")));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(changed(&mut pods).await, names(&["demo"]));
    assert_eq!(&*pods.read().get(&ObjectName::new("team-a", "a-0")).unwrap().endpoint.uid.0, "u-999");
    assert!(pods.changed().now_or_never().is_none());
    watch.bookmark("3000");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(pods.changed().now_or_never().is_none(), "a sign of life is no change");
    assert_eq!(pods.read().version(), 3000);
}

#[tokio::test(start_paused = true)]
async fn a_new_list_is_one_difference() {
    let (store, mut api, _running) = start();
    let mut pods = store.follow::<Member>(kinds::pods()).subscribe();
    let watch = listed(&mut api).await;
    changed(&mut pods).await;
    watch.error(410);
    let list = api.next(PODS).await;
    assert_eq!(pods.read().len(), 2, "nothing is gone until it is known");
    list.list("200", &[pod_of("demo", "a-0", "u-1", "7"), pod_of("new", "c-0", "u-3", "150")]);
    assert_eq!(changed(&mut pods).await, names(&["chat", "new"]));
    let there: BTreeSet<_> = pods.read().keys().map(|set| set.name.to_string()).collect();
    assert_eq!(there, names(&["demo", "new"]));
}

/// An object that brings its reader down.
#[derive(Clone, Debug, PartialEq)]
struct Fatal;

impl Object for Fatal {
    type Raw = Value;
    type Key = InferenceSetKey;

    fn read(_: Value) -> Option<Self> {
        panic!("a bug")
    }

    fn keys(&self) -> Vec<InferenceSetKey> {
        Vec::new()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_one_watch_is_one_of_the_whole_store() {
    let (store, mut api, mut running) = start();
    let _fatal: Informer<Fatal> = store.follow(kinds::services());
    api.next("/api/v1/services").await.list("100", &[pod("a-0", "u-1", "7")]);
    let ended = timeout(LONGEST, running.join_next()).await.expect("it goes on").unwrap();
    assert!(ended.unwrap_err().is_panic());
}
