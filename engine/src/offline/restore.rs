//! Restoring: a new store from a checkpoint, or from any store that is whole, as it was at its end or at a point before.
//!
//! What is read is verified first, all of it; a copy that is not sound is not restored. A restore to the end copies segments; one to a point
//! replays the entries up to it, since segments hold rows of all times.
//!
//! The new store has an identity of its own. It will take other messages after its end than the store that it comes from took, so a position
//! that a client holds of that one says nothing here: the client is told to begin anew.

use std::rc::Rc;

use antiphon_wire::{
    frame::view_entry,
    ids::{ConversationId, LanePosition, TimestampMs, UserId},
};
use serde::Serialize;

use crate::{
    encryption::file::{self, Anchor, Header},
    engine::{EngineError, open::Blob},
    error::{DamagedKeys, StoreError},
    keys::{self, Key, Owner},
    lane::record::{Mark, Record},
    layout::add_segments,
    manifest::{self, Manifest, ReplaceError},
    memtable::tail_row,
    offline::{
        access::{Access, Sealing},
        maker::Maker,
        opened::{Logged, Opened},
        read_only::{Progress, ReadOnly},
        replay::Replay,
        report::VerifyReport,
        verify::verify,
        walk::Walk,
    },
    rows::{PointerRow, TailRow, decode_entry},
    seams::{Files, Random},
    segment::{SegmentId, copy_segment},
};

/// Up to where a store is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All of it.
    End,
    /// Entries up to and with this time.
    Time(TimestampMs),
    /// Records up to and with this position.
    Position(LanePosition),
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// Which lane.
    pub lane: u16,
    /// The new store's identity, sixteen hexadecimal digits.
    pub store: String,
    /// Where it ends.
    pub position: LanePosition,
    /// No entry of it is later.
    pub time_ms: TimestampMs,
    /// Conversations.
    pub conversations: u64,
    /// Their entries.
    pub entries: u64,
    /// Conversations that a repair has found to have lost entries: at a point before the end it is not known who their members were.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<ConversationId>,
}

/// Why nothing was restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The copy is damaged: take another one, or repair it.
    #[error("the copy is damaged: {}", first_finding(.0))]
    Unsound(Box<VerifyReport>),
    /// The copy does not reach so far: take a later one.
    #[error("position {asked} is beyond the copy's end, {end}")]
    Beyond {
        /// What was asked for.
        asked: LanePosition,
        /// The copy's last position.
        end: LanePosition,
    },
    /// The number of lanes was changed after that position: it is one of another lane. Say a time, or a later position.
    #[error("position {asked} is one of other lanes: this one began at {since}, when the number of lanes was changed")]
    OtherLanes {
        /// What was asked for.
        asked: LanePosition,
        /// From here on positions are this lane's.
        since: LanePosition,
    },
    /// The copy cannot be read, or the new folder cannot be written.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

fn first_finding(report: &VerifyReport) -> String {
    report.findings.first().map_or_else(|| "more than can be told".to_owned(), ToString::to_string)
}

/// Makes a new store in `to`, an empty folder, of the lane's store in `from`. `progress` is called after every read, while it is verified and
/// again while it is copied. Until this ends well the folder is no store.
///
/// # Errors
/// [`RestoreError`]; what was written so far is of no use then.
pub async fn restore<S: Files, T: Files>(
    from: S,
    to: T,
    access: impl Into<Access>,
    random: &impl Random,
    until: Until,
    progress: impl Fn(Progress) + 'static,
) -> Result<Restored, RestoreError> {
    let progress = Rc::new(progress);
    let told = Rc::clone(&progress);
    let access = access.into();
    let report = verify(from.clone(), access.clone(), move |done| told(done)).await?;
    if report.findings_left_out > 0 || report.findings.iter().any(|finding| !finding.harmless) {
        return Err(RestoreError::Unsound(Box::new(report)));
    }
    if let Until::Position(asked) = until
        && asked > report.position
    {
        return Err(RestoreError::Beyond { asked, end: report.position });
    }
    let files = ReadOnly::new(from, move |done| progress(done));
    let opened = Opened::open(files.clone(), &access).await?;
    if let Until::Position(asked) = until
        && asked < opened.blob.others_until
    {
        return Err(RestoreError::OtherLanes { asked, since: opened.blob.others_until });
    }
    let logged = opened.read_log().await?;
    opened.require_whole(&logged)?;
    files.expect(opened.segment_bytes());
    let (store, salt) = (random.next(), random.next());
    // What is copied was merged by that horizon.
    let horizon = opened.horizon(&logged);
    let has_changes = opened.blob.has_changes || logged.memtable.has_changes();
    let (time, keys, others_until) = (logged.time, opened.blob.keys, opened.blob.others_until);
    let blob = Blob { salt, time, generation: 0, file_bytes: 0, horizon, has_changes, keys, others_until };
    let is_whole = match until {
        Until::End => true,
        Until::Time(time) => time >= logged.time,
        Until::Position(position) => position >= logged.position,
    };
    if is_whole {
        copy(&opened, &logged, &to, store, blob, &report).await
    } else {
        opened.require_key()?;
        replay(&opened, &logged, (to, access.key.as_ref()), store, blob, until).await
    }
}

/// Copies segments as they are, but for the identity.
async fn copy<S: Files, T: Files>(
    opened: &Opened<ReadOnly<S>>,
    logged: &Logged,
    to: &T,
    store: u64,
    blob: Blob,
    report: &VerifyReport,
) -> Result<Restored, RestoreError> {
    let from = &opened.manifest;
    let mut blob = blob;
    if let Some(found) = &opened.found {
        // The data keys as they are: what they are wrapped for is told by the origin, which stays.
        let header = Header { store, ..found.header };
        file::replace(to, header, &found.entries).await.map_err(StoreError::from)?;
        blob.keys = Some(Anchor { generation: header.generation, entries: found.entries.len() as u64 });
    }
    for segment in &from.segments {
        copy_segment((&opened.files, from.store), (to, store), segment).await?;
    }
    let mut manifest = Manifest {
        store,
        edit: 1,
        flushed_position: logged.position.0.max(from.flushed_position),
        blob: blob.encode(),
        ..from.clone()
    };
    if !logged.memtable.is_empty() {
        let ids = [SegmentId(manifest.next_segment), SegmentId(manifest.next_segment + 1)];
        manifest.next_segment += 2;
        opened.require_key()?;
        add_segments(to, &mut manifest, ids, &logged.memtable, opened.seal()).await?;
    }
    to.sync_folder().await.map_err(StoreError::from)?;
    manifest::replace(to, &manifest).await.map_err(|error| StoreError::from(ReplaceError::into_file_error(error)))?;
    Ok(Restored {
        lane: report.lane,
        store: format!("{store:016x}"),
        position: LanePosition(manifest.flushed_position),
        time_ms: blob.time,
        conversations: report.conversations,
        entries: report.entries,
        left_out: Vec::new(),
    })
}

/// Makes the store of the entries up to a point.
async fn replay<S: Files, T: Files>(
    opened: &Opened<ReadOnly<S>>,
    logged: &Logged,
    (to, key): (T, Option<&Sealing>),
    store: u64,
    blob: Blob,
    until: Until,
) -> Result<Restored, RestoreError> {
    let lane = opened.manifest.lane as u16;
    // Every row is made anew.
    let horizon = blob.horizon.of_new_rows();
    let blob = Blob { time: TimestampMs(0), horizon, has_changes: false, ..blob };
    let maker = Maker::create(to, store, lane, blob, key).await.map_err(EngineError::from)?;
    let restored = Restored {
        lane,
        store: format!("{store:016x}"),
        position: LanePosition(0),
        time_ms: TimestampMs(0),
        conversations: 0,
        entries: 0,
        left_out: Vec::new(),
    };
    let mut cut = Cut { maker, until, current: None, restored };
    let mut walk = Walk::new(&opened.runs, &logged.memtable, &[], false);
    while walk.next().await? {
        let Some((key, value)) = walk.row() else { continue };
        let (Some(Owner::Conversation(id)), Some(key)) = (keys::owner(key), keys::parse(key)) else { continue };
        cut.row(id, key, value).await?;
    }
    cut.finish_conversation().await?;
    let Cut { maker, mut restored, .. } = cut;
    if let Until::Position(position) = until {
        restored.position = position;
    }
    maker.finish(restored.position, restored.time_ms).await.map_err(EngineError::from)?;
    Ok(restored)
}

/// A store as it was at a point, being made.
struct Cut<F: Files> {
    maker: Maker<F>,
    until: Until,
    current: Option<Current>,
    restored: Restored,
}

/// The conversation at hand.
struct Current {
    id: ConversationId,
    pointers: Vec<(UserId, PointerRow)>,
    replay: Replay,
    /// The point was passed: later entries are later still.
    has_ended: bool,
}

impl<F: Files> Cut<F> {
    async fn row(&mut self, id: ConversationId, key: Key, value: &[u8]) -> Result<(), RestoreError> {
        if self.current.as_ref().is_none_or(|current| current.id != id) {
            self.finish_conversation().await?;
            let (pointers, replay) = (Vec::new(), Replay::default());
            self.current = Some(Current { id, pointers, replay, has_ended: false });
        }
        let Some(current) = self.current.as_mut().filter(|current| !current.has_ended) else { return Ok(()) };
        match key {
            // It comes before all others of the conversation.
            Key::Lost(_) => {
                current.has_ended = true;
                self.restored.left_out.push(id);
            }
            Key::Pointer(user) => {
                let row = PointerRow::decode(value).ok_or_else(|| malformed("a row does not have its form"))?;
                current.pointers.push((user, row));
            }
            Key::Entry(sequence) => {
                let entry = decode_entry(value).filter(|(_, archive)| view_entry(archive).is_ok());
                let (position, archive) = entry.ok_or_else(|| malformed("a row does not have its form"))?;
                let time = view_entry(archive).map_or(TimestampMs(0), |entry| tail_row(position, entry).time);
                if !self.until.reaches(position, time) {
                    current.has_ended = true;
                    return Ok(());
                }
                let taken = current.replay.take(id, sequence, position, archive).map_err(malformed)?;
                if taken.missing.is_some() || !taken.wrong.is_empty() {
                    return Err(malformed("the entries do not follow each other").into());
                }
                let record = taken.record(archive);
                self.maker.apply(position, &record).await.map_err(EngineError::from)?;
                self.restored.entries += 1;
                self.restored.position = self.restored.position.max(position);
                self.restored.time_ms = self.restored.time_ms.max(time);
            }
            // All others follow from the entries.
            _ => {}
        }
        Ok(())
    }

    async fn finish_conversation(&mut self) -> Result<(), RestoreError> {
        let Some(Current { id, pointers, replay, .. }) = self.current.take() else { return Ok(()) };
        let Some(last) = replay.last else { return Ok(()) };
        self.restored.conversations += 1;
        for (user, pointer) in pointers {
            if replay.users.contains_key(&user) {
                let mark = Mark { conversation: id, user, pointer: within(&pointer, &last) };
                self.maker.apply(last.position, &Record::Mark(mark)).await.map_err(EngineError::from)?;
            }
        }
        Ok(())
    }
}

impl Until {
    fn reaches(self, position: LanePosition, time: TimestampMs) -> bool {
        match self {
            Self::End => true,
            Self::Time(until) => time <= until,
            Self::Position(until) => position <= until,
        }
    }
}

/// Where pointers were is not kept, only where they are: those that are beyond the end are at the end.
pub(super) fn within(pointer: &PointerRow, last: &TailRow) -> PointerRow {
    let (read, ordinal) =
        if pointer.read > last.sequence { (last.sequence, last.ordinal) } else { (pointer.read, pointer.ordinal) };
    PointerRow { read, ordinal, delivered: pointer.delivered.min(last.sequence) }
}

fn malformed(what: &'static str) -> StoreError {
    StoreError::Damaged { file: "segments".into(), offset: 0, what, keys: DamagedKeys::all() }
}
