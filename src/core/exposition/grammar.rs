//! The grammar of one line, as nom combinators; the module's header has it in words.

use std::str;

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::{tag, tag_no_case, take_till, take_while, take_while1},
    combinator::{eof, map, map_opt, opt, peek, recognize, rest, success, value, verify},
    multi::many0_count,
    sequence::{delimited, preceded, terminated},
};

use super::{Kind, Label, LabelValue, Labels, Line, Sample, number};

/// Why a line broke the grammar is of no use to anybody, so the error is the cheapest there is.
type Parsed<'p, T> = IResult<&'p [u8], T, ()>;

/// How a sample line starts: its name and how the name was written, which says how it goes on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head<'p> {
    /// `name`
    Plain(&'p str),
    /// `{"name"`
    Quoted(&'p str),
}

impl<'p> Head<'p> {
    pub(super) fn name(self) -> &'p str {
        match self {
            Self::Plain(name) | Self::Quoted(name) => name,
        }
    }
}

/// A whole line without its line feed; `None` where it is blank.
pub(super) fn line(input: &[u8]) -> Option<Line<'_>> {
    let (input, _) = blank(input).ok()?;
    match input.first()? {
        b'#' => Some(comment(input).map_or(Line::Comment, |(_, comment)| comment)),
        _ => Some(sample(input).map_or(Line::Rejected(input), Line::Sample)),
    }
}

pub(super) fn sample(input: &[u8]) -> Option<Sample<'_>> {
    let (input, head) = head(input).ok()?;
    body(head, input)
}

pub(super) fn head(input: &[u8]) -> Parsed<'_, Head<'_>> {
    preceded(
        blank,
        alt((map(plain_name, Head::Plain), map(preceded((tag("{"), blank), quoted_name), Head::Quoted))),
    )
    .parse(input)
}

/// What follows the head: labels, value, timestamp, exemplar, up to the end of the line.
pub(super) fn body<'p>(head: Head<'p>, input: &'p [u8]) -> Option<Sample<'p>> {
    let (input, inside) = match head {
        Head::Plain(_) => labels_after_plain_name(input),
        Head::Quoted(_) => labels_after_quoted_name(input),
    }
    .ok()?;
    let (input, value) = preceded(blank, map_opt(token, number::value)).parse(input).ok()?;
    let (_, timestamp_ms) = tail(input).ok()?;
    Some(Sample { name: head.name(), labels: Labels::new(inside), value, timestamp_ms })
}

fn labels_after_plain_name(input: &[u8]) -> Parsed<'_, &[u8]> {
    alt((delimited((blank, tag("{")), labels, tag("}")), preceded(space, success(&b""[..])))).parse(input)
}

fn labels_after_quoted_name(input: &[u8]) -> Parsed<'_, &[u8]> {
    delimited(blank, alt((preceded(tag(","), labels), success(&b""[..]))), tag("}")).parse(input)
}

/// All that stands between the braces, checked but not taken apart.
fn labels(input: &[u8]) -> Parsed<'_, &[u8]> {
    terminated(recognize(many0_count(label)), blank).parse(input)
}

/// One label with the comma that separates it from the next: its name and its value.
#[inline]
fn label(input: &[u8]) -> Parsed<'_, (&[u8], &[u8])> {
    let name = alt((label_name, verify(quoted, |name: &[u8]| utf8(name).is_some())));
    let end = alt((tag(","), peek(tag("}")), eof));
    (delimited(blank, name, (blank, tag("="), blank)), terminated(quoted, (blank, end))).parse(input)
}

/// Takes the next label off what [`labels`] let through.
pub(super) fn next_label<'p>(inside: &mut &'p [u8]) -> Option<Label<'p>> {
    let (rest, (name, value)) = label(inside).ok()?;
    *inside = rest;
    Some(Label { name: utf8(name)?, value: LabelValue::new(value) })
}

fn tail(input: &[u8]) -> Parsed<'_, Option<i64>> {
    let timestamp = opt(preceded(space, map_opt(token, number::timestamp_ms)));
    let exemplar = opt((space, tag("#"), rest));
    terminated(timestamp, (exemplar, blank, eof)).parse(input)
}

fn comment(input: &[u8]) -> Parsed<'_, Line<'_>> {
    let metric = || alt((plain_name, quoted_name));
    let type_line = (tag("TYPE"), space, metric(), space, kind, blank, eof);
    let help_line = (tag("HELP"), space, metric(), alt((preceded(space, rest), eof)));
    preceded(
        (tag("#"), blank),
        alt((
            map(type_line, |(_, _, name, _, kind, _, _)| Line::Type { name, kind }),
            map(help_line, |(_, _, name, text)| Line::Help { name, text }),
            value(Line::Eof, (tag("EOF"), blank, eof)),
        )),
    )
    .parse(input)
}

/// A kind in any case, as Go's parser reads it.
fn kind(input: &[u8]) -> Parsed<'_, Kind> {
    alt((
        value(Kind::Counter, tag_no_case("counter")),
        value(Kind::Gauge, tag_no_case("gauge")),
        value(Kind::Histogram, tag_no_case("histogram")),
        value(Kind::Summary, tag_no_case("summary")),
        value(Kind::Untyped, alt((tag_no_case("untyped"), tag_no_case("unknown")))),
    ))
    .parse(input)
}

fn plain_name(input: &[u8]) -> Parsed<'_, &str> {
    map_opt(verify(take_while1(is_name_byte), |name: &[u8]| !name[0].is_ascii_digit()), utf8).parse(input)
}

#[inline]
fn label_name(input: &[u8]) -> Parsed<'_, &[u8]> {
    verify(take_while1(is_label_name_byte), |name: &[u8]| !name[0].is_ascii_digit()).parse(input)
}

fn quoted_name(input: &[u8]) -> Parsed<'_, &str> {
    map_opt(verify(quoted, |name: &[u8]| !name.is_empty()), utf8).parse(input)
}

/// What stands between two double quotes, its escapes as printed.
#[inline]
fn quoted(input: &[u8]) -> Parsed<'_, &[u8]> {
    delimited(tag("\""), quoted_text, tag("\"")).parse(input)
}

#[inline]
fn quoted_text(input: &[u8]) -> Parsed<'_, &[u8]> {
    let mut end = 0;
    loop {
        match input.get(end) {
            Some(b'"') => return Ok((&input[end..], &input[..end])),
            Some(b'\\') => end += 2,
            Some(_) => end += 1,
            None => return Err(nom::Err::Error(())),
        }
    }
}

#[inline]
fn token(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_till(is_blank).parse(input)
}

#[inline]
fn blank(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while(is_blank).parse(input)
}

#[inline]
fn space(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(is_blank).parse(input)
}

#[inline]
fn utf8(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

#[inline]
fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[inline]
fn is_label_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[inline]
pub(super) fn is_name_byte(byte: u8) -> bool {
    is_label_name_byte(byte) || byte == b':'
}
