//! The labels of a sample: checked when the line was read, taken apart only when asked.

use std::{borrow::Cow, iter::FusedIterator};

use super::grammar;

/// The label set of a sample, in page order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'p> {
    /// What stands between the braces, without a quoted metric name. The grammar has checked it.
    inside: &'p [u8],
}

/// The labels of one sample, read as they are asked for; made by [`Labels::iter`].
#[derive(Clone, Debug)]
pub struct LabelIter<'p> {
    rest: &'p [u8],
}

/// One label of a sample.
#[derive(Clone, Copy, Debug)]
pub struct Label<'p> {
    pub name: LabelText<'p>,
    pub value: LabelText<'p>,
}

/// A label's name or value as the page prints it, without quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelText<'p> {
    raw: &'p [u8],
}

impl<'p> Labels<'p> {
    pub(super) fn new(inside: &'p [u8]) -> Self {
        Self { inside }
    }

    #[must_use]
    pub fn iter(self) -> LabelIter<'p> {
        LabelIter { rest: self.inside }
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

    fn next(&mut self) -> Option<Self::Item> {
        let (rest, label) = grammar::label(self.rest).ok()?;
        self.rest = rest;
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
