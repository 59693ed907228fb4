//! Pushes to many connections, given to some of them at a time: whatever others wait for goes on between.
//!
//! Invariants: what a lane says of one conversation reaches a connection in the lane's order; a lane's position counts only when all that it
//! stands for has been handed on. Answers to requests do not wait.
//! Must not do: I/O.

use std::collections::{HashMap, VecDeque};

use antiphon_engine::seams::{Clock, Files, Random};
use antiphon_wire::ids::{ConversationId, LanePosition};

use super::{Rendered, ShardCore};
use crate::core::mesh::{LaneId, MeshConnection};

/// Connections that may wait for pushes, each as often as it does; beyond, all are given theirs at once, which holds others up.
const WAITING_MAX: usize = 2_000_000;

/// A frame for many connections.
pub(super) struct Push {
    pub(super) conversation: ConversationId,
    pub(super) connections: Vec<MeshConnection>,
    pub(super) conflation_key: u64,
    pub(super) frame: Vec<u8>,
}

enum Waiting {
    Push {
        push: Push,
        /// How many connections have it.
        given: usize,
    },
    Position(LanePosition),
}

/// What waits, in order.
#[derive(Default)]
pub(super) struct Later {
    waiting: VecDeque<(LaneId, Waiting)>,
    /// How many pushes of a conversation wait, where any does.
    conversations: HashMap<ConversationId, u32>,
    /// How much of each lane waits.
    lanes: HashMap<LaneId, u32>,
    connections: usize,
}

impl Later {
    /// Whether a push is to wait: for so many connections, or behind another one of its conversation.
    pub(super) fn is_for(&self, push: &Push, at_a_time: usize) -> bool {
        push.connections.len() > at_a_time || self.conversations.contains_key(&push.conversation)
    }

    pub(super) fn push(&mut self, lane: LaneId, push: Push) {
        *self.conversations.entry(push.conversation).or_default() += 1;
        *self.lanes.entry(lane).or_default() += 1;
        self.connections += push.connections.len();
        self.waiting.push_back((lane, Waiting::Push { push, given: 0 }));
    }

    /// A lane is so far, once what waits of it is done; given back if nothing does.
    pub(super) fn position(&mut self, lane: LaneId, position: LanePosition) -> Option<LanePosition> {
        let Some(count) = self.lanes.get_mut(&lane) else { return Some(position) };
        *count += 1;
        self.waiting.push_back((lane, Waiting::Position(position)));
        None
    }

    fn done(&mut self, lane: LaneId, conversation: Option<ConversationId>) {
        release(&mut self.lanes, lane);
        if let Some(conversation) = conversation {
            release(&mut self.conversations, conversation);
        }
    }
}

fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, of: K) {
    if let Some(count) = counts.get_mut(&of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&of);
        }
    }
}

impl<F: Files, C: Clock, R: Random> ShardCore<F, C, R> {
    /// Gives some connections what waits for them. True if more does.
    pub(super) fn give_later(&mut self) -> bool {
        let mut left = match self.later.connections {
            WAITING_MAX.. => usize::MAX,
            _ => self.view.config.fanout.at_a_time,
        };
        while let Some((lane, waiting)) = self.later.waiting.pop_front() {
            match waiting {
                Waiting::Position(position) => {
                    self.later.done(lane, None);
                    self.advance(lane, position);
                }
                Waiting::Push { push, given } => {
                    let until = push.connections.len().min(given.saturating_add(left));
                    let mut rendered = Rendered::new(&push.frame);
                    for connection in &push.connections[given..until] {
                        self.push((*connection).into(), lane, push.conflation_key, &mut rendered);
                    }
                    self.later.connections -= until - given;
                    left -= until - given;
                    if until < push.connections.len() {
                        self.later.waiting.push_front((lane, Waiting::Push { push, given: until }));
                    } else {
                        self.later.done(lane, Some(push.conversation));
                    }
                }
            }
            if left == 0 {
                break;
            }
        }
        !self.later.waiting.is_empty()
    }
}
