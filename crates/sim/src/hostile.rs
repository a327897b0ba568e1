//! Servers that mean harm: whoever runs a pod decides what it answers to a scrape. Each kind
//! aims at one thing that a careless reader of it runs out of.

use std::{fmt::Write as _, io, sync::LazyLock, time::Duration};

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// What a hostile server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hostile {
    /// A page with one family whose name has nearly 8 MiB, and nobody's metric.
    LongName,
    /// A page of nearly 8 MiB that is one histogram with a bound in each line, all different.
    ManyBounds,
    /// A page of nearly 8 MiB of families whose names all resemble [`METRIC`].
    ManyFamilies,
    /// An empty chunked page, and then trailers without end.
    Trailers,
    /// A page of one byte a chunk, each chunk with an extension, without end.
    TinyChunks,
    /// Informational answers (status 103) without end.
    Informational,
    /// A head that does not end.
    Head,
    /// A page that does not end, as fast as it is read.
    Endless,
    /// A page that announces nearly 8 MiB and comes a few bytes at a time.
    Dribble,
}

/// The metric that a target of these has, for it to cost the most: none of the pages has it.
pub const METRIC: &str = "vllm:num_requests_waitinq";
/// The histogram of [`Hostile::ManyBounds`]; a short name, so that many lines fit.
pub const HISTOGRAM: &str = "x";

/// A page has fewer bytes than this: the largest that is read.
const LIMIT: usize = 8 * 1024 * 1024;
/// How long [`Hostile::Dribble`] waits between two pieces.
const PAUSE: Duration = Duration::from_millis(20);

static LONG_NAME: LazyLock<Bytes> = LazyLock::new(|| {
    let name = "vllm:num_requests_waiting_".bytes().chain(std::iter::repeat(b'x')).take(LIMIT - 100);
    [ENGINE.as_bytes(), &name.collect::<Vec<_>>(), b" 1\n"].concat().into()
});
static MANY_BOUNDS: LazyLock<Bytes> = LazyLock::new(|| {
    many(
        |page, number| writeln!(page, "{HISTOGRAM}_bucket{{le=\"{number}\"}} {number}"),
        || format!("{HISTOGRAM}_sum 1\n{HISTOGRAM}_count 1\n"),
    )
});
static MANY_FAMILIES: LazyLock<Bytes> =
    LazyLock::new(|| many(|page, number| writeln!(page, "vllm:num_requests_waitin{number} 1"), String::new));

/// What shows that an engine is up, so that the rest of the page is read for all it may say.
const ENGINE: &str = "vllm:num_requests_running 1\n";

/// Lines until the page is as large as it may be, and its end.
fn many(line: impl Fn(&mut String, usize) -> std::fmt::Result, end: impl Fn() -> String) -> Bytes {
    let mut page = ENGINE.to_owned();
    for number in 0.. {
        if page.len() > LIMIT - 1024 || line(&mut page, number).is_err() {
            break;
        }
    }
    page.push_str(&end());
    page.into()
}

impl Hostile {
    pub const ALL: [Self; 9] = [
        Self::LongName,
        Self::ManyBounds,
        Self::ManyFamilies,
        Self::Trailers,
        Self::TinyChunks,
        Self::Informational,
        Self::Head,
        Self::Endless,
        Self::Dribble,
    ];

    /// In a word, for names of things: lower case, digits and dashes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LongName => "long-name",
            Self::ManyBounds => "many-bounds",
            Self::ManyFamilies => "many-families",
            Self::Trailers => "trailers",
            Self::TinyChunks => "tiny-chunks",
            Self::Informational => "informational",
            Self::Head => "head",
            Self::Endless => "endless",
            Self::Dribble => "dribble",
        }
    }

    /// The whole page; `None` of those that are hostile in how they send it.
    #[must_use]
    pub fn page(self) -> Option<Bytes> {
        match self {
            Self::LongName => Some(LONG_NAME.clone()),
            Self::ManyBounds => Some(MANY_BOUNDS.clone()),
            Self::ManyFamilies => Some(MANY_FAMILIES.clone()),
            _ => None,
        }
    }

    /// Answers one request. Of what has no end it returns only once the client has enough.
    ///
    /// # Errors
    /// Where the client has closed the connection.
    pub async fn answer(self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if let Some(page) = self.page() {
            let head = format!("HTTP/1.1 200 OK\r\n{TYPE}content-length: {}\r\n\r\n", page.len());
            stream.write_all(head.as_bytes()).await?;
            return stream.write_all(&page).await;
        }
        let (head, unit) = match self {
            Self::Trailers => (format!("{CHUNKED}0\r\n"), "a: b\r\n".repeat(1024)),
            Self::TinyChunks => (CHUNKED.to_owned(), format!("1;{}\r\n#\r\n", "e".repeat(240)).repeat(64)),
            Self::Informational => (String::new(), "HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n".repeat(256)),
            Self::Head => ("HTTP/1.1 200 OK\r\na: ".to_owned(), "b".repeat(8192)),
            Self::Endless => {
                (CHUNKED.to_owned(), format!("10000\r\n{}\r\n", "# on and on ....".repeat(0x1000)))
            }
            _ => (
                format!("HTTP/1.1 200 OK\r\n{TYPE}content-length: {}\r\n\r\n", LIMIT - 1),
                "# slow\n".to_owned(),
            ),
        };
        stream.write_all(head.as_bytes()).await?;
        loop {
            stream.write_all(unit.as_bytes()).await?;
            if self == Self::Dribble {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

const TYPE: &str = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_as_large_as_is_read() {
        for kind in Hostile::ALL {
            let Some(page) = kind.page() else { continue };
            assert!((LIMIT - 2048..=LIMIT).contains(&page.len()), "{kind:?}: {} bytes", page.len());
            assert!(page.starts_with(ENGINE.as_bytes()) && page.ends_with(b"\n"), "{kind:?}");
        }
        let lines = |kind: Hostile| kind.page().unwrap().iter().filter(|byte| **byte == b'\n').count();
        assert!(lines(Hostile::ManyBounds) > 250_000);
        assert!(lines(Hostile::ManyFamilies) > 200_000);
    }
}
