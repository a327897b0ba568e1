//! Every part of the process in turn panics, or ends by itself: the process ends within a second,
//! with the part's name in its log and exit status 1.
//!
//! Each case is a process of its own: this test's program, called for [`child`] alone.

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use serde_json::json;
use sim::api_server::ApiServer;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    RunOptions, Source, block_on,
    cluster::{ClusterOptions, Election},
    start, until_ended,
};
use crate::{
    cluster::client::{ClusterAccess, Rate},
    pki::store::Settings,
    tasks::fault::{self, Fault},
    telemetry::{self, LogFormat},
    wake::CredentialSettings,
};
use scaler_core::{fleet::tenancy::Tenancy, lease::Timing};

/// What a child process is to do, by the environment: where its endpoints come from, whom the
/// fault hits, what it is, and when.
const ORDER: [&str; 4] = ["CHILD_SOURCE", "CHILD_PART", "CHILD_FAULT", "CHILD_MOMENT"];
/// The line of a child's output after which the fault has happened.
const STRUCK: &str = "struck";
/// Longer than anything takes here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The parts and jobs of a process, by where its endpoints come from.
const IN_A_CLUSTER: [&str; 17] = [
    "aggregator",
    "authentication object",
    "certificate renewals",
    "certificates",
    "cluster watches",
    "discovery",
    "events on refused triggers",
    "gRPC listener",
    "health listener",
    "health status",
    "leader election",
    "opening of the gRPC listener",
    "pages",
    "provisioning",
    "startup events",
    "target events",
    "wake source probes",
];
const WITH_A_FILE: [&str; 7] = [
    "aggregator",
    "endpoints file",
    "gRPC listener",
    "health listener",
    "health status",
    "opening of the gRPC listener",
    "pages",
];
/// What has an end; it may be reached before the process is ready.
const JOBS: [&str; 3] = ["events on refused triggers", "opening of the gRPC listener", "startup events"];

struct Ended {
    status: Option<i32>,
    /// From the fault to the end.
    took: Duration,
    output: Vec<String>,
    log: String,
}

/// Runs a child to its end.
fn run_child(order: [&str; 4]) -> Ended {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "run::tests::child", "--nocapture"])
        .envs(ORDER.into_iter().zip(order))
        // Reading the names of a debug build's functions takes longer than all else.
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = child.stderr.take().unwrap();
    let reading = thread::spawn(move || {
        let mut log = String::new();
        errors.read_to_string(&mut log).unwrap();
        log
    });
    let (mut output, mut struck) = (Vec::new(), None);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == STRUCK {
            struck = Some(Instant::now());
        }
        output.push(line);
    }
    let status = child.wait().unwrap().code();
    let took = struck.map_or(Duration::MAX, |struck| struck.elapsed());
    Ended { status, took, output, log: reading.join().unwrap() }
}

/// Not a test of its own: what a child process does.
#[test]
fn child() {
    let [Ok(source), Ok(part), Ok(fault), Ok(moment)] = ORDER.map(env::var) else { return };
    telemetry::start("info", LogFormat::Text);
    // A child that does not end is a failure that says so.
    let (alive, silent) = mpsc::channel::<()>();
    thread::spawn(move || {
        if silent.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            std::process::exit(99);
        }
    });
    let fault = match &*fault {
        "panic" => Some(Fault::Panic),
        "end" => Some(Fault::End),
        _ => None,
    };
    let strike = || {
        if let Some(fault) = fault {
            fault::strike(&part, fault);
        }
    };
    let end = block_on(async {
        let folder = TempDir::new().unwrap();
        let mut apis = JoinSet::new();
        let options = if source == "file" {
            with_a_file(folder.path())
        } else {
            in_a_cluster(folder.path(), &mut apis).await
        };
        if moment == "at the start" {
            strike();
        }
        let running = start(options).await.unwrap();
        if moment == "once ready" {
            timeout(PATIENCE, running.ready()).await.expect("ready");
            timeout(PATIENCE, fault::begun(&parts(&source))).await.expect("every part");
            strike();
        }
        println!("{STRUCK}");
        if fault.is_some() {
            return until_ended(running).await.unwrap().exit_status();
        }
        for name in fault::begun(&BTreeSet::new()).await {
            println!("part: {name}");
        }
        running.stop().await;
        0
    });
    drop(alive);
    std::process::exit(end.unwrap().into());
}

fn with_a_file(folder: &Path) -> RunOptions {
    let file = folder.join("endpoints.yaml");
    std::fs::write(&file, "inferenceSets: []\n").unwrap();
    RunOptions::for_file(file)
}

/// A cluster in memory with all that a process waits for.
async fn in_a_cluster(folder: &Path, apis: &mut JoinSet<()>) -> RunOptions {
    let server = ApiServer::new();
    for (version, kind, plural) in [
        ("v1", "Secret", "secrets"),
        ("v1", "Pod", "pods"),
        ("v1", "Service", "services"),
        ("v1", "Namespace", "namespaces"),
        ("coordination.k8s.io/v1", "Lease", "leases"),
        ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
        ("kaito.sh/v1alpha1", "MultiRoleInference", "multiroleinferences"),
        ("kaito.sh/v1beta1", "InferenceSet", "inferencesets"),
        ("kaito.sh/v1beta1", "Workspace", "workspaces"),
        ("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
        ("keda.sh/v1alpha1", "ClusterTriggerAuthentication", "clustertriggerauthentications"),
    ] {
        server.install(version, kind, plural);
    }
    let [server_secret, client_secret, ca_secret] = ["server-certs", "client-certs", "ca"].map(str::to_owned);
    for name in [&server_secret, &client_secret, &ca_secret] {
        server.put(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "keda", "name": name}}),
        );
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kubeconfig = folder.join("kubeconfig.json");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "sim",
        "clusters": [{"name": "sim", "cluster": {"server": format!("http://{}", listener.local_addr().unwrap())}}],
        "users": [{"name": "sim", "user": {}}],
        "contexts": [{"name": "sim", "context": {"cluster": "sim", "user": "sim"}}],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    apis.spawn(async move { server.serve(listener).await });
    let timing = [3_000, 2_000, 100].map(Duration::from_millis);
    let options = ClusterOptions {
        pod: Some("scaler-0".to_owned()),
        certificates: Settings {
            namespace: "keda".to_owned(),
            own_namespace: "keda".to_owned(),
            server_secret,
            client_secret,
            ca_secret,
            service: "keda-kaito-scaler-svc".to_owned(),
            leaf_life: Duration::from_secs(86_400),
        },
        election: Some(Election {
            namespace: "keda".to_owned(),
            lease: "keda-kaito-scaler".to_owned(),
            timing: Timing::new(timing[0], timing[1], timing[2]).unwrap(),
        }),
        access: ClusterAccess { kubeconfig: Some(kubeconfig), rate: Rate::default() },
        tenancy: Tenancy::OwnNamespace,
        credentials: CredentialSettings::default(),
    };
    RunOptions { source: Source::Cluster(Box::new(options)), ..RunOptions::for_file(PathBuf::new()) }
}

/// Runs the cases, two at a time.
fn for_each(cases: Vec<[&str; 4]>, look: impl Fn([&str; 4], Ended) + Sync) {
    let cases = Mutex::new(cases.into_iter());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = cases.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(case) = next else { return };
                    look(case, run_child(case));
                }
            });
        }
    });
}

fn parts(source: &str) -> BTreeSet<&'static str> {
    match source {
        "file" => WITH_A_FILE.into(),
        _ => IN_A_CLUSTER.into(),
    }
}

#[test]
fn a_process_whose_parts_are_well_stops_in_order() {
    let cases = ["file", "cluster"].map(|source| [source, "", "none", "once ready"]);
    for_each(cases.into(), |case, ended| {
        assert_eq!(ended.status, Some(0), "{case:?}: {}", ended.log);
        assert!(!ended.log.contains("can't go on"), "{case:?}: {}", ended.log);
        let named: BTreeSet<&str> =
            ended.output.iter().filter_map(|line| line.strip_prefix("part: ")).collect();
        assert_eq!(named, parts(case[0]), "the parts that the next test makes fail");
    });
}

#[test]
fn a_part_that_fails_ends_the_process_within_a_second() {
    let cases = ["file", "cluster"].into_iter().flat_map(|source| {
        parts(source).into_iter().flat_map(move |part| {
            let (faults, moment): (&[&str], _) = if JOBS.contains(&part) {
                (&["panic"], "at the start")
            } else {
                (&["panic", "end"], "once ready")
            };
            faults.iter().map(move |fault| [source, part, *fault, moment])
        })
    });
    for_each(cases.collect(), |case, ended| {
        let [_, part, fault, _] = case;
        assert_eq!(ended.status, Some(1), "{case:?}: {}", ended.log);
        let said = if fault == "panic" { "panicked: struck by the test" } else { "has ended by itself" };
        assert!(ended.log.contains(&format!("failure={part} {said}")), "{case:?}: {}", ended.log);
        assert!(ended.took < Duration::from_secs(1), "{case:?} took {:?}: {}", ended.took, ended.log);
    });
}
