//! The command line. Every flag is also an environment variable.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::telemetry::LogFormat;
use scaler_core::config::go_duration;

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
    /// Verbosity: 0 to 3 transitions (info), 4 and 5 also details of them (debug), 6 also each
    /// scrape (trace).
    /// `RUST_LOG` wins where it is set.
    #[arg(long, short = 'v', global = true, env = "KEDA_KAITO_SCALER_V", default_value_t = 2)]
    pub v: u8,
    #[arg(long, global = true, env = "KEDA_KAITO_SCALER_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve KEDA.
    Run(Box<RunArgs>),
    /// Summarise a metrics page: one JSON object a family.
    Scan(ScanArgs),
    /// Check manifests, a trigger's metadata, or an installation.
    ///
    /// `check FILE` is `check manifest FILE`. Ends with 1 where something is wrong, and with 2
    /// where a file can't be read.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Check(CheckArgs),
    /// `check trigger`, as earlier releases have it.
    #[command(hide = true)]
    CheckTrigger(CheckTriggerArgs),
    /// `check install`, as earlier releases have it.
    #[command(hide = true)]
    CheckInstall(CheckInstallArgs),
}

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Endpoints from a file (YAML or JSON), which is read again when it changes. Without it
    /// they come from the cluster.
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
    /// Address of the metrics port. Default: the bind address.
    #[arg(long, value_name = "ADDRESS", env = "POD_IP")]
    pub metrics_bind_address: Option<IpAddr>,
    /// Port of gRPC health, in plaintext; 0 takes any.
    #[arg(
        long,
        alias = "health-probe-port",
        env = "KEDA_KAITO_SCALER_GRPC_HEALTH_PORT",
        default_value_t = 10452
    )]
    pub grpc_health_port: u16,
    /// Serve without TLS. Only on a loopback address, and only with --endpoints-file.
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
    /// How often a wake-up source is scraped while an InferenceSet behind it has no replica.
    #[arg(long, value_name = "DURATION", env = "KEDA_KAITO_SCALER_WAKE_INTERVAL",
          default_value = "100ms", value_parser = duration)]
    pub wake_interval: Duration,
    /// Scrapes a second of all wake-up sources together. With more of them than that allows,
    /// --wake-interval is stretched. 0 is without limit.
    #[arg(long, value_name = "PER-SECOND", env = "KEDA_KAITO_SCALER_WAKE_BUDGET", default_value_t = 500.0)]
    pub wake_budget: f64,
    /// Certificate authorities (PEM), besides the system's, that vouch for wake-up sources over
    /// https.
    #[arg(long, value_name = "FILE", env = "KEDA_KAITO_SCALER_WAKE_SOURCE_CA")]
    pub wake_source_ca: Option<PathBuf>,
    /// The largest metrics page that is read, in bytes.
    #[arg(long, value_name = "BYTES", env = "KEDA_KAITO_SCALER_PAGE_LIMIT", default_value_t = 8 << 20)]
    pub page_limit: usize,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub accepted: AcceptedArgs,
}

/// Where this release is, and what its objects are called.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "In a cluster")]
pub struct InstallationArgs {
    /// The namespace of this release: the CA Secret and the Lease live there.
    #[arg(long, env = "KEDA_KAITO_SCALER_WORKING_NAMESPACE", default_value = "kaito-workspace")]
    pub working_namespace: String,
    /// KEDA's namespace, where it reads Secrets: the certificates live there. Default: the
    /// working namespace.
    #[arg(long, env = "KEDA_KAITO_SCALER_KEDA_NAMESPACE")]
    pub keda_namespace: Option<String>,
    #[arg(long, env = "KEDA_KAITO_SCALER_SCALER_SERVICE_NAME", default_value = "keda-kaito-scaler-svc")]
    pub scaler_service_name: String,
    #[arg(
        long,
        env = "KEDA_KAITO_SCALER_SCALER_CLIENT_SECRET_NAME",
        default_value = "keda-kaito-scaler-client-certs"
    )]
    pub scaler_client_secret_name: String,
    #[arg(
        long,
        env = "KEDA_KAITO_SCALER_SCALER_SERVER_SECRET_NAME",
        default_value = "keda-kaito-scaler-server-certs"
    )]
    pub scaler_server_secret_name: String,
    #[arg(long, env = "KEDA_KAITO_SCALER_SCALER_CA_SECRET_NAME", default_value = "keda-kaito-scaler-ca")]
    pub scaler_ca_secret_name: String,
    /// A kubeconfig file. Default: what KUBECONFIG names, else the pod's own account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// What is asked of the cluster, where endpoints come from one.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "In a cluster")]
pub struct ClusterArgs {
    #[command(flatten)]
    pub installation: InstallationArgs,
    /// How long a new certificate is valid.
    #[arg(long, value_name = "DURATION", env = "KEDA_KAITO_SCALER_CERT_DURATION",
          default_value = "43800h", value_parser = duration)]
    pub cert_duration: Duration,
    /// Write only while holding the Lease. Every replica serves in any case.
    #[arg(long, value_name = "BOOL", env = "KEDA_KAITO_SCALER_LEADER_ELECT", default_value_t = true,
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    #[arg(long, env = "KEDA_KAITO_SCALER_LEADER_ELECT_RESOURCE_NAME", default_value = "keda-kaito-scaler")]
    pub leader_elect_resource_name: String,
    /// The Lease's namespace. Default: the working namespace.
    #[arg(long, env = "KEDA_KAITO_SCALER_LEADER_ELECT_RESOURCE_NAMESPACE")]
    pub leader_elect_resource_namespace: Option<String>,
    #[arg(long, value_name = "DURATION", env = "KEDA_KAITO_SCALER_LEADER_ELECT_LEASE_DURATION",
          default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    #[arg(long, value_name = "DURATION", env = "KEDA_KAITO_SCALER_LEADER_ELECT_RENEW_DEADLINE",
          default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    #[arg(long, value_name = "DURATION", env = "KEDA_KAITO_SCALER_LEADER_ELECT_RETRY_PERIOD",
          default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,
    /// Let a trigger read InferenceSets of other namespaces than its ScaledObject's.
    #[arg(long, env = "KEDA_KAITO_SCALER_ALLOW_CROSS_NAMESPACE")]
    pub allow_cross_namespace: bool,
    /// The ServiceAccount in the working namespace whose tokens are shown to endpoint pickers
    /// that want one. Its only right is to read /metrics. Without it nobody is shown a token.
    #[arg(long, value_name = "NAME", env = "KEDA_KAITO_SCALER_WAKE_SOURCE_SERVICE_ACCOUNT")]
    pub wake_source_service_account: Option<String>,
    /// A Service that may be shown such a token although no InferenceSet's pool names it as its
    /// endpoint picker. May be given several times.
    #[arg(
        long,
        value_name = "NAMESPACE/SERVICE",
        env = "KEDA_KAITO_SCALER_WAKE_SOURCE_ALLOW",
        value_delimiter = ','
    )]
    pub wake_source_allow: Vec<String>,
    /// Requests to the API server a second, on average; 0 is without limit.
    #[arg(long, env = "KEDA_KAITO_SCALER_KUBE_CLIENT_QPS", default_value_t = 50.0)]
    pub kube_client_qps: f64,
    /// Requests to the API server at once.
    #[arg(long, env = "KEDA_KAITO_SCALER_KUBE_CLIENT_BURST", default_value_t = 100)]
    pub kube_client_burst: u32,
    /// The pod's name, for the Lease.
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,
}

/// Flags of the earlier scaler that mean nothing here. Taken, so that its arguments still
/// start this one.
#[derive(Clone, Debug, Args)]
pub struct AcceptedArgs {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_profiling: Option<String>,
    #[arg(long, hide = true)]
    pub leader_elect_resource_lock: Option<String>,
    #[arg(long, hide = true)]
    pub vmodule: Option<String>,
    #[arg(long, hide = true)]
    pub log_flush_frequency: Option<String>,
}

/// The arguments as the program was started with, with the command `run` put in front where
/// they start with a flag: the earlier scaler had no commands.
pub fn with_default_command(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut arguments: Vec<String> = arguments.into_iter().collect();
    let shows_something = ["-h", "--help", "-V", "--version"];
    if let Some(first) = arguments.get(1)
        && first.starts_with('-')
        && !shows_something.contains(&first.as_str())
    {
        arguments.insert(1, "run".to_owned());
    }
    arguments
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
    #[command(subcommand)]
    pub what: Option<CheckCommand>,
    #[command(flatten)]
    pub manifests: CheckManifestArgs,
}

#[derive(Debug, Subcommand)]
pub enum CheckCommand {
    /// Print the ScaledObjects that InferenceSet manifests would get, or what is wrong with them
    /// and with ScaledObjects.
    Manifest(CheckManifestArgs),
    /// Say what trigger metadata means, or everything that is wrong with it.
    Trigger(CheckTriggerArgs),
    /// Check an installation from inside the cluster, as `helm test` does, and say what to do
    /// about what is wrong.
    Install(CheckInstallArgs),
}

#[derive(Clone, Debug, Args)]
pub struct CheckManifestArgs {
    /// YAML or JSON, several documents allowed; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The nodes that one replica takes, which in a cluster its Workspace says.
    #[arg(long, value_name = "NODES", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub nodes_per_replica: u32,
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
pub struct CheckInstallArgs {
    /// The Service's port of the external scaler service.
    #[arg(long, env = "KEDA_KAITO_SCALER_GRPC_PORT", default_value_t = 10450,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub grpc_port: u16,
    #[command(flatten)]
    pub installation: InstallationArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    go_duration::parse(text).map_err(|error| error.to_string())
}
