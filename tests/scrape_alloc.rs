//! How often a scrape asks the allocator for memory: over a connection that is kept, into a
//! buffer that was used before, only what its sample and its report are made of.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
    time::Duration,
};

use clock::Clock;
use keda_kaito_scaler::scrape::{DEFAULT_MAX_BODY, PageClient, ScrapeId, ScrapePlan, ScrapePool};
use scaler_core::{
    config::trigger::{PageSource, Shape, WantedMetric},
    names::{InferenceSetKey, MetricName, PodUid},
    page::Wanted,
};
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const PAGE: &str = include_str!("data/loaded.txt");

/// Answers every request on one connection with a whole page in one chunk. Allocates nothing
/// while it does.
fn serve(listener: &TcpListener) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{PAGE}\r\n0\r\n\r\n",
        PAGE.len()
    );
    let Ok((mut stream, _)) = listener.accept() else { return };
    let (mut request, mut length) = ([0; 4096], 0);
    while let Ok(read @ 1..) = stream.read(&mut request[length..]) {
        length += read;
        if request[..length].ends_with(b"\r\n\r\n") {
            length = 0;
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// So many that a lone allocation now and then does not show: those of the channel's blocks.
const SCRAPES: u64 = 200;

#[test]
fn a_scrape_allocates_for_its_sample_only() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || serve(&listener));
    let waiting = MetricName::parse("vllm:num_requests_waiting").unwrap();
    let wanted = Wanted::new([WantedMetric { name: waiting, shape: Shape::Value }]);
    let plan = ScrapePlan {
        address,
        wanted: Arc::new(wanted),
        interval: Duration::from_millis(1),
        timeout: Duration::from_secs(3),
        ready: true,
    };
    let id = ScrapeId {
        set: InferenceSetKey::new("team-a", "demo"),
        uid: PodUid("u".into()),
        page: Arc::new(PageSource::default()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let blocks = runtime.block_on(async {
        let (sender, mut reports) = mpsc::channel(8);
        let client = PageClient::new(DEFAULT_MAX_BODY).unwrap();
        let mut pool = ScrapePool::new(client, Clock::start(), sender);
        pool.apply(id, plan);
        let mut next = async || {
            let scraped = reports.recv().await.unwrap().outcome.unwrap();
            assert_eq!((scraped.bytes, scraped.sample.demand.waiting), (PAGE.len(), Some(11.0)));
        };
        // The first ones connect, and grow the buffer.
        for _ in 0..10 {
            next().await;
        }
        let _profiler = dhat::Profiler::builder().testing().build();
        let before = dhat::HeapStats::get().total_blocks;
        for _ in 0..SCRAPES {
            next().await;
        }
        dhat::HeapStats::get().total_blocks - before
    });
    let each = blocks as f64 / SCRAPES as f64;
    println!("{each:.2} allocations a scrape");
    assert!(each < 4.0, "{each:.2} allocations a scrape");
    assert!(each >= 1.0, "the count counts");
}
