//! The labels of a sample: checked when the line was read, taken apart only when asked.

use std::{borrow::Cow, iter::FusedIterator};

use super::grammar;

/// The label set of a sample, in page order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'p> {
    /// The first labels as they were found when the line was checked, so that the usual few
    /// are not read a second time.
    first: [Label<'p>; FIRST],
    found: usize,
    /// The labels after these. The grammar has checked them.
    rest: &'p [u8],
}

/// A sample of vLLM has up to three labels.
const FIRST: usize = 4;

/// The labels of one sample; made by [`Labels::iter`].
#[derive(Clone, Debug)]
pub struct LabelIter<'p> {
    labels: Labels<'p>,
    next: usize,
}

/// One label of a sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct Label<'p> {
    pub name: LabelText<'p>,
    pub value: LabelText<'p>,
}

/// A label's name or value as the page prints it, without quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelText<'p> {
    raw: &'p [u8],
}

impl<'p> Labels<'p> {
    /// Adds a label that was just read; `rest` is what follows it.
    #[inline]
    pub(super) fn push(&mut self, label: Label<'p>, rest: &'p [u8]) {
        if let Some(slot) = self.first.get_mut(self.found) {
            *slot = label;
            self.found += 1;
            self.rest = rest;
        }
    }

    /// Ends the set where `after` starts.
    #[inline]
    pub(super) fn end(&mut self, after: &'p [u8]) {
        self.rest = &self.rest[..self.rest.len().saturating_sub(after.len())];
    }

    #[must_use]
    pub fn iter(self) -> LabelIter<'p> {
        LabelIter { labels: self, next: 0 }
    }

    /// The value of the first label that is printed as `name`.
    #[must_use]
    pub fn get(self, name: &str) -> Option<LabelText<'p>> {
        self.iter().find_map(|label| (label.name.raw == name.as_bytes()).then_some(label.value))
    }
}

impl<'p> IntoIterator for Labels<'p> {
    type Item = Label<'p>;
    type IntoIter = LabelIter<'p>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'p> Iterator for LabelIter<'p> {
    type Item = Label<'p>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next < self.labels.found {
            let label = self.labels.first.get(self.next).copied();
            self.next += 1;
            return label;
        }
        let (rest, label) = grammar::label(self.labels.rest).ok()?;
        self.labels.rest = rest;
        Some(label)
    }
}

impl FusedIterator for LabelIter<'_> {}

impl<'p> LabelText<'p> {
    #[inline]
    pub(super) fn new(raw: &'p [u8]) -> Self {
        Self { raw }
    }

    /// The bytes as printed: escapes are not undone, and it may not be UTF-8.
    #[must_use]
    pub fn as_bytes(self) -> &'p [u8] {
        self.raw
    }

    /// The text that was meant. Bytes that are not UTF-8 become U+FFFD. Allocates only where
    /// there is something to undo or to replace.
    #[must_use]
    pub fn unescape(self) -> Cow<'p, str> {
        match String::from_utf8_lossy(self.raw) {
            Cow::Borrowed(text) => unescape(text),
            Cow::Owned(text) => Cow::Owned(unescape(&text).into_owned()),
        }
    }

    /// The text as a number, as `le` and `quantile` have it.
    #[must_use]
    pub fn to_f64(self) -> Option<f64> {
        super::number::value(self.raw)
    }
}

/// Undoes `\\`, `\"` and `\n`; allocates only where there is a backslash.
#[must_use]
pub fn unescape(printed: &str) -> Cow<'_, str> {
    if !printed.contains('\\') {
        return Cow::Borrowed(printed);
    }
    let mut text = String::with_capacity(printed.len());
    let mut rest = printed;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let (meant, length) = match after.as_bytes().first() {
            Some(b'\\') => ('\\', 1),
            Some(b'"') => ('"', 1),
            Some(b'n') => ('\n', 1),
            _ => ('\\', 0),
        };
        text.push(meant);
        rest = &after[length..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Writes `text` as it stands between double quotes on a page.
pub(super) fn escape(text: &str) -> String {
    let mut printed = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => printed.push_str("\\\\"),
            '"' => printed.push_str("\\\""),
            '\n' => printed.push_str("\\n"),
            _ => printed.push(c),
        }
    }
    printed
}
