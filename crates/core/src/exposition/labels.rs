//! The labels of a sample.

use std::{borrow::Cow, fmt, iter::FusedIterator};

use super::grammar;
use crate::steps;

/// The label set of a sample, in page order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'p> {
    /// What stands between the braces. The grammar has checked it.
    text: &'p [u8],
    /// Where the first labels were found when the line was checked, so that the usual few are
    /// not read a second time.
    first: [Place; FIRST],
    found: usize,
    /// Where in the text the labels after these start.
    rest: usize,
}

/// A sample of vLLM has up to three labels.
const FIRST: usize = 4;

/// Where a label stands in its text. A sample is handed from step to step by value, and four of
/// these are a quarter of the size of four labels.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    name: Span,
    value: Span,
}

/// From its start to its end.
type Span = (u16, u16);

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
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelText<'p> {
    raw: &'p [u8],
}

impl<'p> Labels<'p> {
    /// A set of which nothing is read yet; it ends somewhere in `text`.
    #[inline]
    pub(super) fn within(text: &'p [u8]) -> Self {
        Self { text, ..Self::default() }
    }

    /// Adds a label that was just read; `rest` is what follows it.
    #[inline]
    pub(super) fn push(&mut self, label: Label<'p>, rest: &'p [u8]) {
        // Labels are noted from the first one on without a gap.
        let read = self.text.len() - rest.len();
        if read > usize::from(u16::MAX) {
            return;
        }
        if let Some(slot) = self.first.get_mut(self.found) {
            let text = self.text;
            let span = |part: &[u8]| {
                #[expect(clippy::cast_possible_truncation, reason = "it ends before `rest`")]
                let start = (part.as_ptr().addr() - text.as_ptr().addr()) as u16;
                #[expect(clippy::cast_possible_truncation, reason = "it ends before `rest`")]
                let length = part.len() as u16;
                (start, start + length)
            };
            *slot = Place { name: span(label.name.raw), value: span(label.value.raw) };
            self.found += 1;
            self.rest = read;
        }
    }

    /// Ends the set where `after` starts.
    #[inline]
    pub(super) fn end(&mut self, after: &'p [u8]) {
        self.text = &self.text[..self.text.len().saturating_sub(after.len())];
    }

    fn at(&self, index: usize) -> Option<Label<'p>> {
        let text = |(start, end): Span| LabelText::new(&self.text[start.into()..end.into()]);
        let Place { name, value } = *self.first.get(index)?;
        Some(Label { name: text(name), value: text(value) })
    }

    /// How many bytes the set takes on the page; what looking at it costs is in proportion.
    #[must_use]
    pub fn byte_len(self) -> usize {
        self.text.len()
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
            let label = self.labels.at(self.next);
            self.next += 1;
            steps::take(1);
            return label;
        }
        let (rest, label) = grammar::label(self.labels.text.get(self.labels.rest..)?).ok()?;
        steps::take(self.labels.text.len() - self.labels.rest - rest.len());
        self.labels.rest = self.labels.text.len() - rest.len();
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

impl fmt::Debug for LabelText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", String::from_utf8_lossy(self.raw))
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
