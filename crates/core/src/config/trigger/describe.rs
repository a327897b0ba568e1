//! A trigger in words, for `check-trigger`.

use std::{fmt::Write as _, time::Duration};

use super::{Aggregation, Combine, PolicyKind, PolicyMetric, Protocol, Rule, Shape, Trigger, WantedMetric};
use crate::config::go_duration;

impl Trigger {
    /// What the trigger means, in lines of plain text: what is scraped, how the value comes
    /// about, what it is compared with, and when the target is active.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, words: &str| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{label:<14}{words}");
        };
        line("InferenceSet", &self.inference_set.to_string());
        line("Scraped", &self.scraped());
        match &self.rule {
            Rule::Single { metric, threshold, aggregation } => {
                line("Value", &value(metric.as_str(), *aggregation));
                line("Target", &target(*threshold, *aggregation));
            }
            Rule::Policy(policy) => {
                for metric in &policy.metrics {
                    line("Metric", &policy_metric(metric, policy.combine));
                }
                for (label, words) in combined(policy.combine) {
                    line(label, words);
                }
            }
        }
        line("In flight", &self.in_flight());
        line("Active", &self.active());
        if let Some(wake) = &self.wake_source {
            let namespace = &self.inference_set.namespace;
            let over = if wake.protocol == Protocol::Https { ", over https" } else { "" };
            line("Woken by", &format!("Service {} in {namespace}, port {}{over}", wake.service, wake.port));
        }
        if self.wake_replicas > 1 {
            line("", &format!("pushed until {} replicas are wanted", self.wake_replicas));
        }
        text
    }

    fn scraped(&self) -> String {
        let scheme = match self.page.protocol {
            Protocol::Http => "http",
            Protocol::Https => "https",
        };
        let port = self.page.port.map_or_else(|| "PORT".to_owned(), |port| port.to_string());
        let what: Vec<String> = self.wanted_metrics().iter().map(wanted).collect();
        let what = if what.is_empty() { "nothing but demand".to_owned() } else { what.join(", ") };
        format!(
            "{what}, from {scheme}://POD:{port}{} every {}, each within {}",
            self.page.path,
            go_duration::format(self.scrape_interval),
            go_duration::format(self.page.timeout),
        )
    }

    fn in_flight(&self) -> String {
        let deadline = go_duration::format(self.in_flight_deadline);
        let hold = if self.hold_while_in_flight { "; no scale-up meanwhile" } else { "" };
        format!("a replica that does not serve yet counts as on its way for {deadline}{hold}")
    }

    fn active(&self) -> String {
        format!(
            "while requests (waiting, running, queued at the gateway, rejected in the last 30s) are more \
             than {}; inactive after {} without",
            self.activation.threshold,
            go_duration::format(self.activation.hold),
        )
    }
}

fn wanted(metric: &WantedMetric) -> String {
    match metric.shape {
        Shape::Value => metric.name.to_string(),
        Shape::Histogram { buckets: false } => format!("{} (histogram)", metric.name),
        Shape::Histogram { buckets: true } => format!("{} (histogram with buckets)", metric.name),
    }
}

fn value(metric: &str, aggregation: Aggregation) -> String {
    match aggregation {
        Aggregation::Sum => {
            format!("the total of {metric} over all replicas, those that can't be read filled in")
        }
        Aggregation::ServiceAvg => format!("the mean of {metric} over the replicas that serve"),
        Aggregation::Max => format!("the largest {metric} of the replicas that serve"),
        Aggregation::WindowedAvg { window } => {
            format!("the mean of what {metric} observed in the last {}", go_duration::format(window))
        }
        Aggregation::Quantile { quantile, window } => {
            let window = go_duration::format(window);
            format!("the {quantile} quantile of what {metric} observed in the last {window}")
        }
        Aggregation::Gate => "1 where every replica is ready, else 0".to_owned(),
    }
}

fn target(threshold: f64, aggregation: Aggregation) -> String {
    match aggregation {
        Aggregation::Sum => format!("{threshold} per replica (metricType AverageValue)"),
        _ => format!("{threshold}"),
    }
}

fn policy_metric(metric: &PolicyMetric, combine: Combine) -> String {
    let PolicyMetric { name, kind, up_threshold, down_threshold } = metric;
    let reading = match kind {
        PolicyKind::Gauge => format!("mean of {name}"),
        PolicyKind::Histogram { window, quantile } => {
            let what = quantile.map_or_else(|| "mean".to_owned(), |quantile| format!("{quantile} quantile"));
            format!("{what} of {name} over {}", within(*window))
        }
    };
    match combine {
        Combine::And | Combine::Or => {
            format!("{reading}: up above {up_threshold}, down below {down_threshold}")
        }
        Combine::Max => format!("{reading}: target {up_threshold} per replica"),
    }
}

fn within(window: Duration) -> String {
    format!("the last {}", go_duration::format(window))
}

/// How the metrics make the value, in lines with their labels.
fn combined(combine: Combine) -> &'static [(&'static str, &'static str)] {
    match combine {
        Combine::And => &[
            (
                "Value",
                "2 x replicas while every metric is above its up threshold and no replica is in flight,",
            ),
            ("", "0.5 x replicas while every metric is below its down threshold, else 1 x replicas"),
            ("Target", "1 per replica (metricType AverageValue)"),
        ],
        Combine::Or => &[
            ("Value", "2 x replicas while any metric is above its up threshold,"),
            ("", "0.5 x replicas while every metric is below its down threshold, else 1 x replicas"),
            ("Target", "1 per replica (metricType AverageValue)"),
        ],
        Combine::Max => &[("Value", "one for each metric; KEDA follows the one that asks for most replicas")],
    }
}
