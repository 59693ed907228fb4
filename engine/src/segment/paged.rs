//! A filter that is read in parts, as they are asked for: for rows that are many and mostly never asked for again.
//!
//! A reader holds where the parts are, some bytes for each 20,000 rows; the parts themselves are in the cache of filters as they are
//! stored. One that is not costs a read before the key's block is known to be needed or not. A part that is damaged is done without: the
//! blocks tell everything, and who verifies is told.

use std::rc::Rc;

use super::{
    SegmentReader,
    filter::{KeyHashes, check_part, part_may_hold},
    format::{BlockKind, BlockPlace},
    index::Index,
    reader::SegmentFilter,
};
use crate::{
    error::{DamagedKeys, StoreError},
    seams::Files,
};

/// Of the cache of filters a new segment gets at most one part in so many without being asked for: as much as such a cache takes in
/// without pushing out what is used.
const WARM_SHARE: usize = 10;

impl<F: Files> SegmentReader<F> {
    /// Reads a part of a paged filter, checks it, and puts it in the cache.
    pub(super) async fn load_part(&self, number: u32) -> Result<Rc<[u8]>, StoreError> {
        let part = self.read_part(number).await;
        match &part {
            Ok(part) => self.inner.context.filters.insert(self.id(), number, part),
            Err(_) => {
                let met = &self.inner.context.damaged_blocks;
                met.set(met.get() + 1);
            }
        }
        part
    }

    /// Reads the last parts of a paged filter, where the newest ids are, so that the first who asks does not wait.
    pub(crate) async fn warm(&self) {
        let Some(parts) = self.parts() else { return };
        let mut left = self.inner.context.filters.statistics().bytes_max / WARM_SHARE;
        for number in (0..parts.len()).rev() {
            let length = parts.block(number).map_or(0, |part| part.length as usize);
            let Some(rest) = left.checked_sub(length) else { break };
            left = rest;
            // Who asks for a part that cannot be read is told then.
            if self.load_part(number).await.is_err() {
                break;
            }
        }
    }

    fn parts(&self) -> Option<&Index> {
        match &self.inner.filter {
            SegmentFilter::Paged(parts) => Some(parts),
            SegmentFilter::Held(_) | SegmentFilter::None => None,
        }
    }

    async fn read_part(&self, number: u32) -> Result<Rc<[u8]>, StoreError> {
        let missing = || self.damaged_whole("the filter has no such part");
        let parts = self.parts().ok_or_else(missing)?;
        let (place, last_key) = parts.block(number).zip(parts.last_key(number)).ok_or_else(missing)?;
        let damaged = |what| {
            let before = number.checked_sub(1).and_then(|before| parts.last_key(before));
            let keys = DamagedKeys::between(before.unwrap_or(&self.statistics().first_key), last_key);
            StoreError::Damaged { file: self.id().file_name(), offset: place.offset, what, keys }
        };
        let block = self.read_block(place).await?;
        let at = BlockPlace { segment: self.number_in_file(), offset: place.offset };
        let decoded = self.inner.context.decoder.borrow_mut().decode(&block, at, BlockKind::Filter);
        let part = decoded.map_err(damaged)?;
        check_part(&part, last_key).ok_or_else(|| damaged("a part of the filter does not have its form"))?;
        Ok(part)
    }
}

/// Reads each part of a paged filter once, as the rows pass by in order.
#[derive(Default)]
pub(super) struct PartCheck {
    current: Option<(u32, Option<Rc<[u8]>>)>,
    pub(super) damaged: Vec<StoreError>,
}

impl PartCheck {
    /// The next row's key.
    pub(super) async fn turn_to<F: Files>(&mut self, reader: &SegmentReader<F>, key: &[u8]) -> Result<(), StoreError> {
        let Some(number) = reader.parts().and_then(|parts| parts.find(key)) else { return Ok(()) };
        // Those that no row leads to are few, and no less to be sound.
        let first = self.current.as_ref().map_or(0, |(current, _)| current + 1);
        for number in first..=number {
            let part = match reader.read_part(number).await {
                Ok(part) => Some(part),
                Err(damage @ StoreError::Damaged { .. }) => {
                    self.damaged.push(damage);
                    None
                }
                Err(error) => return Err(error),
            };
            self.current = Some((number, part));
        }
        Ok(())
    }

    /// Whether the part at hand denies a key.
    pub(super) fn denies(&self, hashes: &KeyHashes) -> bool {
        let part = self.current.as_ref().and_then(|(_, part)| part.as_ref());
        part.is_some_and(|part| !part_may_hold(part, hashes))
    }
}
