//! Windows of a rate and lengths, a line each: `t_s,rate_rps,cv…,in_mean,in_p50,in_p95,…`.

use super::{
    draw::Lengths,
    format::{Format, fields},
    lines::{Line, Lines},
    log::{Findings, LogError},
    row::{BadLine, MissingColumn, shown},
    window::{Window, Windows},
};

/// Where the columns of a rates trace are. Without a median and a 95th percentile the lengths
/// are as wide as those of conversations, without a cv arrivals are independent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    time: usize,
    rate: usize,
    cv: Option<usize>,
    prompt: LengthColumns,
    answer: LengthColumns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LengthColumns {
    mean: usize,
    /// The median and the 95th percentile.
    spread: Option<(usize, usize)>,
}

impl Columns {
    /// Those of a header.
    pub fn of(header: &str) -> Result<Self, MissingColumn> {
        let names: Vec<String> =
            fields(header.trim_start_matches('\u{feff}')).map(str::to_ascii_lowercase).collect();
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        let needed =
            |column: &'static str| place(column).ok_or(MissingColumn { format: Format::Rates, column });
        Ok(Self {
            time: needed("t_s")?,
            rate: needed("rate_rps")?,
            cv: names.iter().position(|name| name == "cv" || name.starts_with("cv_")),
            prompt: LengthColumns { mean: needed("in_mean")?, spread: place("in_p50").zip(place("in_p95")) },
            answer: LengthColumns {
                mean: needed("out_mean")?,
                spread: place("out_p50").zip(place("out_p95")),
            },
        })
    }

    /// A window without its length, which the next line tells.
    fn window(&self, line: &str) -> Result<Window, BadLine> {
        let fields: Vec<&str> = fields(line).collect();
        let number = |place: usize, field: &'static str| {
            let text = fields
                .get(place)
                .copied()
                .ok_or_else(|| BadLine::Missing(format!("{} ({field})", place + 1)))?;
            let number = text.parse::<f64>().ok().filter(|number| (0.0..=1e12).contains(number));
            number.ok_or_else(|| BadLine::Field {
                field,
                found: shown(text),
                allowed: "a number of 0 or more",
            })
        };
        let start = number(self.time, "the time")?;
        let rate = number(self.rate, "the rate")?;
        let cv = self.cv.map(|place| number(place, "the cv")).transpose()?;
        let lengths = if rate > 0.0 {
            let lengths = |columns: LengthColumns, field| {
                let mean = number(columns.mean, field)?.max(1.0);
                let Some((median, p95)) = columns.spread else { return Ok(Lengths::of_mean(mean)) };
                let median = number(median, field)?.max(1.0);
                Ok::<_, BadLine>(Lengths::of(mean, median, number(p95, field)?.max(median)))
            };
            Some((lengths(self.prompt, "a prompt's length")?, lengths(self.answer, "an answer's length")?))
        } else {
            None
        };
        Ok(Window { start, length: 0.0, rate, cv: cv.filter(|cv| *cv > 0.0).unwrap_or(1.0), lengths })
    }
}

/// A reader of a rates trace.
#[derive(Debug)]
pub struct Rates {
    lines: Lines,
    columns: Columns,
    /// The window that waits for the start of the one after it.
    waiting: Option<Window>,
    /// The length of the window given last.
    length: Option<f64>,
    start: Option<f64>,
    ended: bool,
    findings: Findings,
}

impl Rates {
    /// A reader of what follows the header.
    #[must_use]
    pub fn new(lines: Lines, columns: Columns) -> Self {
        Self {
            lines,
            columns,
            waiting: None,
            length: None,
            start: None,
            ended: false,
            findings: Findings::default(),
        }
    }

    /// The next window that a line has, its length still unknown.
    fn read(&mut self) -> Result<Option<Window>, LogError> {
        loop {
            let (number, window) = match self.lines.next_line() {
                Ok(Some(Line { number, text })) => {
                    (number, text.map_err(BadLine::from).and_then(|text| self.columns.window(text)))
                }
                Ok(None) => {
                    self.ended = true;
                    self.findings.judge(true)?;
                    return Ok(None);
                }
                Err(source) => return Err(LogError::Read { line: self.lines.number() + 1, source }),
            };
            self.findings.lines += 1;
            let before = self.waiting.as_ref().map(|window| window.start);
            match window {
                Ok(mut window) => {
                    window.start -= *self.start.get_or_insert(window.start);
                    if before.is_none_or(|before| window.start > before) {
                        return Ok(Some(window));
                    }
                    self.findings.add_bad(number, BadLine::WindowBackwards);
                }
                Err(bad) => self.findings.add_bad(number, bad),
            }
            self.findings.judge(false)?;
        }
    }
}

impl Windows for Rates {
    fn next_window(&mut self) -> Result<Option<Window>, LogError> {
        if self.ended {
            return Ok(None);
        }
        if self.waiting.is_none() {
            let Some(first) = self.read()? else { return Err(LogError::Empty) };
            self.waiting = Some(first);
        }
        let next = self.read()?;
        let Some(mut window) = std::mem::replace(&mut self.waiting, next) else { return Ok(None) };
        // The last is as long as the one before it, a lone one as long as ServeGen's.
        window.length = match &self.waiting {
            Some(next) => next.start - window.start,
            None => self.length.unwrap_or(600.0),
        };
        self.length = Some(window.length);
        Ok(Some(window))
    }

    fn findings(&self) -> &Findings {
        &self.findings
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const HEADER: &str =
        "t_s,rate_rps,cv_rate_weighted,clients,in_mean,in_p50,in_p95,out_mean,out_p50,out_p95";

    fn rates(text: &str) -> Rates {
        Rates::new(Lines::new(Box::new(Cursor::new(text.to_owned()))), Columns::of(HEADER).unwrap())
    }

    fn all(rates: &mut Rates) -> Result<Vec<(f64, f64, f64, f64)>, LogError> {
        let mut windows = Vec::new();
        while let Some(window) = rates.next_window()? {
            windows.push((window.start, window.length, window.rate, window.cv));
        }
        Ok(windows)
    }

    #[test]
    fn a_window_lasts_until_the_next() {
        let mut rates = rates(
            "1200,986.5650,2.23,55,594,370,1376,128,23,536\n1800,0.0000,0.00,0,0,0,0,0,0,0\n\
             2100,1044.0867,2.07,55,557,368,1309,125,21,536\n",
        );
        let windows = all(&mut rates).unwrap();
        assert_eq!(
            windows,
            [(0.0, 600.0, 986.565, 2.23), (600.0, 300.0, 0.0, 1.0), (900.0, 300.0, 1044.0867, 2.07)]
        );
    }

    #[test]
    fn columns_that_are_not_needed_may_be_left_out() {
        let columns = Columns::of("t_s,rate_rps,in_mean,out_mean").unwrap();
        let window = columns.window("0,2,500,200").unwrap();
        assert_eq!(
            (window.cv, window.lengths),
            (1.0, Some((Lengths::of_mean(500.0), Lengths::of_mean(200.0))))
        );
        let error = Columns::of("t_s,rate_rps,in_mean").unwrap_err().to_string();
        assert!(error.starts_with("the first line has no column out_mean"), "{error}");
    }

    #[test]
    fn bad_windows_are_named_and_too_many_end_it() {
        let good = |at: u32| format!("{},1,1,1,10,10,10,10,10,10\n", at * 600);
        let lines: String = (0..200).map(good).collect();
        let mut rates = rates(&(lines.clone() + "5,1,1,1,10,10,10,10,10,10\n"));
        assert_eq!(all(&mut rates).unwrap().len(), 200);
        assert_eq!(
            rates.findings().sentences(),
            ["line 201 starts before the line before it; it was skipped"]
        );
        let mut broken = super::tests::rates("0,-5,1,1,10,10,10,10,10,10\n600,1,1,1,1,1,1,1,1,1\n");
        let error = all(&mut broken).unwrap_err().to_string();
        assert!(
            error.contains("line 1 has `-5` as the rate, where a number of 0 or more is allowed"),
            "{error}"
        );
        assert!(matches!(all(&mut super::tests::rates("")), Err(LogError::Empty)));
    }
}
