//! Matchers of labels: which series of a family are meant.
//!
//! ```text
//! matchers = "{" [ matcher *( "," matcher ) [ "," ] ] "}"     ; space between any two
//! matcher  = label op value
//! label    = ( ALPHA / "_" ) *( ALPHA / DIGIT / "_" )
//! op       = "=" / "!=" / "=~" / "!~"
//! value    = DQUOTE *( char / escape ) DQUOTE / "'" *( char / escape ) "'"
//!          / "`" *char "`"                                    ; no escapes
//! escape   = "\" ( "\" / DQUOTE / "'" / "n" / "t" )
//! ```
//! As in Prometheus, all have to match, a label that a series lacks is an empty one, and the
//! patterns of `=~` and `!~` have to match the whole value.

use std::{borrow::Cow, fmt};

use super::pattern::{Pattern, PatternError};

/// Matchers of labels that all have to match. Written by `Display` in one way, whatever order
/// and space they were given in.
#[derive(Clone, Debug)]
pub struct LabelMatchers(Vec<Matcher>);

#[derive(Clone, Debug)]
struct Matcher {
    label: String,
    op: Op,
    value: String,
    /// Of `=~` and `!~`.
    pattern: Option<Pattern>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Op {
    Equal,
    NotEqual,
    Matches,
    MatchesNot,
}

/// What is wrong with matchers. `Display` goes on after "a metric name".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    #[error(" with labels as in {{reason=\"capacity\"}}, and nothing after the closing brace")]
    Unclosed,
    #[error(
        " whose labels are letters, digits and _, not starting with a digit, as in {{reason=\"capacity\"}}"
    )]
    Label,
    #[error(" with one of =, !=, =~ and !~ after the label {label}")]
    Op { label: String },
    #[error(
        " with the value of the label {label} in quotes, as in {label}=\"value\" (in quotes \\\\, \\\", \\', \
         \\n and \\t are escapes; `…` has none)"
    )]
    Value { label: String },
    #[error(" with at most {} matchers of labels", LabelMatchers::MAX)]
    TooMany,
    #[error(" whose pattern for the label {label} can be used: {error}")]
    Pattern { label: String, error: PatternError },
}

impl LabelMatchers {
    /// The most matchers that one metric may have.
    pub const MAX: usize = 8;

    /// # Errors
    /// Where `text` is not what the module's header says.
    pub(super) fn parse(text: &str) -> Result<Self, MatchError> {
        let mut rest = text.strip_prefix('{').ok_or(MatchError::Unclosed)?.trim_start();
        let mut matchers: Vec<Matcher> = Vec::new();
        while !rest.starts_with('}') {
            let (matcher, after) = Matcher::parse(rest)?;
            if matchers.len() == Self::MAX {
                return Err(MatchError::TooMany);
            }
            matchers.push(matcher);
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if after.starts_with('}') => after,
                None => return Err(MatchError::Unclosed),
            };
        }
        if rest.trim_end() != "}" {
            return Err(MatchError::Unclosed);
        }
        matchers.sort_by(|a, b| (&a.label, a.op, &a.value).cmp(&(&b.label, b.op, &b.value)));
        matchers.dedup_by(|a, b| (&a.label, a.op, &a.value) == (&b.label, b.op, &b.value));
        Ok(Self(matchers))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are; what matching costs is in proportion.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The values or patterns, in the order of the labels.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|matcher| matcher.value.as_str())
    }

    /// Whether a series matches whose labels `value_of` gives by name.
    pub fn match_labels<'v>(&self, value_of: impl Fn(&str) -> Option<Cow<'v, str>>) -> bool {
        self.0.iter().all(|matcher| matcher.matches(&value_of(&matcher.label).unwrap_or_default()))
    }
}

impl Matcher {
    /// The matcher that `text` starts with, and what follows it and the space after it.
    fn parse(text: &str) -> Result<(Self, &str), MatchError> {
        let is_label = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = text.bytes().take_while(is_label).count();
        let (label, rest) = text.split_at(length);
        if label.is_empty() || label.as_bytes()[0].is_ascii_digit() {
            // Whatever stands there: without a closing brace this is the greater mistake.
            return Err(if text.is_empty() { MatchError::Unclosed } else { MatchError::Label });
        }
        let label = label.to_owned();
        let rest = rest.trim_start();
        let ops = [("=~", Op::Matches), ("!~", Op::MatchesNot), ("!=", Op::NotEqual), ("=", Op::Equal)];
        let found = ops.iter().find_map(|(sign, op)| Some((*op, rest.strip_prefix(sign)?)));
        let Some((op, rest)) = found else { return Err(MatchError::Op { label }) };
        let Some((value, rest)) = quoted(rest.trim_start()) else { return Err(MatchError::Value { label }) };
        let pattern = match op {
            Op::Equal | Op::NotEqual => None,
            Op::Matches | Op::MatchesNot => match Pattern::new(&value) {
                Ok(pattern) => Some(pattern),
                Err(error) => return Err(MatchError::Pattern { label, error }),
            },
        };
        Ok((Self { label, op, value, pattern }, rest.trim_start()))
    }

    fn matches(&self, value: &str) -> bool {
        let found = match &self.pattern {
            Some(pattern) => pattern.matches(value),
            None => self.value == value,
        };
        found == matches!(self.op, Op::Equal | Op::Matches)
    }
}

/// The text in the quotes that `text` starts with, and what follows them.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((value, &text[at + 1..])),
            '\\' if quote != '`' => value.push(match chars.next()?.1 {
                c @ ('\\' | '"' | '\'') => c,
                'n' => '\n',
                't' => '\t',
                _ => return None,
            }),
            _ => value.push(c),
        }
    }
    None
}

impl fmt::Display for LabelMatchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Matcher { label, op, value, .. }) in self.0.iter().enumerate() {
            let before = if index == 0 { "{" } else { "," };
            let op = match op {
                Op::Equal => "=",
                Op::NotEqual => "!=",
                Op::Matches => "=~",
                Op::MatchesNot => "!~",
            };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{before}{label}{op}\"{value}\"")?;
        }
        f.write_str("}")
    }
}
