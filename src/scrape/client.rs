//! The client that fetches every page: of pods and of wake-up sources, over http and https.

use std::path::PathBuf;

use super::{
    fetch::{Fetch, Request, ScrapeError},
    http1::{self, Resting, Room},
    large::LargePages,
    page::{Buffers, Page},
    tls::{ClientError, Tls},
};

/// How much of a page is read unless told otherwise, in bytes. A pod with eight engines has a
/// page of 300 KB.
pub const DEFAULT_MAX_BODY: usize = 8 * 1024 * 1024;

/// Fetches pages. Goes through no proxy, looks no name up and follows no redirect: a page is
/// where the request says. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PageClient {
    tls: Tls,
    room: Room,
}

/// What is kept for a server: the connection that the last fetch left behind, if it did. It is
/// used again for the same address and the same server only.
#[derive(Debug, Default)]
pub struct Connection(Option<Resting>);

#[cfg(test)]
impl Connection {
    /// A connection is kept, and nothing has come on it.
    pub(super) fn is_alive(&mut self) -> bool {
        self.0.as_mut().is_some_and(Resting::is_alive)
    }
}

impl PageClient {
    /// A client that reads at most `max_body` bytes of a page, and has no authority to verify
    /// certificates with.
    pub fn new(max_body: usize) -> Result<Self, ClientError> {
        let room = Room { limit: max_body, buffers: Buffers::default(), large: LargePages::new(max_body) };
        Ok(Self { tls: Tls::new()?, room })
    }

    /// The same with the authorities of the system, and those in the file `more` (PEM).
    pub fn with_authorities(self, more: Option<PathBuf>) -> Result<Self, ClientError> {
        Ok(Self { tls: self.tls.with_authorities(more)?, ..self })
    }
}

impl Fetch for PageClient {
    type Connection = Connection;

    async fn fetch(&self, connection: &mut Connection, request: &Request<'_>) -> Result<Page, ScrapeError> {
        http1::get(&mut connection.0, request, &self.tls, &self.room).await
    }
}
