//! A scan of one segment, in either direction, through the cache: a source of merges. Rows that do not count are passed over.

use std::rc::Rc;

use super::{
    SegmentId, SegmentReader,
    block::{GroupRows, RowBlock},
};
use crate::{
    error::StoreError,
    merge::{Settled, Source},
    row::{Change, Direction, KeyRange, SharedBytes},
    seams::Files,
};

/// Stands on a row of a segment, or before one.
pub(crate) struct SegmentCursor<F: Files> {
    reader: SegmentReader<F>,
    range: Rc<KeyRange>,
    direction: Direction,
    block_number: u32,
    block: Option<RowBlock>,
    group: usize,
    rows: GroupRows,
    /// Forward: the row in the group. Backward: the row after it, so that 0 means that the group is done.
    row: usize,
    /// All rows of the group that are still to come lie in the range: then none of them is compared with its end.
    within: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// `block_number` is next; the range's edge lies in it.
    BeforeEdgeBlock,
    /// `block_number` is next, from its first or last row.
    BeforeBlock,
    /// In `group` of `block`.
    InGroup,
    /// Behind the last row.
    End,
}

impl<F: Files> SegmentCursor<F> {
    pub(crate) fn new(reader: &SegmentReader<F>, range: Rc<KeyRange>, direction: Direction) -> Self {
        let edge = match direction {
            Direction::Forward => reader.block_of(&range.start),
            // Where all keys are before the end, the last block is it.
            Direction::Backward => {
                let last = reader.block_count().checked_sub(1);
                range.end.as_ref().map_or(last, |end| reader.block_of(end).or(last))
            }
        };
        Self {
            reader: reader.clone(),
            range,
            direction,
            block_number: edge.unwrap_or(0),
            block: None,
            group: 0,
            rows: GroupRows::default(),
            row: 0,
            within: false,
            state: if edge.is_some() { State::BeforeEdgeBlock } else { State::End },
        }
    }

    /// Which segment.
    pub(crate) fn segment(&self) -> SegmentId {
        self.reader.id()
    }

    /// Goes into a block that is in memory.
    fn enter(&mut self, block: RowBlock) -> Result<(), StoreError> {
        let at_edge = self.state == State::BeforeEdgeBlock;
        let last_group = block.groups() - 1;
        let entered = match (self.direction, &self.range.end) {
            (Direction::Forward, _) if at_edge => {
                let start = &self.range.start;
                self.group = block.group_of(start).unwrap_or(0);
                block.decode_group(self.group, &mut self.rows).map(|()| self.row = self.rows.smaller_than(start))
            }
            (Direction::Forward, _) => {
                self.group = 0;
                block.decode_group(0, &mut self.rows).map(|()| self.row = 0)
            }
            (Direction::Backward, Some(end)) if at_edge => {
                self.group = block.group_of(end).unwrap_or(0);
                let decoded = block.decode_group_before(self.group, Some(end.as_slice()), &mut self.rows);
                decoded.map(|()| self.row = self.rows.len())
            }
            (Direction::Backward, _) => {
                self.group = last_group;
                block.decode_group(last_group, &mut self.rows).map(|()| self.row = self.rows.len())
            }
        };
        if entered.is_none() {
            return Err(self.malformed());
        }
        self.block = Some(block);
        self.state = State::InGroup;
        self.look_ahead();
        Ok(())
    }

    /// Looks whether the range ends in a group that was just decoded. Where it begins was seen to by the search for it.
    fn look_ahead(&mut self) {
        let farthest = match self.direction {
            Direction::Forward => self.rows.len().checked_sub(1),
            Direction::Backward => Some(0),
        };
        self.within = farthest.and_then(|row| self.rows.key(row)).is_some_and(|key| self.is_before_range_ends(key));
    }

    /// Whether the range goes on to a key, in the direction of the scan.
    fn is_before_range_ends(&self, key: &[u8]) -> bool {
        match self.direction {
            Direction::Forward => self.range.is_before_end(key),
            Direction::Backward => key >= self.range.start.as_slice(),
        }
    }

    /// Leaves a group that is done.
    fn leave_group(&mut self) -> Result<(), StoreError> {
        let Some(block) = &self.block else { return Err(self.malformed()) };
        let next = match self.direction {
            Direction::Forward => Some(self.group + 1).filter(|group| *group < block.groups()),
            Direction::Backward => self.group.checked_sub(1),
        };
        let Some(group) = next else {
            self.leave_block();
            return Ok(());
        };
        if block.decode_group(group, &mut self.rows).is_none() {
            return Err(self.malformed());
        }
        self.group = group;
        self.row = if self.direction == Direction::Forward { 0 } else { self.rows.len() };
        self.look_ahead();
        Ok(())
    }

    fn leave_block(&mut self) {
        self.block = None;
        self.rows.clear();
        let next = match self.direction {
            Direction::Forward => Some(self.block_number + 1).filter(|number| *number < self.reader.block_count()),
            Direction::Backward => self.block_number.checked_sub(1).filter(|number| {
                // A block that ends before the range need not be read.
                self.reader.last_key_of(*number).is_some_and(|last| last >= self.range.start.as_slice())
            }),
        };
        self.state = if next.is_some() { State::BeforeBlock } else { State::End };
        self.block_number = next.unwrap_or(0);
    }

    fn is_on_row(&self) -> bool {
        match self.direction {
            Direction::Forward => self.row < self.rows.len(),
            Direction::Backward => self.row > 0,
        }
    }

    fn key(&self) -> Option<&[u8]> {
        match self.direction {
            Direction::Forward => self.rows.key(self.row),
            Direction::Backward => self.rows.key(self.row.checked_sub(1)?),
        }
    }

    fn malformed(&self) -> StoreError {
        self.reader.damaged_block(self.block_number, "rows are malformed")
    }
}

impl<F: Files> Source for SegmentCursor<F> {
    fn settle(&mut self) -> Result<Settled, StoreError> {
        loop {
            match self.state {
                State::End => return Ok(Settled::End),
                State::BeforeEdgeBlock | State::BeforeBlock => match self.reader.cached_rows(self.block_number)? {
                    Some(block) => self.enter(block)?,
                    None => return Ok(Settled::NeedsBlock),
                },
                State::InGroup if !self.is_on_row() => self.leave_group()?,
                State::InGroup => {
                    let key = self.key().filter(|key| self.within || self.is_before_range_ends(key));
                    match key.map(|key| self.reader.shows(key)) {
                        Some(true) => return Ok(Settled::Row),
                        Some(false) => self.advance(),
                        None => {
                            self.rows.clear();
                            self.state = State::End;
                        }
                    }
                }
            }
        }
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        // Entered at once: it need not be in the cache any more when the merge goes on.
        let block = self.reader.read_rows(self.block_number).await?;
        self.enter(block)
    }

    fn row(&self) -> Option<(&[u8], &Change<SharedBytes>)> {
        match self.direction {
            Direction::Forward => self.rows.row(self.row),
            Direction::Backward => self.rows.row(self.row.checked_sub(1)?),
        }
    }

    fn advance(&mut self) {
        match self.direction {
            Direction::Forward => self.row += 1,
            Direction::Backward => self.row = self.row.saturating_sub(1),
        }
    }
}
