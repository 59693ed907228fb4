//! The end of a run: faults stop, everything that is under way comes to its end, then every user reads everything that it may see; in
//! half of the runs the power fails after that, and everything is read once more.

use std::collections::{BTreeMap, VecDeque};

use antiphon_wire::{
    codes::ErrorCode,
    frame::{
        Account, AccountAction, AccountPage, Conversations, Member, Members, MembersAction, MembersList, MessageState,
        Request, ServerFrame, Summary,
    },
    ids::{ConversationId, UserId},
    limits::PAGE_ITEMS_MAX,
};

use crate::{
    accounts::{Items, items_of},
    answers::{Asked, AskedKind, AuditPage, Range},
    coverage::Count,
    disk::LaneDisk,
    events::Event,
    model::{Conversation, Model},
    plan::Plan,
    verdict,
    workload::history_request,
    world::World,
};

/// Virtual time after which whatever is not quiet never will be.
const QUIET_US_MAX: u64 = 1_800_000_000;

/// Where data was destroyed, not everything comes to its end: this is how long it may try.
const QUIET_WITH_ROT_US: u64 = 100_000_000;

/// What is on its way when all is answered arrives within this time.
const AFTERMATH_US: u64 = 6_000_000;

/// Whoever was given an entry so shortly before is still reading what it missed, a page at a time.
const READING_ON_US: u64 = 2_000_000;

/// How often a quiet that is not there yet is looked for.
const LOOK_US: u64 = 200_000;

/// How often readings are looked at.
const READ_US: u64 = 5_000;

/// Entries in a page of the last reading.
const PAGE_ITEMS: u32 = 60;

/// How far the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Working,
    /// Since when.
    Settling(u64),
    /// Everything was quiet; what is on its way may arrive until then.
    Aftermath(u64),
    /// Since when.
    Reading(u64),
    Over,
}

/// The end of a run.
#[derive(Debug)]
pub struct Finish {
    stage: Stage,
    crashes_left: u32,
    readers: Vec<Reader>,
    /// Everybody looks at everything.
    looked: bool,
    /// When some client was last given an entry.
    entry_us: u64,
}

/// One user's last reading.
#[derive(Debug)]
struct Reader {
    client: usize,
    user: UserId,
    todo: VecDeque<(Option<ConversationId>, AuditPage)>,
    under_way: bool,
    not_before_us: u64,
    reading: Reading,
}

/// What one user could read at the end.
#[derive(Debug, Default)]
pub struct Reading {
    /// Its list.
    pub summaries: BTreeMap<ConversationId, Summary>,
    /// Members of a conversation, or why not.
    pub members: BTreeMap<ConversationId, Result<Vec<Member>, ErrorCode>>,
    /// Entries of a conversation, or why not.
    pub logs: BTreeMap<ConversationId, Result<Log, ErrorCode>>,
    /// What is set in its account, or why that was not told.
    pub account: Option<Result<Items, ErrorCode>>,
    /// What messages say.
    pub bodies: BTreeMap<(ConversationId, u64), Vec<u8>>,
    /// What became of messages.
    pub states: BTreeMap<(ConversationId, u64), MessageState>,
}

/// A conversation as one user read it.
#[derive(Debug, Default, Clone)]
pub struct Log {
    /// The first visible sequence, as the server told.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The sequences that were read, in order.
    pub places: Vec<u64>,
    /// Why it was not read to the end.
    pub broken: Option<ErrorCode>,
}

impl Finish {
    /// A run that has not come to its end.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            stage: Stage::Working,
            crashes_left: u32::from(plan.crash_at_end),
            readers: Vec::new(),
            looked: false,
            entry_us: 0,
        }
    }

    /// Some client was given an entry.
    pub fn saw_entry(&mut self, now_us: u64) {
        self.entry_us = now_us;
    }

    /// Whether it has.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }
}

impl World {
    /// No more actions and faults.
    pub fn begin_quiet(&mut self) {
        self.trace.note(self.now_us, &[50], || "quiet begins".to_owned());
        self.crash_waits = None;
        self.end_lasting();
        // A lane that met an error stores nothing any more: that is what a restart is for.
        if self.plan.has_disk_errors() || self.model.rot {
            self.node_dies(self.fault_dice.chance(500));
            self.plan_start(1_000);
        }
        if self.plan.has_misreads() {
            self.forgive_misreads();
        }
        self.settle();
    }

    /// Reads that went astray destroyed nothing: from now on, after a restart, for clients that know nothing yet, all must be as if they had
    /// never been.
    fn forgive_misreads(&mut self) {
        self.model.rot = false;
        self.model.skips.clear();
        let dice = self.network_dice.clone();
        (0..self.clients.len()).for_each(|index| self.client_process_restarts(index, None, &dice));
    }

    fn settle(&mut self) {
        let now_ms = self.now_ms();
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            client.wanted = !client.plan.twin;
            match client.wanted {
                true if client.running => client.session.start(now_ms),
                true => {}
                false => client.session.stop(),
            }
            self.pump(index);
        }
        // Somebody may be there again who was not when everybody looked.
        self.finish.looked = false;
        self.finish.stage = Stage::Settling(self.now_us);
        self.plan_at(self.now_us + LOOK_US, Event::Finish);
    }

    /// Looks how far the end is.
    pub fn finish_look(&mut self) {
        // On a slow network, what was pushed may take longer to arrive than the aftermath lasts.
        let heard = |link: usize| self.links[link].down_at_us <= self.now_us;
        let at_rest =
            |client: &crate::clients::Client| !client.wanted || (client.is_quiet() && client.link.is_some_and(heard));
        // What a client that forgot it had sent may still wait for the disk.
        let idle = self.disks.iter().all(LaneDisk::is_idle);
        let quiet = idle && self.all_live() && self.clients.iter().all(at_rest);
        match self.finish.stage {
            Stage::Working | Stage::Over => return,
            Stage::Settling(since_us) => {
                let patience_us = if self.model.rot { QUIET_WITH_ROT_US } else { QUIET_US_MAX };
                let tired = self.now_us > since_us + patience_us;
                if quiet || (tired && self.model.rot) {
                    self.finish.stage = Stage::Aftermath(self.now_us + AFTERMATH_US);
                } else if tired {
                    let who = self.restless();
                    self.model.fail(|| format!("no quiet after {} s: {who}", patience_us / 1_000_000));
                }
                return self.plan_at(self.now_us + LOOK_US, Event::Finish);
            }
            Stage::Aftermath(until_us) => {
                if self.now_us < until_us {
                    return self.plan_at(self.now_us + LOOK_US, Event::Finish);
                }
                if self.now_us < self.finish.entry_us + READING_ON_US {
                    self.finish.stage = Stage::Aftermath(self.now_us + AFTERMATH_US);
                    return self.plan_at(self.now_us + LOOK_US, Event::Finish);
                }
                if !quiet && !self.model.rot {
                    self.finish.stage = Stage::Settling(self.now_us);
                    return self.plan_at(self.now_us + LOOK_US, Event::Finish);
                }
                if !std::mem::replace(&mut self.finish.looked, true) {
                    self.check_views(false);
                    self.look_into_everything();
                    self.finish.stage = Stage::Aftermath(self.now_us + AFTERMATH_US);
                    return self.plan_at(self.now_us + LOOK_US, Event::Finish);
                }
                self.begin_reading();
            }
            Stage::Reading(since_us) => self.read_on(since_us),
        }
        if !self.finish.is_over() {
            self.plan_at(self.now_us + READ_US, Event::Finish);
        }
    }

    /// Who keeps the run from its end, and with what.
    fn restless(&self) -> String {
        let node = self.node.as_ref().map(|node| (node.phase, node.is_fenced()));
        let client = |(index, client): (usize, &crate::clients::Client)| {
            let app = &client.app;
            let (outbox, asked) = (app.outbox.len(), app.asked.len());
            format!(
                "; client {index}: {:?}, {outbox} sends, {asked} requests, list {:?}",
                client.session.phase(),
                app.listing
            )
        };
        let restless = self.clients.iter().enumerate().filter(|(_, client)| client.wanted);
        format!("node {node:?}{}", restless.map(client).collect::<String>())
    }

    fn begin_reading(&mut self) {
        self.trace.note(self.now_us, &[51], || "everybody reads everything".to_owned());
        self.check_views(true);
        let mut readers: Vec<Reader> = Vec::new();
        for (client, of) in self.clients.iter_mut().enumerate() {
            of.app.told.clear();
            if of.wanted && !readers.iter().any(|reader| reader.user == of.user) {
                let mut todo = VecDeque::from([(None, AuditPage::List(None))]);
                for (id, conversation) in &self.model.conversations {
                    match &conversation.account {
                        None => todo.push_back((Some(*id), AuditPage::Members(None))),
                        Some((user, _)) if *user == of.user => todo.push_back((Some(*id), AuditPage::Account)),
                        Some(_) => {}
                    }
                    todo.push_back((Some(*id), AuditPage::History(0)));
                }
                let (user, reading) = (of.user.clone(), Reading::default());
                readers.push(Reader { client, user, todo, under_way: false, not_before_us: 0, reading });
            }
        }
        self.finish.readers = readers;
        self.finish.stage = Stage::Reading(self.now_us);
        self.look_at_everybody();
    }

    /// Every online member has everything, and nothing was left to history; unless it was to be left there, and has not been looked at.
    fn check_views(&mut self, looked: bool) {
        if self.model.rot {
            return;
        }
        let there = |(id, of): (&ConversationId, &Conversation)| of.erased.is_none().then_some(*id);
        let ids: Vec<ConversationId> = self.model.conversations.iter().filter_map(there).collect();
        for client in self.clients.iter().filter(|client| client.wanted) {
            for id in ids.iter().copied() {
                let (durable, member) = (self.model.durable(id), self.model.certainty(id, &client.user).member);
                let has = client.app.views.get(&id).filter(|view| view.open).map(|view| view.last);
                let user = &client.user;
                // An account is in no list: who begins anew hears of it by what comes.
                let is_followed = self.model.conversations[&id].account.is_none() || has.is_some();
                if member == Some(true) && is_followed {
                    let knows = has == Some(durable) || (!looked && client.has_heard_of(id, durable));
                    self.model.check(knows, || format!("{user} has {id} up to {has:?}, not to #{durable}"));
                }
            }
        }
    }

    fn read_on(&mut self, since_us: u64) {
        let mut readers = std::mem::take(&mut self.finish.readers);
        for reader in &mut readers {
            self.take_pages(reader);
            self.ask_page(reader);
        }
        // Who has come or gone is told a while later.
        let is_told = self.plan.presence_per_thousand == 0 || self.now_us > since_us + AFTERMATH_US;
        let done = is_told && readers.iter().all(|reader| reader.todo.is_empty() && !reader.under_way);
        self.finish.readers = readers;
        let tired = self.now_us > since_us + if self.model.rot { QUIET_WITH_ROT_US } else { QUIET_US_MAX };
        if tired && !self.model.rot {
            let who = self.restless();
            self.model.fail(|| format!("the last reading does not end: {who}"));
        }
        if !done && !tired {
            return;
        }
        let readings: Vec<(UserId, Reading)> =
            self.finish.readers.drain(..).map(|reader| (reader.user, reader.reading)).collect();
        if done {
            self.check_presence();
            self.check_logins();
            verdict::judge(&mut self.model, &readings, &mut self.coverage);
        }
        if self.finish.crashes_left > 0 && self.model.violation.is_none() {
            self.finish.crashes_left -= 1;
            self.coverage.one(Count::Crashes);
            self.node_dies(true);
            self.plan_start(1_000);
            self.settle();
            return;
        }
        self.finish.stage = Stage::Over;
    }

    fn ask_page(&mut self, reader: &mut Reader) {
        if reader.under_way || self.now_us < reader.not_before_us {
            return;
        }
        let Some((conversation, page)) = reader.todo.front().cloned() else { return };
        let request = match (&page, conversation) {
            (AuditPage::Members(after), Some(conversation)) => {
                let list = MembersList { after: after.clone(), limit: Some(2) };
                Request::Members(Members { conversation, action: MembersAction::List(list) })
            }
            (AuditPage::History(after), Some(conversation)) => {
                history_request(conversation, Range::After(*after), PAGE_ITEMS)
            }
            (AuditPage::Account, _) => {
                let list = AccountPage { after: None, limit: Some(PAGE_ITEMS_MAX) };
                Request::Account(Account { action: AccountAction::List(list) })
            }
            (AuditPage::List(after), _) => Request::Conversations(Conversations { after: *after, limit: Some(4) }),
            _ => unreachable!("members and history are of a conversation"),
        };
        reader.under_way = self.ask(reader.client, request, conversation, AskedKind::Audit(page));
        self.pump(reader.client);
    }

    fn take_pages(&mut self, reader: &mut Reader) {
        let pages = std::mem::take(&mut self.clients[reader.client].app.audit);
        for (asked, answer) in pages {
            reader.under_way = false;
            match answer {
                Err(code) if code.temporary() && !self.model.rot => reader.not_before_us = self.now_us + 300_000,
                Err(code) if code.temporary() && matches!(code, ErrorCode::RateLimited | ErrorCode::Overloaded) => {
                    reader.not_before_us = self.now_us + 300_000;
                }
                answer => {
                    reader.todo.pop_front();
                    self.model.judged_at = asked.at;
                    reader.reading.states.extend(std::mem::take(&mut self.clients[reader.client].app.told));
                    reader.take(asked, answer, &mut self.model);
                    self.model.judged_at = 0;
                }
            }
        }
        // An answer that went with its connection is asked for again.
        if reader.under_way && self.clients[reader.client].app.asked.is_empty() {
            reader.under_way = false;
        }
    }
}

impl Reader {
    fn take(&mut self, asked: Asked, answer: Result<ServerFrame, ErrorCode>, model: &mut Model) {
        let AskedKind::Audit(page) = asked.kind else { return };
        let id = asked.conversation;
        match (page, answer) {
            (AuditPage::List(_), Ok(ServerFrame::ConversationsAnswer(answer))) => {
                for summary in answer.conversations {
                    if let Some(last) = &summary.last {
                        model.entry(&self.user, &last.0);
                    }
                    self.reading.summaries.insert(summary.conversation, summary);
                }
                if let Some(next) = answer.next {
                    self.todo.push_front((None, AuditPage::List(Some(next))));
                }
            }
            (AuditPage::List(_), Err(_)) => {}
            (AuditPage::Account, Ok(ServerFrame::AccountAnswer(answer))) => {
                let items = items_of(&answer);
                model.account_listed(&self.user, &items, asked.at);
                self.reading.account = Some(Ok(items));
            }
            (AuditPage::Account, Err(code)) => self.reading.account = Some(Err(code)),
            (AuditPage::Members(_), answer) => {
                let Some(id) = id else { return };
                match answer {
                    Err(code) => {
                        self.reading.members.insert(id, Err(code));
                    }
                    Ok(ServerFrame::MembersAnswer(answer)) => {
                        let known = self.reading.members.entry(id).or_insert_with(|| Ok(Vec::new()));
                        if let (Ok(known), Some(members)) = (known, answer.members) {
                            known.extend(members);
                        }
                        if let Some(next) = answer.next {
                            self.todo.push_front((Some(id), AuditPage::Members(Some(next))));
                        }
                    }
                    Ok(other) => model.fail(|| format!("members answered with {other:?}")),
                }
            }
            (AuditPage::History(after), answer) => {
                let Some(id) = id else { return };
                self.take_history(id, after, answer, model);
            }
            (page, answer) => model.fail(|| format!("{page:?} answered with {answer:?}")),
        }
    }

    fn take_history(
        &mut self,
        id: ConversationId,
        after: u64,
        answer: Result<ServerFrame, ErrorCode>,
        model: &mut Model,
    ) {
        let page = match answer {
            Ok(ServerFrame::HistoryAnswer(page)) => page,
            Ok(other) => return model.fail(|| format!("history answered with {other:?}")),
            Err(code) => {
                match self.reading.logs.get_mut(&id) {
                    Some(Ok(log)) => log.broken = Some(code),
                    _ => {
                        self.reading.logs.insert(id, Err(code));
                    }
                }
                return;
            }
        };
        let log = self.reading.logs.entry(id).or_insert_with(|| Ok(Log::default()));
        let Ok(log) = log else { return };
        (log.first, log.last) = (page.first.0, page.last.0);
        for entry in &page.entries {
            if let Some((_, place)) = model.entry(&self.user, &entry.0) {
                let fits = log.places.last().map_or(place == log.first, |last| place == last + 1);
                model.check(fits, || format!("{}: {id} #{place} after {:?}", self.user, log.places.last()));
                log.places.push(place);
                let body = entry.view().map(|view| view.body.to_vec()).unwrap_or_default();
                self.reading.bodies.insert((id, place), body);
            }
        }
        let last = log.places.last().copied().unwrap_or(after);
        model.check(!page.entries.is_empty() || last >= page.last.0, || {
            format!("{}: nothing of {id} after #{after}", self.user)
        });
        if last < page.last.0 && !page.entries.is_empty() {
            self.todo.push_front((Some(id), AuditPage::History(last)));
        }
    }
}
