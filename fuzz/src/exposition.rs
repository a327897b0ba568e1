//! The exposition format: every sample and TYPE as a naive reader sees them, selection as the
//! walk filtered by name, and what is made of a page.

mod naive;

use std::sync::{Arc, LazyLock};

use scaler_core::{
    config::trigger::{Shape, WantedMetric},
    endpoint::page_choice::PageKind,
    exposition::{Line, Part, Sample, Selector, lines, samples, select, types},
    names::MetricName,
    page::{Wanted, picker::GatewayPage, read_page, sample::Reading, scan::scan},
};

use self::naive::NaiveLine;

/// Families that are asked for on every page: of engines, of the corpus, and one that is nowhere.
const FAMILIES: [&str; 8] = [
    "vllm:num_requests_waiting",
    "vllm:time_to_first_token_seconds",
    "x",
    "x_sum",
    "y",
    "a:b",
    "é",
    "absent",
];

/// Compiled as a scrape's are, once.
static SELECTOR: LazyLock<Selector> = LazyLock::new(|| Selector::new(FAMILIES));
static WANTED: LazyLock<Wanted> = LazyLock::new(|| {
    let shapes = [Shape::Value, Shape::Histogram { buckets: true }];
    let names = FAMILIES.iter().filter_map(|name| MetricName::parse(name).ok());
    let wanted = names.zip(shapes.into_iter().cycle()).map(|(name, shape)| WantedMetric { name, shape });
    Wanted::new(wanted)
});

pub fn check(page: &[u8]) {
    let expected = naive::lines(page);
    let read: Vec<NaiveLine> = lines(page).filter_map(naive_of).collect();
    assert_eq!(read, expected);

    let mut walk = samples(page);
    let walked: Vec<NaiveLine> = walk.by_ref().map(|sample| NaiveLine::Sample(sample_of(&sample))).collect();
    let is_sample = |line: &&NaiveLine| matches!(line, NaiveLine::Sample(_));
    assert_eq!(walked, expected.iter().filter(is_sample).cloned().collect::<Vec<_>>());
    assert_eq!(walk.rejected(), expected.iter().filter(|line| **line == NaiveLine::Rejected).count());
    let typed: Vec<NaiveLine> =
        types(page).map(|(name, kind)| NaiveLine::Type(name.as_bytes().to_vec(), kind)).collect();
    let is_type = |line: &&NaiveLine| matches!(line, NaiveLine::Type(..));
    assert_eq!(typed, expected.iter().filter(is_type).cloned().collect::<Vec<_>>());

    let mut selected = Vec::new();
    select(page, &SELECTOR, |found| selected.push((found.family, found.part, sample_of(&found.sample))));
    let mut filtered = Vec::new();
    for line in &expected {
        let NaiveLine::Sample(sample) = line else { continue };
        for part in Part::ALL {
            for (family, name) in FAMILIES.iter().enumerate() {
                if sample.name == format!("{name}{}", part.suffix()).as_bytes() {
                    filtered.push((family, part, sample.clone()));
                }
            }
        }
    }
    // In which order the claims on one sample are visited is left open.
    let key = |(family, part, _): &(usize, Part, _)| (*family, part.suffix());
    selected.sort_by_key(key);
    filtered.sort_by_key(key);
    assert_eq!(selected, filtered);

    for kind in [PageKind::Plain, PageKind::Filtered] {
        let read = read_page(page, &WANTED, kind);
        for (name, reading) in &read.sample.readings {
            assert!(is_finite(reading), "{name} is {reading:?}");
        }
        assert!(read.sample.similar.len() <= 3, "{:?}", read.sample.similar);
    }
    let scanned = scan(page, &[]);
    assert!(scanned.families.iter().map(|family| family.series).sum::<usize>() <= page.len());
    let pools = [Arc::from("demo-inferencepool")];
    for sample in GatewayPage::default().read(page, &pools).into_iter().flatten() {
        assert!(sample.refused_total.is_finite() || sample.refused_total > 0.0, "{sample:?}");
    }
}

fn is_finite(reading: &Reading) -> bool {
    match reading {
        Reading::Value(value) => value.is_finite(),
        Reading::Histogram(histogram) => histogram.count.is_finite() && histogram.sum.is_finite(),
    }
}

fn naive_of(line: Line<'_>) -> Option<NaiveLine> {
    match line {
        Line::Sample(sample) => Some(NaiveLine::Sample(sample_of(&sample))),
        Line::Type { name, kind } => Some(NaiveLine::Type(name.as_bytes().to_vec(), kind)),
        Line::Rejected(_) => Some(NaiveLine::Rejected),
        Line::Help { .. } | Line::Eof | Line::Comment => None,
    }
}

fn sample_of(sample: &Sample<'_>) -> naive::Sample {
    let label = |label: scaler_core::exposition::Label<'_>| {
        (label.name.as_bytes().to_vec(), label.value.as_bytes().to_vec())
    };
    naive::Sample {
        name: sample.name.as_bytes().to_vec(),
        labels: sample.labels.iter().map(label).collect(),
        value: sample.value.to_bits(),
        timestamp_ms: sample.timestamp_ms,
    }
}
