//! What the application is looking at, and which conversations have gone on without it.
//!
//! Invariant: a conversation is behind only while fewer of its entries were delivered than there are known to be.

use std::collections::BTreeMap;

use crate::ids::{ConversationId, Sequence};

#[derive(Debug, Default)]
pub(super) struct Views {
    /// Those that are open, and when the server is to be told; `None` if it was.
    open: BTreeMap<ConversationId, Option<u64>>,
    /// The last entry that is known of those that have gone on.
    behind: BTreeMap<ConversationId, Sequence>,
}

impl Views {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.behind.is_empty()
    }

    pub(super) fn is_open(&self, conversation: ConversationId) -> bool {
        self.open.contains_key(&conversation)
    }

    /// It is open; the server is to be told then.
    pub(super) fn open(&mut self, conversation: ConversationId, at_ms: u64) {
        self.open.insert(conversation, Some(at_ms));
    }

    /// The same, if it still is open.
    pub(super) fn tell_again(&mut self, conversation: ConversationId, at_ms: u64) {
        if let Some(due) = self.open.get_mut(&conversation) {
            *due = Some(at_ms);
        }
    }

    /// It is not open any more; whether it was.
    pub(super) fn close(&mut self, conversation: ConversationId) -> bool {
        self.open.remove(&conversation).is_some()
    }

    /// A new connection knows of none.
    pub(super) fn connected(&mut self, now_ms: u64) {
        self.open.values_mut().for_each(|due| *due = Some(now_ms));
    }

    /// One of which the server is to be told now, and is.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<ConversationId> {
        let is_due = |due: &Option<u64>| due.is_some_and(|at_ms| at_ms <= now_ms);
        let (conversation, due) = self.open.iter_mut().find(|(_, due)| is_due(due))?;
        *due = None;
        Some(*conversation)
    }

    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.open.values().flatten().min().copied()
    }

    /// A conversation has gone on up to an entry that will not come by itself.
    pub(super) fn advanced(&mut self, conversation: ConversationId, sequence: Sequence) {
        let known = self.behind.entry(conversation).or_default();
        *known = sequence.max(*known);
    }

    /// Whether a conversation has gone on, and is not open: what comes of it out of order is not waited for.
    pub(super) fn is_left_behind(&self, conversation: ConversationId) -> bool {
        self.behind.contains_key(&conversation) && !self.is_open(conversation)
    }

    /// The last entry that is known of one that has gone on.
    pub(super) fn end(&self, conversation: ConversationId) -> Option<Sequence> {
        self.behind.get(&conversation).copied()
    }

    /// Everything up to an entry was delivered.
    pub(super) fn delivered(&mut self, conversation: ConversationId, sequence: Sequence) {
        if self.end(conversation).is_some_and(|end| end <= sequence) {
            self.behind.remove(&conversation);
        }
    }

    /// What is known of a conversation does not count any more.
    pub(super) fn forget(&mut self, conversation: ConversationId) {
        self.behind.remove(&conversation);
    }

    /// Nor of any.
    pub(super) fn forget_all(&mut self) {
        self.behind.clear();
    }
}
