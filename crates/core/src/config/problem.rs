//! What is wrong with what a user wrote, in words that let them put it right.

use std::fmt::{self, Write as _};

/// One thing wrong with one key of a trigger's metadata, an annotation, or an entry in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key or annotation, with the place inside its value where there is one, for
    /// example `threshold` or `policy[1].upthreshold`.
    pub key: String,
    pub fault: Fault,
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has to be there. Holds what it should say.
    Missing { allowed: String },
    /// It holds something that is not allowed.
    Invalid { held: String, allowed: String },
    /// Nobody reads it, and it looks like a slip for a key that somebody reads.
    Unknown { similar: String },
    /// Nobody reads it, and it looks like nothing that somebody reads. Holds what is read.
    Foreign { known: String },
    /// It makes no sense here. Holds why.
    Misplaced { reason: String },
}

impl Problem {
    #[must_use]
    pub fn missing(key: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { key: key.into(), fault: Fault::Missing { allowed: allowed.into() } }
    }

    #[must_use]
    pub fn invalid(key: impl Into<String>, held: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { key: key.into(), fault: Fault::Invalid { held: held.into(), allowed: allowed.into() } }
    }

    #[must_use]
    pub fn unknown(key: impl Into<String>, similar: impl Into<String>) -> Self {
        Self { key: key.into(), fault: Fault::Unknown { similar: similar.into() } }
    }

    /// A key that nobody reads, where `known` are all that are read.
    #[must_use]
    pub fn foreign(key: impl Into<String>, known: &[&str]) -> Self {
        Self { key: key.into(), fault: Fault::Foreign { known: known.join(", ") } }
    }

    #[must_use]
    pub fn misplaced(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), fault: Fault::Misplaced { reason: reason.into() } }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = Excerpt(&self.key);
        match &self.fault {
            Fault::Missing { allowed } => write!(f, "{key} is missing: it must be {allowed}"),
            Fault::Invalid { held, allowed } => {
                write!(f, "{key} is {:?}, but must be {allowed}", Excerpt(held))
            }
            Fault::Unknown { similar } => write!(f, "{key} is not known: did you mean {similar}?"),
            Fault::Foreign { known } => write!(f, "{key} is not known: the keys here are {known}"),
            Fault::Misplaced { reason } => write!(f, "{key} makes no sense here: {reason}"),
        }
    }
}

/// The start of a user's text: a message must stay readable, whatever somebody pasted.
pub(crate) struct Excerpt<'a>(pub &'a str);

impl Excerpt<'_> {
    const CHARS: usize = 80;

    fn shown(&self) -> Option<&str> {
        let (end, _) = self.0.char_indices().nth(Self::CHARS)?;
        self.0.get(..end)
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.shown();
        for character in shown.unwrap_or(self.0).chars() {
            // A key stands without quotes, but no more than a text in them may it move a cursor
            // or forge a line.
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        if shown.is_some() { f.write_char('…') } else { Ok(()) }
    }
}

impl fmt::Debug for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shown() {
            Some(start) => write!(f, "{start:?}…"),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// Everything that is wrong with one input, in the order in which it is checked. Never empty
/// where it stands in an `Err`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The word of `words` that somebody who wrote `given` probably meant; `None` where `given`
/// is one of them or resembles none.
///
/// Two slips are forgiven, one in words of up to five letters. Capitals, dashes and
/// underscores are style, not slips.
#[must_use]
pub fn did_you_mean<'w>(given: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    // Longer than any word by far: comparing would cost much and find nothing.
    if given.len() > 64 {
        return None;
    }
    let plain = |word: &str| word.to_ascii_lowercase().replace(['-', '_'], "");
    let given_plain = plain(given);
    let mut best: Option<(usize, &str)> = None;
    for word in words {
        if word == given {
            return None;
        }
        let slips = strsim::damerau_levenshtein(&given_plain, &plain(word));
        let forgiven = if word.len() > 5 { 2 } else { 1 };
        if slips <= forgiven && best.is_none_or(|(fewest, _)| slips < fewest) {
            best = Some((slips, word));
        }
    }
    best.map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_key_what_it_held_and_what_is_allowed() {
        let problems = Problems(vec![
            Problem::missing("inferenceSetName", "the name of an InferenceSet"),
            Problem::invalid("threshold", "ten", "a number above 0"),
            Problem::unknown("treshold", "threshold"),
            Problem::foreign("weight", &["name", "type"]),
            Problem::misplaced("quantile", "aggregation is sum"),
        ]);
        assert_eq!(
            problems.to_string(),
            "inferenceSetName is missing: it must be the name of an InferenceSet; \
             threshold is \"ten\", but must be a number above 0; \
             treshold is not known: did you mean threshold?; \
             weight is not known: the keys here are name, type; \
             quantile makes no sense here: aggregation is sum"
        );
    }

    #[test]
    fn long_and_unprintable_text_is_cut_and_escaped() {
        let held = format!("a\n{}", "é".repeat(500));
        let text = Problem::invalid("threshold", held, "a number").to_string();
        assert_eq!(text, format!("threshold is \"a\\n{}\"…, but must be a number", "é".repeat(78)));
        let text = Problem::unknown("thresh\u{1b}[2J\nold", "threshold").to_string();
        assert_eq!(text, "thresh\\u{1b}[2J\\nold is not known: did you mean threshold?");
    }

    #[test]
    fn guesses_what_was_meant() {
        let words = ["threshold", "metricPort", "metricPath", "policy", "le"];
        for (given, meant) in [
            ("treshold", Some("threshold")),
            ("Threshold", Some("threshold")),
            ("metric-port", Some("metricPort")),
            ("metric_pat", Some("metricPath")),
            ("ploicy", Some("policy")),
            ("threshold", None),
            ("target", None),
            ("la", Some("le")),
            ("abc", None),
        ] {
            assert_eq!(did_you_mean(given, words), meant, "{given}");
        }
        assert_eq!(did_you_mean(&"threshold".repeat(1000), words), None);
    }
}
