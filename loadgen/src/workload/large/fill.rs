//! How the large group gets its members: the first one creates it and adds the others, a hundred a request, several requests under way. A group that
//! is there already, from a run before with the same seed and number of members, is taken as it is, and only what is missing is added.

use antiphon_wire::{
    frame::{Conversations, ConversationsAnswer, Create, CreateGroup, ErrorFrame, Members, MembersAction, Request},
    ids::{ConversationId, UserId},
    limits::{MEMBERS_PER_REQUEST_MAX, PAGE_ITEMS_MAX},
};

use super::super::{
    connections::State,
    worker::{Worker, request},
};
use crate::{
    clock::{MILLISECOND_NS, Nanoseconds},
    driver::Links,
};

/// Requests under way at once. A node keeps the order of one connection's; more would only wait there.
const IN_FLIGHT_MAX: u32 = 8;

/// Wait before a temporary refusal is tried again, if the server names none.
const RETRY_MS: u32 = 200;

const BATCH: u32 = MEMBERS_PER_REQUEST_MAX as u32;

/// Where the filling stands.
#[derive(Debug, Default)]
pub(super) struct Fill {
    /// Members that were there before.
    found: Option<u32>,
    next_batch: u32,
    in_flight: u32,
    answered: u32,
    retries: Vec<(Nanoseconds, Again)>,
}

/// What is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Create,
    Look(Option<ConversationId>),
    Add(u32),
}

/// How many batches there are: the creator is a member already.
fn batches(members: u32) -> u32 {
    (members - 1).div_ceil(BATCH)
}

/// The first batch that may not be whole, when so many members are there: batches are added in order, but for those under way.
fn first_batch(found: u32) -> u32 {
    (found.saturating_sub(1) / BATCH).saturating_sub(IN_FLIGHT_MAX)
}

impl Worker {
    /// The creator is there, or there again: begins, or begins anew; what was under way may have come to pass or not.
    pub(super) fn fill_begin(&mut self, links: &mut Links) {
        if let Some(large) = &mut self.large {
            large.fill = Fill::default();
        }
        self.fill_ask(links, Again::Create);
    }

    fn fill_ask(&mut self, links: &mut Links, what: Again) {
        let Some(plan) = self.plan.large.clone() else { return };
        let conversation = self.conversations[0];
        let (id, ask) = match what {
            Again::Create => {
                let title = format!("{} members", plan.members);
                let group = CreateGroup { key: self.plan.large_key(), title, members: Vec::new() };
                (request::FILL, Request::Create(Create::Group(group)))
            }
            Again::Look(after) => {
                let page = Conversations { after, limit: Some(PAGE_ITEMS_MAX) };
                (request::FILL, Request::Conversations(page))
            }
            Again::Add(batch) => {
                let first = 1 + batch * BATCH;
                let users: Vec<UserId> =
                    (first..(first + BATCH).min(plan.members)).map(|member| self.plan.large_member(member)).collect();
                (request::group(batch), Request::Members(Members { conversation, action: MembersAction::Add(users) }))
            }
        };
        self.write(links, 0, id, &ask);
    }

    /// Asks again for what was refused for a while.
    pub(super) fn fill_due(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        let Some(large) = &mut self.large else { return };
        let (due, later) =
            std::mem::take(&mut large.fill.retries).into_iter().partition(|&(due_ns, _)| due_ns <= now_ns);
        large.fill.retries = later;
        let due: Vec<(Nanoseconds, Again)> = due;
        if self.connections.list[0].state == State::Up {
            due.into_iter().for_each(|(_, what)| self.fill_ask(links, what));
        }
    }

    /// The group is there: how many of its members are?
    pub(super) fn fill_created(&mut self, links: &mut Links, conversation: ConversationId) {
        if conversation != self.conversations[0] {
            self.control.fail("the server gave a conversation another id than its creator and key make".to_owned());
        }
        self.fill_ask(links, Again::Look(None));
    }

    /// A page of the creator's conversations: the group is on one of them.
    pub(super) fn fill_looked(&mut self, links: &mut Links, page: &ConversationsAnswer) {
        let (Some(large), Some(plan)) = (&mut self.large, self.plan.large.as_ref()) else { return };
        let Some(ours) = page.conversations.iter().find(|summary| summary.conversation == self.conversations[0]) else {
            match page.next {
                Some(next) => return self.fill_ask(links, Again::Look(Some(next))),
                None => return self.control.fail("the creator's conversations do not have the group".to_owned()),
            }
        };
        let members = ours.members;
        if members == plan.members {
            if let Some(board) = &self.control.large {
                board.set_baseline(ours.last_sequence.0);
            }
            self.counters.filled.set(members.into());
            return;
        }
        let fill = &mut large.fill;
        if fill.found.replace(members).is_some() || members > plan.members {
            let text = format!("the group has {members} members instead of {}", plan.members);
            return self.control.fail(text);
        }
        fill.next_batch = first_batch(members);
        fill.answered = fill.next_batch;
        self.fill_more(links);
    }

    fn fill_more(&mut self, links: &mut Links) {
        let (Some(large), Some(plan)) = (&mut self.large, self.plan.large.as_ref()) else { return };
        let fill = &mut large.fill;
        let count = batches(plan.members);
        if fill.answered == count {
            return self.fill_ask(links, Again::Look(None));
        }
        let mut batches = Vec::new();
        while fill.in_flight < IN_FLIGHT_MAX && fill.next_batch < count {
            batches.push(fill.next_batch);
            (fill.next_batch, fill.in_flight) = (fill.next_batch + 1, fill.in_flight + 1);
        }
        batches.into_iter().for_each(|batch| self.fill_ask(links, Again::Add(batch)));
    }

    /// A batch was added.
    pub(super) fn fill_added(&mut self, links: &mut Links) {
        let (Some(large), Some(plan)) = (&mut self.large, self.plan.large.as_ref()) else { return };
        large.fill.in_flight = large.fill.in_flight.saturating_sub(1);
        large.fill.answered += 1;
        // The last one counts when all have been looked for.
        self.counters.filled.set(u64::from((large.fill.answered * BATCH).min(plan.members - 1)));
        self.counters.fill_added.add(1);
        self.fill_more(links);
    }

    /// The server refused.
    pub(super) fn fill_failed(&mut self, batch: Option<u32>, error: &ErrorFrame, now_ns: Nanoseconds) {
        let Some(large) = &mut self.large else { return };
        if !error.code.temporary() {
            return self.control.fail(format!("can't fill the group: {}: {}", error.code.name(), error.text));
        }
        let wait_ms = error.retry_after_ms.unwrap_or(RETRY_MS);
        let what = batch.map_or(Again::Create, Again::Add);
        large.fill.retries.push((now_ns + u64::from(wait_ms) * MILLISECOND_NS, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_everybody_but_the_creator() {
        assert_eq!([2, 101, 102, 200_000].map(batches), [1, 1, 2, 2_000]);
    }

    #[test]
    fn what_may_not_be_whole_is_added_again() {
        assert_eq!([1, 100, 900].map(first_batch), [0, 0, 0]);
        // 5,001 members are 50 whole batches if all is in order, and at worst those under way have holes.
        assert_eq!(first_batch(5_001), 50 - IN_FLIGHT_MAX);
    }
}
