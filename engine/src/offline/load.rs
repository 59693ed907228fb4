//! Loading: a new store from a dump's lines, by the engine's own memtable and segment writer.
//!
//! Entries are replayed as a start replays the log, so that every row that follows from them is made by the one
//! function that makes it. What the other lines say must be what the entries say; a line that does not fit ends it.
//! Lines are input from outside: nothing in them panics.
//!
//! Memory: one memtable of [`SEGMENT_BYTES`], and one conversation's members and pointers. The folder is a whole store
//! only after the lane's last line: until then the caller keeps it under another name.

use std::sync::Arc;

use antiphon_wire::ids::{ClientMessageId, ConversationId};

use crate::{
    cache::Cache,
    compaction,
    engine::{EngineError, open::Blob},
    error::StoreError,
    hash::IdHash,
    keys::{self, FILTER},
    lane::record::{COUNT_MAX, Mark, Record},
    manifest::SEGMENTS_MAX,
    memtable::Memtable,
    offline::{
        dump::Dumped,
        lines::{ConversationLine, EndLine, EntryLine, LaneLine, Line, MemberLine, PointerLine, VERSION},
        replay::Replay,
    },
    options::RECORD_BYTES_MAX,
    row::Change,
    rows::{PointerRow, StartRow, TailRow},
    seams::{Files, Random},
    segment::SegmentSettings,
    sorted::{FlushMark, Sorted, SortedSettings},
};

/// Memory of what becomes one segment: large enough that few segments come of it, small beside a machine's memory.
const SEGMENT_BYTES: usize = 64 * 1024 * 1024;

/// Blocks kept for looking up message ids in what was written already.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Why a dump cannot be loaded. What was written so far is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A line is not one of a dump, or contradicts those before it. Make the dump anew.
    #[error("line {number} of the lane: {what}")]
    Line {
        /// Counted from 1, the lane's first line.
        number: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The folder cannot be written, or is not empty.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        Self::Engine(error.into())
    }
}

/// Makes one lane's store. Call order: [`Loader::create`] with the lane's first line, [`Loader::push`] with each of the
/// others until it says that the lane is done.
pub struct Loader<F: Files> {
    sorted: Sorted<F>,
    hash: IdHash,
    lane: LaneLine,
    memtable: Memtable,
    segment_bytes: usize,
    segments_max: usize,
    current: Option<Loading>,
    last: Option<ConversationId>,
    loaded: Dumped,
    number: u64,
    is_done: bool,
}

/// The conversation at hand.
struct Loading {
    line: ConversationLine,
    members: Vec<MemberLine>,
    pointers: Vec<PointerLine>,
    replay: Replay,
}

impl<F: Files> Loader<F> {
    /// The lane that a dump's line begins, if it does; for callers that have to find its folder.
    #[must_use]
    pub fn lane_of(line: &str) -> Option<u16> {
        match Line::from_text(line) {
            Ok(Line::Lane(line)) => Some(line.lane),
            _ => None,
        }
    }

    /// Makes a store in an empty folder, under the identity that the lane's first line tells: positions that clients
    /// hold stay valid.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn create(files: F, random: &impl Random, line: &str) -> Result<Self, LoadError> {
        let wrong = |what: String| LoadError::Line { number: 1, what };
        let Line::Lane(lane) = Line::from_text(line).map_err(wrong)? else {
            return Err(wrong("a lane begins with its lane line".into()));
        };
        if lane.version != VERSION {
            return Err(wrong(format!("version {} is not {VERSION}, the one that is read", lane.version)));
        }
        if lane.position.0 >= COUNT_MAX {
            return Err(wrong("the position is too high".into()));
        }
        let digits = lane.store.len() == 16 && lane.store.bytes().all(|byte| byte.is_ascii_hexdigit());
        let store = u64::from_str_radix(&lane.store, 16).ok().filter(|_| digits);
        let store = store.ok_or_else(|| wrong("the store is sixteen hexadecimal digits".into()))?;
        let blob = Blob { salt: random.next(), time: lane.time_ms, generation: 0 };
        let settings = SortedSettings {
            segment: SegmentSettings { filter: FILTER, ..SegmentSettings::default() },
            flush_compression_level: SegmentSettings::default().compression_level,
            compaction: compaction::Settings::default(),
            cache: Cache::new(CACHE_BYTES),
        };
        let hash = IdHash(blob.salt);
        let sorted = Sorted::create(files, settings, store, u32::from(lane.lane), blob.encode()).await?;
        Ok(Self {
            sorted,
            hash,
            lane,
            memtable: Memtable::new(hash),
            segment_bytes: SEGMENT_BYTES,
            segments_max: SEGMENTS_MAX,
            current: None,
            last: None,
            loaded: Dumped::default(),
            number: 1,
            is_done: false,
        })
    }

    /// Makes smaller segments, and fewer, for tests.
    #[doc(hidden)]
    pub fn set_limits(&mut self, segment_bytes: usize, segments_max: usize) {
        (self.segment_bytes, self.segments_max) = (segment_bytes, segments_max);
    }

    /// Takes the next line. What was loaded when the lane is done, and durable.
    ///
    /// # Errors
    /// [`LoadError`]; no more lines are to be pushed then.
    pub async fn push(&mut self, line: &str) -> Result<Option<Dumped>, LoadError> {
        self.number += 1;
        if self.is_done {
            return Err(self.wrong("a line after the end of the lane"));
        }
        match Line::from_text(line).map_err(|what| self.wrong(&what))? {
            Line::Lane(_) => return Err(self.wrong("the lane before has not ended")),
            Line::Conversation(line) => {
                self.finish_conversation().await?;
                if self.last.is_some_and(|last| last >= line.conversation) {
                    return Err(self.wrong("conversations do not come in the order of their ids"));
                }
                self.last = Some(line.conversation);
                let (members, pointers) = (Vec::new(), Vec::new());
                self.current = Some(Loading { line, members, pointers, replay: Replay::default() });
            }
            Line::Member(line) => self.before_entries(line.conversation)?.members.push(line),
            Line::Pointer(line) => self.before_entries(line.conversation)?.pointers.push(line),
            Line::Entry(line) => self.entry(&line).await?,
            Line::End(line) => return self.finish(&line).await.map(Some),
        }
        Ok(None)
    }

    fn wrong(&self, what: &str) -> LoadError {
        LoadError::Line { number: self.number, what: what.to_owned() }
    }

    /// The conversation at hand, to which the line must belong.
    fn of(&mut self, id: ConversationId) -> Result<&mut Loading, LoadError> {
        let error = self.wrong("the line is not of the conversation at hand");
        self.current.as_mut().filter(|current| current.line.conversation == id).ok_or(error)
    }

    fn before_entries(&mut self, id: ConversationId) -> Result<&mut Loading, LoadError> {
        let error = self.wrong("members and pointers stand before entries");
        let current = self.of(id)?;
        if current.replay.last.is_none() { Ok(current) } else { Err(error) }
    }

    async fn entry(&mut self, line: &EntryLine) -> Result<(), LoadError> {
        let archive = line.to_archive().map_err(|what| self.wrong(&what))?;
        let (id, position) = (line.conversation, line.position);
        if archive.len() > RECORD_BYTES_MAX {
            return Err(self.wrong("the entry is longer than entries can be"));
        }
        if position > self.lane.position {
            return Err(self.wrong("the position is beyond the lane's"));
        }
        let current = self.of(id)?;
        let taken = current.replay.take(id, line.sequence, position, &archive);
        let taken = taken.map_err(|what| self.wrong(what))?;
        if let Some((first, last)) = taken.missing {
            return Err(self.wrong(&format!("entries {first} to {last} are missing")));
        }
        if let Some(what) = taken.wrong.first() {
            return Err(self.wrong(what));
        }
        if let Some(message) = taken.message
            && self.is_known(id, message).await?
        {
            return Err(self.wrong("another message of the conversation has the same client_message_id"));
        }
        self.loaded.entries += 1;
        self.memtable.apply(position, &Record::Entry(Arc::from(archive)));
        if self.memtable.bytes() >= self.segment_bytes {
            self.flush(0).await?;
        }
        Ok(())
    }

    async fn is_known(&self, id: ConversationId, message: ClientMessageId) -> Result<bool, LoadError> {
        if self.memtable.message(id, message).is_some() {
            return Ok(true);
        }
        let key = keys::idempotency(id, message);
        let runs = self.sorted.runs();
        if !runs.may_contain(&key) {
            return Ok(false);
        }
        Ok(runs.get(&key).await?.and_then(Change::value).is_some())
    }

    /// Holds a conversation's other lines against its entries, and sets the pointers.
    async fn finish_conversation(&mut self) -> Result<(), LoadError> {
        let Some(Loading { line, members, pointers, replay }) = self.current.take() else { return Ok(()) };
        let id = line.conversation;
        let of = |what: &str| format!("conversation {id}: {what}");
        let Some(last) = replay.last else { return Err(self.wrong(&of("there are no entries"))) };
        let start = StartRow { time: line.time_ms, epoch: line.epoch, direct: line.direct, creator: line.creator };
        let tail = TailRow {
            position: line.last_position,
            sequence: line.last_sequence,
            ordinal: line.last_ordinal,
            time: line.last_time_ms,
        };
        if replay.start != Some(start) || replay.title != Some(line.title) || last != tail {
            return Err(self.wrong(&of("its line is not what its entries say")));
        }
        let said = replay.users.iter().filter_map(|(user, state)| Some((user, state.member?)));
        let said = said.map(|(user, member)| (user, member.visible_from, member.ordinal));
        let written = members.iter().map(|member| (&member.user, member.visible_from, member.ordinal));
        if !said.eq(written) {
            return Err(self.wrong(&of("its members are not those that its entries make")));
        }
        for PointerLine { user, read, ordinal, delivered, .. } in pointers {
            let pointer = PointerRow { read, ordinal, delivered };
            if !replay.users.contains_key(&user) || !fits(&pointer, &last) {
                return Err(self.wrong(&of(&format!("the pointers of {user} do not fit its entries"))));
            }
            let mark = Mark { conversation: id, user, pointer };
            self.memtable.apply(last.position, &Record::Mark(mark));
        }
        self.loaded.conversations += 1;
        Ok(())
    }

    async fn finish(&mut self, line: &EndLine) -> Result<Dumped, LoadError> {
        self.finish_conversation().await?;
        let told = (line.lane, line.conversations, line.entries);
        if told != (self.lane.lane, self.loaded.conversations, self.loaded.entries) {
            return Err(self.wrong("the end tells of another number of conversations or entries: lines are missing"));
        }
        self.flush(self.lane.position.0).await?;
        self.is_done = true;
        Ok(self.loaded)
    }

    /// Writes what is in memory as a segment.
    async fn flush(&mut self, flushed_position: u64) -> Result<(), LoadError> {
        if self.sorted.manifest().segments.len() >= self.segments_max {
            return Err(self.wrong("the lane is larger than a store can take in at once"));
        }
        let full = std::mem::replace(&mut self.memtable, Memtable::new(self.hash));
        let mark = FlushMark { flushed_position, blob: None, times: full.times() };
        self.sorted.flush_from(&mut full.rows(), mark).await?;
        Ok(())
    }
}

/// Whether pointers can be those of a conversation that ends so.
fn fits(pointer: &PointerRow, last: &TailRow) -> bool {
    pointer.read <= pointer.delivered
        && pointer.delivered <= last.sequence
        && pointer.ordinal <= last.ordinal
        && pointer.ordinal.0 <= pointer.read.0
}
