//! A trace of any length is read in the same memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufReader, Read};

use simulate::trace::{
    format::Format,
    lines::Lines,
    log::Log,
    row::Layout,
    scaled::{Scaler, Scaling},
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// A trace that is made as it is read: a line a millisecond, every thousandth out of order and
/// every thousandth bad.
struct Endless {
    lines: u64,
    made: u64,
    rest: Vec<u8>,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() && self.made < self.lines {
            let at = match self.made % 1_000 {
                7 => self.made.saturating_sub(3_000),
                _ => self.made,
            };
            let prompt = if self.made % 1_000 == 9 { "x" } else { "1155" };
            self.rest = format!("{}.{:03},{prompt},211\n", at / 1_000, at % 1_000).into_bytes();
            self.made += 1;
        }
        let taken = self.rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.rest[..taken]);
        self.rest.drain(..taken);
        Ok(taken)
    }
}

/// Bytes at the most while so many lines are read and scaled.
fn peak(lines: u64) -> usize {
    let _profiler = dhat::Profiler::builder().testing().build();
    let reader = BufReader::new(Endless { lines, made: 0, rest: Vec::new() });
    let layout = Layout::of(Format::Csv, "t,in,out").unwrap().unwrap().0;
    let mut log = Log::new(Lines::new(Box::new(reader)), layout, None);
    let mut scaler = Scaler::new(Scaling::of(1.5, 1.0).unwrap(), 1);
    let (mut given, mut last) = (0_u64, 0);
    while let Some(row) = log.next_row().unwrap() {
        last = row.at;
        scaler.take(&row);
        while let Some(row) = scaler.give(last, false) {
            given += u64::from(row.answer > 0);
        }
    }
    while scaler.give(last, true).is_some() {
        given += 1;
    }
    assert!(given > lines * 14 / 10, "{given} of {lines}");
    assert_eq!(log.findings().bad, lines / 1_000);
    dhat::HeapStats::get().max_bytes
}

#[test]
fn memory_does_not_grow_with_the_trace() {
    let (short, long) = (peak(50_000), peak(300_000));
    assert!(long < short * 11 / 10, "{short} bytes at 50,000 lines, {long} at 300,000");
    assert!(long < 16 << 20, "{long}");
}
