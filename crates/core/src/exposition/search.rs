//! The search for lines that may hold a wanted name.

use std::{collections::HashMap, sync::LazyLock};

use aho_corasick::packed;
use memchr::memrchr;

use crate::steps;

/// Finds the next line worth a look. It may find lines in vain; it never misses one.
#[derive(Clone, Debug)]
pub(super) enum Search {
    /// One SIMD pass for a fragment of every wanted name at once.
    Fragments(packed::Searcher),
    /// Where there are too many names for that, or no SIMD.
    EveryLine,
    Nothing,
}

impl Search {
    /// A search for lines that have one of `names`, none of them empty.
    pub(super) fn for_lines_with(names: &[String]) -> Self {
        if names.is_empty() {
            return Self::Nothing;
        }
        packed::Searcher::new(fragments(names)).map_or(Self::EveryLine, Self::Fragments)
    }

    /// The page from the next line on that is worth a look; `page` starts with a line.
    pub(super) fn next_line<'p>(&self, page: &'p [u8]) -> Option<&'p [u8]> {
        match self {
            Self::Fragments(searcher) => {
                let Some(hit) = searcher.find(page) else {
                    steps::take(page.len());
                    return None;
                };
                let hit = hit.start();
                let start = memrchr(b'\n', &page[..hit]).map_or(0, |newline| newline + 1);
                steps::take(2 * hit - start);
                Some(&page[start..])
            }
            Self::EveryLine => (!page.is_empty()).then_some(page),
            Self::Nothing => None,
        }
    }
}

/// How many bytes the searcher is to look at in each place. Fewer are faster, but found more
/// often in vain; from nine patterns on the searcher also confuses some with each other.
fn fingerprint_len(patterns: usize) -> usize {
    if patterns <= 8 { 2 } else { 3 }
}

/// The pattern to search for instead of each name: the part that starts where the name is
/// least like the rest of a page. The searcher looks for the first bytes of all patterns at
/// once and compares further only where these stand; the start of a name would stop it on
/// each line, as all of them start with `vllm:`.
///
/// It looks at as many bytes as its shortest pattern has, so the pattern with the rarest
/// start is cut to the wanted length.
fn fragments(names: &[String]) -> Vec<&[u8]> {
    let length = fingerprint_len(names.len());
    let mut fragments: Vec<_> = names.iter().map(|name| rarest_tail(name.as_bytes(), length)).collect();
    if let Some((_, rarest)) = fragments.iter_mut().min_by_key(|(seen, _)| *seen) {
        *rarest = &rarest[..length.min(rarest.len())];
    }
    fragments.into_iter().map(|(_, fragment)| fragment).collect()
}

/// The tail of `name` that starts with the rarest `length` bytes, after how often these stand
/// in [`MINIATURE`].
fn rarest_tail(name: &[u8], length: usize) -> (usize, &[u8]) {
    let seen = |start: &[u8]| SEEN.get(start).copied().unwrap_or(0);
    name.windows(length)
        .enumerate()
        .map(|(at, start)| (seen(start), &name[at..]))
        .min_by_key(|(seen, _)| *seen)
        .unwrap_or((0, name))
}

/// How often each two and each three bytes stand in [`MINIATURE`]. Counting them anew for each
/// name takes milliseconds.
static SEEN: LazyLock<HashMap<&[u8], usize>> = LazyLock::new(|| {
    let mut seen = HashMap::new();
    let page = MINIATURE.as_bytes();
    for bytes in page.windows(2).chain(page.windows(3)) {
        *seen.entry(bytes).or_default() += 1;
    }
    seen
});

/// A page in miniature, for telling what is common on a page. It only steers the speed.
const MINIATURE: &str = r#"
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 4096.0
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 1.795554947e+09
# HELP vllm:request_generation_tokens Number of generation tokens processed.
# TYPE vllm:request_generation_tokens histogram
vllm:request_generation_tokens_bucket{engine="0",le="1000.0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 18.0
# HELP vllm:inter_token_latency_seconds Histogram of inter-token latency in seconds.
# TYPE vllm:inter_token_latency_seconds histogram
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="meta-llama/Llama-3.1-8B-Instruct"} 18.0
vllm:e2e_request_latency_seconds_bucket{engine="0",le="0.3",model_name="meta-llama/Llama-3.1-8B-Instruct"} 18.0
vllm:request_queue_time_seconds_count{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 18.0
vllm:request_inference_time_seconds_sum{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 35.02589917
vllm:request_prefill_time_seconds_created{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 1.79e+09
vllm:request_decode_time_seconds_bucket{engine="0",le="2.5",model_name="meta-llama/Llama-3.1-8B-Instruct"} 4.0
vllm:request_max_num_generation_tokens_bucket{engine="0",le="20.0",model_name="m"} 2.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="external_kv_transfer"} 0.0
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 0.0
http_request_duration_highr_seconds_bucket{handler="/v1/completions",le="0.075",method="POST"} 0.0
sglang:num_requests_total trtllm_request_success_total tgi_request_count kaito_ratelimit_total
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::walk::split_line;

    /// A search that stops on the lines of other families is slow, though its result is right.
    #[test]
    fn hardly_stops_in_vain() {
        let wanted = ["vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"];
        let search = Search::for_lines_with(&wanted.map(str::to_owned));
        let mut rest = &include_bytes!("../../../../tests/data/loaded.txt")[..];
        let (mut found, mut in_vain) = (0, 0);
        while let Some(next) = search.next_line(rest) {
            let (line, after) = split_line(next);
            let line = String::from_utf8_lossy(line);
            let has_name = wanted.iter().any(|name| line.contains(name));
            *(if has_name { &mut found } else { &mut in_vain }) += 1;
            rest = after;
        }
        // HELP, TYPE and one sample of each, and four lines of `..._waiting_by_reason`.
        assert_eq!(found, 13);
        assert!(in_vain < found, "{in_vain} lines looked at in vain");
    }

    #[test]
    fn cuts_one_pattern_to_what_the_searcher_is_to_look_at() {
        let shortest = |names: &[String]| fragments(names).iter().map(|fragment| fragment.len()).min();
        let few = ["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"].map(str::to_owned);
        assert_eq!(shortest(&few), Some(2));
        assert_eq!(shortest(&["x".to_owned()]), Some(1));
        let many: Vec<String> = (0..9).map(|n| format!("vllm:family_{n}_total")).collect();
        assert_eq!(shortest(&many), Some(3));
    }
}
