//! A file's bytes, in pages that are shared until one of those who have them writes: what is seen and what is durable are mostly the same,
//! a crash copies every file, and most of a log file is zeros that were never anything else.
//!
//! Invariant: bytes of the last page beyond the length are zeros, so that a file that grows shows none of what was there before.

use std::rc::Rc;

use crate::seams::PAGE_BYTES;

type Page = [u8; PAGE_BYTES];

static ZEROS: Page = [0; PAGE_BYTES];

/// The bytes. Cloning copies none of them.
#[derive(Clone, Default)]
pub(super) struct Pages {
    /// `None` is a page of zeros.
    pages: Vec<Option<Rc<Page>>>,
    length: usize,
}

impl Pages {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let pages = bytes.chunks(PAGE_BYTES).map(|chunk| {
            if chunk == &ZEROS[..chunk.len()] {
                return None;
            }
            let mut page = ZEROS;
            page[..chunk.len()].copy_from_slice(chunk);
            Some(Rc::new(page))
        });
        Self { pages: pages.collect(), length: bytes.len() }
    }

    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        self.read(0, &mut bytes);
        bytes
    }

    /// Fills `to`, which holds zeros, with what stands from `offset` on, as far as there is anything.
    pub(super) fn read(&self, offset: usize, to: &mut [u8]) {
        let end = self.length.min(offset.saturating_add(to.len()));
        let mut at = offset;
        while at < end {
            let (page, within) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let length = (PAGE_BYTES - within).min(end - at);
            if let Some(Some(page)) = self.pages.get(page) {
                to[at - offset..at - offset + length].copy_from_slice(&page[within..within + length]);
            }
            at += length;
        }
    }

    /// Makes it at least so long, with zeros.
    pub(super) fn grow(&mut self, length: usize) {
        if self.length < length {
            self.length = length;
            self.pages.resize(length.div_ceil(PAGE_BYTES), None);
        }
    }

    /// Puts `over` at `offset`, with zeros before it if the bytes end earlier.
    pub(super) fn overlay(&mut self, offset: usize, over: &Self) {
        let end = offset + over.length;
        self.grow(end);
        if offset.is_multiple_of(PAGE_BYTES) {
            let whole = over.length / PAGE_BYTES;
            let first = offset / PAGE_BYTES;
            self.pages[first..first + whole].clone_from_slice(&over.pages[..whole]);
            let rest = whole * PAGE_BYTES;
            if rest < over.length {
                self.replace(offset + rest, over.piece(rest, over.length - rest));
            }
            return;
        }
        let mut at = 0;
        while at < over.length {
            let length = PAGE_BYTES.min(over.length - at);
            self.replace(offset + at, over.piece(at, length));
            at += length;
        }
    }

    /// Puts a part of `over` where it belongs if `over` begins at `offset`; the part lies within one page of it.
    pub(super) fn overlay_part(&mut self, offset: usize, over: &Self, from: usize, length: usize) {
        self.grow(offset + from + length);
        self.replace(offset + from, over.piece(from, length));
    }

    /// Bytes that lie within one page.
    fn piece(&self, from: usize, length: usize) -> &[u8] {
        let (page, within) = (from / PAGE_BYTES, from % PAGE_BYTES);
        let page: &Page = self.pages.get(page).and_then(Option::as_deref).unwrap_or(&ZEROS);
        &page[within..within + length]
    }

    /// Puts `over` at `offset` without making the bytes longer.
    pub(super) fn replace(&mut self, offset: usize, over: &[u8]) {
        let end = self.length.min(offset.saturating_add(over.len()));
        let mut at = offset;
        while at < end {
            let (page, within) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let length = (PAGE_BYTES - within).min(end - at);
            self.page_mut(page)[within..within + length].copy_from_slice(&over[at - offset..at - offset + length]);
            at += length;
        }
    }

    /// Flips bits of a byte; `false` if there is no such byte.
    pub(super) fn flip(&mut self, offset: usize, mask: u8) -> bool {
        let is_there = offset < self.length;
        if is_there {
            self.page_mut(offset / PAGE_BYTES)[offset % PAGE_BYTES] ^= mask;
        }
        is_there
    }

    fn page_mut(&mut self, number: usize) -> &mut Page {
        Rc::make_mut(self.pages[number].get_or_insert_with(|| Rc::new(ZEROS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_files::MemoryRandom;

    /// As a plain vector does it.
    fn overlay(bytes: &mut Vec<u8>, offset: usize, over: &[u8]) {
        let end = offset + over.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(over);
    }

    #[test]
    fn pages_are_what_a_plain_vector_is() {
        let random = MemoryRandom::new(7);
        let below = |bound: usize| random.below(bound as u64) as usize;
        for _ in 0..200 {
            let (mut plain, mut pages) = (Vec::new(), Pages::default());
            let mut older = Vec::new();
            for _ in 0..30 {
                let unit = [1, 512, PAGE_BYTES][below(3)];
                let offset = below(3 * PAGE_BYTES / unit + 1) * unit;
                let over: Vec<u8> = match below(3) {
                    0 => vec![0; below(3 * PAGE_BYTES)],
                    1 => vec![0; PAGE_BYTES],
                    _ => (0..below(3 * PAGE_BYTES)).map(|_| below(256) as u8).collect(),
                };
                match below(5) {
                    0 => {
                        if let Some(byte) = plain.get_mut(offset) {
                            *byte ^= 4;
                        }
                        assert_eq!(pages.flip(offset, 4), offset < plain.len());
                    }
                    1 => {
                        pages.replace(offset, &over);
                        let there = plain.get_mut(offset..).unwrap_or_default();
                        let length = there.len().min(over.len());
                        there[..length].copy_from_slice(&over[..length]);
                    }
                    2 if !over.is_empty() => {
                        let from = below(over.len()) / PAGE_BYTES * PAGE_BYTES;
                        let length = (over.len() - from).min(512);
                        pages.overlay_part(offset, &Pages::of(&over), from, length);
                        overlay(&mut plain, offset + from, &over[from..from + length]);
                    }
                    _ => {
                        pages.overlay(offset, &Pages::of(&over));
                        overlay(&mut plain, offset, &over);
                    }
                }
                assert!(pages.len() == plain.len() && pages.to_vec() == plain);
                let (at, mut part) = (below(4 * PAGE_BYTES), vec![0; below(2 * PAGE_BYTES)]);
                pages.read(at, &mut part);
                let stored = plain.get(at..).unwrap_or_default();
                let length = stored.len().min(part.len());
                assert!(part[..length] == stored[..length] && part[length..].iter().all(|byte| *byte == 0));
                older.push((pages.clone(), plain.clone()));
            }
            // What was cloned stays as it was.
            assert!(older.iter().all(|(pages, plain)| pages.to_vec() == *plain));
        }
    }
}
