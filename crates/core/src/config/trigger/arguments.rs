//! Metadata on a command line: `check-trigger KEY=VALUE...`.

use std::collections::BTreeMap;

use crate::config::problem::{Problem, Problems};

/// Splits `KEY=VALUE` arguments; a value may hold further equals signs.
///
/// # Errors
/// With every argument that is no `KEY=VALUE` and every key that was given before.
pub fn parse_arguments<'a>(
    arguments: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeMap<&'a str, &'a str>, Problems> {
    let mut metadata = BTreeMap::new();
    let mut problems = Vec::new();
    for argument in arguments {
        match argument.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                if metadata.insert(key.trim(), value).is_some() {
                    problems.push(Problem::misplaced(key, "it was given before"));
                }
            }
            _ => problems.push(Problem::invalid("argument", argument, "KEY=VALUE")),
        }
    }
    if problems.is_empty() { Ok(metadata) } else { Err(Problems(problems)) }
}
