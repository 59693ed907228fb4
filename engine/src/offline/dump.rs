//! Dumping: everything that a lane's store means, as lines.
//!
//! Rows that follow from entries (a user's list of conversations, who left, message ids, what became of messages) are not written:
//! loading makes them again. Of a conversation that has lost entries they are, as far as they are its own: those that are left do not say
//! everything.

use antiphon_wire::ids::{ConversationId, LanePosition};

use crate::{
    engine::EngineError,
    error::{DamagedKeys, StoreError},
    keys::{self, Key, Owner},
    offline::{
        access::Access,
        lines::{
            ConversationLine, EndLine, EntryLine, LaneLine, Line, LostLine, MemberLine, PointerLine, RowLine, VERSION,
        },
        maker::changed_row,
        opened::Opened,
        read_only::{Progress, ReadOnly},
        walk::Walk,
    },
    rows::{MemberRow, PointerRow, StartRow, TailRow, decode_entry, decode_sequence},
    seams::Files,
};

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dumped {
    /// Conversations.
    pub conversations: u64,
    /// Entries.
    pub entries: u64,
    /// The sink asked for no more: the dump is not whole.
    pub stopped: bool,
}

/// Gives a lane's store line by line, and changes nothing. Lines have no line end. `sink` says whether it wants more.
/// `progress` is called after every read.
///
/// # Errors
/// As [`verify`](super::verify()), and damage: a dump is whole or it is none. Verify to see all that is wrong.
pub async fn dump<F: Files>(
    files: F,
    access: impl Into<Access>,
    progress: impl Fn(Progress) + 'static,
    sink: &mut dyn FnMut(&str) -> bool,
) -> Result<Dumped, EngineError> {
    let (files, access) = (ReadOnly::new(files, progress), access.into());
    let lane = access.lane;
    let opened = Opened::open(files.clone(), &access).await?;
    opened.require_key()?;
    let logged = opened.read_log().await?;
    opened.require_whole(&logged)?;
    files.expect(opened.segment_bytes());
    let store = format!("{:016x}", opened.manifest.store);
    let (position, time_ms) = (logged.position, logged.time);
    let mut dump = Dump { sink, dumped: Dumped::default(), head: None };
    let horizon = opened.horizon(&logged);
    dump.line(&Line::Lane(LaneLine {
        version: VERSION,
        lane,
        store,
        position,
        time_ms,
        ids_forgotten_until_ms: horizon.made,
        untimed_ids_forgotten_until_ms: horizon.stored,
    }));
    let mut walk = Walk::new(&opened.runs, &logged.memtable, &[], false);
    while !dump.dumped.stopped && walk.next().await? {
        let Some((key, value)) = walk.row() else { continue };
        let (Some(Owner::Conversation(id)), Some(key)) = (keys::owner(key), keys::parse(key)) else {
            continue;
        };
        if dump.row(id, key, value).is_none() {
            let (file, offset) = walk.place();
            let what = "a row does not have its form or its place";
            let keys = DamagedKeys::all();
            return Err(StoreError::Damaged { file, offset: offset.unwrap_or(0), what, keys }.into());
        }
    }
    if let Some(head) = dump.head.as_ref().filter(|head| !head.written && !dump.dumped.stopped) {
        return Err(rowless(head.id));
    }
    let Dumped { conversations, entries, .. } = dump.dumped;
    dump.line(&Line::End(EndLine { lane, conversations, entries }));
    Ok(dump.dumped)
}

/// A conversation of which there is no entry.
fn rowless(id: ConversationId) -> EngineError {
    let key = keys::conversation(id);
    let what = "rows of a conversation without entries";
    StoreError::Damaged { file: "segments".into(), offset: 0, what, keys: DamagedKeys::between(&key, &key) }.into()
}

struct Dump<'a> {
    sink: &'a mut dyn FnMut(&str) -> bool,
    dumped: Dumped,
    /// The conversation at hand, until its first line is written.
    head: Option<Head>,
}

/// A conversation's rows before its entries.
struct Head {
    id: ConversationId,
    start: Option<StartRow>,
    title: Option<String>,
    tail: Option<TailRow>,
    /// Lost entries, members, pointers.
    members: Vec<Line>,
    has_lost: bool,
    written: bool,
}

impl Dump<'_> {
    fn line(&mut self, line: &Line) {
        if !self.dumped.stopped {
            self.dumped.stopped = !(self.sink)(&line.to_text());
        }
    }

    /// Takes a row of a conversation; `None` if it does not have its form.
    fn row(&mut self, id: ConversationId, key: Key, value: &[u8]) -> Option<()> {
        if self.head.as_ref().is_none_or(|head| head.id != id) {
            // One without entries would be lost here.
            self.head.as_ref().is_none_or(|head| head.written).then_some(())?;
            let (start, title, tail) = (None, None, None);
            let (members, has_lost, written) = (Vec::new(), false, false);
            self.head = Some(Head { id, start, title, tail, members, has_lost, written });
        }
        let head = self.head.as_mut()?;
        match key {
            Key::Lost(first) => {
                let last = decode_sequence(value).filter(|last| *last >= first)?;
                head.has_lost = true;
                head.members.push(Line::Lost(LostLine { conversation: id, first, last }));
            }
            Key::Start => head.start = Some(StartRow::decode(value)?),
            Key::Title => head.title = Some(std::str::from_utf8(value).ok()?.to_owned()),
            Key::Tail => head.tail = Some(TailRow::decode(value)?),
            Key::Member(user) => {
                let MemberRow { visible_from, ordinal } = MemberRow::decode(value)?;
                head.members.push(Line::Member(MemberLine { conversation: id, user, visible_from, ordinal }));
            }
            Key::Pointer(user) => {
                let PointerRow { read, ordinal, delivered } = PointerRow::decode(value)?;
                let line = PointerLine { conversation: id, user, read, ordinal, delivered };
                head.members.push(Line::Pointer(line));
            }
            key @ (Key::State(_)
            | Key::Reactor(..)
            | Key::Pins
            | Key::Retention
            | Key::Settings
            | Key::Role(_)
            | Key::Ban(_)
            | Key::Invite(_)
            | Key::Account(_)) => {
                let line = Line::Row(RowLine::new(id, &changed_row(&key, value)?, value));
                match (head.has_lost, head.written) {
                    (false, _) => {}
                    (true, false) => head.members.push(line),
                    (true, true) => self.line(&line),
                }
            }
            // They follow from entries.
            Key::OldMessageId(_) | Key::MessageId(..) | Key::User(_) => {}
            Key::Entry(sequence) => {
                let (position, archive) = decode_entry(value)?;
                return self.entry(id, sequence.0, position, archive);
            }
        }
        Some(())
    }

    fn entry(&mut self, id: ConversationId, sequence: u64, position: LanePosition, archive: &[u8]) -> Option<()> {
        let head = self.head.as_mut()?;
        if !head.written {
            head.written = true;
            let first = Line::Conversation(head.line()?);
            let members = std::mem::take(&mut head.members);
            self.dumped.conversations += 1;
            self.line(&first);
            members.iter().for_each(|line| self.line(line));
        }
        let line = EntryLine::of(position, archive)?;
        (line.conversation == id && line.sequence.0 == sequence).then_some(())?;
        self.dumped.entries += 1;
        self.line(&Line::Entry(Box::new(line)));
        Some(())
    }
}

impl Head {
    fn line(&mut self) -> Option<ConversationLine> {
        let (start, tail) = (self.start.take()?, self.tail?);
        Some(ConversationLine {
            conversation: self.id,
            epoch: start.epoch,
            time_ms: start.time,
            direct: start.direct,
            creator: start.creator,
            title: self.title.take()?,
            last_sequence: tail.sequence,
            last_ordinal: tail.ordinal,
            last_position: tail.position,
            last_time_ms: tail.time,
            rows: self.has_lost,
        })
    }
}
