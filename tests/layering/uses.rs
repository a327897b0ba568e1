//! Which module of a crate names which, read from its source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A module by its path, `scrape/pool`; empty for the crate itself.
pub(crate) type Module = String;

/// A graph of modules: each file's, with those that it names.
pub(crate) type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Calls `look` with each source file below `folder`.
pub(crate) fn visit(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

/// Whether a file is there for tests only.
pub(crate) fn is_for_tests(path: &Path) -> bool {
    path.with_extension("").iter().any(|part| {
        let part = part.to_string_lossy();
        part == "tests" || part == "testing" || part.ends_with("_tests")
    })
}

/// The text without comments and without what is for tests only.
pub(crate) fn code(text: &str) -> String {
    // Tests come last in a file.
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    product.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The graph of the crate whose root is in `folder`.
pub(crate) fn graph(folder: &Path) -> Graph {
    let mut files: BTreeMap<Module, String> = BTreeMap::new();
    visit(folder, &mut |path, text| {
        let within = path.strip_prefix(folder).unwrap().with_extension("");
        let mut parts: Vec<_> = within.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if is_for_tests(&within) || parts == ["main"] {
            return;
        }
        if parts.last().is_some_and(|last| last == "mod" || (last == "lib" && parts.len() == 1)) {
            parts.pop();
        }
        files.insert(parts.join("/"), code(text));
    });
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    let named = |module: &Module, code: &str| {
        let paths = paths(module, code).into_iter().map(|path| file_of(&path, &modules));
        paths.filter(|named| named != module).collect()
    };
    files.iter().map(|(module, code)| (module.clone(), named(module, code))).collect()
}

/// The module with a file of its own that a path leads into.
fn file_of(path: &[String], modules: &BTreeSet<Module>) -> Module {
    let prefixes = (0..=path.len()).rev().map(|length| path[..length].join("/"));
    prefixes.into_iter().find(|prefix| modules.contains(prefix)).unwrap_or_default()
}

/// Every path from the crate's root that `code` names. What a module passes on with `pub use`, it
/// does not use itself.
fn paths(module: &str, code: &str) -> Vec<Vec<String>> {
    let here: Vec<String> = module.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let mut found = Vec::new();
    for (start, _) in code.match_indices("::") {
        let before = &code[..start];
        let word_start =
            before.rfind(|letter: char| !(letter.is_alphanumeric() || letter == '_')).map_or(0, |at| at + 1);
        let word = &before[word_start..];
        let lead_in = &before[..word_start];
        if lead_in.ends_with("::") {
            continue;
        }
        let passed_on = {
            let line = lead_in.rsplit(['\n', ';']).next().unwrap_or_default().trim();
            line.starts_with("pub") && line.ends_with("use")
        };
        let (base, rest) = match word {
            "crate" => (Vec::new(), &code[start + 2..]),
            "self" => (here.clone(), &code[start + 2..]),
            "super" => {
                let mut rest = &code[start + 2..];
                let mut base = here.clone();
                base.pop();
                while let Some(further) = rest.strip_prefix("super::") {
                    rest = further;
                    base.pop();
                }
                (base, rest)
            }
            _ => continue,
        };
        if passed_on && word != "crate" {
            continue;
        }
        let mut paths = Vec::new();
        tree(rest, &base, &mut paths);
        found.extend(paths);
    }
    found
}

/// Reads a path, or a tree of them in braces, that continues `base`. Gives what comes after it.
fn tree<'a>(text: &'a str, base: &[String], paths: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == ',');
            if let Some(rest) = rest.strip_prefix('}') {
                return rest;
            }
            let before = rest.len();
            rest = tree(rest, base, paths);
            if rest.len() == before {
                // Not a tree after all, but a block.
                return rest;
            }
        }
    }
    let length = text.find(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == '*'));
    let (name, rest) = text.split_at(length.unwrap_or(text.len()));
    let mut path = base.to_vec();
    if !matches!(name, "" | "self" | "as" | "*") {
        path.push(name.to_owned());
    }
    match rest.strip_prefix("::") {
        Some(further) if !further.starts_with('<') => tree(further, &path, paths),
        _ => {
            paths.push(path);
            // `name as other`
            match rest.trim_start().strip_prefix("as ") {
                Some(alias) => {
                    alias.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_')
                }
                None => rest,
            }
        }
    }
}

/// The circles of a graph: each set of modules of which every one leads to every other.
pub(crate) fn circles(graph: &Graph) -> BTreeSet<BTreeSet<Module>> {
    let reach: BTreeMap<&Module, BTreeSet<&Module>> =
        graph.keys().map(|module| (module, reached(graph, module))).collect();
    let circle = |module: &Module| {
        let both =
            reach[module].iter().filter(|other| reach.get(*other).is_some_and(|back| back.contains(module)));
        both.map(|other| (*other).clone()).collect::<BTreeSet<_>>()
    };
    graph.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

fn reached<'a>(graph: &'a Graph, from: &Module) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&Module> = graph.get(from).into_iter().flatten().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module) {
            next.extend(graph.get(module).into_iter().flatten());
        }
    }
    reached
}

#[test]
fn paths_are_read_as_the_compiler_does() {
    let code = code(
        "pub use self::{pool::Pool};\nuse super::task::{Task, run};\nuse crate::{\n    a::{b, c::d as e},\n    f, // g::h\n};\n\
         fn x() { crate::i::j(); super::super::k(self::l::m::<T>) }\n#[cfg(test)]\nmod tests { use crate::z; }",
    );
    let mut found: Vec<String> = paths("scrape/pool", &code).iter().map(|path| path.join("/")).collect();
    found.sort();
    let expected =
        ["a/b", "a/c/d", "f", "i/j", "k", "scrape/pool/l/m", "scrape/task/Task", "scrape/task/run"];
    assert_eq!(found, expected);
}

#[test]
fn a_circle_is_found_and_a_fork_is_none() {
    let edges = [("a", "b"), ("b", "c"), ("c", "a"), ("a", "d"), ("c", "d"), ("d", "e")];
    let mut graph = Graph::new();
    for (from, to) in edges {
        graph.entry(from.into()).or_default().insert(to.into());
        graph.entry(to.into()).or_default();
    }
    assert_eq!(circles(&graph), BTreeSet::from([["a", "b", "c"].map(str::to_owned).into()]));
}
