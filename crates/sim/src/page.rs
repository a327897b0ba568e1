//! vLLM's metrics page, rendered from a page that a real server printed: the same families,
//! labels and order, with the values of a simulated replica in place of the recorded ones.
//!
//! A page is compiled once for each filter (`?name[]=…`) into runs of fixed text and slots for
//! what moves; rendering then is a copy.

use std::{fmt::Write, sync::LazyLock};

use super::queueing::{Observed, Replica};

/// A page of a real vLLM 0.32.0 under load.
const RECORDED: &str = include_str!("../../../tests/data/loaded.txt");

/// What KAITO's image adds to the same registry.
const KAITO: &str = "\
# HELP kaito_ratelimit_rejected_total Requests refused with HTTP 429 because the queue was full
# TYPE kaito_ratelimit_rejected_total counter
kaito_ratelimit_rejected_total 0.0
# HELP kaito_ratelimit_rejected_created Requests refused with HTTP 429 because the queue was full
# TYPE kaito_ratelimit_rejected_created gauge
kaito_ratelimit_rejected_created 1.795554947985e+09
";

/// A value on the page that a replica moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slot {
    Running,
    Waiting,
    KvUsage,
    PromptTokens,
    GenerationTokens,
    Succeeded,
    Rejected,
    Histogram(Family, Part),
}

/// A histogram that the queueing model observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    TimeToFirstToken,
    InterToken,
    EndToEnd,
    Queue,
    Inference,
    Prefill,
    Decode,
    Prompt,
    Generation,
    StepTokens,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// Observations at or below this bound.
    Bucket(f64),
    Sum,
    Count,
}

const FAMILIES: [(&str, Family); 10] = [
    ("vllm:time_to_first_token_seconds", Family::TimeToFirstToken),
    ("vllm:inter_token_latency_seconds", Family::InterToken),
    ("vllm:e2e_request_latency_seconds", Family::EndToEnd),
    ("vllm:request_queue_time_seconds", Family::Queue),
    ("vllm:request_inference_time_seconds", Family::Inference),
    ("vllm:request_prefill_time_seconds", Family::Prefill),
    ("vllm:request_decode_time_seconds", Family::Decode),
    ("vllm:request_prompt_tokens", Family::Prompt),
    ("vllm:request_generation_tokens", Family::Generation),
    ("vllm:iteration_tokens_total", Family::StepTokens),
];

/// The slot of a recorded sample, or `None` where its recorded value stays.
fn slot(name: &str, labels: &str) -> Option<Slot> {
    match name {
        "vllm:num_requests_running" => Some(Slot::Running),
        "vllm:num_requests_waiting" => Some(Slot::Waiting),
        "vllm:num_requests_waiting_by_reason" if labels.contains("\"capacity\"") => Some(Slot::Waiting),
        "vllm:kv_cache_usage_perc" => Some(Slot::KvUsage),
        "vllm:prompt_tokens_total" => Some(Slot::PromptTokens),
        "vllm:prompt_tokens_by_source_total" if labels.contains("\"local_compute\"") => {
            Some(Slot::PromptTokens)
        }
        "vllm:generation_tokens_total" => Some(Slot::GenerationTokens),
        "vllm:request_success_total" if labels.contains("\"length\"") => Some(Slot::Succeeded),
        "http_requests_total" => Some(Slot::Succeeded),
        "kaito_ratelimit_rejected_total" => Some(Slot::Rejected),
        _ => histogram_slot(name, labels),
    }
}

fn histogram_slot(name: &str, labels: &str) -> Option<Slot> {
    let (family, suffix) = FAMILIES
        .iter()
        .find_map(|(prefix, family)| name.strip_prefix(prefix).map(|suffix| (*family, suffix)))?;
    let part = match suffix {
        "_sum" => Part::Sum,
        "_count" => Part::Count,
        "_bucket" => {
            let bound = labels.split_once("le=\"")?.1.split_once('"')?.0;
            Part::Bucket(if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? })
        }
        _ => return None,
    };
    Some(Slot::Histogram(family, part))
}

/// A recorded sample.
#[derive(Clone, Debug)]
struct Sample {
    name: String,
    /// Everything before the value: name, labels and a space.
    head: String,
    recorded: String,
    slot: Option<Slot>,
}

/// Samples under one HELP and TYPE.
#[derive(Clone, Debug, Default)]
struct Block {
    head: String,
    samples: Vec<Sample>,
}

/// A recorded page that serves as a template.
#[derive(Clone, Debug)]
pub struct Template(Vec<Block>);

static RECORDED_BLOCKS: LazyLock<Template> = LazyLock::new(|| Template::parsed(&[RECORDED, KAITO].concat()));

impl Template {
    /// The page of a vLLM server under KAITO that serves `model`.
    #[must_use]
    pub fn recorded(model: &str) -> Self {
        let mut template = RECORDED_BLOCKS.clone();
        let (recorded, wanted) = ("model_name=\"tiny\"", format!("model_name=\"{model}\""));
        for sample in template.0.iter_mut().flat_map(|block| &mut block.samples) {
            sample.head = sample.head.replace(recorded, &wanted);
        }
        template
    }

    fn parsed(text: &str) -> Self {
        let mut blocks: Vec<Block> = vec![];
        for line in text.lines() {
            if line.starts_with("# HELP") {
                blocks.push(Block::default());
            }
            let Some(block) = blocks.last_mut() else { continue };
            match line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
                None => block.head.extend([line, "\n"]),
                Some((head, value)) => {
                    let (name, labels) = head.split_at(head.find('{').unwrap_or(head.len()));
                    block.samples.push(Sample {
                        name: name.into(),
                        head: format!("{head} "),
                        recorded: value.into(),
                        slot: slot(name, labels),
                    });
                }
            }
        }
        Self(blocks)
    }

    /// The page with slots where `moves` says so and recorded values elsewhere. With a filter
    /// only the samples it names are there, with their HELP and TYPE, as vLLM does it: an
    /// unknown name gives nothing.
    #[must_use]
    pub fn compile(&self, filter: Option<&[String]>, moves: impl Fn(Slot) -> bool) -> Page {
        let wanted = |sample: &&Sample| filter.is_none_or(|names| names.contains(&sample.name));
        let mut page = Page::default();
        for block in &self.0 {
            let mut samples = block.samples.iter().filter(wanted).peekable();
            if samples.peek().is_some() {
                page.text.push_str(&block.head);
            }
            for sample in samples {
                page.text.push_str(&sample.head);
                match sample.slot.filter(|slot| moves(*slot)) {
                    Some(slot) => page.slots.push((page.text.len(), slot)),
                    None => page.text.push_str(&sample.recorded),
                }
                page.text.push('\n');
            }
        }
        page
    }
}

/// A compiled page: fixed text, and slots at rising offsets in it.
#[derive(Clone, Debug, Default)]
pub struct Page {
    text: String,
    slots: Vec<(usize, Slot)>,
}

impl Page {
    /// The page with the slots filled in.
    #[must_use]
    pub fn render(&self, value: impl Fn(Slot) -> f64) -> String {
        let mut page = String::with_capacity(self.text.len() + self.slots.len() * 8);
        let mut rest = 0;
        for (offset, slot) in &self.slots {
            page.push_str(&self.text[rest..*offset]);
            push_float(&mut page, value(*slot));
            rest = *offset;
        }
        page.push_str(&self.text[rest..]);
        page
    }
}

/// What a replica's page says in `slot`.
#[must_use]
pub fn value(replica: &Replica, slot: Slot) -> f64 {
    let measured = replica.measured();
    match slot {
        Slot::Running => replica.running() as f64,
        Slot::Waiting => replica.waiting() as f64,
        Slot::KvUsage => replica.kv_usage(),
        Slot::PromptTokens => measured.prompt_tokens as f64,
        Slot::GenerationTokens => measured.generation_tokens as f64,
        Slot::Succeeded => measured.succeeded as f64,
        Slot::Rejected => measured.rejected as f64,
        Slot::Histogram(family, part) => {
            let observed: &Observed = match family {
                Family::TimeToFirstToken => &measured.time_to_first_token,
                Family::InterToken => &measured.inter_token,
                Family::EndToEnd => &measured.end_to_end,
                Family::Queue => &measured.queue,
                Family::Inference => &measured.inference,
                Family::Prefill => &measured.prefill,
                Family::Decode => &measured.decode,
                Family::Prompt => &measured.prompt,
                Family::Generation => &measured.generation,
                Family::StepTokens => &measured.step_tokens,
            };
            match part {
                Part::Bucket(bound) => observed.at_or_below(bound) as f64,
                Part::Sum => observed.sum(),
                Part::Count => observed.count() as f64,
            }
        }
    }
}

/// A float as Python's Prometheus client prints it: always with a point, and with an exponent
/// from a million on.
fn push_float(page: &mut String, value: f64) {
    let plain = format!("{value:?}");
    match plain.find('.') {
        Some(point) if value > 0.0 && point > 6 => {
            let digits = [&plain[..1], ".", &plain[1..point], &plain[point + 1..]].concat();
            let _ = write!(page, "{}e+{:02}", digits.trim_end_matches(['0', '.']), point - 1);
        }
        _ => page.push_str(&plain),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        queueing::{Engine, bounds},
        traffic::Request,
    };
    use scaler_core::{exposition::samples, time::Moment};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    /// A replica that answered some requests, with 8 running and 2 waiting.
    fn busy() -> Replica {
        let engine = Engine {
            max_num_seqs: 8,
            kv_tokens: 8192,
            step: Duration::from_millis(20),
            step_per_sequence: Duration::from_millis(1),
            step_per_prompt_token: Duration::from_micros(50),
            max_batched_tokens: 2048,
        };
        let mut replica = Replica::new(engine);
        let mut now = Moment::from_unix(Duration::from_secs(1000));
        for output_tokens in [5, 10, 20, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400] {
            let _ = replica.offer(Request { sent: now, prompt_tokens: 100, output_tokens }, now);
            now = now + Duration::from_millis(80);
        }
        replica
    }

    fn sample<'a>(page: &'a str, head: &str) -> Option<&'a str> {
        page.lines().find_map(|line| line.strip_prefix(head)?.strip_prefix(' '))
    }

    #[test]
    fn with_nothing_moving_it_is_the_recorded_page() {
        let page = Template::recorded("tiny").compile(None, |_| false).render(|_| 0.0);
        assert_eq!(page, [RECORDED, KAITO].concat());
    }

    #[test]
    fn a_replica_shows_on_its_page() {
        let replica = busy();
        let page = Template::recorded("phi-4").compile(None, |_| true).render(|slot| value(&replica, slot));
        let labels = "{engine=\"0\",model_name=\"phi-4\"}";
        assert_eq!(sample(&page, &format!("vllm:num_requests_running{labels}")), Some("8.0"));
        assert_eq!(sample(&page, &format!("vllm:num_requests_waiting{labels}")), Some("2.0"));
        assert_eq!(sample(&page, &format!("vllm:time_to_first_token_seconds_count{labels}")), Some("11.0"));
        let last = "vllm:time_to_first_token_seconds_bucket{engine=\"0\",le=\"+Inf\",model_name=\"phi-4\"}";
        assert_eq!(sample(&page, last), Some("11.0"));
        assert_eq!(sample(&page, "kaito_ratelimit_rejected_total"), Some("0.0"));
        assert!((45_000..60_000).contains(&page.len()), "{}", page.len());
        assert_eq!(page.lines().count(), RECORDED.lines().count() + KAITO.lines().count());
    }

    #[test]
    fn a_filter_goes_by_sample_names_and_keeps_help_and_type() {
        let template = Template::recorded("phi-4");
        let render = |wanted: &[&str]| template.compile(Some(&names(wanted)), |_| true).render(|_| 3.0);
        let page = render(&["vllm:num_requests_waiting", "vllm:num_requests_running"]);
        assert_eq!(page.lines().count(), 6, "{page}");
        assert!(
            page.ends_with("vllm:num_requests_waiting{engine=\"0\",model_name=\"phi-4\"} 3.0\n"),
            "{page}"
        );
        assert_eq!(render(&["vllm:no_such_metric", "vllm:time_to_first_token_seconds"]), "");
        let histogram = render(&["vllm:time_to_first_token_seconds_bucket"]);
        assert_eq!(histogram.lines().count(), 2 + bounds::TIME_TO_FIRST_TOKEN.len() + 1);
    }

    /// The parser reads back exactly what the replica says.
    #[test]
    fn a_rendered_page_parses_back() {
        let replica = busy();
        let template = Template::recorded("phi-4");
        let page = template.compile(None, |_| true).render(|slot| value(&replica, slot));
        let mut parsed = samples(page.as_bytes());
        let recorded: Vec<_> = template.0.iter().flat_map(|block| &block.samples).collect();
        for (sample, recorded) in parsed.by_ref().zip(&recorded) {
            assert_eq!(sample.name, recorded.name);
            let expected = recorded
                .slot
                .map_or_else(|| recorded.recorded.parse().unwrap(), |slot| value(&replica, slot));
            assert_eq!(sample.value.to_bits(), f64::to_bits(expected), "{}", recorded.head);
        }
        assert_eq!((parsed.next().is_none(), parsed.rejected()), (true, 0));
        assert_eq!(samples(page.as_bytes()).count(), recorded.len());
    }

    /// Every bucket of the page is one that the model counts exactly.
    #[test]
    fn the_models_bounds_are_the_pages_bounds() {
        let template = Template::recorded("phi-4");
        let replica = busy();
        let printed = |wanted: Family| {
            let slots = template.0.iter().flat_map(|block| &block.samples).filter_map(|sample| sample.slot);
            let bounds = slots.filter_map(move |slot| match slot {
                Slot::Histogram(family, Part::Bucket(bound)) if family == wanted => Some(bound),
                _ => None,
            });
            bounds.collect::<Vec<_>>()
        };
        let measured = replica.measured();
        for (family, observed) in [
            (Family::TimeToFirstToken, &measured.time_to_first_token),
            (Family::InterToken, &measured.inter_token),
            (Family::EndToEnd, &measured.end_to_end),
            (Family::Decode, &measured.decode),
            (Family::Prompt, &measured.prompt),
            (Family::Generation, &measured.generation),
            (Family::StepTokens, &measured.step_tokens),
        ] {
            let expected: Vec<f64> = observed.bounds().iter().copied().chain([f64::INFINITY]).collect();
            assert_eq!(printed(family), expected, "{family:?}");
        }
    }

    #[test]
    fn floats_look_as_python_prints_them() {
        let table = [
            (0.0, "0.0"),
            (11.0, "11.0"),
            (0.000_488_311_054_141_488_1, "0.0004883110541414881"),
            (123_456.0, "123456.0"),
            (4_932_370_432.0, "4.932370432e+09"),
            (1_795_554_947.984_834, "1.795554947984834e+09"),
            (1_000_000.0, "1e+06"),
        ];
        for (value, printed) in table {
            let mut page = String::new();
            push_float(&mut page, value);
            assert_eq!(page, printed);
        }
    }
}
