//! The samples of wanted families, and nothing else.

use super::{Sample, grammar, labels::escape, walk::split_line};

/// The families that a scrape wants, compiled once for many pages. Share it in an `Arc`.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Every sample name that a wanted family can have, sorted by name.
    names: Vec<WantedName>,
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

const SUFFIXES: [(Part, &str); 5] = [
    (Part::Value, ""),
    (Part::Total, "_total"),
    (Part::Bucket, "_bucket"),
    (Part::Sum, "_sum"),
    (Part::Count, "_count"),
];

impl Selector {
    /// Compiles a list of families. An empty name selects nothing.
    pub fn new<F: AsRef<str>>(families: impl IntoIterator<Item = F>) -> Self {
        let mut names = Vec::new();
        for (family, name) in families.into_iter().enumerate() {
            if name.as_ref().is_empty() {
                continue;
            }
            let printed = escape(name.as_ref());
            for (part, suffix) in SUFFIXES {
                names.push(WantedName {
                    printed: format!("{printed}{suffix}").into_bytes().into(),
                    family,
                    part,
                });
            }
        }
        names.sort_by(|a, b| a.printed.cmp(&b.printed));
        Self { names }
    }

    /// The wanted families that have a sample called `name`.
    fn wanted(&self, name: &[u8]) -> &[WantedName] {
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
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        rest = after;
        let Ok((body, head)) = grammar::head(line) else { continue };
        let claims = wanted.wanted(head.name().as_bytes());
        if claims.is_empty() {
            continue;
        }
        match grammar::body(head, body) {
            Some(sample) => {
                for claim in claims {
                    visit(Selected { family: claim.family, part: claim.part, sample });
                }
            }
            None => report.rejected += 1,
        }
    }
    report
}
