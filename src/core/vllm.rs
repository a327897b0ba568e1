//! Placeholder until the schema lands.
use super::names::MetricName;

/// Whether a gauge's values over replicas add up to something.
#[must_use]
pub fn adds_up(metric: &MetricName) -> bool {
    !metric.as_str().ends_with("_perc")
}
