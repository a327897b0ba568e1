//! A trace in a file, of any format.

use std::path::{Path, PathBuf};

use super::{
    Prefix, Request, RequestStream, Trace, TraceError,
    format::Format,
    lines::{self, Line, Lines},
    log::{Findings, Log, LogError},
    prometheus::Dump,
    rates::{Columns, Rates},
    record::Record,
    row::{Layout, Row, shown},
    scaled::{Part, Scaler, Scaling},
    window::{Drawn, Windows, microseconds},
};

/// How a file is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Told from the file's first line where it is not given.
    pub format: Option<Format>,
    pub part: Part,
    pub scaling: Scaling,
    /// Of what is drawn: arrivals and lengths of windows, and copies.
    pub seed: u64,
    /// Whose minutes of a record of several targets.
    pub target: Option<String>,
}

/// A file whose format is known. It is read anew each time that it is opened.
#[derive(Clone, Debug)]
pub struct TraceFile {
    name: String,
    path: PathBuf,
    format: Format,
    options: Options,
}

/// What reading a trace once tells about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    pub format: Format,
    pub requests: u64,
    /// From the first arrival to the last, in microseconds.
    pub span_us: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// The most arrivals within one minute of the trace.
    pub busiest_minute: u64,
    pub findings: Findings,
}

impl TraceFile {
    /// Opens a file and tells its format.
    pub fn new(path: &Path, options: Options) -> Result<Self, TraceError> {
        let io = |source| TraceError::Io { path: path.to_owned(), source };
        let format = if let Some(format) = options.format {
            format
        } else {
            let mut lines = Lines::new(lines::open(path).map_err(io)?);
            let first = lines.next_line().map_err(io)?;
            let content = |text: String| TraceError::Content(format!("{}: {text}", path.display()));
            let Some(first) = first else { return Err(content("is empty".to_owned())) };
            let text = first.text.map_err(|unreadable| content(format!("its first line {unreadable}")))?;
            Format::of_first_line(text).ok_or_else(|| {
                let known = Format::ALL.map(|format| format!("\n  {format}: {}", format.first_line()));
                content(format!(
                    "its first line, `{}`, is that of no format; --format takes one of{}",
                    shown(text),
                    known.concat()
                ))
            })?
        };
        // The name without what it shares with every other: data.csv.gz is data.
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = file.split('.').next().filter(|stem| !stem.is_empty()).unwrap_or(&file).to_owned();
        Ok(Self { name, path: path.to_owned(), format, options })
    }

    /// The same file with other draws.
    #[must_use]
    pub fn with_seed(&self, seed: u64) -> Self {
        Self { options: Options { seed, ..self.options.clone() }, ..self.clone() }
    }

    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Reads it from end to end.
    pub fn survey(&self) -> Result<Survey, TraceError> {
        let mut requests = self.requests()?;
        let mut survey = Survey {
            format: self.format,
            requests: 0,
            span_us: 0,
            input_tokens: 0,
            output_tokens: 0,
            busiest_minute: 0,
            findings: Findings::default(),
        };
        let (mut minute, mut in_minute) = (0, 0);
        while let Some(request) = requests.next().transpose()? {
            survey.requests += 1;
            survey.span_us = request.at_us;
            survey.input_tokens += u64::from(request.input_tokens);
            survey.output_tokens += u64::from(request.output_tokens);
            let own = request.at_us / 60_000_000;
            in_minute = if own == minute { in_minute + 1 } else { 1 };
            minute = own;
            survey.busiest_minute = survey.busiest_minute.max(in_minute);
        }
        if survey.requests == 0 {
            return Err(self.failed(LogError::Empty));
        }
        survey.findings = requests.source.findings().clone();
        Ok(survey)
    }

    fn failed(&self, error: LogError) -> TraceError {
        match error {
            LogError::Read { line, source } => {
                let kind = source.kind();
                let text = format!("failed to read line {line}: {source}");
                TraceError::Io { path: self.path.clone(), source: std::io::Error::new(kind, text) }
            }
            error => TraceError::Content(format!("{}: {error}", self.path.display())),
        }
    }

    fn requests(&self) -> Result<Requests, TraceError> {
        let io = |source| TraceError::Io { path: self.path.clone(), source };
        let content = |text: String| TraceError::Content(format!("{}: {text}", self.path.display()));
        let Options { scaling, seed, .. } = self.options;
        let reader = lines::open(&self.path).map_err(io)?;
        if self.format == Format::Prometheus {
            let dump = Dump::read(reader).map_err(|error| self.failed(error))?;
            return Ok(self.drawn(Box::new(dump)));
        }
        let mut lines = Lines::new(reader);
        let Some(Line { number, text }) = lines.next_line().map_err(io)? else {
            return Err(content("is empty".to_owned()));
        };
        let first = text.map_err(|unreadable| content(format!("its first line {unreadable}")))?.to_owned();
        let source = match self.format {
            Format::Rates => {
                let columns = Columns::of(&first).map_err(|missing| content(missing.to_string()))?;
                return Ok(self.drawn(Box::new(Rates::new(lines, columns))));
            }
            Format::Record => {
                let record = Record::new(lines, Some((number, first)), self.options.target.clone());
                return Ok(self.drawn(Box::new(record)));
            }
            Format::Azure | Format::BurstGpt | Format::Mooncake | Format::Csv | Format::Prometheus => {
                let layout =
                    Layout::of(self.format, &first).map_err(|missing| content(missing.to_string()))?;
                let Some((layout, header)) = layout else {
                    return Err(content(format!("a trace of the format {} has no lines", self.format)));
                };
                let first = (!header).then_some((number, first));
                Source::Log(Box::new(ScaledLog {
                    log: Log::new(lines, layout, first),
                    scaler: Scaler::new(scaling, seed),
                    part: self.options.part,
                    taken_last: 0,
                    ended: false,
                    unique: 0,
                }))
            }
        };
        Ok(Requests { file: self.clone(), source, ended: false })
    }

    fn drawn(&self, windows: Box<dyn Windows>) -> Requests {
        let drawn = Drawn::new(windows, self.options.part, self.options.scaling, self.options.seed);
        Requests { file: self.clone(), source: Source::Windows(Box::new(drawn)), ended: false }
    }
}

impl Trace for TraceFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Result<RequestStream, TraceError> {
        Ok(Box::new(self.requests()?))
    }
}

/// The requests of a file.
struct Requests {
    file: TraceFile,
    source: Source,
    ended: bool,
}

enum Source {
    Log(Box<ScaledLog>),
    Windows(Box<Drawn>),
}

impl Source {
    fn findings(&self) -> &Findings {
        match self {
            Self::Log(scaled) => scaled.log.findings(),
            Self::Windows(drawn) => drawn.findings(),
        }
    }
}

struct ScaledLog {
    log: Log,
    scaler: Scaler,
    part: Part,
    taken_last: u64,
    ended: bool,
    /// Blocks so far that were named because the trace does not name them.
    unique: u64,
}

impl ScaledLog {
    fn next_request(&mut self) -> Result<Option<Request>, LogError> {
        loop {
            if let Some(row) = self.scaler.give(self.taken_last, self.ended) {
                return Ok(Some(self.request(row)));
            }
            if self.ended {
                return Ok(None);
            }
            match self.log.next_row()? {
                Some(mut row) => {
                    let at = row.at as f64 / 1e6 - self.part.skipped;
                    if at >= self.part.length {
                        // The rest is not read.
                        self.ended = true;
                    } else if at >= 0.0 {
                        row.at = microseconds(at);
                        self.taken_last = row.at;
                        self.scaler.take(&row);
                    }
                }
                None => self.ended = true,
            }
        }
    }

    fn request(&mut self, mut row: Row) -> Request {
        // The rest of a prompt whose first blocks are named is its own.
        if !row.blocks.is_empty() {
            let blocks = row.prompt.div_ceil(Prefix::BLOCK_TOKENS) as usize;
            while row.blocks.len() < blocks {
                self.unique += 1;
                row.blocks.push(u64::MAX - self.unique);
            }
        }
        Request {
            at_us: row.at,
            input_tokens: row.prompt.max(1),
            output_tokens: row.answer,
            prefix: Prefix::new(&row.blocks),
        }
    }
}

impl Iterator for Requests {
    type Item = Result<Request, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = match &mut self.source {
            Source::Log(scaled) => scaled.next_request(),
            Source::Windows(drawn) => drawn.next_request(),
        };
        match next {
            Ok(Some(request)) => Some(Ok(request)),
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(error) => {
                self.ended = true;
                Some(Err(self.file.failed(error)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
