//! The command line, as a user meets it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

fn scaler(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keda-kaito-scaler")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn run_refuses_what_it_cannot_serve() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.yaml");
    fs::write(&good, "inferenceSets: []").unwrap();
    let good = good.to_str().unwrap();
    let broken = folder.path().join("broken.yaml");
    fs::write(&broken, "inferenceSets:\n  - namespace: a\n    name: b\n    replicas: many\n").unwrap();
    let broken = broken.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["run", "--endpoints-file", good], &["--insecure-grpc"]),
        (
            &["run", "--endpoints-file", good, "--insecure-grpc", "--bind-address", "0.0.0.0"],
            &["loopback", "0.0.0.0"],
        ),
        (
            &["run", "--endpoints-file", "/nowhere.yaml", "--insecure-grpc"],
            &["/nowhere.yaml", "No such file"],
        ),
        (&["run", "--endpoints-file", broken, "--insecure-grpc"], &["broken.yaml", "line 4", "many"]),
        (&["run", "--endpoints-file", good, "--grpc-port", "http"], &["--grpc-port", "http"]),
        (&["run", "--endpoints-file", good, "--shutdown-delay", "soon"], &["--shutdown-delay", "soon"]),
    ];
    for (arguments, parts) in cases {
        let output = scaler(arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{part:?} is not in: {errors}");
        }
    }
}

#[test]
fn scan_summarises_a_real_page() {
    let output = scaler(&[
        "scan",
        "--metric",
        "vllm:num_requests_waiting",
        "--metric",
        "vllm:time_to_first_token_seconds",
        "--metric",
        "no:such_family",
        "tests/data/loaded.txt",
    ]);
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [waiting, ttft] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        *waiting,
        serde_json::json!({"metric": "vllm:num_requests_waiting", "type": "gauge", "series": 1, "value": 11})
    );
    assert_eq!(
        (&ttft["type"], &ttft["count"], &ttft["series"]),
        (&"histogram".into(), &18.into(), &1.into())
    );
    assert_eq!(ttft["buckets"][5], serde_json::json!(["0.06", 1]));
}

#[test]
fn scan_reads_standard_input_counts_bad_lines_and_names_an_unreadable_file() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keda-kaito-scaler"))
        .arg("scan")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a 1\nb{ 2\nc 3\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), 2);
    assert!(text(&output.stderr).starts_with("1 line"), "{}", text(&output.stderr));

    let output = scaler(&["scan", "/nowhere.txt"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nowhere.txt"));
}

const MANIFEST: &str = r#"
apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata:
  name: demo
  namespace: team-a
  annotations:
    scaledobject.kaito.sh/auto-provision: "true"
    scaledobject.kaito.sh/threshold: "10"
spec: {nodeCountLimit: 8}
"#;

#[test]
fn check_prints_scaled_objects_or_problems_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good.yaml", MANIFEST.as_bytes());
    let bad = file("bad.yaml", MANIFEST.replace("\"10\"", "ten").as_bytes());
    let binary = file("binary.yaml", b"\xff");

    let output = scaler(&["check", &good, &good, "--nodes-per-replica", "4"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text(&output.stdout)).unwrap();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0]["kind"], "ScaledObject");
    assert_eq!(objects[0]["spec"]["maxReplicaCount"], 2);

    for (files, code, said) in [
        (vec![&bad], 1, format!("{bad}: line 9: problem: scaledobject.kaito.sh/threshold is \"ten\"")),
        (vec![&binary], 2, format!("{binary}: is not UTF-8")),
        (vec![&"/nowhere.yaml".to_owned()], 2, "/nowhere.yaml: No such file".to_owned()),
        // One that can't be read keeps nobody from the others.
        (vec![&"/nowhere.yaml".to_owned(), &bad], 2, format!("{bad}: line 9: problem: ")),
    ] {
        let arguments: Vec<&str> = ["check"].into_iter().chain(files.iter().map(|it| it.as_str())).collect();
        let output = scaler(&arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(&said), "{said:?} is not in: {errors}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn check_trigger_says_what_metadata_means_or_all_that_is_wrong() {
    let good =
        ["inferenceSetName=demo", "inferenceSetNamespace=team-a", "metricName=vllm:num_requests_waiting"];
    let output = scaler(&[&["check-trigger"], &good[..], &["threshold=10"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("vllm:num_requests_waiting"));

    let renamed = scaler(&[&["check", "trigger"], &good[..], &["threshold=10", "weight=3"]].concat());
    assert_eq!((renamed.status.code(), &renamed.stdout), (Some(0), &output.stdout));
    assert!(
        text(&renamed.stderr).contains("warning: weight is a key that neither KEDA nor this scaler reads")
    );

    let slip = "metricName=vllm:num_request_waiting";
    let doubtful = scaler(&[&["check", "trigger"], &good[..2], &[slip, "threshold=10"]].concat());
    assert_eq!(doubtful.status.code(), Some(0));
    assert!(text(&doubtful.stderr).contains("warning: vllm:num_request_waiting is no known metric of vLLM"));

    let output = scaler(&[&["check-trigger"], &good[..], &["threshold=ten", "agregation=max"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    for part in ["threshold", "\"ten\"", "agregation", "did you mean aggregation"] {
        assert!(errors.contains(part), "{part:?} is not in: {errors}");
    }
}

#[test]
fn a_port_that_is_in_use_ends_the_start_at_once_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endpoints.yaml");
    fs::write(&file, "inferenceSets: []\n").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, port) = (taken.local_addr().unwrap(), taken.local_addr().unwrap().port().to_string());
    // Free as far as anybody knows: it was just given to somebody and given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for (flags, said) in [
        (
            ["--grpc-port", &port, "--metrics-port", "0"],
            format!("--grpc-port: failed to listen on {address} for gRPC"),
        ),
        (
            ["--grpc-port", "0", "--metrics-port", &port],
            format!("--metrics-port: failed to listen on {address}"),
        ),
        (
            ["--metrics-port", "0", "--grpc-health-port", &port],
            format!("--grpc-health-port: failed to listen on {address}"),
        ),
        (
            ["--grpc-port", &free, "--metrics-port", &free],
            format!("--grpc-port and --metrics-port are both {free}"),
        ),
        (
            ["--grpc-port", "0", "--metrics-bind-address", "192.0.2.1"],
            "--metrics-bind-address: failed to listen on 192.0.2.1:".to_owned(),
        ),
    ] {
        let file = file.to_str().unwrap();
        let others: Vec<&str> = ["--grpc-port", "--metrics-port", "--grpc-health-port"]
            .into_iter()
            .filter(|flag| !flags.contains(flag))
            .flat_map(|flag| [flag, "0"])
            .collect();
        // Were it to wait for clients to leave, it would wait for ever.
        let common = ["run", "--insecure-grpc", "--endpoints-file", file, "--shutdown-delay", "24h"];
        let output = scaler(&[&common[..], &flags, &others].concat());
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {errors}");
        assert!(errors.contains(&format!("error: {said}")), "{said:?} is not in: {errors}");
        assert!(!errors.contains("started"), "{errors}");
    }
}

#[test]
fn version_names_the_release_and_the_commit() {
    let output = scaler(&["--version"]);
    let version = text(&output.stdout);
    assert!(version.contains(env!("CARGO_PKG_VERSION")) && version.contains('('), "{version}");
}

/// With the arguments that the chart's test pod passes.
#[test]
fn check_install_says_why_it_could_not_ask_the_cluster() {
    let cases: [([&str; 2], &[&str]); 2] = [
        (["--grpc-port=10450", "--kubeconfig=/nowhere.yaml"], &["kubeconfig", "/nowhere.yaml"]),
        (["--grpc-port=0", "--kubeconfig=/nowhere.yaml"], &["--grpc-port", "1..=65535"]),
    ];
    for (own, parts) in cases {
        let common = [
            "check-install",
            "--working-namespace=keda",
            "--keda-namespace=keda",
            "--scaler-service-name=keda-kaito-scaler-svc",
            "--scaler-client-secret-name=keda-kaito-scaler-client-certs",
            "--scaler-server-secret-name=keda-kaito-scaler-server-certs",
            "--scaler-ca-secret-name=keda-kaito-scaler-ca",
        ];
        let output = scaler(&[&common[..], &own].concat());
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{own:?}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{part:?} is not in: {errors}");
        }
    }
}
