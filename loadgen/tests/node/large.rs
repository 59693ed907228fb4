//! Large groups: entries for those who have them open, hints for the others.

use antiphon_wire::{
    frame::{Advanced, ConversationsAnswer, EntryKind, Role, ServerFrame, Summary, View, ViewAnswer},
    ids::{ConversationId, Epoch, Ordinal, Sequence, TimestampMs, UserId},
};

use super::{Conversation, Fault, Session, State, frame, push};

/// Beyond so many members a group is large.
pub(crate) const BODIES_MEMBERS: usize = 300;

/// The message of the group at which something goes wrong.
const CHOSEN: usize = 20;

/// What goes wrong with that message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LargeFault {
    /// One member is not told of it, and of nothing later.
    Unheard,
    /// One member is told of an earlier entry instead.
    Back,
    /// One member is told of an entry that there is not.
    Beyond,
    /// One member who does not look is given it whole.
    Body,
    /// One who looks is not given it.
    Lose,
}

pub(super) fn is_large(conversation: &Conversation) -> bool {
    conversation.members.len() > BODIES_MEMBERS
}

impl Session {
    pub(super) fn view(&self, state: &mut State, view: &View) -> ServerFrame {
        let user = self.user.clone().expect("connected first");
        let conversation = state.conversations.get_mut(&view.conversation).expect("it was created");
        conversation.open.push(user);
        ServerFrame::ViewAnswer(ViewAnswer { sequence: Some(Sequence(conversation.entries.len() as u64)) })
    }

    pub(super) fn list(&self, state: &State) -> ServerFrame {
        let user = self.user.as_ref().expect("connected first");
        let mine = state.conversations.iter().filter(|(_, conversation)| conversation.members.contains(user));
        let summary = |(id, conversation): (&ConversationId, &Conversation)| Summary {
            conversation: *id,
            epoch: Epoch(1),
            direct: None,
            title: String::new(),
            picture: String::new(),
            role: Role::Owner,
            last_sequence: Sequence(conversation.entries.len() as u64),
            last_time_ms: TimestampMs(1),
            members: conversation.members.len() as u32,
            read: Sequence(0),
            unread: 0,
            last: None,
        };
        ServerFrame::ConversationsAnswer(ConversationsAnswer { conversations: mine.map(summary).collect(), next: None })
    }

    pub(super) fn tell_of(&self, state: &mut State, id: ConversationId, kind: EntryKind, sequence: u64, bytes: &[u8]) {
        let conversation = &state.conversations[&id];
        let (open, members) = (conversation.open.clone(), conversation.members.clone());
        let fault = match self.fault {
            Fault::Large(fault) if kind == EntryKind::Message && conversation.sent.len() > CHOSEN => Some(fault),
            _ => None,
        };
        let hint = |sequence: u64| {
            let advanced = Advanced {
                conversation: id,
                epoch: Epoch(1),
                sequence: Sequence(sequence),
                ordinal: Ordinal(sequence),
                time_ms: TimestampMs(1),
            };
            frame(self.encoding, &self.encoding.encode_server(None, &ServerFrame::Advanced(advanced)))
        };
        let others: Vec<UserId> = members.into_iter().filter(|member| !open.contains(member)).collect();
        // Only of those who are connected is there anything to see.
        let victim = others.iter().find(|member| state.sessions.contains_key(*member)).cloned();
        for (index, member) in open.iter().enumerate() {
            if fault != Some(LargeFault::Lose) || index > 0 {
                push(state, member, bytes);
            }
        }
        for member in &others {
            match fault.filter(|_| victim.as_ref() == Some(member)) {
                Some(LargeFault::Unheard) => {}
                Some(LargeFault::Back) => {
                    push(state, member, &hint(sequence - 2));
                    push(state, member, &hint(sequence));
                }
                Some(LargeFault::Beyond) => push(state, member, &hint(sequence + 5)),
                Some(LargeFault::Body) => {
                    push(state, member, bytes);
                    push(state, member, &hint(sequence));
                }
                Some(LargeFault::Lose) | None => push(state, member, &hint(sequence)),
            }
        }
    }
}
