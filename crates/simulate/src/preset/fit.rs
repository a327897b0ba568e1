//! The engine's law fitted to a performance table: a step takes a + c for each sequence of its
//! batch + b for each prompt token that it prefills.

use super::table::{Cell, Hardware, Table, TableError, Workload, cells};

/// The constants of the law, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Law {
    /// A step with nothing in it.
    pub step: f64,
    /// For each sequence of the batch.
    pub sequence: f64,
    /// For each prompt token that the step prefills.
    pub prompt_token: f64,
}

impl Law {
    /// Between two tokens of a sequence while `batch` sequences decode.
    #[must_use]
    pub fn itl(self, batch: u32) -> f64 {
        self.step + self.sequence * f64::from(batch)
    }

    /// One step that prefills `tokens` prompt tokens of `batch` sequences and decodes nothing.
    #[must_use]
    pub fn prefill(self, batch: u32, tokens: f64) -> f64 {
        self.itl(batch) + self.prompt_token * tokens
    }
}

/// A cell beside what the law says of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    pub quantity: Quantity,
    pub workload: Workload,
    /// Milliseconds.
    pub measured: f64,
    pub fitted: f64,
    /// Why the law is not held to this cell; `None` where it is.
    pub outside: Option<Outside>,
}

/// What a cell tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    Itl,
    Prefill,
}

/// Why the law is further than 10 % from a cell, or not held to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Below some 4,096 tokens the nodes of this table prefilled a token in about half the
    /// time that they took above: one slope can't be both, and the law takes the slower.
    SmallPrefill,
    /// A prompt of 128 tokens is faster or slower than a step with nothing in it: noise, or
    /// overhead that the law does not have.
    TinyPrompt,
    /// The time to the first token does not grow with the batch in this table (48 ms for 1,024
    /// prompt tokens and for 16,384): it is that of the batch's first prompts only.
    FirstOfBatch,
    /// One prompt of 8,192 tokens took a fifth less than 16 prompts of 512, and the law knows
    /// only how many tokens there are.
    OnePrompt,
    /// Attention over a context of 8,192 tokens, which this law does not have: its cost a
    /// sequence is that of a short context.
    LongContext,
}

impl Outside {
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::SmallPrefill => {
                "prefill is faster a token below 4,096 tokens; one slope, and it takes the slower"
            }
            Self::TinyPrompt => "a prompt this short is overhead only",
            Self::FirstOfBatch => "the table's prefill time is that of the batch's first prompts only",
            Self::OnePrompt => "one long prompt is faster than as many tokens of short ones",
            Self::LongContext => "attention over 8,192 tokens of context is not in the law",
        }
    }
}

impl Compared {
    /// By how much the law is off, relative to what was measured.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.fitted / self.measured - 1.0
    }
}

/// A law with the cells that it was fitted to and those that it was not.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    pub law: Law,
    pub compared: Vec<Compared>,
}

impl Fit {
    /// The largest relative error among the cells that the law is held to.
    #[must_use]
    pub fn worst(&self, quantity: Quantity) -> f64 {
        let held = self.compared.iter().filter(|cell| cell.quantity == quantity && cell.outside.is_none());
        held.map(|cell| cell.error().abs()).fold(0.0, f64::max)
    }
}

/// Fits the law: `step` and `sequence` to the times between tokens, then `prompt_token` to the
/// times of prefill, each by least squares with no constant below 0.
pub fn fit(hardware: Hardware) -> Result<Fit, TableError> {
    let cells = cells(hardware)?;
    // Decoding: each batch size, at the prompt and answer that all of them were measured at.
    let decoding: Vec<([f64; 2], f64)> = cells
        .iter()
        .filter(|cell| cell.workload.prompt == 512 && cell.workload.answer == 128)
        .map(|cell| {
            // Relative errors: 2 ms matter more at 30 ms than at 70.
            ([1.0 / cell.itl, f64::from(cell.workload.batch) / cell.itl], 1.0)
        })
        .collect();
    let [step, sequence] = non_negative(&decoding);
    let prefilling: Vec<([f64; 1], f64)> = cells
        .iter()
        .filter(|cell| cell.workload.answer == 128 && !only_the_first(hardware, cell))
        .map(|cell| {
            let steps_own = step + sequence * f64::from(cell.workload.batch);
            ([cell.workload.prompt_tokens()], cell.prefill - steps_own)
        })
        .collect();
    let [prompt_token] = non_negative(&prefilling);
    let law = Law { step, sequence, prompt_token };
    let compared = cells.iter().flat_map(|cell| compare(hardware, law, cell)).collect();
    Ok(Fit { law, compared })
}

fn only_the_first(hardware: Hardware, cell: &Cell) -> bool {
    hardware.table == Table::SageServe && cell.workload.batch > 1
}

fn compare(hardware: Hardware, law: Law, cell: &Cell) -> Vec<Compared> {
    let workload = cell.workload;
    let tokens = workload.prompt_tokens();
    let long = hardware.table == Table::SageServe && workload.prompt + workload.answer > 8_192;
    let itl = Compared {
        quantity: Quantity::Itl,
        workload,
        measured: cell.itl,
        fitted: law.itl(workload.batch),
        outside: long.then_some(Outside::LongContext),
    };
    let mut prefill = Compared {
        quantity: Quantity::Prefill,
        workload,
        measured: cell.prefill,
        fitted: law.prefill(workload.batch, tokens),
        outside: None,
    };
    if only_the_first(hardware, cell) {
        prefill.outside = Some(Outside::FirstOfBatch);
    } else if prefill.error().abs() > 0.1 {
        prefill.outside = match tokens {
            ..=256.0 => Some(Outside::TinyPrompt),
            ..=4_096.0 => Some(Outside::SmallPrefill),
            _ => (workload.batch == 1).then_some(Outside::OnePrompt),
        };
    }
    // The prefill of the longer answers repeats that of 128 tokens.
    if workload.answer == 128 { vec![itl, prefill] } else { vec![itl] }
}

/// Least squares of `Σ (columns · x − value)²` with every x at least 0: the best among the
/// solutions that leave some of the columns out and are nowhere negative.
fn non_negative<const N: usize>(rows: &[([f64; N], f64)]) -> [f64; N] {
    let mut best = ([0.0; N], f64::INFINITY);
    for chosen in 0..1_usize << N {
        let used: Vec<usize> = (0..N).filter(|column| chosen >> column & 1 == 1).collect();
        let Some(part) = least_squares(rows, &used) else { continue };
        if part.iter().any(|value| *value < 0.0) {
            continue;
        }
        let mut solution = [0.0; N];
        for (column, value) in used.iter().zip(part) {
            solution[*column] = value;
        }
        let miss = |(columns, value): &([f64; N], f64)| {
            let fitted: f64 = columns.iter().zip(solution).map(|(column, x)| column * x).sum();
            (fitted - value) * (fitted - value)
        };
        let error: f64 = rows.iter().map(miss).sum();
        if error < best.1 {
            best = (solution, error);
        }
    }
    best.0
}

/// The normal equations of the used columns, solved by elimination; `None` where they have no
/// single solution.
fn least_squares<const N: usize>(rows: &[([f64; N], f64)], used: &[usize]) -> Option<Vec<f64>> {
    let size = used.len();
    let mut equations = vec![vec![0.0; size + 1]; size];
    for (columns, value) in rows {
        for (row, i) in used.iter().enumerate() {
            for (column, j) in used.iter().enumerate() {
                equations[row][column] += columns[*i] * columns[*j];
            }
            equations[row][size] += columns[*i] * value;
        }
    }
    for pivot in 0..size {
        let largest = (pivot..size)
            .max_by(|one, other| equations[*one][pivot].abs().total_cmp(&equations[*other][pivot].abs()))?;
        equations.swap(pivot, largest);
        if equations[pivot][pivot].abs() < 1e-12 {
            return None;
        }
        for row in 0..size {
            if row != pivot {
                let factor = equations[row][pivot] / equations[pivot][pivot];
                let pivoted = equations[pivot].clone();
                for (own, pivots) in equations[row].iter_mut().zip(pivoted) {
                    *own -= factor * pivots;
                }
            }
        }
    }
    Some((0..size).map(|row| equations[row][size] / equations[row][row]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_below_zero_are_left_out() {
        let line: Vec<([f64; 2], f64)> =
            [(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)].map(|(x, y)| ([1.0, x], y)).to_vec();
        let [offset, slope] = non_negative(&line);
        assert!((offset - 3.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9, "{offset} {slope}");
        let falling: Vec<([f64; 2], f64)> = [(1.0, 5.0), (2.0, 3.0)].map(|(x, y)| ([1.0, x], y)).to_vec();
        assert_eq!(non_negative(&falling), [4.0, 0.0]);
    }
}
