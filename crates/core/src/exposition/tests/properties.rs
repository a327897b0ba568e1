//! What holds for any page.

use std::fmt::Write as _;

use proptest::{collection::vec, option, prelude::*};

use super::{chosen, read, show};
use crate::exposition::{labels::escape, *};

/// A sample that owns its parts, to be printed and read back.
#[derive(Clone, Debug)]
struct Written {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
    timestamp_ms: Option<i64>,
}

impl Written {
    fn print(&self) -> String {
        let plain_label =
            |name: &str| name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_') && !name.is_empty();
        let plain = self.name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':');
        let mut line =
            if plain { format!("{}{{", self.name) } else { format!("{{\"{}\",", escape(&self.name)) };
        for (name, value) in &self.labels {
            let name = if plain_label(name) { name.clone() } else { format!("\"{}\"", escape(name)) };
            write!(line, "{name}=\"{}\",", escape(value)).unwrap();
        }
        let value = match self.value {
            f64::INFINITY => "+Inf".to_owned(),
            f64::NEG_INFINITY => "-Inf".to_owned(),
            value => format!("{value:?}"),
        };
        write!(line, "}} {value}").unwrap();
        if let Some(timestamp) = self.timestamp_ms {
            write!(line, " {timestamp}").unwrap();
        }
        line
    }

    fn show(&self) -> String {
        let Self { name, labels, value, timestamp_ms } = self;
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!(" [{name}]=[{value}]")).collect();
        let labels = labels.concat();
        let timestamp = timestamp_ms.map(|ms| format!(" @{ms}")).unwrap_or_default();
        format!("{name}{labels} {value:?}{timestamp}")
    }
}

/// Text with everything that the grammar gives a meaning to.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_:]{1,6}", "[\"\\\\\n{}=,# \tnaé日]{1,12}", ".{1,20}"]
}

fn written() -> impl Strategy<Value = Written> {
    let labels = vec((text(), prop_oneof![text(), Just(String::new())]), 0..7);
    (text(), labels, any::<f64>(), option::of(any::<i64>()))
        .prop_map(|(name, labels, value, timestamp_ms)| Written { name, labels, value, timestamp_ms })
}

/// Lines that are close to wanted names, to other names and to mistakes.
fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof!["x", "y", "xy", "x:y", "x_sum", "y_x", "a\\.b", "waiting_y"];
    let part = prop_oneof!["", "", "_total", "_bucket", "_sum", "_count", "_created", "_sum_sum"];
    let shape = prop_oneof![
        Just("N 1"),
        Just("N{l=\"v\"} 2"),
        Just("{\"N\",l=\"x\"} 3"),
        Just("{\"N\"} 4 5"),
        Just(" N{l=\"x 1\"}\t6\r"),
        Just("# N 7"),
        Just("# HELP N x 8"),
        Just("# TYPE N gauge"),
        Just("N broken"),
        Just("N{ 9"),
        Just("other{l=\"N\"} 10"),
        Just("{\"N"),
        Just(""),
    ];
    (name, part, shape).prop_map(|(name, part, shape)| shape.replace('N', &format!("{name}{part}")))
}

proptest! {
    #[test]
    fn reads_back_what_was_written(written in vec(written(), 0..6)) {
        let page: String = written.iter().map(|sample| sample.print() + "\n").collect();
        let expected: Vec<String> = written.iter().map(Written::show).collect();
        prop_assert_eq!(read(&page), (expected, 0));
    }

    #[test]
    fn any_bytes_are_walked_to_the_end(
        page in prop_oneof![
            vec(any::<u8>(), 0..400),
            "[x{}\"\\\\=,# \t\n\r1.+NaInf_é-]{0,200}".prop_map(String::into_bytes),
            "( ?# ?TYPE x:?y? (gauge|counter|kind) ?\r?\n|x 1\n|# x\n){0,20}".prop_map(String::into_bytes),
        ],
    ) {
        let mut walk = samples(&page);
        let read = walk.by_ref().inspect(|sample| { show(sample); }).count();
        let (mut seen, mut rejected, mut typed) = (0, 0, Vec::new());
        for line in lines(&page) {
            match line {
                Line::Sample(_) => seen += 1,
                Line::Rejected(_) => rejected += 1,
                Line::Type { name, kind } => typed.push((name, kind)),
                _ => {}
            }
        }
        prop_assert_eq!((read, walk.rejected()), (seen, rejected));
        prop_assert_eq!(types(&page).collect::<Vec<_>>(), typed);
        select(&page, &Selector::new(["x", "N", "e\"}"]), |selected| { show(&selected.sample); });
    }

    #[test]
    fn selection_is_the_walk_filtered_by_name(
        lines in vec(line(), 0..40),
        wanted in proptest::sample::subsequence(vec!["x", "y", "x_sum", "xy", "a.b", "waiting_y", "x:y"], 0..5),
        extra in 0..12_usize,
    ) {
        let page = lines.join("\n");
        // Families that are not there change how the search works, not what it finds.
        let absent: Vec<String> = (0..extra).map(|n| format!("absent_{n}")).collect();
        let wanted: Vec<&str> = wanted.into_iter().chain(absent.iter().map(String::as_str)).collect();
        let mut expected = Vec::new();
        for sample in samples(page.as_bytes()) {
            for part in Part::ALL {
                for (family, name) in wanted.iter().enumerate() {
                    if *sample.name == format!("{name}{}", part.suffix()) {
                        expected.push(format!("{family} {part:?} {}", show(&sample)));
                    }
                }
            }
        }
        let (mut visited, _) = chosen(&page, &wanted);
        // In which order the claims on one sample are visited is left open.
        visited.sort();
        expected.sort();
        prop_assert_eq!(visited, expected);
    }
}
