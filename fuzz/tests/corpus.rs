//! Every input of the corpus through the checks of its target.

use std::{fs, path::Path};

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 3, "{count} inputs");
}

#[test]
fn answer() {
    run("answer", fuzz::answer::check);
}

#[test]
fn exposition() {
    run("exposition", fuzz::exposition::check);
}

#[test]
fn annotations() {
    run("annotations", fuzz::annotations::check);
}

#[test]
fn trigger() {
    run("trigger", fuzz::trigger::check);
}

#[test]
fn endpoints() {
    run("endpoints", fuzz::endpoints::check);
}
