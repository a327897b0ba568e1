//! A regular expression whose cost is known before it is used.
//!
//! It is compiled to the table of a deterministic automaton once, when a trigger is read, within
//! fixed limits. Matching then takes one step for each byte of the value, whatever the pattern:
//! both the pattern and the page are a tenant's.

use std::sync::Arc;

use regex_automata::{
    Anchored, Input,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson,
    util::syntax,
};

/// The largest automaton, before and after determinization, and what making it may take, in
/// bytes. A list of a hundred names takes a tenth of it.
const NFA_LIMIT: usize = 32 * 1024;
const DFA_LIMIT: usize = 256 * 1024;
/// How deep groups may be nested.
const NESTING: u32 = 32;

/// A regular expression that has to match a whole text.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Arc<dense::DFA<Vec<u32>>>);

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("{0}")]
    Syntax(String),
    #[error("it must be simpler: without word boundaries, and with fewer or smaller repetitions")]
    TooComplex,
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Result<Self, PatternError> {
        let syntax = syntax::Config::new().nest_limit(NESTING).dot_matches_new_line(true);
        // Alone first: `a)|(b` would otherwise close the group that is put around it.
        if let Err(error) = syntax::parse_with(pattern, &syntax) {
            let said = error.to_string();
            let reason = said.lines().last().unwrap_or_default().trim();
            return Err(PatternError::Syntax(reason.trim_start_matches("error: ").to_owned()));
        }
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .dfa_size_limit(Some(DFA_LIMIT))
            .determinize_size_limit(Some(DFA_LIMIT));
        let automaton = dense::Builder::new()
            .syntax(syntax)
            .thompson(thompson::Config::new().nfa_size_limit(Some(NFA_LIMIT)))
            .configure(config)
            .build(&format!("^(?:{pattern})$"))
            .map_err(|_| PatternError::TooComplex)?;
        Ok(Self(Arc::new(automaton)))
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let input = Input::new(text).anchored(Anchored::Yes);
        // There are no bytes at which this automaton gives up.
        self.0.try_search_fwd(&input).is_ok_and(|found| found.is_some())
    }
}
