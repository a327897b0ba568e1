use std::collections::{BTreeMap, BTreeSet};

use super::*;

const LOADED: &str = include_str!("../../../../../tests/data/loaded.txt");
const IDLE: &str = include_str!("../../../../../tests/data/idle-fresh.txt");

/// One JSON object a line, as the command prints them; then the rejected lines, if any.
fn shown(page: impl AsRef<[u8]>, only: &[&str]) -> String {
    let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
    let scan = scan(page.as_ref(), &only);
    let mut lines: Vec<String> = scan
        .families
        .iter()
        .map(|family| serde_json::to_string(family).expect("it has string keys only"))
        .collect();
    if scan.rejected > 0 {
        lines.push(format!("rejected {}", scan.rejected));
    }
    lines.join("\n")
}

#[test]
fn shows_families_of_a_real_page_in_page_order() {
    let only = [
        "vllm:num_requests_waiting_by_reason",
        "vllm:iteration_tokens_total",
        "python_info",
        "vllm:iteration_tokens_total_created",
        "http_request_size_bytes",
        "vllm:no_such_family",
        "vllm:num_requests",
    ];
    insta::assert_snapshot!(shown(LOADED, &only), @r#"
    {"metric":"python_info","type":"gauge","series":1,"value":1}
    {"metric":"vllm:num_requests_waiting_by_reason","type":"gauge","series":2,"value":11}
    {"metric":"vllm:iteration_tokens_total","type":"histogram","series":1,"count":1211,"sum":6183,"buckets":[["1.0",0],["8.0",1196],["16.0",1196],["32.0",1197],["64.0",1200],["128.0",1209],["256.0",1211],["512.0",1211],["1024.0",1211],["2048.0",1211],["4096.0",1211],["8192.0",1211],["16384.0",1211],["+Inf",1211]]}
    {"metric":"vllm:iteration_tokens_total_created","type":"gauge","series":1,"value":1795554947.9864156}
    {"metric":"http_request_size_bytes","type":"summary","series":1,"count":14,"sum":6384,"quantiles":[]}
    "#);
}

#[test]
fn merges_the_series_of_a_histogram() {
    let page = r#"
# TYPE ttft histogram
ttft_bucket{engine="0",le="0.1"} 1
ttft_bucket{engine="0",le="1.0"} 3
ttft_bucket{engine="0",le="+Inf"} 4
ttft_count{engine="0"} 4
ttft_sum{engine="0"} 2.5
ttft_bucket{engine="1",le="0.1"} 2
ttft_bucket{le="+Inf",engine="1"} 2
ttft_bucket{engine="1",le="0.5"} 2
ttft_count{engine="1"} 2
ttft_sum{engine="1"} 0.125
"#;
    insta::assert_snapshot!(shown(page, &[]), @r#"
    {"metric":"ttft","type":"histogram","series":2,"count":6,"sum":2.625,"buckets":[["0.1",3],["1.0",3],["+Inf",6],["0.5",2]]}
    "#);
}

#[test]
fn a_bound_is_a_number_however_it_is_printed() {
    let page = r#"
# TYPE h histogram
h_bucket{e="0",le="1"} 1
h_bucket{e="0",le="+Inf"} 2
h_bucket{e="1",le="1.0"} 10
h_bucket{e="1",le="Inf"} 20
h_bucket{e="1",le="soon"} 5
# TYPE s summary
s{e="0",quantile="0.5"} 3
s{e="1",quantile="0.50"} 4
"#;
    insta::assert_snapshot!(shown(page, &[]), @r#"
    {"metric":"h","type":"histogram","series":2,"count":22,"sum":0,"buckets":[["1",11],["+Inf",22],["soon",5]]}
    {"metric":"s","type":"summary","series":2,"count":0,"sum":0,"quantiles":[["0.5",4]]}
    "#);
}

#[test]
fn many_bounds_are_told_apart_like_few() {
    let bounds = || (0..400).chain(0..400);
    let page: String = bounds().map(|n| format!("h_bucket{{le=\"{n}\"}} 1\n")).collect();
    let scan = scan(format!("# TYPE h histogram\n{page}").as_bytes(), &[]);
    let Merged::Histogram { buckets, .. } = &scan.families[0].merged else { panic!() };
    let expected: Vec<(String, Number)> = (0..400).map(|n| (n.to_string(), Number(2.0))).collect();
    assert_eq!(buckets, &expected);
}

#[test]
fn a_counter_is_found_by_either_of_its_names() {
    for (typed, sample) in [("x", "x_total"), ("x_total", "x_total"), ("x", "x")] {
        let page = format!("# TYPE {typed} counter\n{sample} 3\n# TYPE y gauge\ny 1\n");
        for asked in ["x", "x_total"] {
            let found = scan(page.as_bytes(), &[asked.to_owned()]);
            assert_eq!(found.families.len(), 1, "{asked} of {page}");
            assert_eq!(found.families[0].merged, Merged::Value { value: Number(3.0) });
        }
        assert_eq!(scan(page.as_bytes(), &["y_total".to_owned()]).families, []);
    }
}

#[test]
fn counts_a_histogram_without_count_by_its_last_bucket() {
    let page = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 5\n";
    insta::assert_snapshot!(shown(page, &[]), @r#"
    {"metric":"h","type":"histogram","series":1,"count":5,"sum":0,"buckets":[["1",1],["+Inf",5]]}
    "#);
}

#[test]
fn sums_values_and_counts_label_sets() {
    let page = r#"
# TYPE running gauge
running{engine="0",model="a,b"} 1.5
running{model="a,b",engine="1"} 2
# TYPE none_yet_total counter
running{engine="2",model="a,b"} -1
untyped{a="x"} 1
untyped{a="y",b="z"} 2
untyped{b="z",a="y"} 2
"#;
    insta::assert_snapshot!(shown(page, &[]), @r#"
    {"metric":"running","type":"gauge","series":3,"value":2.5}
    {"metric":"none_yet_total","type":"counter","series":0,"value":0}
    {"metric":"untyped","type":"untyped","series":2,"value":5}
    "#);
}

#[test]
fn shows_numbers_that_json_lacks_as_strings() {
    let page = "a NaN\nb +Inf\nc -Inf\nd{x=\"1\"} +Inf\nd{x=\"2\"} -Inf\ne 1e300\nf -0.0\ng 9007199254740993\nh 0.1\n";
    insta::assert_snapshot!(shown(page, &[]), @r#"
    {"metric":"a","type":"untyped","series":1,"value":"NaN"}
    {"metric":"b","type":"untyped","series":1,"value":"+Inf"}
    {"metric":"c","type":"untyped","series":1,"value":"-Inf"}
    {"metric":"d","type":"untyped","series":2,"value":"NaN"}
    {"metric":"e","type":"untyped","series":1,"value":1e+300}
    {"metric":"f","type":"untyped","series":1,"value":0}
    {"metric":"g","type":"untyped","series":1,"value":9007199254740992.0}
    {"metric":"h","type":"untyped","series":1,"value":0.1}
    "#);
}

#[test]
fn shows_the_largest_quantile_of_the_series_of_a_summary() {
    let page = r#"
# TYPE s summary
s{quantile="0.5",h="a"} 1
s{quantile="0.9",h="a"} NaN
s_sum{h="a"} 10
s_count{h="a"} 4
s{quantile="0.5",h="b"} 3
s{quantile="0.9",h="b"} 7
s_sum{h="b"} 1
s_count{h="b"} 2
s 1
"#;
    insta::assert_snapshot!(shown(page, &[]), @r#"
    {"metric":"s","type":"summary","series":2,"count":6,"sum":11,"quantiles":[["0.5",3],["0.9",7]]}
    rejected 1
    "#);
}

#[test]
fn finds_the_family_of_each_sample() {
    let page = r#"
# TYPE h histogram
# TYPE h_count gauge
h_count 1
h_sum 2
h_created 3
h_max 4
h 5
h_bucket 6
# TYPE open counter
open_total 7
open_created 8
# TYPE text_total counter
text_total 9
lone_bucket{le="1"} 10
lone_bucket{le="2"} 11
late 12
# TYPE late gauge
# TYPE late counter
# HELP only_help has neither a type nor a sample
{"quoted.name"} 13
# TYPE "typed.name" counter
{"typed.name"} 14
broken
"#;
    insta::assert_snapshot!(shown(page, &[]), @r#"
    {"metric":"h","type":"histogram","series":1,"count":0,"sum":2,"buckets":[]}
    {"metric":"h_count","type":"gauge","series":1,"value":1}
    {"metric":"h_created","type":"untyped","series":1,"value":3}
    {"metric":"h_max","type":"untyped","series":1,"value":4}
    {"metric":"open","type":"counter","series":1,"value":7}
    {"metric":"open_created","type":"untyped","series":1,"value":8}
    {"metric":"text_total","type":"counter","series":1,"value":9}
    {"metric":"lone_bucket","type":"untyped","series":1,"value":21}
    {"metric":"late","type":"gauge","series":1,"value":12}
    {"metric":"quoted.name","type":"untyped","series":1,"value":13}
    {"metric":"typed.name","type":"counter","series":1,"value":14}
    rejected 3
    "#);
}

/// A second reading of the pages, by splitting strings.
#[test]
fn agrees_with_a_plain_reading_of_real_pages() {
    for page in [LOADED, IDLE] {
        let samples: Vec<(&str, BTreeSet<&str>, f64)> = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
                (name, labels.collect(), value.parse().unwrap())
            })
            .collect();
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let expected: Vec<String> = types
            .map(|(name, kind)| {
                let of = |suffix: &str| {
                    let full = format!("{name}{suffix}");
                    samples.iter().filter(move |(name, ..)| *name == full)
                };
                let total = |suffix: &str| of(suffix).fold(0.0, |total, (.., value)| total + value);
                let distinct =
                    |suffix: &str| of(suffix).map(|(_, labels, _)| labels).collect::<BTreeSet<_>>().len();
                match kind {
                    "histogram" => {
                        let mut buckets = BTreeMap::<String, f64>::new();
                        for (_, labels, value) in of("_bucket") {
                            let le = labels.iter().find_map(|label| label.strip_prefix("le=\"")).unwrap();
                            *buckets.entry(le.trim_end_matches('"').to_owned()).or_default() += value;
                        }
                        format!(
                            "{name} {} {} {} {buckets:?}",
                            distinct("_sum"),
                            total("_count"),
                            total("_sum")
                        )
                    }
                    "summary" => format!("{name} {} {} {}", distinct("_sum"), total("_count"), total("_sum")),
                    _ => format!("{name} {} {}", distinct(""), total("")),
                }
            })
            .collect();

        let scan = scan(page.as_bytes(), &[]);
        let found: Vec<String> = scan
            .families
            .iter()
            .map(|family| {
                let FamilySummary { metric, series, .. } = family;
                match &family.merged {
                    Merged::Value { value } => format!("{metric} {series} {}", value.0),
                    Merged::Summary { count, sum, .. } => format!("{metric} {series} {} {}", count.0, sum.0),
                    Merged::Histogram { count, sum, buckets } => {
                        let buckets: BTreeMap<_, _> = buckets.iter().map(|(le, n)| (le, n.0)).collect();
                        format!("{metric} {series} {} {} {buckets:?}", count.0, sum.0)
                    }
                }
            })
            .collect();
        assert_eq!(found, expected);
        assert_eq!(scan.rejected, 0);
    }
}
