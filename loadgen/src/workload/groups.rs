//! The setup between connecting and the load: one member of each group creates it. Measured by nobody.

use antiphon_wire::{
    frame::{Create, CreateGroup, ErrorFrame, Members, MembersAction, Request},
    ids::{ConversationId, Sequence, UserId},
    limits::MEMBERS_PER_REQUEST_MAX,
};

use super::{
    connections::State,
    plan::{Plan, Share},
    worker::{Worker, request},
};
use crate::{
    clock::{MILLISECOND_NS, Nanoseconds},
    driver::Links,
    layout::Layout,
};

/// Groups of a thread that are being made at once.
const GROUPS_IN_FLIGHT_MAX: u32 = 64;

/// Wait before a temporary failure is tried again, if the server names none.
const RETRY_MS: u32 = 100;

/// Where the setup stands.
#[derive(Debug)]
pub(super) struct Groups {
    count: u32,
    next: u32,
    in_flight: u32,
    /// Members beyond the creator that each group has already.
    added: Vec<u32>,
    retries: Vec<(Nanoseconds, u32)>,
}

impl Groups {
    pub(super) fn new(count: u32) -> Self {
        Self { count, next: 0, in_flight: 0, added: vec![0; count as usize], retries: Vec::new() }
    }
}

/// The id that a conversation will have.
pub(super) fn conversation_id(plan: &Plan, share: Share, layout: &Layout, group: u32) -> ConversationId {
    let creator = plan.user(share.first + layout.creator(group));
    if layout.is_direct(group) {
        let other = layout.user(layout.members_of(group).end - 1);
        return ConversationId::direct(&creator, &plan.user(share.first + other));
    }
    ConversationId::group(&creator, plan.group_key(share.thread, group))
}

impl Worker {
    /// Asks for the next groups, and again for those that failed for a while.
    pub(super) fn groups_due(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        let (due, later) =
            std::mem::take(&mut self.groups.retries).into_iter().partition(|&(due_ns, _)| due_ns <= now_ns);
        self.groups.retries = later;
        let due: Vec<(Nanoseconds, u32)> = due;
        for (_, group) in due {
            self.ask_for_group(links, group, now_ns);
        }
        while self.groups.in_flight < GROUPS_IN_FLIGHT_MAX && self.groups.next < self.groups.count {
            let group = self.groups.next;
            self.groups.next += 1;
            self.groups.in_flight += 1;
            self.ask_for_group(links, group, now_ns);
        }
    }

    /// Creates the group, or adds the next members to it.
    fn ask_for_group(&mut self, links: &mut Links, group: u32, now_ns: Nanoseconds) {
        let creator = self.layout.creator(group);
        if self.connections.list[creator as usize].state != State::Up {
            return self.groups.retries.push((now_ns + u64::from(RETRY_MS) * MILLISECOND_NS, group));
        }
        let added = self.groups.added[group as usize];
        // A creation names its creator too, and may be counted with it.
        let next = self.layout.users_of(group).skip(1 + added as usize).take(MEMBERS_PER_REQUEST_MAX - 1);
        let mut users: Vec<UserId> = next.map(|user| self.plan.user(self.share.first + user)).collect();
        let ask = if self.layout.is_direct(group) {
            Request::Create(Create::Direct(users.remove(0)))
        } else if added == 0 {
            let key = self.plan.group_key(self.share.thread, group);
            Request::Create(Create::Group(CreateGroup { key, title: format!("load {group}"), members: users }))
        } else {
            let conversation = self.conversations[group as usize];
            Request::Members(Members { conversation, action: MembersAction::Add(users) })
        };
        self.write(links, creator, request::group(group), &ask);
    }

    /// The group was created, or members were added.
    pub(super) fn group_answered(&mut self, links: &mut Links, group: u32, sequence: Sequence, now_ns: Nanoseconds) {
        if self.checker.is_started(group) {
            return;
        }
        let others = self.layout.members_of(group).len() as u32 - 1;
        let added = &mut self.groups.added[group as usize];
        *added = (*added + MEMBERS_PER_REQUEST_MAX as u32 - 1).min(others);
        if *added < others {
            return self.ask_for_group(links, group, now_ns);
        }
        self.checker.start(group, sequence.0);
        self.groups.in_flight -= 1;
        self.counters.groups.add(1);
        self.groups_due(links, now_ns);
    }

    /// The server refused.
    pub(super) fn group_failed(&mut self, group: u32, error: &ErrorFrame, now_ns: Nanoseconds) {
        if !error.code.temporary() {
            return self.control.fail(format!("can't create a group: {}: {}", error.code.name(), error.text));
        }
        let wait_ms = error.retry_after_ms.unwrap_or(RETRY_MS);
        self.groups.retries.push((now_ns + u64::from(wait_ms) * MILLISECOND_NS, group));
    }

    /// A creator's connection was lost: its request may have been, too. Asking twice finds the same group.
    pub(super) fn group_connection_lost(&mut self, slot: u32, now_ns: Nanoseconds) {
        for layer in 0..self.layout.layers() {
            let group = self.layout.conversation(layer, slot);
            let asked = group < self.groups.next && !self.checker.is_started(group);
            let is_creator = self.layout.creator(group) == slot;
            if asked && is_creator && !self.groups.retries.iter().any(|&(_, retry)| retry == group) {
                self.groups.retries.push((now_ns + u64::from(RETRY_MS) * MILLISECOND_NS, group));
            }
        }
    }
}
