//! Another number of lanes: new lanes made of all rows of the old ones, without copying segments, while nobody runs either.
//!
//! A new lane's segments are those of the old ones that may have rows of its partitions, under names of their own ([`Files::share`]), and
//! two more for each old lane whose log held anything beyond its segments. Nothing is changed in an old lane. A new one is whole when its
//! manifest is there, which is written last, when every name before it is durable.
//!
//! Invariants: a conversation's rows stay in the order in which they hide each other, since they were all of one lane; sequences, ordinals,
//! epochs, ids and positions stay as they are. Each new lane begins behind the last position of all old ones, so that what it takes is
//! later than all it has. It is another store: a position that a client holds says nothing there.
//!
//! Must not do: know where the lanes are, or make them the store's.

use std::{collections::VecDeque, rc::Rc};

use antiphon_wire::ids::{LanePosition, TimestampMs};
use serde::Serialize;

use crate::{
    encryption::{
        NodeKey, Seal, Vault,
        file::{self, Anchor, Entry, Header},
        without_key,
    },
    engine::{EngineError, open::Blob},
    error::StoreError,
    keys, layout,
    manifest::{self, Manifest, ReplaceError, SEGMENTS_MAX, SegmentEntry},
    memtable::Memtable,
    offline::{
        access::Access,
        opened::Opened,
        read_only::{Progress, ReadOnly},
    },
    partitions::{Adopted, Partitions},
    row::{OwnedRows, RowSource as _},
    seams::{Files, Random},
    segment::SegmentId,
    window::Horizon,
};

/// A new lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewLane {
    /// Which.
    pub lane: u16,
    /// Its store's identity.
    #[serde(skip)]
    pub store: u64,
    /// Everything in it is at or before this position, and what follows comes after it; the same in all of them.
    pub position: LanePosition,
    /// No entry of it is later.
    pub time_ms: TimestampMs,
    /// Its segments.
    pub segments: u64,
    /// Those of them that old lanes wrote.
    pub adopted: u64,
}

/// Why lanes cannot be made of others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LanesError {
    /// An old lane is not whole, or cannot be read. It is as it was.
    #[error("lane-{lane:02}: {source}")]
    Old {
        /// Which.
        lane: u16,
        /// Why.
        source: EngineError,
    },
    /// A new lane cannot be written. What was written of it is of no use.
    #[error("new lane-{lane:02}: {source}")]
    New {
        /// Which.
        lane: u16,
        /// Why.
        source: EngineError,
    },
}

/// Makes the lanes `new`, in empty folders, of all that the lanes `old` hold: as many of either as there are. An old folder without
/// anything is a lane without anything. `progress` is called after every read.
///
/// # Errors
/// [`LanesError`]. A store that is not whole is not spread: what is lost would be lost from all of it. Damage in a segment's rows is not
/// looked for, and goes with the segment. What was written into the new folders is of no use then.
pub async fn spread<F: Files>(
    old: &[F],
    new: &[F],
    random: &impl Random,
    progress: impl Fn(Progress) + 'static,
) -> Result<Vec<NewLane>, LanesError> {
    spread_encrypted(old, new, None, random, progress).await
}

/// As [`spread`], of lanes that are encrypted with the node's key, if it is given. A conversation's data key goes with it.
///
/// # Errors
/// As [`spread`].
pub async fn spread_encrypted<F: Files>(
    old: &[F],
    new: &[F],
    node: Option<&NodeKey>,
    random: &impl Random,
    progress: impl Fn(Progress) + 'static,
) -> Result<Vec<NewLane>, LanesError> {
    let mut next = 1;
    for (lane, files) in old.iter().enumerate() {
        match manifest::read(files).await {
            // Told below, if there is anything.
            Err(StoreError::ManifestMissing) => {}
            read => next = next.max(read.map_err(|error| of_old(lane, error.into()))?.next_segment),
        }
    }
    let lanes = new.len() as u16;
    let mut spread = Spread {
        lists: Vec::with_capacity(old.len()),
        lanes: (0..).zip(new).map(|(lane, files)| Making::new(files, lane, lanes, random.next(), next)).collect(),
        position: LanePosition(0),
        time: TimestampMs(0),
        horizon: Horizon::default(),
        has_changes: false,
        node,
    };
    let progress = Rc::new(progress);
    for (lane, files) in old.iter().enumerate() {
        let told = Rc::clone(&progress);
        let files = ReadOnly::new(files.clone(), move |done| told(done));
        let number = lane as u16;
        let access = node.map_or(number.into(), |node| Access::with_key(number, node.clone(), random));
        spread.take(lane, old.len(), files, &access).await?;
    }
    spread.finish(old, random).await
}

/// What is being made.
struct Spread<'a, F> {
    /// For each old lane its segments, newest first.
    lists: Vec<Vec<Source>>,
    lanes: Vec<Making<'a, F>>,
    position: LanePosition,
    time: TimestampMs,
    /// What some old lane has forgotten no new one knows.
    horizon: Horizon,
    /// Some segment has rows of changes.
    has_changes: bool,
    /// The node's key, if the lanes are encrypted.
    node: Option<&'a NodeKey>,
}

/// A segment of an old lane.
#[derive(Clone)]
struct Source {
    /// The lane's index.
    lane: usize,
    entry: SegmentEntry,
    /// The same as a new lane takes it over, with all the rows that count in the old one.
    adopted: Adopted,
}

/// A new lane on its way.
struct Making<'a, F> {
    files: &'a F,
    lane: u16,
    partitions: Partitions,
    store: u64,
    /// The number of the next segment. Above all old ones, so that a file's old name is never a new one.
    next: u64,
    /// Newest first.
    segments: Vec<SegmentEntry>,
    /// Data keys of its conversations.
    keys: Vec<Entry>,
}

impl<F: Files> Spread<'_, F> {
    /// Takes in an old lane: what its log holds, and which segments it has.
    async fn take(&mut self, lane: usize, lanes: usize, files: ReadOnly<F>, access: &Access) -> Result<(), LanesError> {
        let old = |error| of_old(lane, error);
        let opened = match Opened::open(files, access).await {
            // A first start that ended before it came to this lane.
            Err(EngineError::Store(StoreError::ManifestMissing)) => {
                self.lists.push(Vec::new());
                return Ok(());
            }
            other => other.map_err(old)?,
        };
        opened.require_key().map_err(old)?;
        let logged = opened.read_log().await.map_err(old)?;
        opened.require_whole(&logged).map_err(old)?;
        self.position = self.position.max(logged.position);
        self.time = self.time.max(logged.time);
        self.horizon = self.horizon.later(opened.horizon(&logged));
        self.has_changes |= opened.blob.has_changes || logged.memtable.has_changes();
        for making in &mut self.lanes {
            let number = making.lane;
            let of_making = |error| of_new(number, error);
            making.write(&logged.memtable, opened.seal()).await.map_err(of_making)?;
            if let (Some(vault), Some(node)) = (&opened.vault, self.node) {
                making.take_keys(vault, node).map_err(of_making)?;
            }
        }
        let own = Partitions::of_lane(lane as u16, lanes as u16);
        let store = opened.manifest.store;
        let sources = opened.manifest.segments.into_iter().map(|entry| {
            // What a lane wrote itself is of its own partitions.
            let written = Adopted { store, id: entry.id, held: own, shown: own };
            Source { lane, adopted: entry.adopted.unwrap_or(written), entry }
        });
        self.lists.push(sources.collect());
        Ok(())
    }

    /// Gives each new lane its segments, and its manifest.
    async fn finish(self, old: &[F], random: &impl Random) -> Result<Vec<NewLane>, LanesError> {
        let mut made = Vec::with_capacity(self.lanes.len());
        for mut making in self.lanes {
            let written = making.segments.len();
            let lists = self.lists.iter().map(|list| of_partitions(list, &making.partitions));
            for source in interleave(lists.collect()) {
                let from = old.get(source.lane).expect("the source is of an old lane");
                making.adopt(from, source).await.map_err(|error| of_new(making.lane, error))?;
            }
            let (time, horizon, has_changes) = (self.time, self.horizon, self.has_changes);
            let keys = making.write_keys(self.node).await.map_err(|error| of_new(making.lane, error))?;
            let (salt, others_until) = (random.next(), self.position);
            let blob = Blob { salt, time, generation: 0, file_bytes: 0, horizon, has_changes, keys, others_until };
            let (lane, store, segments) = (making.lane, making.store, making.segments.len());
            making.finish(self.position, &blob).await.map_err(|error| of_new(lane, error))?;
            made.push(NewLane {
                lane,
                store,
                position: self.position,
                time_ms: self.time,
                segments: segments as u64,
                adopted: (segments - written) as u64,
            });
        }
        Ok(made)
    }
}

impl<'a, F: Files> Making<'a, F> {
    fn new(files: &'a F, lane: u16, lanes: u16, store: u64, next: u64) -> Self {
        Self {
            files,
            lane,
            partitions: Partitions::of_lane(lane, lanes),
            store,
            next,
            segments: Vec::new(),
            keys: Vec::new(),
        }
    }

    fn take_id(&mut self) -> Result<SegmentId, EngineError> {
        if self.segments.len() >= SEGMENTS_MAX {
            let what = format!("the lane would have more than {SEGMENTS_MAX}; let the node merge some first");
            return Err(EngineError::Options { option: "segments", what });
        }
        let id = SegmentId(self.next);
        self.next += 1;
        Ok(id)
    }

    /// Writes segments of what a log holds of its partitions.
    async fn write(&mut self, memtable: &Memtable, seal: Option<Seal>) -> Result<(), EngineError> {
        let (mut rows, partitions) = (memtable.rows(), self.partitions);
        let own = std::iter::from_fn(move || {
            loop {
                let (key, change) = rows.next()?;
                if keys::conversation_of(key).is_none_or(|id| partitions.contains(id)) {
                    return Some((key.to_vec(), change.map(<[u8]>::to_vec)));
                }
            }
        });
        let ids = [self.take_id()?, self.take_id()?];
        let mut rows = OwnedRows::new(own);
        let written = layout::write_rows(self.files, self.store, ids, &mut rows, memtable.flush_times(), seal).await?;
        self.segments.extend(written);
        Ok(())
    }

    /// Takes the data keys of its conversations over from an old lane, wrapped for this one.
    fn take_keys(&mut self, vault: &Vault, node: &NodeKey) -> Result<(), EngineError> {
        for (id, _) in vault.entries().into_iter().filter(|(id, _)| self.partitions.contains(*id)) {
            let entry = vault.wrapped_for(id, node, self.store);
            self.keys.push(entry.map_err(|fault| without_key(&keys::conversation(id), fault.text()))?);
        }
        Ok(())
    }

    /// Writes the data keys' file; what the manifest is to say of it.
    async fn write_keys(&mut self, node: Option<&NodeKey>) -> Result<Option<Anchor>, EngineError> {
        let Some(node) = node else { return Ok(None) };
        let header = Header { store: self.store, origin: self.store, generation: 1, node: node.id() };
        file::replace(self.files, header, &self.keys).await?;
        Ok(Some(Anchor { generation: 1, entries: self.keys.len() as u64 }))
    }

    async fn adopt(&mut self, from: &F, source: Source) -> Result<(), EngineError> {
        let (id, name) = (self.take_id()?, source.entry.id.file_name());
        from.share(&name, self.files).await?;
        self.files.rename(&name, &id.file_name()).await?;
        self.segments.push(SegmentEntry { id, adopted: Some(source.adopted), ..source.entry });
        Ok(())
    }

    async fn finish(self, position: LanePosition, blob: &Blob) -> Result<(), EngineError> {
        self.files.sync_folder().await?;
        let manifest = Manifest {
            store: self.store,
            lane: u32::from(self.lane),
            edit: 1,
            next_segment: self.next,
            flushed_position: position.0,
            segments: self.segments,
            blob: blob.encode(),
        };
        let replaced = manifest::replace(self.files, &manifest).await.map_err(ReplaceError::into_file_error);
        Ok(replaced.map_err(StoreError::from)?)
    }
}

/// Those of an old lane's segments that may have rows of these partitions.
fn of_partitions(list: &[Source], partitions: &Partitions) -> VecDeque<Source> {
    let shown = list.iter().map(|source| {
        let shown = source.adopted.shown.and(partitions);
        Source { adopted: Adopted { shown, ..source.adopted }, ..source.clone() }
    });
    shown.filter(|source| !source.adopted.shown.is_empty()).collect()
}

/// One list of several, in which the order of each stands. A file that is in more than one of them is in it once, with what counts in any,
/// where that is possible: where lanes that shared it become one again.
fn interleave(mut lists: Vec<VecDeque<Source>>) -> Vec<Source> {
    let mut all = Vec::new();
    loop {
        let waits = |head: &Source| lists.iter().any(|list| list.iter().skip(1).any(|other| is_same(head, other)));
        let ready = lists.iter().position(|list| list.front().is_some_and(|head| !waits(head)));
        // Lists whose orders contradict each other, which no lane leaves: then a file is in it more than once, for other partitions each.
        let Some(at) = ready.or_else(|| lists.iter().position(|list| !list.is_empty())) else { return all };
        let Some(mut head) = lists[at].pop_front() else { return all };
        for list in &mut lists {
            if let Some(other) = list.pop_front_if(|other| is_same(&head, other)) {
                head.adopted.shown = head.adopted.shown.or(&other.adopted.shown);
            }
        }
        all.push(head);
    }
}

fn is_same(one: &Source, other: &Source) -> bool {
    (one.adopted.store, one.adopted.id, one.adopted.held) == (other.adopted.store, other.adopted.id, other.adopted.held)
}

const fn of_old(lane: usize, source: EngineError) -> LanesError {
    LanesError::Old { lane: lane as u16, source }
}

const fn of_new(lane: u16, source: EngineError) -> LanesError {
    LanesError::New { lane, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: u64, shown: Partitions) -> Source {
        let held = Partitions::of_lane(0, 1);
        let adopted = Adopted { store: 1, id: SegmentId(id), held, shown };
        let entry = SegmentEntry {
            id: SegmentId(id),
            level: 0,
            file_bytes: 4096 * 3,
            rows: 1,
            deletes: 0,
            first_key: vec![1],
            last_key: vec![2],
            adopted: Some(adopted),
        };
        Source { lane: 0, entry, adopted }
    }

    fn ids(sources: &[Source]) -> Vec<u64> {
        sources.iter().map(|source| source.adopted.id.0).collect()
    }

    #[test]
    fn lists_keep_their_orders_and_a_file_of_both_comes_once() {
        let (even, odd) = (Partitions::of_lane(0, 2), Partitions::of_lane(1, 2));
        let list = |shown: Partitions, ids: &[u64]| ids.iter().map(|id| source(*id, shown)).collect::<VecDeque<_>>();
        let all = interleave(vec![list(even, &[9, 4, 2]), list(odd, &[8, 7, 4, 3, 2])]);
        assert_eq!(ids(&all), [9, 8, 7, 4, 3, 2]);
        let whole: Vec<u64> = ids(&all.iter().filter(|of| of.adopted.is_whole()).cloned().collect::<Vec<_>>());
        assert_eq!(whole, [4, 2], "what both had is all of the file");
        // Orders that contradict each other: twice, for other partitions each.
        let all = interleave(vec![list(even, &[1, 2]), list(odd, &[2, 1])]);
        assert_eq!(ids(&all), [1, 2, 1]);
        assert!(all[1].adopted.is_whole() && !all[0].adopted.is_whole() && !all[2].adopted.is_whole());
        assert!(interleave(Vec::new()).is_empty());
    }

    #[test]
    fn what_has_nothing_of_a_lane_is_not_adopted() {
        let list = vec![source(2, Partitions::of_lane(1, 2)), source(1, Partitions::of_lane(0, 1))];
        assert_eq!(ids(&Vec::from(of_partitions(&list, &Partitions::of_lane(0, 4)))), [1]);
        assert_eq!(ids(&Vec::from(of_partitions(&list, &Partitions::of_lane(3, 4)))), [2, 1]);
    }
}
