use std::{borrow::Cow, collections::BTreeSet};

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> MetricName {
    MetricName::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_metric_is_a_family_and_matchers_of_labels() {
    for (text, family, written) in [
        ("vllm:num_requests_waiting", "vllm:num_requests_waiting", "vllm:num_requests_waiting"),
        ("_x9", "_x9", "_x9"),
        ("x{}", "x", "x"),
        ("x { }", "x", "x"),
        (r#"x{reason="capacity"}"#, "x", r#"x{reason="capacity"}"#),
        (r#"x { reason = "capacity" , } "#, "x", r#"x{reason="capacity"}"#),
        (r#"x{b="2",a!='1',a=~`.*`,a!~"z"}"#, "x", r#"x{a!="1",a=~".*",a!~"z",b="2"}"#),
        (r#"x{a="1",a="1"}"#, "x", r#"x{a="1"}"#),
        (r#"x{a="\\ \" \' \n \t"}"#, "x", "x{a=\"\\\\ \\\" ' \\n \t\"}"),
        (r#"x{a=`\d"`}"#, "x", r#"x{a="\\d\""}"#),
        (r#"x{a="}{,"}"#, "x", r#"x{a="}{,"}"#),
        (r#"x{a=""}"#, "x", r#"x{a=""}"#),
    ] {
        let name = parsed(text);
        assert_eq!((name.family(), name.as_str()), (family, written), "{text}");
        assert_eq!(parsed(written), name, "{text}");
        assert_eq!(name.labels().is_some(), written.contains('{'));
    }
    let (one, other) = (parsed(r#"x{a="1",b="2"}"#), parsed(r#"x{b='2', a="1"}"#));
    assert_eq!(BTreeSet::from([one, other]).len(), 1);
}

#[test]
fn what_is_no_metric_says_what_it_must_be() {
    let long = "x".repeat(MetricName::MAX_FAMILY + 1);
    let long_value = format!("x{{a=\"{}\"}}", "v".repeat(MetricName::MAX));
    let many = format!("x{{{}}}", r#"a="b","#.repeat(LabelMatchers::MAX + 1));
    for (text, must) in [
        ("", MetricName::ALLOWED),
        ("9x", MetricName::ALLOWED),
        ("a b", MetricName::ALLOWED),
        ("é", MetricName::ALLOWED),
        (r#"{a="b"}"#, MetricName::ALLOWED),
        (&long, "at most 256 bytes"),
        (&long_value, "at most 1024 bytes"),
        (&many, "at most 8 matchers"),
        ("x{", "closing brace"),
        (r#"x{a="b""#, "closing brace"),
        (r#"x{a="b"} y"#, "closing brace"),
        (r#"x{a="b" c="d"}"#, "closing brace"),
        (r#"x{="b"}"#, "whose labels are letters"),
        (r#"x{9="b"}"#, "whose labels are letters"),
        (r#"x{a="b",,}"#, "whose labels are letters"),
        ("x{a}", "one of =, !=, =~ and !~ after the label a"),
        (r#"x{a=="b"}"#, "the value of the label a in quotes"),
        ("x{reason=capacity}", r#"in quotes, as in reason="value""#),
        (r#"x{a="b}"#, "the value of the label a in quotes"),
        (r#"x{a="\d"}"#, "the value of the label a in quotes"),
        (r#"x{a=~"("}"#, "whose pattern for the label a can be used: unclosed group"),
        (r#"x{a=~"a)|(b"}"#, "can be used: unopened group"),
        (r#"x{a=~"(.{1000}){1000}"}"#, "must be simpler"),
        (r#"x{a=~"\\bx"}"#, "without word boundaries"),
    ] {
        let error = MetricName::parse(text).expect_err(text).to_string();
        assert!(error.contains(must), "{text}: {error}");
    }
}

#[test]
fn series_are_told_apart_as_prometheus_does() {
    let series = [("reason", "capacity"), ("engine", "10"), ("model", "a/b\nc")];
    for (matchers, expected) in [
        (r#"reason="capacity""#, true),
        (r#"reason="capacit""#, false),
        (r#"reason!="capacity""#, false),
        (r#"reason!="deferred""#, true),
        (r#"reason="capacity",engine="10""#, true),
        (r#"reason="capacity",engine="1""#, false),
        // A label that is not there is an empty one.
        (r#"priority="""#, true),
        (r#"priority!="""#, false),
        (r#"priority!="1""#, true),
        (r#"priority=~".*""#, true),
        (r#"priority=~".+""#, false),
        (r#"priority!~".+""#, true),
        // A pattern has to match all of the value.
        (r#"reason=~"cap""#, false),
        (r#"reason=~"cap.*""#, true),
        (r#"reason=~"deferred|capacity""#, true),
        (r#"reason=~"deferred|cap""#, false),
        (r#"engine=~"[0-9]+""#, true),
        (r#"engine=~`\d{2}`"#, true),
        (r#"engine!~"1|2""#, true),
        (r#"model=~"a/b.c""#, true),
        (r#"reason=~"(?i)CAPACITY""#, true),
        (r#"reason=~"""#, false),
    ] {
        let name = parsed(&format!("x{{{matchers}}}"));
        let value_of = |label: &str| {
            series.iter().find_map(|(name, value)| (*name == label).then_some(Cow::Borrowed(*value)))
        };
        assert_eq!(name.labels().unwrap().match_labels(value_of), expected, "{matchers}");
    }
}

#[test]
fn keda_is_told_a_name_that_holds_for_good() {
    for (text, told) in [
        ("vllm:num_requests_waiting", "vllm:num_requests_waiting"),
        // These are parts of the names of running HPAs: they never change.
        (
            r#"vllm:num_requests_waiting_by_reason{reason="capacity"}"#,
            "vllm:num_requests_waiting_by_reason-capacity-d24a3776",
        ),
        (r#"x{a=~"/é\n.*",b!="c"}"#, "x-_____-c-a6f9a7bc"),
    ] {
        let name = parsed(text);
        assert_eq!(name.spec_name(), told, "{text}");
        assert!(MetricName::is_told_as(text, told));
        assert!(MetricName::is_told_as(&format!(" {text} "), told) || !text.contains('{'));
        assert!(!MetricName::is_told_as("y", told));
    }
    let differing = [r#"x{a="1"}"#, r#"x{a!="1"}"#, r#"x{a=~"1"}"#, r#"x{b="1"}"#, r#"x{a="1",b=""}"#, "x"];
    let told: BTreeSet<String> = differing.iter().map(|text| parsed(text).spec_name().into_owned()).collect();
    assert_eq!(told.len(), differing.len(), "{told:?}");
}

proptest! {
    #[test]
    fn any_text_is_answered_and_what_is_written_is_read_back(
        text in prop_oneof![
            "\\PC{0,30}",
            r#"[xa]\{([ab](=|!=|=~|!~)["'`][ab.*\\"(|]{0,4}["'`],? ?){0,3}\}"#,
        ],
        value in "\\PC{0,8}",
    ) {
        if let Ok(name) = MetricName::parse(&text) {
            let again = parsed(name.as_str());
            prop_assert_eq!(&again, &name);
            prop_assert_eq!(again.spec_name(), name.spec_name());
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
            prop_assert!(name.spec_name().chars().all(legal), "{}", name.spec_name());
            if let Some(labels) = name.labels() {
                let _ = labels.match_labels(|_| Some(Cow::Borrowed(value.as_str())));
            }
        }
    }
}
