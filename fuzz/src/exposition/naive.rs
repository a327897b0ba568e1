//! A reader of the exposition format that is slow, allocates, and is plain to see through. It
//! follows the grammar in `scaler_core::exposition` and shares no code with the real one.

use scaler_core::exposition::Kind;

/// A line that is not blank and no mere comment.
#[derive(Clone, Debug, PartialEq)]
pub enum NaiveLine {
    Sample(Sample),
    Type(Vec<u8>, Kind),
    Rejected,
}

/// A sample, its texts as printed.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: Vec<u8>,
    pub labels: Vec<(Vec<u8>, Vec<u8>)>,
    /// The bits of the value, so that NaN equals NaN.
    pub value: u64,
    pub timestamp_ms: Option<i64>,
}

pub fn lines(page: &[u8]) -> Vec<NaiveLine> {
    let mut read = Vec::new();
    for line in page.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut rest = Rest(line);
        rest.blank();
        if rest.0.is_empty() {
            continue;
        }
        if rest.0[0] == b'#' {
            read.extend(type_line(rest));
            continue;
        }
        read.push(sample(rest).map_or(NaiveLine::Rejected, NaiveLine::Sample));
    }
    read
}

/// What is left of a line.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take_while(&mut self, mut of: impl FnMut(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !of(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn blank(&mut self) -> usize {
        self.take_while(|byte| byte == b' ' || byte == b'\t').len()
    }

    fn byte(&mut self, expected: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[expected])?;
        Some(())
    }

    fn token(&mut self) -> &'a [u8] {
        self.take_while(|byte| byte != b' ' && byte != b'\t')
    }

    fn name(&mut self, colons: bool) -> Option<&'a [u8]> {
        if self.0.first()?.is_ascii_digit() {
            return None;
        }
        let name =
            self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || (colons && byte == b':'));
        (!name.is_empty()).then_some(name)
    }

    fn quoted(&mut self) -> Option<&'a [u8]> {
        self.byte(b'"')?;
        let mut index = 0;
        while *self.0.get(index)? != b'"' {
            index += if self.0[index] == b'\\' { 2 } else { 1 };
        }
        let text = &self.0[..index];
        self.0 = &self.0[index + 1..];
        Some(text)
    }

    /// A name in quotes: UTF-8 and not empty.
    fn quoted_name(&mut self) -> Option<&'a [u8]> {
        self.quoted().filter(|name| !name.is_empty() && std::str::from_utf8(name).is_ok())
    }
}

fn sample(mut rest: Rest<'_>) -> Option<Sample> {
    let mut labels = Vec::new();
    let name = if rest.byte(b'{').is_some() {
        rest.blank();
        let name = rest.quoted_name()?;
        rest.blank();
        if rest.byte(b'}').is_none() {
            rest.byte(b',')?;
            labels = label_set(&mut rest)?;
        }
        name
    } else {
        let name = rest.name(true)?;
        let space = rest.blank();
        if rest.byte(b'{').is_some() {
            labels = label_set(&mut rest)?;
        } else if space == 0 {
            return None;
        }
        name
    };
    rest.blank();
    let value = number(rest.token())?;
    Some(Sample { name: name.to_vec(), labels, value: value.to_bits(), timestamp_ms: tail(rest)? })
}

/// From behind the opening brace, or the comma behind a quoted name, to behind the closing one.
fn label_set(rest: &mut Rest<'_>) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut labels = Vec::new();
    loop {
        rest.blank();
        if rest.byte(b'}').is_some() {
            return Some(labels);
        }
        let name = if rest.0.first() == Some(&b'"') { rest.quoted()? } else { rest.name(false)? };
        rest.blank();
        rest.byte(b'=')?;
        rest.blank();
        let value = rest.quoted()?;
        labels.push((name.to_vec(), value.to_vec()));
        rest.blank();
        if rest.byte(b',').is_none() {
            rest.byte(b'}')?;
            return Some(labels);
        }
    }
}

/// The timestamp, if there is one; `None` where the line goes on otherwise.
fn tail(mut rest: Rest<'_>) -> Option<Option<i64>> {
    let mut timestamp = None;
    let mut ahead = rest;
    if ahead.blank() > 0 {
        timestamp = timestamp_ms(ahead.token());
        if timestamp.is_some() {
            rest = ahead;
        }
    }
    let space = rest.blank();
    (rest.0.is_empty() || (space > 0 && rest.0[0] == b'#')).then_some(timestamp)
}

fn number(token: &[u8]) -> Option<f64> {
    std::str::from_utf8(token).ok()?.parse().ok()
}

fn timestamp_ms(token: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(token).ok()?;
    if let Ok(milliseconds) = text.parse() {
        return Some(milliseconds);
    }
    let seconds: f64 = text.parse().ok().filter(|_| text.contains('.'))?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    Some((seconds * 1e3).round() as i64)
}

/// `# TYPE name kind`, and nothing for any other comment.
fn type_line(mut rest: Rest<'_>) -> Option<NaiveLine> {
    rest.byte(b'#')?;
    rest.blank();
    rest.0 = rest.0.strip_prefix(b"TYPE")?;
    spaced(&mut rest)?;
    let name = if rest.0.first() == Some(&b'"') { rest.quoted_name()? } else { rest.name(true)? };
    spaced(&mut rest)?;
    let kind = match rest.token().to_ascii_lowercase().as_slice() {
        b"counter" => Kind::Counter,
        b"gauge" => Kind::Gauge,
        b"histogram" => Kind::Histogram,
        b"summary" => Kind::Summary,
        b"untyped" | b"unknown" => Kind::Untyped,
        _ => return None,
    };
    rest.blank();
    rest.0.is_empty().then(|| NaiveLine::Type(name.to_vec(), kind))
}

fn spaced(rest: &mut Rest<'_>) -> Option<()> {
    (rest.blank() > 0).then_some(())
}
