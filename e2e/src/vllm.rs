//! A real vLLM on the processor in the place of a simulated model server, and clients for it.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{api::until_asked, process::Process};

/// Requests that it works on at once; the others wait.
const BATCH: &str = "4";
/// It imports for a minute before it serves.
const START_LIMIT: Duration = Duration::from_secs(400);

/// What `benches/vllm/setup.sh` installed: a `venv` and a `model`.
#[derive(Clone, Debug)]
pub(crate) struct Installation(pub PathBuf);

impl Installation {
    /// Starts a server at `address` and waits until it is healthy.
    pub(crate) async fn start(&self, pod: &str, address: IpAddr, logs: &Path) -> Result<Process> {
        let program = self.0.join("venv/bin");
        let mut command = Command::new(program.join("vllm"));
        command.arg("serve").arg(self.0.join("model")).args([
            "--served-model-name",
            "tiny",
            "--port",
            "5000",
        ]);
        command.args(["--host", &address.to_string(), "--load-format", "dummy", "--dtype", "bfloat16"]);
        command.args(["--enforce-eager", "--max-model-len", "1024", "--max-num-batched-tokens", "1024"]);
        command.args(["--max-num-seqs", BATCH]);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", program.display()));
        for (variable, value) in [
            ("HF_HUB_OFFLINE", "1"),
            ("TRANSFORMERS_OFFLINE", "1"),
            ("VLLM_NO_USAGE_STATS", "1"),
            ("DO_NOT_TRACK", "1"),
            ("VLLM_CPU_KVCACHE_SPACE", "1"),
            ("VLLM_CPU_OMP_THREADS_BIND", "0"),
            // There is no network but this one.
            ("VLLM_HOST_IP", "127.0.0.1"),
        ] {
            command.env(variable, value);
        }
        let process = Process::start(&format!("pod-{pod}"), command, logs)?;
        let url = format!("http://{address}:5000/health");
        let healthy = until_asked("vLLM is healthy", START_LIMIT, || async {
            let answer = reqwest::get(&url).await.map_err(|error| error.to_string())?;
            answer.status().is_success().then_some(()).ok_or_else(|| answer.status().to_string())
        });
        process.while_alive(healthy).await?;
        Ok(process)
    }
}

/// Has `clients` ask the server at `address` one thing after another, until `stop`.
pub(crate) async fn load(address: IpAddr, clients: usize, stop: CancellationToken) -> Result<u64> {
    let client = reqwest::Client::builder().no_proxy().build().context("failed to make a client")?;
    let url = format!("http://{address}:5000/v1/completions");
    let mut asking = JoinSet::new();
    for _ in 0..clients {
        let (client, url, stop) = (client.clone(), url.clone(), stop.clone());
        asking.spawn(async move {
            let mut answered = 0;
            let request = json!({
                "model": "tiny", "prompt": "the quick brown fox jumps over the lazy dog",
                "max_tokens": 400, "ignore_eos": true,
            });
            while !stop.is_cancelled() {
                let request =
                    client.post(&url).header("content-type", "application/json").body(request.to_string());
                let answer = async { request.send().await?.error_for_status()?.bytes().await };
                match stop.run_until_cancelled(answer).await {
                    Some(answer) => drop(answer.context("vLLM did not answer")?),
                    None => break,
                }
                answered += 1;
            }
            anyhow::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(ended) = asking.join_next().await {
        answered += ended.context("a client panicked")??;
    }
    Ok(answered)
}
