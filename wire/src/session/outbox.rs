//! Sends that wait for their acknowledgement, in the order in which the application gave them.
//!
//! Invariants: bounded in items and bytes; an item leaves once, by answer or by its own entry coming back; what was on its way
//! when a connection broke goes again under the same name, in the same order. A temporary refusal holds everything back until its
//! time, because what goes past a refused send would overtake it (those that were on their way already may still do).

use std::collections::VecDeque;

use super::PendingSend;
use crate::{
    frame::{Content, Send},
    ids::{ClientMessageId, ConversationId, RequestId},
};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    bytes: usize,
    in_flight: usize,
    hold_until_ms: u64,
}

#[derive(Debug)]
struct Item {
    send: Send,
    request: Option<RequestId>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn has_room(&self, content: &Content, items_max: usize, bytes_max: usize) -> bool {
        self.items.len() < items_max && self.bytes + content.0.len() <= bytes_max
    }

    pub(super) fn contains(&self, client_message_id: ClientMessageId) -> bool {
        self.items.iter().any(|item| item.send.client_message_id == client_message_id)
    }

    pub(super) fn push(&mut self, send: Send) {
        self.bytes += send.content.0.len();
        self.items.push_back(Item { send, request: None });
    }

    /// The next send that may go now, with the request that it becomes.
    pub(super) fn next_to_send(
        &mut self,
        now_ms: u64,
        in_flight_max: usize,
        request: impl FnOnce() -> RequestId,
    ) -> Option<(RequestId, &Send)> {
        if now_ms < self.hold_until_ms || self.in_flight >= in_flight_max {
            return None;
        }
        let item = self.items.iter_mut().find(|item| item.request.is_none())?;
        let id = request();
        item.request = Some(id);
        self.in_flight += 1;
        Some((id, &item.send))
    }

    /// When held-back sends may go.
    pub(super) fn next_due_ms(&self, in_flight_max: usize) -> Option<u64> {
        (self.in_flight < self.items.len().min(in_flight_max)).then_some(self.hold_until_ms)
    }

    /// Takes out the send that a request stands for, if it still waits.
    pub(super) fn take_request(&mut self, id: RequestId) -> Option<Send> {
        let index = self.items.iter().position(|item| item.request == Some(id))?;
        Some(self.remove(index))
    }

    /// Takes out a send whose entry was seen. One of the same name with another content waits on: its answer is `conflict`.
    pub(super) fn take_seen(
        &mut self,
        conversation: ConversationId,
        name: ClientMessageId,
        content: &[u8],
    ) -> Option<Send> {
        let same = |item: &Item| {
            let Send { conversation: to, client_message_id, content: of } = &item.send;
            *to == conversation && *client_message_id == name && of.0 == content
        };
        let index = self.items.iter().position(same)?;
        Some(self.remove(index))
    }

    /// A request was refused for now: it goes again, and nothing before then.
    pub(super) fn hold(&mut self, id: RequestId, until_ms: u64) {
        if let Some(item) = self.items.iter_mut().find(|item| item.request == Some(id)) {
            item.request = None;
            self.in_flight -= 1;
            self.hold_until_ms = self.hold_until_ms.max(until_ms);
        }
    }

    /// The connection is gone: everything goes again.
    pub(super) fn disconnected(&mut self) {
        for item in &mut self.items {
            item.request = None;
        }
        self.in_flight = 0;
        self.hold_until_ms = 0;
    }

    pub(super) fn pending(&self) -> impl Iterator<Item = PendingSend<'_>> {
        self.items.iter().map(|item| PendingSend {
            conversation: item.send.conversation,
            client_message_id: item.send.client_message_id,
            content: &item.send.content,
        })
    }

    fn remove(&mut self, index: usize) -> Send {
        let item = self.items.remove(index).expect("the index was just found");
        self.bytes -= item.send.content.0.len();
        self.in_flight -= usize::from(item.request.is_some());
        item.send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: ConversationId = ConversationId([1; 16]);

    fn name(number: u8) -> ClientMessageId {
        ClientMessageId([number; 16])
    }

    fn outbox(count: u8) -> Outbox {
        let mut outbox = Outbox::default();
        for number in 1..=count {
            let (conversation, client_message_id) = (CONVERSATION, name(number));
            outbox.push(Send { conversation, client_message_id, content: Content::text("12345") });
        }
        outbox
    }

    fn sent(outbox: &mut Outbox, now_ms: u64, in_flight_max: usize) -> Vec<u8> {
        let mut number = 100;
        let mut got = Vec::new();
        while let Some((_, send)) = outbox.next_to_send(now_ms, in_flight_max, || {
            number += 1;
            RequestId(number)
        }) {
            got.push(send.client_message_id.0[0]);
        }
        got
    }

    #[test]
    fn sends_go_in_order_within_the_window_and_again_after_a_break() {
        let mut outbox = outbox(4);
        assert_eq!(outbox.next_due_ms(3), Some(0));
        assert_eq!(sent(&mut outbox, 0, 3), [1, 2, 3]);
        assert_eq!(outbox.next_due_ms(3), None);
        assert_eq!(outbox.take_request(RequestId(102)).unwrap().client_message_id, name(2));
        assert!(outbox.take_request(RequestId(102)).is_none());
        outbox.disconnected();
        assert_eq!(sent(&mut outbox, 0, 3), [1, 3, 4]);
        let content = Content::text("12345").0;
        assert!(outbox.take_seen(ConversationId([2; 16]), name(1), &content).is_none());
        assert!(outbox.take_seen(CONVERSATION, name(1), &Content::text("other").0).is_none());
        assert!(outbox.take_seen(CONVERSATION, name(1), &content).is_some());
        assert!(!outbox.contains(name(1)) && outbox.contains(name(3)));
    }

    #[test]
    fn a_refusal_holds_what_follows() {
        let mut outbox = outbox(3);
        assert_eq!(sent(&mut outbox, 0, 2), [1, 2]);
        outbox.hold(RequestId(101), 500);
        assert_eq!(outbox.next_due_ms(2), Some(500));
        assert!(sent(&mut outbox, 499, 2).is_empty());
        outbox.hold(RequestId(102), 400);
        assert_eq!(sent(&mut outbox, 500, 9), [1, 2, 3]);
    }

    #[test]
    fn bounds_count_what_waits() {
        let mut outbox = outbox(2);
        let content = Content::text("12345");
        assert!(
            outbox.has_room(&content, 3, 18) && !outbox.has_room(&content, 3, 17) && !outbox.has_room(&content, 2, 99)
        );
        outbox.take_seen(CONVERSATION, name(1), &content.0);
        assert!(outbox.has_room(&content, 2, 12));
        outbox.take_seen(CONVERSATION, name(2), &content.0);
        assert!(outbox.is_empty() && outbox.bytes == 0 && outbox.in_flight == 0);
    }
}
