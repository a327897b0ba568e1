//! Sources over real sockets, and an API server in memory.

mod https;
mod pool;
mod prober;
mod tokens;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::*;
use crate::{cluster::directory::Directory, scrape::PageClient, tasks::Tasks};
use scaler_core::{
    config::trigger::WakeSource,
    fleet::ObjectName,
    wake::{Fault, Missing, Source},
};
use sim::api_server::ByPath;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// A page of a picker that holds `queued` requests for the pool.
fn page(pool: &str, queued: u32) -> String {
    format!("llm_d_epp_flow_control_queue_size{{inference_pool=\"{pool}\",priority=\"0\"}} {queued}\n")
}

/// What a server says to a request: a status and a body, or more of a head.
type Answer = Arc<dyn Fn(Option<&str>) -> (u16, String) + Send + Sync>;

/// A server on loopback that remembers the `Authorization` of every request, `None` where a
/// request had none.
struct Server {
    address: SocketAddr,
    seen: watch::Receiver<Vec<Option<String>>>,
    answer: Arc<Mutex<Answer>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(answer: impl Fn(Option<&str>) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = watch::channel(Vec::new());
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Arc::new(answer)));
        let mut tasks = JoinSet::new();
        let current = answer.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, sender.clone(), current.clone()));
            }
        });
        Self { address, seen, answer, _tasks: tasks }
    }

    /// One that wants a token, and gives its page to whoever shows one.
    async fn that_wants_a_token() -> Self {
        Self::start(|shown| match shown {
            None => (401, "Unauthorized".to_owned()),
            Some(_) => (200, page("demo-inferencepool", 3)),
        })
        .await
    }

    fn answers(&self, answer: impl Fn(Option<&str>) -> (u16, String) + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    fn seen(&self) -> Vec<Option<String>> {
        self.seen.borrow().clone()
    }
}

async fn serve(mut stream: TcpStream, seen: watch::Sender<Vec<Option<String>>>, answer: Arc<Mutex<Answer>>) {
    let mut request = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        request.push(byte);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
        let shown = text.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        let answer = answer.lock().unwrap().clone();
        let (status, body) = answer(shown.as_deref());
        seen.send_modify(|seen| seen.push(shown));
        let location = if status == 302 { "location: http://127.0.0.1:1/\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status} X\r\n{location}content-length: {}\r\n\r\n", body.len());
        if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

const ACCOUNT: &str = "keda-kaito-scaler-metrics-reader";

/// An API server that gives out tokens named `token-1` and so on.
fn api() -> ByPath {
    ByPath::new()
}

fn put_pool(api: &ByPath, pool: &str, picker: &str) {
    let path = format!("/apis/inference.networking.k8s.io/v1/namespaces/team-a/inferencepools/{pool}");
    api.put(
        &path,
        json!({"metadata": {}, "spec": {"endpointPickerRef": {"kind": "Service", "name": picker}}}),
    );
}

fn credentials(api: &ByPath, listed: &[&str]) -> Credentials {
    let listed: BTreeSet<_> = listed.iter().map(|service| ObjectName::new("team-a", service)).collect();
    let account = Some(ObjectName::new("keda", ACCOUNT));
    Credentials::new(api.client(), CredentialSettings { account, listed }, &Tasks::new())
}

fn reader(credentials: Credentials) -> Reader {
    Reader::new(PageClient::new(1 << 20).unwrap(), Some(credentials))
}

fn source(named: &str) -> Source {
    Source::named(&"team-a".into(), &WakeSource::parse(named).unwrap())
}
