use super::{quota::MOST_METRICS, *};

#[test]
fn a_target_is_told_apart_by_all_that_matters_of_its_trigger() {
    let (commands, _registered) = mpsc::unbounded_channel();
    let targets = Targets::new(commands, Clock::start(), Tenancy::OwnNamespace);
    let found = |changed: (&str, &str)| {
        let mut metadata = HashMap::from(
            [
                ("inferenceSetNamespace", "team-a"),
                ("inferenceSetName", "demo"),
                ("metricName", "vllm:num_requests_waiting"),
                ("threshold", "10"),
                ("certificates", "first"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        metadata.insert(changed.0.to_owned(), changed.1.to_owned());
        targets.find_or_register("team-a", "demo", &metadata, None).unwrap()
    };
    let first = found(("threshold", "10"));
    assert!(Arc::ptr_eq(&first, &found(("certificates", "second"))), "a renewal changes nothing");
    assert!(!Arc::ptr_eq(&first, &found(("threshold", "20"))));
    assert_eq!(targets.len(), 2);
}

fn metadata() -> HashMap<String, String> {
    let pairs = [
        ("inferenceSetNamespace", "team-a"),
        ("inferenceSetName", "demo"),
        ("metricName", "vllm:num_requests_waiting"),
        ("threshold", "10"),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Nobody reads the snapshot of a target that is forgotten, and nobody writes it: a call
/// that had found it just before must not be left with it.
#[tokio::test(start_paused = true)]
async fn a_call_takes_up_a_target_before_it_is_forgotten_or_gets_another() {
    let (commands, mut registered) = mpsc::unbounded_channel();
    let clock = Clock::start();
    let targets = Targets::new(commands, clock, Tenancy::OwnNamespace);
    let find = || targets.find_or_register("team-a", "demo", &metadata(), None).unwrap();
    let first = find();
    tokio::time::advance(EXPIRY).await;
    // A call that has found it, and was not yet seen to use it, while it is forgotten.
    assert_eq!(targets.expire(clock.now()).len(), 1);
    assert!(!first.take_up(clock.now()));
    let second = find();
    assert!(!Arc::ptr_eq(&first, &second));
    // The other way round.
    tokio::time::advance(EXPIRY).await;
    assert!(second.take_up(clock.now()));
    assert!(targets.expire(clock.now()).is_empty());
    second.stream_opened();
    tokio::time::advance(2 * EXPIRY).await;
    assert!(targets.expire(clock.now()).is_empty(), "a stream is open");
    second.stream_closed(clock.now());
    assert!(Arc::ptr_eq(&second, &find()));
    let told = std::iter::from_fn(|| registered.try_recv().ok()).count();
    assert_eq!((told, targets.len()), (2, 1));
}

#[test]
fn of_calls_that_race_an_expiry_none_is_left_with_what_is_forgotten() {
    const CALLS: usize = 3;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let clock = Clock::start();
    for _ in 0..200 {
        let (commands, _registered) = mpsc::unbounded_channel();
        let targets = Targets::new(commands, clock, Tenancy::OwnNamespace);
        targets.find_or_register("team-a", "demo", &metadata(), None).unwrap();
        // A moment from which on it is unused, unless a call takes it up.
        let due = clock.now() + EXPIRY;
        let start = std::sync::Barrier::new(CALLS + 1);
        let (found, expired) = std::thread::scope(|scope| {
            let calls = [(); CALLS].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    // As if it came later than the one that registered.
                    targets.find_at(due, "team-a", "demo", &metadata(), None).unwrap()
                })
            });
            start.wait();
            let expired = targets.expire(due);
            (calls.map(|call| call.join().unwrap()), expired)
        });
        for target in &found {
            assert!(!expired.iter().any(|gone| Arc::ptr_eq(gone, target)));
            assert!(Arc::ptr_eq(target, &found[0]), "one target for all");
        }
    }
}

/// What KEDA sends for a ScaledObject of this name.
fn call(targets: &Targets, name: &str, set: &str, more: &[(&str, &str)]) -> Result<Arc<Target>, Refusal> {
    let mut metadata = metadata();
    metadata.insert("inferenceSetName".to_owned(), set.to_owned());
    metadata.extend(more.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())));
    targets.find_or_register("team-a", name, &metadata, None)
}

#[tokio::test(start_paused = true)]
async fn one_inference_set_has_as_many_triggers_as_can_be_served() {
    let (registered, mut registrations) = mpsc::unbounded_channel();
    let clock = Clock::start();
    let targets = Targets::new(registered, clock, Tenancy::OwnNamespace);
    let metric =
        |name: &str| serde_json::json!({"name": name, "type": "gauge", "upthreshold": 2, "downthreshold": 1});
    let policy =
        serde_json::json!([metric("vllm:num_requests_waiting"), metric("vllm:num_requests_running")]);
    let policy = policy.to_string();
    let two = [("metricName", ""), ("threshold", ""), ("aggregation", "policy"), ("policy", policy.as_str())];
    call(&targets, "two", "demo", &two).unwrap();
    for number in 2..MOST_METRICS {
        call(&targets, &format!("demo-{number}"), "demo", &[]).unwrap();
    }
    let refusal = call(&targets, "one-more", "demo", &[]).unwrap_err().to_string();
    assert!(
        refusal.starts_with(
            "the triggers in use on InferenceSet team-a/demo read 1000 metrics, and this one 1 more"
        ),
        "{refusal}"
    );
    // Those that are served are, and other InferenceSets have their own.
    call(&targets, "demo-7", "demo", &[]).unwrap();
    call(&targets, "other", "other", &[]).unwrap();
    // Gates read no metric, and still cost something.
    assert!(call(&targets, "gate", "demo", &[("aggregation", "gate")]).is_err());
    while registrations.try_recv().is_ok() {}

    // Two are asked for no more: there is room for two, and not for three.
    tokio::time::advance(EXPIRY).await;
    for number in 4..MOST_METRICS {
        call(&targets, &format!("demo-{number}"), "demo", &[]).unwrap();
    }
    call(&targets, "two", "demo", &two).unwrap();
    assert_eq!(targets.expire(clock.now()).len(), 3, "and the other InferenceSet's");
    assert!(call(&targets, "next", "demo", &two).is_ok());
    assert!(call(&targets, "one-more", "demo", &[]).is_err());
}

#[tokio::test(start_paused = true)]
async fn all_calls_together_wait_once_for_the_first_round() {
    let (registered, _registrations) = mpsc::unbounded_channel();
    let targets = Targets::new(registered, Clock::start(), Tenancy::OwnNamespace);
    let limit = Duration::from_millis(900);
    let began = Instant::now();
    let target = call(&targets, "demo", "demo", &[]).unwrap();
    tokio::join!(target.first_round(limit), target.first_round(limit));
    assert_eq!(began.elapsed(), Duration::from_millis(900));
    // One after the other, as KEDA calls.
    target.first_round(limit).await;
    assert_eq!(began.elapsed(), Duration::from_millis(900));

    let other = call(&targets, "other", "other", &[]).unwrap();
    let read = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        other.complete_first_round();
    };
    tokio::join!(other.first_round(limit), read);
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}
