//! The pages that benches read.

/// A page of a real vLLM 0.32 under load: 50 kB, 425 series.
pub const RECORDED: &str = include_str!("../tests/data/loaded.txt");

/// The families that a scrape typically wants: three gauges and a histogram.
pub const WANTED: [&str; 4] = [
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:time_to_first_token_seconds",
];

/// About 1 MB: the recorded page with 32 engines.
///
/// # Panics
/// Where the recorded page is another one.
#[must_use]
pub fn megabyte() -> String {
    let page = with_engines(RECORDED, 32);
    assert!((900_000..1_100_000).contains(&page.len()), "{} bytes", page.len());
    page
}

/// The page as a server with `engines` engines prints it: each family has the series of one
/// engine after those of another.
fn with_engines(page: &str, engines: usize) -> String {
    let mut families: Vec<Vec<&str>> = Vec::new();
    for line in page.lines() {
        match families.last_mut() {
            Some(family) if !line.starts_with("# HELP") => family.push(line),
            _ => families.push(vec![line]),
        }
    }
    let mut larger = String::new();
    for family in families {
        let (comments, series): (Vec<&str>, Vec<&str>) =
            family.iter().partition(|line| line.starts_with('#'));
        for line in comments {
            larger.push_str(line);
            larger.push('\n');
        }
        let repeated = series.iter().any(|line| line.contains("engine=\"0\""));
        for engine in 0..if repeated { engines } else { 1 } {
            for line in &series {
                larger.push_str(&line.replace("engine=\"0\"", &format!("engine=\"{engine}\"")));
                larger.push('\n');
            }
        }
    }
    larger
}
