//! A user's list of conversations, which every lane answers in parts: its own.
//!
//! Invariant: a page leaves none out. It ends where the first lane has more to give, since what others have behind that belongs to a
//! later page.

use std::collections::BTreeMap;

use antiphon_wire::{
    binary,
    frame::{Conversations, ConversationsAnswer, ErrorFrame, Request, ServerFrame, Summary},
    ids::{ConversationId, RequestId},
    limits,
};

/// One list under way.
#[derive(Debug)]
pub(crate) struct Gather {
    waiting: u8,
    limit: usize,
    found: BTreeMap<ConversationId, Summary>,
    /// Some lane has more after this.
    until: Option<ConversationId>,
    failed: Option<ErrorFrame>,
}

impl Gather {
    /// A list of at most so many conversations that so many lanes are asked for.
    pub(crate) fn new(lanes: u8, limit: Option<u32>) -> Self {
        let limit = limit.unwrap_or(limits::PAGE_ITEMS_DEFAULT).min(limits::PAGE_ITEMS_MAX) as usize;
        Self { waiting: lanes, limit, found: BTreeMap::new(), until: None, failed: None }
    }

    /// What each lane is asked, as a binary frame. Lanes answer under an id of their own, so that an answer is told from an error
    /// without one.
    pub(crate) fn request(list: Conversations) -> Vec<u8> {
        binary::encode_request(Some(RequestId(1)), &Request::Conversations(list))
    }

    /// Takes in a lane's answer, a binary frame; whether it was the last.
    pub(crate) fn take(&mut self, frame: &[u8]) -> bool {
        self.waiting -= 1;
        match binary::decode_server(frame) {
            Ok((_, ServerFrame::ConversationsAnswer(part))) => self.take_part(part),
            Ok((_, ServerFrame::Error(error))) => self.failed = Some(error),
            other => unreachable!("a lane answers a list with a list or an error, not {other:?}"),
        }
        self.waiting == 0
    }

    fn take_part(&mut self, part: ConversationsAnswer) {
        self.until = self.until.into_iter().chain(part.next).min();
        self.found.extend(part.conversations.into_iter().map(|summary| (summary.conversation, summary)));
    }

    /// One page of all parts, or why there is none. It ends at the limits of items and bytes, too.
    pub(crate) fn page(self) -> Result<ConversationsAnswer, ErrorFrame> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (all, mut bytes) = (self.found.len(), 0);
        let mut conversations = Vec::new();
        for (id, summary) in self.found {
            bytes += summary.last.as_ref().map_or(0, |last| last.0.len());
            let full =
                conversations.len() == self.limit || (bytes > limits::PAGE_BYTES_MAX && !conversations.is_empty());
            if full || self.until.is_some_and(|until| id > until) {
                break;
            }
            conversations.push(summary);
        }
        let more = self.until.is_some() || conversations.len() < all;
        let next = conversations.last().filter(|_| more).map(|last: &Summary| last.conversation);
        Ok(ConversationsAnswer { conversations, next })
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::{
        codes::ErrorCode,
        frame::Role,
        ids::{Epoch, Sequence, TimestampMs},
    };

    use super::*;

    fn id(number: u8) -> ConversationId {
        ConversationId([number; 16])
    }

    /// A lane's part of a list, and after which one it has more.
    fn part(numbers: &[u8], next: Option<u8>) -> Vec<u8> {
        let summary = |number: &u8| Summary {
            conversation: id(*number),
            epoch: Epoch(1),
            direct: None,
            title: String::new(),
            picture: String::new(),
            role: Role::Member,
            last_sequence: Sequence(1),
            last_time_ms: TimestampMs(1),
            members: 1,
            read: Sequence(1),
            unread: 0,
            last: None,
        };
        let answer = ConversationsAnswer { conversations: numbers.iter().map(summary).collect(), next: next.map(id) };
        binary::encode_server(Some(RequestId(1)), &ServerFrame::ConversationsAnswer(answer))
    }

    fn page(limit: u32, parts: &[(&[u8], Option<u8>)]) -> (Vec<u8>, Option<u8>) {
        let mut gather = Gather::new(parts.len() as u8, Some(limit));
        for (index, (numbers, next)) in parts.iter().enumerate() {
            assert_eq!(gather.take(&part(numbers, *next)), index + 1 == parts.len());
        }
        let ConversationsAnswer { conversations, next } = gather.page().unwrap();
        (conversations.iter().map(|one| one.conversation.0[0]).collect(), next.map(|next| next.0[0]))
    }

    #[test]
    fn a_list_over_lanes_leaves_none_out() {
        assert_eq!(page(10, &[(&[1, 3], None), (&[2], None)]), (vec![1, 2, 3], None));
        assert_eq!(page(2, &[(&[1, 3], Some(3)), (&[2, 4], Some(4))]), (vec![1, 2], Some(2)));
        // A lane's part that ended at a limit of bytes: what it has behind that may come before what others gave.
        for parts in [[(&[1][..], Some(1)), (&[2, 4][..], Some(4))], [(&[2, 4][..], Some(4)), (&[1][..], Some(1))]] {
            assert_eq!(page(10, &parts), (vec![1], Some(1)), "{parts:?}");
        }
        assert_eq!(page(10, &[(&[1], Some(1)), (&[2, 4], None)]), (vec![1], Some(1)));
    }

    #[test]
    fn a_list_of_which_a_lane_has_no_part_is_none() {
        let error = ErrorFrame { code: ErrorCode::Overloaded, text: "later".to_owned(), retry_after_ms: Some(1) };
        let mut gather = Gather::new(2, None);
        assert!(!gather.take(&binary::encode_server(Some(RequestId(1)), &ServerFrame::Error(error.clone()))));
        assert!(gather.take(&part(&[1], None)));
        assert_eq!(gather.page(), Err(error));
    }
}
