//! The command line. Every flag is also an environment variable.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{core::go_duration, telemetry::LogFormat};

/// KEDA external scaler for KAITO InferenceSets.
#[derive(Debug, Parser)]
#[command(name = "keda-kaito-scaler", version = crate::VERSION, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub logs: LogArgs,
}

#[derive(Debug, Args)]
pub struct LogArgs {
    /// Verbosity: 0 to 3 transitions, 4 and 5 also each decision and scrape, 6 everything.
    /// RUST_LOG wins where it is set.
    #[arg(long, short = 'v', global = true, env = "KEDA_KAITO_SCALER_V", default_value_t = 2)]
    pub v: u8,
    #[arg(long, global = true, env = "KEDA_KAITO_SCALER_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve KEDA.
    Run(RunArgs),
    /// Summarise a metrics page: one JSON object a family.
    Scan(ScanArgs),
    /// Print the ScaledObjects that InferenceSet manifests would get, or what is wrong with them.
    ///
    /// Ends with 1 where something is wrong, and with 2 where a file can't be read.
    Check(CheckArgs),
    /// Say what trigger metadata means, or everything that is wrong with it.
    CheckTrigger(CheckTriggerArgs),
    /// Watch it work on this machine: a simulated fleet, the real engine, a stand-in for KEDA.
    Demo(DemoArgs),
}

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Endpoints from a file (YAML or JSON), which is read again when it changes.
    #[arg(long, value_name = "FILE", env = "KEDA_KAITO_SCALER_ENDPOINTS_FILE")]
    pub endpoints_file: Option<PathBuf>,
    /// Address to listen on. Default: 127.0.0.1 with --insecure-grpc, else all addresses.
    #[arg(long, value_name = "ADDRESS", env = "KEDA_KAITO_SCALER_BIND_ADDRESS")]
    pub bind_address: Option<IpAddr>,
    /// Port of the external scaler service; 0 takes any.
    #[arg(long, env = "KEDA_KAITO_SCALER_GRPC_PORT", default_value_t = 10450)]
    pub grpc_port: u16,
    /// Port of /metrics, /livez, /readyz and /debug/targets; 0 takes any.
    #[arg(long, env = "KEDA_KAITO_SCALER_METRICS_PORT", default_value_t = 10451)]
    pub metrics_port: u16,
    /// Port of gRPC health, in plaintext; 0 takes any.
    #[arg(long, env = "KEDA_KAITO_SCALER_GRPC_HEALTH_PORT", default_value_t = 10452)]
    pub grpc_health_port: u16,
    /// Serve without TLS. Only on a loopback address.
    #[arg(long, env = "KEDA_KAITO_SCALER_INSECURE_GRPC")]
    pub insecure_grpc: bool,
    /// For how long to serve on, unready, before clients are told to go elsewhere.
    #[arg(long, value_name = "DURATION", env = "KEDA_KAITO_SCALER_SHUTDOWN_DELAY",
          default_value = "5s", value_parser = duration)]
    pub shutdown_delay: Duration,
    /// How long the first call for a target waits for its first round of scrapes.
    #[arg(long, value_name = "DURATION", env = "KEDA_KAITO_SCALER_FIRST_ROUND",
          default_value = "900ms", value_parser = duration)]
    pub first_round: Duration,
    /// How often a gateway is scraped while its InferenceSet has no replica.
    #[arg(long, value_name = "DURATION", env = "KEDA_KAITO_SCALER_WAKE_INTERVAL",
          default_value = "100ms", value_parser = duration)]
    pub wake_interval: Duration,
    /// The largest metrics page that is read, in bytes.
    #[arg(long, value_name = "BYTES", env = "KEDA_KAITO_SCALER_PAGE_LIMIT", default_value_t = 8 << 20)]
    pub page_limit: usize,
}

#[derive(Debug, Args)]
pub struct ScanArgs {
    /// Only this family; may be given several times.
    #[arg(long = "metric", value_name = "FAMILY")]
    pub metrics: Vec<String>,
    /// The page; - is standard input.
    #[arg(default_value = "-")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// YAML or JSON, several documents allowed; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The nodes that one replica takes, which in a cluster its Workspace says.
    #[arg(long, value_name = "NODES", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes_per_replica: u32,
    /// Assume a gateway that holds requests at zero replicas.
    #[arg(long)]
    pub gateway: bool,
    /// HOST:PORT under which KEDA reaches the scaler.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "KEDA_KAITO_SCALER_ADDRESS",
        default_value = "keda-kaito-scaler-svc.keda.svc.cluster.local:10450"
    )]
    pub scaler_address: String,
}

#[derive(Debug, Args)]
pub struct CheckTriggerArgs {
    /// The trigger's metadata, as key=value.
    #[arg(required = true, value_name = "KEY=VALUE")]
    pub metadata: Vec<String>,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Compressed to ten seconds.
    #[arg(long)]
    pub fast: bool,
    /// Where the report goes.
    #[arg(long, value_name = "FILE", default_value = "target/demo/report.html")]
    pub report: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    go_duration::parse(text).map_err(|error| error.to_string())
}
