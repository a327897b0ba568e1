//! Which of an endpoint's two pages to fetch: the filtered one, which is a hundredth of the
//! size, or the plain one, which every server has. What an endpoint supports is learnt from
//! its answers and remembered.
//!
//! ```text
//!             all there                      404, redirect or empty, or required ones missing
//!  Untried ───────────────► Filtered            ┌──────────────────────────────────┐
//!     │                        │ more missing    ▼                                  │
//!     └────────────────────────┴───────────► Fallback (the plain page, same tick) ───┘
//!                                               │ no more there than on the filter ──► Filtered, missing remembered
//!                                               │ more there, or the filter is of no use ──► Plain
//!  Plain without an engine (the model loads) ── an engine appears ──► Untried
//! ```

/// One of the two forms of a metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageKind {
    /// `/metrics/?name[]=…`: only the samples that are asked for.
    Filtered,
    /// `/metrics`: everything.
    Plain,
}

impl PageKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Plain => "plain",
        }
    }
}

/// What came of fetching one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server has no such page: status 404, or a redirect to another one.
    NoSuchPage,
    /// Status 200 without a byte.
    Empty,
    /// A page that lacks `missing` of the required families. `engine` says whether it has any
    /// family of a model server.
    Page { missing: usize, engine: bool },
    /// Anything else: a timeout, a broken connection, a 5xx. Says nothing about what the
    /// server supports.
    Failed,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is this scrape's result.
    Keep,
    /// Fetch the plain page, in the same scrape.
    TryPlain,
}

/// One endpoint's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageChoice(State);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Untried,
    /// The filter works. `missing` required families are on no page of this server, so their
    /// absence is no reason to fetch the plain page.
    Filtered { missing: usize },
    /// The filter was tried in this scrape, the plain page is next. `missing` is what the
    /// filtered page lacked; `None` where there was none.
    Fallback { missing: Option<usize> },
    /// The plain page is the better one.
    Plain { engine: bool },
}

impl PageChoice {
    /// The page to fetch first in the next scrape.
    #[must_use]
    pub fn first(self) -> PageKind {
        match self.0 {
            State::Plain { .. } => PageKind::Plain,
            // A scrape that was cut off during its fallback starts over.
            State::Untried | State::Filtered { .. } | State::Fallback { .. } => PageKind::Filtered,
        }
    }

    /// Takes in what came of fetching the page of `kind`.
    pub fn answered(&mut self, kind: PageKind, answer: Answer) -> Verdict {
        match kind {
            PageKind::Filtered => self.filtered(answer),
            PageKind::Plain => {
                self.plain(answer);
                Verdict::Keep
            }
        }
    }

    /// Forgets everything: the endpoint has another phase, or other families are wanted.
    pub fn forget(&mut self) {
        self.0 = State::Untried;
    }

    fn filtered(&mut self, answer: Answer) -> Verdict {
        let known_missing = match self.0 {
            State::Filtered { missing } => missing,
            _ => 0,
        };
        match answer {
            Answer::Failed => Verdict::Keep,
            Answer::Page { missing, .. } if missing <= known_missing => {
                self.0 = State::Filtered { missing };
                Verdict::Keep
            }
            Answer::Page { missing, .. } => {
                self.0 = State::Fallback { missing: Some(missing) };
                Verdict::TryPlain
            }
            Answer::NoSuchPage | Answer::Empty => {
                self.0 = State::Fallback { missing: None };
                Verdict::TryPlain
            }
        }
    }

    fn plain(&mut self, answer: Answer) {
        self.0 = match (self.0, answer) {
            // The filter shows as much as there is to see: it is the cheaper one.
            (State::Fallback { missing: Some(filtered) }, Answer::Page { missing, engine: true })
                if missing >= filtered =>
            {
                State::Filtered { missing }
            }
            // The engine has come up since: what holds for its page is not known yet.
            (State::Plain { engine: false }, Answer::Page { engine: true, .. }) => State::Untried,
            (_, Answer::Page { engine, .. }) | (State::Plain { engine }, Answer::Failed) => {
                State::Plain { engine }
            }
            (_, Answer::Empty) => State::Plain { engine: false },
            (_, Answer::Failed | Answer::NoSuchPage) => State::Untried,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Answer::{Empty, Failed, NoSuchPage, Page},
        PageKind::{Filtered, Plain},
        *,
    };

    const ALL: Answer = Page { missing: 0, engine: true };
    const fn lacks(missing: usize) -> Answer {
        Page { missing, engine: true }
    }
    const LOADING: Answer = Page { missing: 2, engine: false };

    /// A server, as what it answers to the filtered and to the plain page.
    type Server = (Answer, Answer);
    /// What it is about, the servers of a row of scrapes, the pages that each of these fetches.
    type Case<'a> = (&'a str, &'a [Server], &'a [&'a [PageKind]]);

    /// The pages that each of a row of scrapes fetches from servers that follow one another.
    fn fetched(servers: &[Server]) -> Vec<Vec<PageKind>> {
        let mut choice = PageChoice::default();
        servers.iter().map(|server| scrape(&mut choice, *server)).collect()
    }

    fn scrape(choice: &mut PageChoice, (filtered, plain): Server) -> Vec<PageKind> {
        let first = choice.first();
        let answer = if first == Filtered { filtered } else { plain };
        match choice.answered(first, answer) {
            Verdict::Keep => vec![first],
            Verdict::TryPlain => {
                assert_eq!(choice.answered(Plain, plain), Verdict::Keep);
                vec![first, Plain]
            }
        }
    }

    #[test]
    fn each_kind_of_server_is_learnt_and_remembered() {
        let cases: [Case; 12] = [
            ("vLLM", &[(ALL, ALL); 3], &[&[Filtered], &[Filtered], &[Filtered]]),
            ("several API servers", &[(Empty, ALL); 3], &[&[Filtered, Plain], &[Plain], &[Plain]]),
            ("exact path", &[(NoSuchPage, ALL); 3], &[&[Filtered, Plain], &[Plain], &[Plain]]),
            (
                "a metric that no page has: back to the filter",
                &[(lacks(1), lacks(1)); 3],
                &[&[Filtered, Plain], &[Filtered], &[Filtered]],
            ),
            (
                "a metric that only the plain page has, another one that none has",
                &[(lacks(2), lacks(1)); 3],
                &[&[Filtered, Plain], &[Plain], &[Plain]],
            ),
            (
                "the filter cannot be used and a metric is missing",
                &[(Empty, lacks(1)); 3],
                &[&[Filtered, Plain], &[Plain], &[Plain]],
            ),
            (
                "KAITO downloads, then vLLM serves",
                &[(NoSuchPage, LOADING), (NoSuchPage, LOADING), (ALL, ALL), (ALL, ALL)],
                &[&[Filtered, Plain], &[Plain], &[Plain], &[Filtered]],
            ),
            (
                "the container restarts into the download",
                &[(ALL, ALL), (NoSuchPage, LOADING), (ALL, ALL), (ALL, ALL)],
                &[&[Filtered], &[Filtered, Plain], &[Plain], &[Filtered]],
            ),
            (
                "a 5xx is no reason for the plain page",
                &[(Failed, Failed), (Failed, Failed), (ALL, ALL)],
                &[&[Filtered], &[Filtered], &[Filtered]],
            ),
            (
                "a failure does not lose what was learnt",
                &[(Empty, ALL), (Failed, Failed), (Empty, ALL)],
                &[&[Filtered, Plain], &[Plain], &[Plain]],
            ),
            (
                "a missing metric, then one more",
                &[(lacks(1), lacks(1)), (lacks(2), lacks(1)), (lacks(2), lacks(1))],
                &[&[Filtered, Plain], &[Filtered, Plain], &[Plain]],
            ),
            (
                "nothing answers anywhere",
                &[(NoSuchPage, NoSuchPage); 2],
                &[&[Filtered, Plain], &[Filtered, Plain]],
            ),
        ];
        for (name, servers, expected) in cases {
            assert_eq!(fetched(servers), expected, "{name}");
        }
    }

    #[test]
    fn forgetting_tries_the_filter_again() {
        let mut choice = PageChoice::default();
        scrape(&mut choice, (Empty, ALL));
        assert_eq!(choice.first(), Plain);
        choice.forget();
        assert_eq!(scrape(&mut choice, (ALL, ALL)), [Filtered]);
    }

    #[test]
    fn a_scrape_cut_off_during_its_fallback_starts_over() {
        let mut choice = PageChoice::default();
        assert_eq!(choice.answered(Filtered, Empty), Verdict::TryPlain);
        assert_eq!(choice.first(), Filtered);
    }
}
