//! From annotations to [`Annotations`], or to everything that is wrong with them.

use std::{ops::RangeInclusive, time::Duration};

use serde_json::Value;

use super::{Annotations, Behavior, Metrics, Source, Steps, Warning};
use crate::{
    config::{
        fields::{self, Fields},
        problem::{Problem, Problems},
        trigger::{self, Combine, Policy, WakeSource, policy},
        yaml::YamlProblem,
    },
    names::MetricName,
    page::{self, usage::Usage},
};

/// Every annotation, without what stands before it.
pub const KEYS: &[&str] = &[
    "auto-provision",
    "min-replicas",
    "max-replicas",
    "metricName",
    "threshold",
    "metrics",
    "combinepolicy",
    "evaluationwindow",
    "scaleupcooldown",
    "scaledowncooldown",
    "scale-up-pods",
    "scale-down-pods",
    "scale-up-tolerance",
    "scale-down-tolerance",
    "polling-interval",
    "cooldown-period",
    "scrape-interval",
    "metric-port",
    "metric-path",
    "scaleup-gate-deadline",
    "scale-to-zero",
    "wake-source",
    "managed-by",
];

/// Kubernetes counts replicas and seconds in signed 32-bit integers.
const INT32_MAX: u32 = i32::MAX.unsigned_abs();
/// What Kubernetes takes as an HPA's `stabilizationWindowSeconds`.
const WINDOW: RangeInclusive<u32> = 0..=3600;
/// What Kubernetes takes as a policy's `periodSeconds`.
const PERIOD: RangeInclusive<u32> = 1..=1800;
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const DEADLINE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);

/// Reads the annotations of `source`: `None` where they don't ask for autoscaling.
///
/// `clamp` forgives, with a warning, numbers that the replaced scaler took and that
/// Kubernetes does not: for an InferenceSet whose ScaledObject that scaler made.
///
/// # Errors
/// With every problem at once.
pub fn parse<'a>(
    source: Source,
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    clamp: bool,
) -> Result<Option<(Annotations, Vec<Warning>)>, Problems> {
    let prefix = source.prefix();
    let ours = annotations.into_iter().filter_map(|(key, text)| Some((key.strip_prefix(prefix)?, text)));
    let mut reader = Reader { fields: Fields::new(prefix, ours), warnings: Vec::new(), prefix, clamp };
    // Exactly these, as ever: other spellings were silently off and must not turn on.
    let on = reader.fields.read("auto-provision", "true or false", |text| match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    });
    if reader.fields.text("auto-provision").is_none() {
        return match reader.fields.slip_for("auto-provision") {
            // Whoever writes so wants autoscaling, and would wait for it in vain.
            Some((slip, text)) if text != "false" => {
                let similar = reader.fields.full("auto-provision");
                Err(Problems(vec![Problem::unknown(reader.fields.full(slip), similar)]))
            }
            _ => Ok(None),
        };
    }
    if on == Some(false) {
        return Ok(None);
    }
    let annotations = reader.annotations();
    reader.fields.note_slips(KEYS, |_| false);
    let warnings = reader.warnings;
    reader.fields.finish(annotations).map(|annotations| Some((annotations, warnings)))
}

struct Reader<'a> {
    fields: Fields<'a>,
    warnings: Vec<Warning>,
    prefix: &'static str,
    clamp: bool,
}

impl Reader<'_> {
    /// Reads every annotation, whatever is wrong with the ones before it.
    fn annotations(&mut self) -> Option<Annotations> {
        let metrics = if self.fields.text("metrics").is_some() { self.policy() } else { self.total() };
        let min_replicas = self.min_replicas();
        let max_replicas = self.fields.integer("max-replicas", 2..=INT32_MAX);
        let behavior = self.behavior();
        let polling_interval = self.fields.integer("polling-interval", 1..=INT32_MAX);
        let cooldown_period = self.fields.integer("cooldown-period", 0..=INT32_MAX);
        let scrape_interval = self.fields.duration("scrape-interval", INTERVAL);
        let metric_port = self.fields.read("metric-port", trigger::A_PORT, trigger::port);
        let metric_path = self.fields.read("metric-path", trigger::A_PATH, trigger::path);
        let in_flight_deadline = self.fields.duration("scaleup-gate-deadline", DEADLINE);
        let scale_to_zero = self.fields.boolean("scale-to-zero").unwrap_or(false);
        let wake_source = self.fields.read("wake-source", WakeSource::ALLOWED, WakeSource::parse);
        Some(Annotations {
            metrics: metrics?,
            min_replicas,
            max_replicas,
            behavior,
            polling_interval: polling_interval.unwrap_or(15),
            cooldown_period,
            scrape_interval,
            metric_port,
            metric_path: metric_path.map(str::to_owned),
            in_flight_deadline,
            scale_to_zero,
            wake_source,
        })
    }

    fn total(&mut self) -> Option<Metrics> {
        self.fields.misplaced("combinepolicy", "it needs the annotation metrics");
        let metric = match self.fields.text("metricName") {
            None => MetricName::parse("vllm:num_requests_waiting").ok(),
            Some(_) => self.fields.parse("metricName", MetricName::parse),
        };
        let key = self.fields.full("metricName");
        if let Some(problem) = metric.as_ref().and_then(|it| policy::misuse(it, Usage::Level, &key)) {
            self.fields.note(problem);
        }
        if self.fields.text("threshold").is_none() {
            // Which family was meant can't be known, so the message names both.
            let allowed = "a number above 0 (or else metrics a list of metrics)";
            self.fields.required("threshold", allowed)?;
        }
        let threshold = self.fields.read("threshold", "a number above 0", |text| {
            fields::number(text).filter(|&threshold| threshold > 0.0)
        })?;
        let metric = metric?;
        if let Some(problem) = policy::percent(&metric, threshold, &self.fields.full("threshold")) {
            self.fields.note(problem);
        }
        self.warnings.extend(page::doubt(&metric, Usage::Level).map(Warning::Doubtful));
        Some(Metrics::Total { metric, threshold })
    }

    fn policy(&mut self) -> Option<Metrics> {
        for ignored in ["metricName", "threshold"] {
            if self.fields.text(ignored).is_some() {
                self.warnings.push(Warning::Shadowed { prefix: self.prefix, ignored });
            }
        }
        let combine = self.fields.word("combinepolicy", policy::COMBINES).unwrap_or(Combine::And);
        let text = self.fields.text("metrics")?;
        let list: Value = match serde_saphyr::from_str(text) {
            Ok(list) => list,
            Err(error) => {
                let YamlProblem { line, text: reason } = YamlProblem::from(&error);
                let place = line.map_or_else(String::new, |line| format!("in its line {line}: "));
                let allowed = format!("a YAML or JSON list of metrics ({place}{reason})");
                self.fields.note(Problem::invalid(self.fields.full("metrics"), text, allowed));
                return None;
            }
        };
        match policy::metrics(&list, &self.fields.full("metrics"), combine) {
            Ok(metrics) => {
                let policy = Policy { combine, metrics };
                self.warnings.extend(policy.doubts().into_iter().map(Warning::Doubtful));
                Some(Metrics::Policy(policy))
            }
            Err(problems) => {
                self.fields.note_all(problems);
                None
            }
        }
    }

    /// Below 1 is 1, as ever; what is no number is a problem.
    fn min_replicas(&mut self) -> u32 {
        let read = |text: &str| {
            let number = text.parse::<i64>().ok()?.max(1);
            u32::try_from(number).ok().filter(|&number| number <= INT32_MAX)
        };
        self.fields.read("min-replicas", "a whole number", read).unwrap_or(1)
    }

    fn behavior(&mut self) -> Behavior {
        let newer = self.fields.text("metrics").is_some();
        let window_up = self.seconds("evaluationwindow", WINDOW);
        let period_up = self.seconds("scaleupcooldown", PERIOD);
        let cooldown_down = self.seconds("scaledowncooldown", PERIOD);
        let pods_up = self.fields.integer("scale-up-pods", 1..=INT32_MAX);
        let pods_down = self.fields.integer("scale-down-pods", 1..=INT32_MAX);
        // A policy says "up" by twice and "down" by half the replicas: a tolerance that
        // covers these would switch it off.
        let tolerance_up = self.tolerance("scale-up-tolerance", 1.0);
        let tolerance_down = self.tolerance("scale-down-tolerance", if newer { 0.5 } else { 1.0 });
        Behavior {
            up: Steps {
                window: window_up.unwrap_or(60),
                tolerance: tolerance_up.unwrap_or(0.1),
                pods: pods_up.unwrap_or(1),
                period: period_up.unwrap_or(300),
            },
            down: Steps {
                window: cooldown_down.unwrap_or(300),
                tolerance: tolerance_down.unwrap_or(if newer { 0.1 } else { 0.5 }),
                pods: pods_down.unwrap_or(1),
                period: cooldown_down.unwrap_or(if newer { 300 } else { 600 }),
            },
        }
    }

    fn tolerance(&mut self, key: &str, below: f64) -> Option<f64> {
        let allowed = format!("a number not below 0 and below {below}");
        self.fields.read(key, &allowed, |text| {
            fields::number(text).filter(|&tolerance| (0.0..below).contains(&tolerance))
        })
    }

    fn seconds(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let text = self.fields.text(key)?;
        let taken_by_the_replaced = text.parse().ok().filter(|&seconds: &u32| seconds <= INT32_MAX);
        match taken_by_the_replaced {
            Some(seconds) if self.clamp && !range.contains(&seconds) => {
                let used = seconds.clamp(*range.start(), *range.end());
                let annotation = self.fields.full(key);
                self.warnings.push(Warning::Clamped { annotation, held: text.to_owned(), used });
                Some(used)
            }
            _ => self.fields.integer(key, range),
        }
    }
}
