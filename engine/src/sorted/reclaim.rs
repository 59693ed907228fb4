//! Reclaiming: what was erased goes from the disk, in whatever segment it lies, also in one that no merge would touch again.
//!
//! A row that erases ([`Erases`]) hides what older segments say of its key, but their bytes stay until a merge has
//! both. So from the oldest segment on that has such rows and has had them for long enough, its keys are collected, each older segment that
//! knows one of them is written anew without them, one at a time, and at last the segment itself, which is settled then: its delete
//! markers hide nothing any more and go, too. Each of these is an edit like a merge's: a crash costs the one under way, and what was done
//! is not done again, because it is not found again. Rows that erase nothing cost nothing.
//!
//! Must not do: touch segments that know none of the keys; settle anything above a segment that is damaged, and may come back by a repair.

use std::{collections::BTreeSet, sync::Arc};

use super::{Inner, Released, Sorted};
use crate::{
    compaction::{Compacted, ErasingInfo, Expiry, Pace, choose_reclaim},
    error::StoreError,
    merge::{Settled, Source as _},
    row::{Change, SharedBytes},
    runs::Run,
    seams::Files,
    segment::{Erases, SegmentId, SegmentReader, StreamCursor},
};

/// Most keys that are looked for at a time: some 20 MB. A segment with more is done in parts.
const KEYS_MAX: usize = 1 << 18;

/// How far reclaiming has come. Forgotten at a start: then it is found out anew.
pub(super) struct Progress {
    /// The segment whose keys are collected.
    segment: SegmentId,
    keys: Keys,
    /// These were the segment's last.
    is_last_part: bool,
    /// Older segments that know none of the keys.
    clean: Vec<SegmentId>,
}

type Keys = Arc<BTreeSet<Box<[u8]>>>;

/// Rows of these keys are left out, beside what has expired.
#[derive(Clone)]
struct Erased<E> {
    keys: Keys,
    expiry: E,
}

impl<E: Expiry> Expiry for Erased<E> {
    fn is_expired(&self, key: &[u8], value: &[u8]) -> bool {
        self.keys.contains(key) || self.expiry.is_expired(key, value)
    }

    fn covers(&self, first_key: &[u8], last_key: &[u8], times: Option<(u64, u64)>) -> bool {
        self.expiry.covers(first_key, last_key, times)
    }

    fn hides_nothing(&self, key: &[u8]) -> bool {
        self.keys.contains(key) || self.expiry.hides_nothing(key)
    }
}

/// Delete markers that erase are left out: nothing older knows their keys.
#[derive(Clone)]
struct Settling<E> {
    erases: Erases,
    expiry: E,
}

impl<E: Expiry> Expiry for Settling<E> {
    fn is_expired(&self, key: &[u8], value: &[u8]) -> bool {
        self.expiry.is_expired(key, value)
    }

    fn covers(&self, first_key: &[u8], last_key: &[u8], times: Option<(u64, u64)>) -> bool {
        self.expiry.covers(first_key, last_key, times)
    }

    fn hides_nothing(&self, key: &[u8]) -> bool {
        (self.erases)(key, Change::Delete) || self.expiry.hides_nothing(key)
    }

    fn settles(&self) -> bool {
        true
    }
}

/// What is to be done next.
enum Step<F: Files> {
    /// Write a segment anew without the keys.
    Rewrite(SegmentReader<F>, Keys, bool),
    /// Write the segment anew that has the rows which erase.
    Settle(SegmentReader<F>, bool),
}

impl<F: Files> Sorted<F> {
    /// Whether [`Sorted::reclaim`] has something to do.
    #[must_use]
    pub fn can_reclaim(&self, before: u64) -> bool {
        self.inner.erasing(before).is_some()
    }

    /// Takes the next step of reclaiming what was erased before a time; `Ok(None)` if all of it is done, or while a merge runs.
    ///
    /// # Errors
    /// As [`Sorted::compact`].
    pub async fn reclaim(
        &self,
        before: u64,
        pace: impl Pace + Send + 'static,
        expiry: impl Expiry,
    ) -> Result<Option<Compacted>, StoreError> {
        let inner = &*self.inner;
        let Some(_compacting) = Released::take(&inner.compacting) else { return Ok(None) };
        let Some(step) = inner.next_step(before, &pace).await? else { return Ok(None) };
        let compacted = match step {
            Step::Rewrite(reader, keys, is_oldest) => {
                inner.merge(&[reader], is_oldest, pace, Erased { keys, expiry }).await?
            }
            Step::Settle(reader, is_oldest) => {
                let erases = inner.class.context.settings.erases;
                let compacted = inner.merge(&[reader], is_oldest, pace, Settling { erases, expiry }).await?;
                inner.state.borrow_mut().reclaiming = None;
                compacted
            }
        };
        inner.remove_unused().await;
        Ok(Some(compacted))
    }
}

impl<F: Files> Inner<F> {
    /// The segment whose erased rows are to be reclaimed, those that are older and can be written anew, and whether those are all.
    fn erasing(&self, before: u64) -> Option<(SegmentReader<F>, Vec<SegmentReader<F>>, bool)> {
        let state = self.state.borrow();
        let runs: Vec<&Run<F>> =
            state.runs.newest_first().iter().filter(|run| !self.is_apart(run.bounds().0)).collect();
        let is_mergeable = |reader: &SegmentReader<F>| !state.unmergeable.contains(&reader.id());
        let infos: Vec<ErasingInfo> = runs
            .iter()
            .map(|run| match run {
                Run::Segment(reader) => {
                    ErasingInfo { since: reader.statistics().erasing_since, mergeable: is_mergeable(reader) }
                }
                Run::Damaged { .. } => ErasingInfo { since: None, mergeable: false },
            })
            .collect();
        let at = choose_reclaim(&infos, before)?;
        let mut readers = runs[at..].iter().filter_map(|run| match run {
            Run::Segment(reader) if is_mergeable(reader) => Some(reader.clone()),
            // What is damaged is repaired, not rewritten.
            Run::Segment(_) | Run::Damaged { .. } => None,
        });
        let (erasing, older) = (readers.next()?, readers.collect::<Vec<_>>());
        let are_all = older.len() + 1 == runs[at..].len();
        Some((erasing, older, are_all))
    }

    async fn next_step(&self, before: u64, pace: &impl Pace) -> Result<Option<Step<F>>, StoreError> {
        // Each turn collects keys that come after those before, or ends.
        loop {
            let Some((erasing, older, are_all)) = self.erasing(before) else { return Ok(None) };
            // Not in the match: the borrow would last over the await in it.
            let begun = self.state.borrow_mut().reclaiming.take();
            let mut progress = match begun {
                Some(progress) if progress.segment == erasing.id() => progress,
                _ => self.collect(&erasing, None, pace).await?,
            };
            for (index, reader) in older.iter().enumerate() {
                if progress.clean.contains(&reader.id()) {
                    continue;
                }
                if knows_any(reader, &progress.keys, pace).await? {
                    let (keys, is_oldest) = (Arc::clone(&progress.keys), index + 1 == older.len());
                    self.state.borrow_mut().reclaiming = Some(progress);
                    return Ok(Some(Step::Rewrite(reader.clone(), keys, is_oldest && self.is_oldest(reader))));
                }
                progress.clean.push(reader.id());
            }
            if progress.is_last_part && !are_all {
                // What a repair may bring back must stay hidden.
                self.state.borrow_mut().reclaiming = Some(progress);
                return Ok(None);
            }
            if progress.is_last_part {
                let is_oldest = self.is_oldest(&erasing);
                return Ok(Some(Step::Settle(erasing, is_oldest)));
            }
            let last = progress.keys.last().cloned();
            let next = self.collect(&erasing, last.as_deref(), pace).await?;
            self.state.borrow_mut().reclaiming = Some(next);
        }
    }

    /// Whether nothing of the kind is older, damaged or not.
    fn is_oldest(&self, reader: &SegmentReader<F>) -> bool {
        let state = self.state.borrow();
        let mut runs = state.runs.newest_first().iter().rev().filter(|run| !self.is_apart(run.bounds().0));
        runs.next().is_some_and(|run| run.id() == reader.id())
    }

    /// Keys of rows that erase, behind `after`.
    async fn collect(
        &self,
        reader: &SegmentReader<F>,
        after: Option<&[u8]>,
        pace: &impl Pace,
    ) -> Result<Progress, StoreError> {
        let erases = self.class.context.settings.erases;
        let mut keys = BTreeSet::new();
        let mut cursor = StreamCursor::new(reader);
        let mut is_last_part = true;
        loop {
            match cursor.settle()? {
                Settled::End => break,
                Settled::NeedsBlock => {
                    cursor.load().await?;
                    pace.pause().await;
                }
                Settled::Row => {
                    let erased = cursor.row().filter(|(key, change)| {
                        after.is_none_or(|after| *key > after) && erases(key, bytes_of(change))
                    });
                    if let Some((key, _)) = erased {
                        if keys.len() == KEYS_MAX {
                            is_last_part = false;
                            break;
                        }
                        keys.insert(Box::from(key));
                    }
                    cursor.advance();
                }
            }
        }
        Ok(Progress { segment: reader.id(), keys: Arc::new(keys), is_last_part, clean: Vec::new() })
    }
}

fn bytes_of(change: &Change<SharedBytes>) -> Change<&[u8]> {
    change.as_ref().map(|value| &**value)
}

/// Whether a segment has a row of one of the keys.
async fn knows_any<F: Files>(reader: &SegmentReader<F>, keys: &Keys, pace: &impl Pace) -> Result<bool, StoreError> {
    for key in keys.iter() {
        if reader.may_contain(key) {
            if reader.get(key).await?.is_some() {
                return Ok(true);
            }
            pace.pause().await;
        }
    }
    Ok(false)
}
