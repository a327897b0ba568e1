//! Keeps the core pure: it decides on values and is told the time. And keeps tasks supervised.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, fs, path::Path};

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

/// Who starts tasks. The pools of scrapes start anew what panicked, and keep no other.
const STARTS_TASKS: [&str; 3] = ["src/tasks.rs", "src/scrape/pool.rs", "src/wake/sources.rs"];

#[test]
fn nobody_else_starts_tasks() {
    let mut found = BTreeSet::new();
    visit(Path::new("src"), &mut |path, text| {
        let is_test =
            path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
        // In the product's files tests come last.
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = product.lines().map(|line| line.split("//").next().unwrap_or_default());
        if !is_test && code.into_iter().any(|line| line.contains("spawn")) {
            found.insert(path.display().to_string());
        }
    });
    assert_eq!(found, STARTS_TASKS.map(str::to_owned).into(), "use Tasks: the end of a task must be noticed");
}

fn visit(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
