//! The grammar of one line, as nom combinators; the module's header has it in words.

use std::str;

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::{tag, tag_no_case, take_till, take_while, take_while1},
    combinator::{eof, map, map_opt, opt, rest, success, value, verify},
    sequence::{preceded, terminated},
};

use super::{Kind, Label, LabelText, Labels, Line, Sample, number};
use crate::names::MetricName;

/// The longest name of a metric, in bytes as printed. Whatever is done with a name is bounded by
/// this, though a page may hold megabytes in its place.
const MAX_NAME: usize = MetricName::MAX_FAMILY;

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

pub(super) fn is_comment_or_blank(line: &[u8]) -> bool {
    matches!(skip_blank(line).first(), None | Some(b'#'))
}

/// What a line says that is no sample; `None` where it is blank.
pub(super) fn comment_line(line: &[u8]) -> Option<Line<'_>> {
    let text = skip_blank(line);
    let said = comment(text).map_or(Line::Comment, |(_, comment)| comment);
    (!text.is_empty()).then_some(said)
}

pub(super) fn head(input: &[u8]) -> Parsed<'_, Head<'_>> {
    preceded(
        blank,
        alt((map(plain_name, Head::Plain), map(preceded((byte(b'{'), blank), quoted_name), Head::Quoted))),
    )
    .parse(input)
}

/// What follows the head: labels, value, timestamp, exemplar, up to the end of the line.
#[inline]
pub(super) fn body<'p>(head: Head<'p>, input: &'p [u8]) -> Option<Sample<'p>> {
    let (input, labels) = match head {
        Head::Plain(_) => labels_after_plain_name(input),
        Head::Quoted(_) => labels_after_quoted_name(input),
    }
    .ok()?;
    let input = skip_blank(input);
    // Mostly a count that ends the line.
    let (value, timestamp_ms) = match number::count(input) {
        Some(value) => (value, None),
        None => {
            let (input, value) = map_opt(token, number::value).parse(input).ok()?;
            (value, tail(input).ok()?.1)
        }
    };
    Some(Sample { name: head.name(), labels, value, timestamp_ms })
}

#[inline]
fn labels_after_plain_name(input: &[u8]) -> Parsed<'_, Labels<'_>> {
    match skip_blank(input).split_first() {
        Some((b'{', inside)) => labels(inside),
        _ => preceded(space, success(Labels::default())).parse(input),
    }
}

fn labels_after_quoted_name(input: &[u8]) -> Parsed<'_, Labels<'_>> {
    let none = value(Labels::default(), byte(b'}'));
    preceded(blank, alt((none, preceded(byte(b','), labels)))).parse(input)
}

/// What stands between the braces, and the closing one.
#[inline]
fn labels(input: &[u8]) -> Parsed<'_, Labels<'_>> {
    let mut labels = Labels::within(input);
    let mut rest = input;
    while let Ok((after, label)) = label(rest) {
        labels.push(label, after);
        rest = after;
    }
    let closing = skip_blank(rest);
    labels.end(closing);
    value(labels, byte(b'}')).parse(closing)
}

/// One label with the comma that separates it from the next.
///
/// Labels are most of a page, so this is spelled out step by step, of which the compiler makes
/// more than of one large combinator.
#[inline]
pub(super) fn label(input: &[u8]) -> Parsed<'_, Label<'_>> {
    let input = skip_blank(input);
    let (input, name) = if input.first() == Some(&b'"') { quoted(input) } else { label_name(input) }?;
    let value = match input.strip_prefix(b"=\"") {
        Some(value) => value,
        None => preceded((blank, byte(b'='), blank), byte(b'"')).parse(input)?.0,
    };
    let (input, value) = quoted_text(value)?;
    let input = match &input[1..] {
        [b',', next @ ..] => next,
        after => match skip_blank(after) {
            [b',', next @ ..] => next,
            end @ ([b'}', ..] | []) => end,
            _ => return Err(nom::Err::Error(())),
        },
    };
    Ok((input, Label { name: LabelText::new(name), value: LabelText::new(value) }))
}

/// What follows the value: nothing, on most lines.
#[inline]
fn tail(input: &[u8]) -> Parsed<'_, Option<i64>> {
    if input.is_empty() { Ok((input, None)) } else { timestamp_and_exemplar(input) }
}

fn timestamp_and_exemplar(input: &[u8]) -> Parsed<'_, Option<i64>> {
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
            map(type_line, |(_, _, name, _, kind, (), _)| Line::Type { name, kind }),
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
    let is_name = |name: &[u8]| !name[0].is_ascii_digit() && name.len() <= MAX_NAME;
    map_opt(verify(take_while1(is_name_byte), is_name), utf8).parse(input)
}

#[inline]
fn label_name(input: &[u8]) -> Parsed<'_, &[u8]> {
    let end = input.iter().position(|&byte| !is_label_name_byte(byte)).unwrap_or(input.len());
    match input.first() {
        Some(first) if end > 0 && !first.is_ascii_digit() => Ok((&input[end..], &input[..end])),
        _ => Err(nom::Err::Error(())),
    }
}

fn quoted_name(input: &[u8]) -> Parsed<'_, &str> {
    map_opt(verify(quoted, |name: &[u8]| (1..=MAX_NAME).contains(&name.len())), utf8).parse(input)
}

/// What stands between two double quotes, its escapes as printed.
#[inline]
fn quoted(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (input, ()) = byte(b'"')(input)?;
    let (input, text) = quoted_text(input)?;
    Ok((&input[1..], text))
}

/// Up to the closing quote, which is not taken.
#[inline]
fn quoted_text(input: &[u8]) -> Parsed<'_, &[u8]> {
    let mut end = 0;
    loop {
        end += until_quote_or_backslash(&input[end..]).ok_or(nom::Err::Error(()))?;
        if input[end] == b'"' {
            return Ok((&input[end..], &input[..end]));
        }
        // The escape and what it escapes.
        end += 2;
        if end > input.len() {
            return Err(nom::Err::Error(()));
        }
    }
}

/// How many bytes stand before the next quote or backslash.
///
/// Label values are short, so this works on eight bytes of a word at once: a call to a SIMD
/// search costs more than it saves, and the end of a loop over bytes is hard to predict.
#[inline]
fn until_quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let is = |word: u64, byte: u8| {
        let zero_where_equal = word ^ (LOW * u64::from(byte));
        zero_where_equal.wrapping_sub(LOW) & !zero_where_equal & HIGH
    };
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = is(word, b'"') | is(word, b'\\');
        if found != 0 {
            // The lowest mark is exact; those above it may be wrong.
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let in_tail = tail.iter().position(|&byte| byte == b'"' || byte == b'\\')?;
    Some(words.len() * 8 + in_tail)
}

#[inline]
fn token(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_till(is_blank).parse(input)
}

fn blank(input: &[u8]) -> Parsed<'_, ()> {
    value((), take_while(is_blank)).parse(input)
}

#[inline]
fn skip_blank(input: &[u8]) -> &[u8] {
    // There is mostly none, and one comparison tells.
    match input.first() {
        Some(first) if *first <= b' ' => skip_some_blank(input),
        _ => input,
    }
}

fn skip_some_blank(input: &[u8]) -> &[u8] {
    let end = input.iter().position(|&byte| !is_blank(byte)).unwrap_or(input.len());
    &input[end..]
}

#[inline]
fn space(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(is_blank).parse(input)
}

#[inline]
fn byte<'p>(expected: u8) -> impl Fn(&'p [u8]) -> Parsed<'p, ()> {
    move |input| match input.split_first() {
        Some((first, rest)) if *first == expected => Ok((rest, ())),
        _ => Err(nom::Err::Error(())),
    }
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
    CLASSES[usize::from(byte)] & LABEL_NAME != 0
}

#[inline]
pub(super) fn is_name_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & NAME != 0
}

const NAME: u8 = 1;
const LABEL_NAME: u8 = 2;

/// What each byte may be part of; half of the bytes of a page are asked.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < classes.len() {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let ascii = byte as u8;
        if ascii.is_ascii_alphanumeric() || ascii == b'_' {
            classes[byte] = NAME | LABEL_NAME;
        } else if ascii == b':' {
            classes[byte] = NAME;
        }
        byte += 1;
    }
    classes
};
