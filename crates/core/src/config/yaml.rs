//! What a YAML parser says of a text, in words for whoever wrote the text.

use serde_saphyr::Error;

/// One thing wrong with a YAML text: where, counted from 1 where it is known, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlProblem {
    pub line: Option<u64>,
    pub text: String,
}

impl From<&Error> for YamlProblem {
    fn from(error: &Error) -> Self {
        let line = error.location().map(|location| location.line());
        let said = error.without_snippet().to_string();
        Self { line, text: without_asides(said.lines().next().unwrap_or_default()).to_owned() }
    }
}

/// Without the position, which stands beside it, and without advice to who calls the parser.
fn without_asides(text: &str) -> &str {
    let text = match text.rsplit_once(" at line ") {
        Some((start, position))
            if position.bytes().all(|b| b.is_ascii_digit() || b", column".contains(&b)) =>
        {
            start
        }
        _ => text,
    };
    let advice = ["; use from_", ", set DuplicateKeyPolicy"];
    advice.iter().find_map(|it| text.split_once(it)).map_or(text, |(start, _)| start)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn one_position_and_no_internals() {
        // (text, the line, what is said)
        let cases = [
            ("a: 1\n---\na: 2\n", Some(3), "multiple YAML documents detected"),
            ("a: 1\nb: 2\na: 3\n", Some(3), "duplicate mapping key: a"),
            ("a: x\n", Some(1), "invalid u32"),
        ];
        for (text, line, said) in cases {
            let error = serde_saphyr::from_str::<BTreeMap<String, u32>>(text).unwrap_err();
            assert_eq!(YamlProblem::from(&error), YamlProblem { line, text: said.to_owned() }, "{text:?}");
        }
    }
}
