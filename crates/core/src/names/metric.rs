//! The name of a metric, which may say which of its series are meant.

use std::{
    borrow::Cow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::labels::{LabelMatchers, MatchError};

/// A metric as a user writes it: the name of a family as the page prints it, for example
/// `vllm:num_requests_waiting`, and, where not all of its series are meant, matchers of labels
/// after it, for example `vllm:num_requests_waiting_by_reason{reason="capacity"}`.
///
/// Two that mean the same series are equal: matchers have no order, and space means nothing.
#[derive(Clone)]
pub struct MetricName {
    /// The whole, written in one way.
    text: Arc<str>,
    /// `None` where every series is meant.
    labels: Option<Arc<LabelMatchers>>,
}

/// Why a text is not a [`MetricName`]. `Display` says what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetricName {
    #[error("{}", MetricName::ALLOWED)]
    Family,
    #[error("a metric name of at most {} bytes", MetricName::MAX_FAMILY)]
    FamilyTooLong,
    #[error("of at most {} bytes, labels included", MetricName::MAX)]
    TooLong,
    #[error("a metric name{0}")]
    Labels(#[from] MatchError),
}

impl MetricName {
    /// What [`Self::parse`] takes, in words, leaving labels out.
    pub const ALLOWED: &str = "a metric name: letters, digits, _ and :, not starting with a digit";
    /// The longest name of a family, in bytes. Longer ones are no metric names on pages either.
    pub const MAX_FAMILY: usize = 256;
    /// The longest text of a metric, labels included, in bytes.
    pub const MAX: usize = 1024;

    /// # Errors
    /// Where `text` is not the name of a family with matchers of labels after it, if any.
    pub fn parse(text: &str) -> Result<Self, InvalidMetricName> {
        let (family, matchers) = match text.find('{') {
            Some(brace) => (text[..brace].trim_end(), Some(&text[brace..])),
            None => (text, None),
        };
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
        if family.is_empty() || !family.bytes().all(legal) || family.as_bytes()[0].is_ascii_digit() {
            return Err(InvalidMetricName::Family);
        }
        if family.len() > Self::MAX_FAMILY {
            return Err(InvalidMetricName::FamilyTooLong);
        }
        if text.len() > Self::MAX {
            return Err(InvalidMetricName::TooLong);
        }
        let labels = matchers.map(LabelMatchers::parse).transpose()?.filter(|labels| !labels.is_empty());
        let text = labels.as_ref().map_or_else(|| family.into(), |labels| format!("{family}{labels}").into());
        Ok(Self { text, labels: labels.map(Arc::new) })
    }

    /// The whole, labels included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of the family, without labels.
    #[must_use]
    pub fn family(&self) -> &str {
        match self.labels {
            None => &self.text,
            Some(_) => self.text.split('{').next().unwrap_or_default(),
        }
    }

    /// Which series of the family are meant; `None` where all are.
    #[must_use]
    pub fn labels(&self) -> Option<&Arc<LabelMatchers>> {
        self.labels.as_ref()
    }

    /// The name under which KEDA is told of this metric. It becomes a part of the HPA's metric
    /// name and of paths of the metrics API, so labels are put in words and told apart by a
    /// number that depends on nothing but [`Self::as_str`]: changing it would reset running HPAs.
    #[must_use]
    pub fn spec_name(&self) -> Cow<'_, str> {
        /// Of the values of labels, in bytes. The number tells the rest apart.
        const READABLE: usize = 40;

        let Some(labels) = &self.labels else { return Cow::Borrowed(&self.text) };
        let mut values = String::new();
        for value in labels.values() {
            values.push('-');
            values.extend(value.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
        }
        values.truncate(READABLE);
        let number = fnv1a(self.text.as_bytes());
        Cow::Owned(format!("{}{values}-{:08x}", self.family(), (number ^ (number >> 32)) & 0xffff_ffff))
    }

    /// Whether `text` is a metric whose [`Self::spec_name`] is `spec_name`.
    #[must_use]
    pub fn is_told_as(text: &str, spec_name: &str) -> bool {
        text == spec_name
            || (text.contains('{')
                && Self::parse(text.trim()).is_ok_and(|metric| metric.spec_name() == spec_name))
    }
}

/// A hash that is the same in every version of the program (Fowler, Noll and Vo's, 1a, 64 bits).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl PartialEq for MetricName {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for MetricName {}

impl Hash for MetricName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Ord for MetricName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for MetricName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MetricName").field(&self.text).finish()
    }
}

impl fmt::Display for MetricName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
