//! What clients do: one step is perhaps a fault, and an action of some client.

use antiphon_wire::{
    frame::{
        self, BansAction, Content, Conversations, Create, CreateGroup, Data, Delivered, EntryKind, History,
        HistoryFrom, Members, MembersAction, MembersList, Mentions, Read, Request, Role, RoleOf, RolesAction,
        SendEvent, SettingsChange, Title, Who, mentions_to_bytes,
    },
    ids::{ClientMessageId, ConversationId, Sequence, TimestampMs, UserId},
};

use crate::{
    answers::{Asked, AskedKind, Range},
    clients::{Sent, user},
    contents::said,
    coverage::Count,
    dice::Dice,
    events::Event,
    model::Change,
    plan::{Fault, Plan},
    rights::Deed,
    tells::data,
    world::World,
};

/// Steps that are left, and what was made so far.
#[derive(Debug)]
pub struct Workload {
    step: u32,
    steps: u32,
    texts: u64,
    tells: u64,
    groups: Vec<Group>,
}

#[derive(Debug, Clone)]
struct Group {
    id: ConversationId,
    founder: usize,
    create: CreateGroup,
}

impl Workload {
    /// Nothing done yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { step: 0, steps: plan.steps, texts: 0, tells: 0, groups: Vec::new() }
    }
}

impl World {
    /// The next step, or the beginning of the end.
    pub fn step(&mut self) {
        if self.workload.step == self.workload.steps {
            return self.begin_quiet();
        }
        self.workload.step += 1;
        let dice = Dice::new(self.plan.seed ^ (u64::from(self.workload.step) << 40), "step");
        for fault in Fault::ALL.iter().filter(|fault| fault.is_of_a_moment()) {
            if self.plan.rate(*fault) > 0 && dice.chance(self.plan.rate(*fault)) {
                self.inject(*fault, &dice);
            }
        }
        let client = dice.index(self.clients.len());
        if self.clients[client].running {
            self.act(client, &dice);
        }
        if self.plan.invites_per_thousand > 0 {
            self.invite(self.workload.step);
        }
        if self.plan.accounts_per_thousand > 0 {
            self.keep(self.workload.step);
        }
        if self.plan.presence_per_thousand > 0 {
            self.look_around(self.workload.step);
        }
        if self.plan.devices_per_thousand > 0 {
            self.log_out(self.workload.step);
        }
        self.look_into(self.workload.step);
        if self.plan.tells_per_thousand > 0 {
            self.tell();
        }
        let next_us = self.now_us + dice.delay_us(self.plan.step_us_max);
        self.plan_at(next_us, Event::Step);
    }

    /// Sometimes somebody tells something for the moment, mostly without waiting for an answer.
    fn tell(&mut self) {
        let dice = Dice::new(self.plan.seed ^ (u64::from(self.workload.step) << 40), "tell");
        let conversations = self.model.talked_in();
        let client = dice.index(self.clients.len());
        if conversations.is_empty() || !self.clients[client].running || !dice.chance(self.plan.tells_per_thousand) {
            return;
        }
        let (id, user) = (dice.pick(&conversations), self.clients[client].user.clone());
        for _ in 0..dice.pick(&[1, 1, 3]) {
            self.workload.tells += 1;
            let (name, number) = (dice.pick(&["typing", "looking"]), self.workload.tells);
            self.model.telling(number, id, &user, name);
            let event = SendEvent { conversation: id, event: name.to_owned(), data: Some(data(number)) };
            self.ask(client, Request::Event(event), Some(id), AskedKind::Tell);
        }
        self.pump(client);
    }

    fn act(&mut self, client: usize, dice: &Dice) {
        let conversations = self.model.talked_in();
        if conversations.is_empty() || dice.chance(50) {
            return self.create(client, dice);
        }
        let id = dice.pick(&conversations);
        if dice.chance(self.plan.burst_per_thousand) {
            for _ in 0..dice.pick(&[10, 60, 250]) {
                self.send(client, id, dice);
            }
            return self.pump(client);
        }
        if self.plan.groups_per_thousand > 0 && dice.chance(self.plan.groups_per_thousand) {
            self.change_group(client, id, dice);
            return self.pump(client);
        }
        // Where users hide, lists that must not tell are of use.
        if self.plan.presence_per_thousand > 0 && dice.chance(60) {
            self.list_members(client, id);
            return self.pump(client);
        }
        match dice.below(100) {
            0..38 => self.send(client, id, dice),
            38..50 => self.change_message(client, id, dice),
            50..58 => self.send_again(client, dice),
            58..62 => self.send_other(client, dice),
            62..72 => self.history(client, id, dice),
            72..80 => self.mark(client, id, dice),
            80..88 => self.change(client, id, dice),
            88..91 => self.title(client, id, dice),
            91..94 => self.list_members(client, id),
            94..95 => {
                let client = &mut self.clients[client].app;
                client.listing.get_or_insert(None);
            }
            95..98 if self.plan.retain_per_thousand > 0 => self.ask_beside(client, id, dice),
            _ => self.clients[client].save(),
        }
        self.pump(client);
    }

    /// Asks on behalf of a client's application; nothing if the session is not connected.
    pub fn ask(
        &mut self,
        client: usize,
        request: Request,
        conversation: Option<ConversationId>,
        kind: AskedKind,
    ) -> bool {
        let now_ms = self.now_ms();
        let user = self.clients[client].user.clone();
        let Ok(id) = self.clients[client].session.request(now_ms, request) else { return false };
        self.trace.note(self.now_us, &[40, client as u64], || {
            format!("client {client} asks {id}: {kind:?} {conversation:?}")
        });
        let at = self.model.asking();
        let mut own = 0;
        if let (Some(change), Some(conversation)) = (kind.members(), conversation) {
            self.model.change_asked(conversation, change);
            if kind.deed().is_of_rights() {
                self.model.rights_asked(conversation);
                own = 1;
            }
        }
        let moment = self.model.moment(conversation.unwrap_or(ConversationId([0; 16])), own);
        let (certainty, durable) = match conversation {
            Some(conversation) => (self.model.certainty(conversation, &user), self.model.durable(conversation)),
            None => (self.model.certainty(ConversationId([0; 16]), &user), 0),
        };
        self.clients[client].app.asked.insert(id, Asked { conversation, certainty, moment, durable, at, kind });
        true
    }

    fn create(&mut self, client: usize, dice: &Dice) {
        let founder = self.clients[client].plan.user;
        let me = user(founder);
        let others: Vec<usize> = (0..self.plan.users).filter(|other| *other != founder).collect();
        if dice.chance(300) {
            let peer = user(dice.pick(&others));
            let id = ConversationId::direct(&me, &peer);
            let change = Change { add: vec![me, peer.clone()], remove: Vec::new() };
            if self.ask(client, Request::Create(Create::Direct(peer)), Some(id), AskedKind::Create(change)) {
                self.model.conversations.entry(id).or_default().direct = true;
            }
            return self.pump(client);
        }
        let again: Vec<Group> = self.workload.groups.iter().filter(|group| group.founder == founder).cloned().collect();
        let group = if !again.is_empty() && dice.chance(300) {
            again[dice.index(again.len())].clone()
        } else {
            let members = others.iter().filter(|_| dice.chance(600)).map(|other| user(*other)).collect();
            let key = ClientMessageId(number_bytes(dice));
            let create = CreateGroup { key, title: format!("group {}", self.workload.groups.len()), members };
            Group { id: ConversationId::group(&me, key), founder, create }
        };
        let mut add = group.create.members.clone();
        add.push(me.clone());
        let change = Change { add, remove: Vec::new() };
        let request = Request::Create(Create::Group(group.create.clone()));
        if self.ask(client, request, Some(group.id), AskedKind::Create(change)) {
            self.model.conversations.entry(group.id).or_default().founder = Some(me);
            if !self.workload.groups.iter().any(|other| other.id == group.id) {
                self.workload.groups.push(group);
            }
        }
        self.pump(client);
    }

    fn send(&mut self, client: usize, conversation: ConversationId, dice: &Dice) {
        let name = self.message_name(dice);
        let content = self.content(client, conversation, dice);
        let certainty = self.model.certainty(conversation, &self.clients[client].user);
        let (moment, durable) = (self.model.moment(conversation, 0), self.model.durable(conversation));
        self.put(client, Sent { conversation, name, content, certainty, moment, durable });
    }

    /// Half of the ids say when they were made, by a clock that is right.
    fn message_name(&self, dice: &Dice) -> ClientMessageId {
        let bytes = number_bytes(dice);
        if bytes[15].is_multiple_of(2) {
            return ClientMessageId::timed(TimestampMs(self.true_clock_ms()), u128::from_le_bytes(bytes));
        }
        untimed(bytes)
    }

    /// A text that nobody else sends, and in some runs what can stand beside it.
    fn content(&mut self, client: usize, conversation: ConversationId, dice: &Dice) -> Content {
        let text = self.text(client, dice);
        if self.plan.contents_per_thousand == 0 || !dice.chance(self.plan.contents_per_thousand) {
            return text;
        }
        let durable = self.model.durable(conversation);
        // Threads are few, so that they have replies.
        let root = Some(Sequence(2 + dice.below(durable.min(5) + 1)));
        let near = Some(Sequence(1 + dice.below(durable + 2)));
        let mentions = mentions_to_bytes(&[user(dice.index(self.plan.users)), user(dice.index(self.plan.users))]);
        let json = format!("{{\"number\":{}}}", self.workload.texts);
        let mut view = said(&text.0);
        match dice.below(10) {
            0..5 => view.thread = root,
            5 => (view.thread, view.reply_to) = (root, near),
            6 => view.reply_to = near,
            7 => view.everybody = true,
            8 => view.data = Some(Data { content_type: "application/json", bytes: json.as_bytes() }),
            _ => view.mentions = Mentions::new(&mentions),
        }
        view.to_content()
    }

    /// A text that nobody else sends, with what is awkward in JSON.
    fn text(&mut self, client: usize, dice: &Dice) -> Content {
        self.workload.texts += 1;
        let mut text = format!("{} {}", self.clients[client].user, self.workload.texts);
        let length = dice.below(self.plan.text_bytes_max) as usize;
        while text.len() < length {
            match dice.below(40) {
                0 => text.push_str(" \"quoted\\\" \n"),
                1 => text.push_str("wörter 漢字 🦀"),
                number => text.push_str(&"abcdefghijklmnopqrstuvwxyz".repeat(1 + number as usize / 10)),
            }
        }
        Content::text(&text)
    }

    /// Sends a message again that was answered.
    fn send_again(&mut self, client: usize, dice: &Dice) {
        let sent = &self.clients[client].app.sent;
        if sent.is_empty() {
            return;
        }
        let sent = sent[dice.index(sent.len())].clone();
        self.put(client, sent);
    }

    /// Sends another content under a name that was used.
    fn send_other(&mut self, client: usize, dice: &Dice) {
        let sent = &self.clients[client].app.sent;
        if sent.is_empty() {
            return;
        }
        let sent = sent[dice.index(sent.len())].clone();
        let content = self.text(client, dice);
        self.put(client, Sent { content, ..sent });
    }

    fn put(&mut self, client: usize, mut sent: Sent) {
        let now_ms = self.now_ms();
        sent.certainty = self.model.certainty(sent.conversation, &self.clients[client].user);
        sent.moment = self.model.moment(sent.conversation, 0);
        sent.durable = self.model.durable(sent.conversation);
        let of = &mut self.clients[client];
        if of.app.outbox.iter().any(|other| other.name == sent.name) {
            return;
        }
        if of.session.send(now_ms, sent.conversation, sent.content.clone(), sent.name).is_ok() {
            self.coverage.one(Count::Sends);
            self.trace.note(self.now_us, &[41, client as u64], || {
                format!("client {client} sends {} to {}", sent.name, sent.conversation)
            });
            self.model.sending(&of.user.clone(), sent.conversation, sent.name, &sent.content);
            of.app.outbox.push(sent);
        }
    }

    fn history(&mut self, client: usize, conversation: ConversationId, dice: &Dice) {
        let near = dice.below(self.model.durable(conversation) + 3);
        let range = match dice.below(4) {
            0 => Range::Latest,
            1 => Range::Before(near + 1),
            2 => Range::After(near),
            _ => Range::Around(near),
        };
        let limit = dice.pick(&[1, 3, 20, 200]);
        let request = history_request(conversation, range, limit);
        self.ask(client, request, Some(conversation), AskedKind::History(range, limit));
    }

    fn list_members(&mut self, client: usize, id: ConversationId) {
        let list = MembersList { after: None, limit: Some(3) };
        let request = Request::Members(Members { conversation: id, action: MembersAction::List(list) });
        self.ask(client, request, Some(id), AskedKind::Members);
    }

    fn mark(&mut self, client: usize, conversation: ConversationId, dice: &Dice) {
        let Some(view) = self.clients[client].app.views.get(&conversation) else { return };
        let beyond = if dice.chance(50) { dice.below(5) } else { 0 };
        let to = dice.below(view.last + 1) + beyond;
        let sequence = Sequence(to);
        let request = match dice.chance(500) {
            true => Request::Read(Read { conversation, sequence }),
            false => Request::Delivered(Delivered { conversation, sequence }),
        };
        self.ask(client, request, Some(conversation), AskedKind::Mark(to));
    }

    fn change(&mut self, client: usize, conversation: ConversationId, dice: &Dice) {
        let removal = dice.chance(self.plan.removal_per_thousand);
        // Of most groups only admins remove.
        let conversation = if removal { self.own_or(client, conversation, dice) } else { conversation };
        let founder = self.model.conversations[&conversation].founder.clone();
        let stays = |user: &UserId| removal && self.plan.founders_stay && founder.as_ref() == Some(user);
        let count = 1 + dice.index(2);
        let mut users: Vec<UserId> = (0..count).map(|_| user(dice.index(self.plan.users))).collect();
        users.retain(|user| !stays(user));
        users.sort();
        users.dedup();
        if users.is_empty() {
            return;
        }
        let (change, action) = match removal {
            true => (Change { add: Vec::new(), remove: users.clone() }, MembersAction::Remove(users)),
            false => (Change { add: users.clone(), remove: Vec::new() }, MembersAction::Add(users)),
        };
        let request = Request::Members(Members { conversation, action });
        self.ask(client, request, Some(conversation), AskedKind::Change(change));
    }

    /// Changes a message that the application has seen, or tries a change again that it has asked for.
    fn change_message(&mut self, client: usize, conversation: ConversationId, dice: &Dice) {
        let retains = self.plan.retain_per_thousand;
        if retains > 0 && dice.chance(retains) {
            return self.retain(client, conversation, dice);
        }
        let again = &self.clients[client].app.changes;
        if !again.is_empty() && dice.chance(200) {
            let (id, name, mut change) = again[dice.index(again.len())].clone();
            if dice.chance(100) {
                change = frame::Change::React { target: Sequence(2), text: "other".to_owned(), on: true };
            }
            return self.ask_change(client, id, name, change);
        }
        let last = self.model.durable(conversation) + 1;
        // Mostly one of the last messages, and of those to be edited one's own: many others are refused.
        let kind = dice.below(10);
        let me = &self.clients[client].user;
        let known =
            self.model.conversations.get(&conversation).into_iter().flat_map(|known| known.entries.iter().rev());
        let messages = known.filter(|(_, entry)| entry.kind == EntryKind::Message && (kind > 3 || entry.sender == *me));
        let messages: Vec<u64> = messages.map(|(place, _)| *place).take(6).collect();
        let target =
            Sequence(if dice.chance(700) { last.saturating_sub(dice.below(8)).max(1) } else { 1 + dice.below(last) });
        let on = dice.chance(700);
        let target = if messages.is_empty() || dice.chance(100) { target } else { Sequence(dice.pick(&messages)) };
        let change = match kind {
            0..3 => frame::Change::Edit { target, content: self.text(client, dice) },
            3 => frame::Change::Delete { target },
            4..8 => frame::Change::React { target, text: dice.pick(&["👍", "ok", "no"]).to_owned(), on },
            _ => frame::Change::Pin { target, on },
        };
        self.ask_change(client, conversation, self.message_name(dice), change);
    }

    /// Asks what is pinned, or who reacted to some message.
    fn ask_beside(&mut self, client: usize, conversation: ConversationId, dice: &Dice) {
        if dice.chance(500) {
            let request = Request::Pins(frame::Pins { conversation });
            self.ask(client, request, Some(conversation), AskedKind::Pins);
            return;
        }
        let target = 1 + dice.below(self.model.durable(conversation) + 2);
        let request = frame::Reactions { conversation, target: Sequence(target), after: None, limit: None };
        self.ask(client, Request::Reactions(request), Some(conversation), AskedKind::Reactions(target));
    }

    /// A group that the client's user made, mostly; or else that one.
    pub fn own_or(&self, client: usize, conversation: ConversationId, dice: &Dice) -> ConversationId {
        let me = &self.clients[client].user;
        let own = self.model.conversations.iter().filter(|(_, known)| known.founder.as_ref() == Some(me));
        let own: Vec<ConversationId> = own.map(|(id, _)| *id).collect();
        if own.is_empty() || dice.chance(100) { conversation } else { dice.pick(&own) }
    }

    /// Changes a group's roles, settings or bans, mostly of one's own, or asks for them.
    fn change_group(&mut self, client: usize, conversation: ConversationId, dice: &Dice) {
        let conversation = if dice.chance(850) { self.own_or(client, conversation, dice) } else { conversation };
        let some = |dice: &Dice| {
            let mut users: Vec<UserId> = (0..1 + dice.index(2)).map(|_| user(dice.index(self.plan.users))).collect();
            users.sort();
            users.dedup();
            users
        };
        let page = || frame::UsersPage { after: None, limit: Some(2) };
        let mut members = Change::default();
        let (request, deed) = match dice.below(10) {
            0..4 => {
                let role =
                    || dice.pick(&[Role::Owner, Role::Admin, Role::Admin, Role::Member, Role::Reader, Role::Reader]);
                let roles: Vec<RoleOf> = some(dice).into_iter().map(|user| RoleOf { user, role: role() }).collect();
                let action = RolesAction::Set(roles.clone());
                (Request::Roles(frame::Roles { conversation, action }), Deed::Roles(roles))
            }
            4..7 => {
                let set = settings_change(dice, self.plan.contents_per_thousand > 0);
                (Request::Settings(frame::AskSettings { conversation, set: Some(set.clone()) }), Deed::Settings(set))
            }
            7..9 => {
                let (mut users, on) = (some(dice), dice.chance(600));
                let founder = self.model.conversations[&conversation].founder.as_ref();
                users.retain(|user| !(on && self.plan.founders_stay && founder == Some(user)));
                if users.is_empty() {
                    return;
                }
                if on {
                    members.remove.clone_from(&users);
                }
                let action = if on { BansAction::Add(users) } else { BansAction::Remove(users) };
                (Request::Bans(frame::AskBans { conversation, action: action.clone() }), Deed::Bans(action))
            }
            _ => {
                let (request, deed) = match dice.below(3) {
                    0 => (Request::Roles(frame::Roles { conversation, action: RolesAction::List(page()) }), Deed::See),
                    1 => (Request::Settings(frame::AskSettings { conversation, set: None }), Deed::See),
                    _ => {
                        let action = BansAction::List(page());
                        (Request::Bans(frame::AskBans { conversation, action: action.clone() }), Deed::Bans(action))
                    }
                };
                self.ask(client, request, Some(conversation), AskedKind::GroupPage(deed));
                return;
            }
        };
        self.ask(client, request, Some(conversation), AskedKind::Group(deed, members));
    }

    /// Asks for a retention mark, mostly where its user may, and mostly of what came before the last few entries.
    fn retain(&mut self, client: usize, conversation: ConversationId, dice: &Dice) {
        let conversation = self.own_or(client, conversation, dice);
        let next = self.model.durable(conversation) + 1;
        let before = match dice.below(10) {
            0 => next + dice.below(3),
            1..4 => 1 + dice.below(next),
            _ => next.saturating_sub(dice.below(12)).max(1),
        };
        let change = frame::Change::Retain { before: Sequence(before) };
        self.ask_change(client, conversation, untimed(number_bytes(dice)), change);
    }

    fn ask_change(
        &mut self,
        client: usize,
        conversation: ConversationId,
        client_message_id: ClientMessageId,
        change: frame::Change,
    ) {
        let request = match change.clone() {
            frame::Change::Edit { target, content } => {
                Request::Edit(frame::Edit { conversation, client_message_id, target, content })
            }
            frame::Change::Delete { target } => {
                Request::Delete(frame::Delete { conversation, client_message_id, target })
            }
            frame::Change::React { target, text: reaction, on } => {
                Request::React(frame::React { conversation, client_message_id, target, reaction, on })
            }
            frame::Change::Pin { target, on } => {
                Request::Pin(frame::Pin { conversation, client_message_id, target, on })
            }
            frame::Change::Retain { before } => {
                Request::Retain(frame::Retain { conversation, client_message_id, before })
            }
        };
        let user = self.clients[client].user.clone();
        let kind = AskedKind::Message(client_message_id, change.clone());
        if self.ask(client, request, Some(conversation), kind) {
            self.model.message_change_asked(conversation, &user, client_message_id, &change);
            let again = &mut self.clients[client].app.changes;
            again.push((conversation, client_message_id, change));
        }
    }

    fn title(&mut self, client: usize, conversation: ConversationId, dice: &Dice) {
        let title = format!("title {}", dice.below(3));
        self.ask(client, Request::Title(Title { conversation, title }), Some(conversation), AskedKind::Title);
    }

    /// Lists conversations when the application has to know them and can ask. True if it asked.
    pub fn list_if_due(&mut self, client: usize) -> bool {
        let of = &mut self.clients[client];
        if of.app.listing_under_way || of.session.phase() != antiphon_wire::session::Phase::Open {
            return false;
        }
        let Some(after) = of.app.listing else { return false };
        if std::mem::take(&mut of.app.listing_refused) {
            of.app.listing_from_us = self.now_us + 1_000_000;
        }
        if self.now_us < of.app.listing_from_us {
            let at_us = of.app.listing_from_us;
            self.look_at_client(client, at_us);
            return false;
        }
        let request = Request::Conversations(Conversations { after, limit: Some(3) });
        let asked = self.ask(client, request, None, AskedKind::List);
        self.clients[client].app.listing_under_way = asked;
        asked
    }
}

/// A request for a page of history.
#[must_use]
pub fn history_request(conversation: ConversationId, range: Range, limit: u32) -> Request {
    let (mut before, mut after, mut around) = (None, None, None);
    match range {
        Range::Latest => {}
        Range::Before(sequence) => before = Some(Sequence(sequence)),
        Range::After(sequence) => after = Some(Sequence(sequence)),
        Range::Around(sequence) => around = Some(Sequence(sequence)),
    }
    Request::History(History { conversation, before, after, around, limit: Some(limit) })
}

/// One or two settings that are to be others.
fn settings_change(dice: &Dice, with_everybody: bool) -> SettingsChange {
    let mut set = SettingsChange::default();
    for _ in 0..1 + dice.index(2) {
        let who = || Some(dice.pick(&[Who::Members, Who::Members, Who::Admins]));
        match dice.below(8 + u64::from(with_everybody)) {
            0 => set.description = Some(format!("about {}", dice.below(3))),
            1 => set.picture = Some(format!("picture {}", dice.below(3))),
            2 => set.history = Some(dice.pick(&[HistoryFrom::Joining, HistoryFrom::Start])),
            3 => set.send = who(),
            4 => set.add = who(),
            5 => set.remove = who(),
            6 => set.info = who(),
            7 => set.pin = who(),
            _ => set.everybody = who(),
        }
    }
    set
}

/// An id of version 4 with these bits, which says nothing of when it was made.
fn untimed(mut bytes: [u8; 16]) -> ClientMessageId {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    ClientMessageId(bytes)
}

fn number_bytes(dice: &Dice) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&dice.number().to_le_bytes());
    bytes[8..].copy_from_slice(&dice.number().to_le_bytes());
    bytes
}
