//! Engines by name, fitted from measured tables.

use std::fmt::Write as _;

use crate::engine::EngineSpec;

pub mod fit;
pub mod table;

use self::{
    fit::{Fit, Quantity, fit},
    table::{Hardware, Table, TableError},
};

/// An engine that `--model` names: a model on the GPUs of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    pub name: &'static str,
    /// What it is, for a list.
    pub what: &'static str,
    source: Source,
    /// Tokens that fit into what the weights leave of 90 % of the GPUs' memory.
    kv_tokens: u64,
}

/// Where a preset's constants come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Fitted(Hardware),
    /// From the memory's bandwidth and the GPU's arithmetic: nobody published a table. In
    /// microseconds: a step, each sequence, each prompt token.
    Roofline(u32, u32, u32),
}

const fn llama2_70b(gpu: &'static str, gpus: u32) -> Source {
    Source::Fitted(Hardware { table: Table::Splitwise, model: "llama2-70b", gpu, gpus })
}

/// Every preset.
pub const PRESETS: [Preset; 5] = [
    Preset {
        name: "phi-4@a100",
        what: "phi-4 (14B) on one A100 80GB",
        source: Source::Roofline(20_000, 300, 190),
        kv_tokens: 187_000,
    },
    Preset {
        name: "8b@a100x2",
        what: "Llama-3.1-8B on two A100 80GB",
        source: Source::Fitted(Hardware {
            table: Table::SageServe,
            model: "Llama-3.1-8B",
            gpu: "a100-80gb",
            gpus: 2,
        }),
        kv_tokens: 980_000,
    },
    Preset {
        name: "70b@h100x8",
        what: "Llama-2-70B on eight H100 80GB",
        source: llama2_70b("h100-80gb", 8),
        kv_tokens: 1_330_000,
    },
    Preset {
        name: "70b@h100x4",
        what: "Llama-2-70B on four H100 80GB",
        source: llama2_70b("h100-80gb", 4),
        kv_tokens: 450_000,
    },
    Preset {
        name: "70b@a100x4",
        what: "Llama-2-70B on four A100 80GB",
        source: llama2_70b("a100-80gb", 4),
        kv_tokens: 450_000,
    },
];

/// Why there is no engine of a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    #[error(
        "there is no model {0:?}; there are {names}, and --engine takes any other by its numbers",
        names = PRESETS.map(|preset| preset.name).join(", ")
    )]
    Unknown(String),
    #[error(transparent)]
    Table(#[from] TableError),
}

impl Preset {
    /// The preset of a name.
    pub fn named(name: &str) -> Result<Self, PresetError> {
        let found = PRESETS.into_iter().find(|preset| preset.name == name);
        found.ok_or_else(|| PresetError::Unknown(name.to_owned()))
    }

    /// The engine, with vLLM's usual limits.
    pub fn engine(self) -> Result<EngineSpec, TableError> {
        Ok(match self.source {
            Source::Fitted(hardware) => {
                let law = fit(hardware)?.law;
                EngineSpec::of_milliseconds(law.step, law.sequence, law.prompt_token, self.kv_tokens)
            }
            Source::Roofline(step, sequence, prompt_token) => {
                let [step, sequence, prompt_token] =
                    [step, sequence, prompt_token].map(|microseconds| f64::from(microseconds) / 1e3);
                EngineSpec::of_milliseconds(step, sequence, prompt_token, self.kv_tokens)
            }
        })
    }

    /// Its fit, where it has one.
    pub fn fit(self) -> Result<Option<Fit>, TableError> {
        match self.source {
            Source::Fitted(hardware) => fit(hardware).map(Some),
            Source::Roofline(..) => Ok(None),
        }
    }
}

/// The presets with their constants and, of each fit, its error in every cell of its table.
pub fn describe() -> Result<String, TableError> {
    let mut text = String::new();
    for preset in PRESETS {
        let engine = preset.engine()?;
        let ms = |ns: u64| ns as f64 / 1e6;
        let _ = writeln!(
            text,
            "{}: {}\n  a step takes {:.2} ms + {:.3} ms for each sequence + {:.4} ms for each prompt token; \
             {} tokens of KV cache",
            preset.name,
            preset.what,
            ms(engine.a_ns),
            ms(engine.c_ns),
            ms(engine.b_ns),
            engine.kv_tokens
        );
        let Some(fit) = preset.fit()? else {
            text.push_str("  estimated from the GPU's bandwidth and arithmetic; nothing was measured\n\n");
            continue;
        };
        let _ = writeln!(
            text,
            "  the largest error in the cells that it is held to: {:.1} % between tokens, {:.1} % of prefill\n\n  \
             {:<24}{:>10}{:>10}{:>9}",
            fit.worst(Quantity::Itl) * 100.0,
            fit.worst(Quantity::Prefill) * 100.0,
            "batch × prompt + answer",
            "measured",
            "fitted",
            "error"
        );
        for (quantity, name) in [(Quantity::Itl, "between tokens, ms"), (Quantity::Prefill, "prefill, ms")] {
            let _ = writeln!(text, "  {name}");
            for cell in fit.compared.iter().filter(|cell| cell.quantity == quantity) {
                let workload = cell.workload;
                let size = format!("{} × {} + {}", workload.batch, workload.prompt, workload.answer);
                let reason = cell.outside.map(|outside| format!("  {}", outside.reason()));
                let _ = writeln!(
                    text,
                    "  {size:<24}{:>10.1}{:>10.1}{:>+8.1}%{}",
                    cell.measured,
                    cell.fitted,
                    cell.error() * 100.0,
                    reason.unwrap_or_default()
                );
            }
        }
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{fit::Outside, *};

    fn fits() -> Vec<(&'static str, Fit)> {
        let fitted = PRESETS.into_iter().filter_map(|preset| Some((preset.name, preset.fit().unwrap()?)));
        fitted.collect()
    }

    /// Within 10 % of what was measured wherever there is no reason why it can't be.
    #[test]
    fn the_law_is_within_ten_percent_of_the_tables() {
        let fits = fits();
        assert_eq!(fits.len(), 4);
        for (name, fit) in fits {
            for cell in fit.compared.iter().filter(|cell| cell.outside.is_none()) {
                assert!(cell.error().abs() <= 0.1, "{name}: {cell:?}");
            }
        }
    }

    /// The time between tokens at every batch size, and the prefill of every batch that is
    /// larger than what one step of today's engines prefills at once.
    #[test]
    fn no_batch_size_is_excused_between_tokens_nor_any_large_one_in_prefill() {
        for (name, fit) in fits() {
            let of_batches =
                |cell: &&fit::Compared| cell.workload.prompt == 512 && cell.workload.answer == 128;
            for cell in fit.compared.iter().filter(of_batches) {
                let excusable = cell.quantity == Quantity::Prefill
                    && (cell.workload.batch <= 8 || cell.outside == Some(Outside::FirstOfBatch));
                assert!(excusable || cell.outside.is_none(), "{name}: {cell:?}");
            }
        }
    }

    /// Who changes the fit sees which cells it loses.
    #[test]
    fn the_cells_with_a_reason_are_counted() {
        let counted: Vec<(&str, BTreeMap<String, usize>)> = fits()
            .into_iter()
            .map(|(name, fit)| {
                let mut counts = BTreeMap::new();
                for outside in fit.compared.iter().filter_map(|cell| cell.outside) {
                    *counts.entry(format!("{outside:?}")).or_default() += 1;
                }
                (name, counts)
            })
            .collect();
        let expected = [
            (
                "8b@a100x2",
                vec![("FirstOfBatch", 5), ("LongContext", 2), ("SmallPrefill", 3), ("TinyPrompt", 1)],
            ),
            ("70b@h100x8", vec![("SmallPrefill", 5), ("TinyPrompt", 1)]),
            ("70b@h100x4", vec![("SmallPrefill", 5), ("TinyPrompt", 1)]),
            ("70b@a100x4", vec![("OnePrompt", 1), ("SmallPrefill", 7), ("TinyPrompt", 2)]),
        ]
        .map(|(name, counts)| {
            (name, counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect())
        });
        assert_eq!(counted, expected);
    }

    #[test]
    fn the_constants_are_those_of_the_tables() {
        let constants = |name| {
            let engine = Preset::named(name).unwrap().engine().unwrap();
            [engine.a_ns / 10_000, engine.c_ns / 1_000, engine.b_ns / 100, engine.kv_tokens]
        };
        assert_eq!(constants("phi-4@a100"), [2_000, 300, 1_900, 187_000]);
        assert_eq!(constants("8b@a100x2"), [826, 244, 626, 980_000]);
        assert_eq!(constants("70b@h100x8"), [2_974, 306, 893, 1_330_000]);
        assert_eq!(constants("70b@h100x4"), [2_867, 326, 1_053, 450_000]);
        assert_eq!(constants("70b@a100x4"), [4_321, 399, 3_236, 450_000]);
    }

    #[test]
    fn a_name_that_is_none_is_answered_with_those_that_are() {
        let error = Preset::named("gpt-9").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no model \"gpt-9\"; there are phi-4@a100, 8b@a100x2, 70b@h100x8, 70b@h100x4, 70b@a100x4, and \
             --engine takes any other by its numbers"
        );
    }

    #[test]
    fn the_list_names_every_preset_and_why_a_cell_is_off() {
        let list = describe().unwrap();
        assert!(PRESETS.iter().all(|preset| list.contains(preset.name)), "{list}");
        assert!(list.contains(Outside::FirstOfBatch.reason()), "{list}");
    }
}
