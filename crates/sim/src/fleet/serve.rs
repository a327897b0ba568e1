//! The fleet's sockets. As little HTTP as a scraper needs, straight on the stream, so that the
//! load stays cheaper than what it measures. Answers are chunked, as uvicorn sends vLLM's page.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Filtering, Health, Load};
use crate::{
    gateway,
    http::{Meter, query_values},
    page::{Page, Template},
};

/// Who is at an address.
#[derive(Debug)]
pub(super) enum Place {
    Pod { load: Arc<Load>, health: Health },
    Gateway { held: Arc<AtomicU32>, pool: String },
}

/// Answers for every address in `places`, for ever.
pub(super) async fn serve(
    listener: TcpListener,
    places: HashMap<Ipv4Addr, Place>,
    pages: Pages,
    meter: Arc<Meter>,
) {
    let (places, pages) = (Arc::new(places), Arc::new(pages));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        // Out of descriptors, most likely: the next accept waits for one.
        let Ok((stream, _)) = accepted else { continue };
        let (places, pages, meter) = (places.clone(), pages.clone(), meter.clone());
        // A client that goes away is no news.
        connections.spawn(async move { converse(stream, &places, &pages, &meter).await.unwrap_or_default() });
    }
}

async fn converse(
    mut stream: TcpStream,
    places: &HashMap<Ipv4Addr, Place>,
    pages: &Pages,
    meter: &Meter,
) -> io::Result<()> {
    let IpAddr::V4(host) = stream.local_addr()?.ip() else { return Ok(()) };
    let Some(place) = places.get(&host) else { return Ok(()) };
    if let Place::Pod { health: Health::Resets, .. } = place {
        return stream.set_zero_linger();
    }
    // Each answer is one write: nothing to gain by collecting them.
    stream.set_nodelay(true)?;
    let (mut request, mut answer) = (Vec::with_capacity(1024), String::new());
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let target = request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let target = String::from_utf8_lossy(target);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*target, None),
        };
        let page = match place {
            Place::Pod { load, health } => {
                load.arrived();
                match health {
                    Health::Hangs => return std::future::pending().await,
                    Health::Hostile(kind) => {
                        kind.answer(&mut stream).await?;
                        continue;
                    }
                    _ => {}
                }
                pages.page(load, path, query)
            }
            Place::Gateway { held, pool } => {
                gateway::page(pool, Some(held.load(Ordering::Relaxed) as usize), 0)
            }
        };
        meter.count(query, page.len());
        answer.clear();
        answer.push_str(HEAD);
        if !page.is_empty() {
            let _ = write!(answer, "{:x}\r\n{page}\r\n", page.len());
        }
        answer.push_str("0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// As uvicorn starts an answer.
const HEAD: &str = "HTTP/1.1 200 OK\r\n\
    date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    server: uvicorn\r\n\
    content-type: text/plain; version=0.0.4; charset=utf-8\r\n\
    transfer-encoding: chunked\r\n\
    \r\n";

/// The pages that were asked for so far, compiled.
#[derive(Debug)]
pub(super) struct Pages {
    template: Template,
    filtering: Filtering,
    compiled: Mutex<HashMap<String, Arc<Page>>>,
}

impl Pages {
    pub(super) fn new(filtering: Filtering) -> Self {
        Self { template: Template::recorded("model"), filtering, compiled: Mutex::default() }
    }

    fn page(&self, load: &Load, path: &str, query: Option<&str>) -> String {
        // vLLM filters on the path with the slash only.
        let query = query.filter(|_| path.ends_with('/')).unwrap_or_default();
        if self.filtering == Filtering::GivesNothing && !query.is_empty() {
            return String::new();
        }
        self.compiled(query).render(|slot| load.value(slot))
    }

    fn compiled(&self, query: &str) -> Arc<Page> {
        use crate::page::Slot::{KvUsage, Running, Waiting};
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = compiled.get(query) {
            return page.clone();
        }
        let names = query_values(query, "name[]");
        let filter = (!names.is_empty()).then_some(names.as_slice());
        let page =
            Arc::new(self.template.compile(filter, |slot| matches!(slot, Waiting | Running | KvUsage)));
        compiled.insert(query.into(), page.clone());
        page
    }
}
