//! How much counters grow per second.

use super::{unknown::never_against_the_known, *};
use crate::page::{Wanted, read_page, sample::Series};

const TOKENS: &str = "my_tokens_total";
const WINDOW: Duration = Duration::from_secs(60);

fn rate(extra: &[(&str, &str)]) -> Trigger {
    let rate = [("aggregation", "rate"), ("metricName", TOKENS), ("metricCacheWindow", "60s")];
    trigger(&[&rate, extra].concat())
}

fn series(id: u64, count: f64) -> Series {
    Series { id, count, ..Series::default() }
}

/// A replica that prints these series, at these seconds before now.
fn counting(mut pod: Pod, pages: &[(u64, &[Series])], awake: Option<bool>) -> Pod {
    pod.keep_windows(&[WindowKey { metric: metric(TOKENS), span: WINDOW }]);
    for (before, series) in pages {
        let counter = Cumulative { bounds: vec![], series: series.to_vec() };
        let readings = vec![(metric(TOKENS), Reading::Counter(counter))];
        let demand = PodDemand { waiting: Some(0.0), running: Some(0.0) };
        let sample = PodSample { readings, demand, awake, engine: true, ..PodSample::default() };
        pod.sampled(NOW - Duration::from_secs(*before), PageKind::Filtered, sample);
    }
    pod
}

/// A replica that counts so much in each second, by two engines.
fn generating(index: usize, per_second: f64) -> Pod {
    let counted = |seconds: f64| [series(1, 5_000.0), series(2, 70.0 + per_second * seconds)];
    let pages = [(60, &counted(0.0)[..]), (30, &counted(30.0)), (0, &counted(60.0))];
    counting(pod(index, Is::Unread), &pages, None)
}

fn decided(trigger: &Trigger, replicas: u32, pods: &[Pod]) -> Result<f64, String> {
    let set = set(replicas);
    value(&decide(trigger, &observed(&set, pods)))
}

#[test]
fn a_rate_is_a_total_over_the_replicas_filled_in_like_one() {
    let of = |rates: &[f64], others: &[Is]| -> Vec<Pod> {
        let known = rates.iter().enumerate().map(|(index, rate)| generating(index, *rate));
        let others = others.iter().enumerate().map(|(index, is)| pod(index + 10, *is));
        known.chain(others).collect()
    };
    // (R, rates of those that serve, others, value with target 10)
    let cases: [(u32, &[f64], &[Is], Result<f64, &str>); 7] = [
        (2, &[7.0, 5.0], &[], Ok(12.0)),
        (2, &[0.0, 0.0], &[], Ok(0.0)),
        (4, &[12.0], &[Is::Stale, Is::Stale, Is::Stale], Ok(40.0)),
        (2, &[20.0], &[Is::Loading(60)], Ok(20.0)),
        (2, &[4.0], &[Is::Loading(60)], Ok(14.0)),
        (3, &[4.0], &[], Ok(24.0)),
        (2, &[], &[Is::Stale, Is::Stale], Err("none of 2 replicas could be read")),
    ];
    for (replicas, rates, others, expected) in cases {
        match (decided(&rate(&[]), replicas, &of(rates, others)), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{rates:?} {}", others.len()),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, expected) => panic!("{rates:?}: {got:?}, not {expected:?}"),
        }
    }
    let held = rate(&[("holdWhileInFlight", "true")]);
    assert_eq!(decided(&held, 2, &of(&[70.0], &[Is::Loading(60)])), Ok(20.0));
    let two = set(2);
    let snapshot = decide(&rate(&[]), &observed(&two, &of(&[4.0], &[Is::Loading(60)])));
    assert!(snapshot.why().starts_with("14: 4 over 1 of 2 replicas, 1 on their way, filled in at target"));
}

/// Beside the gauge: the HPA never moves against what the known replicas say.
#[test]
fn the_hpa_never_moves_against_the_known_rates() {
    use Is::{Asleep, Lacking, Loading, Stale, Waiting};
    let make = |index: usize, is: Is| match is {
        Waiting(rate) => generating(index, rate),
        Asleep(rate) => {
            let pages = [(60, &[series(1, 0.0)][..]), (0, &[series(1, rate * 60.0)])];
            counting(pod(index, Is::Unread), &pages, Some(false))
        }
        // It has just started: of so short a time nothing can be said.
        Lacking => {
            counting(pod(index, Is::Unread), &[(1, &[series(1, 0.0)]), (0, &[series(1, 900.0)])], None)
        }
        other => pod(index, other),
    };
    let kinds =
        [Waiting(0.0), Waiting(4.0), Waiting(25.0), Lacking, Stale, Loading(60), Loading(901), Asleep(4.0)];
    never_against_the_known(&rate(&[]), make, &kinds, 4);
}

#[test]
fn what_is_no_counter_or_too_new_has_no_rate_and_says_so() {
    let one = |pages: &[(u64, &[Series])]| vec![counting(pod(0, Is::Unread), pages, None)];
    let starting = "the rate of my_tokens_total is known after 6 s";
    let cases = [
        (one(&[(0, &[series(1, 5.0)])]), Err(starting)),
        (one(&[(5, &[series(1, 5.0)]), (0, &[series(1, 50.0)])]), Err(starting)),
        (one(&[(6, &[series(1, 5.0)]), (0, &[series(1, 50.0)])]), Ok(7.5)),
        // No series yet: nothing has happened, which is known. The first one began at 0.
        (one(&[(10, &[]), (0, &[])]), Ok(0.0)),
        (one(&[(10, &[]), (0, &[series(1, 50.0)])]), Ok(5.0)),
        (vec![pod(0, Is::Waiting(3.0))], Err("no replica has the metric my_tokens_total")),
    ];
    for (pods, expected) in cases {
        match (decided(&rate(&[]), 1, &pods), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, expected) => panic!("{got:?}, not {expected:?}"),
        }
    }
}

/// One engine of a pod starts anew and one label set is gone: neither is work done, nor undone.
#[test]
fn rates_and_means_are_of_each_series() {
    let tokens = |pages: [&[Series]; 3]| {
        let pages = [(60, pages[0]), (30, pages[1]), (0, pages[2])];
        decided(&rate(&[]), 1, &[counting(pod(0, Is::Unread), &pages, None)])
    };
    let busy = |count| [series(1, 600_000.0), series(2, count)];
    assert_eq!(tokens([&busy(100.0), &busy(400.0), &busy(300.0)]), Ok(10.0));
    assert_eq!(tokens([&busy(100.0), &busy(400.0)[1..], &busy(700.0)]), Ok(10.0));
    assert_eq!(tokens([&busy(100.0), &busy(400.0), &busy(700.0)[1..]]), Ok(10.0));

    // The same by pages: two engines of a pod, of which the second is restarted.
    let mean = trigger(&[("aggregation", "windowed-avg"), ("metricName", queue_time().as_str())]);
    let wanted = Wanted::new(mean.wanted_metrics());
    let mut restarted = pod(0, Is::Unread);
    restarted.keep_windows(&[WindowKey { metric: queue_time(), span: Duration::from_secs(300) }]);
    for (before, count, sum) in [(2, 10, 50), (1, 20, 90), (0, 5, 5)] {
        let family = queue_time();
        let page = format!(
            "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n\
             {family}_sum{{engine=\"0\"}} 100000\n{family}_count{{engine=\"0\"}} 1000\n\
             {family}_sum{{engine=\"1\"}} {sum}\n{family}_count{{engine=\"1\"}} {count}\n"
        );
        let read = read_page(page.as_bytes(), &wanted, PageKind::Filtered);
        restarted.sampled(NOW - Duration::from_secs(before), PageKind::Filtered, read.sample);
    }
    assert_eq!(decided(&mean, 1, &[restarted]), Ok(3.0));
}

/// A refusal that is no longer on the page, and its return, are no new demand.
#[test]
fn refusals_that_come_and_go_are_no_demand() {
    let wanted = Wanted::new(trigger(&[]).wanted_metrics());
    let page = |refused: &str| format!("vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n{refused}");
    let family = "vllm:admission_rejections_total";
    let old = format!("{family}{{reason=\"length\"}} 1000\n");
    let new = format!("{family}{{reason=\"queue\"}} 2\n");
    let both = format!("{old}{new}");
    let broken = old.replace("1000", "NaN");
    // (pages, demand)
    let cases: [(&[&str], f64); 5] = [
        (&[&old, ""], 0.0),
        (&[&old, "", &old], 0.0),
        (&[&old, &broken, &old], 0.0),
        (&[&old, &both], 2.0),
        (&["", &new, &new], 2.0),
    ];
    let one = set(1);
    for (pages, demand) in cases {
        let mut refusing = pod(0, Is::Unread);
        for (second, refused) in (0..).zip(pages) {
            let read = read_page(page(refused).as_bytes(), &wanted, PageKind::Filtered);
            refusing.sampled(NOW - Duration::from_secs(5 - second), PageKind::Filtered, read.sample);
        }
        assert_eq!(decide(&trigger(&[]), &observed(&one, &[refusing])).demand.amount, demand, "{pages:?}");
    }
}

#[test]
fn a_list_may_have_counters_beside_gauges() {
    let entries = r#"[{"name":"my_tokens_total","type":"counter","upthreshold":10,"downthreshold":2,
                       "metriccachewindow":60}]"#;
    let combined = |combine| {
        trigger(&[
            ("aggregation", "policy"),
            ("policy", entries),
            ("combinePolicy", combine),
            ("metricName", ""),
            ("threshold", ""),
        ])
    };
    // (rates, AND, MAX)
    for (rates, and, max) in [([20.0, 10.0], 4.0, 30.0), ([5.0, 9.0], 2.0, 14.0), ([1.0, 2.0], 1.0, 3.0)] {
        let pods = [generating(0, rates[0]), generating(1, rates[1])];
        assert_eq!(decided(&combined("AND"), 2, &pods), Ok(and), "{rates:?}");
        assert_eq!(decided(&combined("MAX"), 2, &pods), Ok(max), "{rates:?}");
    }
    let pods = [generating(0, 4.0), pod(1, Is::Stale)];
    assert_eq!(decided(&combined("MAX"), 2, &pods), Ok(14.0), "filled in");
    assert_eq!(decided(&combined("AND"), 2, &pods), Ok(2.0), "hold");
}
