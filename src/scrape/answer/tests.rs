//! Each framing, whole and in pieces, and what is refused.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 100;

/// What comes of `wire` when it comes in pieces that end at `cuts`, and how much of it the
/// buffer held at most.
fn receive(wire: &[u8], cuts: &[usize]) -> (Result<Option<(u16, Vec<u8>, bool)>, AnswerError>, usize) {
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

fn whole(wire: &str) -> Result<Option<(u16, String, bool)>, AnswerError> {
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
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n", 200, "page", true),
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
        "HTTP/1.1 200 OK\r\ncontent-length: +4\r\n\r\npage",
        "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\npage",
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\npage",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\npage\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\npage\r\n0\r\n\r\n",
    ];
    for wire in refused {
        assert!(matches!(whole(wire), Err(AnswerError::NotHttp(_))), "{wire:?}: {:?}", whole(wire));
    }
    let endless = [
        format!("HTTP/1.1 200 OK\r\na: {}", "a".repeat(MAX_HEAD)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1)),
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD / 20),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4;{}", "a".repeat(MAX_CHUNK_LINE)),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{}", "a".repeat(MAX_FRAMING + 1)),
    ];
    for wire in endless {
        assert!(matches!(whole(&wire), Err(AnswerError::NotHttp(_))), "{}", &wire[..80]);
    }
}

#[test]
fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
    let long = |length: usize| {
        let page = "#".repeat(length);
        [
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{page}"),
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{page}\r\n0\r\n\r\n"),
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
        assert_eq!(whole(&wire), Err(AnswerError::TooLarge { limit: LIMIT }));
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
    assert_eq!(answer.advance(&mut buffer), Err(AnswerError::TooLarge { limit: LIMIT }));
    assert_eq!(Answer::new(LIMIT).closed(), Err(AnswerError::CutOff), "closed before an answer");
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

const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// Chunked bodies whose framing is longer than they are: what each of `units` adds is not of
/// the page.
fn chunked(units: impl Iterator<Item = String>) -> Vec<u8> {
    std::iter::once(HEAD.to_owned()).chain(units).collect::<String>().into_bytes()
}

/// A wire in pieces of `size` bytes.
fn in_pieces(wire: &[u8], size: usize) -> (Result<Option<(u16, Vec<u8>, bool)>, AnswerError>, usize) {
    let cuts: Vec<_> = (0..wire.len()).step_by(size).collect();
    receive(wire, &cuts)
}

#[test]
fn many_small_chunks_take_no_more_room_than_the_body() {
    let wire = chunked((0..LIMIT).map(|_| "1\r\n#\r\n".to_owned()));
    // Pieces that end within the framing of a chunk are most.
    for size in 1..20 {
        let (received, longest) = in_pieces(&wire, size);
        assert_eq!(received, Ok(None));
        // The head stays where the body began behind it.
        assert!(longest < HEAD.len() + LIMIT + 20 + size, "pieces of {size}: {longest}");
    }
}

#[test]
fn what_stands_around_a_body_is_bounded_in_total() {
    let long = 4 * MAX_FRAMING;
    let extension = format!("1;{}\r\n#\r\n", "e".repeat(240));
    let zeros = "0000000000000001\r\n#\r\n".to_owned();
    let around = [
        (
            "trailers",
            chunked((0..long / 6).map(|line| if line == 0 { "0\r\n" } else { "a: b\r\n" }.to_owned())),
        ),
        ("a long trailer", chunked(["0\r\na: ".to_owned(), "b".repeat(long)].into_iter())),
        ("informational answers", "HTTP/1.1 103 x\r\na: b\r\n\r\n".repeat(long / 24).into_bytes()),
        ("empty lines", "\r\n".repeat(long / 2).into_bytes()),
        ("a long head", format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(long)).into_bytes()),
    ];
    for (what, wire) in around {
        for size in [7, 1000, wire.len()] {
            let (received, longest) = in_pieces(&wire, size);
            assert!(
                matches!(received, Err(AnswerError::NotHttp(_))),
                "{what}, pieces of {size}: {received:?}"
            );
            assert!(
                longest <= MAX_HEAD.max(MAX_FRAMING) + LIMIT + size,
                "{what}, pieces of {size}: {longest}"
            );
        }
    }
    // As many extensions as the limit of the body allows, and then beyond any limit.
    for size in [7, 1000] {
        let (received, longest) = in_pieces(&chunked((0..80).map(|_| extension.clone())), size);
        assert_eq!(received, Ok(None), "pieces of {size}");
        assert!(longest <= HEAD.len() + LIMIT + 2 * MAX_CHUNK_LINE + size, "pieces of {size}: {longest}");
    }
    let refused = |unit: &str| {
        let (mut answer, mut buffer) = (Answer::new(usize::MAX), chunked(std::iter::empty()));
        for count in 0..100_000_usize {
            buffer.extend_from_slice(unit.as_bytes());
            if let Err(error) = answer.advance(&mut buffer) {
                assert!(matches!(error, AnswerError::NotHttp(_)), "{error:?}");
                return count;
            }
            assert!(
                buffer.len() <= HEAD.len() + count + 2 * unit.len(),
                "{} bytes for {count}",
                buffer.len()
            );
        }
        panic!("never refused");
    };
    assert_eq!(refused(&extension), MAX_FRAMING / (extension.len() - 2));
    assert_eq!(refused(&zeros), MAX_FRAMING / (zeros.len() - 2));
}

/// What a server that writes line by line sends is no attack.
#[test]
fn a_page_in_a_chunk_for_each_line_is_read() {
    let line = "vllm:num_requests_waiting{engine=\"0\"} 3.0\n";
    let lines = 8 * 1024 * 1024 / line.len();
    let end = std::iter::once("0\r\n\r\n".to_owned());
    let wire = chunked((0..lines).map(|_| format!("{:x}\r\n{line}\r\n", line.len())).chain(end));
    let (mut answer, mut buffer) = (Answer::new(8 * 1024 * 1024), Vec::new());
    let mut complete = None;
    for piece in wire.chunks(1 << 16) {
        buffer.extend_from_slice(piece);
        complete = answer.advance(&mut buffer).unwrap();
    }
    assert_eq!(complete.map(|done| done.body.len()), Some(lines * line.len()));
}

/// Else a server that sends byte by byte would have a head of 64 KiB parsed 64 Ki times.
#[test]
fn a_head_that_comes_byte_by_byte_is_parsed_a_few_times() {
    let head = format!("HTTP/1.1 200 OK\r\na: {}\r\ncontent-length: 2\r\n\r\nok", "b".repeat(MAX_HEAD - 100));
    let (mut answer, mut buffer) = (Answer::new(LIMIT), Vec::new());
    let (mut parsed, mut tried, mut complete) = (0, 0, None);
    for byte in head.bytes() {
        buffer.push(byte);
        complete = answer.advance(&mut buffer).unwrap();
        if answer.tried != tried {
            (tried, parsed) = (answer.tried, parsed + 1);
        }
    }
    let complete = complete.unwrap();
    assert_eq!((&buffer[complete.body], complete.status), (&b"ok"[..], 200));
    assert!(parsed < 40, "{parsed} times");
}
