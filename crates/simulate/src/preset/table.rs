//! The measured performance tables that the presets are fitted from.

use std::{collections::BTreeMap, io::Read as _};

use flate2::read::GzDecoder;

/// Llama-2-70B, measured by the authors of Splitwise (MIT; see data/README.md).
const SPLITWISE: &[u8] = include_bytes!("../../data/perf-splitwise-llama2-70b-bloom.csv.gz");
/// Llama-3.1-8B, measured by the authors of `SageServe` (MIT; see data/README.md).
const SAGESERVE: &[u8] = include_bytes!("../../data/perf-sageserve-llama31-8b-a100.csv.gz");

/// One of the tables in the data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Splitwise,
    SageServe,
}

/// The rows of a table that speak of one model on one kind of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    pub table: Table,
    pub model: &'static str,
    pub gpu: &'static str,
    pub gpus: u32,
}

/// What was run: a batch of equal prompts, and how many tokens each was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    pub batch: u32,
    pub prompt: u32,
    pub answer: u32,
}

impl Workload {
    #[must_use]
    pub fn prompt_tokens(self) -> f64 {
        f64::from(self.batch) * f64::from(self.prompt)
    }
}

/// What was measured for one workload: medians over its repetitions, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub workload: Workload,
    /// From the start to the batch's first tokens.
    pub prefill: f64,
    /// Between two tokens of a sequence.
    pub itl: f64,
}

/// Why a table could not be read: it is part of the program, so this is a fault of the build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("the performance table of {0} can't be decompressed")]
    Compressed(&'static str),
    #[error("the performance table of {model} has no column {column}")]
    Column { model: &'static str, column: &'static str },
    #[error("line {line} of the performance table of {model} does not have {column} as a number")]
    Number { model: &'static str, line: usize, column: &'static str },
    #[error("the performance table has no rows of {0}")]
    Empty(&'static str),
}

/// The cells of a model on some hardware, by workload.
pub fn cells(hardware: Hardware) -> Result<Vec<Cell>, TableError> {
    let model = hardware.model;
    let (compressed, to_ms, of_whole_answer) = match hardware.table {
        Table::Splitwise => (SPLITWISE, 1.0, false),
        // Seconds, and the token time is that of the whole answer.
        Table::SageServe => (SAGESERVE, 1_000.0, true),
    };
    let mut text = String::new();
    GzDecoder::new(compressed).read_to_string(&mut text).map_err(|_| TableError::Compressed(model))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let place = |column: &'static str| {
        header.iter().position(|name| *name == column).ok_or(TableError::Column { model, column })
    };
    let (named, gpu, gpus) = (place("model")?, place("hardware")?, place("tensor_parallel")?);
    let columns = [
        (place("batch_size")?, "batch_size"),
        (place("prompt_size")?, "prompt_size"),
        (place("token_size")?, "token_size"),
        (place("prompt_time")?, "prompt_time"),
        (place("token_time")?, "token_time"),
    ];
    let wanted_gpus = hardware.gpus.to_string();
    let mut found: BTreeMap<Workload, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for (index, line) in lines.enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |place: usize| fields.get(place).copied().unwrap_or_default();
        if field(named) != model || field(gpu) != hardware.gpu || field(gpus) != wanted_gpus {
            continue;
        }
        let mut numbers = [0.0; 5];
        for (number, (place, column)) in numbers.iter_mut().zip(columns) {
            let failed = TableError::Number { model, line: index + 2, column };
            *number = field(place).parse().map_err(|_| failed)?;
        }
        let [batch, prompt, answer, prefill, token] = numbers;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes in tokens")]
        let workload = Workload { batch: batch as u32, prompt: prompt as u32, answer: answer as u32 };
        let steps = if of_whole_answer { answer } else { 1.0 };
        let (prefills, itls) = found.entry(workload).or_default();
        prefills.push(prefill * to_ms);
        itls.push(token * to_ms / steps);
    }
    if found.is_empty() {
        return Err(TableError::Empty(model));
    }
    Ok(found
        .into_iter()
        .map(|(workload, (prefills, itls))| Cell { workload, prefill: median(prefills), itl: median(itls) })
        .collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    if values.len() % 2 == 1 { values[upper] } else { f64::midpoint(values[upper - 1], values[upper]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_medians_of_their_repetitions_in_milliseconds() {
        let h100 = Hardware { table: Table::Splitwise, model: "llama2-70b", gpu: "h100-80gb", gpus: 4 };
        let itl = |batch| {
            let found = cells(h100).unwrap();
            let cell =
                found.iter().find(|cell| cell.workload == Workload { batch, prompt: 512, answer: 128 });
            (cell.unwrap().itl * 10.0).round() / 10.0
        };
        assert_eq!([itl(16), itl(32), itl(64)], [32.8, 36.9, 52.4]);
        let a100 = Hardware { table: Table::SageServe, model: "Llama-3.1-8B", gpu: "a100-80gb", gpus: 2 };
        let found = cells(a100).unwrap();
        let cell =
            found.iter().find(|cell| cell.workload == Workload { batch: 32, prompt: 512, answer: 128 });
        assert_eq!((cell.unwrap().itl * 100.0).round(), 1605.0);
        assert_eq!((cell.unwrap().prefill * 10.0).round(), 482.0);
    }

    #[test]
    fn hardware_that_was_not_measured_has_no_cells() {
        let none = Hardware { table: Table::Splitwise, model: "llama2-70b", gpu: "h100-80gb", gpus: 3 };
        assert_eq!(cells(none), Err(TableError::Empty("llama2-70b")));
    }
}
