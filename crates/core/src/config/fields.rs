//! Typed values out of a map of texts: trigger metadata and annotations are read alike.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, time::Duration};

use super::{
    go_duration,
    problem::{Problem, Problems, did_you_mean},
};

/// The texts that somebody wrote, and what was found wrong with them so far.
///
/// Each reader gives `None` both for an absent key and for one whose problem it noted, so
/// reading goes on to the end and every problem is reported at once. An empty text counts as
/// absent; space around a text does not count.
#[derive(Debug)]
pub struct Fields<'a> {
    texts: BTreeMap<&'a str, &'a str>,
    /// What stands before each key where the user wrote it.
    prefix: &'static str,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    #[must_use]
    pub fn new(prefix: &'static str, texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let texts = texts
            .into_iter()
            .map(|(key, text)| (key, text.trim()))
            .filter(|(_, text)| !text.is_empty())
            .collect();
        Self { texts, prefix, problems: Vec::new() }
    }

    #[must_use]
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.texts.get(key).copied()
    }

    /// A text that has to be there; `allowed` says what it is, for the message.
    pub fn required(&mut self, key: &str, allowed: &str) -> Option<&'a str> {
        let text = self.text(key);
        if text.is_none() {
            self.note(Problem::missing(self.full(key), allowed));
        }
        text
    }

    /// What `read` makes of a text; its `None` is a problem, and `allowed` says what would do.
    pub fn read<T>(
        &mut self,
        key: &str,
        allowed: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = read(text);
        if value.is_none() {
            self.note(Problem::invalid(self.full(key), text, allowed));
        }
        value
    }

    /// What `parse` makes of a text; its error is a problem, and says what would do.
    pub fn parse<T, E: fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(allowed) => {
                self.note(Problem::invalid(self.full(key), text, allowed.to_string()));
                None
            }
        }
    }

    /// One of several words, in any capitals.
    pub fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        if found.is_none() {
            let names = words.iter().map(|(word, _)| *word);
            let mut allowed = format!("one of {}", names.clone().collect::<Vec<_>>().join(", "));
            if let Some(meant) = did_you_mean(text, names) {
                allowed = format!("{allowed} (did you mean {meant}?)");
            }
            self.note(Problem::invalid(self.full(key), text, allowed));
        }
        found.map(|&(_, value)| value)
    }

    pub fn boolean(&mut self, key: &str) -> Option<bool> {
        self.read(key, "true or false", |text| {
            let is = |word: &str| text.eq_ignore_ascii_case(word);
            if is("true") { Some(true) } else { is("false").then_some(false) }
        })
    }

    pub fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let allowed = format!(
            "a duration from {} to {}, such as 3s, 500ms or 1m30s (a whole number is seconds)",
            go_duration::format(*range.start()),
            go_duration::format(*range.end()),
        );
        self.read(key, &allowed, |text| duration(text).filter(|duration| range.contains(duration)))
    }

    pub fn integer(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, &allowed, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    /// Notes a problem with `key` where it is present.
    pub fn misplaced(&mut self, key: &str, reason: &str) {
        if self.text(key).is_some() {
            self.note(Problem::misplaced(self.full(key), reason));
        }
    }

    /// Notes each key that is none of `known` but resembles one.
    ///
    /// Other unknown keys pass: KEDA hands over everything that stands in the metadata.
    pub fn note_slips(&mut self, known: &[&str], ignored: impl Fn(&str) -> bool) {
        for &key in self.texts.keys().filter(|key| !ignored(key)) {
            if let Some(similar) = did_you_mean(key, known.iter().copied()) {
                let key = format!("{}{key}", self.prefix);
                self.problems.push(Problem::unknown(key, format!("{}{similar}", self.prefix)));
            }
        }
    }

    /// Notes each key that is none of `known`: for texts that nobody else reads.
    pub fn note_unknown(&mut self, known: &[&str]) {
        for &key in self.texts.keys().filter(|key| !known.contains(key)) {
            let similar =
                did_you_mean(key, known.iter().copied()).map(|word| format!("{}{word}", self.prefix));
            let key = format!("{}{key}", self.prefix);
            self.problems.push(match similar {
                Some(similar) => Problem::unknown(key, similar),
                None => Problem::foreign(key, known),
            });
        }
    }

    /// The key that looks like a slip for `word`, with its text.
    #[must_use]
    pub fn slip_for(&self, word: &str) -> Option<(&'a str, &'a str)> {
        self.texts
            .iter()
            .find(|(key, _)| did_you_mean(key, [word]).is_some())
            .map(|(key, text)| (*key, *text))
    }

    pub fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub fn note_all(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.problems.extend(problems);
    }

    /// A key as the user wrote it.
    #[must_use]
    pub fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// `value`, unless something was noted.
    ///
    /// # Errors
    /// With everything that was noted. A `value` of `None` must have been noted as well.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        value.filter(|_| self.problems.is_empty()).ok_or(Problems(self.problems))
    }
}

/// A finite number.
#[must_use]
pub fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A duration in Go's syntax, or a whole number of seconds, as KEDA's own fields have it.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    go_duration::parse(text).ok()
}
