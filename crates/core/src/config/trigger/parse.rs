//! From metadata to a [`Trigger`], or to everything that is wrong with it.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    ActivationRule, Aggregation, Combine, PageSource, Policy, Protocol, Rule, Trigger, WakeSource, policy,
};
use crate::{
    config::{
        fields::{self, Fields},
        problem::{Problem, Problems},
    },
    names::{InferenceSetKey, MetricName},
    provision::CERTIFICATES,
};

/// Every key that means something to us.
pub const KEYS: &[&str] = &[
    "inferenceSetName",
    "inferenceSetNamespace",
    "metricName",
    "aggregation",
    "threshold",
    "metricCacheWindow",
    "quantile",
    "policy",
    "combinePolicy",
    "metricSource",
    "metricProtocol",
    "metricPort",
    "metricPath",
    "scrapeTimeout",
    "scrapeInterval",
    "inFlightDeadline",
    "holdWhileInFlight",
    "activationThreshold",
    "activationHold",
    "wakeSource",
    "wakeReplicas",
];

/// Keys that others read: KEDA, version 0.4 of the scaler that this one replaces, and nobody,
/// for `certificates` is there to be changed (`scaledobject::Reach`).
const OTHERS_KEYS: &[&str] = &[
    "scalerName",
    "scalerAddress",
    "enableTLS",
    "unsafeSsl",
    "caCert",
    "tlsClientCert",
    "tlsClientKey",
    CERTIFICATES,
];

/// The port of the model server's Service. Triggers written for the old scaler name it, since
/// that scraped through the Service; pods are scraped directly, on their own port.
const SERVICE_PORT: u16 = 80;

const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// Waiting for longer than a day is a slip.
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);

pub(super) const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
pub(super) const DEFAULT_WINDOW: Duration = Duration::from_secs(300);

pub(super) const A_QUANTILE: &str = "a number above 0 and at most 1, such as 0.95";

impl Trigger {
    /// Reads a trigger's metadata. `requested_metric` is the metric that a GetMetrics request
    /// names; it wins over the key `metricName`. (A policy names its metrics itself.)
    ///
    /// # Errors
    /// With every problem at once.
    pub fn parse<'a>(
        metadata: impl IntoIterator<Item = (&'a str, &'a str)>,
        requested_metric: Option<&str>,
    ) -> Result<Self, Problems> {
        let mut fields = Fields::new("", metadata);
        let trigger = trigger(&mut fields, requested_metric.filter(|name| !name.is_empty()));
        let known: Vec<&str> = KEYS.iter().chain(OTHERS_KEYS).copied().collect();
        fields.note_slips(&known, |key| key.ends_with("FromEnv"));
        fields.finish(trigger)
    }
}

/// The keys among `keys` that nobody reads, neither we nor KEDA.
#[must_use]
pub fn unknown_keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let is_known = |key: &str| KEYS.contains(&key) || OTHERS_KEYS.contains(&key) || key.ends_with("FromEnv");
    keys.into_iter().filter(|key| !is_known(key)).collect()
}

/// Reads every key, whatever is wrong with the ones before it.
fn trigger(fields: &mut Fields<'_>, requested_metric: Option<&str>) -> Option<Trigger> {
    let namespace =
        object_name(fields, "inferenceSetNamespace", "the namespace of the InferenceSet", is_label);
    let name = object_name(fields, "inferenceSetName", "the name of the InferenceSet", is_subdomain);
    let rule = rule(fields, requested_metric);
    let page = page(fields);
    let scrape_interval = fields.duration("scrapeInterval", INTERVAL);
    let in_flight_deadline = fields.duration("inFlightDeadline", WAIT);
    let hold_while_in_flight = fields.boolean("holdWhileInFlight").unwrap_or(false);
    let activation_threshold = fields.read("activationThreshold", "a number not below 0", |text| {
        fields::number(text).filter(|&threshold| threshold >= 0.0)
    });
    let activation_hold = fields.duration("activationHold", WAIT);
    let wake_source = fields.read("wakeSource", WakeSource::ALLOWED, WakeSource::parse);
    let wake_replicas = fields.integer("wakeReplicas", 1..=i32::MAX.unsigned_abs());
    Some(Trigger {
        inference_set: InferenceSetKey::new(namespace?, name?),
        page,
        rule: rule?,
        scrape_interval: scrape_interval.unwrap_or(Trigger::DEFAULT_SCRAPE_INTERVAL),
        in_flight_deadline: in_flight_deadline.unwrap_or(Trigger::DEFAULT_IN_FLIGHT_DEADLINE),
        hold_while_in_flight,
        activation: ActivationRule {
            threshold: activation_threshold.unwrap_or(0.0),
            hold: activation_hold.unwrap_or(ActivationRule::DEFAULT_HOLD),
        },
        wake_source,
        wake_replicas: wake_replicas.unwrap_or(1),
    })
}

fn object_name<'a>(
    fields: &mut Fields<'a>,
    key: &str,
    allowed: &str,
    legal: fn(&str) -> bool,
) -> Option<&'a str> {
    fields.required(key, allowed)?;
    fields.read(key, &format!("{allowed}: lower-case letters, digits and -"), |text| {
        legal(text).then_some(text)
    })
}

/// Whether `text` is a DNS label, as Kubernetes demands of a namespace and of a Service.
fn is_label(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(legal)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether `text` is a DNS subdomain, as Kubernetes demands of most names.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn page(fields: &mut Fields<'_>) -> PageSource {
    fields.word("metricSource", &[("modelpod", ())]);
    let protocol = fields.word("metricProtocol", &[("http", Protocol::Http), ("https", Protocol::Https)]);
    let port = fields.read("metricPort", A_PORT, port);
    let path = fields.read("metricPath", A_PATH, path);
    PageSource {
        protocol: protocol.unwrap_or(Protocol::Http),
        port: port.filter(|&port| port != SERVICE_PORT),
        path: path.unwrap_or(PageSource::DEFAULT_PATH).to_owned(),
        timeout: fields.duration("scrapeTimeout", TIMEOUT).unwrap_or(PageSource::DEFAULT_TIMEOUT),
    }
}

pub(in crate::config) const A_PORT: &str = "a port from 1 to 65535";
pub(in crate::config) const A_PATH: &str = "a path that starts with one /";

pub(in crate::config) fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port > 0)
}

/// The path of a page on a replica; it leads nowhere else.
pub(in crate::config) fn path(text: &str) -> Option<&str> {
    let legal = text.starts_with('/') && !text.starts_with("//");
    (legal && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')).then_some(text)
}

impl WakeSource {
    pub const ALLOWED: &str = "SERVICE:PORT or https://SERVICE:PORT, a Service in the InferenceSet's \
                               namespace and its metrics port";

    /// Reads `SERVICE:PORT`, which may start with `http://` or `https://`; `None` where `text`
    /// is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (protocol, rest) = match text.split_once("://") {
            None => (Protocol::Http, text),
            Some(("http", rest)) => (Protocol::Http, rest),
            Some(("https", rest)) => (Protocol::Https, rest),
            Some(_) => return None,
        };
        let (service, port_text) = rest.split_once(':')?;
        let port = port(port_text)?;
        is_label(service).then(|| Self { protocol, service: service.to_owned(), port })
    }
}

/// The values that the key `aggregation` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Sum,
    ServiceAvg,
    Max,
    WindowedAvg,
    Quantile,
    Gate,
    Policy,
}

const AGGREGATIONS: &[(&str, Word)] = &[
    ("sum", Word::Sum),
    ("service-avg", Word::ServiceAvg),
    ("max", Word::Max),
    ("windowed-avg", Word::WindowedAvg),
    ("quantile", Word::Quantile),
    ("gate", Word::Gate),
    ("policy", Word::Policy),
];

fn rule(fields: &mut Fields<'_>, requested_metric: Option<&str>) -> Option<Rule> {
    let word = match fields.text("aggregation") {
        None => Some(Word::Sum),
        Some(_) => fields.word("aggregation", AGGREGATIONS),
    };
    if word == Some(Word::Policy) {
        return policy(fields).map(Rule::Policy);
    }
    // What belongs to a known aggregation can be checked only where it is known.
    if let Some(word) = word {
        note_misplaced(fields, word);
    }
    let metric = metric_name(fields, requested_metric);
    let threshold = threshold(fields, word, metric.as_ref());
    let window = fields.duration("metricCacheWindow", WINDOW).unwrap_or(DEFAULT_WINDOW);
    let quantile = fields.read("quantile", A_QUANTILE, quantile).unwrap_or(0.95);
    let aggregation = match word? {
        Word::Sum => Aggregation::Sum,
        Word::ServiceAvg => Aggregation::ServiceAvg,
        Word::Max => Aggregation::Max,
        Word::WindowedAvg => Aggregation::WindowedAvg { window },
        Word::Quantile => Aggregation::Quantile { quantile, window },
        Word::Gate => Aggregation::Gate,
        Word::Policy => return None,
    };
    if let Some((metric, usage)) = metric.as_ref().zip(aggregation.usage())
        && let Some(problem) = policy::misuse(metric, usage, "metricName")
    {
        fields.note(problem);
    }
    Some(Rule::Single { metric: metric?, threshold: threshold?, aggregation })
}

/// Notes the keys that another aggregation would read. `metricCacheWindow` passes: the old
/// scaler took it with every aggregation, and triggers that carry it are in use.
fn note_misplaced(fields: &mut Fields<'_>, word: Word) {
    for key in ["policy", "combinePolicy"] {
        fields.misplaced(key, "it needs aggregation policy");
    }
    if word != Word::Quantile {
        fields.misplaced("quantile", "it needs aggregation quantile");
    }
    let holds = fields.text("holdWhileInFlight").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if holds && word != Word::Sum {
        fields.misplaced("holdWhileInFlight", "it needs aggregation sum or policy");
    }
}

fn metric_name(fields: &mut Fields<'_>, requested: Option<&str>) -> Option<MetricName> {
    let Some(requested) = requested else {
        fields.required("metricName", "the name of a metric, such as vllm:num_requests_waiting")?;
        return fields.parse("metricName", MetricName::parse);
    };
    match MetricName::parse(requested) {
        Ok(name) => Some(name),
        Err(allowed) => {
            fields.note(Problem::invalid("the requested metricName", requested, allowed.to_string()));
            None
        }
    }
}

/// The old scaler's generated triggers carry a threshold for `sum` alone: the others fed a
/// formula that held the thresholds itself.
fn threshold(fields: &mut Fields<'_>, word: Option<Word>, metric: Option<&MetricName>) -> Option<f64> {
    if fields.text("threshold").is_none() {
        if word == Some(Word::Sum) {
            fields.required("threshold", "the total per replica to aim at, a number above 0")?;
        }
        return Some(1.0);
    }
    let threshold = fields.read("threshold", "a number above 0", |text| {
        fields::number(text).filter(|&threshold| threshold > 0.0)
    })?;
    // A gate has a metric's name, but reads no metric.
    let metric = metric.filter(|_| word != Some(Word::Gate));
    if let Some(problem) = metric.and_then(|metric| policy::percent(metric, threshold, "threshold")) {
        fields.note(problem);
    }
    Some(threshold)
}

pub(super) fn quantile(text: &str) -> Option<f64> {
    fields::number(text).filter(|&quantile| quantile > 0.0 && quantile <= 1.0)
}

fn policy(fields: &mut Fields<'_>) -> Option<Policy> {
    for key in ["metricName", "threshold", "quantile", "metricCacheWindow"] {
        fields.misplaced(key, "with aggregation policy, each entry of policy has its own");
    }
    let combine = fields.word("combinePolicy", policy::COMBINES).unwrap_or(Combine::And);
    let text = fields.required("policy", "a JSON list of metrics")?;
    let entries = fields.read("policy", "a JSON list of metrics", |_| serde_json::from_str(text).ok())?;
    match policy::metrics(&entries, "policy", combine) {
        Ok(metrics) => Some(Policy { combine, metrics }),
        Err(problems) => {
            fields.note_all(problems);
            None
        }
    }
}
