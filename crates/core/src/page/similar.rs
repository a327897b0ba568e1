//! "Did you mean": names on a page that resemble a metric which the page lacks.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

use super::{
    super::exposition::{self, Line},
    families::same_concept,
};
use crate::steps;

/// Below this a likeness is an accident: `num_requests_waiting` and `num_requests_running` are
/// at 0.76, two families with the same prefix and nothing else in common at about 0.5.
pub(super) const ALIKE: f64 = 0.7;
/// A message with more suggestions than this is not read.
const MOST: usize = 3;
/// Of so many families of a page at most, in page order, names are compared. A real page has
/// some hundred.
const MOST_FAMILIES: usize = 2048;
/// For so many missing metrics at most something similar is looked for.
const MOST_MISSING: usize = 8;

/// How much comparing may still be done for one page, in pairs of bytes. A real page with one
/// missing metric takes a tenth of it; whatever a page holds, it is done within a few
/// milliseconds.
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(1 << 20)
    }
}

/// The newest answer of [`similar_names`], and a number for what was asked: pods of one
/// deployment have the same families, scrape after scrape. It changes what an answer costs, not
/// what it is.
#[derive(Debug, Default)]
pub(super) struct Memo {
    hasher: RandomState,
    newest: Mutex<Option<(u64, Vec<String>)>>,
}

impl Memo {
    /// As [`similar_names`] says, anew only where something else was asked last.
    pub(super) fn similar_names(&self, families: &[&str], missing: &[&str]) -> Vec<String> {
        if missing.is_empty() || families.is_empty() {
            return Vec::new();
        }
        let asked = self.hasher.hash_one((families, missing));
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((earlier, names)) = newest
            && earlier == asked
        {
            return names;
        }
        let names = similar_names(families, missing);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, names.clone()));
        names
    }
}

/// The names of `families` that were likely meant by `missing` ones, the likeliest first.
fn similar_names(families: &[&str], missing: &[&str]) -> Vec<String> {
    let mut budget = Budget::default();
    let mut scored: Vec<(f64, &str)> = Vec::new();
    for name in missing.iter().take(MOST_MISSING) {
        let same: Vec<&str> = same_concept(name).map(|other| other.name).collect();
        for family in families.iter().filter(|family| *family != name) {
            steps::take(same.len() + 1);
            let score = if same.contains(family) { Some(1.0) } else { likeness(name, family, &mut budget) };
            if let Some(score) = score.filter(|score| *score >= ALIKE) {
                scored.push((score, family));
            }
        }
    }
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let mut names: Vec<String> = Vec::new();
    for (_, name) in scored {
        if names.len() < MOST && !names.iter().any(|earlier| earlier == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// How alike two names are, from [`ALIKE`] to 1; `None` where they are not, or where finding out
/// would take more than the budget has left.
pub(super) fn likeness(asked: &str, candidate: &str, budget: &mut Budget) -> Option<f64> {
    // A forgotten prefix is the commonest slip, and many edits away.
    if candidate.split_once(':').is_some_and(|(_, bare)| bare == asked) {
        return Some(1.0);
    }
    let longer = asked.len().max(candidate.len());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
    let most = ((1.0 - ALIKE) * longer as f64) as usize;
    let slips = distance(asked.as_bytes(), candidate.as_bytes(), most, budget)?;
    Some(1.0 - slips as f64 / longer as f64)
}

/// How many bytes have to be put in, left out, exchanged or swapped with their neighbour to make
/// `b` of `a`; `None` where more than `most` (optimal string alignment, within a band).
fn distance(a: &[u8], b: &[u8], most: usize, budget: &mut Budget) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let far = most + 1;
    steps::take(b.len());
    budget.0 = budget.0.checked_sub(b.len())?;
    let mut before_last = vec![far; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).map(|j| j.min(far)).collect();
    let mut row = vec![far; b.len() + 1];
    for i in 1..=a.len() {
        let from = i.saturating_sub(most).max(1);
        let to = (i + most).min(b.len());
        let cells = (to + 1).saturating_sub(from);
        steps::take(cells + 1);
        budget.0 = budget.0.checked_sub(cells)?;
        row[from - 1] = if from == 1 { i.min(far) } else { far };
        let mut least = row[from - 1];
        for j in from..=to {
            let exchanged = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut slips = exchanged.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                slips = slips.min(before_last[j - 2] + 1);
            }
            row[j] = slips.min(far);
            least = least.min(row[j]);
        }
        if to < b.len() {
            row[to + 1] = far;
        }
        if least > most {
            return None;
        }
        std::mem::swap(&mut before_last, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    Some(last[b.len()]).filter(|slips| *slips <= most)
}

/// The families of a page, each once, in page order, up to [`MOST_FAMILIES`].
pub(super) fn families_of(page: &[u8]) -> Vec<&str> {
    let mut families: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    for line in exposition::lines(page) {
        let name = match line {
            Line::Type { name, .. } => name,
            Line::Sample(sample) => sample.name,
            _ => continue,
        };
        steps::take(name.len());
        // The samples of a family follow its TYPE.
        let belongs = |last: &&str| name.strip_prefix(*last).is_some_and(is_suffix);
        if !name.ends_with("_created") && !families.last().is_some_and(belongs) && seen.insert(name) {
            families.push(name);
            if families.len() == MOST_FAMILIES {
                break;
            }
        }
    }
    families
}

fn is_suffix(rest: &str) -> bool {
    rest.is_empty() || ["_total", "_bucket", "_sum", "_count"].contains(&rest)
}
