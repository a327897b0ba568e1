//! The lines of a trace: plain or gzip, one at a time, so that its size does not matter.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

/// The longest line that is looked at, in bytes. A Mooncake line of 128 k tokens has 2 kB.
pub const LONGEST_LINE: usize = 1 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Opens a file, gzip or plain, whatever its name.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    decoded(BufReader::with_capacity(1 << 16, File::open(path)?))
}

/// What a reader gives, decompressed where it starts as gzip does.
pub fn decoded(mut reader: impl BufRead + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    // One byte would leave the second of the two unseen; a file gives both at once.
    let gzip = reader.fill_buf()?.starts_with(&GZIP);
    Ok(if gzip {
        Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader)))
    } else {
        Box::new(reader)
    })
}

/// A reader of lines that counts them.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    number: u64,
}

impl fmt::Debug for Lines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lines").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A line with its number, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub number: u64,
    /// Its text, or why it has none.
    pub text: Result<&'a str, Unreadable>,
}

/// Why a line is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("is longer than {LONGEST_LINE} bytes")]
    TooLong,
}

impl Lines {
    #[must_use]
    pub fn new(reader: Box<dyn BufRead + Send>) -> Self {
        Self { reader, line: Vec::new(), number: 0 }
    }

    /// The number of the line read last; 0 before the first.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The next line that is not blank; `None` at the end.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.line.clear();
            let taken = (&mut self.reader).take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut self.line)?;
            if taken == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.line.len() > LONGEST_LINE && self.line.last() != Some(&b'\n') {
                self.skip_rest()?;
                return Ok(Some(Line { number: self.number, text: Err(Unreadable::TooLong) }));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let text = std::str::from_utf8(self.line.trim_ascii()).map_err(|_| Unreadable::NotUtf8);
        Ok(Some(Line { number: self.number, text }))
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let (used, found) = match memchr::memchr(b'\n', buffer) {
                Some(place) => (place + 1, true),
                None => (buffer.len(), false),
            };
            self.reader.consume(used);
            if found || used == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn texts(bytes: Vec<u8>) -> Vec<(u64, Result<String, Unreadable>)> {
        let mut lines = Lines::new(decoded(Cursor::new(bytes)).unwrap());
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push((line.number, line.text.map(str::to_owned)));
        }
        found
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn lines_are_numbered_and_blank_ones_skipped() {
        let expected = vec![(1, Ok("a".to_owned())), (3, Ok("b".to_owned()))];
        assert_eq!(texts(b"a\r\n\n b \n \n".to_vec()), expected);
        assert_eq!(texts(gzip(b"a\n\nb")), expected);
        assert_eq!(texts([gzip(b"a\n"), gzip(b"\nb")].concat()), expected, "two members");
        assert_eq!(texts(Vec::new()), []);
    }

    #[test]
    fn a_line_that_is_no_text_is_passed_over() {
        let mut bytes = vec![b'x'; LONGEST_LINE + 100_000];
        bytes.extend(b"\n\xff\nlast");
        let found = texts(bytes);
        assert_eq!(found[0], (1, Err(Unreadable::TooLong)));
        assert_eq!(found[1], (2, Err(Unreadable::NotUtf8)));
        assert_eq!(found[2], (3, Ok("last".to_owned())));
    }

    #[test]
    fn a_cut_gzip_is_an_error_and_no_end() {
        let whole = gzip(&b"1,2,3\n".repeat(10_000));
        let cut = whole[..whole.len() / 2].to_vec();
        let mut lines = Lines::new(decoded(Cursor::new(cut)).unwrap());
        let error = loop {
            match lines.next_line() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the end was taken for the end of the trace"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
