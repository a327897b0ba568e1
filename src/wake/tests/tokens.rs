//! Who is shown a token.

use super::*;
use scaler_core::wake::Withheld;
use sim::api_server::SILENCE;

/// The pool whose picker is read, as an InferenceSet `demo` in team-a has it.
const POOL: &str = "demo-inferencepool";
const PICKER: &str = "demo-inferencepool-epp:9090";

async fn read(reader: &Reader, source: &Source, server: &Server) -> Result<Option<f64>, Fault> {
    let mut endpoint = SourceEndpoint::new(source.clone(), server.address);
    let samples = reader.read(&mut endpoint, &[POOL.into()], LONG).await?;
    Ok(samples[0].queued)
}

fn shown(tokens: &[Option<&str>]) -> Vec<Option<String>> {
    tokens.iter().map(|token| token.map(|token| format!("Bearer {token}"))).collect()
}

#[tokio::test]
async fn the_picker_that_the_pool_names_is_shown_one_token_for_all() {
    let (api, server, other) =
        (api(), Server::that_wants_a_token().await, Server::that_wants_a_token().await);
    put_pool(&api, POOL, "demo-inferencepool-epp");
    let reader = reader(credentials(&api, &["epp"]));
    let mut endpoint = SourceEndpoint::new(source(PICKER), server.address);
    for _ in 0..3 {
        let read = reader.read(&mut endpoint, &[POOL.into()], LONG).await;
        assert_eq!(read.unwrap()[0].queued, Some(3.0));
    }
    let token = Some("token-1");
    assert_eq!(server.seen(), shown(&[None, token, token, token]), "asked without once");
    assert_eq!(read(&reader, &source("epp:80"), &other).await, Ok(Some(3.0)), "the operator lists it");
    assert_eq!(other.seen(), shown(&[None, token]), "the same token");
    assert_eq!(api.requests("serviceaccounts"), 1);
    assert_eq!(api.requests("inferencepools"), 1);
}

#[tokio::test]
async fn the_older_api_of_pools_will_do() {
    let (api, server) = (api(), Server::that_wants_a_token().await);
    let path =
        format!("/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/team-a/inferencepools/{POOL}");
    let reference = json!({"name": "demo-inferencepool-epp"});
    api.put(&path, json!({"metadata": {}, "spec": {"extensionRef": reference}}));
    assert_eq!(read(&reader(credentials(&api, &[])), &source(PICKER), &server).await, Ok(Some(3.0)));
}

#[tokio::test]
async fn nobody_else_is_shown_anything() {
    let pool: Arc<str> = POOL.into();
    let other = Withheld::OtherPicker { pool: pool.clone(), picker: "other-epp".into() };
    // (the picker that the pool names, what is read, why it gets no token)
    let cases = [
        // A tenant names a server of its own.
        (Some("demo-inferencepool-epp"), "evil:9090", Withheld::Tenant),
        // Even the pool's: KAITO names its pickers otherwise.
        (Some("evil"), "evil:9090", Withheld::Tenant),
        // A Service that only carries the name.
        (None, PICKER, Withheld::NoPool { pool }),
        (Some("other-epp"), PICKER, other),
    ];
    for (named, what, why) in cases {
        let (api, server) = (api(), Server::that_wants_a_token().await);
        if let Some(named) = named {
            put_pool(&api, POOL, named);
        }
        // A Service of that name is listed, in another namespace.
        let listed = BTreeSet::from([ObjectName::new("team-b", "evil")]);
        let account = Some(ObjectName::new("keda", ACCOUNT));
        let credentials =
            Credentials::new(api.client(), CredentialSettings { account, listed }, &Tasks::new());
        let read = read(&reader(credentials), &source(what), &server).await;
        assert_eq!(read, Err(Fault::Withheld { status: 401, why }), "{what}");
        assert_eq!(server.seen(), shown(&[None]), "{what}");
        assert_eq!(api.requests("serviceaccounts"), 0, "no token is even made");
    }
}

#[tokio::test]
async fn one_that_serves_everybody_never_sees_a_token() {
    let (api, server) = (api(), Server::start(|_| (200, page(POOL, 1))).await);
    put_pool(&api, POOL, "demo-inferencepool-epp");
    assert_eq!(read(&reader(credentials(&api, &["evil"])), &source(PICKER), &server).await, Ok(Some(1.0)));
    assert_eq!(server.seen(), shown(&[None]));
    assert_eq!(api.requests(""), 0);
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let (api, server) =
        (api(), Server::start(|shown| (if shown.is_some() { 302 } else { 401 }, String::new())).await);
    put_pool(&api, POOL, "demo-inferencepool-epp");
    let read = read(&reader(credentials(&api, &[])), &source(PICKER), &server).await;
    assert_eq!(read, Err(Fault::Status(302)));
    assert_eq!(server.seen(), shown(&[None, Some("token-1")]));
}

#[tokio::test]
async fn what_a_picker_says_to_a_token_tells_what_is_missing() {
    for (answer, fault) in [(401, Fault::TokenRefused), (403, Fault::Forbidden), (500, Fault::CannotReview)] {
        let server =
            Server::start(move |shown| (if shown.is_some() { answer } else { 401 }, String::new())).await;
        let (api, source) = (api(), source(PICKER));
        put_pool(&api, POOL, "demo-inferencepool-epp");
        assert_eq!(read(&reader(credentials(&api, &[])), &source, &server).await, Err(fault));
    }
    let server = Server::start(|_| (503, String::new())).await;
    let passing = read(&reader(credentials(&api(), &[])), &source(PICKER), &server).await;
    assert_eq!(passing, Err(Fault::Passing("answered with status 503".into())));
    let server = Server::start(|_| (200, "go_goroutines 7\n".into())).await;
    assert_eq!(
        read(&reader(credentials(&api(), &[])), &source(PICKER), &server).await,
        Err(Fault::NoSignals)
    );
}

/// Lets what goes on in the background go on, for less than any time that matters.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_in_time_and_outlives_the_api_server() {
    let api = api();
    let credentials = credentials(&api, &["epp"]);
    let (source, pools) = (source("epp:80"), [Arc::from(POOL)]);
    let get = async || {
        let header = credentials.header(&source, &pools).await;
        header.map(|header| header.to_str().unwrap().to_owned())
    };
    let minutes = |minutes: u64| tokio::time::sleep(Duration::from_secs(60 * minutes));
    // A renewal goes on behind the back of who finds the token still good.
    let asked = async |times| api.until(|api| api.requests("serviceaccounts") == times).await;
    assert_eq!(get().await.unwrap(), "Bearer token-1");
    minutes(7).await;
    assert_eq!(get().await.unwrap(), "Bearer token-1");
    minutes(1).await;
    assert_eq!(get().await.unwrap(), "Bearer token-1", "nobody waits for the next one");
    asked(2).await;
    settle().await;
    assert_eq!(get().await.unwrap(), "Bearer token-2", "after eight of ten minutes");
    api.fail(|_, _| Some(503));
    minutes(9).await;
    assert_eq!(get().await.unwrap(), "Bearer token-2", "still good");
    asked(3).await;
    settle().await;
    assert!(get().await.is_ok());
    settle().await;
    assert_eq!(api.requests("serviceaccounts"), 3, "it is not asked at every turn");
    minutes(1).await;
    let why = get().await.unwrap_err();
    let Withheld::NoAnswer(text) = &why else { panic!("{why:?}") };
    assert!(
        text.starts_with("no token for the ServiceAccount keda/keda-kaito-scaler-metrics-reader: "),
        "{text}"
    );
    api.fail(|_, _| None);
    minutes(1).await;
    assert_eq!(get().await.unwrap(), "Bearer token-3");
}

/// Two minutes before a token ends the API server falls silent: no call of it fails, and none
/// is answered.
#[tokio::test(start_paused = true)]
async fn while_a_token_is_good_nobody_waits_for_the_next_one() {
    let api = api();
    put_pool(&api, POOL, "demo-inferencepool-epp");
    let credentials = credentials(&api, &["epp"]);
    let (listed, picker, pools) = (source("epp:80"), source(PICKER), [Arc::from(POOL)]);
    let read = async || {
        let begun = tokio::time::Instant::now();
        for source in [&listed, &picker, &listed] {
            let header = credentials.header(source, &pools).await.unwrap();
            assert_eq!(header, "Bearer token-1");
        }
        begun.elapsed()
    };
    read().await;
    // The pool's word is asked for anew after four of five minutes, and by now not answered.
    tokio::time::sleep(Duration::from_secs(235)).await;
    api.fail(|_, _| Some(SILENCE));
    for second in 236..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(read().await, Duration::ZERO, "second {second}");
    }
    assert!(api.requests("serviceaccounts") > 3, "it is tried again and again");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let why = credentials.header(&listed, &pools).await.unwrap_err();
    assert!(matches!(why, Withheld::NoAnswer(_)), "{why:?}");
}

/// A server that refuses a good token has another one asked for, which may take its time:
/// that is the server's own time.
#[tokio::test(start_paused = true)]
async fn a_token_that_one_source_refuses_is_good_for_the_others_meanwhile() {
    let api = api();
    let credentials = credentials(&api, &["epp"]);
    let (source, pools) = (source("epp:80"), [Arc::from(POOL)]);
    let token = credentials.header(&source, &pools).await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    api.fail(|_, _| Some(SILENCE));
    let begun = tokio::time::Instant::now();
    let mut refusing = JoinSet::new();
    let (theirs, shown) = (credentials.clone(), token.clone());
    refusing.spawn(async move { theirs.refused(&shown).await });
    settle().await;
    assert_eq!(credentials.header(&source, &pools).await.unwrap(), token);
    assert_eq!(begun.elapsed(), Duration::from_millis(1));
    refusing.join_next().await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert_eq!(credentials.header(&source, &pools).await.unwrap(), token, "no other was given out");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_taken_back_is_replaced() {
    let credentials = credentials(&api(), &["epp"]);
    let (source, pools) = (source("epp:80"), [Arc::from(POOL)]);
    let first = credentials.header(&source, &pools).await.unwrap();
    credentials.refused(&first).await;
    assert_eq!(
        credentials.header(&source, &pools).await.unwrap(),
        first,
        "it is new: the source is at fault"
    );
    tokio::time::sleep(Duration::from_secs(61)).await;
    credentials.refused(&first).await;
    let second = credentials.header(&source, &pools).await.unwrap();
    assert_eq!(second, "Bearer token-2");
    credentials.refused(&first).await;
    assert_eq!(credentials.header(&source, &pools).await.unwrap(), second, "the old one says nothing of it");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_turns_elsewhere_takes_the_token_with_it() {
    let api = api();
    put_pool(&api, POOL, "demo-inferencepool-epp");
    let credentials = credentials(&api, &[]);
    let (source, pools) = (source(PICKER), [Arc::from(POOL)]);
    assert!(credentials.header(&source, &pools).await.is_ok());
    put_pool(&api, POOL, "other-epp");
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert!(matches!(credentials.header(&source, &pools).await, Err(Withheld::OtherPicker { .. })));
    // And an API server that is away gives none out anew.
    api.fail(|_, _| Some(503));
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert!(credentials.header(&source, &pools).await.is_err());
}

#[tokio::test]
async fn without_an_account_nobody_is_shown_anything() {
    let (api, server) = (api(), Server::that_wants_a_token().await);
    put_pool(&api, POOL, "demo-inferencepool-epp");
    let reader = reader(Credentials::new(api.client(), CredentialSettings::default(), &Tasks::new()));
    let read = read(&reader, &source(PICKER), &server).await;
    assert_eq!(read, Err(Fault::Withheld { status: 401, why: Withheld::NoAccount }));
    assert_eq!(server.seen(), shown(&[None]));
}
