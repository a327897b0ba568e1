//! The blocks of prompts that a replica still has in its KV cache.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// Cached blocks by their hash. Those that a running sequence uses are pinned; of the others
/// the least recently used goes first.
#[derive(Clone, Debug, Default)]
pub(super) struct PrefixCache {
    /// Never iterated over: its order is no part of the model.
    by_hash: HashMap<u64, u32, BuildHasherDefault<Mix>>,
    blocks: Vec<Block>,
    unused: Vec<u32>,
    /// Ends of the list of blocks that are not pinned, least recently used first.
    oldest: Option<u32>,
    newest: Option<u32>,
    pinned: u32,
}

#[derive(Clone, Debug, Default)]
struct Block {
    hash: u64,
    pins: u32,
    older: Option<u32>,
    newer: Option<u32>,
}

impl PrefixCache {
    /// Blocks in the cache.
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Blocks that running sequences use.
    pub(super) const fn pinned(&self) -> u32 {
        self.pinned
    }

    /// How many of the leading `hashes` are cached.
    pub(super) fn hits(&self, hashes: &[u64]) -> usize {
        hashes.iter().take_while(|hash| self.by_hash.contains_key(hash)).count()
    }

    /// Puts `hash` in, where it is not, and pins it.
    pub(super) fn pin(&mut self, hash: u64) {
        match self.by_hash.get(&hash).copied() {
            Some(index) => {
                if self.blocks[index as usize].pins == 0 {
                    self.unlink(index);
                    self.pinned += 1;
                }
                self.blocks[index as usize].pins += 1;
            }
            None => {
                let block = Block { hash, pins: 1, older: None, newer: None };
                let index = match self.unused.pop() {
                    Some(index) => {
                        self.blocks[index as usize] = block;
                        index
                    }
                    None => {
                        self.blocks.push(block);
                        u32::try_from(self.blocks.len() - 1).unwrap_or(u32::MAX)
                    }
                };
                self.by_hash.insert(hash, index);
                self.pinned += 1;
            }
        }
    }

    /// Takes back one pin of each of `hashes`. The last block of a prompt is of use to fewest
    /// others, so it becomes the oldest of them.
    pub(super) fn unpin(&mut self, hashes: &[u64]) {
        for hash in hashes.iter().rev() {
            let Some(index) = self.by_hash.get(hash).copied() else { continue };
            let block = &mut self.blocks[index as usize];
            block.pins -= 1;
            if block.pins == 0 {
                self.pinned -= 1;
                self.link_newest(index);
            }
        }
    }

    /// Drops the least recently used block; `false` where all are pinned.
    pub(super) fn evict(&mut self) -> bool {
        let Some(index) = self.oldest else { return false };
        self.unlink(index);
        self.by_hash.remove(&self.blocks[index as usize].hash);
        self.unused.push(index);
        true
    }

    fn link_newest(&mut self, index: u32) {
        let block = &mut self.blocks[index as usize];
        (block.older, block.newer) = (self.newest, None);
        match self.newest {
            Some(newest) => self.blocks[newest as usize].newer = Some(index),
            None => self.oldest = Some(index),
        }
        self.newest = Some(index);
    }

    fn unlink(&mut self, index: u32) {
        let Block { older, newer, .. } = self.blocks[index as usize];
        match older {
            Some(older) => self.blocks[older as usize].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.blocks[newer as usize].older = older,
            None => self.newest = older,
        }
    }
}

/// Mixes a block's hash, which in traces is a small number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_block_that_nobody_uses_goes_first() {
        let mut cache = PrefixCache::default();
        for hash in [1, 2, 3, 9] {
            cache.pin(hash);
        }
        cache.unpin(&[1, 2, 3]);
        assert_eq!((cache.len(), cache.pinned(), cache.hits(&[1, 2, 4, 3])), (4, 1, 2));
        assert!(cache.evict());
        assert_eq!(cache.hits(&[1, 2, 3]), 2, "the last block of a prompt goes first");
        cache.pin(2);
        assert!(cache.evict() && !cache.evict(), "1 goes, 2 and 9 are in use");
        assert_eq!((cache.len(), cache.pinned(), cache.hits(&[2])), (2, 2, 1));
        cache.pin(2);
        cache.unpin(&[2]);
        assert_eq!(cache.pinned(), 2, "still used once");
        cache.unpin(&[2, 9]);
        cache.pin(5);
        assert!(cache.evict() && cache.evict() && !cache.evict());
    }
}
