use std::fmt::Write as _;

use super::*;

mod properties;

const LOADED: &[u8] = include_bytes!("../../../../tests/data/loaded.txt");

/// A sample on one line: name, labels with their escapes undone, value, timestamp.
fn show(sample: &Sample<'_>) -> String {
    let mut shown = unescape(sample.name).into_owned();
    for Label { name, value } in sample.labels {
        write!(shown, " [{}]=[{}]", name.unescape(), value.unescape()).unwrap();
    }
    write!(shown, " {:?}", sample.value).unwrap();
    if let Some(timestamp) = sample.timestamp_ms {
        write!(shown, " @{timestamp}").unwrap();
    }
    shown
}

/// Every sample of a page, then the number of rejected lines.
fn read(page: impl AsRef<[u8]>) -> (Vec<String>, usize) {
    let mut walk = samples(page.as_ref());
    let shown = walk.by_ref().map(|sample| show(&sample)).collect();
    (shown, walk.rejected())
}

#[test]
fn reads_every_form_of_a_sample() {
    for (line, expected) in [
        ("up 1", "up 1.0"),
        ("a:b_C9 2.5", "a:b_C9 2.5"),
        ("_x{} 1", "_x 1.0"),
        (r#"x{a="b"} 1"#, "x [a]=[b] 1.0"),
        (r#"x{a="b",} 1"#, "x [a]=[b] 1.0"),
        (r#"x{a="b"}1"#, "x [a]=[b] 1.0"),
        (r#"x{a="",b=""} 1"#, "x [a]=[] [b]=[] 1.0"),
        (
            r#"x{a="1",b="2",c="3",d="4",e="5",f="6"} 1"#,
            "x [a]=[1] [b]=[2] [c]=[3] [d]=[4] [e]=[5] [f]=[6] 1.0",
        ),
        ("\t x \t { a = \"b\" ,\tc\t=\"d\"  , } \t 1 \t", "x [a]=[b] [c]=[d] 1.0"),
        (r#"x{a="}{,=# b"} 1"#, "x [a]=[}{,=# b] 1.0"),
        (r#"x{a="\\",b="\"",c="\n",d="\\n"} 1"#, "x [a]=[\\] [b]=[\"] [c]=[\n] [d]=[\\n] 1.0"),
        (r#"x{a="C:\dir"} 1"#, r"x [a]=[C:\dir] 1.0"),
        (r#"x{a="longer than one word \" and on"} 1"#, "x [a]=[longer than one word \" and on] 1.0"),
        ("x{a=\"日本\"} 1", "x [a]=[日本] 1.0"),
        ("x 1 1700000000123", "x 1.0 @1700000000123"),
        ("x 1\t-5", "x 1.0 @-5"),
        ("x 1 1700000000.123", "x 1.0 @1700000000123"),
        (r#"x_bucket{le="1"} 5 # {trace_id="a"} 0.67 1.6e9"#, "x_bucket [le]=[1] 5.0"),
        (r#"x_bucket{le="1"} 5 17 # {} 0.67"#, "x_bucket [le]=[1] 5.0 @17"),
        (r#"{"a.name"} 1"#, "a.name 1.0"),
        (r#"{"a.name",l="v"} 1"#, "a.name [l]=[v] 1.0"),
        (r#"{ "a \"b\" \\ c" , "l.x"="v" , } 1"#, "a \"b\" \\ c [l.x]=[v] 1.0"),
        (r#"x{"l.x"="v"} 1"#, "x [l.x]=[v] 1.0"),
    ] {
        assert_eq!(read(line), (vec![expected.to_owned()], 0), "{line}");
    }
}

#[test]
fn reads_numbers_as_go_does() {
    for (text, expected) in [
        ("0", 0.0),
        ("18.0", 18.0),
        ("999999999999999.0", 999_999_999_999_999.0),
        ("123456789012345678", 123_456_789_012_345_678.0),
        ("35.025899171829224", 35.025_899_171_829_224),
        ("1.7955549479866204e+09", 1.795_554_947_986_620_4e9),
        ("-1", -1.0),
        ("+1.5E-3", 0.0015),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e400", f64::INFINITY),
        ("Inf", f64::INFINITY),
        ("+Inf", f64::INFINITY),
        ("-inf", f64::NEG_INFINITY),
        ("Infinity", f64::INFINITY),
    ] {
        let page = format!("x {text}");
        let values: Vec<_> = samples(page.as_bytes()).map(|sample| sample.value).collect();
        assert_eq!(values, [expected], "{text}");
    }
    for text in ["NaN", "nan"] {
        let page = format!("x {text}");
        assert!(samples(page.as_bytes()).next().unwrap().value.is_nan(), "{text}");
    }
}

#[test]
fn rejects_what_breaks_the_grammar_and_reads_on() {
    for line in [
        "x",
        "x ",
        "x one",
        "x 1 2 3",
        "x 1 soon",
        "x 1#",
        "x 1,5",
        "x 0x10",
        "x 1_000",
        "x 1e",
        "x .",
        "x +",
        "9x 1",
        "x-y 1",
        "x\"y\" 1",
        "{} 1",
        r#"{""} 1"#,
        r#"{a="b"} 1"#,
        r#"{"x" a="b"} 1"#,
        r#"{"x",a="b" 1"#,
        r#"x{a="b" 1"#,
        r#"x{a="b} 1"#,
        r#"x{a="b\"} 1"#,
        r#"x{a="b\"#,
        r#"x{a="b",,} 1"#,
        "x{,} 1",
        r#"x{a="b" c="d"} 1"#,
        "x{a=b} 1",
        r#"x{9="b"} 1"#,
        r#"x{a:b="c"} 1"#,
        r#"x{="b"} 1"#,
        "x{a} 1",
        "x{} {} 1",
        "\u{feff}x 1",
    ] {
        let page = format!("before 1\n{line}\nafter 2\n");
        assert_eq!(read(&page), (["before 1.0", "after 2.0"].map(str::to_owned).to_vec(), 1), "{line}");
    }
}

#[test]
fn ends_lines_as_servers_do() {
    assert_eq!(read(""), (vec![], 0));
    assert_eq!(read("\n\r\n \t\n"), (vec![], 0));
    assert_eq!(
        read("a 1\r\nb{l=\"v\"} 2\r\n\r\nc 3"),
        (["a 1.0", "b [l]=[v] 2.0", "c 3.0"].map(str::to_owned).to_vec(), 0)
    );
}

#[test]
fn tells_comments_apart() {
    let page = "# HELP x What \\n x is\n# HELP y\n#TYPE x counter\n# TYPE\t\"a.b\"  Histogram \n# TYPE z unknown\n\
        # TYPE z teapot\n# TYPE z\n # just so\n# HELPx y\n# EOF\n# EOF not yet\nx y\n";
    let shown: Vec<String> = lines(page.as_bytes())
        .map(|line| match line {
            Line::Sample(sample) => show(&sample),
            Line::Type { name, kind } => format!("type {name} {kind:?}"),
            Line::Help { name, text } => format!("help {name} [{}]", String::from_utf8_lossy(text)),
            Line::Eof => "eof".to_owned(),
            Line::Comment => "comment".to_owned(),
            Line::Rejected(line) => format!("rejected [{}]", String::from_utf8_lossy(line)),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "help x [What \\n x is]",
            "help y []",
            "type x Counter",
            "type a.b Histogram",
            "type z Untyped",
            "comment",
            "comment",
            "comment",
            "comment",
            "eof",
            "comment",
            "rejected [x y]"
        ]
    );
}

#[test]
fn keeps_label_values_that_are_not_utf8() {
    let mut walk = samples(b"x{a=\"\xff!\"} 1\n\xff 1\n");
    let value = walk.next().unwrap().labels.get("a").unwrap();
    assert_eq!(value.as_bytes(), b"\xff!");
    assert_eq!(value.unescape(), "\u{fffd}!");
    assert!(walk.next().is_none());
    assert_eq!(walk.rejected(), 1);
}

#[test]
fn finds_labels_by_whole_name() {
    let page = br#"x{le="a",l="b",e1="1",e2="2",e3="3",e4="+Inf"} 1"#;
    let labels = samples(page).next().unwrap().labels;
    assert_eq!(labels.get("l").unwrap().as_bytes(), b"b");
    assert_eq!(labels.get("e4").and_then(LabelText::to_f64), Some(f64::INFINITY));
    assert_eq!(labels.get("le").and_then(LabelText::to_f64), None);
    assert_eq!(labels.get("e"), None);
}

/// What a selection visits: index of the family, part, sample.
fn chosen(page: impl AsRef<[u8]>, families: &[&str]) -> (Vec<String>, usize) {
    let mut shown = Vec::new();
    let report = select(page.as_ref(), &Selector::new(families), |selected| {
        shown.push(format!("{} {:?} {}", selected.family, selected.part, show(&selected.sample)));
    });
    (shown, report.rejected)
}

#[test]
fn selects_every_part_of_a_family() {
    let page = "x 1\nx_total 2\nx_bucket{le=\"+Inf\"} 3\nx_sum 4\nx_count 5\nx_created 6\nx_max 7\nx{quantile=\"0.5\"} 8";
    let expected = [
        "0 Value x 1.0",
        "0 Total x_total 2.0",
        "0 Bucket x_bucket [le]=[+Inf] 3.0",
        "0 Sum x_sum 4.0",
        "0 Count x_count 5.0",
        "0 Value x [quantile]=[0.5] 8.0",
    ];
    assert_eq!(chosen(page, &["x"]), (expected.map(str::to_owned).to_vec(), 0));
}

#[test]
fn selects_whole_names_only() {
    let page = r#"
# HELP vllm:num_requests_waiting vllm:num_requests_waiting 9
vllm:num_requests_waiting_by_reason{reason="capacity"} 1
not_vllm:num_requests_waiting 2
other{l="vllm:num_requests_waiting 3"} 4
other 5 # vllm:num_requests_waiting 6
 vllm:num_requests_waiting 7
{"vllm:num_requests_waiting",engine="1"} 8
{"vllm:num_requests_waiting.x"} 9
vllm:num_requests_waiting{engine="2"} 10"#;
    let expected = [
        "0 Value vllm:num_requests_waiting 7.0",
        "0 Value vllm:num_requests_waiting [engine]=[1] 8.0",
        "0 Value vllm:num_requests_waiting [engine]=[2] 10.0",
    ];
    assert_eq!(chosen(page, &["vllm:num_requests_waiting"]), (expected.map(str::to_owned).to_vec(), 0));
}

#[test]
fn gives_a_sample_to_every_family_that_claims_it() {
    let expected = ["0 Sum x_sum 1.0", "2 Value x_sum 1.0", "1 Value y 2.0", "3 Value y 2.0"];
    assert_eq!(
        chosen("x_sum 1\ny 2\n", &["x", "y", "x_sum", "y"]),
        (expected.map(str::to_owned).to_vec(), 0)
    );
}

#[test]
fn selects_a_name_that_needs_quotes() {
    let page = "{\"a\\\"\\\\\\n.b\"} 1\n{\"a\\\"\\\\\\n.b_sum\"} 2\n{\"a\\\"\\\\\\n.b_sums\"} 3\n";
    let (shown, rejected) = chosen(page, &["a\"\\\n.b"]);
    assert_eq!((shown.len(), rejected), (2, 0), "{shown:?}");
}

#[test]
fn counts_broken_lines_of_wanted_families() {
    let page = "x one\nx 1\nx{ 2\nx 3\ny broken\nx{a=\"b\" 4";
    assert_eq!(chosen(page, &["x"]), (["0 Value x 1.0", "0 Value x 3.0"].map(str::to_owned).to_vec(), 3));
}

#[test]
fn reads_labels_however_long_and_many_they_are() {
    let long = "v".repeat(70_000);
    for long_at in 0..7 {
        let value = |at| if at == long_at { long.as_str() } else { "v" };
        let labels: Vec<String> = (0..7).map(|at| format!("l{at}=\"{}\"", value(at))).collect();
        let page = format!("x{{{}}} 1", labels.join(","));
        let sample = samples(page.as_bytes()).next().unwrap();
        let read: Vec<String> = sample.labels.iter().map(|l| format!("{:?}={:?}", l.name, l.value)).collect();
        let expected: Vec<String> = (0..7).map(|at| format!("\"l{at}\"={:?}", value(at))).collect();
        assert!(read == expected, "the long value at {long_at}");
        assert_eq!(sample.labels.get("l6").unwrap().as_bytes(), value(6).as_bytes());
    }
}

#[test]
fn selects_nothing_where_nothing_is_wanted() {
    assert_eq!(chosen("x 1\n_total 2\n", &[]), (vec![], 0));
    assert_eq!(chosen("x 1\n_total 2\n", &[""]), (vec![], 0));
}

#[test]
fn selects_more_families_than_the_searcher_takes() {
    let names: Vec<String> = (0..200).map(|n| format!("vllm:family_{n}_seconds")).collect();
    let page = names
        .iter()
        .fold(String::new(), |page, name| page + name + " 1\n" + name + "_sum 2\n" + name + "_x 3\n");
    let mut visited = Vec::new();
    select(page.as_bytes(), &Selector::new(&names), |selected| visited.push(selected.family));
    let expected: Vec<usize> = (0..200).flat_map(|family| [family, family]).collect();
    assert_eq!(visited, expected);
}

#[test]
fn agrees_with_plain_string_search_on_a_real_page() {
    let page = str::from_utf8(LOADED).unwrap();
    let expected: Vec<&str> = page
        .lines()
        .filter(|line| {
            ["vllm:num_requests_running{", "vllm:kv_cache_usage_perc{"]
                .iter()
                .any(|start| line.starts_with(start))
                || ["_bucket{", "_sum{", "_count{"]
                    .iter()
                    .any(|part| line.starts_with(&format!("vllm:time_to_first_token_seconds{part}")))
        })
        .collect();
    assert_eq!(expected.len(), 27);
    let families =
        ["vllm:time_to_first_token_seconds", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"];
    let mut visited = Vec::new();
    let report = select(LOADED, &Selector::new(families), |selected| visited.push(selected.sample));
    assert_eq!(report.rejected, 0);
    assert_eq!(visited.len(), expected.len());
    for (sample, line) in visited.iter().zip(expected) {
        assert!(line.starts_with(sample.name), "{line}");
        assert_eq!(
            sample.value.to_string(),
            line.rsplit(' ').next().unwrap().trim_end_matches(".0"),
            "{line}"
        );
    }
}
