//! One tenant whose pods mean harm, in every way at once, beside another who must not notice: the
//! real binary over real sockets, with its memory and the other's calls measured.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use keda_proto::{GetMetricsRequest, ScaledObjectRef, external_scaler_client::ExternalScalerClient};
use sim::{
    fixtures::{Behaviour, Fixture, vllm_page},
    hostile::{HISTOGRAM, Hostile, METRIC},
};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tonic::transport::{Channel, Endpoint};

const WAITING: &str = "vllm:num_requests_waiting";
/// Pods of each kind.
const EACH: usize = 3;
/// For how long the other tenant is measured: some rounds of scrapes of every hostile pod.
const WINDOW: Duration = Duration::from_secs(6);
/// How often it asks.
const PERIOD: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(60);
/// What the other tenant's calls may take, of a hundred ninety-nine.
const LATENCY: Duration = Duration::from_millis(50);
/// What the process may take of memory at any time.
const MEMORY_MIB: u64 = 100;

/// The scaler. It is killed when this is dropped.
struct Scaler {
    child: Child,
    grpc: SocketAddr,
}

impl Scaler {
    fn start(sets: &[(String, String, Vec<SocketAddr>)], folder: &TempDir) -> Self {
        let mut text = String::from("inferenceSets:\n");
        for (namespace, name, addresses) in sets {
            let replicas = addresses.len();
            writeln!(text, "- {{namespace: {namespace}, name: {name}, replicas: {replicas}, endpoints: [")
                .unwrap();
            for (index, address) in addresses.iter().enumerate() {
                writeln!(text, "  {{pod: {name}-{index}-0, address: \"{address}\", phase: Ready}},").unwrap();
            }
            text.push_str("  ]}\n");
        }
        let file = folder.path().join("endpoints.yaml");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_keda-kaito-scaler"));
        command.arg("run").arg("--endpoints-file").arg(&file).args([
            "--insecure-grpc",
            "--log-format",
            "json",
        ]);
        command.args(["--grpc-port", "0", "--metrics-port", "0", "--grpc-health-port", "0"]);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let grpc = lines.by_ref().find_map(|line| {
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let started = entry["fields"]["message"] == "started";
            started.then(|| entry["fields"]["grpc"].as_str().unwrap().parse().unwrap())
        });
        // Reads on to the end: a full pipe would stop the scaler.
        std::thread::spawn(move || lines.count());
        Self { child, grpc: grpc.unwrap() }
    }

    /// The most memory that it has had, in MiB.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// KEDA, asking for one target.
#[derive(Clone)]
struct Keda {
    client: ExternalScalerClient<Channel>,
    object: ScaledObjectRef,
}

impl Keda {
    fn of(channel: &Channel, namespace: &str, name: &str, rule: &[(&str, &str)]) -> Self {
        let common = [
            ("inferenceSetNamespace", namespace),
            ("inferenceSetName", name),
            ("threshold", "10"),
            ("scrapeInterval", "500ms"),
        ];
        let metadata = common.iter().chain(rule).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let object = ScaledObjectRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            scaler_metadata: metadata.collect(),
        };
        Self { client: ExternalScalerClient::new(channel.clone()), object }
    }

    async fn value(&mut self) -> Result<f64, tonic::Status> {
        let request =
            GetMetricsRequest { scaled_object_ref: Some(self.object.clone()), metric_name: String::new() };
        Ok(self.client.get_metrics(request).await?.into_inner().metric_values[0].metric_value_float)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_means_harm_harms_nobody_else() {
    let good = Fixture::start(Behaviour::Vllm { page: vllm_page(4, 1, 0.5) }).await.unwrap();
    let mut hostile = Vec::new();
    for kind in Hostile::ALL {
        for _ in 0..EACH {
            hostile.push((kind, Fixture::start(Behaviour::Hostile(kind)).await.unwrap()));
        }
    }
    let of_kind = |kind: Hostile| {
        let of_it = hostile.iter().filter(|(its, _)| *its == kind);
        of_it.map(|(_, server)| server.address()).collect::<Vec<_>>()
    };
    let mut sets: Vec<_> =
        Hostile::ALL.map(|kind| ("harm".to_owned(), kind.as_str().to_owned(), of_kind(kind))).into();
    sets.push(("peace".to_owned(), "demo".to_owned(), vec![good.address()]));
    let folder = TempDir::new().unwrap();
    let scaler = Scaler::start(&sets, &folder);
    let channel = Endpoint::from_shared(format!("http://{}", scaler.grpc)).unwrap().connect().await.unwrap();

    let mut peace = Keda::of(&channel, "peace", "demo", &[("metricName", WAITING)]);
    assert_eq!(peace.value().await.unwrap(), 4.0);
    let mut harm = JoinSet::new();
    for kind in Hostile::ALL {
        let rule: &[_] = match kind {
            Hostile::ManyBounds => &[("metricName", HISTOGRAM), ("aggregation", "quantile")],
            _ => &[("metricName", METRIC)],
        };
        let mut keda = Keda::of(&channel, "harm", kind.as_str(), rule);
        // Answered or refused, but not left waiting; again and again.
        harm.spawn(async move {
            let mut ticks = interval(Duration::from_millis(100));
            loop {
                ticks.tick().await;
                let asked = timeout(PATIENCE, keda.value()).await;
                asked.expect("no answer").expect_err("there is nothing to be read");
            }
        });
    }

    let (mut times, mut failed) = (Vec::new(), 0);
    let mut ticks = interval(PERIOD);
    let end = Instant::now() + WINDOW;
    let mut waiting = 4;
    while Instant::now() < end {
        ticks.tick().await;
        let asked = Instant::now();
        match peace.value().await {
            Ok(_) => times.push(asked.elapsed()),
            Err(_) => failed += 1,
        }
        if times.len() % 100 == 0 {
            waiting += 1;
            good.become_one_that(Behaviour::Vllm { page: vllm_page(waiting, 1, 0.5) });
        }
    }
    // What the good pod shows is seen, all the while.
    let seen = timeout(PATIENCE, async {
        while peace.value().await.unwrap() != f64::from(waiting) {
            ticks.tick().await;
        }
    });
    seen.await.unwrap();
    assert!(
        harm.try_join_next().is_none(),
        "no call of the hostile tenant's hung or was answered with a value"
    );

    times.sort_unstable();
    let (p99, slowest) = (times[times.len() * 99 / 100], times[times.len() - 1]);
    let peak = scaler.peak();
    println!("{} calls, p99 {p99:?}, slowest {slowest:?}; {peak} MiB at most", times.len());
    for (kind, server) in &hostile {
        let hits = server.hits();
        assert!(hits.filtered + hits.plain >= 2, "{kind:?} was asked {hits:?} only");
    }
    assert_eq!(failed, 0);
    assert!(p99 < LATENCY, "{p99:?}");
    assert!(peak < MEMORY_MIB, "{peak} MiB");
}
