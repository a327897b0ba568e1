//! An HTTP/1.1 answer to a GET, read from bytes that come in pieces. No IO.
//!
//! Knows content-length, chunks and bodies that end with the connection; an answer with any
//! other transfer coding, with a content coding (none was asked for), or with two lengths, is
//! refused. The page is left where it was received: a body of one chunk, which is what vLLM
//! sends, is not copied.
//!
//! Whoever sends the answer decides what is in it, so everything in it is bounded in total: the
//! body by the limit that the caller gives, all heads (those of 1xx answers too) by
//! [`MAX_HEAD`], and whatever else stands around the body (sizes and extensions of chunks,
//! trailers) by the body's own length and [`MAX_FRAMING`] more. Reading takes time in
//! proportion to the bytes, however small the pieces are in which they come.

use std::{borrow::Cow, ops::Range};

use thiserror::Error;

/// The most that the heads of an answer take, its own and those of the 1xx answers before it,
/// in bytes.
pub const MAX_HEAD: usize = 64 * 1024;
/// By how much the framing of a chunked body (the lines that announce chunks, and trailers) may
/// be longer than the body, in bytes. Chunks of a line each have a tenth of the body as framing.
pub const MAX_FRAMING: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// The longest line that announces a chunk, in bytes. Its extensions mean nothing to us.
const MAX_CHUNK_LINE: usize = 256;

/// An answer that is being received.
#[derive(Debug)]
pub struct Answer {
    /// The largest body that is taken, in bytes.
    limit: usize,
    stage: Stage,
    /// What has been read of the body, within the buffer.
    body: Range<usize>,
    /// Where in the buffer reading goes on.
    at: usize,
    /// How many bytes of heads were read and left behind.
    heads: usize,
    /// How many bytes of chunk lines, of line ends between chunks and of trailers were read.
    framing: usize,
    /// How many bytes from `at` on are known to hold no end of the head or of the line.
    searched: usize,
    /// How many bytes of the head were there when it was last looked at in full.
    tried: usize,
    /// Of a chunked body no chunk is complete.
    is_first_chunk: bool,
    status: u16,
    keep_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    /// So many bytes of the body are to come.
    Length(usize),
    UntilClose,
    ChunkSize,
    /// So many bytes of the chunk are to come.
    Chunk(usize),
    ChunkEnd,
    Trailers,
    Done,
}

/// An answer that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complete {
    /// The status code.
    pub status: u16,
    /// Where in the buffer the body is.
    pub body: Range<usize>,
    /// The connection can be used for another request.
    pub keep_alive: bool,
}

/// Why an answer gives no page.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// The body is longer than it may be, in bytes.
    #[error("the page is larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// It breaks the protocol, or takes more than it may of what is not the body.
    #[error("the answer is not valid HTTP: {0}")]
    NotHttp(Cow<'static, str>),
    /// The connection was closed before its end.
    #[error("the answer ends before it is complete")]
    CutOff,
}

impl Answer {
    /// An answer of which nothing has come yet, and whose body may have `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            stage: Stage::Head,
            body: 0..0,
            at: 0,
            heads: 0,
            framing: 0,
            searched: 0,
            tried: 0,
            is_first_chunk: true,
            status: 0,
            keep_alive: false,
        }
    }

    /// Reads on in `buffer`, to whose end new bytes were appended, and takes out of it what is
    /// not needed any more. `None` asks for more.
    ///
    /// # Errors
    /// Where the answer is not HTTP/1.1, or larger than it may be.
    pub fn advance(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Complete>, AnswerError> {
        while self.stage != Stage::Done {
            if !self.step(buffer)? {
                self.make_room(buffer);
                return Ok(None);
            }
        }
        // More than one answer to one request: what is it that comes next?
        let keep_alive = self.keep_alive && self.at == buffer.len();
        Ok(Some(Complete { status: self.status, body: self.body.clone(), keep_alive }))
    }

    /// The server has closed the connection: the end of a body without a length, and a broken
    /// answer else.
    ///
    /// # Errors
    /// Where more had to come.
    pub fn closed(&self) -> Result<Complete, AnswerError> {
        match self.stage {
            Stage::UntilClose => {
                Ok(Complete { status: self.status, body: self.body.clone(), keep_alive: false })
            }
            _ => Err(AnswerError::CutOff),
        }
    }

    /// The status, once the head was read.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        (self.stage != Stage::Head).then_some(self.status)
    }

    /// Nothing of it has come.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.stage == Stage::Head && self.heads == 0
    }

    /// What is sure to come is the rest of the body, as far as the server says: a body with a
    /// length, or one whose first chunk this is.
    #[must_use]
    pub fn announces_its_size(&self) -> bool {
        match self.stage {
            Stage::Length(_) => true,
            Stage::Chunk(_) => self.is_first_chunk,
            _ => false,
        }
    }

    /// How many more bytes are sure to come, as far as that is known.
    #[must_use]
    pub fn expected(&self) -> usize {
        match self.stage {
            Stage::Length(left) => left,
            // With the end of the chunk, and the last one.
            Stage::Chunk(left) => left.saturating_add(7),
            _ => 0,
        }
    }

    /// One step; false where it needs more bytes.
    fn step(&mut self, buffer: &mut [u8]) -> Result<bool, AnswerError> {
        let rest = &buffer[self.at..];
        match self.stage {
            Stage::Head => return self.head(rest),
            Stage::Length(left) => {
                let taken = left.min(rest.len());
                self.take(buffer, taken);
                self.stage = if taken == left { Stage::Done } else { Stage::Length(left - taken) };
                return Ok(taken == left);
            }
            Stage::UntilClose => {
                let taken = rest.len();
                self.within_limit(taken)?;
                self.take(buffer, taken);
                return Ok(false);
            }
            Stage::ChunkSize => match httparse::parse_chunk_size(rest) {
                Ok(httparse::Status::Complete((line, size))) if line <= MAX_CHUNK_LINE => {
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    self.within_limit(size)?;
                    self.frame(line)?;
                    self.stage = if size == 0 { Stage::Trailers } else { Stage::Chunk(size) };
                }
                Ok(httparse::Status::Partial) if rest.len() <= MAX_CHUNK_LINE => return Ok(false),
                Ok(_) => return Err(not_http("a chunk's size line of more than 256 bytes")),
                Err(_) => return Err(not_http("a chunk without a size")),
            },
            Stage::Chunk(left) => {
                let taken = left.min(rest.len());
                self.take(buffer, taken);
                self.stage = if taken == left { Stage::ChunkEnd } else { Stage::Chunk(left - taken) };
                return Ok(taken == left);
            }
            Stage::ChunkEnd => match rest {
                [b'\r', b'\n', ..] => {
                    self.frame(2)?;
                    self.is_first_chunk = false;
                    self.stage = Stage::ChunkSize;
                }
                [] | [b'\r'] => return Ok(false),
                _ => return Err(not_http("a chunk longer than its size")),
            },
            Stage::Trailers => {
                let Some(line) = memchr::memchr(b'\n', &rest[self.searched..]) else {
                    self.searched = rest.len();
                    self.within_framing(rest.len())?;
                    return Ok(false);
                };
                let line = self.searched + line;
                if matches!(&rest[..line], [] | [b'\r']) {
                    self.stage = Stage::Done;
                }
                self.searched = 0;
                self.frame(line + 1)?;
            }
            Stage::Done => {}
        }
        Ok(true)
    }

    fn head(&mut self, rest: &[u8]) -> Result<bool, AnswerError> {
        // Empty lines before an answer are passed over, each once.
        let empty = match rest {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            [] | [b'\r'] => return Ok(false),
            _ => 0,
        };
        if empty > 0 {
            self.leave_head(empty)?;
            return Ok(true);
        }
        let ended = self.finds_end_of_head(rest);
        // A head that comes byte by byte is looked at each time that it has grown by half, not
        // at each byte: what is no HTTP is still seen at once.
        if !ended && rest.len() < self.tried + self.tried.div_ceil(2) {
            self.within_heads(rest.len())?;
            return Ok(false);
        }
        self.tried = rest.len();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(rest) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => {
                self.within_heads(rest.len())?;
                return Ok(false);
            }
            Err(error) => return Err(AnswerError::NotHttp(error.to_string().into())),
        };
        self.leave_head(length)?;
        self.status = response.code.unwrap_or_default();
        if self.status == 101 {
            return Err(not_http("another protocol"));
        }
        if self.status < 200 {
            // The real answer follows.
            return Ok(true);
        }
        self.keep_alive = response.version == Some(1);
        self.body = self.at..self.at;
        self.frame_of(response.headers)?;
        Ok(true)
    }

    /// Whether an empty line ends the head in `rest`. Looks at every byte once, however often it
    /// is asked.
    fn finds_end_of_head(&mut self, rest: &[u8]) -> bool {
        // The line end before the empty line may have been seen already.
        let mut from = self.searched.saturating_sub(2);
        self.searched = rest.len();
        while let Some(line_end) = memchr::memchr(b'\n', &rest[from..]) {
            from += line_end + 1;
            if matches!(&rest[from..], [b'\n', ..] | [b'\r', b'\n', ..]) {
                return true;
            }
        }
        false
    }

    /// What the headers say of the body and of the connection.
    fn frame_of(&mut self, headers: &[httparse::Header<'_>]) -> Result<(), AnswerError> {
        let mut content_length = None;
        let mut chunked = false;
        for header in headers {
            let (name, value) = (header.name, header.value.trim_ascii());
            if name.eq_ignore_ascii_case("content-length") {
                let length = digits(value);
                if length.is_none() || content_length.is_some_and(|before| Some(before) != length) {
                    return Err(not_http("a content-length that is none"));
                }
                content_length = length;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(not_http("a transfer-encoding other than chunked"));
                }
                chunked = true;
            } else if name.eq_ignore_ascii_case("content-encoding") {
                if !value.eq_ignore_ascii_case(b"identity") {
                    return Err(not_http("a content-encoding, although none was asked for"));
                }
            } else if name.eq_ignore_ascii_case("connection") {
                let closes = |word: &[u8]| word.trim_ascii().eq_ignore_ascii_case(b"close");
                self.keep_alive &= !value.split(|byte| *byte == b',').any(closes);
            }
        }
        self.stage = match (chunked, content_length) {
            _ if matches!(self.status, 204 | 304) => Stage::Done,
            (true, length) => {
                // With both, who knows where the next answer begins.
                self.keep_alive &= length.is_none();
                Stage::ChunkSize
            }
            (false, Some(length)) => {
                self.within_limit(length)?;
                Stage::Length(length)
            }
            (false, None) => Stage::UntilClose,
        };
        Ok(())
    }

    /// Adds the next `count` bytes to the body.
    fn take(&mut self, buffer: &mut [u8], count: usize) {
        if self.body.is_empty() {
            self.body = self.at..self.at;
        } else if self.body.end != self.at {
            buffer.copy_within(self.at..self.at + count, self.body.end);
        }
        self.body.end += count;
        self.at += count;
    }

    /// Passes over `count` bytes of a head.
    fn leave_head(&mut self, count: usize) -> Result<(), AnswerError> {
        self.within_heads(count)?;
        self.heads += count;
        self.at += count;
        (self.searched, self.tried) = (0, 0);
        Ok(())
    }

    /// Passes over `count` bytes that are there for the body's sake.
    fn frame(&mut self, count: usize) -> Result<(), AnswerError> {
        self.within_framing(count)?;
        self.framing += count;
        self.at += count;
        Ok(())
    }

    fn within_heads(&self, more: usize) -> Result<(), AnswerError> {
        if self.heads + more > MAX_HEAD {
            return Err(not_http("a head of more than 64 KiB"));
        }
        Ok(())
    }

    fn within_framing(&self, more: usize) -> Result<(), AnswerError> {
        if self.framing + more > self.body.len() + MAX_FRAMING {
            return Err(not_http("chunk lines and trailers that are 64 KiB longer than the page"));
        }
        Ok(())
    }

    fn within_limit(&self, more: usize) -> Result<(), AnswerError> {
        // An error's body is not read, however long it is.
        if self.status == 200 && more > self.limit - self.body.len() {
            return Err(AnswerError::TooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// Takes out of the buffer what was read and is not of the body, so that it holds the body
    /// and an unfinished line, or the beginning of a head, and nothing else.
    fn make_room(&mut self, buffer: &mut Vec<u8>) {
        // A head's beginning moves as often as an answer before it has ended, and the body never.
        let kept = if self.body.is_empty() { 0 } else { self.body.end };
        if self.at == kept {
            return;
        }
        let unread = self.at..buffer.len();
        buffer.copy_within(unread.clone(), kept);
        buffer.truncate(kept + unread.len());
        self.at = kept;
        if self.body.is_empty() {
            self.body = 0..0;
        }
    }
}

/// A number in digits and nothing else, which is what HTTP allows for a length.
fn digits(value: &[u8]) -> Option<usize> {
    let text =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

fn not_http(what: &'static str) -> AnswerError {
    AnswerError::NotHttp(what.into())
}

#[cfg(test)]
mod tests;
