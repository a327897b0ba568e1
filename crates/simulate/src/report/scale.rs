//! Axes: where a value lies, and the values that are labelled.

/// A range of values along one edge of a chart, linear or logarithmic.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    from: f64,
    to: f64,
    logarithmic: bool,
    /// The labelled values.
    ticks: Vec<(f64, String)>,
}

impl Scale {
    /// From 0 to a round number above `highest`.
    #[must_use]
    pub fn from_zero(highest: f64, label: impl Fn(f64) -> String) -> Self {
        let highest = if highest.is_finite() && highest > 0.0 { highest } else { 1.0 };
        let step = round_step(highest / 4.0);
        let to = (highest / step).ceil() * step;
        let ticks = ticks(0.0, to, step).map(|value| (value, label(value))).collect();
        Self { from: 0.0, to, logarithmic: false, ticks }
    }

    /// Whole numbers from 0 to `highest` at least: replicas.
    #[must_use]
    pub fn counts(highest: f64) -> Self {
        let step = round_step(highest.max(1.0) / 4.0).ceil();
        let to = (highest.max(1.0) / step).ceil() * step;
        let ticks = ticks(0.0, to, step).map(|value| (value, number(value))).collect();
        Self { from: 0.0, to, logarithmic: false, ticks }
    }

    /// From one value to another, with round numbers between them.
    #[must_use]
    pub fn between(from: f64, to: f64, label: impl Fn(f64) -> String) -> Self {
        let to = if to > from { to } else { from + 1.0 };
        let step = round_step((to - from) / 5.0);
        let first = (from / step).ceil() * step;
        let ticks = ticks(first, to, step).map(|value| (value, label(value))).collect();
        Self { from, to, logarithmic: false, ticks }
    }

    /// Seconds since the trace began, labelled in the unit that fits.
    #[must_use]
    pub fn time(from: f64, to: f64) -> Self {
        const STEPS: [(f64, f64, &str); 15] = [
            (10.0, 1.0, "s"),
            (30.0, 1.0, "s"),
            (60.0, 60.0, "min"),
            (120.0, 60.0, "min"),
            (300.0, 60.0, "min"),
            (600.0, 60.0, "min"),
            (1_200.0, 60.0, "min"),
            (1_800.0, 60.0, "min"),
            (3_600.0, 3_600.0, "h"),
            (7_200.0, 3_600.0, "h"),
            (14_400.0, 3_600.0, "h"),
            (21_600.0, 3_600.0, "h"),
            (43_200.0, 3_600.0, "h"),
            (86_400.0, 86_400.0, "d"),
            (172_800.0, 86_400.0, "d"),
        ];
        let to = if to > from { to } else { from + 1.0 };
        let (step, unit, name) =
            STEPS.into_iter().find(|(step, ..)| (to - from) / step <= 6.0).unwrap_or_else(|| {
                let days = round_step((to - from) / 7.0 / 86_400.0).max(1.0);
                (days * 86_400.0, 86_400.0, "d")
            });
        let first = (from / step).ceil() * step;
        let ticks = ticks(first, to, step).map(|at| (at, format!("{} {name}", number(at / unit)))).collect();
        Self { from, to, logarithmic: false, ticks }
    }

    /// Powers of ten and their halves and fifths, from `from` to `to`, both above 0.
    #[must_use]
    pub fn logarithmic(from: f64, to: f64, label: impl Fn(f64) -> String) -> Self {
        let mut ticks = Vec::new();
        let mut decade = 1e-6;
        while decade <= to {
            for part in [1.0, 2.0, 5.0] {
                let value = decade * part;
                if value >= from * 0.999 && value <= to * 1.001 {
                    ticks.push((value, label(value)));
                }
            }
            decade *= 10.0;
        }
        Self { from, to, logarithmic: true, ticks }
    }

    /// As [`Scale::logarithmic`], with labels at powers of ten only.
    #[must_use]
    pub fn decades(from: f64, to: f64, label: impl Fn(f64) -> String) -> Self {
        let mut scale = Self::logarithmic(from, to, label);
        scale.ticks.retain(|(value, _)| {
            let exponent = libm::log10(*value);
            (exponent - exponent.round()).abs() < 1e-6
        });
        scale
    }

    /// Where a value lies: 0 at the start of the scale, 1 at its end, within both.
    #[must_use]
    pub fn share(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (libm::log(value.max(self.from)) - libm::log(self.from))
                / (libm::log(self.to) - libm::log(self.from))
        } else {
            (value - self.from) / (self.to - self.from)
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    #[must_use]
    pub fn ticks(&self) -> &[(f64, String)] {
        &self.ticks
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let mut decade = 1e-9;
    while decade < 1e15 {
        for part in [1.0, 2.0, 5.0] {
            if decade * part >= least * 0.999_999 {
                return decade * part;
            }
        }
        decade *= 10.0;
    }
    decade
}

fn ticks(first: f64, to: f64, step: f64) -> impl Iterator<Item = f64> {
    (0..64_u32)
        .map(move |index| first + f64::from(index) * step)
        .take_while(move |at| *at <= to + step * 1e-6)
}

/// A number without needless digits: `12`, `1.5`, `1,200`.
#[must_use]
pub fn number(value: f64) -> String {
    let digits = if value.abs() >= 100.0 || (value - value.round()).abs() < 1e-6 {
        0
    } else if value.abs() >= 0.995 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let text = if digits == 2 { text.trim_end_matches('0') } else { &text };
    let (sign, plain) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = plain.split_once('.').map_or((plain, None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{sign}{grouped}.{fraction}"),
        None => format!("{sign}{grouped}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks().iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn the_labelled_values_are_round() {
        assert_eq!(labels(&Scale::from_zero(9.3, number)), ["0", "5", "10"]);
        assert_eq!(labels(&Scale::from_zero(1_234.0, number)), ["0", "500", "1,000", "1,500"]);
        assert_eq!(labels(&Scale::counts(3.0)), ["0", "1", "2", "3"]);
        assert_eq!(labels(&Scale::counts(0.0)), ["0", "1"]);
        assert_eq!(
            labels(&Scale::time(0.0, 3_502.0)),
            ["0 min", "10 min", "20 min", "30 min", "40 min", "50 min"]
        );
        assert_eq!(labels(&Scale::time(0.0, 172_800.0)), ["0 h", "12 h", "24 h", "36 h", "48 h"]);
        assert_eq!(
            labels(&Scale::time(0.0, 1_209_600.0)),
            ["0 d", "2 d", "4 d", "6 d", "8 d", "10 d", "12 d", "14 d"]
        );
        let percent = Scale::logarithmic(0.1, 100.0, |value| format!("{}%", number(value)));
        assert_eq!(labels(&percent), ["0.1%", "0.2%", "0.5%", "1%", "2%", "5%", "10%", "20%", "50%", "100%"]);
    }

    #[test]
    fn values_outside_lie_at_the_edge() {
        let scale = Scale::logarithmic(0.1, 10.0, number);
        assert_eq!(scale.share(0.0), 0.0);
        assert!((scale.share(1.0) - 0.5).abs() < 1e-12);
        assert_eq!(scale.share(1e9), 1.0);
        assert_eq!(Scale::between(1.0, 1.0, number).share(f64::NAN), 0.0);
    }

    #[test]
    fn numbers_have_no_needless_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.256, "0.26"),
            (1.0, "1"),
            (1.25, "1.2"),
            (99.96, "100.0"),
            (1_234_567.0, "1,234,567"),
            (-1_500.0, "-1,500"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
