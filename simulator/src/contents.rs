//! The oracle of what messages refer to: what a message answers and the thread that it is in are there for its sender when it is stored, an
//! edit keeps them, and a send is refused only where they are not.

use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, ChangeView, Content, ContentView, EntryKind, view_change, view_content},
    ids::{ConversationId, Sequence, UserId},
};

use crate::model::{Conversation, Known, Membership, Model};

/// What a body says; nothing if it was taken away.
#[must_use]
pub fn said(body: &[u8]) -> ContentView<'_> {
    view_content(body).unwrap_or_default()
}

/// What a body says, without what it refers to.
#[must_use]
pub fn words(body: &[u8]) -> Content {
    said(body).in_place_of(&ContentView::default()).to_content()
}

/// Whether two bodies refer to the same.
#[must_use]
pub fn refer_alike(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (said(one), said(other));
    one == one.in_place_of(&other)
}

impl Known {
    /// The message that began the thread that it is in.
    #[must_use]
    pub fn thread(&self) -> Option<u64> {
        said(&self.body).thread.filter(|_| self.kind == EntryKind::Message).map(|root| root.0)
    }
}

impl Model {
    /// Whether a message may be refused so for what it refers to; it was asked for when so many entries were durable.
    #[must_use]
    pub fn may_refuse_content(
        &self,
        id: ConversationId,
        user: &UserId,
        content: &Content,
        code: ErrorCode,
        durable: u64,
    ) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return true };
        let view = said(&content.0);
        let is_steady = conversation.membership.get(user).is_none_or(Membership::is_as_it_was_made);
        let may_lack = |of: Sequence| of.0 > durable || !is_steady || conversation.may_be_gone(of.0);
        match (code, view.thread) {
            (ErrorCode::NoMessage, thread) => {
                let is_none = |of: Sequence| conversation.message(of.0).is_none();
                view.reply_to.is_some_and(may_lack) || thread.is_some_and(|of| may_lack(of) || is_none(of))
            }
            (ErrorCode::Deleted, Some(root)) => conversation.asks_to_delete(root.0),
            (ErrorCode::Invalid, Some(root)) => {
                conversation.message(root.0).is_none_or(|root| root.thread().is_some() || root.body.is_empty())
            }
            _ => false,
        }
    }
}

impl Conversation {
    fn message(&self, place: u64) -> Option<&Known> {
        self.entries.get(&place).filter(|entry| entry.kind == EntryKind::Message)
    }

    fn may_be_gone(&self, place: u64) -> bool {
        let hides = |change: &Change| matches!(change, Change::Retain { before } if before.0 > place);
        self.changes.iter().any(|asked| hides(&asked.change))
    }

    fn asks_to_delete(&self, place: u64) -> bool {
        let deletes = |change: &Change| matches!(change, Change::Delete { target } if target.0 == place);
        self.changes.iter().any(|asked| deletes(&asked.change))
    }
}

/// Holds each message of a conversation that is known whole to what it refers to; `saw_both` tells whether a user saw an entry while it saw
/// another.
pub fn judge(
    conversation: &Conversation,
    id: ConversationId,
    saw_both: impl Fn(&UserId, u64, u64) -> bool,
    problems: &mut Vec<String>,
) {
    let (mut hidden, mut deleted) = (0, Vec::new());
    for (place, entry) in &conversation.entries {
        match view_change(entry.kind, &entry.body) {
            Ok(ChangeView::Retain { before, .. }) => hidden = hidden.max(before.0),
            Ok(ChangeView::Delete { target }) => deleted.push(target.0),
            _ => {}
        }
        if entry.kind != EntryKind::Message {
            continue;
        }
        let view = said(&entry.body);
        for of in [view.reply_to, view.thread].into_iter().flatten() {
            if of.0 >= *place || of.0 < hidden || !saw_both(&entry.sender, of.0, *place) {
                problems.push(format!("{id} #{place} of {} refers to #{of}, which it did not see", entry.sender));
            }
        }
        let Some(root) = entry.thread() else { continue };
        let is_root = conversation.message(root).is_some_and(|root| root.thread().is_none());
        if !is_root || deleted.contains(&root) {
            problems.push(format!("{id} #{place} is in a thread of #{root}, which can begin none"));
        }
    }
}
