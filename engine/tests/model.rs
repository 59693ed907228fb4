//! The whole door against a simple model, with restarts, crashes and clock jumps at any time. A failure names its seed; `check(seed)`
//! repeats it.

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antiphon_engine::{
    EngineOptions,
    door::{Command, Done, HistoryRange, Output, Token},
    encryption::NodeKey,
    memory_files::MemoryRandom,
    seams::Random as _,
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, Content, Entry, MessageState, view_entry},
    ids::{ClientMessageId, ConversationId, Sequence, TimestampMs, UserId},
};
use support::{
    Lane, change, entry,
    model::{Expected, Missing, Model, Record},
    send, small_options, user,
};

const SEEDS: u64 = 400;
const STEPS: u64 = 150;
const USERS: [&str; 6] = ["ann", "bob", "cid", "dan", "eve", "fay"];

#[test]
fn the_engine_answers_as_the_model_does() {
    for seed in 0..SEEDS {
        check(seed);
    }
}

fn check(seed: u64) {
    let named = std::panic::catch_unwind(|| Run::new(seed).run());
    if let Err(panic) = named {
        eprintln!("seed {seed}");
        std::panic::resume_unwind(panic);
    }
}

struct Run {
    random: MemoryRandom,
    lane: Lane,
    model: Model,
    /// Commands that were not answered yet, with the answer that is due.
    open: Vec<(Token, Command, Expected)>,
    /// Last sequence that was delivered of each conversation, and last position.
    delivered: BTreeMap<ConversationId, u64>,
    seen: usize,
    durable: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        // A third of the runs hold hardly any conversation in memory and flush all the time; a third hold all. (Smaller memtables push back.)
        let (conversations_bytes_max, memtable_bytes) =
            [(8 * 1024, 24 * 1024), (1, 9 * 1024), (1 << 20, 60 * 1024)][seed as usize % 3];
        // A quarter of the stores is encrypted: nobody is to notice.
        let encryption = (seed % 4 == 3).then(|| NodeKey::new([seed as u8; 32]));
        let options = EngineOptions { conversations_bytes_max, memtable_bytes, encryption, ..small_options() };
        let mut lane = Lane::with_options(seed, options);
        // Operations complete in any order; in half of the runs reads are the slowest of all.
        lane.reads_last = seed % 2 == 1;
        lane.files.set_queued(true);
        Self {
            random: MemoryRandom::new(seed ^ 0x5eed),
            lane,
            model: Model::default(),
            open: Vec::new(),
            delivered: BTreeMap::new(),
            seen: 0,
            durable: 0,
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            match self.random.below(100) {
                0..70 => self.submit_change(),
                70..80 => self.settle(),
                80..84 => self.lane.settle(),
                84..89 => self.read_history(),
                89..91 => self.read_lists(),
                91..92 => self.read_reactions(),
                92..95 => self.catch_up(),
                95..96 => self.restart(),
                96..98 => self.crash(),
                98..99 => self.lane.clock.set(1_000_000 + self.random.below(5_000_000)),
                _ => self.lane.engine.tick(),
            }
            self.take_outputs();
        }
        self.settle();
        self.read_history();
        self.restart();
        self.read_lists();
    }

    fn any_user(&self) -> UserId {
        user(USERS[self.random.below(USERS.len() as u64) as usize])
    }

    fn any_users(&self) -> Vec<UserId> {
        (0..self.random.below(4)).map(|_| self.any_user()).collect()
    }

    /// Mostly one that exists.
    fn any_conversation(&self) -> ConversationId {
        let count = self.model.conversations.len() as u64;
        if count == 0 || self.random.below(20) == 0 {
            return ConversationId([self.random.below(3) as u8; 16]);
        }
        *self.model.conversations.keys().nth(self.random.below(count) as usize).unwrap()
    }

    fn any_change(&self) -> Command {
        let conversation = self.any_conversation();
        let last = self.delivered.get(&conversation).copied().unwrap_or(0);
        match self.random.below(100) {
            0..6 => Command::CreateDirect { user: self.any_user(), peer: self.any_user() },
            6..12 => Command::CreateGroup {
                user: self.any_user(),
                key: ClientMessageId([self.random.below(2) as u8; 16]),
                title: "t".repeat(self.random.below(3) as usize),
                members: self.any_users(),
            },
            12..50 => {
                let text = "x".repeat(1 + self.random.below(30) as usize * 30);
                send(self.any_user().as_str(), conversation, self.random.below(60), &text)
            }
            50..70 => {
                // Some under a message's own id.
                let key = 50 + self.random.below(200);
                change(self.any_user().as_str(), conversation, key, self.any_change_of_message(last))
            }
            70..77 => Command::AddMembers { user: self.any_user(), conversation, members: self.any_users() },
            77..82 => Command::RemoveMembers { user: self.any_user(), conversation, members: self.any_users() },
            82..85 => {
                Command::SetTitle { user: self.any_user(), conversation, title: format!("{}", self.random.below(3)) }
            }
            _ => {
                // What is durable, or far beyond the end: what lies between is judged by what is durable at that moment.
                let pointer = || match self.random.below(10) {
                    0..5 if last > 0 => Some(Sequence(1 + self.random.below(last))),
                    5 => Some(Sequence(1_000_000)),
                    6 => Some(Sequence(0)),
                    _ => None,
                };
                Command::Mark { user: self.any_user(), conversation, read: pointer(), delivered: pointer() }
            }
        }
    }

    fn any_change_of_message(&self, last: u64) -> Change {
        // Most often a late one: of early ones many are gone.
        let target = Sequence(1 + self.random.below(last + 1).max(self.random.below(last + 1)));
        let on = self.random.below(3) > 0;
        match self.random.below(20) {
            0..6 => {
                let text = "e".repeat(1 + self.random.below(10) as usize * 30);
                Change::Edit { target, content: Content::text(&text) }
            }
            6..8 => Change::Delete { target },
            8..15 => {
                let text = ["a", "b", "👍"][self.random.below(3) as usize].to_owned();
                Change::React { target, text, on }
            }
            15..19 => Change::Pin { target, on },
            _ => Change::Retain { before: Sequence(self.random.below(last / 2 + 3)) },
        }
    }

    fn submit_change(&mut self) {
        let command = self.any_change();
        let expected = self.model.change(&command);
        let token = self.lane.submit(command.clone());
        self.open.push((token, command, expected));
        if self.random.below(3) == 0 {
            self.lane.drain();
        }
    }

    fn settle(&mut self) {
        self.lane.settle_queued();
        self.take_outputs();
        assert!(self.open.is_empty(), "not answered: {:?}", self.open);
        assert_eq!(self.model.pending(), 0);
        assert_eq!(self.durable, self.model.committed.len() as u64);
    }

    /// Checks what came out since the last time.
    fn take_outputs(&mut self) {
        self.lane.drain();
        let outputs = self.lane.outputs.split_off(self.seen.min(self.lane.outputs.len()));
        for output in &outputs {
            match output {
                Output::Answer { token, result } => {
                    let Some(index) = self.open.iter().position(|(of, ..)| of == token) else { continue };
                    let (_, command, expected) = self.open.remove(index);
                    assert_eq!(Expected::of(result), expected, "{command:?}");
                }
                Output::Entry { conversation, sequence, archive, recipients, removed, partly } => {
                    let last = self.delivered.entry(*conversation).or_default();
                    assert_eq!(sequence.0, *last + 1, "{conversation}");
                    *last = sequence.0;
                    let position = self.model.committed.len() as u64 + 1;
                    assert!(!self.model.commit(*conversation, position).is_mark());
                    let view = view_entry(archive).unwrap();
                    assert_eq!(view.sequence.0.to_native(), sequence.0);
                    assert!(removed.iter().all(|user| !recipients.contains(user)));
                    if let Some(partly) = partly {
                        assert!(partly.recipients.iter().all(|user| recipients.contains(user)));
                        assert_eq!(entry(&partly.archive).body, entry(archive).body[..8], "nothing but the target");
                    }
                }
                Output::Receipt { conversation, .. } => {
                    let position = self.model.committed.len() as u64 + 1;
                    assert!(self.model.commit(*conversation, position).is_mark());
                }
                Output::Committed { position } => {
                    assert!(position.0 > self.durable);
                    assert_eq!(position.0, self.model.committed.len() as u64);
                    self.durable = position.0;
                }
                Output::Told { .. } => panic!("nobody tells of anything here"),
                Output::Fenced { text } => panic!("{text}"),
            }
        }
        self.lane.outputs.extend(outputs);
        self.seen = self.lane.outputs.len();
    }

    fn read_history(&mut self) {
        self.settle();
        let (user, id) = (self.any_user(), self.any_conversation());
        let middle = Sequence(self.random.below(30));
        let range = match self.random.below(4) {
            0 => HistoryRange::Latest,
            1 => HistoryRange::Before(middle),
            2 => HistoryRange::After(middle),
            _ => HistoryRange::Around(middle),
        };
        let limit = 1 + self.random.below(12);
        let page = self.lane.history(user.as_str(), id, range, limit as u32);
        self.take_outputs();
        let expected = self.model.history(&user, id, range, limit);
        let Some(expected) = expected else {
            assert!(page.is_err(), "{user:?} sees {id}");
            return;
        };
        let page = page.unwrap();
        let entries: Vec<_> = page.entries.iter().map(|archive| entry(archive)).collect();
        let sequences: Vec<u64> = entries.iter().map(|entry| entry.sequence.0).collect();
        assert_eq!(sequences, expected, "{range:?} limit {limit}");
        assert_eq!(page.as_of.0, self.model.conversations[&id].entries.len() as u64);
        self.compare_shown(&user, id, &entries, page.states);
    }

    /// Holds what a user is shown of a conversation against the model.
    fn compare_shown(&self, user: &UserId, id: ConversationId, entries: &[Entry], states: Vec<MessageState>) {
        let conversation = &self.model.conversations[&id];
        let first = conversation.first_seen(&conversation.members[user]);
        let mut told = Vec::new();
        for entry in entries {
            let sequence = entry.sequence.0;
            let model = &conversation.entries[sequence as usize - 1];
            assert_eq!(entry.ordinal.0, model.ordinal);
            let sender = model.message.as_ref().map(|(sender, key, _)| (sender, key));
            let sender = sender.or(model.change.as_ref().map(|(sender, key, _)| (sender, key)));
            if let Some(sender) = sender {
                assert_eq!((&entry.sender, &entry.client_message_id), sender);
                assert_eq!(Some(&entry.body), conversation.shown(sequence, first).as_ref(), "{id} {sequence}");
            }
            told.extend(conversation.told(sequence, user));
        }
        let without_times = |mut state: MessageState| {
            if let Some(edited) = &mut state.edited {
                edited.time_ms = TimestampMs(0);
            }
            state
        };
        let states: Vec<_> = states.into_iter().map(without_times).collect();
        assert_eq!(states, told, "{id} for {user:?}");
    }

    fn read_reactions(&mut self) {
        self.settle();
        let (user, id) = (self.any_user(), self.any_conversation());
        let last = self.delivered.get(&id).copied().unwrap_or(0);
        let target = 1 + self.random.below(last + 1);
        let after = Some(self.any_user()).filter(|_| self.random.below(2) == 0);
        let limit = 1 + self.random.below(3) as usize;
        let asked = (Sequence(target), after.clone());
        let command = Command::Reactions {
            user: user.clone(),
            conversation: id,
            target: asked.0,
            after: asked.1,
            limit: limit as u32,
        };
        let answer = self.lane.ask(command);
        let pins = self.lane.ask(Command::Pins { user: user.clone(), conversation: id });
        self.take_outputs();
        let member = self.model.conversations.get(&id).and_then(|of| Some((of, of.members.get(&user)?)));
        let Some((conversation, member)) = member else {
            assert!(answer.is_err_and(|refusal| refusal.code == ErrorCode::NotFound));
            return assert!(pins.is_err());
        };
        let first = conversation.first_seen(member);
        assert!(matches!(pins, Ok(Done::Pins(pins)) if pins == conversation.pins(first)));
        let entry = conversation.entries.get(target as usize - 1).filter(|_| target >= first);
        let expected = match entry.and_then(|entry| entry.message.as_ref()) {
            None => Err(ErrorCode::NoMessage),
            Some(_) if conversation.is_deleted(target) => Err(ErrorCode::Deleted),
            Some(_) => {
                let mut reactors = conversation.reactors(target);
                reactors.retain(|(user, _)| after.as_ref().is_none_or(|after| user > after));
                let more = reactors.len() > limit;
                reactors.truncate(limit);
                Ok((reactors, more))
            }
        };
        let answer = match answer {
            Ok(Done::Reactions { reactions, more }) => {
                Ok((reactions.into_iter().map(|of| (of.user, of.reactions)).collect::<Vec<_>>(), more))
            }
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code),
        };
        assert_eq!(answer, expected, "{id} {target}");
    }

    fn read_lists(&mut self) {
        self.settle();
        let user = self.any_user();
        let command = Command::Conversations { user: user.clone(), after: None, limit: 100 };
        let Ok(Done::Conversations { conversations, more: false }) = self.lane.ask(command) else { panic!() };
        let listed: Vec<_> = conversations
            .iter()
            .map(|of| (of.conversation, of.title.clone(), of.last_sequence.0, of.members, of.read.0, of.unread))
            .collect();
        let conversations = self.model.conversations.iter();
        let expected: Vec<_> = conversations
            .filter_map(|(id, of)| {
                let member = of.members.get(&user)?;
                let (last, members) = (of.entries.len() as u64, of.members.len() as u32);
                Some((*id, of.title.clone(), last, members, member.read, of.unread(member)))
            })
            .collect();
        assert_eq!(listed, expected);
        let id = self.any_conversation();
        let answer = self.lane.ask(Command::Members { user: user.clone(), conversation: id, after: None, limit: 100 });
        self.take_outputs();
        let conversation = self.model.conversations.get(&id).filter(|of| of.members.contains_key(&user));
        let Some(conversation) = conversation else {
            assert!(answer.is_err());
            return;
        };
        let Ok(Done::Members { members, .. }) = answer else { panic!("{answer:?}") };
        let members: Vec<_> =
            members.into_iter().map(|of| (of.user, of.visible_from.0, of.read.0, of.delivered.0)).collect();
        let expected: Vec<_> = conversation
            .members
            .iter()
            .map(|(user, of)| (user.clone(), of.visible_from, of.read, of.delivered))
            .collect();
        assert_eq!(members, expected);
    }

    fn catch_up(&mut self) {
        self.settle();
        let user = self.any_user();
        let since = self.random.below(self.model.committed.len() as u64 + 1);
        let mut known = BTreeMap::new();
        for (id, conversation) in &self.model.conversations {
            if self.random.below(3) == 0 {
                known.insert(*id, self.random.below(conversation.entries.len() as u64 + 1));
            }
        }
        let list: Vec<_> = known.iter().map(|(id, sequence)| (*id, *sequence)).collect();
        let caught_up = self.lane.catch_up(user.as_str(), since, &list).unwrap();
        self.take_outputs();
        assert_eq!(caught_up.position.0, self.model.committed.len() as u64);
        let mut shown: BTreeMap<ConversationId, (Vec<Entry>, Vec<MessageState>)> = BTreeMap::new();
        for archive in &caught_up.entries {
            let entry = entry(archive);
            shown.entry(entry.conversation).or_default().0.push(entry);
        }
        for states in caught_up.states {
            assert_eq!(states.as_of.0, self.model.conversations[&states.conversation].entries.len() as u64);
            shown.entry(states.conversation).or_default().1 = states.states;
        }
        for (id, (entries, states)) in shown {
            self.compare_shown(&user, id, &entries, states);
        }
        let found = Missing {
            entries: caught_up
                .entries
                .iter()
                .map(|archive| entry(archive))
                .map(|entry| (entry.conversation, entry.sequence.0))
                .collect(),
            too_far: caught_up.too_far.iter().map(|of| (of.conversation, of.first.0, of.last.0)).collect(),
            left: caught_up.left,
        };
        assert_eq!(found, self.model.missing(&user, since, &known), "{user:?} since {since} known {known:?}");
    }

    fn restart(&mut self) {
        self.settle();
        self.lane.reopen();
        self.opened();
        assert_eq!(self.lane.report.position.0, self.model.committed.len() as u64);
    }

    /// The power fails with commands open: what was answered stays, of the rest some may, each conversation's in order.
    fn crash(&mut self) {
        self.take_outputs();
        assert_eq!(self.durable, self.model.committed.len() as u64);
        self.lane.crash(self.random.next());
        self.opened();
        self.lane.files.set_queued(false);
        let position = self.lane.report.position.0;
        assert!(position >= self.durable, "{position} of {} acknowledged", self.durable);
        let mut survivors = Survivors::new(&self.model);
        for position in self.durable + 1..=position {
            let (before, after) = (self.changes_since(position - 1), self.changes_since(position));
            survivors.take(position, before.difference(&after).copied().collect());
        }
        survivors.take_marks(|id, user| self.pointers(id, user));
        self.model = survivors.finish(position);
        self.lane.files.set_queued(true);
        self.lane.outputs.clear();
        self.open.clear();
        self.durable = position;
        self.delivered.clear();
        for (id, conversation) in &self.model.conversations {
            self.delivered.insert(*id, conversation.entries.len() as u64);
        }
    }

    /// Entries, seen by anybody, that came after a position.
    fn changes_since(&mut self, since: u64) -> BTreeSet<(ConversationId, u64)> {
        let mut changes = BTreeSet::new();
        for name in USERS {
            let caught_up = self.lane.catch_up(name, since, &[]).unwrap();
            let entries = caught_up.entries.iter().map(|archive| entry(archive));
            changes.extend(entries.map(|entry| (entry.conversation, entry.sequence.0)));
            changes.extend(caught_up.left.iter().map(|(id, sequence)| (*id, sequence.0)));
        }
        changes
    }

    fn pointers(&mut self, conversation: ConversationId, name: &UserId) -> Option<(u64, u64)> {
        let command = Command::Members { user: name.clone(), conversation, after: None, limit: 100 };
        let Ok(Done::Members { members, .. }) = self.lane.ask(command) else { return None };
        members.iter().find(|of| of.user == *name).map(|of| (of.read.0, of.delivered.0))
    }

    fn opened(&mut self) {
        self.seen = 0;
        self.lane.files.set_queued(true);
        assert!(!self.lane.report.read_only, "{:?}", self.lane.report);
        assert!(self.lane.report.damage.is_empty(), "{:?}", self.lane.report);
    }
}

/// Works out which unacknowledged records survived a crash, from what the engine then shows.
struct Survivors {
    committed: Vec<(Record, u64)>,
    pending: BTreeMap<ConversationId, VecDeque<Record>>,
    /// Positions of records that nobody sees: marks, and entries of conversations that everybody left.
    unseen: VecDeque<u64>,
    /// Entries that are durable, by conversation.
    entries: BTreeMap<ConversationId, u64>,
}

impl Survivors {
    fn new(model: &Model) -> Self {
        let entries = model.conversations.iter().map(|(id, of)| (*id, of.durable as u64)).collect();
        let (committed, pending) = (model.committed.clone(), model.pending.clone());
        Self { committed, pending, unseen: VecDeque::new(), entries }
    }

    /// What is seen of the record at `position`.
    fn take(&mut self, position: u64, seen: Vec<(ConversationId, u64)>) {
        assert!(seen.len() <= 1, "one record is one entry");
        let Some((id, sequence)) = seen.first().copied() else {
            self.unseen.push_back(position);
            return;
        };
        loop {
            let record = self.pending.get_mut(&id).and_then(VecDeque::pop_front).expect("it was submitted");
            let entries = self.entries.get_mut(&id).unwrap();
            *entries += u64::from(!record.is_mark());
            let last = !record.is_mark() && *entries == sequence;
            let position = if last { Some(position) } else { self.unseen.pop_front() };
            self.committed.push((record, position.expect("a record has a position")));
            if last {
                return;
            }
        }
    }

    /// Takes the pending marks that the engine shows.
    fn take_marks(&mut self, mut pointers: impl FnMut(ConversationId, &UserId) -> Option<(u64, u64)>) {
        for pending in self.pending.values_mut() {
            while let Some(Record::Mark { id, user, read, delivered }) = pending.front() {
                let shown = pointers(*id, user).is_some_and(|shown| shown.0 >= *read && shown.1 >= *delivered);
                let Some(position) = self.unseen.front().filter(|_| shown) else { break };
                self.committed.push((pending.pop_front().unwrap(), *position));
                self.unseen.pop_front();
            }
        }
    }

    fn finish(self, position: u64) -> Model {
        assert!(self.unseen.is_empty(), "records that nobody submitted: {:?}", self.unseen);
        assert_eq!(self.committed.len() as u64, position);
        Model::replay(self.committed)
    }
}
