//! Small HTTP servers on the loopback interface, one for each kind of server that the scraper
//! meets in the field: well-behaved ones, ones that are still loading, and hostile ones.
//!
//! They speak just enough HTTP/1.1, straight on a TCP stream, because half of them have to
//! break the protocol on purpose. Every one counts the requests it gets by page kind.

use std::{
    fmt::Write as _,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::hostile::Hostile;

/// How a [`Fixture`] answers.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// vLLM: `/metrics` in full, `/metrics/?name[]=…` only the samples asked for.
    Vllm { page: Arc<str> },
    /// vLLM with several API servers: `/metrics` in full, any filter gives an empty 200. A
    /// server of another kind that collects over processes (SGLang) does the same.
    VllmSeveralApiServers { page: Arc<str> },
    /// KAITO while it downloads the model: `/metrics` with only its own gauges, 404 else.
    KaitoDownload { remaining_seconds: f64 },
    /// A server that knows exactly `/metrics` (Go, Rust): 404 on any other path.
    ExactPath { page: Arc<str> },
    /// This status to everything: a decode pod's sidecar gives 502 while vLLM loads.
    Status(u16),
    /// Redirects everything to the same path on `to`.
    Redirects { to: SocketAddr },
    /// Takes the request and never answers.
    Hangs,
    /// Announces a page, sends half of it and resets the connection.
    ResetsMidBody,
    /// Aims at one thing that a careless reader runs out of.
    Hostile(Hostile),
    /// Answers with bytes that are no HTTP.
    NoHttp,
    /// Answers 200 with a body that is no metrics page.
    NoMetrics,
    /// Drops each connection when a request has come, without a byte of an answer.
    DropsUnanswered,
    /// As `Vllm`, but closes each connection after one answer without announcing it.
    ClosesAfterAnswer { page: Arc<str> },
    /// As `Vllm`, but drops a connection when a second request comes on it: what a client
    /// sees whose request crosses the server's keep-alive timeout.
    DropsReused { page: Arc<str> },
}

/// How many requests a [`Fixture`] got so far, and over how many connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// With a `name[]` filter.
    pub filtered: u64,
    /// Without a filter.
    pub plain: u64,
    pub connections: u64,
}

/// One running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Fixture {
    address: SocketAddr,
    shared: Arc<Shared>,
    _running: DropGuard,
}

#[derive(Debug)]
struct Shared {
    behaviour: ArcSwap<Behaviour>,
    filtered: AtomicU64,
    plain: AtomicU64,
    connections: AtomicU64,
}

impl Fixture {
    /// Serves `behaviour` on a free port of 127.0.0.1.
    pub async fn start(behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            behaviour: ArcSwap::from_pointee(behaviour),
            filtered: AtomicU64::new(0),
            plain: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let accept = accept(listener, Arc::clone(&shared), tasks.clone(), stop.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(accept));
        Ok(Self { address, shared, _running: stop.drop_guard() })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers with `behaviour` from the next request on, open connections included.
    pub fn become_one_that(&self, behaviour: Behaviour) {
        self.shared.behaviour.store(Arc::new(behaviour));
    }

    #[must_use]
    pub fn hits(&self) -> Hits {
        Hits {
            filtered: self.shared.filtered.load(Ordering::Relaxed),
            plain: self.shared.plain.load(Ordering::Relaxed),
            connections: self.shared.connections.load(Ordering::Relaxed),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker, stop: CancellationToken) {
    loop {
        // A failed accept is the peer's doing (it went away again) or passes (no descriptors).
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        // What goes wrong on one connection is that connection's end and nothing else.
        let converse = async move { converse(stream, &shared).await.unwrap_or_default() };
        tasks.spawn(stop.clone().run_until_cancelled_owned(converse));
    }
}

/// Answers the requests of one connection until one side has enough.
async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Vec::with_capacity(4096);
    let mut served_before = false;
    while let Some(target) = read_request(&mut stream, &mut received).await? {
        let wanted = filter_of(&target);
        let counter = if wanted.is_empty() { &shared.plain } else { &shared.filtered };
        counter.fetch_add(1, Ordering::Relaxed);
        let behaviour = shared.behaviour.load_full();
        match &*behaviour {
            Behaviour::DropsUnanswered => return Ok(()),
            Behaviour::DropsReused { .. } if served_before => return Ok(()),
            Behaviour::Vllm { page } | Behaviour::DropsReused { page } => {
                write_page(&mut stream, &filtered(page, &wanted)).await?;
            }
            Behaviour::VllmSeveralApiServers { page } => {
                write_page(&mut stream, if wanted.is_empty() { page } else { "" }).await?;
            }
            Behaviour::ExactPath { .. } | Behaviour::KaitoDownload { .. } if target != "/metrics" => {
                write_answer(&mut stream, 404, "", "{\"detail\":\"Not Found\"}").await?;
            }
            Behaviour::ExactPath { page } => write_page(&mut stream, page).await?,
            Behaviour::KaitoDownload { remaining_seconds } => {
                write_page(&mut stream, &kaito_download_page(*remaining_seconds)).await?;
            }
            Behaviour::Status(status) => write_answer(&mut stream, *status, "", "not now\n").await?,
            Behaviour::Redirects { to } => {
                let location = format!("location: http://{to}{target}\r\n");
                write_answer(&mut stream, 307, &location, "").await?;
            }
            Behaviour::Hangs => pending().await,
            Behaviour::ResetsMidBody => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
                stream.write_all(&[b'#'; 500]).await?;
                return stream.set_zero_linger();
            }
            Behaviour::Hostile(kind) => kind.answer(&mut stream).await?,
            Behaviour::NoHttp => return stream.write_all(b"\x16\x03\x01 what is this?\r\n\r\n").await,
            Behaviour::NoMetrics => {
                write_page(&mut stream, "<!DOCTYPE html>\n<html><body>Welcome!</body></html>\n").await?;
            }
            Behaviour::ClosesAfterAnswer { page } => {
                return write_page(&mut stream, &filtered(page, &wanted)).await;
            }
        }
        served_before = true;
    }
    Ok(())
}

/// Reads up to the end of one request's head and gives its target; `None` where the client
/// has closed. Bodies and pipelining are not expected of a scraper.
async fn read_request(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<String>> {
    received.clear();
    while !received.ends_with(b"\r\n\r\n") {
        if received.len() > 64 * 1024 || stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
    let head = String::from_utf8_lossy(received);
    Ok(head.split(' ').nth(1).map(str::to_owned))
}

async fn write_page(stream: &mut TcpStream, page: &str) -> io::Result<()> {
    let content_type = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    write_answer(stream, 200, content_type, page).await
}

async fn write_answer(stream: &mut TcpStream, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} x\r\n{headers}content-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}

/// The sample names that a request's target asks for.
fn filter_of(target: &str) -> Vec<&str> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let named = |pair: &'_ str| -> bool { pair.starts_with("name[]=") || pair.starts_with("name%5B%5D=") };
    query.split('&').filter(|pair| named(pair)).filter_map(|pair| Some(pair.split_once('=')?.1)).collect()
}

/// What vLLM's server (`prometheus_client`) makes of a filter: the samples whose own name was
/// asked for, under the comments of their family; names it does not know are left out.
fn filtered(page: &str, wanted: &[&str]) -> String {
    if wanted.is_empty() {
        return page.to_owned();
    }
    let mut kept = String::new();
    let mut comments = String::new();
    let mut last_was_comment = false;
    for line in page.lines() {
        let is_comment = line.starts_with('#');
        if is_comment {
            if !last_was_comment {
                comments.clear();
            }
            let _ = writeln!(comments, "{line}");
        } else if wanted.contains(&line.split(['{', ' ']).next().unwrap_or_default()) {
            kept.push_str(&comments);
            comments.clear();
            let _ = writeln!(kept, "{line}");
        }
        last_was_comment = is_comment;
    }
    kept
}

/// A small vLLM page with one engine: for scenes in which the size of the page plays no part.
#[must_use]
pub fn vllm_page(waiting: u32, running: u32, kv_usage: f64) -> Arc<str> {
    let labels = "{engine=\"0\",model_name=\"tiny\"}";
    format!(
        "# HELP vllm:num_requests_running Number of requests in model execution batches.\n\
         # TYPE vllm:num_requests_running gauge\n\
         vllm:num_requests_running{labels} {running}.0\n\
         # HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n\
         # TYPE vllm:num_requests_waiting gauge\n\
         vllm:num_requests_waiting{labels} {waiting}.0\n\
         # HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.\n\
         # TYPE vllm:kv_cache_usage_perc gauge\n\
         vllm:kv_cache_usage_perc{labels} {kv_usage}\n"
    )
    .into()
}

/// A small SGLang page.
#[must_use]
pub fn sglang_page(waiting: u32, running: u32, kv_usage: f64) -> Arc<str> {
    let labels = "{model_name=\"tiny\"}";
    format!(
        "# TYPE sglang:num_running_reqs gauge\n\
         sglang:num_running_reqs{labels} {running}.0\n\
         # TYPE sglang:num_queue_reqs gauge\n\
         sglang:num_queue_reqs{labels} {waiting}.0\n\
         # TYPE sglang:token_usage gauge\n\
         sglang:token_usage{labels} {kv_usage}\n"
    )
    .into()
}

fn kaito_download_page(remaining_seconds: f64) -> String {
    format!(
        "# HELP kaito_model_download_speed_bytes_per_second Current model download speed.\n\
         # TYPE kaito_model_download_speed_bytes_per_second gauge\n\
         kaito_model_download_speed_bytes_per_second 104857600.0\n\
         # HELP kaito_model_download_remaining_seconds Estimated seconds left, -1 if unknown.\n\
         # TYPE kaito_model_download_remaining_seconds gauge\n\
         kaito_model_download_remaining_seconds {remaining_seconds}\n"
    )
}
