//! Keys of the ordered keyspace, and which pieces of them filters hold.
//!
//! ```text
//! conversation   0x01 · conversation[16] · family u8 · rest        one contiguous range for all of a conversation
//!                families: 0 lost (first sequence u64 BE)
//!                          1 start · 2 title · 3 tail, 3·1 pins, 3·2 retention, 3·3 settings, 3·4 role (user), 3·5 ban (user),
//!                          3·6 invite (sequence u64 BE), 3·7 account data (key)
//!                          4 member (user) · 5 pointer (user)
//!                          6 message id of the old form (client message id[16])
//!                          7 entry (sequence u64 BE), and behind it sequence·1 state · sequence·2 reactor (user)
//! user           0x02 · user · 0x00 · conversation[16]             a user's conversations in this lane
//! message id     0x03 · conversation[16] · client message id[16]                   of one that does not say when it was made
//!                0x04 · minute u32 BE · conversation[16] · client message id[16]   of one that does
//! ```
//! Families 1 to 5 are what a conversation's state is loaded from: one short scan. No user id contains 0x00. What is behind the
//! conversation's id is a key's suffix.
//!
//! Message ids come after everything else and in the order of their time, so that they have segments of their own, in which those of
//! one age lie together: a fresh one is looked for where ids of its minute are, and old ones go without a look at the others. The
//! minute is that of the id itself ([`minute_of`]). Family 6 held them before there was a window.
//!
//! Must not do: know values; those are in [`crate::rows`].

use std::ops::Deref;

use antiphon_wire::ids::{ClientMessageId, ConversationId, Sequence, UserId};

use crate::{account::key_of, row::KeyRange, segment::KeyFilter};

const CONVERSATIONS: u8 = 1;
const USERS: u8 = 2;
const UNTIMED_IDS: u8 = 3;
const TIMED_IDS: u8 = 4;
/// Range byte and conversation id.
const PREFIX_BYTES: usize = 17;
const OLD_MESSAGE_ID_BYTES: usize = PREFIX_BYTES + 1 + 16;
/// Suffix of the row of pins.
pub(crate) const PINS: [u8; 2] = [Family::Tail as u8, 1];
/// Suffix of the row of the retention mark.
pub(crate) const RETENTION: [u8; 2] = [Family::Tail as u8, 2];
/// Suffix of the row of a group's settings.
pub(crate) const SETTINGS: [u8; 2] = [Family::Tail as u8, 3];
/// Behind the tail's family: a member's role, and somebody who is kept out.
const ROLE: u8 = 4;
const BAN: u8 = 5;
/// The same: an invite.
const INVITE: u8 = 6;
/// The same: what is set in a user's account.
const ACCOUNT: u8 = 7;
/// Behind an entry's key: its state's.
const STATE: u8 = 1;
/// Behind an entry's key: those of who reacted.
const REACTOR: u8 = 2;
/// Family and sequence of an entry's key.
pub(crate) const ENTRY_SUFFIX_BYTES: usize = 1 + 8;
/// Range byte, conversation, client message id.
const UNTIMED_ID_BYTES: usize = 1 + 16 + 16;
/// With the minute.
const TIMED_ID_BYTES: usize = UNTIMED_ID_BYTES + 4;

/// The unit of time in keys of message ids. Short, so that what a fresh id is looked for among is little: the ids of the last minute.
pub(crate) const MINUTE_MS: u64 = 60_000;

/// Part of a conversation's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Family {
    /// Entries that a repair found lost.
    Lost = 0,
    Start = 1,
    Title = 2,
    Tail = 3,
    Member = 4,
    Pointer = 5,
    OldMessageId = 6,
    Entry = 7,
}

/// A key taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// Entries that are lost, from this one on.
    Lost(Sequence),
    Start,
    Title,
    Tail,
    Member(UserId),
    Pointer(UserId),
    /// What remembers a client message id, in the old form.
    OldMessageId(ClientMessageId),
    Entry(Sequence),
    /// What became of a message.
    State(Sequence),
    /// A user's reactions to a message.
    Reactor(Sequence, UserId),
    /// The pinned messages.
    Pins,
    /// Before which entry the conversation is gone.
    Retention,
    /// How a group is.
    Settings,
    /// What a member may do.
    Role(UserId),
    /// Somebody who is kept out.
    Ban(UserId),
    /// What users join by: of the entry that made it.
    Invite(Sequence),
    /// What a user has set under a key.
    Account(String),
    /// A user's row: of which conversation.
    User(ConversationId),
    /// What remembers a client message id.
    MessageId(ConversationId, ClientMessageId),
}

/// Whose a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    Conversation(ConversationId),
    User(UserId),
    /// No single conversation's: message ids of all of them, by time.
    MessageIds,
}

/// The filter of message ids: each one's key, which tells a fresh message. All rows once had it, see [`FILTER`].
pub(crate) const ID_FILTER: KeyFilter = KeyFilter::new(2, pieces);

/// The filter of all other rows: a conversation's and a user's common prefix, which tell a fresh one without a read, and which stretches of a
/// conversation's entries there are, so that a page of old ones leaves newer segments alone.
pub(crate) const FILTER: KeyFilter = KeyFilter {
    pieces: |key, piece| {
        pieces(key, piece);
        if let Some((prefix, sequence)) = sequence_of(key) {
            piece(&stretch(prefix, sequence / STRETCH_ENTRIES));
        }
    },
    pieces_within: |range, piece| {
        let Some((prefix, first)) = sequence_of(&range.start) else { return };
        let Some(end_key) = &range.end else { return };
        let Some((end_prefix, end)) = sequence_of(end_key) else { return };
        let last = if is_entry(end_key) { end.saturating_sub(1) } else { end };
        let stretches = first / STRETCH_ENTRIES..=last / STRETCH_ENTRIES;
        if prefix == end_prefix && stretches.end().saturating_sub(*stretches.start()) < STRETCHES_ASKED_MAX {
            stretches.for_each(|number| piece(&stretch(prefix, number)));
        }
    },
    former: Some(&ID_FILTER),
    id: 3,
};

/// Entries of which a filter says only whether there is one, or what is behind one: a page is two or three such stretches, and what they
/// take in a filter is a tenth of a byte for an entry, if a segment has many of a conversation.
const STRETCH_ENTRIES: u64 = 32;

/// A range of more stretches is most of what there is.
const STRETCHES_ASKED_MAX: u64 = 8;

/// The prefix and the sequence of the key of an entry, or of a row behind one.
fn sequence_of(key: &[u8]) -> Option<(&[u8; PREFIX_BYTES], u64)> {
    let (prefix, suffix) = key.split_first_chunk()?;
    let (family, rest) = suffix.split_first()?;
    let is_entry = prefix[0] == CONVERSATIONS && *family == Family::Entry as u8;
    is_entry.then_some((prefix, u64::from_be_bytes(*rest.first_chunk()?)))
}

/// The piece of a stretch of entries.
fn stretch(prefix: &[u8; PREFIX_BYTES], number: u64) -> [u8; PREFIX_BYTES + ENTRY_SUFFIX_BYTES] {
    let mut piece = [Family::Entry as u8; PREFIX_BYTES + ENTRY_SUFFIX_BYTES];
    piece[..PREFIX_BYTES].copy_from_slice(prefix);
    piece[PREFIX_BYTES + 1..].copy_from_slice(&number.to_be_bytes());
    piece
}

fn pieces(key: &[u8], piece: &mut dyn FnMut(&[u8])) {
    match key.first() {
        Some(&CONVERSATIONS) => {
            if let Some(prefix) = key.get(..PREFIX_BYTES) {
                piece(prefix);
            }
            if key.get(PREFIX_BYTES) == Some(&(Family::OldMessageId as u8)) {
                piece(key);
            }
        }
        Some(&USERS) => {
            if let Some(end) = key.iter().position(|byte| *byte == 0) {
                piece(&key[..=end]);
            }
        }
        Some(&(UNTIMED_IDS | TIMED_IDS)) => piece(key),
        _ => {}
    }
}

/// What every key of a conversation begins with; a filter piece.
pub(crate) fn conversation(conversation: ConversationId) -> [u8; PREFIX_BYTES] {
    let mut key = [CONVERSATIONS; PREFIX_BYTES];
    key[1..].copy_from_slice(&conversation.0);
    key
}

fn in_conversation(id: ConversationId, family: Family, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX_BYTES + 1 + rest.len());
    key.extend(conversation(id));
    key.push(family as u8);
    key.extend(rest);
    key
}

/// A row of which a conversation has one.
pub(crate) fn single(id: ConversationId, family: Family) -> Vec<u8> {
    in_conversation(id, family, &[])
}

/// A member's row or pointer.
pub(crate) fn of_user(id: ConversationId, family: Family, user: &UserId) -> Vec<u8> {
    in_conversation(id, family, user.as_str().as_bytes())
}

/// The row that remembers a client message id in the old form; a filter piece.
pub(crate) fn old_message_id(id: ConversationId, message: ClientMessageId) -> [u8; OLD_MESSAGE_ID_BYTES] {
    let mut key = [Family::OldMessageId as u8; OLD_MESSAGE_ID_BYTES];
    key[..PREFIX_BYTES].copy_from_slice(&conversation(id));
    key[PREFIX_BYTES + 1..].copy_from_slice(&message.0);
    key
}

/// The minute that an id is kept under: of the time that it says, if it does.
pub(crate) fn minute_of(message: ClientMessageId) -> Option<u32> {
    // A time beyond what four bytes hold is as good as the last that they do: eight thousand years.
    message.made().map(|made| u32::try_from(made.0 / MINUTE_MS).unwrap_or(u32::MAX))
}

/// The key of a message id's row. Orders as its bytes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MessageIdKey([u8; TIMED_ID_BYTES]);

impl Deref for MessageIdKey {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        if self.is_timed() { &self.0 } else { &self.0[..UNTIMED_ID_BYTES] }
    }
}

impl MessageIdKey {
    /// Whether the id says when it was made.
    pub(crate) fn is_timed(&self) -> bool {
        self.0[0] == TIMED_IDS
    }
}

/// The row that remembers a client message id; a filter piece.
pub(crate) fn message_id(id: ConversationId, message: ClientMessageId) -> MessageIdKey {
    let mut key = [0; TIMED_ID_BYTES];
    let minute = minute_of(message);
    key[0] = if minute.is_some() { TIMED_IDS } else { UNTIMED_IDS };
    let at = minute.map_or(1, |minute| {
        key[1..5].copy_from_slice(&minute.to_be_bytes());
        5
    });
    key[at..at + 16].copy_from_slice(&id.0);
    key[at + 16..at + 32].copy_from_slice(&message.0);
    MessageIdKey(key)
}

/// What the key of an id begins with that was made in this minute; those of later ones are behind it.
pub(crate) fn timed_ids_from(minute: u32) -> [u8; 5] {
    let mut key = [TIMED_IDS; 5];
    key[1..].copy_from_slice(&minute.to_be_bytes());
    key
}

/// What is sealed of a row's value in an encrypted store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Whose key it is sealed with.
    pub(crate) conversation: ConversationId,
    /// Bytes at its beginning that are not sealed: an entry's position, which tells whether the row erases.
    pub(crate) clear_bytes: usize,
}

/// Whether the values of rows with this key hold what somebody wrote, so that an encrypted store seals them: titles, settings, account data,
/// entries, and who reacted to them how.
pub(crate) fn sealed(key: &[u8]) -> Option<Sealed> {
    if key.first() != Some(&CONVERSATIONS) {
        return None;
    }
    let conversation = ConversationId(*key.get(1..)?.first_chunk()?);
    let clear_bytes = match key.get(PREFIX_BYTES).copied()? {
        family if family == Family::Title as u8 => 0,
        family if family == Family::Tail as u8 && suffix(key) == Some(&SETTINGS) => 0,
        family if family == Family::Tail as u8 && key.get(PREFIX_BYTES + 1) == Some(&ACCOUNT) => 0,
        family if family == Family::Entry as u8 && is_entry(key) => 8,
        family if family == Family::Entry as u8 => 0,
        _ => return None,
    };
    Some(Sealed { conversation, clear_bytes })
}

/// Whether this is an entry's own key.
pub(crate) fn is_entry(key: &[u8]) -> bool {
    key.len() == PREFIX_BYTES + ENTRY_SUFFIX_BYTES
        && key[0] == CONVERSATIONS
        && key[PREFIX_BYTES] == Family::Entry as u8
}

/// Every message id.
pub(crate) fn message_ids_range() -> KeyRange {
    KeyRange { start: vec![UNTIMED_IDS], end: KeyRange::prefix([TIMED_IDS]).end }
}

/// Whether a key is of the rows that have segments of their own: message ids, which come after all others.
pub(crate) fn is_apart(key: &[u8]) -> bool {
    key.first().is_some_and(|range| *range >= UNTIMED_IDS)
}

/// An entry's row.
pub(crate) fn entry(id: ConversationId, sequence: Sequence) -> Vec<u8> {
    in_conversation(id, Family::Entry, &sequence.0.to_be_bytes())
}

/// The key with this suffix.
pub(crate) fn within(id: ConversationId, suffix: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX_BYTES + suffix.len());
    key.extend(conversation(id));
    key.extend(suffix);
    key
}

/// The suffix of a conversation's key.
pub(crate) fn suffix(key: &[u8]) -> Option<&[u8]> {
    key.get(PREFIX_BYTES..).filter(|_| key.first() == Some(&CONVERSATIONS))
}

/// Suffix of an entry's row.
pub(crate) fn entry_suffix(sequence: Sequence) -> Vec<u8> {
    let mut suffix = vec![Family::Entry as u8];
    suffix.extend(sequence.0.to_be_bytes());
    suffix
}

/// Suffix of a member.
pub(crate) fn member_suffix(user: &UserId) -> Vec<u8> {
    [&[Family::Member as u8], user.as_str().as_bytes()].concat()
}

/// Suffix of a member's role.
pub(crate) fn role_suffix(user: &UserId) -> Vec<u8> {
    [&[Family::Tail as u8, ROLE], user.as_str().as_bytes()].concat()
}

/// Suffix of somebody who is kept out.
pub(crate) fn ban_suffix(user: &UserId) -> Vec<u8> {
    [&[Family::Tail as u8, BAN], user.as_str().as_bytes()].concat()
}

/// Suffix of an invite.
pub(crate) fn invite_suffix(invite: Sequence) -> Vec<u8> {
    [&[Family::Tail as u8, INVITE], &invite.0.to_be_bytes()[..]].concat()
}

/// Suffix of a key of account data.
pub(crate) fn account_suffix(key: &str) -> Vec<u8> {
    [&[Family::Tail as u8, ACCOUNT], key.as_bytes()].concat()
}

/// Suffix of a message's state.
pub(crate) fn state_suffix(sequence: Sequence) -> Vec<u8> {
    let mut suffix = entry_suffix(sequence);
    suffix.push(STATE);
    suffix
}

/// Suffix of a user's reactions to a message.
pub(crate) fn reactor_suffix(sequence: Sequence, user: &UserId) -> Vec<u8> {
    let mut suffix = entry_suffix(sequence);
    suffix.push(REACTOR);
    suffix.extend(user.as_str().as_bytes());
    suffix
}

/// All who reacted to a message, from those after a user on.
pub(crate) fn reactors_range(id: ConversationId, sequence: Sequence, after: Option<&UserId>) -> KeyRange {
    let mut first = entry(id, sequence);
    first.push(REACTOR);
    let mut end = entry(id, sequence);
    end.push(REACTOR + 1);
    if let Some(after) = after {
        first.extend(after.as_str().as_bytes());
        // The first key behind that one.
        first.push(0);
    }
    KeyRange::new(first, end)
}

/// Entries from `first` to `last` with all behind them, but for those who reacted to the last.
pub(crate) fn entries_but_last_reactors(id: ConversationId, first: Sequence, last: Sequence) -> KeyRange {
    let mut end = entry(id, last);
    end.push(REACTOR);
    KeyRange::new(entry(id, first), end)
}

/// The range that a conversation's state is loaded from.
pub(crate) fn state_range(id: ConversationId) -> KeyRange {
    KeyRange::new(single(id, Family::Start), single(id, Family::OldMessageId))
}

/// The row that tells of lost entries, from the first of them.
pub(crate) fn lost(id: ConversationId, first: Sequence) -> Vec<u8> {
    in_conversation(id, Family::Lost, &first.0.to_be_bytes())
}

/// All of a conversation's members.
pub(crate) fn members_range(id: ConversationId) -> KeyRange {
    KeyRange::prefix(single(id, Family::Member))
}

/// What a group allows whom, and before which entry it is gone.
pub(crate) fn group_range(id: ConversationId) -> KeyRange {
    KeyRange::new(within(id, &RETENTION), single(id, Family::Member))
}

/// Entries from `first` to `last`, both with them, and what is behind them.
pub(crate) fn entry_range(id: ConversationId, first: Sequence, last: Sequence) -> KeyRange {
    KeyRange::new(entry(id, first), entry(id, last.next()))
}

/// What every row of a user begins with; a filter piece.
pub(crate) fn user(user: &UserId) -> Vec<u8> {
    let mut key = Vec::with_capacity(user.as_str().len() + 2);
    key.push(USERS);
    key.extend(user.as_str().as_bytes());
    key.push(0);
    key
}

/// A user's row of a conversation.
pub(crate) fn user_conversation(name: &UserId, conversation: ConversationId) -> Vec<u8> {
    let mut key = user(name);
    key.extend(conversation.0);
    key
}

/// Every user's rows: they come after every conversation's.
pub(crate) fn users_range() -> KeyRange {
    KeyRange::prefix([USERS])
}

/// Takes a key apart. `None` if it is none of ours.
pub(crate) fn parse(key: &[u8]) -> Option<Key> {
    match *key.first()? {
        CONVERSATIONS => parse_suffix(key.get(PREFIX_BYTES..)?),
        USERS => {
            let end = key.iter().position(|byte| *byte == 0)?;
            Some(Key::User(ConversationId(key.get(end + 1..)?.try_into().ok()?)))
        }
        UNTIMED_IDS | TIMED_IDS => {
            let (conversation, id) = key.get(key.len().checked_sub(32)?..)?.split_first_chunk::<16>()?;
            let (conversation, id) = (ConversationId(*conversation), ClientMessageId(id.try_into().ok()?));
            (key == &*message_id(conversation, id)).then_some(Key::MessageId(conversation, id))
        }
        _ => None,
    }
}

/// The conversation that a row belongs to, which decides its lane: every key has one. `None` if the key is none of ours.
pub(crate) fn conversation_of(key: &[u8]) -> Option<ConversationId> {
    match key.split_first()? {
        (&CONVERSATIONS, rest) => rest.first_chunk().map(|id| ConversationId(*id)),
        (&USERS, rest) => {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest.get(end + 1..)?.try_into().ok().map(ConversationId)
        }
        (&(UNTIMED_IDS | TIMED_IDS), _) => match parse(key)? {
            Key::MessageId(conversation, _) => Some(conversation),
            _ => None,
        },
        _ => None,
    }
}

/// Takes a suffix apart.
pub(crate) fn parse_suffix(suffix: &[u8]) -> Option<Key> {
    let (family, rest) = suffix.split_first()?;
    let user = |rest| std::str::from_utf8(rest).ok().and_then(|text| UserId::new(text).ok());
    match *family {
        0 => Some(Key::Lost(Sequence(u64::from_be_bytes(rest.try_into().ok()?)))),
        1 if rest.is_empty() => Some(Key::Start),
        2 if rest.is_empty() => Some(Key::Title),
        3 if rest.is_empty() => Some(Key::Tail),
        3 if suffix == PINS => Some(Key::Pins),
        3 if suffix == RETENTION => Some(Key::Retention),
        3 if suffix == SETTINGS => Some(Key::Settings),
        3 => match rest.split_first()? {
            (&ROLE, rest) => user(rest).map(Key::Role),
            (&BAN, rest) => user(rest).map(Key::Ban),
            (&INVITE, rest) => Some(Key::Invite(Sequence(u64::from_be_bytes(rest.try_into().ok()?)))),
            (&ACCOUNT, rest) => key_of(rest).map(Key::Account),
            _ => None,
        },
        4 => user(rest).map(Key::Member),
        5 => user(rest).map(Key::Pointer),
        6 => Some(Key::OldMessageId(ClientMessageId(rest.try_into().ok()?))),
        7 => {
            let (sequence, rest) = rest.split_first_chunk::<8>()?;
            let sequence = Sequence(u64::from_be_bytes(*sequence));
            match rest.split_first() {
                None => Some(Key::Entry(sequence)),
                Some((&STATE, [])) => Some(Key::State(sequence)),
                Some((&REACTOR, rest)) => user(rest).map(|user| Key::Reactor(sequence, user)),
                Some(_) => None,
            }
        }
        _ => None,
    }
}

/// Whose a key is. `None` if it is none of ours.
pub(crate) fn owner(key: &[u8]) -> Option<Owner> {
    match key.split_first()? {
        (&CONVERSATIONS, rest) => rest.first_chunk().map(|id| Owner::Conversation(ConversationId(*id))),
        (&USERS, rest) => {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let name = std::str::from_utf8(rest.get(..end)?).ok()?;
            UserId::new(name).ok().map(Owner::User)
        }
        (&(UNTIMED_IDS | TIMED_IDS), _) => Some(Owner::MessageIds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::TimestampMs;

    use super::*;

    const UNTIMED: ClientMessageId = ClientMessageId([9; 16]);

    fn timed(minute: u64) -> ClientMessageId {
        ClientMessageId::timed(TimestampMs(minute * MINUTE_MS + 7), 0x1234)
    }

    #[test]
    fn message_ids_come_last_and_in_the_order_of_their_time() {
        let (low, high) = (ConversationId([0; 16]), ConversationId([255; 16]));
        let keys = [
            user_conversation(&name("~"), high),
            message_id(high, UNTIMED).to_vec(),
            timed_ids_from(0).to_vec(),
            message_id(low, timed(0)).to_vec(),
            message_id(high, timed(1)).to_vec(),
            message_id(low, timed(2)).to_vec(),
            timed_ids_from(3).to_vec(),
            message_id(low, ClientMessageId::timed(TimestampMs((1 << 48) - 1), 0)).to_vec(),
        ];
        assert!(keys.is_sorted_by(|one, other| one < other), "{keys:?}");
        assert_eq!((keys[1].len(), keys[3].len()), (UNTIMED_ID_BYTES, TIMED_ID_BYTES));
        let mut odd = message_id(low, timed(2)).to_vec();
        odd[4] ^= 1;
        assert_eq!(parse(&odd), None, "an id under another minute than its own");
        assert!(is_apart(&keys[1]) && !is_apart(&keys[0]));
    }

    fn name(text: &str) -> UserId {
        UserId::new(text).unwrap()
    }

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        let id = ConversationId([0; 16]);
        for (key, expected) in [
            (lost(id, Sequence(258)), Key::Lost(Sequence(258))),
            (single(id, Family::Start), Key::Start),
            (single(id, Family::Title), Key::Title),
            (single(id, Family::Tail), Key::Tail),
            (of_user(id, Family::Member, &name("ann")), Key::Member(name("ann"))),
            (of_user(id, Family::Pointer, &name("b")), Key::Pointer(name("b"))),
            (old_message_id(id, ClientMessageId([9; 16])).to_vec(), Key::OldMessageId(ClientMessageId([9; 16]))),
            (message_id(id, UNTIMED).to_vec(), Key::MessageId(id, UNTIMED)),
            (message_id(id, timed(5)).to_vec(), Key::MessageId(id, timed(5))),
            (entry(id, Sequence(258)), Key::Entry(Sequence(258))),
            (within(id, &state_suffix(Sequence(258))), Key::State(Sequence(258))),
            (within(id, &reactor_suffix(Sequence(258), &name("ann"))), Key::Reactor(Sequence(258), name("ann"))),
            (within(id, &PINS), Key::Pins),
            (within(id, &RETENTION), Key::Retention),
            (within(id, &SETTINGS), Key::Settings),
            (within(id, &role_suffix(&name("ann"))), Key::Role(name("ann"))),
            (within(id, &ban_suffix(&name("ann"))), Key::Ban(name("ann"))),
            (within(id, &invite_suffix(Sequence(258))), Key::Invite(Sequence(258))),
            (user_conversation(&name("ann"), id), Key::User(id)),
        ] {
            let of = match expected {
                Key::User(_) => Owner::User(name("ann")),
                Key::MessageId(..) => Owner::MessageIds,
                _ => Owner::Conversation(id),
            };
            assert_eq!(owner(&key), Some(of), "{key:?}");
            assert_eq!(conversation_of(&key), Some(id), "{key:?}");
            assert_eq!(parse(&key), Some(expected), "{key:?}");
        }
        for key in [&b""[..], b"\x01short", b"\x02nozero", b"\x02bad name\0", b"\x05"] {
            assert_eq!(owner(key), None, "{key:?}");
            assert_eq!(conversation_of(key), None, "{key:?}");
        }
    }

    #[test]
    fn a_filter_tells_which_stretches_of_entries_there_are() {
        let id = ConversationId([7; 16]);
        let of_key = |filter: &KeyFilter, key: &[u8]| {
            let mut pieces = Vec::new();
            (filter.pieces)(key, &mut |piece| pieces.push(piece.to_vec()));
            pieces
        };
        let mut piece = conversation(id).to_vec();
        piece.extend([7, 0, 0, 0, 0, 0, 0, 0, 2]);
        for suffix in
            [entry_suffix(Sequence(64)), state_suffix(Sequence(95)), reactor_suffix(Sequence(70), &name("ann"))]
        {
            let key = within(id, &suffix);
            assert_eq!(of_key(&FILTER, &key), [conversation(id).to_vec(), piece.clone()]);
            assert_eq!(of_key(&ID_FILTER, &key), [conversation(id).to_vec()], "as it was before");
        }
        assert_eq!(of_key(&FILTER, &single(id, Family::Tail)), [conversation(id).to_vec()]);
        let of_range = |range: KeyRange| {
            let mut numbers = Vec::new();
            (FILTER.pieces_within)(&range, &mut |piece| {
                assert_eq!(piece[..18], within(id, &[7]));
                numbers.push(u64::from_be_bytes(piece[18..].try_into().unwrap()));
            });
            numbers
        };
        for (first, last, expected) in [(1, 31, vec![0]), (31, 32, vec![0, 1]), (64, 64, vec![2]), (64, 95, vec![2])] {
            assert_eq!(of_range(entry_range(id, Sequence(first), Sequence(last))), expected, "{first} to {last}");
        }
        let to_a_reactor = entries_but_last_reactors(id, Sequence(60), Sequence(64));
        assert_eq!(of_range(to_a_reactor), [1, 2], "the last has rows in it");
        for too_much in [
            entry_range(id, Sequence(1), Sequence(256)),
            KeyRange::prefix(conversation(id)),
            KeyRange::new(entry(id, Sequence(1)), entry(ConversationId([8; 16]), Sequence(2))),
            state_range(id),
        ] {
            assert_eq!(of_range(too_much), [0; 0]);
        }
        assert_eq!(of_range(entry_range(id, Sequence(1), Sequence(255))).len(), 8);
    }

    #[test]
    fn what_is_behind_an_entry_comes_before_the_next() {
        let id = ConversationId([7; 16]);
        let keys = [
            entry(id, Sequence(5)),
            within(id, &state_suffix(Sequence(5))),
            within(id, &reactor_suffix(Sequence(5), &name("ann"))),
            within(id, &reactor_suffix(Sequence(5), &name("bob"))),
            entry(id, Sequence(6)),
        ];
        assert!(keys.is_sorted());
        let range = reactors_range(id, Sequence(5), Some(&name("ann")));
        assert_eq!(keys.iter().filter(|key| range.contains(key)).count(), 1);
        assert!(range.contains(&within(id, &reactor_suffix(Sequence(5), &name("anna")))));
        assert_eq!(keys.iter().filter(|key| entry_range(id, Sequence(5), Sequence(5)).contains(key)).count(), 4);
        let without = entries_but_last_reactors(id, Sequence(1), Sequence(5));
        assert_eq!(keys.iter().filter(|key| without.contains(key)).count(), 2);
    }

    #[test]
    fn a_users_range_holds_no_other_users_rows() {
        let range = KeyRange::prefix(user(&name("ann")));
        assert!(range.contains(&user_conversation(&name("ann"), ConversationId([255; 16]))));
        assert!(!range.contains(&user_conversation(&name("anna"), ConversationId([0; 16]))));
    }

    #[test]
    fn filters_hold_prefixes_and_idempotency_keys() {
        let id = ConversationId([7; 16]);
        let found = |key: &[u8]| {
            let mut found = Vec::new();
            pieces(key, &mut |piece| found.push(piece.to_vec()));
            found
        };
        let old = old_message_id(id, UNTIMED);
        assert_eq!(found(&old), [conversation(id).to_vec(), old.to_vec()]);
        let message = message_id(id, UNTIMED);
        assert_eq!(found(&message), [message.to_vec()]);
        assert_eq!(found(&entry(id, Sequence(1))), [conversation(id).to_vec()]);
        assert_eq!(found(&user_conversation(&name("ann"), id)), [user(&name("ann"))]);
    }
}
