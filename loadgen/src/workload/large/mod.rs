//! The members of the large group that a thread has: some look at it and are given every entry, the others are told by hints how far it is.
//!
//! A thread has either chat or members of this group, so that what a burst costs the generator is in no latency of the chat. Entries are checked by a
//! [`Checker`] of their own, in which those who are given all are the members; acknowledgements, which may come to another thread, it learns
//! from the [`board`]. A connection that was lost comes back without a position: what it has missed it pages, if it looks.

pub mod board;
mod fill;
pub(super) mod hearing;
pub mod plan;

use std::{collections::VecDeque, sync::Arc};

use antiphon_wire::{
    frame::{Ack, Advanced, EntryBytes, History, HistoryAnswer, Request, ServerFrame, View},
    ids::{ConversationId, RequestId, Sequence},
    limits::PAGE_ITEMS_MAX,
};

use self::{
    fill::Fill,
    hearing::{Heard, Hearing},
    plan::LargePlan,
};
use super::{
    control::Phase,
    pending::Message,
    plan::{Plan, Role, Share},
    worker::{Worker, request},
};
use crate::{
    checker::{Checker, Identity, Path, Verdict, Violations},
    clock::Nanoseconds,
    driver::Links,
    law::{Law, Sampler},
    layout::{Layer, Layout},
    measure::record,
    random::Random,
};

/// Requests to open the group between two looks at what has come.
const VIEWS_PER_TICK_MAX: usize = 64;

/// What a thread keeps of its members.
#[derive(Debug)]
pub(super) struct LargeMembers {
    fill: Fill,
    hearing: Hearing,
    /// `None` if nobody here is given every entry.
    checker: Option<Checker>,
    to_view: VecDeque<u32>,
    /// Who has opened the group at least once, by place.
    opened: Vec<bool>,
    /// The next message of all threads' whose time comes.
    next: u32,
    /// Messages whose time has come, and of which no acknowledgement was seen.
    unseen: Vec<u32>,
    /// Hints that came before it was known what they tell of: the first sequence, and when.
    unresolved: Vec<(u64, Nanoseconds)>,
    /// The burst whose end is looked at next.
    burst: u32,
    violations: Violations,
}

impl LargeMembers {
    /// `None` if the thread has no members of the group.
    pub(super) fn of(plan: &Plan, share: Share) -> Option<Box<Self>> {
        let large = plan.large.as_ref().filter(|_| share.role == Role::Large)?;
        let member = |slot: u32| share.first + slot - large.first;
        let given_all = large.given_all_before(member(share.count)) - large.given_all_before(member(0));
        let layer = Layer::Groups(Sampler::new(Law::Fixed(given_all)));
        let layout = (given_all > 0).then(|| Layout::new(given_all, &[layer], &mut Random::new(0, 0)));
        Some(Box::new(Self {
            fill: Fill::default(),
            hearing: Hearing::new(share.count),
            checker: layout.map(|layout| Checker::new(Arc::new(layout))),
            to_view: (0..share.count).filter(|&slot| large.is_given_all(member(slot))).collect(),
            opened: vec![false; given_all as usize],
            next: 0,
            unseen: Vec::new(),
            unresolved: Vec::new(),
            burst: 0,
            violations: Violations::default(),
        }))
    }

    /// Members who are to open the group.
    pub(super) fn given_all(&self) -> u32 {
        self.opened.len() as u32
    }

    pub(super) fn undelivered(&self) -> u64 {
        self.checker.as_ref().map_or(0, Checker::undelivered)
    }

    /// What broke so far.
    pub(super) fn violations(&self) -> u64 {
        self.violations.total() + self.checker.as_ref().map_or(0, |checker| checker.violations().total())
    }

    /// What broke, at the end: `last` is the last entry that exists.
    pub(super) fn finish(&self, last: u64) -> Violations {
        let mut violations = self.violations;
        violations.hint += self.hearing.beyond(last);
        if let Some(checker) = &self.checker {
            violations.add(&checker.finish());
        }
        violations
    }
}

/// The name of one of the group's messages, the same on all threads.
fn identity(number: u32) -> Identity {
    Identity::Message { sender: 0, number }
}

/// The id that the group will have.
pub(super) fn conversation_id(plan: &Plan) -> ConversationId {
    ConversationId::group(&plan.large_member(0), plan.large_key())
}

impl Worker {
    fn large_plan(&self) -> Arc<Plan> {
        self.plan.clone()
    }

    /// Which member of the group a connection is, and among those of this thread who are given all its place, if it is one.
    fn large_member_of(&self, large: &LargePlan, slot: u32) -> (u32, Option<u32>) {
        let first = self.share.first - large.first;
        let member = first + slot;
        let place = large.given_all_before(member) - large.given_all_before(first);
        (member, large.is_given_all(member).then_some(place))
    }

    /// What is due in a phase.
    pub(super) fn large_due(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        if self.phase == Phase::Fill {
            self.fill_due(links, now_ns);
        }
        if self.phase < Phase::Groups {
            return;
        }
        self.views_due(links);
        if self.phase >= Phase::Load {
            self.large_sends_due(links);
            self.large_acks_seen();
            self.large_hints_resolved();
            self.large_bursts_over(now_ns);
        }
    }

    /// The group is filled: everything after that is checked.
    pub(super) fn large_start(&mut self) {
        let baseline = self.control.large.as_ref().map_or(0, |board| board.baseline());
        let Some(large) = &mut self.large else { return };
        large.hearing.begin();
        if let Some(checker) = &mut large.checker {
            checker.start(0, baseline);
        }
    }

    /// A connection is live: the creator's fills the group, others open it again if they had.
    pub(super) fn large_live(&mut self, links: &mut Links, slot: u32) {
        let plan = self.large_plan();
        let Some(large_plan) = &plan.large else { return };
        if self.large.is_none() {
            return;
        }
        let (member, place) = self.large_member_of(large_plan, slot);
        if member == 0 && self.phase == Phase::Fill {
            self.fill_begin(links);
        }
        if let Some(large) = self.large.as_mut().filter(|_| place.is_some() && self.phase >= Phase::Groups) {
            large.to_view.push_back(slot);
        }
    }

    fn views_due(&mut self, links: &mut Links) {
        let conversation = self.conversations[0];
        for _ in 0..VIEWS_PER_TICK_MAX {
            let Some(slot) = self.large.as_mut().and_then(|large| large.to_view.pop_front()) else { return };
            // Who is away opens it when they are back.
            if self.connections.list[slot as usize].live {
                self.write(links, slot, request::VIEW, &Request::View(View { conversation, open: true }));
            }
        }
    }

    /// When the next message is due.
    pub(super) fn large_wake_ns(&self) -> Nanoseconds {
        match (&self.large, &self.plan.large) {
            (Some(large), Some(plan)) if large.next < plan.messages() => {
                self.measured.start + plan.intended_ns(large.next)
            }
            _ => Nanoseconds::MAX,
        }
    }

    fn large_sends_due(&mut self, links: &mut Links) {
        let plan = self.large_plan();
        let Some(large_plan) = &plan.large else { return };
        while let Some(large) = self.large.as_mut().filter(|large| large.next < large_plan.messages()) {
            let (number, now_ns) = (large.next, self.clock.now_ns());
            let intended_ns = self.measured.start + large_plan.intended_ns(number);
            if intended_ns > now_ns {
                return;
            }
            large.next += 1;
            large.unseen.push(number);
            let slot = (large_plan.sender(number) + large_plan.first).checked_sub(self.share.first);
            if let Some(sender) = slot.filter(|slot| *slot < self.share.count) {
                self.counters.large_offered.add(1);
                record(&mut self.latencies.late, intended_ns, now_ns);
                self.queue_and_send(links, Message { sender, conversation: 0, number, intended_ns });
            }
        }
    }

    /// Messages that were acknowledged, on whatever thread.
    fn large_acks_seen(&mut self) {
        let (Some(large), Some(board)) = (&mut self.large, &self.control.large) else { return };
        let LargeMembers { unseen, checker, .. } = &mut **large;
        unseen.retain(|&number| {
            let sequence = board.sequence_of(number);
            if let (Some(checker), Some(sequence)) = (checker.as_mut(), sequence) {
                checker.acked(0, sequence, identity(number));
            }
            sequence.is_none()
        });
    }

    /// A message of this thread's was acknowledged.
    pub(super) fn large_acked(&mut self, message: &Message, ack: &Ack, now_ns: Nanoseconds) {
        self.counters.large_acked.add(1);
        self.counters.acked_again.add(u64::from(ack.duplicate));
        if let Some(board) = &self.control.large {
            board.exists(ack.sequence.0, message.intended_ns);
            board.acked(message.number, ack.sequence.0);
        }
        if let Some(latencies) = &mut self.latencies.large {
            record(&mut latencies.send_to_ack, message.intended_ns, now_ns);
        }
    }

    fn large_hints_resolved(&mut self) {
        let (Some(large), Some(board)) = (&mut self.large, &self.control.large) else { return };
        let Some(latencies) = &mut self.latencies.large else { return };
        large.unresolved.retain(|&(sequence, at_ns)| {
            let intended_ns = board.intended_ns(sequence);
            if let Some(intended_ns) = intended_ns {
                record(&mut latencies.send_to_hint, intended_ns, at_ns);
            }
            intended_ns.is_none()
        });
    }

    /// At the end of the quiet part behind a burst everybody must have heard of its last message.
    fn large_bursts_over(&mut self, now_ns: Nanoseconds) {
        let plan = self.large_plan();
        let Some(large_plan) = &plan.large else { return };
        while let Some(burst) = self.large.as_ref().map(|large| large.burst).filter(|&burst| burst < large_plan.bursts)
        {
            if now_ns < self.measured.start + large_plan.quiet_to_ns(burst) {
                return;
            }
            let from_ns = self.measured.start + large_plan.burst_from_ns(burst);
            let last = self.control.large.as_ref().map_or(0, |board| board.last());
            for slot in 0..self.share.count {
                let is_hinted = self.large_member_of(large_plan, slot).1.is_none();
                // Who was away meanwhile was told nothing, and asks when they come back.
                let stood = self.stood_since(slot, from_ns);
                let Some(large) = self.large.as_mut() else { return };
                let (hints, has_heard) = large.hearing.close(slot, last);
                if !is_hinted || !stood {
                    continue;
                }
                large.violations.unheard += u64::from(!has_heard);
                if let Some(latencies) = &mut self.latencies.large {
                    latencies.hints_per_burst.saturating_record(hints.into());
                }
            }
            if let Some(large) = self.large.as_mut() {
                large.burst += 1;
            }
        }
    }

    /// A frame that is for the large group; `false` if it is something else.
    pub(super) fn large_frame(
        &mut self,
        links: &mut Links,
        slot: u32,
        id: Option<RequestId>,
        frame: &ServerFrame,
        now_ns: Nanoseconds,
    ) -> bool {
        match (frame, id) {
            (ServerFrame::Message(entry), None) => self.large_entry(slot, entry, Path::Pushed, now_ns),
            (ServerFrame::Mentioned(_), None) => self.large_body(),
            (ServerFrame::Advanced(advanced), None) => self.large_hint(slot, advanced, now_ns),
            (ServerFrame::ViewAnswer(answer), Some(request::VIEW)) => {
                self.large_opened(links, slot, answer.sequence.unwrap_or_default());
            }
            (ServerFrame::HistoryAnswer(page), Some(request::HISTORY)) => self.large_page(links, slot, page, now_ns),
            (ServerFrame::Created(created), Some(request::FILL)) => self.fill_created(links, created.conversation),
            (ServerFrame::ConversationsAnswer(page), Some(request::FILL)) => self.fill_looked(links, page),
            (ServerFrame::MembersAnswer(_), Some(_)) => self.fill_added(links),
            (ServerFrame::Error(error), Some(request::FILL)) => {
                self.note_error(format!("{}: {}", error.code.name(), error.text));
                self.fill_failed(None, error, now_ns);
            }
            (ServerFrame::Error(error), Some(id)) if request::group_of(id, u32::MAX >> 4).is_some() => {
                self.note_error(format!("{}: {}", error.code.name(), error.text));
                self.fill_failed(request::group_of(id, u32::MAX >> 4), error, now_ns);
            }
            (ServerFrame::Error(error), Some(request::VIEW | request::HISTORY)) => {
                self.note_error(format!("{}: {}", error.code.name(), error.text));
                if !error.code.temporary() {
                    self.control.fail(format!("can't open the group: {}: {}", error.code.name(), error.text));
                } else if let Some(large) = &mut self.large {
                    large.to_view.push_back(slot);
                }
            }
            _ => return false,
        }
        true
    }

    /// The group is open: what was missed so far is paged, what comes is pushed.
    fn large_opened(&mut self, links: &mut Links, slot: u32, last: Sequence) {
        let plan = self.large_plan();
        let Some(place) = plan.large.as_ref().and_then(|large| self.large_member_of(large, slot).1) else { return };
        let Some(large) = &mut self.large else { return };
        if !std::mem::replace(&mut large.opened[place as usize], true) {
            self.counters.groups.add(1);
        }
        let Some(checker) = &mut large.checker else { return };
        checker.announced(place, last.0);
        if checker.has_holes(place) {
            self.large_ask_history(links, slot, place);
        }
    }

    fn large_ask_history(&mut self, links: &mut Links, slot: u32, place: u32) {
        let Some(checker) = self.large.as_ref().and_then(|large| large.checker.as_ref()) else { return };
        let after = Some(Sequence(checker.contiguous(place)));
        let conversation = self.conversations[0];
        let history = History { conversation, before: None, after, around: None, limit: Some(PAGE_ITEMS_MAX) };
        self.write(links, slot, request::HISTORY, &Request::History(history));
    }

    fn large_page(&mut self, links: &mut Links, slot: u32, page: &HistoryAnswer, now_ns: Nanoseconds) {
        let plan = self.large_plan();
        let Some(place) = plan.large.as_ref().and_then(|large| self.large_member_of(large, slot).1) else { return };
        let contiguous =
            |worker: &Self| worker.large.as_ref()?.checker.as_ref().map(|checker| checker.contiguous(place));
        let before = contiguous(self);
        for entry in &page.entries {
            self.large_entry(slot, entry, Path::Paged, now_ns);
        }
        let after = contiguous(self);
        if after > before && after < Some(page.last.0) {
            self.large_ask_history(links, slot, place);
        }
    }

    fn large_entry(&mut self, slot: u32, entry: &EntryBytes, path: Path, now_ns: Nanoseconds) {
        let Ok(entry) = entry.view() else {
            self.counters.protocol_errors.add(1);
            return self.note_error("an entry that can't be read".to_owned());
        };
        let plan = self.large_plan();
        let (Some(large_plan), Some(board)) = (&plan.large, &self.control.large) else { return };
        let sequence = u64::from(entry.sequence.0);
        let stamp = self.stamp(entry);
        let (member, place) = self.large_member_of(large_plan, slot);
        let Some(large) = &mut self.large else { return };
        if ConversationId(entry.conversation.0) != self.conversations[0] {
            large.violations.foreign += 1;
            return;
        }
        // Who joins is given the entry that says so: that is before the load.
        if self.phase < Phase::Groups || sequence <= board.baseline() {
            return;
        }
        let (Some(place), Some(checker)) = (place, &mut large.checker) else { return self.large_body() };
        let name = stamp.map_or(Identity::Other, |stamp| identity(stamp.number));
        let verdict = checker.received(place, sequence, name, path);
        let Some(stamp) = stamp.filter(|_| verdict == Verdict::First) else { return };
        board.exists(sequence, stamp.intended_ns);
        if large_plan.sender(stamp.number) == member {
            return;
        }
        self.counters.large_delivered.add(1);
        if let Some(latencies) = &mut self.latencies.large {
            record(&mut latencies.send_to_deliver, stamp.intended_ns, now_ns);
        }
    }

    /// Somebody was given a message that does not mean them, and does not look.
    fn large_body(&mut self) {
        if let Some(large) = &mut self.large {
            large.violations.body += 1;
        }
    }

    fn large_hint(&mut self, slot: u32, advanced: &Advanced, now_ns: Nanoseconds) {
        let (Some(large), Some(board)) = (&mut self.large, &self.control.large) else { return };
        if advanced.conversation != self.conversations[0] {
            large.violations.foreign += 1;
            return;
        }
        let heard = large.hearing.hint(slot, advanced.sequence.0, board.baseline());
        if self.phase < Phase::Load {
            return;
        }
        self.counters.hints.add(1);
        let since_ns = now_ns.saturating_sub(self.measured.start);
        if self.plan.large.as_ref().is_some_and(|plan| plan.is_quiet(since_ns)) {
            self.counters.hints_in_quiet.add(1);
        }
        match heard {
            Heard::Back => large.violations.hint += 1,
            Heard::Again => self.counters.hints_again.add(1),
            Heard::News(first) => large.unresolved.push((first, now_ns)),
        }
    }

    /// Whether the thread has the member who creates the group and fills it.
    pub(super) fn has_creator(&self) -> bool {
        self.large.is_some() && self.plan.large.as_ref().is_some_and(|large| large.first == self.share.first)
    }
}
