use std::{fs, io::Write as _};

use tempfile::TempDir;

use super::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

fn survey(name: &str, options: Options) -> Survey {
    TraceFile::new(&data(name), options).unwrap().survey().unwrap()
}

fn scaled(scale: f64) -> Options {
    Options { scaling: Scaling::of(scale, 1.0).unwrap(), ..Options::default() }
}

fn means(survey: &Survey) -> (f64, f64) {
    let mean = |tokens: u64| (tokens as f64 / survey.requests as f64).round();
    (mean(survey.input_tokens), mean(survey.output_tokens))
}

#[test]
fn azure_is_read_whole() {
    let survey = survey("azure-llm-2023-conv.csv.gz", Options::default());
    assert_eq!((survey.format, survey.requests, survey.span_us / 1_000_000), (Format::Azure, 19_366, 3_501));
    assert_eq!(means(&survey), (1_155.0, 211.0));
    assert_eq!(survey.findings, Findings { lines: 19_366, ..Findings::default() });
}

#[test]
fn mooncake_is_read_with_its_prefixes() {
    let file = TraceFile::new(&data("mooncake-fast25-conversation.jsonl.gz"), Options::default()).unwrap();
    let survey = file.survey().unwrap();
    assert_eq!((survey.format, survey.requests), (Format::Mooncake, 12_031));
    assert_eq!(means(&survey), (12_035.0, 343.0));
    // What an infinite cache has seen before, counted on the unchanged trace: 36.6 %.
    let mut seen = std::collections::HashSet::new();
    let (mut again, mut all) = (0_u32, 0_u32);
    for request in file.open().unwrap() {
        for block in request.unwrap().prefix.blocks() {
            all += 1;
            again += u32::from(!seen.insert(*block));
        }
    }
    assert_eq!((all, seen.len()), (288_500, 182_790));
    assert!((f64::from(again) / f64::from(all) - 0.366).abs() < 0.001);
}

#[test]
fn rates_are_drawn_with_the_tables_rates_and_lengths() {
    let day = survey("servegen-deepseek-r1-10min.csv.gz", scaled(0.1));
    assert_eq!(day.format, Format::Rates);
    let rate = day.requests as f64 * 10.0 / 86_400.0;
    assert!((rate / 16.0 - 1.0).abs() < 0.03, "{rate}");
    // 1,868 a second while there is traffic, and 84 of 2,016 windows have none.
    let weeks = survey("servegen-m-mid-10min.csv.gz", scaled(1.0 / 10_000.0));
    let rate = weeks.requests as f64 * 10_000.0 / 1_209_600.0;
    assert!((rate / 1_790.0 - 1.0).abs() < 0.02, "{rate}");
}

#[test]
fn the_same_seed_reads_the_same_and_another_seed_another() {
    let file = TraceFile::new(&data("servegen-deepseek-r1-10min.csv.gz"), scaled(0.01)).unwrap();
    let read = |file: &TraceFile| file.open().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(read(&file), read(&file));
    assert_ne!(read(&file), read(&file.with_seed(1)));
}

#[test]
fn a_log_is_scaled() {
    let survey = survey("azure-llm-2023-conv.csv.gz", scaled(3.5));
    assert!((survey.requests as f64 / 19_366.0 - 3.5).abs() < 0.03, "{}", survey.requests);
    assert!((means(&survey).0 - 1_155.0).abs() < 10.0, "{:?}", means(&survey));
}

#[test]
fn a_part_of_a_log_begins_at_zero() {
    let part = Part { skipped: 600.0, length: 300.0 };
    let file =
        TraceFile::new(&data("azure-llm-2023-conv.csv.gz"), Options { part, ..Options::default() }).unwrap();
    let requests: Vec<Request> = file.open().unwrap().collect::<Result<_, _>>().unwrap();
    assert!((1_000..2_500).contains(&requests.len()), "{}", requests.len());
    assert!(requests[0].at_us < 2_000_000 && requests.last().unwrap().at_us < 300_000_000);
    let whole = TraceFile::new(&data("azure-llm-2023-conv.csv.gz"), Options::default()).unwrap();
    let mut skipped =
        whole.open().unwrap().map(Result::unwrap).skip_while(|request| request.at_us < 600_000_000);
    let first = skipped.next().unwrap();
    assert_eq!(Request { at_us: first.at_us - 600_000_000, ..first }, requests[0]);
}

fn written(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.csv");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn error(text: &str, options: Options) -> String {
    let (folder, path) = written(text);
    let error = match TraceFile::new(&path, options) {
        Ok(file) => file.survey().unwrap_err(),
        Err(error) => error,
    };
    error.to_string().replace(&*folder.path().to_string_lossy(), "")
}

#[test]
fn what_is_no_trace_is_said() {
    let any = Options::default;
    let of = |format| Options { format: Some(format), ..Options::default() };
    assert_eq!(error("", any()), "/trace.csv: is empty");
    assert_eq!(error("\n \n", of(Format::Csv)), "/trace.csv: is empty");
    assert_eq!(error("t,in,out\n", any()), "/trace.csv: has no request in it");
    assert_eq!(error("t_s,rate_rps,in_mean,out_mean\n", any()), "/trace.csv: has no request in it");
    assert_eq!(error("t_s,rate_rps,in_mean,out_mean\n0,0,0,0\n", any()), "/trace.csv: has no request in it");
    let unknown = error("time,size\u{7}\n", any());
    assert!(
        unknown.starts_with(r"/trace.csv: its first line, `time,size\u{7}`, is that of no format"),
        "{unknown}"
    );
    assert!(
        unknown.contains("\n  azure: TIMESTAMP,ContextTokens,GeneratedTokens\n  burstgpt: "),
        "{unknown}"
    );
    let column = error("t,in,out\n", of(Format::Azure));
    assert!(column.starts_with("/trace.csv: the first line has no column TIMESTAMP"), "{column}");
    let negative = error("t,in,out\n-1,5,5\n", any());
    assert_eq!(
        negative,
        "/trace.csv: 1 of 1 lines can't be read, more than 1 %: line 2 has `-1` as the time, where a number of seconds of \
         0 or more is allowed"
    );
    let missing = TraceFile::new(Path::new("/nowhere.csv"), any()).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read /nowhere.csv: "), "{missing}");
}

#[test]
fn bad_lines_are_skipped_and_named_by_their_numbers_in_the_file() {
    let good = (0..200).map(|second| format!("{second},10,10")).collect::<Vec<_>>().join("\n");
    let (_folder, path) = written(&format!("t,in,out\n\n7,x,1\n{good}"));
    let survey = TraceFile::new(&path, Options::default()).unwrap().survey().unwrap();
    assert_eq!(survey.requests, 200);
    let said = "line 3 has `x` as the prompt's tokens, where a whole number from 0 to 10,000,000 is allowed; it was skipped";
    assert_eq!(survey.findings.sentences(), [said]);
}

#[test]
fn a_file_that_is_cut_fails_rather_than_ends() {
    let whole = fs::read(data("azure-llm-2023-conv.csv.gz")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.csv.gz");
    fs::File::create(&path).unwrap().write_all(&whole[..100_000]).unwrap();
    let file = TraceFile::new(&path, Options::default()).unwrap();
    let error = file.survey().unwrap_err().to_string();
    assert!(error.contains("failed to read line 10"), "{error}");
    // A stream ends after its error.
    let stream = file.open().unwrap();
    assert_eq!(stream.filter(Result::is_err).count(), 1);
}
