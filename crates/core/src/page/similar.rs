//! "Did you mean": names on a page that resemble a metric which the page lacks.

use super::{
    super::exposition::{self, Line},
    families::same_concept,
    wanted::Asked,
};

/// Below this a likeness is an accident: `num_requests_waiting` and `num_requests_running` are
/// at 0.76, two families with the same prefix and nothing else in common at about 0.5.
const ALIKE: f64 = 0.7;
/// A message with more suggestions than this is not read.
const MOST: usize = 3;

/// The names on `page` that were likely meant by `missing` ones, the likeliest first.
pub(super) fn similar_names(page: &[u8], missing: &[&Asked]) -> Vec<String> {
    if missing.is_empty() {
        return Vec::new();
    }
    let families = families_of(page);
    let mut scored: Vec<(f64, String)> = Vec::new();
    for asked in missing {
        let name = asked.name.as_str();
        for family in &families {
            if *family == name {
                // It is there in another shape. Of a histogram the counters can be read.
                if asked.value {
                    scored.extend(["_count", "_sum"].map(|suffix| (1.0, format!("{name}{suffix}"))));
                }
                continue;
            }
            let score = if same_concept(name).any(|other| other.name == *family) {
                1.0
            } else {
                likeness(name, family)
            };
            if score >= ALIKE {
                scored.push((score, (*family).to_owned()));
            }
        }
    }
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut names: Vec<String> = Vec::new();
    for (_, name) in scored {
        if names.len() < MOST && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn likeness(asked: &str, candidate: &str) -> f64 {
    // A forgotten prefix is the commonest slip, and many edits away.
    let without_prefix = candidate.split_once(':').map(|(_, name)| name);
    if without_prefix == Some(asked) {
        return 1.0;
    }
    strsim::normalized_damerau_levenshtein(asked, candidate)
}

/// The families of a page, each once, in page order.
fn families_of(page: &[u8]) -> Vec<&str> {
    let mut families: Vec<&str> = Vec::new();
    for line in exposition::lines(page) {
        let name = match line {
            Line::Type { name, .. } => name,
            Line::Sample(sample) => sample.name,
            _ => continue,
        };
        // The samples of a family follow its TYPE.
        let belongs = |last: &&str| name.strip_prefix(*last).is_some_and(is_suffix);
        if !name.ends_with("_created") && !families.last().is_some_and(belongs) && !families.contains(&name) {
            families.push(name);
        }
    }
    families
}

fn is_suffix(rest: &str) -> bool {
    rest.is_empty() || ["_total", "_bucket", "_sum", "_count"].contains(&rest)
}
