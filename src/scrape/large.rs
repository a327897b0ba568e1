//! Admission of large pages: what the pages of one namespace may take of the process's memory
//! and of its time.
//!
//! A page of a model server has some kilobytes, seldom some hundred, and may have as many as
//! the limit allows. Whoever runs a pod decides, and some dozen pods with pages of that size
//! would fill the process's memory and keep its threads from the scrapes of everybody else. So
//! a page goes on beyond [`LARGE`] bytes only once it was admitted:
//!
//! - The large pages of a namespace share as much memory as the largest page takes: a few that
//!   are moderately large are read side by side, of the largest one after another.
//! - Reading them takes a fifth of one core's time at most, beyond a short burst.
//! - All namespaces together have four times that memory.
//! - Who is admitted has [`TIME_TO_COME`] for the rest of the page.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::fetch::ScrapeError;

/// The size up to which a page needs no admission, in bytes: that of a pod with a few engines.
pub(super) const LARGE: usize = 128 * 1024;
/// What is counted of the memory, in bytes.
const UNIT: usize = LARGE;
/// What a page is taken for that does not say how large it is, in bytes.
const UNSAID: usize = 1024 * 1024;
/// How many times the memory of one namespace all have together.
const NAMESPACES: usize = 4;
/// How long an admission is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the rest of an admitted page may take.
pub(super) const TIME_TO_COME: Duration = Duration::from_secs(1);
/// One part in so many of the time is for the large pages of a namespace.
const SHARE: u32 = 5;
/// How far ahead of that it may be before a page has to wait.
const BURST: Duration = Duration::from_millis(100);
/// What it takes to receive a byte: 2 GB a second.
const PICOSECONDS_A_BYTE: u64 = 500;

/// Admits large pages. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct LargePages(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Units for one page of the largest size.
    whole: u32,
    everybody: Arc<Semaphore>,
    namespaces: Mutex<HashMap<Arc<str>, Arc<Namespace>>>,
}

/// What the large pages of a namespace have together.
#[derive(Debug)]
struct Namespace {
    units: Arc<Semaphore>,
    /// When what was spent on its pages is no more than its share again.
    even: Mutex<Instant>,
}

/// Leave for one page to be large, which ends with the page.
#[derive(Debug)]
pub(super) struct Admission {
    pages: LargePages,
    namespace: Arc<Namespace>,
    /// What it holds of its namespace's units, and as many of everybody's.
    own: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
    /// When the page has to be complete.
    pub(super) deadline: Instant,
    /// How much of it came, in bytes.
    received: usize,
    /// When it was complete, so that its reading began.
    complete: Option<Instant>,
}

impl LargePages {
    /// For pages of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        let whole = limit.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS / NAMESPACES);
        Self(Arc::new(Shared {
            whole: u32::try_from(whole).unwrap_or(u32::MAX),
            everybody: Arc::new(Semaphore::new(whole * NAMESPACES)),
            namespaces: Mutex::default(),
        }))
    }

    /// Waits until a page of `namespace` may be as large as `size` bytes, where it says so.
    pub(super) async fn admit(&self, namespace: &str, size: Option<usize>) -> Result<Admission, ScrapeError> {
        let units = self.units(size.unwrap_or(UNSAID));
        let namespace = self.namespace(namespace);
        let admitted = async {
            let own = acquire(&namespace.units, units).await?;
            namespace.rest().await;
            Ok((own, acquire(&self.0.everybody, units).await?))
        };
        let (own, of_all) = timeout(PATIENCE, admitted).await.unwrap_or(Err(ScrapeError::Crowded))?;
        let deadline = Instant::now() + TIME_TO_COME;
        Ok(Admission { pages: self.clone(), namespace, own, of_all, deadline, received: 0, complete: None })
    }

    fn units(&self, size: usize) -> u32 {
        u32::try_from(size.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.0.whole)
    }

    fn namespace(&self, name: &str) -> Arc<Namespace> {
        let mut namespaces = self.0.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = namespaces.get(name) {
            return known.clone();
        }
        // Few have large pages; those that had some are forgotten once they are even.
        namespaces.retain(|_, namespace| Arc::strong_count(namespace) > 1 || !namespace.is_even());
        let units = Arc::new(Semaphore::new(self.0.whole as usize));
        let namespace = Arc::new(Namespace { units, even: Mutex::new(Instant::now()) });
        namespaces.insert(name.into(), namespace.clone());
        namespace
    }
}

async fn acquire(units: &Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, ScrapeError> {
    // It fails only where the semaphore was closed, which nobody does.
    units.clone().acquire_many_owned(count).await.map_err(|_| ScrapeError::Crowded)
}

impl Namespace {
    /// Waits until the share of time is kept, but for a burst.
    async fn rest(&self) {
        let even = *self.even();
        if let Some(until) = even.checked_sub(BURST) {
            sleep_until(until).await;
        }
    }

    /// Takes note of time that was spent on a page.
    fn spend(&self, spent: Duration) {
        let mut even = self.even();
        *even = (*even).max(Instant::now()) + spent * SHARE;
    }

    fn is_even(&self) -> bool {
        *self.even() <= Instant::now()
    }

    fn even(&self) -> MutexGuard<'_, Instant> {
        self.even.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    /// How large the page may be, in bytes; one that may be as large as any is held to the
    /// limit of pages alone.
    pub(super) fn size(&self) -> usize {
        let units = self.own.num_permits();
        if units < self.pages.0.whole as usize { units * UNIT } else { usize::MAX }
    }

    /// Waits until the page may be as large as any.
    pub(super) async fn grow(&mut self) -> Result<(), ScrapeError> {
        let more =
            self.pages.0.whole.saturating_sub(u32::try_from(self.own.num_permits()).unwrap_or(u32::MAX));
        let grown = async {
            let own = acquire(&self.namespace.units, more).await?;
            Ok((own, acquire(&self.pages.0.everybody, more).await?))
        };
        // Two that grow at once wait for each other, until the time of the first is over.
        let grown = timeout_at(self.deadline, grown).await.unwrap_or(Err(ScrapeError::Crowded));
        let (own, of_all) = grown?;
        self.own.merge(own);
        self.of_all.merge(of_all);
        Ok(())
    }

    /// Takes note that `bytes` of the page are there.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received = bytes;
    }

    /// Takes note that the page is complete: from now on it is being read.
    pub(super) fn completed(&mut self) {
        self.complete = Some(Instant::now());
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let receiving = Duration::from_nanos(self.received as u64 * PICOSECONDS_A_BYTE / 1000);
        let reading = self.complete.map_or(Duration::ZERO, |complete| complete.elapsed());
        self.namespace.spend(receiving + reading);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;
    use tokio::time::advance;

    use super::*;

    const MIB: usize = 1024 * 1024;

    /// For pages of 8 MiB.
    fn pages() -> LargePages {
        LargePages::new(8 * MIB)
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_reads_some_large_pages_side_by_side_and_the_largest_alone() {
        let pages = pages();
        let mut some = Vec::new();
        for _ in 0..16 {
            some.push(pages.admit("a", Some(MIB / 2)).await.unwrap());
        }
        let mut one_more = pin!(pages.admit("a", Some(MIB / 2)));
        assert!(poll!(&mut one_more).is_pending());
        drop(pages.admit("b", Some(8 * MIB)).await.unwrap());
        some.pop();
        let admitted = one_more.await.unwrap();
        assert_eq!(admitted.size(), MIB / 2);
        some.clear();

        let largest = pages.admit("a", Some(8 * MIB)).await;
        assert!(largest.is_err(), "there is one before it that does not end");
        drop(admitted);
        let largest = pages.admit("a", Some(8 * MIB)).await.unwrap();
        assert_eq!(largest.size(), usize::MAX);
        let before = Instant::now();
        assert_eq!(pages.admit("a", Some(MIB)).await.err(), Some(ScrapeError::Crowded));
        assert_eq!(before.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn many_namespaces_take_no_more_than_four() {
        let pages = pages();
        let mut all = Vec::new();
        for namespace in ["a", "b", "c", "d"] {
            all.push(pages.admit(namespace, Some(8 * MIB)).await.unwrap());
        }
        assert_eq!(pages.admit("e", Some(MIB)).await.err(), Some(ScrapeError::Crowded));
        all.pop();
        assert!(pages.admit("e", Some(MIB)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_did_not_say_how_large_it_is_grows() {
        let pages = pages();
        let mut first = pages.admit("a", None).await.unwrap();
        assert_eq!(first.size(), UNSAID);
        first.grow().await.unwrap();
        assert_eq!(first.size(), usize::MAX);
        drop(first);
        // Two of a namespace that both want to be alone: the first gives up when its time is over.
        let (mut first, mut second) =
            (pages.admit("a", None).await.unwrap(), pages.admit("a", None).await.unwrap());
        advance(TIME_TO_COME / 2).await;
        let grown = async {
            let failed = first.grow().await;
            drop(first);
            failed
        };
        let (first, second) = tokio::join!(grown, async {
            tokio::task::yield_now().await;
            second.deadline += TIME_TO_COME;
            second.grow().await
        });
        assert_eq!((first, second), (Err(ScrapeError::Crowded), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_to_read_is_followed_by_rest() {
        let pages = pages();
        let read = async |namespace: &str, took: Duration| {
            let before = Instant::now();
            let mut admission = pages.admit(namespace, Some(8 * MIB)).await.unwrap();
            let waited = before.elapsed();
            admission.completed();
            advance(took).await;
            waited
        };
        let long = Duration::from_millis(50);
        assert_eq!(read("a", long).await, Duration::ZERO);
        // 250 ms are to pass, of which 100 may be left; then 50 ms in each 250.
        assert!((150..=151).contains(&read("a", long).await.as_millis()));
        for _ in 0..10 {
            assert!((200..=202).contains(&read("a", long).await.as_millis()));
        }
        assert_eq!(read("b", long).await, Duration::ZERO, "another namespace has its own share");
        // What real pages take is never waited for.
        for _ in 0..1000 {
            advance(Duration::from_millis(1)).await;
            assert_eq!(read("c", Duration::from_micros(150)).await, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_without_large_pages_are_forgotten() {
        let pages = pages();
        for number in 0..1000 {
            let mut admission = pages.admit(&format!("team-{number}"), Some(MIB)).await.unwrap();
            admission.completed();
            advance(Duration::from_millis(10)).await;
        }
        let known = pages.0.namespaces.lock().unwrap().len();
        assert!(known < 10, "{known}");
    }
}
