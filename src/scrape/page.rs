//! The bytes of a fetched page, in buffers that all fetches share.

use std::{
    ops::{Deref, Range},
    sync::{Arc, Mutex, PoisonError},
};

use super::large::{Admission, LARGE};

/// As many buffers lie ready: a busy scraper has a few pages at hand at a time, each for the
/// microseconds that it takes to read it.
const KEPT: usize = 32;
/// A larger one is given back to the allocator.
const LARGEST_KEPT: usize = LARGE;
/// Of a new one: a filtered page with its head fits.
const SMALLEST: usize = 8 * 1024;

/// Buffers that lie ready. A task takes one when its answer comes in, not when it asks, so ten
/// thousand endpoints that are waited for hold none.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty one.
    pub(super) fn take(&self) -> Buffer {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = kept.unwrap_or_else(|| Vec::with_capacity(SMALLEST));
        Buffer { bytes, home: self.clone(), admission: None }
    }

    fn put_back(&self, mut bytes: Vec<u8>) {
        if !(SMALLEST..=LARGEST_KEPT).contains(&bytes.capacity()) {
            return;
        }
        bytes.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(bytes);
        }
    }
}

/// A buffer that goes back to where it came from.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    home: Buffers,
    /// Of a large page; given back once the bytes are.
    pub(super) admission: Option<Box<Admission>>,
}

impl Buffer {
    /// The part of it that is the page.
    pub(super) fn into_page(self, body: Range<usize>) -> Page {
        Page { buffer: self, body }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.put_back(std::mem::take(&mut self.bytes));
    }
}

/// A page as the server sent it.
#[derive(Debug)]
pub struct Page {
    buffer: Buffer,
    body: Range<usize>,
}

impl Deref for Page {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer.bytes[self.body.clone()]
    }
}

impl From<Vec<u8>> for Page {
    fn from(bytes: Vec<u8>) -> Self {
        let body = 0..bytes.len();
        Self { buffer: Buffer { bytes, home: Buffers::default(), admission: None }, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_is_empty_then() {
        let buffers = Buffers::default();
        let mut first = buffers.take();
        first.bytes.extend_from_slice(b"head page");
        let place = first.bytes.as_ptr();
        let page = first.into_page(5..9);
        assert_eq!(&*page, b"page");
        drop(page);
        let second = buffers.take();
        assert_eq!((second.bytes.as_ptr(), second.bytes.len()), (place, 0));
    }

    #[test]
    fn what_lies_ready_is_bounded() {
        let buffers = Buffers::default();
        let many: Vec<_> = (0..2 * KEPT).map(|_| buffers.take()).collect();
        drop(many);
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT);
        let mut huge = buffers.take();
        huge.bytes.reserve(LARGEST_KEPT + 1);
        drop(huge);
        assert_eq!(buffers.0.lock().unwrap().len(), KEPT - 1);
    }
}
