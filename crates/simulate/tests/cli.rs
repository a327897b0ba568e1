//! The command from its arguments to its output.

use std::{fs, path::Path};

use clap::Parser;
use serde_json::Value;
use simulate::cli::{Args, run};

/// Ten minutes of Azure's format: four requests a second, a few of them long.
fn azure(dir: &Path) -> String {
    let path = dir.join("azure.csv");
    let lines = (0..2400).map(|index| {
        let (seconds, quarters) = (index / 4, index % 4);
        let (input, output) = (200 + index * 37 % 1900, 20 + index * 53 % 400);
        let (minute, second) = (seconds / 60, seconds % 60);
        let tenths = [0, 2, 5, 7][quarters];
        format!("2023-11-16 18:{minute:02}:{second:02}.{tenths}000000,{input},{output}\n")
    });
    let header = "TIMESTAMP,ContextTokens,GeneratedTokens\n".to_owned();
    let lines: Vec<_> = std::iter::once(header).chain(lines).collect();
    fs::write(&path, lines.concat()).expect("a temporary directory can be written to");
    path.to_string_lossy().into_owned()
}

fn simulate(args: &[&str]) -> Result<String, String> {
    let begin = ["simulate", "--warm-up", "300s"];
    let args = Args::try_parse_from(begin.iter().chain(args)).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    run(&args, &mut out).map_err(|error| format!("{error:#}"))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

const POLICIES: [&str; 6] = ["waiting", "waiting-k8s", "concurrency", "kv", "static", "clairvoyant"];

#[test]
fn every_run_is_a_line_with_exactly_its_fields_and_repeats_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let trace = azure(dir.path());
    let mut args = vec![trace.as_str(), "--seeds", "2", "--cold-start", "60s,120s±10%", "-o", "json"];
    args.extend(POLICIES.iter().flat_map(|policy| ["--policy", policy]));
    let output = simulate(&[&args[..], &["--jobs", "1"]].concat()).unwrap();
    let lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2 * 2 * POLICIES.len());
    let fields = [
        "attainment",
        "ceiling",
        "coldStartSeconds",
        "loadingHours",
        "lost",
        "policy",
        "refused",
        "replicaHours",
        "requests",
        "reversals",
        "scaleDowns",
        "scaleUps",
        "seed",
        "setting",
        "trace",
        "ttftP50",
        "ttftP95",
        "ttftP99",
    ];
    for line in &lines {
        let mut keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, fields);
        assert_eq!((&line["trace"], &line["requests"]), (&"azure".into(), &1200.into()));
        for share in ["attainment", "ceiling"] {
            assert!((0.0..=1.0).contains(&line[share].as_f64().unwrap()), "{line}");
        }
    }
    let order: Vec<_> =
        lines.iter().map(|line| (line["coldStartSeconds"].as_f64(), line["seed"].as_u64())).take(3).collect();
    assert_eq!(order, [(Some(60.0), Some(1)), (Some(60.0), Some(2)), (Some(60.0), Some(1))]);
    assert_eq!(simulate(&[&args[..], &["--jobs", "3"]].concat()).unwrap(), output);
    assert_ne!(lines[0]["loadingHours"], lines[1]["loadingHours"], "another seed, other cold starts");
}

#[test]
fn a_table_and_a_report_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let trace = azure(dir.path());
    let out = dir.path().join("out");
    let args = [&trace, "--policy", "static", "--against", "clairvoyant,incumbent", "--out"];
    let table = simulate(&[&args[..], &[out.to_str().unwrap()]].concat()).unwrap();
    let rows: Vec<_> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(rows, ["azure,", "policy", "static", "clairvoyant", "waiting"], "{table}");
    assert_eq!(fs::read_to_string(out.join("runs.jsonl")).unwrap().lines().count(), 3);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("clairvoyant"));
}

#[test]
fn a_trace_is_scaled_to_a_need() {
    let dir = tempfile::tempdir().unwrap();
    let trace = azure(dir.path());
    let hours = |need| {
        let args = [&*trace, "--need", need, "--policy", "static:times=1", "-o", "json"];
        let line: Value = serde_json::from_str(&simulate(&args).unwrap()).unwrap();
        line["replicaHours"].as_f64().unwrap()
    };
    // Five minutes are scored.
    assert!((hours("3") * 12.0 - 3.5).abs() <= 0.6, "{}", hours("3"));
    assert!((hours("6") * 12.0 - 6.5).abs() <= 0.6, "{}", hours("6"));
}

#[test]
fn what_annotations_provision_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let trace = azure(dir.path());
    let file = dir.path().join("set.yaml");
    fs::write(&file, "metadata:\n  annotations:\n    scaledobject.kaito.sh/threshold: \"2\"\n").unwrap();
    let file = file.to_str().unwrap();
    let ours =
        simulate(&[&trace, "--annotations", file, "--policy", "waiting:threshold=2", "-o", "json"]).unwrap();
    let lines: Vec<Value> = ours.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["policy"], &lines[1]["policy"]), (&"annotations".into(), &"waiting".into()));
    assert_eq!(lines[0]["attainment"], lines[1]["attainment"]);
}

#[test]
fn bad_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let trace = azure(dir.path());
    let cases: [(&[&str], &str); 12] = [
        (&[], "TRACES"),
        (&["/nowhere.csv"], "cannot read /nowhere.csv"),
        (&[&trace, "--policy", "best"], "\"best\" is no policy"),
        (&[&trace, "--policy", "static:n=99"], "from 1 to 24"),
        (&[&trace, "--cold-start", "180"], "a time such as"),
        (&[&trace, "--slo", "ttft=x"], "ttft=TIME"),
        (&[&trace, "--router", "best"], "round, least, random and epp"),
        (&[&trace, "--model", "gpt"], "no model \"gpt\""),
        (&[&trace, "--engine", "a=1ms"], "an engine needs b="),
        (&[&trace, "--min", "30"], "--min is 30, above --max, which is 24"),
        (&[&trace, "--need", "0"], "a number of replicas above 0"),
        (&[&trace, "--annotations", "/nowhere.yaml"], "cannot read /nowhere.yaml"),
    ];
    for (args, expected) in cases {
        let error = simulate(args).unwrap_err();
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}
