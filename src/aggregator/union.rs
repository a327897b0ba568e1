//! What the triggers of a group want together, kept up as they come and go: each costs what it wants
//! itself, however many others there are.

use std::{collections::BTreeMap, time::Duration};

use scaler_core::{
    config::trigger::{Aggregation, PolicyKind, Rule, Trigger, WantedMetric},
    endpoint::pod::WindowKey,
};

/// Things by how often they are there.
#[derive(Debug)]
pub(super) struct Counted<T>(BTreeMap<T, usize>);

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord> Counted<T> {
    /// Adds one. True where there was none.
    pub(super) fn add(&mut self, thing: T) -> bool {
        let count = self.0.entry(thing).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// Takes one away. True where it was the last.
    pub(super) fn remove(&mut self, thing: &T) -> bool {
        let Some(count) = self.0.get_mut(thing) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.0.remove(thing);
        }
        is_last
    }

    /// The least first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.keys()
    }
}

/// The union of what triggers want of each page of a group.
#[derive(Debug, Default)]
pub(super) struct Union {
    metrics: Counted<WantedMetric>,
    intervals: Counted<Duration>,
    windows: Counted<WindowKey>,
    changed: bool,
}

impl Union {
    pub(super) fn add(&mut self, trigger: &Trigger) {
        for metric in trigger.wanted_metrics() {
            self.changed |= self.metrics.add(metric);
        }
        for window in windows(trigger) {
            self.changed |= self.windows.add(window);
        }
        self.changed |= self.intervals.add(trigger.scrape_interval);
    }

    pub(super) fn remove(&mut self, trigger: &Trigger) {
        for metric in trigger.wanted_metrics() {
            self.changed |= self.metrics.remove(&metric);
        }
        for window in windows(trigger) {
            self.changed |= self.windows.remove(&window);
        }
        self.changed |= self.intervals.remove(&trigger.scrape_interval);
    }

    /// Whether it is another union than when this was called last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn metrics(&self) -> impl Iterator<Item = &WantedMetric> {
        self.metrics.iter()
    }

    pub(super) fn windows(&self) -> Vec<WindowKey> {
        self.windows.iter().cloned().collect()
    }

    /// The shortest time from one scrape to the next that a trigger asks for.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.intervals.iter().next().copied()
    }
}

/// The windows that a trigger reads.
fn windows(trigger: &Trigger) -> Vec<WindowKey> {
    match &trigger.rule {
        Rule::Single { metric, aggregation, .. } => match aggregation {
            Aggregation::WindowedAvg { window } | Aggregation::Quantile { window, .. } => {
                vec![WindowKey { metric: metric.clone(), span: *window }]
            }
            Aggregation::Sum | Aggregation::ServiceAvg | Aggregation::Max | Aggregation::Gate => vec![],
        },
        Rule::Policy(policy) => policy
            .metrics
            .iter()
            .filter_map(|metric| match metric.kind {
                PolicyKind::Histogram { window, .. } => {
                    Some(WindowKey { metric: metric.name.clone(), span: window })
                }
                PolicyKind::Gauge => None,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(pairs: &[(&str, &str)]) -> Trigger {
        let common = [("inferenceSetName", "demo"), ("inferenceSetNamespace", "team-a"), ("threshold", "10")];
        Trigger::parse(common.iter().chain(pairs).copied(), None).unwrap()
    }

    #[test]
    fn it_changes_with_the_first_and_with_the_last_that_wants_a_thing() {
        let waiting = trigger(&[("metricName", "vllm:num_requests_waiting")]);
        let often = trigger(&[("metricName", "vllm:num_requests_waiting"), ("scrapeInterval", "500ms")]);
        let windowed = trigger(&[
            ("metricName", "vllm:time_to_first_token_seconds"),
            ("aggregation", "windowed-avg"),
            ("metricCacheWindow", "60s"),
        ]);
        let mut union = Union::default();
        let mut seen = Vec::new();
        for (adds, trigger) in [
            (true, &waiting),
            (true, &waiting),
            (true, &often),
            (true, &windowed),
            (false, &waiting),
            (false, &often),
            (false, &waiting),
            (false, &windowed),
        ] {
            if adds {
                union.add(trigger);
            } else {
                union.remove(trigger);
            }
            let interval = union.interval().map(|interval| interval.as_millis());
            seen.push((union.take_changed(), union.metrics().count(), union.windows().len(), interval));
        }
        let expected = [
            (true, 1, 0, Some(1_000)),
            (false, 1, 0, Some(1_000)),
            (true, 1, 0, Some(500)),
            (true, 2, 1, Some(500)),
            (false, 2, 1, Some(500)),
            (true, 2, 1, Some(1_000)),
            (true, 1, 1, Some(1_000)),
            (true, 0, 0, None),
        ];
        assert_eq!(seen, expected);
    }
}
