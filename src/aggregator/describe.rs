//! What `/debug/targets` shows: everything that is known of every target, for people.

use std::fmt::Write as _;

use super::{Aggregator, gateway::GatewayState, group::Group};
use crate::targets::{DescribedEndpoint, DescribedTarget, Target};
use scaler_core::{config::trigger::Rule, page::sample, wake::Reading};

impl<S> Aggregator<S> {
    pub(super) fn describe(&self) -> Vec<DescribedTarget> {
        let mut described: Vec<_> = self
            .groups
            .values()
            .flat_map(|group| group.targets().map(|target| self.describe_target(group, target)))
            .collect();
        described.sort_by(|a, b| {
            (&a.namespace, &a.scaled_object, &a.metric).cmp(&(&b.namespace, &b.scaled_object, &b.metric))
        });
        described
    }

    fn describe_target(&self, group: &Group, target: &Target) -> DescribedTarget {
        let snapshot = target.snapshot();
        let mut why = snapshot.why();
        let set = self.fleet.get(&group.key().set);
        let named = target.trigger.wake_source.as_ref();
        let fault = set.and_then(|set| self.gateways.of(set, named)).and_then(GatewayState::fault);
        let reading = set.and_then(|set| Reading::of(set, named));
        if let (Some(fault), Some(reading)) = (fault, reading) {
            why.push_str("; the wake-up source can't be read: ");
            why.push_str(&fault.explain(&reading.source, None));
        }
        let eta = group
            .pods()
            .iter()
            .filter_map(scaler_core::endpoint::pod::Pod::download_remaining)
            .fold(0.0, f64::max);
        if eta > 0.0 {
            let _ = write!(why, "; the model is downloaded in {eta:.0} s");
        }
        DescribedTarget {
            namespace: target.namespace.to_string(),
            scaled_object: target.scaled_object.to_string(),
            inference_set: target.trigger.inference_set.to_string(),
            metric: target.specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(","),
            aggregation: target.trigger.rule.aggregation(),
            value: snapshot.values.first().and_then(|value| value.as_ref().ok()).map(|value| value.number()),
            active: snapshot.activity.is_active(),
            replicas: snapshot.replicas,
            known: snapshot.census.known,
            unknown: snapshot.census.unknown,
            in_flight: snapshot.census.in_flight,
            asleep: snapshot.census.asleep,
            why,
            last_push: target.last_push().and_then(rfc3339),
            endpoints: self.describe_endpoints(group, target),
        }
    }

    fn describe_endpoints(&self, group: &Group, target: &Target) -> Vec<DescribedEndpoint> {
        let (now, staleness) = (self.clock.now(), group.staleness());
        let metric = match &target.trigger.rule {
            Rule::Single { metric, .. } => Some(metric),
            Rule::Policy(policy) => policy.metrics.first().map(|metric| &metric.name),
        };
        let describe = |pod: &scaler_core::endpoint::pod::Pod| {
            let latest = pod.latest();
            let reading = latest.zip(metric).and_then(|((_, sample), metric)| sample.reading(metric));
            DescribedEndpoint {
                pod: pod.endpoint.pod.to_string(),
                uid: pod.endpoint.uid.to_string(),
                address: pod.endpoint.address.map(|address| address.to_string()),
                phase: pod.phase(now, staleness).as_str(),
                value: match reading {
                    Some(sample::Reading::Value(value)) => Some(*value),
                    Some(sample::Reading::Histogram(histogram)) if histogram.count > 0.0 => {
                        Some(histogram.sum / histogram.count)
                    }
                    _ => None,
                },
                age_seconds: latest.map(|(at, _)| now.saturating_since(at).as_secs_f64()),
                page: pod.page().map(scaler_core::endpoint::page_choice::PageKind::as_str),
                last_error: pod.last_error().map(str::to_owned),
            }
        };
        group.pods().iter().map(describe).collect()
    }
}

fn rfc3339(moment: scaler_core::time::Moment) -> Option<String> {
    let since_unix = moment.since_unix().try_into().ok()?;
    Some(jiff::Timestamp::from_duration(since_unix).ok()?.to_string())
}
