//! Loading: a new store from a dump's lines, by the engine's own memtable and segment writer.
//!
//! Entries are replayed as a start replays the log, so that every row that follows from them is made by the one
//! function that makes it. What the other lines say must be what the entries say; a line that does not fit ends it.
//! Lines are input from outside: nothing in them panics.
//!
//! Memory: the maker's, and one conversation's members and pointers. The folder is a whole store only after the lane's
//! last line: until then the caller keeps it under another name.

use antiphon_wire::ids::{ConversationId, LanePosition, Sequence, TimestampMs};

use crate::{
    encryption::NodeKey,
    engine::{EngineError, open::Blob},
    error::StoreError,
    keys,
    lane::record::{COUNT_MAX, Mark, Record},
    offline::{
        access::Sealing,
        conversation::LOST_MAX,
        dump::Dumped,
        lines::{
            ConversationLine, EndLine, EntryLine, LaneLine, Line, LostLine, MemberLine, PointerLine, RowLine, VERSION,
        },
        maker::{MakeError, Maker, Told, changed_row},
        replay::Replay,
    },
    options::RECORD_BYTES_MAX,
    rows::{MemberRow, PointerRow, StartRow, TailRow},
    seams::{Files, Random},
};

const AFTER_THE_END: &str = "a line after the end of the lane";

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
    /// Until the lane has ended.
    maker: Option<Maker<F>>,
    lane: LaneLine,
    current: Option<Loading>,
    last: Option<ConversationId>,
    loaded: Dumped,
    number: u64,
}

/// The conversation at hand.
struct Loading {
    line: ConversationLine,
    lost: Vec<(Sequence, Sequence)>,
    /// Rows of what became of messages and of the group, by the suffixes of their keys.
    rows: Vec<(Vec<u8>, Vec<u8>)>,
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
        Self::create_encrypted(files, random, line, None).await
    }

    /// As [`Loader::create`]; encrypted, if the node's key is given.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn create_encrypted(
        files: F,
        random: &impl Random,
        line: &str,
        node: Option<NodeKey>,
    ) -> Result<Self, LoadError> {
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
        let (salt, horizon) = (random.next(), lane.horizon());
        let (time, has_changes) = (lane.time_ms, false);
        // A dump does not tell.
        let others_until = LanePosition(0);
        let blob = Blob { salt, time, generation: 0, file_bytes: 0, horizon, has_changes, keys: None, others_until };
        let key = node.map(|node| Sealing::new(node, random));
        let maker = Maker::create(files, store, lane.lane, blob, key.as_ref()).await.map_err(|error| made(1, error))?;
        Ok(Self { maker: Some(maker), lane, current: None, last: None, loaded: Dumped::default(), number: 1 })
    }

    /// Makes smaller segments, and fewer, for tests.
    #[doc(hidden)]
    pub fn set_limits(&mut self, segment_bytes: usize, segments_max: usize) {
        if let Some(maker) = &mut self.maker {
            maker.set_limits(segment_bytes, segments_max);
        }
    }

    /// Takes the next line. What was loaded when the lane is done, and durable.
    ///
    /// # Errors
    /// [`LoadError`]; no more lines are to be pushed then.
    pub async fn push(&mut self, line: &str) -> Result<Option<Dumped>, LoadError> {
        self.number += 1;
        if self.maker.is_none() {
            return Err(self.wrong(AFTER_THE_END));
        }
        match Line::from_text(line).map_err(|what| self.wrong(&what))? {
            Line::Lane(_) => return Err(self.wrong("the lane before has not ended")),
            Line::Conversation(line) => {
                self.finish_conversation().await?;
                if self.last.is_some_and(|last| last >= line.conversation) {
                    return Err(self.wrong("conversations do not come in the order of their ids"));
                }
                self.last = Some(line.conversation);
                let (lost, rows, members, pointers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
                self.current = Some(Loading { line, lost, rows, members, pointers, replay: Replay::default() });
            }
            Line::Lost(line) => self.lost(&line)?,
            Line::Row(line) => self.row(&line)?,
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

    fn lost(&mut self, line: &LostLine) -> Result<(), LoadError> {
        let wrong = self.wrong("lost entries are told in order, from the first of them to the last");
        let lost = &mut self.before_entries(line.conversation)?.lost;
        let least = lost.last().map_or(1, |(_, last)| last.0 + 1);
        if line.first.0 < least || line.last < line.first || line.last.0 >= COUNT_MAX || lost.len() >= LOST_MAX {
            return Err(wrong);
        }
        lost.push((line.first, line.last));
        Ok(())
    }

    fn row(&mut self, line: &RowLine) -> Result<(), LoadError> {
        let wrong = |what| self.wrong(what);
        let unasked = wrong("rows are told of a conversation that has lost entries, and says so");
        let formless = wrong("no row that can be told has this suffix and this value");
        let current = self.of(line.conversation)?;
        if current.lost.is_empty() || !current.line.rows {
            return Err(unasked);
        }
        let Some((suffix, value)) = line.parts() else { return Err(formless) };
        let is_row = keys::parse_suffix(&suffix).is_some_and(|key| changed_row(&key, &value).is_some());
        if !is_row {
            return Err(formless);
        }
        current.rows.push((suffix, value));
        Ok(())
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
        let covers = |missing| covers(&current.lost, missing);
        let is_lost = taken.as_ref().is_ok_and(|taken| taken.missing.is_none_or(covers));
        let taken = taken.map_err(|what| self.wrong(what))?;
        if let Some((first, last)) = taken.missing {
            if !is_lost {
                return Err(self.wrong(&format!("entries {first} to {last} are missing")));
            }
            let number = self.number;
            let leapt = self.maker()?.leap(last.0 - first.0 + 1).await;
            leapt.map_err(|error| made(number, error))?;
        }
        if let Some(what) = taken.wrong.first() {
            return Err(self.wrong(what));
        }
        // One that does not tell its time may have been sent again after it was forgotten.
        let forgets_some = self.lane.untimed_ids_forgotten_until_ms > TimestampMs(0);
        if let Some(message) = taken.message.filter(|message| message.made().is_some() || !forgets_some)
            && self.maker()?.is_known(id, message).await?
        {
            return Err(self.wrong("another message of the conversation has the same client_message_id"));
        }
        self.loaded.entries += 1;
        self.apply(position, &taken.record(&archive)).await
    }

    async fn apply(&mut self, position: LanePosition, record: &Record) -> Result<(), LoadError> {
        let number = self.number;
        self.maker()?.apply(position, record).await.map_err(|error| made(number, error))
    }

    fn maker(&mut self) -> Result<&mut Maker<F>, LoadError> {
        let error = self.wrong(AFTER_THE_END);
        self.maker.as_mut().ok_or(error)
    }

    /// Holds a conversation's other lines against its entries, and sets the pointers.
    async fn finish_conversation(&mut self) -> Result<(), LoadError> {
        let Some(Loading { line, lost, rows: changes, members, pointers, replay }) = self.current.take() else {
            return Ok(());
        };
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
        // Entries of which some are lost do not say everything.
        let ends_lost = tail.sequence > last.sequence && covers(&lost, (last.sequence.next(), tail.sequence));
        let says_start = replay.start == Some(start.clone()) || (!lost.is_empty() && replay.start.is_none());
        let says_title = replay.title.as_ref() == Some(&line.title) || !lost.is_empty();
        if !says_start || !says_title || (last != tail && !ends_lost) {
            return Err(self.wrong(&of("its line is not what its entries say")));
        }
        let said = replay.users.iter().filter_map(|(user, state)| Some((user, state.member?)));
        let said = said.map(|(user, member)| (user, member.visible_from, member.ordinal));
        let written = members.iter().map(|member| (&member.user, member.visible_from, member.ordinal));
        if lost.is_empty() && !said.eq(written) {
            return Err(self.wrong(&of("its members are not those that its entries make")));
        }
        let mut rows = Vec::with_capacity(pointers.len());
        for PointerLine { user, read, ordinal, delivered, .. } in pointers {
            let pointer = PointerRow { read, ordinal, delivered };
            let is_known = replay.users.contains_key(&user) || !lost.is_empty();
            if !is_known || !fits(&pointer, &tail) {
                return Err(self.wrong(&of(&format!("the pointers of {user} do not fit its entries"))));
            }
            rows.push((user, pointer));
        }
        self.loaded.conversations += 1;
        if lost.is_empty() {
            for (user, pointer) in rows {
                let mark = Mark { conversation: id, user, pointer };
                self.apply(last.position, &Record::Mark(mark)).await?;
            }
            return Ok(());
        }
        let member =
            |line: MemberLine| (line.user, MemberRow { visible_from: line.visible_from, ordinal: line.ordinal });
        let members = members.into_iter().map(member).collect();
        // Dumps of before rows were told do not say what is undone.
        let undone = if line.rows { replay.changed_rows().collect() } else { Vec::new() };
        let told = Told { start, title: line.title, tail, members, pointers: rows, changes, undone, lost };
        let number = self.number;
        self.maker()?.tell(id, &told, &replay).await.map_err(|error| made(number, error))
    }

    async fn finish(&mut self, line: &EndLine) -> Result<Dumped, LoadError> {
        self.finish_conversation().await?;
        let told = (line.lane, line.conversations, line.entries);
        if told != (self.lane.lane, self.loaded.conversations, self.loaded.entries) {
            return Err(self.wrong("the end tells of another number of conversations or entries: lines are missing"));
        }
        let number = self.number;
        let maker = self.maker.take().ok_or_else(|| self.wrong(AFTER_THE_END))?;
        maker.finish(self.lane.position, self.lane.time_ms).await.map_err(|error| made(number, error))?;
        Ok(self.loaded)
    }
}

/// A failure to make the store, at a line.
fn made(number: u64, error: MakeError) -> LoadError {
    match error {
        MakeError::TooLarge => LoadError::Line { number, what: error.to_string() },
        MakeError::Store(error) => error.into(),
    }
}

/// Whether all of these entries are among the lost ones, which are in order.
fn covers(lost: &[(Sequence, Sequence)], (first, last): (Sequence, Sequence)) -> bool {
    let mut next = first;
    for (from, to) in lost {
        if *from <= next && *to >= next {
            next = to.next();
        }
    }
    next > last
}

/// Whether pointers can be those of a conversation that ends so.
fn fits(pointer: &PointerRow, last: &TailRow) -> bool {
    pointer.read <= pointer.delivered
        && pointer.delivered <= last.sequence
        && pointer.ordinal <= last.ordinal
        && pointer.ordinal.0 <= pointer.read.0
}
