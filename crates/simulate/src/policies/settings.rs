//! A policy's settings: `key=value,key=value`.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr};

use crate::world::microseconds;

/// Settings by key. Whoever reads one takes it out; what is left over is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// It is not `key=value`.
    #[error("{0:?} is not key=value")]
    NotKeyValue(String),
    /// The policy does not have it.
    #[error("it has no setting {0:?}")]
    UnknownKey(String),
    /// Its value is not allowed.
    #[error("{key}={value:?}: allowed is {allowed}")]
    Value {
        /// Which setting.
        key: String,
        /// What it held.
        value: String,
        /// What it may hold.
        allowed: String,
    },
}

impl Settings {
    /// Takes the number `key`, or the default.
    pub fn number(
        &mut self,
        key: &str,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f64, SettingsError> {
        let allowed = || format!("a number from {} to {}", range.start(), range.end());
        self.take(key, default, |text| text.parse().ok().filter(|number| range.contains(number)), allowed)
    }

    /// Takes the whole number `key`, where it is given.
    pub fn whole(&mut self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, SettingsError> {
        let allowed = || format!("a whole number from {} to {}", range.start(), range.end());
        let read = |text: &str| text.parse().ok().filter(|number| range.contains(number)).map(Some);
        self.take(key, None, read, allowed)
    }

    /// Takes the time `key`, such as 30s, 500ms or 2m, in microseconds, or the default.
    pub fn time_us(&mut self, key: &str, default: u64) -> Result<u64, SettingsError> {
        self.take(key, default, parse_time_us, || "a time such as 500ms, 30s, 5m or 1h".to_owned())
    }

    /// Takes all that nobody has taken.
    pub fn take_rest(&mut self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.0)
    }

    /// Fails where something was not taken.
    pub fn finish(mut self) -> Result<(), SettingsError> {
        self.0.pop_first().map_or(Ok(()), |(key, _)| Err(SettingsError::UnknownKey(key)))
    }

    /// Adds those of `other`, which win.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    fn take<T>(
        &mut self,
        key: &str,
        default: T,
        read: impl Fn(&str) -> Option<T>,
        allowed: impl Fn() -> String,
    ) -> Result<T, SettingsError> {
        let Some(value) = self.0.remove(key) else { return Ok(default) };
        read(&value).ok_or_else(|| SettingsError::Value { key: key.to_owned(), value, allowed: allowed() })
    }
}

/// A time such as 500ms, 30s, 5m or 1h in microseconds.
#[must_use]
pub fn parse_time_us(text: &str) -> Option<u64> {
    let units = [("ms", 1e3), ("us", 1.0), ("s", 1e6), ("m", 6e7), ("h", 3.6e9)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let time = number.parse::<f64>().ok()? * unit;
    (0.0..=1e15).contains(&time).then(|| microseconds(time))
}

impl FromStr for Settings {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        let pairs = parts.map(|part| {
            let pair = part.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            pair.ok_or_else(|| SettingsError::NotKeyValue(part.to_owned()))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}
