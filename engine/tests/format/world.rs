//! A store with everything in it, and what its bytes have to say by what the engine gave out.

use std::collections::BTreeMap;

use antiphon_engine::{
    EngineOptions,
    door::{Command, Done, Output},
    memory_files::{MemoryFiles, MemoryRandom},
    offline::{self, Access, Inspection},
    seams::{Clock as _, Random as _},
};
use antiphon_wire::{
    frame::{
        Bans, Change, ChangeView, Content, ContentView, ConversationStart, Entry, EntryKind, HistoryFrom, InviteCode,
        Joined, JsonText, MakeInvite, MembershipChange, Role, RoleOf, SetAccount, SettingsChange, view_change,
    },
    ids::{ClientMessageId, ConversationId, Sequence, TimestampMs},
};

use crate::{
    encrypted::NODE,
    files::{Held, Record, Row},
    groups::{Accounts, Groups},
    keys::Key,
    support::{Lane, block_on, change, entry, send, small_options, user},
    tables::{Decoded, Value},
};

const USERS: [&str; 12] =
    ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal", "ida", "jon", "kim", "a-user-with-a-longer-name"];

/// Files with what is known of them.
pub(crate) struct Sample {
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) expected: Expected,
    pub(crate) store: u64,
    pub(crate) lane: u64,
    pub(crate) position: u64,
    /// Message ids that were made, and those that were stored before are forgotten.
    pub(crate) horizons: [u64; 2],
    pub(crate) inspection: Inspection,
    /// The node's key, of an encrypted store.
    pub(crate) node: Option<Key>,
}

/// What the engine gave out, in the order of positions.
#[derive(Default)]
pub(crate) struct Expected {
    pub(crate) records: Vec<Record>,
    /// Of each conversation's entries, how many messages there are up to and with them.
    ordinals: BTreeMap<[u8; 16], Vec<u64>>,
    changes: Changes,
    groups: Groups,
    accounts: Accounts,
    /// Codes of the invites that were made.
    codes: Vec<InviteCode>,
}

/// What became of messages, by conversation.
#[derive(Default)]
struct Changes {
    /// With their positions, as they were given out first.
    entries: BTreeMap<([u8; 16], u64), (u64, Entry)>,
    states: BTreeMap<([u8; 16], u64), State>,
    reactors: BTreeMap<([u8; 16], u64, String), Vec<String>>,
    pins: BTreeMap<[u8; 16], Vec<u64>>,
}

#[derive(Default, Clone)]
struct State {
    deleted: bool,
    edit: (u64, u64),
    replies: u32,
    reactions: Vec<(String, u32)>,
}

impl State {
    fn row(&self, target: u64, pinned: bool) -> Row {
        let flags = u8::from(self.deleted) | u8::from(pinned) << 1 | u8::from(self.edit.0 > 0) << 2;
        let mut value = vec![flags | u8::from(self.replies > 0) << 3];
        value.extend([self.edit.0.to_le_bytes(), self.edit.1.to_le_bytes()].concat());
        if self.replies > 0 {
            value.extend(self.replies.to_le_bytes());
        }
        for (text, count) in &self.reactions {
            value.extend(count.to_le_bytes());
            value.extend(short(text));
        }
        ([&[7], &target.to_be_bytes()[..], &[1]].concat(), Some(value))
    }
}

impl Changes {
    /// The row of the message whose thread another is in, with one reply more or less.
    fn reply(&mut self, of: &Entry, more: bool) -> Vec<Row> {
        let id = of.conversation.0;
        let Some(root) = Content(of.body.clone()).view().ok().and_then(|content| content.thread) else {
            return Vec::new();
        };
        let state = self.states.entry((id, root.0)).or_default();
        if state.deleted {
            return Vec::new();
        }
        state.replies = if more { state.replies + 1 } else { state.replies - 1 };
        vec![state.row(root.0, self.pins.get(&id).is_some_and(|pins| pins.contains(&root.0)))]
    }

    /// The rows that an entry brings, by their suffixes, in order.
    fn brought(&mut self, entry: &Entry) -> Vec<Row> {
        match entry.kind {
            EntryKind::Message => self.reply(entry, true),
            EntryKind::Deletion => {
                let target = u64::from_le_bytes(entry.body[..8].try_into().unwrap());
                let message = self.entries[&(entry.conversation.0, target)].1.clone();
                let mut rows = self.take(entry);
                rows.extend(self.reply(&message, false));
                rows.sort();
                rows
            }
            _ => self.take(entry),
        }
    }

    /// The rows that a change brings, but for those of another message than its own.
    fn take(&mut self, entry: &Entry) -> Vec<Row> {
        let id = entry.conversation.0;
        let (sequence, time) = (entry.sequence.0, entry.time_ms.0);
        let mut rows: Vec<Row> = Vec::new();
        let pins = self.pins.entry(id).or_default();
        let before = pins.clone();
        let target = match view_change(entry.kind, &entry.body).unwrap() {
            ChangeView::Retain { before, messages } => {
                pins.retain(|pin| *pin >= before.0);
                rows.push((vec![3, 2], Some([before.0.to_le_bytes(), messages.0.to_le_bytes()].concat())));
                None
            }
            ChangeView::Edit { target, content } => {
                let state = self.states.entry((id, target.0)).or_default();
                let (position, message) = &self.entries[&(id, target.0)];
                rows.push(replaced(*position, message, content.unwrap().to_vec()));
                if let Some((position, edit)) = self.entries.get(&(id, state.edit.0)) {
                    rows.push(replaced(*position, edit, edit.body[..8].to_vec()));
                }
                state.edit = (sequence, time);
                Some(target.0)
            }
            ChangeView::Delete { target } => {
                let state = self.states.entry((id, target.0)).or_default();
                let (position, message) = &self.entries[&(id, target.0)];
                rows.push(replaced(*position, message, Vec::new()));
                if let Some((position, edit)) = self.entries.get(&(id, state.edit.0)) {
                    rows.push(replaced(*position, edit, edit.body[..8].to_vec()));
                }
                *state = State { deleted: true, ..State::default() };
                pins.retain(|pin| *pin != target.0);
                Some(target.0)
            }
            ChangeView::React { target, text, on } => {
                let user = entry.sender.as_str();
                let mine = self.reactors.entry((id, target.0, user.to_owned())).or_default();
                let state = self.states.entry((id, target.0)).or_default();
                if on && !mine.iter().any(|of| of == text) {
                    mine.push(text.to_owned());
                    match state.reactions.iter_mut().find(|(of, _)| of == text) {
                        Some((_, count)) => *count += 1,
                        None => state.reactions.push((text.to_owned(), 1)),
                    }
                } else if !on && mine.iter().any(|of| of == text) {
                    mine.retain(|of| of != text);
                    state.reactions.iter_mut().filter(|(of, _)| of == text).for_each(|(_, count)| *count -= 1);
                    state.reactions.retain(|(_, count)| *count > 0);
                }
                let value: Vec<u8> = mine.iter().flat_map(|text| short(text)).collect();
                let suffix = [&[7], &target.0.to_be_bytes()[..], &[2], user.as_bytes()].concat();
                rows.push((suffix, Some(value).filter(|value| !value.is_empty())));
                Some(target.0)
            }
            ChangeView::Pin { target, on } => {
                if on && !pins.contains(&target.0) {
                    pins.push(target.0);
                } else if !on {
                    pins.retain(|pin| *pin != target.0);
                }
                Some(target.0)
            }
        };
        if let Some(target) = target {
            let state = self.states.entry((id, target)).or_default();
            let pinned = pins.contains(&target);
            rows.push(state.row(target, pinned));
        }
        if *pins != before {
            rows.push((vec![3, 1], Some(pins.iter().flat_map(|pin| pin.to_le_bytes()).collect())));
        }
        rows.sort();
        rows
    }
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

/// What is left of an entry: its row, with another body.
pub(crate) fn replaced(position: u64, of: &Entry, body: Vec<u8>) -> Row {
    let archive = Entry { body, ..of.clone() }.to_archive();
    let suffix = [&[7], &of.sequence.0.to_be_bytes()[..]].concat();
    (suffix, Some([&position.to_le_bytes(), &archive[..]].concat()))
}

/// Rows by name and key.
pub(crate) type Rows = BTreeMap<(String, BTreeMap<String, Vec<u8>>), BTreeMap<String, Value>>;

impl Expected {
    pub(crate) fn take(&mut self, outputs: impl IntoIterator<Item = Output>) {
        for output in outputs {
            match output {
                Output::Entry { conversation, archive, .. } => {
                    let of = entry(&archive);
                    self.ordinals.entry(conversation.0).or_default().push(of.ordinal.0);
                    let position = self.records.len() as u64 + 1;
                    let is_of_messages = of.kind.is_change() || of.kind == EntryKind::Message;
                    let brought = match of.kind {
                        _ if is_of_messages => self.changes.brought(&of),
                        EntryKind::AccountData => self.accounts.take(position, &of),
                        _ => self.groups.take(&of),
                    };
                    let record = match of.kind.is_change() || !brought.is_empty() {
                        true => Record::Change { archive: archive.to_vec(), brought },
                        false => Record::Entry(archive.to_vec()),
                    };
                    self.changes.entries.insert((conversation.0, of.sequence.0), (position, of));
                    self.records.push(record);
                }
                Output::Receipt { conversation, user, read, delivered, .. } => {
                    let before = read.0.checked_sub(1).map(|index| self.ordinals[&conversation.0][index as usize]);
                    self.records.push(Record::Mark {
                        conversation: conversation.0,
                        read: read.0,
                        messages: before.unwrap_or(0),
                        delivered: delivered.0,
                        user: user.as_str().to_owned(),
                    });
                }
                Output::Answer { result: Ok(Done::Invited { code, .. }), .. } => self.codes.push(code),
                Output::Answer { .. } | Output::Committed { .. } | Output::Fenced { .. } | Output::Told { .. } => {}
            }
        }
    }

    /// Times of the entries from a position on.
    pub(crate) fn times_from(&self, position: u64) -> Vec<u64> {
        let records = self.records.iter().skip(position.saturating_sub(1) as usize);
        records.filter_map(time_of).collect()
    }

    /// Whether changes of messages are among the records up to a position.
    pub(crate) fn has_changes(&self, position: u64) -> bool {
        let is_of_message = |(suffix, _): &Row| suffix[0] == 7;
        let mut records = self.records.iter().take(position as usize);
        records.any(|record| match record {
            Record::Change { archive, brought } => entry(archive).kind.is_change() || brought.iter().any(is_of_message),
            _ => false,
        })
    }

    /// All rows that records up to a position make.
    pub(crate) fn rows(&self, position: u64) -> Rows {
        let mut rows = Rows::new();
        for (at, record) in (1..=position).zip(&self.records) {
            match record {
                Record::Mark { conversation, read, messages, delivered, user } => {
                    let value = numbers([("read", *read), ("messages", *messages), ("delivered", *delivered)]);
                    rows.insert(key("pointer", *conversation, [("user", user.as_bytes())]), value);
                }
                Record::Entry(archive) => add_entry(&mut rows, at, archive),
                Record::Change { archive, brought } => {
                    add_entry(&mut rows, at, archive);
                    let id = entry(archive).conversation.0;
                    brought.iter().for_each(|(suffix, value)| add_brought(&mut rows, id, suffix, value.as_deref()));
                }
            }
        }
        rows
    }
}

/// When an entry was stored.
pub(crate) fn time_of(record: &Record) -> Option<u64> {
    match record {
        Record::Entry(archive) | Record::Change { archive, .. } => Some(entry(archive).time_ms.0),
        Record::Mark { .. } => None,
    }
}

/// What the next batch's witness says of these.
pub(crate) fn witness_of(records: &[Record]) -> Vec<Held> {
    let mut held: BTreeMap<[u8; 16], Held> = BTreeMap::new();
    for record in records {
        let (Record::Entry(archive) | Record::Change { archive, .. }) = record else { continue };
        let entry = entry(archive);
        let conversation = entry.conversation.0;
        let of = held.entry(conversation).or_insert(Held { conversation, last: 0, kinds: 0 });
        of.last = entry.sequence.0;
        use EntryKind::{
            AccountData, Bans, Created, Deletion, Edit, Invite, Joined, Membership, Retention, Roles, Settings,
        };
        let hides =
            [AccountData, Created, Membership, Edit, Deletion, Retention, Roles, Settings, Bans, Invite, Joined];
        of.kinds |= u64::from(hides.contains(&entry.kind));
    }
    held.into_values().collect()
}

fn key<const COUNT: usize>(
    name: &str,
    conversation: [u8; 16],
    fields: [(&str, &[u8]); COUNT],
) -> (String, BTreeMap<String, Vec<u8>>) {
    let fields = fields.into_iter().chain([("conversation", &conversation[..])]);
    (name.to_owned(), fields.map(|(field, bytes)| (field.to_owned(), bytes.to_vec())).collect())
}

fn numbers<const COUNT: usize>(fields: [(&str, u64); COUNT]) -> BTreeMap<String, Value> {
    fields.into_iter().map(|(field, number)| (field.to_owned(), Value::Number(number))).collect()
}

fn with(mut fields: BTreeMap<String, Value>, field: &str, bytes: &[u8]) -> BTreeMap<String, Value> {
    fields.insert(field.to_owned(), Value::Bytes(bytes.to_vec()));
    fields
}

/// A row that a change brings.
fn add_brought(rows: &mut Rows, id: [u8; 16], suffix: &[u8], value: Option<&[u8]>) {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let (key, value) = match (suffix, value) {
        ([3, 1], Some(value)) => (key("pins", id, []), with(BTreeMap::new(), "sequences", value)),
        ([3, 2], Some(value)) => {
            let fields = [("before", number(&value[..8])), ("messages", number(&value[8..]))];
            (key("retention", id, []), numbers(fields))
        }
        ([3, 3], Some(body)) => (key("settings", id, []), with(BTreeMap::new(), "body", body)),
        ([3, 4, user @ ..], value) => {
            let key = key("role", id, [("user", user)]);
            let Some(value) = value else { return drop(rows.remove(&key)) };
            (key, numbers([("role", value[0].into())]))
        }
        ([3, 5, user @ ..], value) => {
            let key = key("ban", id, [("user", user)]);
            let Some(value) = value else { return drop(rows.remove(&key)) };
            (key, numbers([("sequence", number(value))]))
        }
        ([3, 6, sequence @ ..], value) => {
            let key = key("invite", id, [("sequence", sequence)]);
            let Some(value) = value else { return drop(rows.remove(&key)) };
            let fields = numbers([("expires", number(&value[32..40])), ("uses", u64::from(value[40]))]);
            (key, with(with(fields, "hash", &value[..32]), "user", &value[44..]))
        }
        ([3, 7, name @ ..], value) => {
            let key = key("account", id, [("name", name)]);
            let Some(value) = value else { return drop(rows.remove(&key)) };
            let [sequence, position, time] = [0, 8, 16].map(|at| number(&value[at..at + 8]));
            let fields = numbers([("sequence", sequence), ("position", position), ("time", time)]);
            (key, with(fields, "value", &value[24..]))
        }
        ([4, user @ ..], Some(value)) => {
            let fields = [("visible from", number(&value[..8])), ("messages", number(&value[8..]))];
            (key("member", id, [("user", user)]), numbers(fields))
        }
        ([7, rest @ ..], value) => {
            let (sequence, rest) = rest.split_at(8);
            match (rest, value) {
                ([], Some(value)) => {
                    let fields = numbers([("position", number(&value[..8]))]);
                    (key("entry", id, [("sequence", sequence)]), with(fields, "archive", &value[8..]))
                }
                ([1], Some(value)) => {
                    let edit = [("edit", number(&value[1..9])), ("edit time", number(&value[9..17]))];
                    let fields = numbers([("flags", value[0].into()), edit[0], edit[1]]);
                    (key("state", id, [("sequence", sequence)]), with(fields, "more", &value[17..]))
                }
                ([2, user @ ..], value) => {
                    let key = key("reactor", id, [("sequence", sequence), ("user", user)]);
                    let Some(value) = value else { return drop(rows.remove(&key)) };
                    (key, with(BTreeMap::new(), "reactions", value))
                }
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    };
    rows.insert(key, value);
}

/// What remembers the id of a message, or of a change of one.
fn add_message_id(rows: &mut Rows, entry: &Entry) {
    let (id, sequence, name) = (entry.conversation.0, entry.sequence.0, &entry.client_message_id.0);
    match entry.client_message_id.made() {
        Some(made) => {
            let minute = ((made.0 / 60_000) as u32).to_be_bytes();
            let message = key("timed id", id, [("minute", &minute), ("id", name)]);
            rows.insert(message, numbers([("sequence", sequence)]));
        }
        None => {
            let value = numbers([("sequence", sequence), ("time", entry.time_ms.0)]);
            rows.insert(key("untimed id", id, [("id", name)]), value);
        }
    }
}

fn add_entry(rows: &mut Rows, position: u64, archive: &[u8]) {
    let entry = entry(archive);
    let (id, sequence, ordinal, time) = (entry.conversation.0, entry.sequence.0, entry.ordinal.0, entry.time_ms.0);
    let value = with(numbers([("position", position)]), "archive", archive);
    rows.insert(key("entry", id, [("sequence", &sequence.to_be_bytes())]), value);
    let tail = [("position", position), ("sequence", sequence), ("ordinal", ordinal), ("time", time)];
    rows.insert(key("tail", id, []), numbers(tail));
    let mut change = MembershipChange { added: Vec::new(), removed: Vec::new() };
    match entry.kind {
        EntryKind::Message => {
            let pointer = numbers([("read", sequence), ("messages", ordinal), ("delivered", sequence)]);
            rows.insert(key("pointer", id, [("user", entry.sender.as_str().as_bytes())]), pointer);
            add_message_id(rows, &entry);
        }
        EntryKind::Edit | EntryKind::Deletion | EntryKind::Reaction | EntryKind::Pin | EntryKind::Retention => {
            add_message_id(rows, &entry);
        }
        EntryKind::Title => drop(rows.insert(key("title", id, []), with(BTreeMap::new(), "title", &entry.body))),
        EntryKind::Membership => change = MembershipChange::from_body(&entry.body).unwrap(),
        EntryKind::Bans => change.removed = Bans::from_body(&entry.body).unwrap().removed().cloned().collect(),
        // What they say is in the rows that they bring.
        EntryKind::Roles | EntryKind::Settings | EntryKind::Invite | EntryKind::AccountData => {}
        EntryKind::Joined => change.added = vec![Joined::from_body(&entry.body).unwrap().user],
        EntryKind::Created => {
            let start = ConversationStart::from_body(&entry.body).unwrap();
            let fields = [("time", time), ("epoch", entry.epoch.0.into()), ("flags", start.direct.into())];
            let value = with(numbers(fields), "creator", entry.sender.as_str().as_bytes());
            rows.insert(key("start", id, []), value);
            rows.insert(key("title", id, []), with(BTreeMap::new(), "title", start.title.as_bytes()));
            change.added = start.members;
        }
    }
    for (users, kind) in [(&change.removed, 2), (&change.added, 1)] {
        for user in users {
            let name = [("user", user.as_str().as_bytes())];
            let member = key("member", id, name);
            if kind == 1 {
                rows.insert(member, numbers([("visible from", sequence), ("messages", ordinal)]));
            } else {
                rows.remove(&member);
            }
            let value = numbers([("kind", kind), ("sequence", sequence), ("position", position)]);
            rows.insert(key("user", id, name), value);
        }
    }
}

/// The newest rows of those that are given newest first.
pub(crate) fn newest(decoded: impl IntoIterator<Item = Decoded>) -> Rows {
    let mut rows: BTreeMap<_, Option<BTreeMap<String, Value>>> = BTreeMap::new();
    for (name, key, value) in decoded {
        rows.entry((name, key)).or_insert(value);
    }
    rows.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// A store on which so many messages and changes were made, by chance.
pub(crate) fn sample(seed: u64, steps: u32, options: EngineOptions) -> Sample {
    let random = MemoryRandom::new(seed);
    let (number, node) = (options.lane, options.encryption.clone());
    let mut lane = Lane::with_options(seed, options);
    let mut expected = Expected::default();
    let mut conversations = Vec::new();
    for key in 0..6 {
        let members: Vec<&str> = USERS.iter().copied().filter(|_| random.below(2) == 0).collect();
        conversations.push(lane.create_group("ann", key, &members));
        conversations.push(lane.create_direct("bob", USERS[2 + usize::from(key)]));
    }
    lane.changed("ann", conversations[0], u64::MAX, Change::Retain { before: Sequence(2) });
    expected.take(std::mem::take(&mut lane.outputs));
    for step in 0..steps {
        act(&mut lane, &conversations, &expected.codes, &random, u64::from(step) * 10);
        lane.settle_queued();
        lane.clock.advance(random.below(5));
        if random.below(50) == 0 {
            // The second finds that nothing has happened since the first.
            lane.engine.tick();
            lane.engine.tick();
            lane.settle_queued();
        }
        expected.take(std::mem::take(&mut lane.outputs));
    }
    let status = lane.engine.status();
    let access = node.clone().map(|node| Access::with_key(number, node, &random)).unwrap_or_else(|| number.into());
    let inspection = block_on(offline::inspect(lane.files.clone(), access, true, |_| ())).unwrap();
    let names = lane.files.names();
    Sample {
        files: names.into_iter().map(|name| (name.clone(), lane.files.contents(&name).unwrap())).collect(),
        expected,
        store: lane.engine.store_id(),
        lane: number.into(),
        position: lane.engine.position().0,
        horizons: [status.ids_forgotten_until_ms, status.untimed_ids_forgotten_until_ms],
        inspection,
        node: node.map(|_| NODE),
    }
}

/// Submits a few commands at once, so that they share a batch. Some are refused: of strangers, beyond the end.
fn act(lane: &mut Lane, conversations: &[ConversationId], codes: &[InviteCode], random: &MemoryRandom, key: u64) {
    let name = || USERS[random.below(USERS.len() as u64) as usize];
    let pick = || conversations[random.below(conversations.len() as u64) as usize];
    let (one, other, conversation) = (name(), name(), pick());
    let command = match random.below(100) {
        0..8 => Command::AddMembers { user: user("ann"), conversation, members: vec![user(other), user(name())] },
        8..13 => Command::RemoveMembers { user: user("ann"), conversation, members: vec![user(other)] },
        13..16 => Command::SetTitle { user: user(one), conversation, title: format!("title {}", random.below(9)) },
        16..30 => {
            let pointer = || Some(Sequence(1 + random.below(9)));
            Command::Mark { user: user(one), conversation, read: pointer(), delivered: pointer() }
        }
        30..45 => {
            let target = Sequence(2 + random.below(12));
            let on = random.below(3) > 0;
            let what = match random.below(12) {
                0..4 => Change::Edit { target, content: Content::text(&"new ".repeat(1 + random.below(90) as usize)) },
                4 => Change::Delete { target },
                5..9 => Change::React { target, text: ["ok", "👍"][random.below(2) as usize].to_owned(), on },
                9..11 => Change::Pin { target, on },
                _ => Change::Retain { before: Sequence(1 + random.below(4)) },
            };
            // Most messages are few people's: of ten who try, somebody may.
            for (number, name) in USERS.iter().enumerate() {
                lane.submit(change(name, conversation, key * 1_000 + number as u64, what.clone()));
            }
            return;
        }
        45..48 => {
            let role = [Role::Admin, Role::Member, Role::Reader][random.below(3) as usize];
            let roles = vec![RoleOf { user: user(other), role }];
            Command::SetRoles { user: user("ann"), conversation, roles }
        }
        48..50 => {
            let history = Some([HistoryFrom::Start, HistoryFrom::Joining][random.below(2) as usize]);
            let picture = (random.below(2) == 0).then(|| format!("picture {}", random.below(9)));
            let set = SettingsChange { history, picture, ..SettingsChange::default() };
            Command::Settings { user: user("ann"), conversation, set: Some(set) }
        }
        50..53 => Command::Ban { user: user("ann"), conversation, users: vec![user(other)], on: random.below(2) == 0 },
        53 => {
            let make = MakeInvite { uses: [None, Some(1), Some(3)][random.below(3) as usize], expires_in_s: None };
            Command::MakeInvite { user: user("ann"), conversation, make }
        }
        54 => {
            let invites = vec![Sequence(1 + random.below(9)), Sequence(10 + random.below(30))];
            Command::RevokeInvites { user: user("ann"), conversation, invites }
        }
        55..58 if !codes.is_empty() => {
            let code = codes[random.below(codes.len() as u64) as usize];
            Command::Join { user: user(other), code, look: false }
        }
        58..61 => {
            let value = (random.below(4) > 0).then(|| JsonText(format!("{{\"of\":{}}}", random.below(1 << 40))));
            let set = SetAccount { key: format!("key-{}", random.below(5)), value, if_sequence: None };
            Command::SetAccount { user: user(other), set }
        }
        choice => {
            for number in 0..1 + random.below(6) {
                let length = if choice == 99 { random.below(14_000) } else { random.below(400) };
                let text = format!("{number} {}", "la ".repeat(length as usize / 3));
                let mut command = send(name(), pick(), key + number, &text);
                if let Command::Send { body, .. } = &mut command
                    && number % 3 == 2
                {
                    let thread = Some(Sequence(2 + random.below(4)));
                    let view = ContentView { text: Some(&text), thread, ..ContentView::default() };
                    *body = view.to_content().0;
                }
                if let Command::Send { client_message_id, .. } = &mut command
                    && number % 2 == 1
                {
                    // As of a client whose clock is right.
                    let made = TimestampMs(lane.clock.now().0);
                    *client_message_id = ClientMessageId::timed(made, u128::from(key + number));
                }
                lane.submit(command);
            }
            return;
        }
    };
    lane.submit(command);
}

/// A store that a repair made of a damaged one.
pub(crate) struct Mended {
    pub(crate) files: MemoryFiles,
    /// What it tells of lost entries: the conversation, the first and the last of them.
    pub(crate) lost: Vec<([u8; 16], u64, u64)>,
}

/// A conversation of which a block of entries was destroyed, repaired.
pub(crate) fn mended() -> Mended {
    let options = EngineOptions { memtable_age_ms_max: 1, memtable_bytes: 4 << 20, ..small_options() };
    let mut lane = Lane::with_options(5, options);
    let id = lane.create_group("ann", 1, &["bob"]);
    for key in 0..200 {
        lane.sent("ann", id, key, &"la ".repeat(100));
    }
    lane.clock.advance(1_000);
    lane.engine.tick();
    lane.settle_queued();
    let damaged = lane.files.crash_image(0);
    let segment = damaged.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    // Entries are the last rows of a conversation, and most of this file.
    assert!(damaged.flip_bit(&segment, damaged.size_of(&segment).unwrap() / 2, 0));
    let files = MemoryFiles::new(0);
    block_on(offline::repair(damaged, files.clone(), 0_u16, &MemoryRandom::new(6), |_| ())).unwrap();
    let mut lost = Vec::new();
    let mut sink = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(told) = line.get("lost") {
            assert_eq!(told["conversation"], id.to_string());
            lost.push((id.0, told["first"].as_u64().unwrap(), told["last"].as_u64().unwrap()));
        }
        true
    };
    block_on(offline::dump(files.clone(), 0_u16, |_| (), &mut sink)).unwrap();
    assert!(!lost.is_empty(), "nothing was lost");
    Mended { files, lost }
}

/// Sixty-four bits that no sample has by chance.
pub(crate) fn unlikely(seed: u64) -> u64 {
    MemoryRandom::new(seed).next()
}
