//! The exposition parser against the memory itself and against two other crates' parsers, on a
//! page of a real vLLM and on one of about 1 MB.
//!
//! Absolute rates depend on the machine; what counts are ratios inside one run. The floor is
//! `memchr_newlines`, which finds every line feed and does nothing else, and every contestant
//! is held to what it found.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scaler_core::exposition::{LabelText, Part, Selector, samples, select};

use pages::{RECORDED, WANTED};

/// What a page holds, by plain string search.
#[derive(Debug, PartialEq)]
struct Expected {
    lines: usize,
    samples: usize,
    labels: usize,
    /// Samples of the wanted families.
    selected: usize,
    /// Their values, summed in page order.
    selected_sum: f64,
    /// Samples whose name has no colon.
    without_colon: usize,
}

impl Expected {
    fn of(page: &str) -> Self {
        let is_sample = |line: &&str| !line.starts_with('#');
        let name = |line: &'_ str| line[..line.find(['{', ' ']).unwrap_or(line.len())].to_owned();
        let is_wanted = |line: &&str| {
            let name = name(line);
            WANTED.iter().any(|family| {
                ["", "_total", "_bucket", "_sum", "_count"]
                    .iter()
                    .any(|part| name == format!("{family}{part}"))
            })
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok());
        Self {
            lines: page.lines().count(),
            samples: page.lines().filter(is_sample).count(),
            labels: page.lines().filter(is_sample).map(|line| line.matches("=\"").count()).sum(),
            selected: page.lines().filter(is_sample).filter(is_wanted).count(),
            selected_sum: page.lines().filter(is_sample).filter(is_wanted).filter_map(value).sum(),
            without_colon: page.lines().filter(is_sample).filter(|line| !name(line).contains(':')).count(),
        }
    }
}

fn exposition(c: &mut Criterion) {
    let megabyte = pages::megabyte();
    for (name, page) in [("50kB", RECORDED), ("1MB", &megabyte)] {
        let expected = Expected::of(page);
        let bytes = page.as_bytes();
        let mut group = c.benchmark_group(format!("exposition/{name}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let id = BenchmarkId::from_parameter;

        group.bench_function(id("memcpy"), |b| {
            let mut copy = vec![0_u8; bytes.len()];
            b.iter(|| black_box(&mut copy).copy_from_slice(black_box(bytes)));
            assert_eq!(copy, bytes);
        });

        group.bench_function(id("memchr_newlines"), |b| {
            b.iter(|| {
                let mut lines = 0;
                for newline in memchr::memchr_iter(b'\n', black_box(bytes)) {
                    black_box(newline);
                    lines += 1;
                }
                assert_eq!(lines, expected.lines);
            });
        });

        let selector = Selector::new(WANTED);
        group.bench_function(id("select"), |b| {
            b.iter(|| {
                let (mut count, mut sum) = (0, 0.0);
                let report = select(black_box(bytes), &selector, |selected| {
                    count += 1;
                    sum += selected.sample.value;
                });
                assert_eq!((count, sum, report.rejected), (expected.selected, expected.selected_sum, 0));
            });
        });

        group.bench_function(id("select_and_read_le"), |b| {
            b.iter(|| {
                let (mut count, mut sum) = (0, 0.0);
                let report = select(black_box(bytes), &selector, |selected| {
                    count += 1;
                    sum += selected.sample.value;
                    if selected.part == Part::Bucket {
                        let le = selected.sample.labels.get("le").and_then(LabelText::to_f64);
                        assert!(black_box(le).is_some());
                    }
                });
                assert_eq!((count, sum, report.rejected), (expected.selected, expected.selected_sum, 0));
            });
        });

        group.bench_function(id("walk"), |b| {
            b.iter(|| {
                let mut walk = samples(black_box(bytes));
                let count = walk.by_ref().map(black_box).count();
                assert_eq!((count, walk.rejected()), (expected.samples, 0));
            });
        });

        group.bench_function(id("walk_with_labels"), |b| {
            b.iter(|| {
                let mut walk = samples(black_box(bytes));
                let (mut count, mut labels) = (0, 0);
                for sample in walk.by_ref() {
                    count += 1;
                    labels += sample.labels.iter().map(black_box).count();
                    black_box(sample.value);
                }
                assert_eq!((count, labels, walk.rejected()), (expected.samples, expected.labels, 0));
            });
        });

        // Its names are `\w+`, without the colon, so all of vLLM's own families are dropped in
        // silence: it is timed on less work than the others do.
        group.bench_function(id("prometheus_parse"), |b| {
            b.iter(|| {
                let lines = black_box(page).lines().map(|line| Ok(line.to_owned()));
                let scrape =
                    prometheus_parse::Scrape::parse(lines).expect("it has no errors but those of IO");
                assert!(scrape.samples.iter().all(|sample| !sample.metric.contains(':')));
                assert!(!scrape.samples.is_empty() && scrape.samples.len() <= expected.without_colon);
            });
        });

        group.bench_function(id("prom_text_format_parser"), |b| {
            b.iter(|| {
                let scrape =
                    prom_text_format_parser::Scrape::parse(black_box(page)).expect("it reads the page");
                let samples = || scrape.metrics.iter().flat_map(|metric| &metric.samples);
                assert_eq!(samples().count(), expected.samples);
                assert_eq!(samples().map(|sample| sample.labels.len()).sum::<usize>(), expected.labels);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, exposition);
criterion_main!(benches);
