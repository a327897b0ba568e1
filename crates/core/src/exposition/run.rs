//! Lines that follow one another under the same name.

use super::grammar::{self, Head};

/// How a line starts, up to the end of its name. Most lines start like the one before them (a
/// histogram prints twenty buckets), and comparing is faster than reading the name again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'p> {
    start: &'p [u8],
    pub(super) head: Head<'p>,
}

impl<'p> Run<'p> {
    /// The run that `line` opens, and what follows its name.
    pub(super) fn open(line: &'p [u8]) -> Option<(Self, &'p [u8])> {
        let (body, head) = grammar::head(line).ok()?;
        let start = &line[..line.len() - body.len()];
        Some((Self { start, head }, body))
    }

    /// What follows the name in `line`, where it is the name of this run.
    pub(super) fn body_of<'l>(&self, line: &'l [u8]) -> Option<&'l [u8]> {
        let body = line.strip_prefix(self.start)?;
        let name_goes_on = matches!(self.head, Head::Plain(_))
            && body.first().is_some_and(|byte| grammar::is_name_byte(*byte));
        (!name_goes_on).then_some(body)
    }
}
