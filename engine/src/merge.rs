//! Merging sorted sources, newest first: of rows with one key the newest source's is given, the others are passed over.
//!
//! Pure logic over [`Source`]s; what a source has to read it reads in [`Source::load`], and only then is there anything to wait for.

use futures_util::future::try_join_all;

use crate::{
    error::StoreError,
    row::{Change, Direction, SharedBytes},
};

/// Where a source stands after [`Source::settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// On a row.
    Row,
    /// Behind its last row.
    End,
    /// Before a block that has to be loaded.
    NeedsBlock,
}

/// Rows in order. Call order: `settle`; after [`Settled::NeedsBlock`] `load` and `settle` again; after [`Settled::Row`] `row` any
/// number of times, then `advance`, then `settle` again.
pub(crate) trait Source {
    /// Moves to the next row if that needs no read.
    fn settle(&mut self) -> Result<Settled, StoreError>;

    /// Reads what `settle` lacks.
    async fn load(&mut self) -> Result<(), StoreError>;

    /// The row it stands on.
    fn row(&self) -> Option<(&[u8], &Change<SharedBytes>)>;

    /// Leaves the row it stands on.
    fn advance(&mut self);
}

/// A merge of sources that all go in one direction.
///
/// Sources that stand on a row are kept in the order of their keys, so that a step looks only at those whose row was taken: most often
/// one, whose next row comes next again.
pub(crate) struct Merge<S> {
    newest_first: Vec<S>,
    direction: Direction,
    /// Sources that stand on a row, by key and then by age. Those on the first key were given by the last step: see `current`.
    order: Vec<usize>,
    /// How many sources stand on the current key.
    current: usize,
    /// Sources that may have to be moved or loaded before the next step.
    unsettled: Vec<usize>,
    begun: bool,
}

impl<S: Source> Merge<S> {
    pub(crate) const fn new(newest_first: Vec<S>, direction: Direction) -> Self {
        Self { newest_first, direction, order: Vec::new(), current: 0, unsettled: Vec::new(), begun: false }
    }

    pub(crate) const fn direction(&self) -> Direction {
        self.direction
    }

    /// Puts a source on top of the others; before the first step only.
    pub(crate) fn push_newest(&mut self, source: S) {
        assert!(!self.begun, "the merge has begun");
        self.newest_first.insert(0, source);
    }

    /// Puts sources under the others. They hold nothing that the merge has passed; the row it stands on comes again, if none of theirs
    /// comes before it.
    pub(crate) fn push_oldest(&mut self, sources: impl Iterator<Item = S>) {
        let count = self.newest_first.len();
        self.newest_first.extend(sources);
        self.current = 0;
        if self.begun {
            self.unsettled.extend(count..self.newest_first.len());
        }
    }

    pub(crate) fn sources_mut(&mut self) -> &mut [S] {
        &mut self.newest_first
    }

    /// Moves to the next key if that needs no read. After [`Settled::NeedsBlock`], [`Merge::load`] and call again: nothing is lost.
    pub(crate) fn step(&mut self) -> Result<Settled, StoreError> {
        if !self.begun {
            self.begun = true;
            self.unsettled.extend(0..self.newest_first.len());
        }
        for index in self.order.drain(..std::mem::take(&mut self.current)) {
            self.newest_first[index].advance();
            self.unsettled.push(index);
        }
        let mut lacking = 0;
        while let Some(index) = self.unsettled.get(lacking).copied() {
            match self.newest_first[index].settle()? {
                Settled::NeedsBlock => {
                    lacking += 1;
                    continue;
                }
                Settled::Row => self.insert(index),
                Settled::End => {}
            }
            self.unsettled.swap_remove(lacking);
        }
        if lacking > 0 {
            return Ok(Settled::NeedsBlock);
        }
        let Some(first) = self.order.first() else { return Ok(Settled::End) };
        let key = self.key(*first);
        self.current = 1 + self.order[1..].iter().take_while(|index| self.key(**index) == key).count();
        Ok(Settled::Row)
    }

    /// Loads what the sources lack, all at once.
    pub(crate) async fn load(&mut self) -> Result<(), StoreError> {
        let unsettled = &self.unsettled;
        let lacking = self.newest_first.iter_mut().enumerate().filter(|(index, _)| unsettled.contains(index));
        try_join_all(lacking.map(|(_, source)| source.load())).await.map(drop)
    }

    /// As [`Merge::load`], one source after the other: at an error the others are as they were, so that a caller may go on past
    /// damage.
    pub(crate) async fn load_in_turn(&mut self) -> Result<(), StoreError> {
        for index in &self.unsettled {
            self.newest_first[*index].load().await?;
        }
        Ok(())
    }

    /// Puts a source that stands on a row in its place.
    fn insert(&mut self, index: usize) {
        let place = if self.order.first().is_none_or(|first| self.is_before(index, *first)) {
            0
        } else {
            self.order.partition_point(|other| self.is_before(*other, index))
        };
        self.order.insert(place, index);
    }

    fn is_before(&self, one: usize, other: usize) -> bool {
        let order = match self.direction {
            Direction::Forward => self.key(one).cmp(&self.key(other)),
            Direction::Backward => self.key(other).cmp(&self.key(one)),
        };
        order.then(one.cmp(&other)).is_lt()
    }

    fn key(&self, index: usize) -> Option<&[u8]> {
        self.newest_first[index].row().map(|(key, _)| key)
    }

    /// The key that the last step came to, and what the newest source says about it.
    pub(crate) fn row(&self) -> Option<(&[u8], &Change<SharedBytes>)> {
        self.source()?.row()
    }

    /// The source of that row.
    pub(crate) fn source(&self) -> Option<&S> {
        let first = self.order.first().filter(|_| self.current > 0)?;
        Some(&self.newest_first[*first])
    }
}
