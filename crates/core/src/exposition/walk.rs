//! The full walk over a page: every line, or every sample.

use std::iter::FusedIterator;

use memchr::memchr;

use super::{Kind, Line, Sample, grammar, run::Run};
use crate::steps;

/// Walks every line of `page` that is not blank.
#[must_use]
pub fn lines(page: &[u8]) -> Lines<'_> {
    Lines { rest: page, run: None }
}

/// The TYPE lines of `page`, name and kind, in page order. Samples are not looked into, which
/// makes it several times as fast as [`lines`].
pub fn types(page: &[u8]) -> impl Iterator<Item = (&str, Kind)> {
    let mut rest = page;
    std::iter::from_fn(move || next_line(&mut rest))
        .filter(|line| grammar::is_comment_or_blank(line))
        .filter_map(|line| match grammar::comment_line(line)? {
            Line::Type { name, kind } => Some((name, kind)),
            _ => None,
        })
}

/// Walks every sample of `page`, skipping comments; lines that break the grammar are skipped
/// and counted.
#[must_use]
pub fn samples(page: &[u8]) -> Samples<'_> {
    Samples { rest: page, run: None, rejected: 0 }
}

/// The lines of a page; made by [`lines`].
#[derive(Clone, Debug)]
pub struct Lines<'p> {
    rest: &'p [u8],
    /// How the last sample line started.
    run: Option<Run<'p>>,
}

/// The samples of a page; made by [`samples`].
#[derive(Clone, Debug)]
pub struct Samples<'p> {
    rest: &'p [u8],
    /// How the last sample line started.
    run: Option<Run<'p>>,
    rejected: usize,
}

impl Samples<'_> {
    /// How many of the lines passed so far broke the grammar.
    #[must_use]
    pub fn rejected(&self) -> usize {
        self.rejected
    }
}

impl<'p> Iterator for Lines<'p> {
    type Item = Line<'p>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = next_line(&mut self.rest)?;
            if !grammar::is_comment_or_blank(line) {
                return Some(sample(line, &mut self.run).map_or(Line::Rejected(line), Line::Sample));
            }
            if let Some(comment) = grammar::comment_line(line) {
                return Some(comment);
            }
        }
    }
}

impl<'p> Iterator for Samples<'p> {
    type Item = Sample<'p>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = next_line(&mut self.rest)?;
            if grammar::is_comment_or_blank(line) {
                continue;
            }
            match sample(line, &mut self.run) {
                Some(sample) => return Some(sample),
                None => self.rejected += 1,
            }
        }
    }
}

/// Reads a sample line; `run` is how the one before it started, and then how this one does.
fn sample<'p>(line: &'p [u8], run: &mut Option<Run<'p>>) -> Option<Sample<'p>> {
    if let Some(run) = run
        && let Some(body) = run.body_of(line)
    {
        return grammar::body(run.head, body);
    }
    let (opened, body) = Run::open(line)?;
    *run = Some(opened);
    grammar::body(opened.head, body)
}

impl FusedIterator for Lines<'_> {}
impl FusedIterator for Samples<'_> {}

/// Takes the next line off `rest`, without its LF or CR LF; `None` at the end of the page.
fn next_line<'p>(rest: &mut &'p [u8]) -> Option<&'p [u8]> {
    if rest.is_empty() {
        return None;
    }
    let (line, after) = split_line(rest);
    *rest = after;
    Some(line)
}

/// The line that `page` starts with, without its LF or CR LF, and what follows it.
pub(super) fn split_line(page: &[u8]) -> (&[u8], &[u8]) {
    let (line, after) = match memchr(b'\n', page) {
        Some(end) => (&page[..end], &page[end + 1..]),
        None => (page, &page[page.len()..]),
    };
    steps::take(line.len() + 1);
    (line.strip_suffix(b"\r").unwrap_or(line), after)
}
