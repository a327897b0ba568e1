//! The demo in a terminal: a table that is drawn over and over, or a line a second where there
//! is nobody to draw for.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use super::{
    history::{Frame, History, PodFrame},
    scenario::{RUNNING_TARGET, WAITING_TARGET},
    summary::wrapped,
};
use sim::{cluster::Stage, hpa::ceiling};

/// Where the demo shows itself.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    /// Lines of the picture that stands there now.
    drawn: usize,
    next_line_at: f64,
}

const WIDTH: usize = 96;
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

impl Screen {
    #[must_use]
    pub(crate) fn standard() -> Self {
        Self { terminal: io::stdout().is_terminal(), drawn: 0, next_line_at: 0.0 }
    }

    /// Shows the latest frame. `length` is the demo's, in seconds.
    pub(crate) fn show(&mut self, history: &History, length: f64) -> io::Result<()> {
        let Some(frame) = history.frames.last() else { return Ok(()) };
        let mut out = io::stdout().lock();
        if self.terminal {
            let picture = picture(history, frame, length);
            if self.drawn > 0 {
                write!(out, "\x1b[{}A\x1b[J", self.drawn)?;
            }
            self.drawn = picture.lines().count();
            out.write_all(picture.as_bytes())?;
        } else if frame.at >= self.next_line_at {
            self.next_line_at = frame.at.floor() + 1.0;
            writeln!(out, "{}", line(history, frame))?;
        }
        out.flush()
    }
}

/// One line for a log.
fn line(history: &History, frame: &Frame) -> String {
    let asked = frame.asked().map_or_else(|| "-".into(), |asked| asked.to_string());
    format!(
        "{:>5.1} s {:<8} gateway {:>4}  waiting {:>4}  running {:>4}  replicas {} wanted, {} serving, {} loading  \
         asked {asked}  pushes {}  {}",
        frame.at,
        frame.stretch,
        frame.held,
        frame.waiting(),
        frame.running(),
        frame.wanted,
        frame.serving(),
        frame.loading(),
        history.pushes().len(),
        frame.why,
    )
}

/// The whole picture, with colours.
fn picture(history: &History, frame: &Frame, length: f64) -> String {
    let mut text = String::new();
    let through = if length > 0.0 { frame.at / length } else { 1.0 };
    let _ = writeln!(
        text,
        "{BOLD}keda-kaito-scaler demo{PLAIN}  {:>4.1} of {length:.0} s  {CYAN}{:<8}{PLAIN} {:>3.0} requests/s  {}",
        frame.at,
        frame.stretch,
        frame.rate,
        bar(through, 30),
    );
    let _ = writeln!(
        text,
        "{BOLD}default/phi-4{PLAIN}  replicas {BOLD}{}{PLAIN} wanted  {GREEN}{} serving{PLAIN}  {YELLOW}{} on their \
         way{PLAIN}   gateway holds {}   served {}   429s {}",
        frame.wanted,
        frame.serving(),
        frame.loading(),
        frame.held,
        frame.served,
        frame.refused,
    );
    let last_push = history.pushes().last().map_or_else(|| "none".into(), |at| format!("at {at:.2} s"));
    let _ = writeln!(
        text,
        "KEDA reads  {}   {}   {}   last push {last_push}",
        reading("waiting", frame.values[0], WAITING_TARGET),
        reading("running", frame.values[1], RUNNING_TARGET),
        if frame.active { format!("{GREEN}active{PLAIN}") } else { format!("{DIM}inactive{PLAIN}") },
    );
    // Always two lines, so that nothing below jumps.
    let mut why = wrapped(&frame.why, WIDTH - 12).into_iter();
    for label in ["why", ""] {
        let _ = writeln!(text, "{label:<12}{}", why.next().unwrap_or_default());
    }
    let _ = writeln!(
        text,
        "\n{DIM}  POD          MODEL SERVER            SCALER SAYS   PAGE      WAITING  RUNNING  KV{PLAIN}"
    );
    for row in 0..ROWS {
        let _ = writeln!(text, "{}", frame.pods.get(row).map(|pod| pod_row(frame, pod)).unwrap_or_default());
    }
    let series = |of: fn(&Frame) -> f64| spark(history, length, of);
    let queue = |frame: &Frame| (frame.held + frame.waiting()) as f64;
    let _ = writeln!(text, "\n  queue    {CYAN}{}{PLAIN} {:.0}", series(queue), queue(frame));
    let serving = |frame: &Frame| frame.serving() as f64;
    let _ = writeln!(
        text,
        "  wanted   {YELLOW}{}{PLAIN} {}",
        series(|frame| f64::from(frame.wanted)),
        frame.wanted
    );
    let _ = writeln!(text, "  serving  {GREEN}{}{PLAIN} {:.0}", series(serving), serving(frame));
    text
}

/// Pods that there is room for; the demo has at most six, and some that leave.
const ROWS: usize = 7;

fn reading(what: &str, value: Option<f64>, target: f64) -> String {
    value.map_or_else(
        || format!("{what} -"),
        |value| format!("{what} {value:.0} / {target:.0} each → {BOLD}{}{PLAIN}", ceiling(value / target)),
    )
}

fn pod_row(frame: &Frame, pod: &PodFrame) -> String {
    let (colour, state) = match pod.stage {
        _ if pod.hangs => (RED, "serving, page hangs".to_owned()),
        Stage::Unscheduled => (YELLOW, "waits for a GPU".to_owned()),
        Stage::Downloading => (YELLOW, format!("downloads    {}", bar(pod.started, 8))),
        Stage::Loading => (YELLOW, format!("loads        {}", bar(pod.started, 8))),
        Stage::Serving => (GREEN, "serves".to_owned()),
        Stage::Terminating => (DIM, "is going".to_owned()),
    };
    let known = frame.phases.iter().find(|(uid, ..)| *uid == pod.uid);
    let (phase, page) =
        known.map_or(("-", "-"), |(_, phase, page)| (phase.as_str(), page.as_deref().unwrap_or("-")));
    format!(
        "  {:<12} {colour}{state:<23}{PLAIN} {phase:<13} {page:<9} {:>7}  {:>7}  {:>3.0}%",
        pod.name,
        pod.waiting,
        pod.running,
        pod.kv_usage * 100.0
    )
}

/// A bar of `cells` characters, filled to `share`.
fn bar(share: f64, cells: u32) -> String {
    let filled = (0..cells).filter(|cell| (f64::from(*cell) + 0.5) / f64::from(cells) <= share).count();
    "█".repeat(filled) + &"░".repeat(cells as usize - filled)
}

/// The whole demo as one line of blocks, of which each stands for the highest value of its
/// share of the time.
fn spark(history: &History, length: f64, of: impl Fn(&Frame) -> f64) -> String {
    const CELLS: u32 = 70;
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = history.frames.iter().map(&of).fold(1.0, f64::max);
    let mut cells = String::new();
    for cell in 0..CELLS {
        let share = |cell: u32| length * f64::from(cell) / f64::from(CELLS);
        let (from, to) = (share(cell), share(cell + 1));
        let inside = history.frames.iter().filter(|frame| (from..to).contains(&frame.at));
        let value = inside.map(&of).reduce(f64::max);
        let block = value.map(|value| {
            let level = ceiling(value / highest * 7.0) as usize;
            BLOCKS.get(level).copied().unwrap_or('█')
        });
        match block {
            Some(block) => cells.push(block),
            // Not every share has a frame, but the past has no holes.
            None if from < history.length() => cells.push(cells.chars().last().unwrap_or(' ')),
            None => cells.push(' '),
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_from_the_left() {
        assert_eq!([0.0, 0.5, 1.0].map(|share| bar(share, 4)), ["░░░░", "██░░", "████"]);
    }
}
