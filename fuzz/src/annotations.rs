//! The annotations of an InferenceSet, and what they come to: nothing that is written there
//! panics, gets into a ScaledObject unchecked, or into a message unescaped.

use scaler_core::config::annotations::{Decision, Facts, Metrics, Role, Source, decide, parse};

use crate::text::{assert_presentable, pairs};

const SOURCES: [Source; 3] = [Source::InferenceSet, Source::Role(Role::Prefill), Source::Role(Role::Decode)];

pub fn check(input: &[u8]) {
    let pairs = pairs(input);
    for source in SOURCES {
        // Mostly without what stands before each, so that a slip in that is not all there is.
        let prefixed: Vec<_> =
            pairs.iter().map(|(key, value)| (format!("{}{key}", source.prefix()), value.as_str())).collect();
        let annotations = || prefixed.iter().map(|(key, value)| (key.as_str(), *value));
        for clamp in [false, true] {
            match parse(source, annotations(), clamp) {
                Ok(None) => {}
                Ok(Some((annotations, warnings))) => {
                    assert!(annotations.min_replicas >= 1);
                    assert!(annotations.max_replicas.is_none_or(|max| max > 1));
                    assert!(annotations.polling_interval >= 1);
                    for steps in [annotations.behavior.up, annotations.behavior.down] {
                        assert!(steps.window <= 3600 && (1..=1800).contains(&steps.period), "{steps:?}");
                        assert!(steps.pods >= 1 && (0.0..1.0).contains(&steps.tolerance), "{steps:?}");
                    }
                    if let Metrics::Total { threshold, .. } = annotations.metrics {
                        assert!(threshold.is_finite() && threshold > 0.0);
                    }
                    for warning in warnings {
                        assert_presentable(&warning.to_string(), 1);
                    }
                }
                Err(problems) => {
                    assert!(!problems.0.is_empty());
                    assert_presentable(&problems.to_string(), problems.0.len());
                }
            }
        }
        let facts = Facts { node_count_limit: 7, nodes_per_replica: Some(2), ..Facts::default() };
        match decide(source, annotations(), &facts) {
            Decision::Provision { spec, .. } => assert!(spec.replicas.min <= spec.replicas.max),
            Decision::Refused(refusals) => {
                for refusal in refusals {
                    assert_presentable(&refusal.to_string(), pairs.len() + 1);
                }
            }
            Decision::Off | Decision::Waiting => {}
        }
    }
}
