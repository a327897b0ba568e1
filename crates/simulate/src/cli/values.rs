//! The values of flags.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, bail};
use scaler_core::config::annotations::PREFIX;
use serde_json::Value;

use crate::{
    policies::parse_time_us,
    world::{ColdStart, Slo},
};

const A_TIME: &str = "a time such as 500ms, 30s, 5m or 1h";

/// A time in microseconds.
pub(super) fn time_us(text: &str) -> Result<u64, String> {
    parse_time_us(text).ok_or_else(|| format!("allowed is {A_TIME}"))
}

/// A number of replicas, which need not be whole.
pub(super) fn replicas(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| *number > 0.0 && *number <= 10_000.0);
    number.ok_or_else(|| "allowed is a number of replicas above 0 and up to 10000".to_owned())
}

/// `180s`, or `180s±20%`.
pub(super) fn cold_start(text: &str) -> Result<ColdStart, String> {
    let (mean, spread) = text.split_once('±').or_else(|| text.split_once("+-")).unwrap_or((text, "20%"));
    let spread = spread.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok());
    let spread = spread.filter(|percent| (0.0..=100.0).contains(percent));
    match (parse_time_us(mean), spread) {
        (Some(mean_us), Some(percent)) => Ok(ColdStart { mean_us, spread: percent / 100.0, node: None }),
        _ => Err(format!("allowed is {A_TIME}, and after it, if you like, ±20%")),
    }
}

/// `ttft=2s,tpot=100ms`, either or both.
pub(super) fn slo(text: &str) -> Result<Slo, String> {
    let mut slo = Slo::default();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let time = parse_time_us(value).filter(|time| *time > 0);
        match (key, time) {
            ("ttft", Some(time)) => slo.ttft_us = time,
            ("tpot" | "itl", Some(time)) => slo.tpot_us = time,
            _ => return Err(format!("{part:?}: allowed is ttft=TIME,tpot=TIME, each {A_TIME}")),
        }
    }
    Ok(slo)
}

/// The annotations in a file: an object of annotations, or one that has them in its metadata.
pub(super) fn annotations(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let object: Value = serde_saphyr::from_str(&text)
        .with_context(|| format!("{} is neither YAML nor JSON", path.display()))?;
    let written = object.pointer("/metadata/annotations").unwrap_or(&object);
    let written = written.as_object().into_iter().flatten();
    let ours = written.filter(|(key, _)| key.starts_with(PREFIX));
    let mut annotations = BTreeMap::new();
    for (key, value) in ours {
        let Value::String(value) = value else {
            bail!("{}: {key} is {value}; an annotation is text, so quote it", path.display());
        };
        annotations.insert(key.clone(), value.clone());
    }
    if annotations.is_empty() {
        bail!("{} has no annotation that begins with {PREFIX}", path.display());
    }
    Ok(annotations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_starts_and_targets() {
        let cold = |mean_us, spread| Ok(ColdStart { mean_us, spread, node: None });
        let cases = [
            ("180s", cold(180_000_000, 0.2)),
            ("3m±10%", cold(180_000_000, 0.1)),
            ("3m+-0%", cold(180_000_000, 0.0)),
        ];
        for (text, expected) in cases {
            assert_eq!(cold_start(text), expected, "{text}");
        }
        for text in ["", "180", "180s±", "180s±200%", "-1s"] {
            assert!(cold_start(text).unwrap_err().contains("30s"), "{text}");
        }
        assert_eq!(slo("ttft=3s"), Ok(Slo { ttft_us: 3_000_000, tpot_us: 100_000 }));
        assert_eq!(slo("ttft=3s,itl=50ms"), Ok(Slo { ttft_us: 3_000_000, tpot_us: 50_000 }));
        for text in ["", "3s", "ttft=0s", "ttft=3s,e2e=3s"] {
            assert!(slo(text).is_err(), "{text}");
        }
    }

    #[test]
    fn annotations_are_read_from_an_object_or_a_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.yaml");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            annotations(&path).map_err(|error| format!("{error:#}"))
        };
        let one = BTreeMap::from([(format!("{PREFIX}threshold"), "5".to_owned())]);
        assert_eq!(read("scaledobject.kaito.sh/threshold: '5'\nother: x\n"), Ok(one.clone()));
        let manifest =
            "kind: InferenceSet\nmetadata:\n  annotations:\n    scaledobject.kaito.sh/threshold: \"5\"\n";
        assert_eq!(read(manifest), Ok(one));
        assert!(read("scaledobject.kaito.sh/threshold: 5\n").unwrap_err().contains("quote it"));
        assert!(read("other: x\n").unwrap_err().contains("no annotation"));
        assert!(read("a: [").unwrap_err().contains("neither YAML nor JSON"));
    }
}
