//! Who may use whom: crates, folders of the product, files. And that the core stays pure: it decides
//! on values and is told the time; and that tasks stay supervised.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod uses;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use uses::{Graph, circles, code, graph, is_for_tests, visit};

/// What the core may not name: IO, clocks, async, and the crates of the edges.
const FORBIDDEN: [&str; 16] = [
    "tokio",
    "tonic",
    "kube::",
    "kube_",
    "k8s_openapi",
    "reqwest",
    "hyper",
    "axum",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::io",
    "std::env",
    "Instant",
    "SystemTime",
    "async fn",
];

#[test]
fn the_core_names_no_io_no_clock_and_no_async() {
    let mut files = 0;
    let mut found = Vec::new();
    visit(Path::new("crates/core/src"), &mut |path, text| {
        files += 1;
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in FORBIDDEN.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    });
    assert!(files > 10, "the core was not found");
    assert!(found.is_empty(), "the core reaches out:\n{}", found.join("\n"));
}

/// Our crates, each with those of ours that it may depend on.
const CRATES: [(&str, &str, &[&str]); 7] = [
    ("scaler-core", "crates/core", &[]),
    ("keda-proto", "crates/keda", &[]),
    ("clock", "crates/clock", &["scaler-core"]),
    ("keda-kaito-scaler", ".", &["clock", "keda-proto", "scaler-core"]),
    ("sim", "crates/sim", &["clock", "keda-proto", "scaler-core"]),
    ("demo", "crates/demo", &["clock", "keda-kaito-scaler", "keda-proto", "scaler-core", "sim"]),
    ("keda-kaito-scaler-e2e", "e2e", &["clock", "keda-kaito-scaler", "keda-proto", "scaler-core", "sim"]),
];

#[test]
fn crates_depend_downwards() {
    let ours: BTreeSet<&str> = CRATES.iter().map(|(name, _, _)| *name).collect();
    for (name, folder, allowed) in CRATES {
        let manifest = fs::read_to_string(Path::new(folder).join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("\nname = \"{name}\"")), "{folder} is not {name}");
        let dependencies = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        let named = dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        let found: BTreeSet<&str> = named.filter(|dependency| ours.contains(dependency)).collect();
        let more: Vec<_> = found.difference(&allowed.iter().copied().collect()).copied().collect();
        assert!(more.is_empty(), "{name} depends on {more:?}");
    }
}

/// What every part of the product may use: how tasks are started, what is exported, when the process
/// is ready.
const COMMON: [&str; 3] = ["metrics", "readiness", "tasks"];

/// The folders of the product, each with those that it may use besides [`COMMON`].
const FOLDERS: [(&str, &[&str]); 17] = [
    // The top: nobody uses these.
    ("cli", &["telemetry"]),
    (
        "run",
        &["aggregator", "cluster", "discovery", "pki", "provision", "scrape", "serve", "targets", "wake"],
    ),
    ("check_install", &["cluster", "pki"]),
    // What is asked, and who answers.
    ("serve", &["targets"]),
    ("aggregator", &["targets"]),
    ("targets", &[]),
    // What reaches out.
    ("discovery", &["cluster"]),
    ("provision", &["cluster"]),
    ("pki", &["cluster"]),
    ("wake", &["cluster", "scrape"]),
    ("scrape", &[]),
    // The bottom.
    ("cluster", &[]),
    ("open_files", &[]),
    ("telemetry", &[]),
    ("metrics", &[]),
    ("readiness", &[]),
    ("tasks", &[]),
];

/// Arrows that point the wrong way, and are to go: whoever cuts one takes it out of here.
const WRONG_ARROWS: [(&str, &str); 2] = [
    // What is scraped, how, and what came of it is declared by those who do it.
    ("aggregator", "scrape"),
    ("aggregator", "wake"),
];

/// Circles of files that are to be cut: whoever cuts one takes it out of here.
const CIRCLES: [(&str, &[&str]); 8] = [
    ("crates/core/src", &["config/trigger/parse", "config/trigger/policy"]),
    ("crates/core/src", &["page/families", "page/table"]),
    ("crates/core/src", &["page/sample", "page/wanted"]),
    ("crates/sim/src", &["api_server", "api_server/faults"]),
    ("crates/sim/src", &["fleet", "fleet/serve"]),
    ("e2e/src", &["stage", "world"]),
    ("src", &["cluster/store", "cluster/store/feed", "cluster/store/informer", "cluster/store/served"]),
    ("src", &["scrape/fetch", "scrape/large", "scrape/page", "scrape/tls"]),
];

/// The folders of a graph, with those that they name.
fn folders(graph: &Graph) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut folders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, named) in graph {
        let own = top(module);
        let named = named.iter().map(|other| top(other)).filter(|other| *other != own && !other.is_empty());
        folders.entry(own).or_default().extend(named);
    }
    // The crate itself declares everything, and uses nothing.
    folders.remove("");
    folders
}

fn top(module: &str) -> &str {
    module.split('/').next().unwrap_or_default()
}

#[test]
fn folders_of_the_product_use_what_is_below_them() {
    let graph = graph(Path::new("src"));
    let allowed: BTreeMap<&str, &[&str]> = FOLDERS.into();
    let mut wrong = BTreeSet::new();
    for (folder, named) in folders(&graph) {
        let Some(allowed) = allowed.get(folder) else { panic!("{folder} is not in the table") };
        for other in named {
            if !allowed.contains(&other) && !COMMON.contains(&other) {
                wrong.insert((folder, other));
            }
        }
    }
    assert_eq!(wrong, WRONG_ARROWS.into(), "left: what is there; right: what is known to be wrong");
}

#[test]
fn the_table_of_folders_has_no_circle() {
    let common = COMMON.map(str::to_owned);
    let mut graph = Graph::new();
    for (folder, allowed) in FOLDERS {
        let allowed = allowed.iter().map(|other| (*other).to_owned());
        let common = common.iter().filter(|_| !COMMON.contains(&folder)).cloned();
        graph.insert(folder.to_owned(), allowed.chain(common).collect());
    }
    assert_eq!(circles(&graph), BTreeSet::new());
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let mut found = BTreeSet::new();
    for root in ["crates/core/src", "crates/sim/src", "crates/demo/src", "src", "e2e/src"] {
        found.extend(circles(&graph(Path::new(root))).into_iter().map(|circle| (root, circle)));
    }
    let known = CIRCLES.map(|(root, files)| (root, files.iter().map(|file| (*file).to_owned()).collect()));
    assert_eq!(found, known.into(), "left: what is there; right: what is known to be wrong");
}

/// Who starts tasks. The pools of scrapes start anew what panicked, and keep no other; a panic in one
/// of the cluster's watches is one of the part that runs them all.
const STARTS_TASKS: [&str; 4] =
    ["src/tasks.rs", "src/scrape/pool.rs", "src/wake/sources.rs", "src/cluster/store/mod.rs"];

#[test]
fn nobody_else_starts_tasks() {
    let mut found = BTreeSet::new();
    visit(Path::new("src"), &mut |path, text| {
        if !is_for_tests(path) && code(text).contains("spawn") {
            found.insert(path.display().to_string());
        }
    });
    assert_eq!(found, STARTS_TASKS.map(str::to_owned).into(), "use Tasks: the end of a task must be noticed");
}
