//! The scaler under test: the real binary in a process of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;

use crate::cores::Cores;

/// The binary that cargo built beside this bench.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_keda-kaito-scaler");

/// A running scaler. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Scaler {
    child: Child,
    pub grpc: SocketAddr,
    metrics: SocketAddr,
    /// Just before it was executed.
    pub executed: Instant,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time of all its threads, in seconds.
    pub processor: f64,
    /// What is resident now, in bytes.
    pub resident: u64,
    /// The most that was.
    pub peak: u64,
}

const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How long it may take to start.
const START: Duration = Duration::from_secs(60);

impl Scaler {
    /// Serves the fleet in an endpoints file; `port` 0 is any.
    pub(crate) fn start(cores: &Cores, endpoints: &Path, port: u16) -> Result<Self> {
        let file = endpoints.to_str().context("a path in UTF-8")?;
        Self::run(cores, &["--endpoints-file", file, "--insecure-grpc"], port)
    }

    /// Runs with these arguments, and waits until it says where it listens.
    pub(crate) fn run(cores: &Cores, arguments: &[&str], port: u16) -> Result<Self> {
        let program = std::env::var("BENCH_FLEET_SCALER").unwrap_or_else(|_| BINARY.to_owned());
        let mut command = cores.command(&program);
        command.arg("run").args(arguments).args(["--grpc-port", &port.to_string()]);
        command.args(["--metrics-port", "0", "--grpc-health-port", "0", "--log-format", "json"]);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let executed = Instant::now();
        let mut child = command.spawn().with_context(|| format!("failed to run {program}"))?;
        let lines = BufReader::new(child.stderr.take().context("its log")?).lines();
        let (say, said) = mpsc::channel();
        let complaints = Arc::new(Mutex::new(vec![]));
        let heard = complaints.clone();
        // Reads on to the end: a full pipe would stop the scaler.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\"") {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
                }
                // Nobody listens once it has started.
                let _ = say.send(line);
            }
        });
        // From here on it is killed wherever this function ends.
        let mut scaler = Self { child, grpc: UNKNOWN, metrics: UNKNOWN, executed, complaints };
        let mut log = Vec::new();
        loop {
            let left = START.saturating_sub(executed.elapsed());
            let Ok(line) = said.recv_timeout(left) else {
                bail!("the scaler did not start: {}", log.join("\n"))
            };
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if entry["fields"]["message"] == "started" {
                let address = |which: &str| entry["fields"][which].as_str().context("its address in the log");
                (scaler.grpc, scaler.metrics) = (address("grpc")?.parse()?, address("metrics")?.parse()?);
                return Ok(scaler);
            }
            log.push(line);
        }
    }

    /// What it has logged as a warning or worse.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        usage(&self.child.id().to_string())
    }

    /// How many frames left within 5 ms of the sample behind them, and how many in all.
    pub(crate) async fn activations(&self) -> Result<(u64, u64)> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let page = client.get(format!("http://{}/metrics", self.metrics)).send().await?.text().await?;
        let buckets = page.lines().filter_map(|line| {
            let rest = line.strip_prefix("keda_kaito_scaler_activation_latency_seconds_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            Some((bound.parse::<f64>().ok()?, count.parse::<u64>().ok()?))
        });
        let buckets: Vec<_> = buckets.collect();
        let below = |limit: f64| buckets.iter().rfind(|(bound, _)| *bound <= limit).map(|(_, count)| *count);
        Ok((below(0.005).context("the histogram")?, below(f64::INFINITY).context("the histogram")?))
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The usage of a process, `self` being this one.
pub(crate) fn usage(process: &str) -> Result<Usage> {
    let place = PathBuf::from("/proc").join(process);
    let status = fs::read_to_string(place.join("status")).context("the scaler has ended")?;
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    let mut nanoseconds = 0;
    // /proc/PID/stat counts in hundredths of a second, the scheduler in nanoseconds.
    for thread in fs::read_dir(place.join("task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    ensure!(nanoseconds > 0, "this kernel has no schedstat");
    Ok(Usage {
        processor: nanoseconds as f64 / 1e9,
        resident: kilobytes("VmRSS:").context("VmRSS")? * 1024,
        peak: kilobytes("VmHWM:").context("VmHWM")? * 1024,
    })
}
