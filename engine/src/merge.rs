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
pub(crate) struct Merge<S> {
    newest_first: Vec<S>,
    direction: Direction,
    /// Sources that stand on the current key; the first of them is the newest.
    current: Vec<usize>,
    /// Which sources lack a block.
    lacking: Vec<bool>,
}

impl<S: Source> Merge<S> {
    pub(crate) const fn new(newest_first: Vec<S>, direction: Direction) -> Self {
        Self { newest_first, direction, current: Vec::new(), lacking: Vec::new() }
    }

    /// Puts a source on top of the others; before the first step only.
    pub(crate) fn push_newest(&mut self, source: S) {
        self.newest_first.insert(0, source);
    }

    pub(crate) fn sources_mut(&mut self) -> &mut [S] {
        &mut self.newest_first
    }

    /// Moves to the next key if that needs no read. After [`Settled::NeedsBlock`], [`Merge::load`] and call again: nothing is lost.
    pub(crate) fn step(&mut self) -> Result<Settled, StoreError> {
        for index in self.current.drain(..) {
            self.newest_first[index].advance();
        }
        self.lacking.clear();
        for source in &mut self.newest_first {
            self.lacking.push(source.settle()? == Settled::NeedsBlock);
        }
        if self.lacking.contains(&true) {
            return Ok(Settled::NeedsBlock);
        }
        let mut best: Option<&[u8]> = None;
        for (index, source) in self.newest_first.iter().enumerate() {
            let Some((key, _)) = source.row() else { continue };
            let order = best.map_or(std::cmp::Ordering::Less, |best| match self.direction {
                Direction::Forward => key.cmp(best),
                Direction::Backward => best.cmp(key),
            });
            if order.is_lt() {
                self.current.clear();
                best = Some(key);
            }
            if order.is_le() {
                self.current.push(index);
            }
        }
        Ok(if self.current.is_empty() { Settled::End } else { Settled::Row })
    }

    /// Loads what the sources lack, all at once.
    pub(crate) async fn load(&mut self) -> Result<(), StoreError> {
        let lacking = self.newest_first.iter_mut().zip(&self.lacking).filter(|(_, lacks)| **lacks);
        try_join_all(lacking.map(|(source, _)| source.load())).await.map(drop)
    }

    /// The key that the last step came to, and what the newest source says about it.
    pub(crate) fn row(&self) -> Option<(&[u8], &Change<SharedBytes>)> {
        self.newest_first.get(*self.current.first()?)?.row()
    }
}
