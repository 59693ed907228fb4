//! The oracle: what clients were told, held against each other and against what they asked.
//!
//! It knows nothing of shards, lanes, logs or segments. What is served once is served for ever, with the same bytes; what was
//! acknowledged is among it; membership follows from the entries themselves. Some checks need the whole log of a conversation: they are
//! made at the end, in [`crate::verdict`].

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use antiphon_gateway::core::placement::Placement;
use antiphon_wire::{
    codes::ErrorCode,
    frame::{
        AccountChange, Ack, ArchivedEntry, Bans, ChangeView, Content, ConversationStart, EntryKind, InviteChange,
        InviteCode, Joined, MembershipChange, Settings, members_changed, roles_from_body, view_change, view_entry,
    },
    ids::{ClientMessageId, ConversationId, Sequence, UserId},
};

use crate::{
    accounts::{self, Keys},
    changes,
    clients::Sent,
    contents::said,
    coverage::{Count, Coverage},
    logins::Login,
    rights::Deed,
    tells::Tells,
};

/// What is known of all conversations.
#[derive(Debug, Default)]
pub struct Model {
    /// By id.
    pub conversations: BTreeMap<ConversationId, Conversation>,
    /// Pushes to applications: who was given which entry.
    pub pushes: BTreeSet<(ConversationId, UserId, u64)>,
    /// Who was told that there is which entry.
    pub hints: BTreeSet<(ConversationId, UserId, u64)>,
    /// Pages of history: who, the first visible sequence, first and last entry of the page.
    pub pages: BTreeSet<(ConversationId, UserId, u64, u64, u64)>,
    /// What applications were told that they would never get: who, from, to.
    pub skips: BTreeSet<(ConversationId, UserId, u64, u64)>,
    /// Edits of which somebody was given the text: who, the edit, its message.
    pub edits: BTreeSet<(ConversationId, UserId, u64, u64)>,
    /// Messages of which somebody was told what became of them.
    pub told: BTreeSet<(ConversationId, UserId, u64)>,
    /// What was told for the moment.
    pub tells: Tells,
    /// Tokens, by client.
    pub logins: Vec<Login>,
    /// How often the node's clock jumped.
    pub clock_jumps: u64,
    /// Codes of invites, with the entries that made them.
    pub codes: Vec<(InviteCode, Sequence)>,
    /// Receipts that went back, per reader: forgiven only if the member went and came back.
    pub receipts_back: BTreeSet<(ConversationId, UserId)>,
    /// Answers to pointer requests.
    pub marks: Vec<Marking>,
    /// Stored data may have been destroyed.
    pub rot: bool,
    /// The disk neither destroys nor refuses anything: nobody may be told that storage failed.
    pub sound: bool,
    /// There is always room: nobody may be told that there is none.
    pub has_room: bool,
    /// Which start of the node tells what is being judged; 0 if it is none.
    pub heard_from: u64,
    /// A fault lasts now, for what is counted.
    pub fault_lasts: bool,
    /// Most conversations of a user in one lane.
    pub per_user_max: usize,
    /// How many lanes there are.
    pub lanes: u8,
    /// Their number has changed: clients are told to begin anew.
    pub relaned: bool,
    /// Requests made so far: the oracle's time.
    pub asked: u64,
    /// When what is being judged was asked for; 0 if it is not an answer.
    pub judged_at: u64,
    /// The first violation.
    pub violation: Option<String>,
}

/// An acknowledged pointer.
#[derive(Debug, Clone)]
pub struct Marking {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// The read pointer that the answer told.
    pub read: u64,
    /// The unread messages that it told.
    pub unread: u64,
    /// The last sequence that was known for sure when it was asked.
    pub durable_before: u64,
    /// The version of the user's membership, if it was certain throughout.
    pub settled: bool,
}

/// What is known of one conversation.
#[derive(Debug, Default)]
pub struct Conversation {
    /// Entries that anybody saw.
    pub entries: BTreeMap<u64, Known>,
    /// The highest sequence that anybody saw or was told of.
    pub durable: u64,
    /// The log's incarnation.
    pub epoch: Option<u32>,
    /// Whether an answer said that it was made.
    pub made: bool,
    /// Changes of messages that were asked for.
    pub changes: Vec<changes::Asked>,
    /// Sends by user and id.
    pub sends: BTreeMap<(UserId, ClientMessageId), SendRecord>,
    /// What is known of who belongs to it.
    pub membership: BTreeMap<UserId, Membership>,
    /// A direct conversation's or a group's, as first asked.
    pub founder: Option<UserId>,
    /// Made for two.
    pub direct: bool,
    /// A user's account, and all that was tried with it.
    pub account: Option<(UserId, Keys)>,
    /// It was erased before this start of the node.
    pub erased: Option<u64>,
    /// Goes up with all that may change who may do what, and with all that tells of it.
    pub rights_version: u64,
    /// Requests that may change it and have no answer.
    pub rights_under_way: u32,
}

/// An entry that somebody saw.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its archive.
    pub bytes: Rc<[u8]>,
    /// What it is.
    pub kind: EntryKind,
    /// Messages up to and with it.
    pub ordinal: u64,
    /// When it was stored.
    pub time_ms: u64,
    /// Who did it.
    pub sender: UserId,
    /// A message's own name.
    pub client_message_id: ClientMessageId,
    /// By kind.
    pub body: Rc<[u8]>,
}

/// All that was tried under one client message id.
#[derive(Debug, Default)]
pub struct SendRecord {
    /// Contents, in the order in which they were first sent.
    pub contents: Vec<Content>,
    /// What was acknowledged, and for which content.
    pub acked: Option<(Ack, Content)>,
}

/// What is known of one user's membership.
#[derive(Debug, Clone, Default)]
pub struct Membership {
    member: bool,
    as_of: u64,
    adds_under_way: u32,
    removals_under_way: u32,
    version: u64,
    /// When it last ceased to be possible.
    ceased: u64,
    /// It was changed after the conversation was made.
    pub changed: bool,
}

/// How sure the oracle is of a membership at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certainty {
    /// A member for sure, not a member for sure, or unknown.
    pub member: Option<bool>,
    version: u64,
}

/// A change of members that somebody asks for.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Who is to come.
    pub add: Vec<UserId>,
    /// Who is to go.
    pub remove: Vec<UserId>,
}

impl Model {
    /// Takes down a violation; the first one counts.
    pub fn fail(&mut self, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(text());
        }
    }

    /// Holds something to be true.
    pub fn check(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.fail(text);
        }
    }

    /// Somebody is given an entry.
    pub fn entry(&mut self, user: &UserId, bytes: &[u8]) -> Option<(ConversationId, u64)> {
        let Ok(view) = view_entry(bytes) else {
            self.fail(|| format!("{user} was given bytes that are no entry"));
            return None;
        };
        let (id, sequence) = (ConversationId(view.conversation.0), view.sequence.0.to_native());
        let epoch = view.epoch.0.to_native();
        let conversation = self.conversations.entry(id).or_default();
        let known_epoch = *conversation.epoch.get_or_insert(epoch);
        if known_epoch != epoch {
            self.fail(|| format!("{id} #{sequence}: epoch {epoch} after {known_epoch}"));
            return None;
        }
        if conversation.erased.is_some_and(|start| start <= self.heard_from) {
            self.fail(|| format!("{user} was given {id} #{sequence}, which was erased"));
            return None;
        }
        let hidden = conversation.hidden_below(self.judged_at);
        if sequence < hidden {
            self.fail(|| format!("{user} was given {id} #{sequence}, but all before #{hidden} is gone"));
            return None;
        }
        if let Ok(ChangeView::Edit { target, content: Some(_) }) = view_change(EntryKind::from(&view.kind), &view.body)
        {
            self.edits.insert((id, user.clone(), sequence, target.0));
        }
        if let Some(known) = conversation.entries.get(&sequence) {
            let same = known.bytes.as_ref() == bytes || known.is_but_for_content(view);
            let (before, now) = (describe(&known.bytes), describe(bytes));
            let wrong = conversation.wrong_content(sequence, view, self.judged_at);
            let wrong = wrong.or_else(|| self.wrong_value(id, view));
            self.check(same, || format!("{id} #{sequence} was {before} and is {now} for {user}"));
            self.check(wrong.is_none(), || format!("{id} #{sequence} as {now} for {user}: {wrong:?}"));
            return Some((id, sequence));
        }
        let known = match Known::of(view, bytes) {
            Ok(known) => known,
            Err(problem) => {
                self.fail(|| format!("{id} #{sequence} as given to {user}: {problem}"));
                return None;
            }
        };
        let now = self.asked;
        conversation.durable = conversation.durable.max(sequence);
        let (came, went) = known.members();
        for user in came {
            conversation.settle(&user, true, sequence, now);
        }
        for user in went {
            conversation.settle(&user, false, sequence, now);
        }
        let wrong = conversation.wrong_content(sequence, view, self.judged_at);
        conversation.change_seen(sequence, &known, now);
        let problem = wrong.or_else(|| conversation.accept(sequence, known)).or_else(|| self.wrong_value(id, view));
        self.check(problem.is_none(), || format!("{id} #{sequence}: {}", problem.unwrap_or_default()));
        Some((id, sequence))
    }

    fn wrong_value(&self, id: ConversationId, view: &ArchivedEntry) -> Option<String> {
        if EntryKind::from(&view.kind) != EntryKind::AccountData || self.rot {
            return None;
        }
        self.wrong_account(id, view.sequence.0.to_native(), &view.body, self.judged_at).map(str::to_owned)
    }

    /// An application sends.
    pub fn sending(&mut self, user: &UserId, id: ConversationId, name: ClientMessageId, content: &Content) {
        let record = self.conversations.entry(id).or_default().sends.entry((user.clone(), name)).or_default();
        if !record.contents.contains(content) {
            record.contents.push(content.clone());
        }
    }

    /// A send was acknowledged.
    pub fn acked(&mut self, user: &UserId, id: ConversationId, name: ClientMessageId, content: &Content, ack: &Ack) {
        self.check_not_erased(user, id, "an acknowledgement");
        let conversation = self.conversations.entry(id).or_default();
        conversation.durable = conversation.durable.max(ack.sequence.0);
        // What it said first is not known to the server once it says something else.
        let may_have_changed = conversation.may_have_changed(ack.sequence.0);
        let record = conversation.sends.entry((user.clone(), name)).or_default();
        let (sequence, ordinal) = (ack.sequence, ack.ordinal);
        match &record.acked {
            None => record.acked = Some((ack.clone(), content.clone())),
            Some((first, of)) => {
                let same = (first.sequence, first.ordinal, first.time_ms) == (ack.sequence, ack.ordinal, ack.time_ms);
                let (same_content, first) = (of == content || may_have_changed, first.clone());
                self.check(same, || format!("{id} {name} of {user} was acknowledged as {first:?} and as {ack:?}"));
                self.check(same_content, || {
                    format!("{id} {name} of {user}: two contents were acknowledged at #{sequence}")
                });
            }
        }
        self.check(ordinal.0 >= 1 && ordinal.0 <= sequence.0, || format!("{id} {name}: {ack:?}"));
    }

    /// A send was refused for good.
    pub fn send_failed(&mut self, user: &UserId, sent: &Sent, code: ErrorCode, coverage: &mut Coverage) {
        let rot = self.rot;
        let (id, name) = (sent.conversation, sent.name);
        let is_erased = self.is_erased(id);
        coverage.add(Count::ErasedTold, u64::from(is_erased && code == ErrorCode::NotFound));
        let may_be_stranger = self.settled(id, user, sent.certainty) != Some(true) || is_erased;
        let conversation = self.conversations.entry(id).or_default();
        let tried = conversation.sends.get(&(user.clone(), name)).map_or(0, |record| record.contents.len());
        match code {
            ErrorCode::Conflict => {
                coverage.one(Count::Conflicts);
                self.check(tried > 1, || format!("{id} {name} of {user}: a conflict with nothing"));
            }
            ErrorCode::NotFound => {
                coverage.one(Count::NotFound);
                self.check(may_be_stranger || rot, || format!("{id}: not found for its member {user}"));
            }
            ErrorCode::Damaged if rot => coverage.one(Count::DamageTold),
            ErrorCode::Forbidden => {
                let acked = conversation.sends.get(&(user.clone(), name)).is_some_and(|record| record.acked.is_some());
                let deed = if said(&sent.content.0).everybody { Deed::SendToAll } else { Deed::Send };
                let (may_be, is_sure) = self.may_be_forbidden(id, user, &deed, sent.moment);
                coverage.forbidden(is_sure);
                // Of an id that was destroyed nobody knows that it was stored.
                self.check(may_be && (!acked || rot), || format!("{id} {name}: {user} may send, and was refused"));
            }
            _ => {
                let may_be = self.may_refuse_content(id, user, &sent.content, code, sent.durable);
                coverage.add(Count::ContentsRefused, u64::from(may_be));
                self.check(may_be, || {
                    format!("{id} {name} of {user}: refused as {code:?}: {:?}", said(&sent.content.0))
                });
            }
        }
    }

    /// A user's membership as far as it is known.
    #[must_use]
    pub fn certainty(&self, id: ConversationId, user: &UserId) -> Certainty {
        match self.conversations.get(&id) {
            Some(conversation) => conversation.certainty(user),
            None => Certainty { member: Some(false), version: 0 },
        }
    }

    /// Whether what was certain then still is.
    #[must_use]
    pub fn settled(&self, id: ConversationId, user: &UserId, before: Certainty) -> Option<bool> {
        let now = self.certainty(id, user);
        before.member.filter(|_| now == before)
    }

    /// Somebody asks for a change of members.
    pub fn change_asked(&mut self, id: ConversationId, change: &Change) {
        let conversation = self.conversations.entry(id).or_default();
        for user in &change.add {
            let membership = conversation.membership.entry(user.clone()).or_default();
            membership.adds_under_way += 1;
            membership.version += 1;
        }
        for user in &change.remove {
            let membership = conversation.membership.entry(user.clone()).or_default();
            membership.removals_under_way += 1;
            membership.version += 1;
        }
    }

    /// It was answered: with the sequence as of which it holds, or refused (`None`).
    pub fn change_answered(&mut self, id: ConversationId, change: &Change, sequence: Option<u64>) {
        let now = self.asked;
        let conversation = self.conversations.entry(id).or_default();
        // What it was to do is settled first, so that nothing seems to end in between.
        if let Some(sequence) = sequence {
            conversation.durable = conversation.durable.max(sequence);
            // Its answer may be all that is ever seen of it. The first entry makes the conversation.
            for user in change.add.iter().chain(&change.remove).filter(|_| sequence > 1) {
                conversation.membership.entry(user.clone()).or_default().changed = true;
            }
            change.add.iter().for_each(|user| conversation.settle(user, true, sequence, now));
            change.remove.iter().for_each(|user| conversation.settle(user, false, sequence, now));
        }
        for user in &change.add {
            conversation.know(user, now, |membership| {
                membership.adds_under_way -= 1;
                membership.version += 1;
            });
        }
        for user in &change.remove {
            conversation.know(user, now, |membership| {
                membership.removals_under_way -= 1;
                membership.version += 1;
            });
        }
    }

    /// Somebody asks for something: the oracle's time of it.
    pub fn asking(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Whether a user may have had as many other conversations in this one's lane as are allowed, at some time since then.
    #[must_use]
    pub fn may_be_full(&self, id: ConversationId, user: &UserId, since: u64) -> bool {
        let others = self.of_lane(id).filter(|(other, _)| *other != id);
        others.filter(|(_, conversation)| conversation.may_have_had(user, since)).count() >= self.per_user_max
    }

    /// Holds users that joined a conversation to the limit.
    pub fn check_full(&mut self, id: ConversationId, users: &[UserId]) {
        for user in users {
            let there = |conversation: &Conversation| {
                conversation.erased.is_none()
                    && conversation.account.is_none()
                    && conversation.certainty(user).member == Some(true)
            };
            let of_user = self.of_lane(id).filter(|(_, conversation)| there(conversation));
            let (count, max) = (of_user.count(), self.per_user_max);
            // Whose rows are damaged is let in; and who has conversations of lanes that have become one may have more than fit.
            self.check(count <= max || self.rot || self.relaned, || {
                format!("{user} joined {id} and has {count} conversations of {max}")
            });
        }
    }

    fn of_lane(&self, id: ConversationId) -> impl Iterator<Item = (ConversationId, &Conversation)> {
        let placement = Placement { shards: u16::from(self.lanes), lanes: self.lanes };
        let lane = placement.lane_of(id);
        let all = self.conversations.iter().map(|(id, conversation)| (*id, conversation));
        all.filter(move |(other, _)| placement.lane_of(*other) == lane)
    }

    /// A conversation was said to be made just now.
    pub fn made(&mut self, id: ConversationId) {
        let conversation = self.conversations.entry(id).or_default();
        let twice = std::mem::replace(&mut conversation.made, true);
        self.check(!twice, || format!("{id} was made twice"));
    }

    /// Whether who tells what is being judged must know nothing of a conversation.
    #[must_use]
    pub fn is_erased(&self, id: ConversationId) -> bool {
        let erased = self.conversations.get(&id).and_then(|conversation| conversation.erased);
        erased.is_some_and(|start| start <= self.heard_from)
    }

    /// Holds what a user was told to what was erased.
    pub fn check_not_erased(&mut self, user: &UserId, id: ConversationId, what: &str) {
        let is_erased = self.is_erased(id);
        self.check(!is_erased, || format!("{user} was given {what} of {id}, which was erased"));
    }

    /// The highest sequence of a conversation that is durable for sure.
    #[must_use]
    pub fn durable(&self, id: ConversationId) -> u64 {
        self.conversations.get(&id).map_or(0, |conversation| conversation.durable)
    }
}

impl Conversation {
    fn certainty(&self, user: &UserId) -> Certainty {
        let Some(membership) = self.membership.get(user) else { return Certainty { member: Some(false), version: 0 } };
        Certainty { member: membership.certain(), version: membership.version }
    }

    /// Whether a user may have been a member at some time since then.
    pub fn may_have_had(&self, user: &UserId, since: u64) -> bool {
        let membership = self.membership.get(user);
        membership.is_some_and(|membership| membership.certain() != Some(false) || membership.ceased >= since)
    }

    fn settle(&mut self, user: &UserId, member: bool, as_of: u64, now: u64) {
        self.know(user, now, |membership| {
            if as_of < membership.as_of {
                return;
            }
            membership.as_of = as_of;
            if membership.member != member {
                membership.member = member;
                membership.version += 1;
            }
        });
    }

    /// Changes what is known of a membership, and takes down when it is not possible any more.
    fn know(&mut self, user: &UserId, now: u64, change: impl FnOnce(&mut Membership)) {
        let membership = self.membership.entry(user.clone()).or_default();
        let before = membership.certain();
        change(membership);
        if before != Some(false) && membership.certain() == Some(false) {
            membership.ceased = now;
        }
    }

    /// Takes in an entry seen for the first time; says what is wrong with it.
    fn accept(&mut self, sequence: u64, known: Known) -> Option<String> {
        let earlier = self.entries.range(..sequence).next_back();
        let problem = earlier.and_then(|(before, entry)| follows((*before, entry), (sequence, &known)));
        let later = self.entries.range(sequence + 1..).next();
        let problem = problem.or_else(|| later.and_then(|(after, entry)| follows((sequence, &known), (*after, entry))));
        let problem = problem.or_else(|| self.sent(sequence, &known));
        let problem = problem.or_else(|| self.wrong_change(&known));
        self.rights_version += u64::from(known.is_of_rights());
        if known.kind != EntryKind::Created {
            let (came, went) = known.members();
            for user in came.into_iter().chain(went) {
                self.membership.entry(user).or_default().changed = true;
            }
        }
        self.entries.insert(sequence, known);
        problem
    }

    /// What is wrong with what an entry says now, to somebody who asked at a time.
    fn wrong_content(&self, sequence: u64, view: &ArchivedEntry, at: u64) -> Option<String> {
        let kind = EntryKind::from(&view.kind);
        if kind == EntryKind::Message {
            let sender = UserId::new(&view.sender).ok()?;
            let record = self.sends.get(&(sender, ClientMessageId(view.client_message_id.0)));
            let originals = record.map_or(&[][..], |record| record.contents.as_slice());
            return self.wrong_body(sequence, &view.body, originals, at);
        }
        let Ok(ChangeView::Edit { target, content: Some(content) }) = view_change(kind, &view.body) else {
            return None;
        };
        if target.0 < self.hidden_below(at) {
            return Some(format!("#{target} is gone, which it says something of"));
        }
        self.wrong_body(target.0, content, &[], at)
    }

    /// A message is one that its sender sent, and the only one of its name.
    fn sent(&self, sequence: u64, known: &Known) -> Option<String> {
        if known.kind != EntryKind::Message {
            return None;
        }
        let name = known.client_message_id;
        let Some(record) = self.sends.get(&(known.sender.clone(), name)) else {
            return Some(format!("{} never sent {name}", known.sender));
        };
        let is_sent = record.contents.iter().any(|content| content.0 == *known.body);
        if !is_sent && !self.may_have_changed(sequence) {
            return Some(format!("{} sent {name} with another content", known.sender));
        }
        let same = |entry: &&Known| {
            entry.kind == EntryKind::Message && entry.client_message_id == name && entry.sender == known.sender
        };
        let (twice, _) = self.entries.iter().find(|(_, entry)| same(entry))?;
        Some(format!("{name} of {} stands at #{twice} and at #{sequence}", known.sender))
    }
}

impl Membership {
    /// Whether it was not changed after the conversation was made, by an entry that was seen or by a request that nobody has answered.
    #[must_use]
    pub fn is_as_it_was_made(&self) -> bool {
        !self.changed && self.adds_under_way == 0 && self.removals_under_way == 0
    }

    /// A member for sure, not a member for sure, or unknown.
    fn certain(&self) -> Option<bool> {
        match (self.member, self.adds_under_way, self.removals_under_way) {
            (true, _, 0) => Some(true),
            (false, 0, _) => Some(false),
            _ => None,
        }
    }
}

/// What is wrong with two entries, the second of which comes somewhere after the first.
fn follows((before, earlier): (u64, &Known), (after, later): (u64, &Known)) -> Option<String> {
    let between = after - before;
    let message = u64::from(later.kind == EntryKind::Message);
    let least = earlier.ordinal + message;
    let most = earlier.ordinal + between - 1 + message;
    if !(least..=most).contains(&later.ordinal) {
        return Some(format!("ordinal {} at #{before} and {} at #{after}", earlier.ordinal, later.ordinal));
    }
    (later.time_ms < earlier.time_ms)
        .then(|| format!("time {} at #{before} and {} at #{after}", earlier.time_ms, later.time_ms))
}

impl Known {
    fn of(view: &ArchivedEntry, bytes: &[u8]) -> Result<Self, String> {
        let kind = EntryKind::from(&view.kind);
        let known = Self {
            bytes: Rc::from(bytes),
            kind,
            ordinal: view.ordinal.0.to_native(),
            time_ms: view.time_ms.0.to_native(),
            sender: UserId::new(&view.sender).map_err(|error| error.to_string())?,
            client_message_id: ClientMessageId(view.client_message_id.0),
            body: Rc::from(view.body.as_slice()),
        };
        let readable = match kind {
            EntryKind::Message => known.body.is_empty() || Content(known.body.to_vec()).view().is_ok(),
            EntryKind::Title => std::str::from_utf8(&known.body).is_ok(),
            EntryKind::Created => ConversationStart::from_body(&known.body).is_ok(),
            EntryKind::Membership => MembershipChange::from_body(&known.body).is_ok(),
            EntryKind::Roles => roles_from_body(&known.body).is_ok(),
            EntryKind::Settings => Settings::from_body(&known.body).is_ok(),
            EntryKind::Bans => Bans::from_body(&known.body).is_ok(),
            EntryKind::Invite => InviteChange::from_body(&known.body).is_ok(),
            EntryKind::Joined => Joined::from_body(&known.body).is_ok(),
            EntryKind::AccountData => AccountChange::from_body(&known.body).is_ok(),
            kind => view_change(kind, &known.body).is_ok(),
        };
        if !readable || (kind == EntryKind::Created) != (view.sequence.0.to_native() == 1) {
            return Err(format!("a body of {kind:?} that is none, or in the wrong place"));
        }
        Ok(known)
    }

    /// Whether an entry is the same but for what it says, and that is of a kind of which it may be another.
    fn is_but_for_content(&self, view: &ArchivedEntry) -> bool {
        let kind = EntryKind::from(&view.kind);
        let target = |body: &[u8]| body.first_chunk::<8>().copied();
        let may_differ = match kind {
            EntryKind::Message => true,
            EntryKind::Edit => target(&view.body) == target(&self.body),
            kind => accounts::is_but_for_value(kind, &self.body, &view.body),
        };
        kind == self.kind
            && may_differ
            && view.ordinal.0.to_native() == self.ordinal
            && view.time_ms.0.to_native() == self.time_ms
            && view.sender.as_str() == self.sender.as_str()
            && view.client_message_id.0 == self.client_message_id.0
    }

    /// Who comes and who goes with it.
    #[must_use]
    pub fn members(&self) -> (Vec<UserId>, Vec<UserId>) {
        members_changed(self.kind, &self.body).map(|change| (change.added, change.removed)).unwrap_or_default()
    }

    /// Whether it changes who may do what.
    fn is_of_rights(&self) -> bool {
        use EntryKind::{Bans, Invite, Joined, Membership, Roles, Settings};
        matches!(self.kind, Membership | Roles | Settings | Bans | Invite | Joined)
    }
}

/// An entry in few words.
#[must_use]
pub fn describe(bytes: &[u8]) -> String {
    let Ok(view) = view_entry(bytes) else { return format!("{} bytes that are no entry", bytes.len()) };
    let body = String::from_utf8_lossy(&view.body[..view.body.len().min(40)]);
    format!("[{:?} by {} at {}: {body:?}]", EntryKind::from(&view.kind), view.sender, view.time_ms.0)
}
