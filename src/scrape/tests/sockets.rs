//! Each kind of server over a real socket.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use url::Url;

use super::{
    super::{
        Connection, DEFAULT_MAX_BODY, Fetch, Outcome, Page, PageClient, Peer, Request, ScrapeError,
        ScrapePlan, ScrapePool, ScrapeReport,
    },
    id, page_of, plan, wanted,
};
use clock::Clock;
use scaler_core::{
    config::trigger::Protocol,
    endpoint::page_choice::PageKind::{Filtered, Plain},
};
use sim::{
    fixtures::{Behaviour, Fixture, Hits, sglang_page, vllm_page},
    hostile::Hostile,
};

const LOADED: &str = include_str!("../../../tests/data/loaded.txt");

fn client() -> PageClient {
    PageClient::new(DEFAULT_MAX_BODY).unwrap()
}

/// The first `count` reports on `address`, scraped in quick succession.
async fn scrape(address: SocketAddr, change: impl Fn(&mut ScrapePlan), count: usize) -> Vec<ScrapeReport> {
    let (sender, mut reports) = mpsc::channel(1);
    let mut pool = ScrapePool::new(client(), Clock::start(), sender);
    let mut plan = ScrapePlan { interval: Duration::from_millis(2), ..plan(address) };
    change(&mut plan);
    pool.apply(id("a"), plan);
    let mut received = Vec::new();
    while received.len() < count {
        received.push(reports.recv().await.unwrap());
    }
    pool.shutdown().await;
    received
}

/// How a server is reached.
#[derive(Clone, Copy, Debug)]
enum By {
    Plaintext,
    Tls,
}

impl By {
    const BOTH: [Self; 2] = [Self::Plaintext, Self::Tls];

    /// Fetches from `behaviour`, with 64 KiB for the page, on a fresh connection or on one
    /// that was used before. The hits are those of this fetch alone.
    async fn fetch(self, behaviour: Behaviour, reused: bool) -> (Result<usize, ScrapeError>, Hits) {
        let server = Fixture::start(Behaviour::Vllm { page: vllm_page(3, 2, 0.5) }).await.unwrap();
        let (address, peer, _front) = match self {
            Self::Plaintext => (server.address(), Peer::Anybody, JoinSet::new()),
            Self::Tls => {
                let (address, front) = in_front_of(server.address()).await;
                (address, Peer::Encrypted, front)
            }
        };
        let (client, mut connection) = (PageClient::new(64 * 1024).unwrap(), Connection::default());
        if reused {
            get(&client, &mut connection, address, &peer).await.unwrap();
        }
        let before = server.hits();
        server.become_one_that(behaviour);
        let result = get(&client, &mut connection, address, &peer).await.map(|page| page.len());
        let Hits { filtered, plain, connections } = server.hits();
        let connections = connections - before.connections;
        (result, Hits { filtered, plain: plain - before.plain, connections })
    }
}

async fn get(
    client: &PageClient,
    connection: &mut Connection,
    address: SocketAddr,
    peer: &Peer,
) -> Result<Page, ScrapeError> {
    let scheme = if *peer == Peer::Anybody { "http" } else { "https" };
    let url: Url = format!("{scheme}://{address}/metrics").parse().unwrap();
    let request = Request { address, peer, url: &url, namespace: "team-a", authorization: None };
    client.fetch(connection, &request).await
}

/// A certificate that nobody vouches for.
fn self_signed() -> TlsAcceptor {
    let certified = rcgen::generate_simple_self_signed(["someone-else".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// TLS in front of a server that speaks plaintext: one connection for each.
async fn in_front_of(server: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = self_signed();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, acceptor) = (listener.accept().await.unwrap().0, acceptor.clone());
            connections.spawn(async move {
                let mut near = acceptor.accept(stream).await.unwrap();
                let mut far = TcpStream::connect(server).await.unwrap();
                // Either side may break off.
                drop(copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    (address, accepting)
}

#[tokio::test]
async fn a_filtered_page_is_a_fraction_of_the_plain_one_over_one_connection() {
    let server = Fixture::start(Behaviour::Vllm { page: LOADED.into() }).await.unwrap();
    for report in scrape(server.address(), |_| {}, 5).await {
        let scraped = report.outcome.unwrap();
        assert_eq!(scraped.page, Filtered);
        assert_eq!((scraped.sample.demand.waiting, scraped.sample.demand.running), (Some(11.0), Some(4.0)));
        assert!(scraped.bytes < LOADED.len() / 20, "{} bytes", scraped.bytes);
    }
    let hits = server.hits();
    assert!(hits.plain == 0 && hits.connections == 1, "{hits:?}");
}

#[tokio::test]
async fn servers_without_a_filter_are_asked_for_it_once() {
    let page: Arc<str> = LOADED.into();
    for behaviour in [
        Behaviour::VllmSeveralApiServers { page: Arc::clone(&page) },
        Behaviour::ExactPath { page: Arc::clone(&page) },
    ] {
        let server = Fixture::start(behaviour.clone()).await.unwrap();
        for report in scrape(server.address(), |_| {}, 4).await {
            let scraped = report.outcome.unwrap();
            assert_eq!((scraped.page, scraped.bytes), (Plain, LOADED.len()));
            assert_eq!(scraped.sample.demand.waiting, Some(11.0));
        }
        assert_eq!(server.hits().filtered, 1, "{behaviour:?}");
    }
}

#[tokio::test]
async fn a_pod_goes_from_download_over_loading_to_serving() {
    let server = Fixture::start(Behaviour::KaitoDownload { remaining_seconds: 42.0 }).await.unwrap();
    let (sender, mut reports) = mpsc::channel(1);
    let mut pool = ScrapePool::new(client(), Clock::start(), sender);
    let fast = ScrapePlan { interval: Duration::from_millis(2), ready: false, ..plan(server.address()) };
    pool.apply(id("a"), fast);
    let downloading = reports.recv().await.unwrap().outcome.unwrap();
    assert_eq!((downloading.page, downloading.sample.engine), (Plain, false));
    assert_eq!(downloading.sample.download_remaining, Some(42.0));
    assert_eq!(downloading.sample.demand.waiting, None, "nothing is known of its queue");

    server.become_one_that(Behaviour::Status(502));
    let loading = async {
        loop {
            if let Err(error) = reports.recv().await.unwrap().outcome {
                return error;
            }
        }
    };
    assert_eq!(loading.await, ScrapeError::Status(502));

    server.become_one_that(Behaviour::Vllm { page: vllm_page(3, 2, 0.5) });
    // Finds its way back to the filter by itself, before the pod is Ready.
    loop {
        if let Ok(scraped) = reports.recv().await.unwrap().outcome
            && scraped.page == Filtered
        {
            assert_eq!(scraped.sample.demand.waiting, Some(3.0));
            break;
        }
    }
    pool.shutdown().await;
}

#[tokio::test]
async fn sglang_is_read_by_its_own_names() {
    let page = sglang_page(3, 2, 0.25);
    let server = Fixture::start(Behaviour::VllmSeveralApiServers { page }).await.unwrap();
    let reports = scrape(server.address(), |plan| plan.wanted = wanted(&["sglang:token_usage"]), 2).await;
    for report in reports {
        let scraped = report.outcome.unwrap();
        assert_eq!((scraped.sample.demand.waiting, scraped.sample.demand.running), (Some(3.0), Some(2.0)));
        assert_eq!(scraped.sample.readings.len(), 1);
    }
}

#[tokio::test]
async fn a_hostile_server_costs_only_its_own_value() {
    let elsewhere = Fixture::start(Behaviour::Vllm { page: vllm_page(9, 9, 0.9) }).await.unwrap();
    let cases = [
        (Behaviour::Hangs, Outcome::TimedOut),
        (Behaviour::ResetsMidBody, Outcome::Broken),
        (Behaviour::Hostile(Hostile::Endless), Outcome::TooLarge),
        (Behaviour::NoHttp, Outcome::NotHttp),
        (Behaviour::NoMetrics, Outcome::NotMetrics),
        (Behaviour::Redirects { to: elsewhere.address() }, Outcome::Redirect),
        (Behaviour::Status(500), Outcome::Status),
        (Behaviour::Status(404), Outcome::Status),
        (Behaviour::Status(204), Outcome::Status),
    ];
    for (behaviour, expected) in cases {
        let server = Fixture::start(behaviour.clone()).await.unwrap();
        let impatient = |plan: &mut ScrapePlan| {
            // Only the one that hangs is to run into its timeout.
            if expected == Outcome::TimedOut {
                plan.timeout = Duration::from_millis(50);
            }
        };
        for report in scrape(server.address(), impatient, 2).await {
            assert_eq!(report.outcome_label(), expected, "{behaviour:?}: {:?}", report.outcome);
        }
    }
    assert_eq!(elsewhere.hits(), Hits::default(), "a redirect is not followed");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = scrape(gone, |_| {}, 1).await;
    assert_eq!(refused[0].outcome, Err(ScrapeError::Refused));
}

#[tokio::test]
async fn a_reused_connection_that_breaks_is_replaced_within_the_scrape() {
    for behaviour in [
        Behaviour::DropsReused { page: vllm_page(3, 2, 0.5) },
        Behaviour::ClosesAfterAnswer { page: vllm_page(3, 2, 0.5) },
    ] {
        let server = Fixture::start(behaviour.clone()).await.unwrap();
        for report in scrape(server.address(), |_| {}, 5).await {
            assert!(report.outcome.is_ok(), "{behaviour:?}: {:?}", report.outcome);
        }
        assert!(server.hits().connections >= 5, "{behaviour:?}: {:?}", server.hits());
    }
}

#[tokio::test]
async fn what_breaks_after_the_first_byte_or_on_a_fresh_connection_is_not_tried_again() {
    for by in By::BOTH {
        let (result, hits) = by.fetch(Behaviour::ResetsMidBody, true).await;
        assert_eq!((result, hits.plain, hits.connections), (Err(ScrapeError::Broken), 1, 0), "{by:?}");
        let drops_all = Behaviour::DropsUnanswered;
        let (result, hits) = by.fetch(drops_all.clone(), false).await;
        assert_eq!((result, hits.plain, hits.connections), (Err(ScrapeError::Broken), 1, 1), "{by:?}");
        let (result, hits) = by.fetch(drops_all, true).await;
        assert_eq!(
            (result, hits.plain, hits.connections),
            (Err(ScrapeError::Broken), 2, 1),
            "{by:?}: once more, not for ever"
        );
    }
}

#[tokio::test]
async fn an_error_that_is_short_keeps_the_connection() {
    let server = Fixture::start(Behaviour::Status(503)).await.unwrap();
    let (client, mut connection) = (client(), Connection::default());
    for _ in 0..3 {
        let failed = get(&client, &mut connection, server.address(), &Peer::Anybody).await.err();
        assert_eq!(failed, Some(ScrapeError::Status(503)));
    }
    assert_eq!(server.hits().connections, 1);
}

/// What a task would take for the answer to its next request.
#[tokio::test]
async fn a_connection_on_which_something_came_unasked_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |page: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
    let (client, mut connection) = (client(), Connection::default());
    let serve = async |page: &str| {
        let mut stream = listener.accept().await.unwrap().0;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        stream.write_all(answer(page).as_bytes()).await.unwrap();
        stream
    };
    let (page, mut stream) =
        tokio::join!(get(&client, &mut connection, address, &Peer::Anybody), serve("first"));
    assert_eq!(&*page.unwrap(), b"first");
    stream.write_all(b"HTTP/1.1 408 x\r\n\r\n").await.unwrap();
    // Until the client's side has seen it.
    while connection.is_alive() {
        tokio::task::yield_now().await;
    }
    let (page, _) = tokio::join!(get(&client, &mut connection, address, &Peer::Anybody), serve("second"));
    assert_eq!(&*page.unwrap(), b"second");
}

/// Of what stands around a page no more is taken than of the page, over TLS as well.
#[tokio::test]
async fn an_answer_without_end_is_given_up_before_its_time() {
    let cases = [
        (Hostile::Trailers, Outcome::NotHttp),
        (Hostile::TinyChunks, Outcome::NotHttp),
        (Hostile::Informational, Outcome::NotHttp),
        (Hostile::Head, Outcome::NotHttp),
        (Hostile::Endless, Outcome::TooLarge),
        // Its size is over the limit of these fetches.
        (Hostile::Dribble, Outcome::TooLarge),
    ];
    for (kind, expected) in cases {
        for by in By::BOTH {
            let fetched = timeout(Duration::from_secs(20), by.fetch(Behaviour::Hostile(kind), false));
            let error = fetched.await.unwrap().0.unwrap_err();
            assert_eq!(Outcome::from(&error), expected, "{kind:?}, {by:?}: {error}");
        }
    }
}

/// A large page that comes too slowly does not keep those of its neighbours waiting.
#[tokio::test]
async fn a_large_page_has_to_come_soon_once_it_is_admitted() {
    let slow = Fixture::start(Behaviour::Hostile(Hostile::Dribble)).await.unwrap();
    let large = "# large\n".repeat(100_000);
    let quick = Fixture::start(Behaviour::Vllm { page: large.as_str().into() }).await.unwrap();
    let client = client();
    let fetch = async |server: &Fixture| {
        get(&client, &mut Connection::default(), server.address(), &Peer::Anybody)
            .await
            .map(|page| page.len())
    };
    let (slow, quick) = tokio::join!(fetch(&slow), fetch(&quick));
    assert_eq!(slow, Err(ScrapeError::Stalled));
    // The slow one takes all that their namespace has until then: which of them was first?
    assert!(matches!(quick, Ok(_) | Err(ScrapeError::Crowded)), "{quick:?}");
    let again = Fixture::start(Behaviour::Vllm { page: large.as_str().into() }).await.unwrap();
    assert_eq!(fetch(&again).await, Ok(large.len()));
}

#[tokio::test]
async fn a_page_over_the_limit_is_cut_off() {
    // Announced or not, and exactly at the limit.
    let page_of = |bytes: usize| Behaviour::Vllm { page: "#".repeat(bytes).into() };
    let limit = 64 * 1024;
    for by in By::BOTH {
        assert_eq!(by.fetch(page_of(limit), false).await.0, Ok(limit), "{by:?}");
        let too_large = Err(ScrapeError::TooLarge { limit });
        assert_eq!(by.fetch(page_of(limit + 1), false).await.0, too_large, "{by:?}");
        assert_eq!(by.fetch(Behaviour::Hostile(Hostile::Endless), false).await.0, too_large, "{by:?}");
    }
}

#[tokio::test]
async fn https_pods_are_scraped_without_asking_who_vouches_for_them() {
    let acceptor = self_signed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let page = vllm_page(3, 2, 0.5);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        String::from_utf8(request).unwrap()
    });

    let (sender, mut reports) = mpsc::channel(1);
    let mut pool = ScrapePool::new(client(), Clock::start(), sender);
    pool.apply(page_of("a", Protocol::Https), plan(address));
    let scraped = reports.recv().await.unwrap().outcome.unwrap();
    assert_eq!(scraped.sample.demand.waiting, Some(3.0));
    let request = server.join_next().await.unwrap().unwrap();
    assert!(
        request.starts_with("GET /metrics/?name[]=") && !request.contains("accept-encoding"),
        "{request}"
    );
}
