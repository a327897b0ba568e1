//! What is counted. Each case prepares its input and gives back the work, which is done twice:
//! once to warm up and once to be counted. Work asserts what came out, so that nothing can be
//! left out of it.

use std::{collections::HashMap, hash::RandomState, hint::black_box, sync::Arc, time::Duration};

use clock::Clock;
use futures::FutureExt;
use keda_kaito_scaler::{metrics::Metrics, serve::scaler::Scaler, targets::Targets};
use keda_proto::{GetMetricsRequest, ScaledObjectRef, external_scaler_server::ExternalScaler};
use scaler_core::{
    config::trigger::{Aggregation, Rule, Trigger},
    decision::{
        activation::Activation,
        evaluate::{Observed, evaluate, next_change},
        push::PushState,
        snapshot::Snapshot,
    },
    endpoint::{
        page_choice::PageKind,
        pod::{Pod, WindowKey},
        staleness::staleness_limit,
    },
    exposition::{Selector, samples, select},
    fleet::{
        model::{Endpoint, InferenceSet, Readiness},
        tenancy::Tenancy,
    },
    names::{InferenceSetKey, PodUid},
    page::{Wanted, read_page, sample::PodSample, scan::scan},
    time::Moment,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::pages::{RECORDED, WANTED, megabyte};

type Work = Box<dyn FnMut()>;

pub(crate) struct Case {
    pub name: &'static str,
    pub prepare: fn() -> Work,
}

const fn case(name: &'static str, prepare: fn() -> Work) -> Case {
    Case { name, prepare }
}

pub(crate) const CASES: &[Case] = &[
    case("select, 50 kB page", || select_from(RECORDED.to_owned())),
    case("select, 1 MB page", || select_from(megabyte())),
    case("walk with labels, 50 kB page", || walk(RECORDED.to_owned())),
    case("walk with labels, 1 MB page", || walk(megabyte())),
    case("scan, 50 kB page", || scan_of(RECORDED.to_owned())),
    case("scan, 1 MB page", || scan_of(megabyte())),
    case("read a filtered page", || read(&filtered(), PageKind::Filtered)),
    case("read a plain page", || read(RECORDED, PageKind::Plain)),
    case("hostile: one long name, 256 kB", || hostile(&format!("{} 1\n", "x".repeat(HOSTILE)))),
    case("hostile: many bounds, 256 kB", || hostile(&numbered("my_latency_bucket{le=\"N.5\"} 1\n"))),
    case("hostile: many names, 256 kB", || hostile(&numbered("vllm:num_request_waitinN{a=\"b\"} 1\n"))),
    case("hostile: many types, 256 kB", || hostile(&numbered("# TYPE family_N counter\n"))),
    case("hostile: many series, 256 kB", || {
        hostile(&numbered("sglang:num_queue_reqs{dp_rank=\"N\",priority=\"N\"} 1\n"))
    }),
    case("hostile: labels to match, 256 kB", || hostile(&numbered("my_queue{tenant=\"team-N\"} 1\n"))),
    case("fold 100 samples of gauges", || fold(SUM)),
    case("fold 100 samples with a histogram", || fold(QUANTILE)),
    case("evaluate 1 endpoint, sum", || evaluate_group(SUM, 1)),
    case("evaluate 1,000 endpoints, sum", || evaluate_group(SUM, 1_000)),
    case("evaluate 1,000 endpoints, quantile", || evaluate_group(QUANTILE, 1_000)),
    case("answer GetMetrics and IsActive", answer),
];

fn select_from(page: String) -> Work {
    let selector = Selector::new(WANTED);
    let expected = page.lines().filter(|line| WANTED.iter().any(|name| is_sample_of(line, name))).count();
    Box::new(move || {
        let mut count = 0;
        let report = select(black_box(page.as_bytes()), &selector, |selected| {
            black_box(selected);
            count += 1;
        });
        assert_eq!((count, report.rejected), (expected, 0));
    })
}

fn walk(page: String) -> Work {
    let expected = page.lines().filter(|line| !line.starts_with('#')).count();
    Box::new(move || {
        let mut walk = samples(black_box(page.as_bytes()));
        let mut count = 0;
        for sample in walk.by_ref() {
            count += 1;
            for label in sample.labels {
                black_box(label);
            }
            black_box(sample.value);
        }
        assert_eq!((count, walk.rejected()), (expected, 0));
    })
}

fn scan_of(page: String) -> Work {
    let typed = page.lines().filter(|line| line.starts_with("# TYPE ")).count();
    Box::new(move || {
        let scan = scan(black_box(page.as_bytes()), &[]);
        assert_eq!((scan.families.len(), scan.rejected), (typed, 0));
        black_box(scan);
    })
}

/// A trigger on the sum of a gauge.
const SUM: &[(&str, &str)] = &[
    ("inferenceSetNamespace", "team-a"),
    ("inferenceSetName", "demo"),
    ("metricName", "vllm:num_requests_waiting"),
    ("threshold", "10"),
];

/// A trigger on a quantile over a window: the dearest there is.
const QUANTILE: &[(&str, &str)] = &[
    ("inferenceSetNamespace", "team-a"),
    ("inferenceSetName", "demo"),
    ("metricName", "vllm:time_to_first_token_seconds"),
    ("threshold", "2"),
    ("aggregation", "quantile"),
    ("quantile", "0.95"),
];

fn trigger(metadata: &[(&str, &str)]) -> Trigger {
    Trigger::parse(metadata.iter().copied(), None).expect("a valid trigger")
}

fn read(page: &str, kind: PageKind) -> Work {
    let wanted = Wanted::new(trigger(SUM).wanted_metrics());
    let page = page.to_owned();
    Box::new(move || {
        let read = read_page(black_box(page.as_bytes()), &wanted, kind);
        assert_eq!((read.missing, read.rejected), (0, 0));
        black_box(read);
    })
}

/// A size of pages at which a quadratic loop takes a hundred times as long as a linear one.
const HOSTILE: usize = 256 * 1024;

/// `line` with a number in place of each `N`, again and again.
fn numbered(line: &str) -> String {
    let mut page = String::with_capacity(HOSTILE + 256);
    let mut number = 0_u32;
    while page.len() < HOSTILE {
        page.push_str(&line.replace('N', &number.to_string()));
        number += 1;
    }
    page
}

/// A page that is made to cost much, read for what it has, for what it lacks and for what has to
/// be told apart.
fn hostile(page: &str) -> Work {
    let wants = [
        &[("metricName", "vllm:num_request_waiting")][..],
        &[("metricName", "my_latency"), ("aggregation", "quantile")],
        &[("metricName", "my_queue{tenant=~\"team-[0-9]+\"}")],
        &[("metricName", "sglang:num_queue_reqs")],
    ];
    let triggers = wants.map(|changes| {
        let metadata = SUM.iter().copied().filter(|(key, _)| *key != "metricName");
        trigger(&metadata.chain(changes.iter().copied()).collect::<Vec<_>>())
    });
    let wanted = Wanted::new(triggers.iter().flat_map(Trigger::wanted_metrics));
    let page = format!("vllm:num_requests_running 1\n{page}");
    Box::new(move || {
        let read = read_page(black_box(page.as_bytes()), &wanted, PageKind::Plain);
        assert!(read.sample.engine);
        black_box(read);
    })
}

/// What vLLM answers where only these samples are asked for.
fn filtered() -> String {
    let asked = [
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:num_requests_waiting_by_reason",
        "vllm:engine_sleep_state",
    ];
    let of_asked = |line: &&str| {
        let comment = ["# HELP ", "# TYPE "].iter().find_map(|start| line.strip_prefix(start));
        asked.iter().any(|name| match comment {
            Some(comment) => comment.split(' ').next() == Some(name),
            None => line.split('{').next() == Some(name),
        })
    };
    RECORDED.lines().filter(of_asked).flat_map(|line| [line, "\n"]).collect()
}

/// Whether `line` is a sample of the family `name`, by plain string search.
fn is_sample_of(line: &str, name: &str) -> bool {
    ["", "_total", "_bucket", "_sum", "_count"]
        .iter()
        .any(|part| line.split('{').next().is_some_and(|own| own == format!("{name}{part}")))
}

const START: Moment = Moment::from_unix(Duration::from_secs(1_800_000_000));
const INTERVAL: Duration = Duration::from_secs(1);

fn sample(trigger: &Trigger) -> PodSample {
    let read = read_page(RECORDED.as_bytes(), &Wanted::new(trigger.wanted_metrics()), PageKind::Plain);
    assert_eq!(read.missing, 0);
    read.sample
}

fn windows(trigger: &Trigger) -> Vec<WindowKey> {
    match &trigger.rule {
        Rule::Single { metric, aggregation: Aggregation::Quantile { window, .. }, .. } => {
            vec![WindowKey { metric: metric.clone(), span: *window }]
        }
        _ => vec![],
    }
}

/// An endpoint that has answered `answers` times, once each interval from [`START`] on.
fn pod(trigger: &Trigger, answers: u32) -> Pod {
    let mut pod = Pod::new(Endpoint {
        uid: PodUid("pod".into()),
        pod: "demo".into(),
        address: Some(([127, 0, 0, 1], 5000).into()),
        readiness: Readiness::Ready,
        since: START,
    });
    pod.keep_windows(&windows(trigger));
    let mut sample = sample(trigger);
    for answer in 0..answers {
        grow(&mut sample);
        pod.speak_for(Duration::from_secs(5));
        pod.sampled(START + INTERVAL * answer, PageKind::Plain, sample.clone());
    }
    pod
}

/// What the next scrape reads: another observation in every bucket.
fn grow(sample: &mut PodSample) {
    use scaler_core::page::sample::Reading;

    for (_, reading) in &mut sample.readings {
        if let Reading::Histogram(histogram) = reading {
            histogram.count += 1.0;
            histogram.sum += 0.5;
            histogram.buckets.iter_mut().for_each(|(_, count)| *count += 1.0);
        }
    }
}

fn fold(metadata: &'static [(&str, &str)]) -> Work {
    const SAMPLES: u32 = 100;
    let trigger = trigger(metadata);
    // Its windows are full before the first round.
    let mut pod = pod(&trigger, 200);
    let mut next = sample(&trigger);
    let mut now = START + INTERVAL * 200;
    let mut round = || -> Vec<PodSample> {
        let grown = (0..SAMPLES).map(|_| {
            grow(&mut next);
            next.clone()
        });
        grown.collect()
    };
    let mut rounds = vec![round(), round()];
    Box::new(move || {
        for sample in rounds.pop().expect("work is done twice") {
            now = now + INTERVAL;
            pod.speak_for(Duration::from_secs(5));
            pod.sampled(now, PageKind::Filtered, black_box(sample));
        }
        assert_eq!(pod.latest().map(|(at, _)| at), Some(now));
    })
}

/// One decision, and when it would change by itself, over `endpoints` that all serve.
fn evaluate_group(metadata: &'static [(&str, &str)], endpoints: usize) -> Work {
    const ANSWERS: u32 = 40;
    let trigger = trigger(metadata);
    let one = pod(&trigger, ANSWERS);
    let numbered = |index: usize| {
        let mut pod = one.clone();
        pod.endpoint.uid = PodUid(format!("pod-{index}").into());
        pod
    };
    let pods: Vec<Pod> = (0..endpoints).map(numbered).collect();
    let now = START + INTERVAL * ANSWERS;
    let mut activation = Activation::new(trigger.activation, now);
    let set = InferenceSet {
        key: InferenceSetKey::new("team-a", "demo"),
        replicas: u32::try_from(endpoints).expect("few endpoints"),
        ready_replicas: u32::try_from(endpoints).expect("few endpoints"),
        endpoints: vec![],
        gateway: None,
    };
    Box::new(move || {
        let snapshot = decide(&trigger, &set, black_box(&pods), &mut activation, now);
        assert!(snapshot.values[0].is_ok());
        black_box(snapshot);
    })
}

fn decide(
    trigger: &Trigger,
    set: &InferenceSet,
    pods: &[Pod],
    activation: &mut Activation,
    now: Moment,
) -> Snapshot {
    let observed = Observed {
        set,
        pods,
        missing: &[],
        staleness: staleness_limit(INTERVAL, Duration::from_secs(3)),
        gateway: None,
        heard: now,
    };
    let snapshot = evaluate(trigger, &observed, activation, now);
    black_box(next_change(trigger, &observed, activation, now));
    snapshot
}

/// KEDA's poll: GetMetrics and then IsActive, from memory.
fn answer() -> Work {
    // A clock that stands still, for what sums of times cost depends on their nanoseconds.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let entered = Box::leak(Box::new(runtime.expect("a runtime"))).enter();
    let clock = Clock::start();
    // Nobody aggregates: the one decision is published here.
    let (commands, inbox) = mpsc::unbounded_channel();
    let targets = Targets::new(commands, clock, Tenancy::OwnNamespace);
    let metrics = Metrics::default();
    let first_round = Duration::from_millis(900);
    let scaler = Scaler::new(targets.clone(), clock, metrics, first_round, CancellationToken::new());

    let object =
        ScaledObjectRef { name: "demo".into(), namespace: "team-a".into(), scaler_metadata: in_order(SUM) };
    let target = targets
        .find_or_register(&object.namespace, &object.name, &object.scaler_metadata, None)
        .expect("a valid trigger");
    let set = InferenceSet {
        key: InferenceSetKey::new("team-a", "demo"),
        replicas: 1,
        ready_replicas: 1,
        endpoints: vec![],
        gateway: None,
    };
    let now = START + INTERVAL;
    let mut activation = Activation::new(target.trigger.activation, now);
    let decision = decide(&target.trigger, &set, &[pod(&target.trigger, 1)], &mut activation, now);
    target.publish(Arc::new(decision), PushState::default());
    target.complete_first_round();

    let mut requests: Vec<_> = (0..2)
        .map(|_| {
            let polled = ScaledObjectRef { scaler_metadata: in_order(SUM), ..object.clone() };
            let asked = ScaledObjectRef { scaler_metadata: in_order(SUM), ..object.clone() };
            let metrics = GetMetricsRequest {
                scaled_object_ref: Some(polled),
                metric_name: "vllm:num_requests_waiting".into(),
            };
            (Request::new(metrics), Request::new(asked))
        })
        .collect();
    Box::new(move || {
        let (metrics, active) = requests.pop().expect("work is done twice");
        let metrics = ExternalScaler::get_metrics(&scaler, metrics).now_or_never();
        let active = ExternalScaler::is_active(&scaler, active).now_or_never();
        let metrics = metrics.expect("nothing to wait for").expect("a value").into_inner();
        assert!(metrics.metric_values[0].metric_value_float > 0.0);
        assert!(active.expect("nothing to wait for").expect("an answer").into_inner().result);
        black_box((metrics, &inbox, &entered));
    })
}

/// Metadata as a map whose random order happens to be the sorted one: the scaler sorts it, and
/// what that costs depends on the order, which differs from run to run.
fn in_order(metadata: &[(&str, &str)]) -> HashMap<String, String> {
    loop {
        let order = RandomState::new();
        // Tried on a map without text, so that the heap looks the same after any number of tries.
        let mut tried = HashMap::with_capacity_and_hasher(metadata.len(), order.clone());
        tried.extend(metadata.iter().copied());
        if tried.keys().is_sorted() {
            let mut map = HashMap::with_capacity_and_hasher(metadata.len(), order);
            map.extend(metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            return map;
        }
    }
}
