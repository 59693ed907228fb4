//! The memtable: what the log holds and segments do not yet, by conversation.
//!
//! It holds durable records only. [`Memtable::apply`] is the one function that turns records into state, live and in recovery; it
//! needs nothing but the record. A conversation's entries stand contiguous, so a sequence is an index. Once sealed a memtable does not
//! change; [`Memtable::rows`] gives it in the order of keys.
//!
//! It also remembers the ids of messages, those with their record still on its way to the disk too ([`Memtable::remember`]): one map
//! to ask whether a message was sent before, however far it has come.
//!
//! Must not do: I/O, or judge commands.

mod rows;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use antiphon_wire::{
    frame::{
        ArchivedEntry, ArchivedEntryKind, ConversationStart, EntryKind, MembershipChange, members_changed, view_entry,
    },
    ids::{ClientMessageId, ConversationId, Epoch, LanePosition, Ordinal, Sequence, TimestampMs, UserId},
};

use crate::{
    changes::ChangedRow,
    flush::FlushTimes,
    hash::IdHash,
    keys::{self, Key},
    lane::{
        record::{Mark, Record, Seen},
        witness::Held,
    },
    newest_ids::NewestIds,
    report::LostRange,
    row::{Change as RowChange, KeyRange, RowSource, SharedBytes},
    rows::{MemberRow, PointerRow, StartRow, TailRow, UserRow, decode_entry},
    sorted::FlushSource,
    window::MadeTimes,
};
pub(crate) use rows::MemtableRows;

/// Bytes that a conversation, an entry or a small row costs beyond its own: maps, queues, counts. Measured roughly; it only
/// decides when a memtable is full.
const CONVERSATION_BYTES: usize = 320;
const ENTRY_BYTES: usize = 104;
const ROW_BYTES: usize = 96;

/// Ids are digests, so their first byte spreads them evenly: each bucket is sorted by itself, in a fraction of a millisecond.
const BUCKETS: usize = 256;

/// Longest gap that is filled with placeholders: more than one log file can lose of one conversation.
pub(crate) const LOST_ENTRIES_MAX: u64 = 1 << 20;

const VALID: &str = "a record is valid: it was checked when it was read, or made here";

/// One conversation's part.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) start: Option<StartRow>,
    pub(crate) title: Option<Arc<str>>,
    /// `None` for a member who went.
    pub(crate) members: BTreeMap<UserId, Option<MemberRow>>,
    /// Sorted by user; a vector, because most conversations have few and none beyond the limit of a group.
    pub(crate) pointers: Vec<(UserId, PointerRow)>,
    /// Contiguous, the last one being `last`. An empty archive stands for an entry that the log has lost.
    entries: VecDeque<(LanePosition, Arc<[u8]>)>,
    /// Ids, their entries, and when those were stored.
    messages: Vec<(ClientMessageId, Sequence, TimestampMs)>,
    pub(crate) last: Option<TailRow>,
    /// Where pointers were last moved by a record of their own.
    marked: LanePosition,
    /// What changes brought; most conversations have none for most of the time.
    pub(crate) changes: Option<Box<Changes>>,
}

/// Rows that changes of messages brought, by the suffixes of their keys. Those of entries are of such that are not in the same memtable:
/// what is there is replaced in its place.
pub(crate) type Changes = BTreeMap<Vec<u8>, Option<Arc<[u8]>>>;

impl Tail {
    /// Where the last record of the conversation is.
    pub(crate) fn record(&self) -> LanePosition {
        self.last.map_or(self.marked, |last| last.position.max(self.marked))
    }

    /// A user's pointers.
    pub(crate) fn pointer(&self, user: &UserId) -> Option<PointerRow> {
        let index = self.pointers.binary_search_by(|(other, _)| other.cmp(user)).ok()?;
        Some(self.pointers[index].1)
    }

    /// What a change says of a key, by its suffix: a value, or that it has none.
    pub(crate) fn changed(&self, suffix: &[u8]) -> Option<Option<&Arc<[u8]>>> {
        self.changes.as_ref()?.get(suffix).map(Option::as_ref)
    }

    /// Sequence of the first entry, if there is any.
    pub(crate) fn first(&self) -> Option<Sequence> {
        self.last.map(|last| Sequence(last.sequence.0 + 1 - self.entries.len() as u64))
    }

    /// An entry.
    pub(crate) fn entry(&self, sequence: Sequence) -> Option<&(LanePosition, Arc<[u8]>)> {
        let index = sequence.0.checked_sub(self.first()?.0)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    fn entry_mut(&mut self, sequence: Sequence) -> Option<&mut (LanePosition, Arc<[u8]>)> {
        let index = sequence.0.checked_sub(self.first()?.0)?;
        self.entries.get_mut(usize::try_from(index).ok()?)
    }

    /// The entry whose record has this position.
    pub(crate) fn entry_at(&self, position: LanePosition) -> Option<&Arc<[u8]>> {
        // Placeholders before an entry have its position too.
        let after = self.entries.partition_point(|(other, _)| *other <= position);
        let (other, archive) = self.entries.get(after.checked_sub(1)?)?;
        (*other == position).then_some(archive)
    }

    fn set_pointer(&mut self, user: &str, make: impl FnOnce() -> UserId, pointer: PointerRow) -> usize {
        match self.pointers.binary_search_by(|(other, _)| other.as_str().cmp(user)) {
            Ok(index) => {
                self.pointers[index].1 = pointer;
                0
            }
            Err(index) => {
                self.pointers.insert(index, (make(), pointer));
                ROW_BYTES
            }
        }
    }
}

/// Where the records of messages are in the log.
pub(crate) type MessageIds = HashMap<(ConversationId, ClientMessageId), LanePosition, IdHash>;

/// Durable records, by conversation.
#[derive(Debug)]
pub(crate) struct Memtable {
    conversations: HashMap<ConversationId, Tail, IdHash>,
    order: Vec<Vec<ConversationId>>,
    messages: MessageIds,
    users: BTreeMap<UserId, BTreeMap<ConversationId, UserRow>>,
    bytes: usize,
    last: LanePosition,
    times: Option<(u64, u64)>,
    /// When the first change was made that takes content from an entry which is not here.
    erasing_since: Option<u64>,
    made: MadeTimes,
    newest_ids: NewestIds,
    hidden: Hidden,
    /// It has entries that change messages.
    has_changes: bool,
    /// Conversations of which records were passed over that could not be opened: nothing is here of those but their place.
    closed: BTreeSet<ConversationId>,
}

/// Conversations that may have lost a change of members.
#[derive(Debug, Default)]
struct Hidden {
    some: BTreeSet<ConversationId>,
    all: bool,
}

/// What a record did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Applied {
    /// The conversation's last entry, if it is this one.
    pub(crate) last: Option<TailRow>,
    /// Entries before it that are missing.
    pub(crate) lost: Option<LostRange>,
}

/// What an entry that is a message says.
pub(crate) struct Message<'a> {
    pub(crate) conversation: ConversationId,
    pub(crate) last: TailRow,
    pub(crate) id: ClientMessageId,
    pub(crate) sender: &'a str,
    pub(crate) archive: &'a Arc<[u8]>,
}

impl<'a> Message<'a> {
    /// Of the entry at `position` that this is the archive of.
    fn of(position: LanePosition, entry: &'a ArchivedEntry, archive: &'a Arc<[u8]>) -> Self {
        let (conversation, id) = (ConversationId(entry.conversation.0), ClientMessageId(entry.client_message_id.0));
        Self { conversation, last: tail_row(position, entry), id, sender: entry.sender.as_str(), archive }
    }
}

impl Memtable {
    pub(crate) fn new(hash: IdHash) -> Self {
        Self::with_map(hash, None)
    }

    /// An empty one that takes over another's map of messages, which has grown to what a memtable needs.
    pub(crate) fn with_map(hash: IdHash, map: Option<MessageIds>) -> Self {
        let mut messages = map.unwrap_or_else(|| HashMap::with_hasher(hash));
        messages.clear();
        Self {
            conversations: HashMap::with_hasher(hash),
            order: vec![Vec::new(); BUCKETS],
            messages,
            users: BTreeMap::new(),
            bytes: 0,
            last: LanePosition(0),
            times: None,
            erasing_since: None,
            made: MadeTimes::default(),
            newest_ids: NewestIds::default(),
            hidden: Hidden::default(),
            has_changes: false,
            closed: BTreeSet::new(),
        }
    }

    /// Bytes held, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.conversations.is_empty() && self.closed.is_empty()
    }

    /// Whether it has entries that change messages, or rows of such.
    pub(crate) fn has_changes(&self) -> bool {
        self.has_changes
    }

    /// Conversations of which records could not be opened.
    pub(crate) fn closed(&self) -> impl Iterator<Item = ConversationId> {
        self.closed.iter().copied()
    }

    /// Position of the last record applied.
    pub(crate) fn last(&self) -> LanePosition {
        self.last
    }

    /// Least and greatest time of its entries.
    pub(crate) fn times(&self) -> Option<(u64, u64)> {
        self.times
    }

    /// What a flush is to know of the times of its rows.
    pub(crate) fn flush_times(&self) -> FlushTimes {
        FlushTimes { rows: self.times, erasing_since: self.erasing_since }
    }

    /// Whether there are ids of messages.
    pub(crate) fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    /// When its messages' ids were made.
    pub(crate) fn made(&self) -> &MadeTimes {
        &self.made
    }

    /// Which of its messages' ids are the newest.
    pub(crate) fn newest_ids(&self) -> &NewestIds {
        &self.newest_ids
    }

    pub(crate) fn tail(&self, conversation: ConversationId) -> Option<&Tail> {
        self.conversations.get(&conversation)
    }

    /// Forgets all messages' ids: a bug.
    #[cfg(feature = "planted")]
    pub(crate) fn forget_messages(&mut self) {
        self.messages.clear();
    }

    /// Remembers a message whose record is staged at `position`. If that never becomes durable, nor does any later one, so
    /// what is remembered beyond the lane's durable position counts for nothing then.
    pub(crate) fn remember(&mut self, conversation: ConversationId, message: ClientMessageId, position: LanePosition) {
        self.messages.insert((conversation, message), position);
    }

    /// Where a message's record is, or was meant to be.
    pub(crate) fn message(&self, conversation: ConversationId, message: ClientMessageId) -> Option<LanePosition> {
        self.messages.get(&(conversation, message)).copied()
    }

    /// Its map of messages, for [`Memtable::with_map`].
    pub(crate) fn into_map(self) -> MessageIds {
        self.messages
    }

    /// Rows of a conversation in a range of keys that changes brought, in order.
    pub(crate) fn changes_in(&self, id: ConversationId, range: &KeyRange) -> Vec<(Vec<u8>, RowChange<SharedBytes>)> {
        let changes = self.tail(id).and_then(|tail| tail.changes.as_ref());
        let (Some(changes), Some(first)) = (changes, keys::suffix(&range.start)) else { return Vec::new() };
        let rows = changes.range(first.to_vec()..).map(|(suffix, value)| (keys::within(id, suffix), value));
        rows.take_while(|(key, _)| range.contains(key))
            .map(|(key, value)| {
                let change =
                    value.as_ref().map_or(RowChange::Delete, |value| RowChange::Put(SharedBytes::from(&**value)));
                (key, change)
            })
            .collect()
    }

    /// The user's rows, by conversation.
    pub(crate) fn user(&self, user: &UserId) -> Option<&BTreeMap<ConversationId, UserRow>> {
        self.users.get(user)
    }

    /// Every conversation, in no particular order.
    pub(crate) fn tails(&self) -> impl Iterator<Item = (ConversationId, &Tail)> {
        self.order.iter().flatten().filter_map(|id| Some((*id, self.conversations.get(id)?)))
    }

    /// Every conversation that is here, in no particular order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ConversationId> {
        self.order.iter().flatten().copied()
    }

    /// Takes in a record that was read, as [`Memtable::apply`] does; but not, and says `None`, if it cannot follow what is here: an entry
    /// that does not come after its conversation's last cannot. Live records always can.
    pub(crate) fn replay(&mut self, position: LanePosition, seen: Seen<'_>) -> Option<Applied> {
        if let Seen::Entry { entry, archive } = &seen
            && matches!(entry.kind, ArchivedEntryKind::Message)
        {
            // Of nearly all records the check that was made when it was read is the only one.
            self.accepts(entry).then_some(())?;
            let archive = Arc::from(*archive);
            let message = Message::of(position, entry, &archive);
            self.remember(message.conversation, message.id, position);
            return Some(self.apply_message(&message, || UserId::new(message.sender).expect(VALID)));
        }
        let record = seen.into_record();
        let is_next = |archive| view_entry(archive).is_ok_and(|entry| self.accepts(entry));
        record.archive().is_none_or(|archive| is_next(archive)).then_some(())?;
        Some(self.apply(position, &record))
    }

    fn accepts(&self, entry: &ArchivedEntry) -> bool {
        let last = self.tail(ConversationId(entry.conversation.0)).and_then(|tail| tail.last);
        last.is_none_or(|last| last.sequence < Sequence(entry.sequence.0.to_native()))
    }

    /// Takes a record in. Records come in the order of their positions. Says which entries before this one are missing: none, unless
    /// the log was damaged.
    ///
    /// # Panics
    /// If an entry is not valid: those from disk were checked by [`Seen::decode`], others were made here.
    pub(crate) fn apply(&mut self, position: LanePosition, record: &Record) -> Applied {
        let applied = match record {
            Record::Entry(archive) => self.apply_entry(position, archive),
            Record::Change(change) => {
                let applied = self.apply_entry(position, &change.archive);
                self.apply_rows(&change.archive, &change.rows);
                applied
            }
            Record::Mark(mark) => {
                self.apply_mark(position, mark);
                Applied::default()
            }
            Record::Closed(conversation) => {
                self.closed.insert(*conversation);
                Applied::default()
            }
        };
        self.last = position;
        applied
    }

    /// Takes in that entries of a conversation are lost, if they are: all up to one, from what is here on. `position` is that of the
    /// last record lost.
    pub(crate) fn lose(&mut self, position: LanePosition, held: &Held) -> Option<LostRange> {
        let tail = self.tail_mut(held.conversation);
        let before = tail.last.unwrap_or_default();
        if held.last <= before.sequence {
            return None;
        }
        tail.push(held.conversation, TailRow { position, sequence: held.last, ..before }, &Arc::from([]));
        if held.members_changed {
            self.hidden.some.insert(held.conversation);
        }
        let first = if before.sequence.0 == 0 { held.last } else { before.sequence.next() };
        Some(LostRange { conversation: held.conversation, first, last: held.last })
    }

    /// Takes in that entries are lost of which nobody knows whose they were.
    pub(crate) fn lose_unknown(&mut self) {
        self.hidden.all = true;
    }

    /// Whether a change of the conversation's members may be lost.
    pub(crate) fn hides(&self, conversation: ConversationId) -> bool {
        self.hidden.all || self.hidden.some.contains(&conversation)
    }

    fn apply_mark(&mut self, position: LanePosition, mark: &Mark) {
        let tail = self.tail_mut(mark.conversation);
        tail.marked = position;
        let added = tail.set_pointer(mark.user.as_str(), || mark.user.clone(), mark.pointer);
        self.bytes += added;
    }

    fn apply_entry(&mut self, position: LanePosition, archive: &Arc<[u8]>) -> Applied {
        let entry = view_entry(archive).expect(VALID);
        let last = tail_row(position, entry);
        let conversation = ConversationId(entry.conversation.0);
        let user = || UserId::new(entry.sender.as_str()).expect(VALID);
        let mut added = archive.len() + ENTRY_BYTES;
        match entry.kind {
            ArchivedEntryKind::Message => {
                let message = Message::of(position, entry, archive);
                self.remember(conversation, message.id, position);
                return self.apply_message(&message, user);
            }
            ArchivedEntryKind::Membership | ArchivedEntryKind::Bans | ArchivedEntryKind::Joined => {
                let change = members_changed(EntryKind::from(&entry.kind), &entry.body).expect(VALID);
                added += self.apply_membership(conversation, &last, &change);
            }
            ArchivedEntryKind::Title => {
                let title = std::str::from_utf8(&entry.body).expect(VALID);
                self.tail_mut(conversation).title = Some(title.into());
            }
            // What they say is in the rows that come with them.
            ArchivedEntryKind::Roles
            | ArchivedEntryKind::Settings
            | ArchivedEntryKind::Invite
            | ArchivedEntryKind::AccountData => {}
            ArchivedEntryKind::Created => {
                let start = ConversationStart::from_body(&entry.body).expect(VALID);
                let epoch = Epoch(entry.epoch.0.to_native());
                added += self.apply_start(conversation, &last, epoch, user(), start);
            }
            ArchivedEntryKind::Edit
            | ArchivedEntryKind::Deletion
            | ArchivedEntryKind::Reaction
            | ArchivedEntryKind::Pin
            | ArchivedEntryKind::Retention => {
                let id = ClientMessageId(entry.client_message_id.0);
                self.remember(conversation, id, position);
                self.made.note(id);
                self.newest_ids.note(conversation, id, last.time);
                self.tail_mut(conversation).messages.push((id, last.sequence, last.time));
                self.has_changes = true;
            }
        }
        self.bytes += added;
        self.note_time(last.time);
        Applied { last: Some(last), lost: self.tail_mut(conversation).push(conversation, last, archive) }
    }

    /// Takes in the rows that an entry brings beside its own.
    fn apply_rows(&mut self, archive: &[u8], rows: &[ChangedRow]) {
        let entry = view_entry(archive).expect(VALID);
        let (conversation, changed_at) = (ConversationId(entry.conversation.0), entry.time_ms.0.to_native());
        let (mut added, mut times) = (0, Vec::new());
        let tail = self.tail_mut(conversation);
        let (mut of_messages, mut is_erasing) = (false, false);
        for ChangedRow { suffix, value } in rows {
            match (keys::parse_suffix(suffix).expect(VALID), value) {
                (Key::Entry(sequence), Some(value)) => {
                    of_messages = true;
                    let (position, archive) = decode_entry(value).expect(VALID);
                    if let Some(entry) = tail.entry_mut(sequence) {
                        // What was taken away is gone from memory, too; and what is left of one that the log has lost is known.
                        *entry = (position, Arc::from(archive));
                        continue;
                    }
                    let left = view_entry(archive).expect(VALID);
                    is_erasing |= erases(left);
                    times.push(tail_row(position, left).time);
                }
                (Key::Member(user), Some(value)) => {
                    tail.members.insert(user, MemberRow::decode(value));
                    continue;
                }
                (Key::Settings | Key::Role(_) | Key::Ban(_) | Key::Account(_), _) => {}
                _ => of_messages = true,
            }
            added += ROW_BYTES + suffix.len() + value.as_ref().map_or(0, |value| value.len());
            tail.changes.get_or_insert_default().insert(suffix.clone(), value.clone());
        }
        if is_erasing {
            self.erasing_since = Some(self.erasing_since.map_or(changed_at, |since| since.min(changed_at)));
        }
        times.into_iter().for_each(|time| self.note_time(time));
        self.has_changes |= of_messages;
        self.bytes += added;
    }

    /// Takes in a message that is remembered: as [`Memtable::apply`] of its record, without looking into the archive again.
    pub(crate) fn apply_message(&mut self, message: &Message<'_>, user: impl FnOnce() -> UserId) -> Applied {
        let Message { conversation, last, id, sender, archive } = *message;
        self.last = last.position;
        self.note_time(last.time);
        self.made.note(id);
        self.newest_ids.note(conversation, id, last.time);
        let tail = self.tail_mut(conversation);
        let pointer = PointerRow { read: last.sequence, ordinal: last.ordinal, delivered: last.sequence };
        let added = archive.len() + ENTRY_BYTES + tail.set_pointer(sender, user, pointer);
        tail.messages.push((id, last.sequence, last.time));
        let lost = tail.push(conversation, last, archive);
        self.bytes += added;
        Applied { last: Some(last), lost }
    }

    fn note_time(&mut self, time: TimestampMs) {
        self.times = Some(self.times.map_or((time.0, time.0), |(least, most)| (least.min(time.0), most.max(time.0))));
    }

    fn apply_start(
        &mut self,
        conversation: ConversationId,
        last: &TailRow,
        epoch: Epoch,
        creator: UserId,
        start: ConversationStart,
    ) -> usize {
        let change = MembershipChange { added: start.members, removed: Vec::new() };
        let tail = self.tail_mut(conversation);
        tail.start = Some(StartRow { time: last.time, epoch, direct: start.direct, creator });
        tail.title = Some(start.title.into());
        self.apply_membership(conversation, last, &change)
    }

    fn apply_membership(&mut self, conversation: ConversationId, last: &TailRow, change: &MembershipChange) -> usize {
        let tail = self.tail_mut(conversation);
        let member = MemberRow { visible_from: last.sequence, ordinal: last.ordinal };
        tail.members.extend(change.removed.iter().map(|user| (user.clone(), None)));
        tail.members.extend(change.added.iter().map(|user| (user.clone(), Some(member))));
        for (users, joined) in [(&change.removed, false), (&change.added, true)] {
            for user in users {
                let row = UserRow { joined, sequence: last.sequence, position: last.position };
                self.users.entry(user.clone()).or_default().insert(conversation, row);
            }
        }
        (change.added.len() + change.removed.len()) * 3 * ROW_BYTES
    }

    fn tail_mut(&mut self, conversation: ConversationId) -> &mut Tail {
        let (order, bytes) = (&mut self.order, &mut self.bytes);
        self.conversations.entry(conversation).or_insert_with(|| {
            order[usize::from(conversation.0[0])].push(conversation);
            *bytes += CONVERSATION_BYTES;
            Tail::default()
        })
    }

    /// All rows, in ascending order of keys.
    pub(crate) fn rows(&self) -> MemtableRows<'_> {
        MemtableRows::new(self, false)
    }

    /// The same without what stands for lost entries: where segments have no row, a reader finds that an entry is missing.
    pub(crate) fn rows_without_lost(&self) -> MemtableRows<'_> {
        MemtableRows::new(self, true)
    }
}

impl Tail {
    fn push(&mut self, conversation: ConversationId, last: TailRow, archive: &Arc<[u8]>) -> Option<LostRange> {
        let expected = self.last.map_or(last.sequence, |before| before.sequence.next());
        let lost = (expected < last.sequence).then(|| LostRange {
            conversation,
            first: expected,
            last: Sequence(last.sequence.0 - 1),
        });
        if last.sequence.0 - expected.0 > LOST_ENTRIES_MAX {
            // What is before the gap cannot be indexed any more; a reader finds that it is missing.
            self.entries.clear();
            self.messages.retain(|(_, sequence, _)| *sequence == last.sequence);
        } else {
            let lost: Arc<[u8]> = Arc::from([]);
            self.entries.extend((expected.0..last.sequence.0).map(|_| (last.position, lost.clone())));
        }
        self.entries.push_back((last.position, archive.clone()));
        self.last = Some(last);
        lost
    }
}

/// Whether a row in an entry's place is there to erase what the entry said: of account data that was set anew that can wait until a merge
/// comes to it. It happens often, and each such row would have older segments written anew.
fn erases(left: &ArchivedEntry) -> bool {
    !matches!(left.kind, ArchivedEntryKind::AccountData)
}

/// What an entry says about the conversation's end.
pub(crate) fn tail_row(position: LanePosition, entry: &ArchivedEntry) -> TailRow {
    TailRow {
        position,
        sequence: Sequence(entry.sequence.0.to_native()),
        ordinal: Ordinal(entry.ordinal.0.to_native()),
        time: TimestampMs(entry.time_ms.0.to_native()),
    }
}

/// A sealed one is flushed on any thread, and read meanwhile.
impl FlushSource for Arc<Memtable> {
    fn rows(&self) -> impl RowSource {
        Memtable::rows(self)
    }
}
