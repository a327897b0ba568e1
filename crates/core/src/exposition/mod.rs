//! The Prometheus text exposition format, version 0.0.4, over the bytes of one page.
//!
//! Two entries: [`samples`] walks every sample of a page, [`select`] visits only the samples of
//! wanted families and goes over the rest as fast as the memory allows. Neither allocates, and
//! neither fails: a line that breaks the grammar is skipped and counted. ([`lines`] also tells
//! comments, and [`types`] those of TYPE alone.)
//!
//! # Grammar
//!
//! ```text
//! page       = [ line *( LF line ) ]              ; the last line needs no LF
//! line       = blank [ comment / sample ] [ CR ]
//!
//! sample     = head blank value [ space timestamp ] [ space exemplar ] blank
//! head       = name ( space / blank "{" labels "}" )
//!            / "{" blank quoted blank [ "," labels ] "}"
//! name       = ( ALPHA / "_" / ":" ) *255( ALPHA / DIGIT / "_" / ":" )
//! labels     = [ label *( "," label ) [ "," ] ] blank
//! label      = blank ( labelname / quoted ) blank "=" blank quoted blank
//! labelname  = ( ALPHA / "_" ) *( ALPHA / DIGIT / "_" )
//! quoted     = DQUOTE *( octet but DQUOTE and "\" / "\" octet ) DQUOTE
//! value      = decimal / [ "+" / "-" ] ( "Inf" / "Infinity" / "NaN" )   ; in any case
//! decimal    = [ "+" / "-" ] ( 1*DIGIT [ "." *DIGIT ] / "." 1*DIGIT ) [ exponent ]
//! exponent   = ( "e" / "E" ) [ "+" / "-" ] 1*DIGIT
//! timestamp  = [ "+" / "-" ] 1*DIGIT              ; milliseconds
//!            / decimal with a "."                 ; seconds, as OpenMetrics writes them
//! exemplar   = "#" *octet                         ; not looked into
//!
//! comment    = "#" blank ( type / help / "EOF" blank / *octet )
//! type       = "TYPE" space metric space kind blank
//! help       = "HELP" space metric [ space *octet ]
//! metric     = name / quoted                      ; of at most 256 octets in the quotes
//! kind       = "counter" / "gauge" / "histogram" / "summary" / "untyped" / "unknown"
//!
//! blank      = *( SP / TAB )
//! space      = 1*( SP / TAB )
//! octet      = any byte but LF
//! ```
//!
//! In quoted text `\\`, `\"` and `\n` stand for a backslash, a double quote and a line feed; a
//! backslash before anything else stands for itself. A metric's name is UTF-8; label values that
//! are not stay readable as bytes.
//!
//! Knowingly not accepted: a raw line feed in quoted text; a quoted metric name elsewhere than
//! first in the braces; a metric's name of more than 256 octets; hexadecimal numbers and `_` between digits (Prometheus refuses both as
//! well). A TYPE with a kind that is not listed is a mere comment, so its family is untyped.
//!
//! Knowingly not checked: that a label name occurs once in a label set, that families are
//! contiguous or typed before their samples, and what stands in an exemplar or after `# EOF`.

mod grammar;
mod labels;
mod number;
mod run;
mod search;
mod select;
#[cfg(test)]
mod tests;
mod walk;

pub use self::{
    labels::{Label, LabelIter, LabelText, Labels, unescape},
    select::{Part, SelectReport, Selected, Selector, select},
    walk::{Lines, Samples, lines, samples, types},
};

/// One sample line, borrowed from the page.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'p> {
    /// The sample's name without quotes. A name that only fits in quotes keeps its escapes as
    /// printed ([`unescape`]); a plain name has none.
    pub name: &'p str,
    pub labels: Labels<'p>,
    /// May be NaN or infinite; a number too large for an `f64` is infinite.
    pub value: f64,
    /// Milliseconds since the Unix epoch, where the line has a timestamp.
    pub timestamp_ms: Option<i64>,
}

/// One line of a page; blank lines are none.
#[derive(Clone, Copy, Debug)]
pub enum Line<'p> {
    Sample(Sample<'p>),
    /// `# TYPE name kind`
    Type {
        name: &'p str,
        kind: Kind,
    },
    /// `# HELP name text`, the text with its escapes as printed.
    Help {
        name: &'p str,
        text: &'p [u8],
    },
    /// `# EOF`
    Eof,
    /// Any other comment.
    Comment,
    /// A line that breaks the grammar.
    Rejected(&'p [u8]),
}

/// What a TYPE line says a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
}
