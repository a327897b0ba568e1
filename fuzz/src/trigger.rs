//! A trigger's metadata: nothing that is written there panics, becomes a trigger out of its
//! bounds, or gets into a message unescaped.

use std::time::Duration;

use scaler_core::config::{
    go_duration,
    trigger::{Rule, Trigger, WakeSource, parse_arguments},
};

use crate::text::{assert_presentable, pairs};

pub fn check(input: &[u8]) {
    let pairs = pairs(input);
    let metadata = || pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for requested in [None, Some("vllm:num_requests_waiting"), Some("no name")] {
        match Trigger::parse(metadata(), requested) {
            Ok(trigger) => holds(&trigger),
            Err(problems) => {
                assert!(!problems.0.is_empty());
                assert_presentable(&problems.to_string(), problems.0.len());
            }
        }
    }
    let text = String::from_utf8_lossy(input);
    if let Err(problems) = parse_arguments(text.split('\n')) {
        assert_presentable(&problems.to_string(), problems.0.len());
    }
    if let Ok(duration) = go_duration::parse(&text) {
        assert_eq!(go_duration::parse(&go_duration::format(duration)), Ok(duration), "{text:?}");
    }
    if let Some(source) = WakeSource::parse(&text) {
        assert!(source.port > 0, "{source:?}");
    }
}

/// What the rest of the program takes for granted.
fn holds(trigger: &Trigger) {
    let seconds = |low, high| Duration::from_millis(low)..=Duration::from_secs(high);
    assert!(seconds(100, 60).contains(&trigger.scrape_interval), "{trigger:?}");
    assert!(seconds(1, 60).contains(&trigger.page.timeout), "{trigger:?}");
    assert!(trigger.page.path.starts_with('/'), "{trigger:?}");
    assert!(trigger.wake_replicas >= 1 && trigger.activation.threshold >= 0.0, "{trigger:?}");
    let specs = trigger.metric_specs();
    assert!(!specs.is_empty(), "{trigger:?}");
    for spec in specs {
        assert!(spec.target.is_finite() && spec.target > 0.0, "{spec:?}");
    }
    if let Rule::Policy(policy) = &trigger.rule {
        assert!(!policy.metrics.is_empty(), "{trigger:?}");
    }
    assert!(trigger.wanted_metrics().len() <= 1024, "{trigger:?}");
    for line in trigger.describe().lines() {
        let control = line.chars().find(|character| character.is_control());
        assert_eq!(control, None, "a control character in {line:?}");
    }
}
