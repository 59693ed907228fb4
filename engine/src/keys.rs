//! Keys of the ordered keyspace, and which pieces of them filters hold.
//!
//! ```text
//! conversation   0x01 · conversation[16] · family u8 · rest        one contiguous range for all of a conversation
//!                families: 0 lost (first sequence u64 BE)
//!                          1 start · 2 title · 3 tail, 3·1 pins, 3·2 retention · 4 member (user) · 5 pointer (user)
//!                          6 idempotency (client message id[16])
//!                          7 entry (sequence u64 BE), and behind it sequence·1 state · sequence·2 reactor (user)
//! user           0x02 · user · 0x00 · conversation[16]             a user's conversations in this lane
//! ```
//! Families 1 to 5 are what a conversation's state is loaded from: one short scan. No user id contains 0x00. What is behind the
//! conversation's id is a key's suffix.
//!
//! Must not do: know values; those are in [`crate::rows`].

use antiphon_wire::ids::{ClientMessageId, ConversationId, Sequence, UserId};

use crate::{row::KeyRange, segment::KeyFilter};

const CONVERSATIONS: u8 = 1;
const USERS: u8 = 2;
/// Range byte and conversation id.
const PREFIX_BYTES: usize = 17;
const IDEMPOTENCY_BYTES: usize = PREFIX_BYTES + 1 + 16;
/// Suffix of the row of pins.
pub(crate) const PINS: [u8; 2] = [Family::Tail as u8, 1];
/// Suffix of the row of the retention mark.
pub(crate) const RETENTION: [u8; 2] = [Family::Tail as u8, 2];
/// Behind an entry's key: its state's.
const STATE: u8 = 1;
/// Behind an entry's key: those of who reacted.
const REACTOR: u8 = 2;

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
    Idempotency = 6,
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
    /// What remembers a client message id.
    Idempotency(ClientMessageId),
    Entry(Sequence),
    /// What became of a message.
    State(Sequence),
    /// A user's reactions to a message.
    Reactor(Sequence, UserId),
    /// The pinned messages.
    Pins,
    /// Before which entry the conversation is gone.
    Retention,
    /// A user's row: of which conversation.
    User(ConversationId),
}

/// Whose a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    Conversation(ConversationId),
    User(UserId),
}

/// The filter of this keyspace: a conversation's and a user's common prefix, which tell a fresh one without a read, and each
/// idempotency key, which tells a fresh message.
pub(crate) const FILTER: KeyFilter = KeyFilter { id: 2, pieces };

fn pieces(key: &[u8], piece: &mut dyn FnMut(&[u8])) {
    match key.first() {
        Some(&CONVERSATIONS) => {
            if let Some(prefix) = key.get(..PREFIX_BYTES) {
                piece(prefix);
            }
            if key.get(PREFIX_BYTES) == Some(&(Family::Idempotency as u8)) {
                piece(key);
            }
        }
        Some(&USERS) => {
            if let Some(end) = key.iter().position(|byte| *byte == 0) {
                piece(&key[..=end]);
            }
        }
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

/// The row that remembers a client message id; a filter piece.
pub(crate) fn idempotency(id: ConversationId, message: ClientMessageId) -> [u8; IDEMPOTENCY_BYTES] {
    let mut key = [Family::Idempotency as u8; IDEMPOTENCY_BYTES];
    key[..PREFIX_BYTES].copy_from_slice(&conversation(id));
    key[PREFIX_BYTES + 1..].copy_from_slice(&message.0);
    key
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
    KeyRange::new(single(id, Family::Start), single(id, Family::Idempotency))
}

/// The row that tells of lost entries, from the first of them.
pub(crate) fn lost(id: ConversationId, first: Sequence) -> Vec<u8> {
    in_conversation(id, Family::Lost, &first.0.to_be_bytes())
}

/// All of a conversation's members.
pub(crate) fn members_range(id: ConversationId) -> KeyRange {
    KeyRange::prefix(single(id, Family::Member))
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
        4 => user(rest).map(Key::Member),
        5 => user(rest).map(Key::Pointer),
        6 => Some(Key::Idempotency(ClientMessageId(rest.try_into().ok()?))),
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
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (idempotency(id, ClientMessageId([9; 16])).to_vec(), Key::Idempotency(ClientMessageId([9; 16]))),
            (entry(id, Sequence(258)), Key::Entry(Sequence(258))),
            (within(id, &state_suffix(Sequence(258))), Key::State(Sequence(258))),
            (within(id, &reactor_suffix(Sequence(258), &name("ann"))), Key::Reactor(Sequence(258), name("ann"))),
            (within(id, &PINS), Key::Pins),
            (within(id, &RETENTION), Key::Retention),
            (user_conversation(&name("ann"), id), Key::User(id)),
        ] {
            let of = if matches!(expected, Key::User(_)) { Owner::User(name("ann")) } else { Owner::Conversation(id) };
            assert_eq!(owner(&key), Some(of), "{key:?}");
            assert_eq!(conversation_of(&key), Some(id), "{key:?}");
            assert_eq!(parse(&key), Some(expected), "{key:?}");
        }
        for key in [&b""[..], b"\x01short", b"\x02nozero", b"\x02bad name\0", b"\x03"] {
            assert_eq!(owner(key), None, "{key:?}");
            assert_eq!(conversation_of(key), None, "{key:?}");
        }
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
        let message = idempotency(id, ClientMessageId([9; 16]));
        assert_eq!(found(&message), [conversation(id).to_vec(), message.to_vec()]);
        assert_eq!(found(&entry(id, Sequence(1))), [conversation(id).to_vec()]);
        assert_eq!(found(&user_conversation(&name("ann"), id)), [user(&name("ann"))]);
    }
}
