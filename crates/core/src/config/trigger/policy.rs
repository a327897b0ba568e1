//! The list of metrics of a policy, as the annotation `metrics` and the trigger key `policy`
//! have it.
//!
//! ```text
//! entry = { name:              a metric's name, with labels if need be (required)
//!           type:              gauge | histogram (required)
//!           source:            modelpod (default)
//!           upthreshold:       number (required)
//!           downthreshold:     number, not above upthreshold (required; not read by MAX)
//!           metriccachewindow: duration, default 5m (histogram only)
//!           quantile:          number in (0, 1] (histogram only); the mean without it }
//! ```
//! Keys are taken in any capitals, numbers quoted or not. Nobody else reads these
//! entries, so an unknown key is a problem.

use std::time::Duration;

use serde_json::Value;

use super::{
    Combine, PolicyKind, PolicyMetric,
    parse::{A_QUANTILE, DEFAULT_WINDOW, WINDOW, quantile},
};
use crate::{
    config::{
        fields::{Fields, number},
        go_duration,
        problem::Problem,
    },
    names::MetricName,
    page::{
        Unit, unit,
        usage::{self, Usage},
    },
};

pub const COMBINES: &[(&str, Combine)] = &[("AND", Combine::And), ("OR", Combine::Or), ("MAX", Combine::Max)];

const KEYS: &[&str] =
    &["name", "type", "source", "upthreshold", "downthreshold", "metriccachewindow", "quantile"];

/// The most metrics that one policy may have: each is looked for on every page.
pub const MOST_METRICS: usize = 64;

/// Reads the entries of a policy; `key` is where the list stands, for the messages.
///
/// # Errors
/// With every problem at once.
pub fn metrics(list: &Value, key: &str, combine: Combine) -> Result<Vec<PolicyMetric>, Vec<Problem>> {
    let entries = match list {
        Value::Array(entries) if !entries.is_empty() => entries,
        _ => return Err(vec![Problem::invalid(key, list.to_string(), "a list of at least one metric")]),
    };
    if entries.len() > MOST_METRICS {
        let held = format!("{} metrics", entries.len());
        return Err(vec![Problem::invalid(key, held, format!("a list of at most {MOST_METRICS} metrics"))]);
    }
    let mut problems = Vec::new();
    let mut metrics: Vec<PolicyMetric> = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let place = format!("{key}[{i}]");
        match metric(entry, &place, combine) {
            Ok(metric) if metrics.iter().any(|earlier| is_same(earlier, &metric)) => {
                let reason = format!("an earlier entry names {} too", metric.name);
                problems.push(Problem::misplaced(format!("{place}.name"), reason));
            }
            Ok(metric) => metrics.push(metric),
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() { Ok(metrics) } else { Err(problems) }
}

fn metric(entry: &Value, place: &str, combine: Combine) -> Result<PolicyMetric, Vec<Problem>> {
    let Value::Object(object) = entry else {
        return Err(vec![Problem::invalid(
            place,
            entry.to_string(),
            "a metric with its name and thresholds",
        )]);
    };
    let mut problems = Vec::new();
    let mut texts: Vec<(String, String)> = Vec::new();
    for (key, value) in object {
        let lower = key.to_ascii_lowercase();
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if texts.iter().any(|(earlier, _)| *earlier == lower) {
            problems.push(Problem::misplaced(key, "it stands there twice, in different capitals"));
        }
        texts.push((lower, text));
    }
    let mut fields = Fields::new("", texts.iter().map(|(key, text)| (key.as_str(), text.as_str())));
    let metric = read(&mut fields, combine);
    fields.note_unknown(KEYS);
    fields.note_all(problems);
    let in_place = |problem: Problem| Problem { key: format!("{place}.{}", problem.key), ..problem };
    fields.finish(metric).map_err(|problems| problems.0.into_iter().map(in_place).collect())
}

fn read(fields: &mut Fields<'_>, combine: Combine) -> Option<PolicyMetric> {
    fields.required("name", "the name of a metric, such as vllm:num_requests_waiting");
    let name = fields.parse("name", MetricName::parse);
    fields.word("source", &[("modelpod", ())]);
    let kind = kind(fields);
    if let Some((name, kind)) = name.as_ref().zip(kind)
        && let Some(problem) = misuse(name, kind.usage(), "name")
    {
        fields.note(problem);
    }
    let up = threshold(fields, "upthreshold", name.as_ref());
    let down = threshold(fields, "downthreshold", name.as_ref());
    if combine == Combine::Max {
        // Here the up threshold is the HPA's target, which has to be positive.
        if up.is_some_and(|up| up <= 0.0) {
            let held = fields.text("upthreshold").unwrap_or_default();
            fields.note(Problem::invalid(
                "upthreshold",
                held,
                "a number above 0 where policies combine by MAX",
            ));
        }
    } else {
        fields.required("downthreshold", "the number below which to scale down");
    }
    fields.required("upthreshold", "the number above which to scale up");
    if let (Some(up), Some(down)) = (up, down)
        && down > up
    {
        let held = fields.text("downthreshold").unwrap_or_default();
        fields.note(Problem::invalid(
            "downthreshold",
            held,
            format!("a number not above upthreshold ({up})"),
        ));
    }
    Some(PolicyMetric { name: name?, kind: kind?, up_threshold: up?, down_threshold: down.or(up)? })
}

fn kind(fields: &mut Fields<'_>) -> Option<PolicyKind> {
    fields.required("type", "gauge or histogram");
    let histogram = fields.word("type", &[("gauge", false), ("histogram", true)]);
    let window = fields.duration("metriccachewindow", WINDOW);
    let quantile = fields.read("quantile", A_QUANTILE, quantile);
    if histogram == Some(false) {
        for key in ["metriccachewindow", "quantile"] {
            fields.misplaced(key, "a gauge has none; it needs type histogram");
        }
    }
    if histogram? {
        Some(PolicyKind::Histogram { window: window.unwrap_or(DEFAULT_WINDOW), quantile })
    } else {
        Some(PolicyKind::Gauge)
    }
}

fn threshold(fields: &mut Fields<'_>, key: &str, metric: Option<&MetricName>) -> Option<f64> {
    let threshold = fields.read(key, "a number", number)?;
    if let Some(problem) = metric.and_then(|metric| percent(metric, threshold, key)) {
        fields.note(problem);
    }
    Some(threshold)
}

/// Whether KEDA could not tell two metrics apart.
fn is_same(earlier: &PolicyMetric, metric: &PolicyMetric) -> bool {
    earlier.name == metric.name || earlier.name.spec_name() == metric.name.spec_name()
}

/// A metric whose value, read for `usage`, would be a number that means nothing.
#[must_use]
pub fn misuse(metric: &MetricName, usage: Usage, key: &str) -> Option<Problem> {
    let misuse = usage::check_level(metric, usage).err()?;
    Some(Problem::misplaced(key, misuse.to_string()))
}

/// A threshold that takes a share for a percentage: such a trigger would never fire, in
/// silence.
#[must_use]
pub fn percent(metric: &MetricName, threshold: f64, key: &str) -> Option<Problem> {
    /// Shares whose engine's prefix was forgotten, which would be no better as percentages.
    const WITHOUT_PREFIX: [&str; 3] = ["kv_cache_usage_perc", "gpu_cache_usage_perc", "cpu_cache_usage_perc"];

    let name = metric.family();
    let is_ratio = unit(name) == Some(Unit::Ratio) || WITHOUT_PREFIX.contains(&name);
    (is_ratio && threshold > 1.0).then(|| {
        let allowed = format!("at most 1: {metric} goes from 0 to 1, so that 80% is 0.8");
        Problem::invalid(key, threshold.to_string(), allowed)
    })
}

/// Writes `metrics` as the trigger key `policy` has them; [`metrics`] reads it back.
#[must_use]
pub fn to_json(metrics: &[PolicyMetric]) -> String {
    let entries = metrics.iter().map(|metric| {
        let mut entry = serde_json::json!({
            "name": metric.name.as_str(),
            "type": "gauge",
            "upthreshold": as_written(metric.up_threshold),
            "downthreshold": as_written(metric.down_threshold),
        });
        if let PolicyKind::Histogram { window, quantile } = metric.kind {
            entry["type"] = "histogram".into();
            entry["metriccachewindow"] = duration(window);
            if let Some(quantile) = quantile {
                entry["quantile"] = quantile.into();
            }
        }
        entry
    });
    Value::Array(entries.collect()).to_string()
}

/// Whole numbers without a fraction, as people write them.
fn as_written(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "compared with the original")]
    let whole = number as i64;
    #[expect(clippy::float_cmp, reason = "exactly whole or not")]
    if whole as f64 == number { whole.into() } else { number.into() }
}

/// Whole seconds as the number that the old scaler wrote.
fn duration(window: Duration) -> Value {
    if window.subsec_nanos() == 0 { window.as_secs().into() } else { go_duration::format(window).into() }
}
