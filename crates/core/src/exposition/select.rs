//! The samples of wanted families, and nothing else.

use std::collections::HashSet;

use super::{Kind, Line, Sample, grammar, labels::escape, run::Run, search::Search, walk::split_line};

/// The families that a scrape wants, compiled once for many pages. Share it in an `Arc`.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Every sample name that a wanted family can have, sorted by name.
    names: Vec<WantedName>,
    search: Search,
}

/// What a sample is to the family that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The sample has the family's own name: a gauge, an untyped one, a counter in the text
    /// format, a quantile of a summary.
    Value,
    /// `x_total`
    Total,
    /// `x_bucket`
    Bucket,
    /// `x_sum`
    Sum,
    /// `x_count`
    Count,
}

/// One sample of one wanted family.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'p> {
    /// Index into the families that the [`Selector`] was made from.
    pub family: usize,
    pub part: Part,
    pub sample: Sample<'p>,
    /// The last TYPE line that was passed; empty where none was.
    type_line: &'p [u8],
}

impl<'p> Selected<'p> {
    /// What the TYPE line above says: a name and its kind. It is another family's where this one
    /// has none, or not above its samples.
    #[must_use]
    pub fn declared(&self) -> Option<(&'p str, Kind)> {
        match grammar::comment_line(self.type_line)? {
            Line::Type { name, kind } => Some((name, kind)),
            _ => None,
        }
    }
}

/// How a selection went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelectReport {
    /// Lines that start with a wanted name and then break the grammar. Lines that name no
    /// wanted family are not looked at.
    pub rejected: usize,
}

#[derive(Clone, Debug)]
struct WantedName {
    /// As it is printed, with escapes.
    printed: Box<[u8]>,
    family: usize,
    part: Part,
}

impl Part {
    pub const ALL: [Self; 5] = [Self::Value, Self::Total, Self::Bucket, Self::Sum, Self::Count];

    /// What the sample's name adds to the family's.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Value => "",
            Self::Total => "_total",
            Self::Bucket => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
        }
    }
}

impl Selector {
    /// Compiles a list of families. An empty name selects nothing.
    pub fn new<F: AsRef<str>>(families: impl IntoIterator<Item = F>) -> Self {
        let mut names = Vec::new();
        let mut printed_families = Vec::new();
        let mut searched = HashSet::new();
        for (family, name) in families.into_iter().enumerate() {
            if name.as_ref().is_empty() {
                continue;
            }
            let printed = escape(name.as_ref());
            for part in Part::ALL {
                let printed = format!("{printed}{}", part.suffix()).into_bytes().into();
                names.push(WantedName { printed, family, part });
            }
            // A family may be wanted several times, by different labels.
            if searched.insert(printed.clone()) {
                printed_families.push(printed);
            }
        }
        names.sort_by(|a, b| a.printed.cmp(&b.printed));
        Self { names, search: Search::for_lines_with(&printed_families) }
    }

    /// The wanted families that have a sample called `name`.
    fn claims(&self, name: &[u8]) -> &[WantedName] {
        let first = self.names.partition_point(|wanted| *wanted.printed < *name);
        let found = &self.names[first..];
        let count = found.iter().take_while(|wanted| *wanted.printed == *name).count();
        &found[..count]
    }
}

/// Visits the samples of the wanted families in page order. A sample that two of them claim
/// (`x_sum`, where `x` and `x_sum` are wanted) is visited once for each.
pub fn select<'p>(page: &'p [u8], wanted: &Selector, mut visit: impl FnMut(Selected<'p>)) -> SelectReport {
    let mut report = SelectReport::default();
    let mut rest = page;
    let mut type_line: &[u8] = &[];
    while let Some(found) = wanted.search.next_line(rest) {
        rest = select_run(found, wanted, &mut type_line, &mut visit, &mut report);
    }
    report
}

/// Reads the lines that `page` starts with for as long as they are wanted, and returns the
/// rest.
///
/// A family's samples mostly stand together, after its comments; going on from line to line
/// there costs less than a new search for each.
fn select_run<'p>(
    page: &'p [u8],
    wanted: &Selector,
    type_line: &mut &'p [u8],
    visit: &mut impl FnMut(Selected<'p>),
    report: &mut SelectReport,
) -> &'p [u8] {
    let mut rest = page;
    let mut claimed: Option<(Run<'p>, &[WantedName])> = None;
    loop {
        let (line, after) = split_line(rest);
        rest = after;
        if line.first() == Some(&b'#') {
            if line.starts_with(b"# TYPE ") {
                *type_line = line;
            }
            // Comments before the samples are this family's; those after them the next one's.
            if claimed.is_some() {
                return rest;
            }
            continue;
        }
        let (head, body, claims) = if let Some((run, claims)) = claimed
            && let Some(body) = run.body_of(line)
        {
            (run.head, body, claims)
        } else {
            let Some((run, body)) = Run::open(line) else { return rest };
            let claims = wanted.claims(run.head.name().as_bytes());
            if claims.is_empty() {
                return rest;
            }
            claimed = Some((run, claims));
            (run.head, body, claims)
        };
        let Some(sample) = grammar::body(head, body) else {
            report.rejected += 1;
            continue;
        };
        for claim in claims {
            visit(Selected { family: claim.family, part: claim.part, sample, type_line: *type_line });
        }
    }
}
