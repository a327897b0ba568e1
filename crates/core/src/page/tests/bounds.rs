//! What any page may cost: a tenant writes it, and everybody waits while it is read.

use std::fmt::Write as _;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{page::sample::Lack, steps};

/// Steps for each byte of a page at most, for each of the targets below.
const PER_BYTE: usize = 20;
/// And for any page, however short.
const AT_ALL: usize = 1_500_000;

/// What hostile pages are read for: with metrics that they have and lack, in every shape.
fn targets() -> Vec<Wanted> {
    let labelled = r#"h{reason=~"a.*|b",engine!="1",other=""}"#;
    vec![
        Wanted::new([value("vllm:num_requests_waiting")]),
        Wanted::new([value("vllm:num_request_waiting"), histogram("h", true)]),
        Wanted::new([value("sglang:num_queue_reqs"), value("h"), histogram(labelled, true)]),
        Wanted::new([value(labelled), value("vllm:num_requests_waiting{engine='1'}")]),
        Wanted::new((0..64).map(|n| value(&format!("vllm:missing_metric_{n}")))),
    ]
}

/// Reads `page` in every way and holds the steps against its size.
fn assert_bounded(page: &[u8], what: &str) {
    for (index, wanted) in targets().iter().enumerate() {
        // A filtered page is read in the same way, and not looked around on.
        let (steps, _) = steps::of(|| read_page(page, wanted, Plain));
        let most = PER_BYTE * page.len() + AT_ALL;
        assert!(steps <= most, "{what}, target {index}: {steps} steps for {} bytes", page.len());
    }
}

/// `line` with a number in place of each `N`, up to `bytes`.
fn repeated(line: &str, bytes: usize) -> String {
    let mut page = String::with_capacity(bytes + 2 * line.len());
    for n in 0.. {
        if page.len() >= bytes {
            break;
        }
        page.push_str(&line.replace('N', &n.to_string()));
        page.push('\n');
    }
    page
}

#[test]
fn hostile_pages_cost_no_more_than_their_bytes() {
    const SIZE: usize = 200_000;
    let long = "x".repeat(SIZE);
    let spaces = " ".repeat(SIZE);
    let labels = "a=\"b\",".repeat(SIZE / 6);
    let quotes = "\\\"".repeat(SIZE / 2);
    let engine = "vllm:num_requests_running 1\n";
    for (what, page) in [
        ("one long name", format!("{long} 1\n")),
        ("one long name of a TYPE", format!("# TYPE {long} gauge\n")),
        ("a long name that starts like a wanted one", format!("vllm:num_requests_waiting{long} 1\n")),
        ("one long quoted name", format!("{{\"{long}\"}} 1\n")),
        ("many names", repeated("family_N{a=\"b\"} 1", SIZE)),
        ("many similar names", repeated("vllm:missing_metric_N_of_many 1", SIZE)),
        ("many names of 250 bytes", repeated(&format!("vllm:N{} 1", "m".repeat(240)), SIZE)),
        ("many TYPE lines", repeated("# TYPE family_N counter", SIZE)),
        ("many bounds", repeated("h_bucket{le=\"N\"} 1", SIZE)),
        ("bounds that fall", repeated("h_bucket{le=\"-N\"} 1", SIZE)),
        ("bounds in turn", repeated("h_bucket{le=\"1\"} 1\nh_bucket{le=\"N.5\"} 1", SIZE)),
        ("many series", repeated("sglang:num_queue_reqs{dp_rank=\"N\",priority=\"N\"} 1", SIZE)),
        ("many series of a labelled metric", repeated("h{reason=\"aN\",engine=\"N\"} 1", SIZE)),
        ("many reasons", repeated("vllm:num_requests_waiting_by_reason{reason=\"N\"} 1", SIZE)),
        ("many labels", format!("h{{{labels}}} 1\n")),
        ("a long value of a label", format!("h{{reason=\"a{long}\"}} 1\n")),
        ("escapes", format!("h{{reason=\"{quotes}\"}} 1\n")),
        ("an endless label set", format!("h{{{labels}")),
        ("space", format!("{spaces}h 1\n{spaces}h 2\n")),
        ("lines of space", repeated("   \t", SIZE)),
        ("comments", repeated("# vllm:num_requests_waiting N", SIZE)),
        ("a wanted name on each broken line", repeated("vllm:num_requests_waiting{N", SIZE)),
        (
            "the wanted name in a value",
            format!("y{{a=\"{}\"}} 1\n", "num_requests_waiting ".repeat(SIZE / 21)),
        ),
        ("no lines", "\n".repeat(SIZE)),
        ("junk", "\u{1}".repeat(SIZE)),
    ] {
        assert_bounded(page.as_bytes(), what);
        assert_bounded(format!("{engine}{page}").as_bytes(), what);
    }
}

/// Lines of every kind that the reading of a page has a loop for.
fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => proptest::sample::select(vec![
            "h", "h_bucket", "h_sum", "h_count", "vllm:num_requests_waiting", "vllm:num_requests_running",
            "sglang:num_queue_reqs", "vllm:num_requests_waiting_by_reason", "vllm:engine_sleep_state",
        ]).prop_map(str::to_owned),
        3 => (0..100_000_u32).prop_map(|n| format!("vllm:missing_metric_{n}")),
        1 => (1..2_000_usize).prop_map(|n| "x".repeat(n)),
    ];
    let label = ("reason|engine|le|priority|tp_rank|dp_rank|other", "[a0-9.]{0,4}|[a\\\\\"n]{0,9}");
    let labels = vec(label, 0..6).prop_map(|labels| {
        labels.iter().fold(String::new(), |mut text, (name, value)| {
            write!(text, "{name}=\"{}\",", value.replace('\\', "\\\\").replace('"', "\\\"")).unwrap();
            text
        })
    });
    let shape = prop_oneof![
        6 => Just("N{L} 1"),
        1 => Just("# TYPE N gauge"),
        1 => Just("# TYPE N counter"),
        1 => Just("# HELP N N"),
        1 => Just("{\"N\",L} NaN"),
        1 => Just("N{L"),
        1 => Just(" \tN 1 2 3"),
    ];
    (name, labels, shape).prop_map(|(name, labels, shape)| shape.replace('N', &name).replace('L', &labels))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_steps_of_reading_a_page_are_in_proportion_to_its_bytes(
        lines in vec(line(), 1..60),
        times in 1..60_usize,
    ) {
        let page = (lines.join("\n") + "\n").repeat(times);
        for (index, wanted) in targets().iter().enumerate() {
            let (steps, _) = steps::of(|| read_page(page.as_bytes(), wanted, Plain));
            let most = PER_BYTE * page.len() + AT_ALL;
            prop_assert!(steps <= most, "target {}: {} steps for {} bytes", index, steps, page.len());
        }
    }
}

#[test]
fn a_histogram_of_too_many_bounds_is_unknown_and_says_so() {
    let page = |bounds: usize| {
        let mut page = "vllm:num_requests_running 1\n".to_owned();
        for n in (0..bounds).rev() {
            writeln!(page, "h_bucket{{le=\"{n}.0\"}} {}", n + 1).unwrap();
        }
        page + "h_sum 5\nh_count 3\n"
    };
    let read_with = |bounds, buckets| read(page(bounds), &[histogram("h", buckets)], Plain);
    let most = read_with(Lack::MOST_BOUNDS, true);
    let Some(Reading::Histogram(h)) = most.sample.reading(&name("h")) else { panic!("{most:?}") };
    assert_eq!((h.buckets.len(), h.buckets[1]), (Lack::MOST_BOUNDS + 1, (1.0, 2.0)));
    let more = read_with(Lack::MOST_BOUNDS + 1, true);
    assert_eq!(more.sample.reading(&name("h")), None);
    assert_eq!(more.sample.lack(&name("h")), Some(Lack::TooManyBounds));
    assert_eq!(more.missing, 0, "the plain page would say the same");
    // Its mean does not need them.
    assert!(read_with(Lack::MOST_BOUNDS + 1, false).sample.reading(&name("h")).is_some());
}

#[test]
fn bounds_are_the_same_however_they_are_printed() {
    let page = "vllm:num_requests_running 1\nh_bucket{e=\"0\",le=\"1\"} 2\nh_bucket{e=\"0\",le=\"+Inf\"} 3\n\
        h_bucket{e=\"1\",le=\"1.0\"} 20\nh_bucket{e=\"1\",le=\"1e0\"} 0\nh_bucket{e=\"1\",le=\"Inf\"} 30\n\
        h_bucket{le=\"0\"} 1\nh_bucket{le=\"-0\"} 1\nh_bucket{le=\"NaN\"} 9\nh_bucket 9\nh_sum 5\nh_count 33\n";
    let read = read(page, &[histogram("h", true)], Plain);
    let Some(Reading::Histogram(h)) = read.sample.reading(&name("h")) else { panic!("{read:?}") };
    assert_eq!(h.buckets, [(0.0, 2.0), (1.0, 22.0), (f64::INFINITY, 33.0)]);
}

#[test]
fn series_that_are_too_many_to_tell_apart_are_unknown() {
    let page = repeated("sglang:num_queue_reqs{dp_rank=\"N\"} 1", 45 * (Lack::MOST_SERIES + 1));
    let queue = "sglang:num_queue_reqs";
    let some = read(&page[..40_000], &[value(queue)], Plain);
    assert!(some.sample.reading(&name(queue)).is_some());
    let many = read(&page, &[value(queue)], Plain);
    assert_eq!(many.sample.lack(&name(queue)), Some(Lack::TooManySeries));
    assert_eq!(many.sample.demand.waiting, None);
    // Those that add up whatever their labels are as many as they like.
    let many = page.replace("sglang:num_queue_reqs", "vllm:num_requests_waiting");
    assert!(read(many, &[value(WAITING)], Plain).sample.reading(&name(WAITING)).is_some());
}

#[test]
fn what_has_a_long_name_is_no_metric_and_nobody_meant_it() {
    let long = format!("vllm:num_requests_waiting{}", "_".repeat(MetricName::MAX_FAMILY));
    let page = format!("vllm:num_requests_running 1\n# TYPE {long} gauge\n{long} 3\n{{\"{long}\"}} 3\n");
    let read = read(page, &[value("vllm:num_request_waiting")], Plain);
    assert_eq!(read.sample.similar, ["vllm:num_requests_running"]);
    assert_eq!(read.missing, 1);
}

#[test]
fn the_same_question_is_answered_once_and_another_one_anew() {
    let wanted = Wanted::new([value("vllm:num_request_waiting")]);
    let page = |name: &str| format!("vllm:num_requests_running 1\n{name} 2\n");
    let read = |name: &str| {
        let (steps, read) = steps::of(|| read_page(page(name).as_bytes(), &wanted, Plain));
        (steps, read.sample.similar)
    };
    let (first, similar) = read("vllm:num_requests_waiting");
    assert_eq!(similar, ["vllm:num_requests_waiting", "vllm:num_requests_running"]);
    let (again, same) = read("vllm:num_requests_waiting");
    assert_eq!(same, similar);
    assert!(again < first, "{again} steps, {first} the first time");
    assert_eq!(read("vllm:num_request_waitin").1[0], "vllm:num_request_waitin");
    assert_eq!(read("vllm:num_requests_waiting").1, similar);
}
