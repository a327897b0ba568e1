//! An HTTP/1.1 answer to a GET, read from bytes that come in pieces. No IO.
//!
//! Knows content-length, chunks and bodies that end with the connection; an answer with any
//! other transfer coding, or with two lengths, is refused. The page is left where it was
//! received: a body of one chunk, which is what vLLM sends, is not copied.

use std::ops::Range;

use super::fetch::ScrapeError;

/// The longest head of an answer, and the longest run of trailers, in bytes.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// The longest line that announces a chunk. Its extensions mean nothing to us.
const MAX_CHUNK_LINE: usize = 256;

/// An answer that is being received.
#[derive(Debug)]
pub(super) struct Answer {
    /// The largest body that is taken, in bytes.
    limit: usize,
    stage: Stage,
    /// What has been read of the body, within the buffer.
    body: Range<usize>,
    /// Where in the buffer reading goes on.
    at: usize,
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
pub(super) struct Complete {
    pub(super) status: u16,
    /// Where in the buffer the body is.
    pub(super) body: Range<usize>,
    /// The connection can be used for another request.
    pub(super) keep_alive: bool,
}

impl Answer {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, stage: Stage::Head, body: 0..0, at: 0, status: 0, keep_alive: false }
    }

    /// Reads on in `buffer`, to whose end new bytes were appended. `None` asks for more.
    pub(super) fn advance(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Complete>, ScrapeError> {
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
    pub(super) fn closed(&self) -> Result<Complete, ScrapeError> {
        match self.stage {
            Stage::UntilClose => {
                Ok(Complete { status: self.status, body: self.body.clone(), keep_alive: false })
            }
            _ => Err(ScrapeError::Broken),
        }
    }

    /// The status, once the head was read.
    pub(super) fn status(&self) -> Option<u16> {
        (self.stage != Stage::Head).then_some(self.status)
    }

    /// How many more bytes are sure to come, as far as that is known.
    pub(super) fn expected(&self) -> usize {
        match self.stage {
            Stage::Length(left) => left,
            // With the end of the chunk, and the last one.
            Stage::Chunk(left) => left.saturating_add(7),
            _ => 0,
        }
    }

    /// One step; false where it needs more bytes.
    fn step(&mut self, buffer: &mut [u8]) -> Result<bool, ScrapeError> {
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
                Ok(httparse::Status::Complete((line, size))) => {
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    self.within_limit(size)?;
                    self.at += line;
                    self.stage = if size == 0 { Stage::Trailers } else { Stage::Chunk(size) };
                }
                Ok(httparse::Status::Partial) if rest.len() <= MAX_CHUNK_LINE => return Ok(false),
                _ => return Err(not_http("a chunk without a size")),
            },
            Stage::Chunk(left) => {
                let taken = left.min(rest.len());
                self.take(buffer, taken);
                self.stage = if taken == left { Stage::ChunkEnd } else { Stage::Chunk(left - taken) };
                return Ok(taken == left);
            }
            Stage::ChunkEnd => match rest {
                [b'\r', b'\n', ..] => {
                    self.at += 2;
                    self.stage = Stage::ChunkSize;
                }
                [] | [b'\r'] => return Ok(false),
                _ => return Err(not_http("a chunk longer than its size")),
            },
            Stage::Trailers => {
                let Some(line) = memchr::memchr(b'\n', rest) else {
                    return if rest.len() <= MAX_HEAD {
                        Ok(false)
                    } else {
                        Err(not_http("endless trailers"))
                    };
                };
                self.at += line + 1;
                if rest[..line].trim_ascii().is_empty() {
                    self.stage = Stage::Done;
                }
            }
            Stage::Done => {}
        }
        Ok(true)
    }

    fn head(&mut self, rest: &[u8]) -> Result<bool, ScrapeError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(rest) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if self.at + rest.len() <= MAX_HEAD => return Ok(false),
            Ok(httparse::Status::Partial) => return Err(not_http("an endless head")),
            Err(error) => return Err(ScrapeError::NotHttp(error.to_string())),
        };
        self.at += length;
        self.status = response.code.unwrap_or_default();
        if self.status == 101 {
            return Err(not_http("another protocol"));
        }
        if self.status < 200 {
            // The real answer follows.
            return if self.at <= MAX_HEAD { Ok(true) } else { Err(not_http("an endless head")) };
        }
        self.keep_alive = response.version == Some(1);
        self.body = self.at..self.at;
        let mut content_length = None;
        let mut chunked = false;
        for header in &*response.headers {
            let (name, value) = (header.name, header.value.trim_ascii());
            if name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(value).ok().and_then(|value| value.parse::<usize>().ok());
                if length.is_none() || content_length.is_some_and(|before| Some(before) != length) {
                    return Err(not_http("a content-length that is none"));
                }
                content_length = length;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(not_http("a transfer-encoding other than chunked"));
                }
                chunked = true;
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
        Ok(true)
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

    fn within_limit(&self, more: usize) -> Result<(), ScrapeError> {
        // An error's body is not read, however long it is.
        if self.status == 200 && more > self.limit - self.body.len() {
            return Err(ScrapeError::TooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// Gives up what was read and is not of the body, so that the buffer of an answer in many
    /// small chunks grows no longer than the body.
    fn make_room(&mut self, buffer: &mut Vec<u8>) {
        if self.at == buffer.len() && !self.body.is_empty() {
            buffer.truncate(self.body.end);
            self.at = self.body.end;
        }
    }
}

fn not_http(what: &str) -> ScrapeError {
    ScrapeError::NotHttp(what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 100;

    /// What comes of `wire` when it comes in pieces that end at `cuts`, and how much of it the
    /// buffer held at most.
    fn receive(wire: &[u8], cuts: &[usize]) -> (Result<Option<(u16, Vec<u8>, bool)>, ScrapeError>, usize) {
        let (mut answer, mut buffer, mut longest) = (Answer::new(LIMIT), Vec::new(), 0);
        let mut read = |piece: &[u8]| {
            buffer.extend_from_slice(piece);
            longest = longest.max(buffer.len());
            let complete = answer.advance(&mut buffer)?;
            Ok(complete.map(|done| (done.status, buffer[done.body].to_vec(), done.keep_alive)))
        };
        let mut from = 0;
        for cut in cuts.iter().copied().chain([wire.len()]) {
            match read(&wire[from..cut]) {
                Ok(None) => from = cut,
                ended => return (ended, longest),
            }
        }
        (Ok(None), longest)
    }

    fn whole(wire: &str) -> Result<Option<(u16, String, bool)>, ScrapeError> {
        let received = receive(wire.as_bytes(), &[]).0?;
        Ok(received.map(|(status, body, keep)| (status, String::from_utf8(body).unwrap(), keep)))
    }

    #[test]
    fn each_framing_gives_the_body_and_says_whether_the_connection_lives_on() {
        let table = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npage", 200, "page", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: Close\r\n\r\npage", 200, "page", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: x, close\r\n\r\npage", 200, "page", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\npage", 200, "page", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, "", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npage and more", 200, "page", false),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n",
                200,
                "page",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2;a=b\r\npa\r\n02\r\nge\r\n0\r\na: b\r\n\r\n",
                200,
                "page",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n4\r\npage\r\n0\r\n\r\n",
                200,
                "page",
                false,
            ),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
            ("HTTP/1.1 404 x\r\ncontent-length: 2\r\n\r\nno", 404, "no", true),
        ];
        for (wire, status, body, keep) in table {
            assert_eq!(whole(wire), Ok(Some((status, body.to_owned(), keep))), "{wire:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let refused = [
            "\x16\x03\x01 what is this?\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 101 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\npage",
            "HTTP/1.1 200 OK\r\ncontent-length: -4\r\n\r\npage",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\npage\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\npage\r\n0\r\n\r\n",
        ];
        for wire in refused {
            assert!(matches!(whole(wire), Err(ScrapeError::NotHttp(_))), "{wire:?}: {:?}", whole(wire));
        }
        let endless = [
            format!("HTTP/1.1 200 OK\r\na: {}", "a".repeat(MAX_HEAD)),
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1)),
            "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD / 20),
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4;{}", "a".repeat(MAX_CHUNK_LINE)),
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{}", "a".repeat(MAX_HEAD + 1)),
        ];
        for wire in endless {
            assert!(matches!(whole(&wire), Err(ScrapeError::NotHttp(_))), "{}", &wire[..80]);
        }
    }

    #[test]
    fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let long = |length: usize| {
            let page = "#".repeat(length);
            [
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{page}"),
                format!(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{page}\r\n0\r\n\r\n"
                ),
                format!(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n#\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                    length - 1,
                    &page[1..]
                ),
            ]
        };
        for wire in long(LIMIT) {
            assert_eq!(whole(&wire).map(|answer| answer.unwrap().1.len()), Ok(LIMIT));
        }
        for wire in long(LIMIT + 1) {
            assert_eq!(whole(&wire), Err(ScrapeError::TooLarge { limit: LIMIT }));
        }
        // Nobody reads the page of an error.
        let error = format!("HTTP/1.1 500 x\r\ncontent-length: {}\r\n\r\n", LIMIT + 1);
        assert_eq!(whole(&error), Ok(None));
    }

    #[test]
    fn without_a_length_the_end_of_the_connection_is_the_end() {
        let mut answer = Answer::new(LIMIT);
        let mut buffer = b"HTTP/1.1 200 OK\r\n\r\npa".to_vec();
        assert_eq!(answer.advance(&mut buffer), Ok(None));
        buffer.extend_from_slice(b"ge");
        assert_eq!(answer.advance(&mut buffer), Ok(None));
        let done = answer.closed().unwrap();
        assert_eq!((&buffer[done.body], done.keep_alive), (&b"page"[..], false));
        buffer.extend_from_slice(&[b'#'; LIMIT]);
        assert_eq!(answer.advance(&mut buffer), Err(ScrapeError::TooLarge { limit: LIMIT }));
        assert_eq!(Answer::new(LIMIT).closed(), Err(ScrapeError::Broken), "closed before an answer");
    }

    proptest! {
        /// However an answer is cut into chunks and pieces, its body is the same, and the
        /// buffer holds little more than it.
        #[test]
        fn pieces_make_no_difference(
            chunks in prop::collection::vec("[a-z]{1,30}", 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let body = chunks.concat();
            let mut wire = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
            for chunk in &chunks {
                wire.extend([&format!("{:x}\r\n", chunk.len()), chunk, "\r\n"]);
            }
            wire.push_str("0\r\n\r\n");
            prop_assume!(body.len() <= LIMIT);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            cuts.sort_unstable();
            let (received, _) = receive(wire.as_bytes(), &cuts);
            prop_assert_eq!(received, Ok(Some((200, body.into_bytes(), true))));
        }

        /// Bytes from anywhere are no reason to panic.
        #[test]
        fn nothing_panics(wire in prop::collection::vec(any::<u8>(), 0..200), framing in 0_usize..4) {
            let heads = ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n"];
            let wire = [heads[framing].as_bytes(), &wire].concat();
            drop(receive(&wire, &[wire.len() / 2]));
        }
    }

    #[test]
    fn many_small_chunks_take_no_more_room_than_the_body() {
        let wire =
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", "1\r\n#\r\n".repeat(LIMIT));
        let head = wire.find("\r\n\r\n").unwrap() + 4;
        let cuts: Vec<_> = (0..LIMIT).map(|chunk| head + chunk * 6).collect();
        let (received, longest) = receive(wire.as_bytes(), &cuts);
        assert_eq!(received, Ok(None));
        assert!(longest < head + LIMIT + 20, "{longest}");
    }
}
