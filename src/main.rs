//! The binary: reads the command line and starts what it names.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use clock::Clock;
use keda_kaito_scaler::{
    check_install::{self, Installation},
    cli::{
        CheckArgs, CheckCommand, CheckInstallArgs, CheckManifestArgs, CheckTriggerArgs, Cli, ClusterArgs,
        Command, InstallationArgs, RunArgs, ScanArgs, with_default_command,
    },
    cluster::client::{self, ClusterAccess, Rate},
    open_files,
    pki::{self, store::Settings},
    run::{
        self, RunOptions, Source,
        cluster::{ClusterOptions, Election},
    },
    telemetry,
    wake::CredentialSettings,
};
use scaler_core::{
    check::{Assumptions, check},
    config::trigger::{Trigger, parse_arguments, unknown_keys},
    fleet::{ObjectName, tenancy::Tenancy},
    lease::Timing,
    page::scan::scan,
    wake::pace::Pace,
};

/// What a command ends with where its input or its flags are at fault.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse_from(with_default_command(std::env::args()));
    telemetry::start(telemetry::level(cli.logs.v), cli.logs.log_format);
    let done = match cli.command {
        Command::Run(args) => serve(*args),
        Command::Scan(args) => scan_page(&args),
        Command::Check(CheckArgs { what: None, manifests }) => check_manifests(manifests),
        Command::Check(CheckArgs { what: Some(what), .. }) => match what {
            CheckCommand::Manifest(args) => check_manifests(args),
            CheckCommand::Trigger(args) => Ok(check_trigger(&args)),
            CheckCommand::Install(args) => check_install(args),
        },
        Command::CheckTrigger(args) => Ok(check_trigger(&args)),
        Command::CheckInstall(args) => check_install(args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(BAD_INPUT)
    })
}

fn serve(args: RunArgs) -> Result<ExitCode> {
    let options = match run_options(args) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("error: {problem}");
            return Ok(ExitCode::from(BAD_INPUT));
        }
    };
    open_files::raise_limit();
    let ended = run::block_on(async {
        let running = run::start(options).await?;
        anyhow::Ok(run::until_ended(running).await.context("failed to wait for signals")?)
    });
    Ok(ExitCode::from(ended.context("failed to start the runtime")??.exit_status()))
}

/// What the flags ask for, or what is wrong with them together.
fn run_options(args: RunArgs) -> Result<RunOptions, String> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let (source, default_address) = match (args.endpoints_file, args.insecure_grpc) {
        (Some(file), true) => (Source::File(file), loopback),
        (Some(_), false) => {
            return Err("there is no TLS without a cluster: with --endpoints-file give --insecure-grpc, \
                        which serves plaintext on loopback"
                .into());
        }
        (None, true) => {
            return Err("--insecure-grpc is for --endpoints-file only: in a cluster KEDA is served with \
                        mutual TLS"
                .into());
        }
        (None, false) => (Source::Cluster(Box::new(cluster_options(args.cluster)?)), everywhere),
    };
    let least = Duration::from_millis(10);
    if args.wake_interval < least {
        return Err(format!("--wake-interval is {:?}, but must be at least {least:?}", args.wake_interval));
    }
    if !args.wake_budget.is_finite() || args.wake_budget < 0.0 {
        return Err(format!("--wake-budget is {}, but must be a number not below 0", args.wake_budget));
    }
    Ok(RunOptions {
        source,
        bind_address: args.bind_address.unwrap_or(default_address),
        metrics_bind_address: args.metrics_bind_address,
        grpc_port: args.grpc_port,
        metrics_port: args.metrics_port,
        grpc_health_port: args.grpc_health_port,
        shutdown_delay: args.shutdown_delay,
        first_round: args.first_round,
        wake_pace: Pace { asleep: args.wake_interval, budget: args.wake_budget, ..Pace::default() },
        wake_authorities: args.wake_source_ca,
        page_limit: args.page_limit,
    })
}

fn cluster_options(args: ClusterArgs) -> Result<ClusterOptions, String> {
    let InstallationArgs {
        working_namespace: namespace,
        keda_namespace,
        scaler_service_name: service,
        scaler_client_secret_name: client_secret,
        scaler_server_secret_name: server_secret,
        scaler_ca_secret_name: ca_secret,
        kubeconfig,
    } = args.installation;
    let timing = Timing::new(
        args.leader_elect_lease_duration,
        args.leader_elect_renew_deadline,
        args.leader_elect_retry_period,
    );
    let election = args.leader_elect.then_some(Election {
        namespace: args.leader_elect_resource_namespace.unwrap_or_else(|| namespace.clone()),
        lease: args.leader_elect_resource_name,
        timing: timing.map_err(|problem| format!("--leader-elect-…: {problem}"))?,
    });
    if args.cert_duration < Duration::from_secs(3_600) {
        return Err(format!("--cert-duration is {:?}, but must be at least 1h", args.cert_duration));
    }
    let credentials = CredentialSettings {
        account: args
            .wake_source_service_account
            .map(|account| ObjectName { namespace: namespace.as_str().into(), name: account.into() }),
        listed: args.wake_source_allow.iter().map(|service| listed(service)).collect::<Result<_, _>>()?,
    };
    Ok(ClusterOptions {
        certificates: Settings {
            namespace: keda_namespace.unwrap_or_else(|| namespace.clone()),
            server_secret,
            client_secret,
            ca_secret,
            own_namespace: namespace,
            service,
            leaf_life: args.cert_duration,
        },
        pod: args.pod_name,
        election,
        access: ClusterAccess {
            kubeconfig,
            rate: Rate { per_second: args.kube_client_qps, burst: args.kube_client_burst },
        },
        tenancy: if args.allow_cross_namespace { Tenancy::AnyNamespace } else { Tenancy::OwnNamespace },
        credentials,
    })
}

fn listed(service: &str) -> Result<ObjectName, String> {
    match service.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err(format!("--wake-source-allow is {service:?}, but must be NAMESPACE/SERVICE")),
    }
}

fn scan_page(args: &ScanArgs) -> Result<ExitCode> {
    let page = read(&args.file).with_context(|| format!("failed to read {}", args.file.display()))?;
    let scan = scan(&page, &args.metrics);
    let mut out = io::BufWriter::new(io::stdout().lock());
    for family in &scan.families {
        serde_json::to_writer(&mut out, family)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    if scan.rejected > 0 {
        eprintln!("{} lines are not in the exposition format", scan.rejected);
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut page = Vec::new();
        io::stdin().lock().read_to_end(&mut page)?;
        return Ok(page);
    }
    fs::read(file)
}

/// ScaledObjects go to standard output, and everything that is said about a file to standard
/// error. A file that can't be read keeps nobody from the others.
fn check_manifests(args: CheckManifestArgs) -> Result<ExitCode> {
    let CheckManifestArgs { files, nodes_per_replica, scaler_address } = args;
    let assumptions = Assumptions { nodes_per_replica, scaler_address };
    let (mut has_problems, mut unreadable) = (false, false);
    let mut documents = Vec::new();
    for file in &files {
        let name = file.display();
        let text = match read(file).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                eprintln!("{name}: is not UTF-8 text");
                unreadable = true;
                continue;
            }
            Err(error) => {
                eprintln!("{name}: {error}");
                unreadable = true;
                continue;
            }
        };
        let checked = check(&text, &assumptions);
        for finding in &checked.findings {
            eprintln!("{name}: {finding}");
        }
        has_problems |= checked.has_problems();
        if !checked.objects.is_empty() {
            documents.push(checked.to_yaml().context("failed to write the ScaledObjects")?);
        }
    }
    io::stdout().lock().write_all(documents.join("---\n").as_bytes())?;
    Ok(match (unreadable, has_problems) {
        (true, _) => ExitCode::from(BAD_INPUT),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

fn check_trigger(args: &CheckTriggerArgs) -> ExitCode {
    let arguments = args.metadata.iter().map(String::as_str);
    let parsed = parse_arguments(arguments).and_then(|metadata| {
        let metadata: Vec<_> = metadata.into_iter().collect();
        let unknown = unknown_keys(metadata.iter().map(|(key, _)| *key));
        Trigger::parse(metadata.iter().copied(), None).map(|trigger| (trigger, unknown))
    });
    match parsed {
        Ok((trigger, unknown)) => {
            for key in unknown {
                eprintln!("warning: {} is a key that neither KEDA nor this scaler reads", key.escape_debug());
            }
            for doubt in trigger.doubts() {
                eprintln!("warning: {doubt}");
            }
            println!("{}", trigger.describe());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            for problem in &problems.0 {
                eprintln!("error: {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

fn check_install(args: CheckInstallArgs) -> Result<ExitCode> {
    let CheckInstallArgs { grpc_port, installation: args } = args;
    let installation = Installation {
        keda_namespace: args.keda_namespace.unwrap_or_else(|| args.working_namespace.clone()),
        namespace: args.working_namespace,
        service: args.scaler_service_name,
        grpc_port,
        server_secret: args.scaler_server_secret_name,
        client_secret: args.scaler_client_secret_name,
    };
    let findings = run::block_on(async {
        pki::tls::install_crypto();
        let access = ClusterAccess { kubeconfig: args.kubeconfig, rate: Rate::default() };
        let client = client::connect(&access).await?;
        anyhow::Ok(check_install::check(&client, &installation, Clock::wall()).await)
    })
    .context("failed to start the runtime")??;
    let mut exit = ExitCode::SUCCESS;
    for finding in findings {
        match finding {
            Ok(good) => println!("ok: {good}"),
            Err(problem) => {
                eprintln!("error: {problem}");
                exit = ExitCode::FAILURE;
            }
        }
    }
    Ok(exit)
}
