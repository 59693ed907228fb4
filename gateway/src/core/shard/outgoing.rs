//! Frames of this shard for shards, itself among them. Bounded because their makers stop while too many wait.

use std::collections::VecDeque;

use super::super::mesh::{ConnectionFrame, LaneFrame, LaneId, MeshMessage, ShardId};

/// Frames that may wait for another shard's queue. Beyond it this shard takes no more requests, and its sessions hear `overloaded`.
pub(super) const MESH_BACKLOG_MAX: usize = 16_384;

/// Frames for itself that a shard keeps room for: more than a busy turn has.
const ROOM_KEPT: usize = 512;

/// A frame for another shard, and which of its queues it goes to.
#[derive(Debug)]
pub enum MeshOut {
    /// Towards a lane.
    Request(ShardId, MeshMessage),
    /// Towards connections.
    Delivery(ShardId, MeshMessage),
}

/// Frames of this shard for shards, itself among them.
pub(super) struct Outgoing {
    id: ShardId,
    pub(super) remote: VecDeque<MeshOut>,
    pub(super) requests: VecDeque<(LaneId, LaneFrame)>,
    pub(super) deliveries: VecDeque<(LaneId, ConnectionFrame)>,
    /// Frames that were taken from here and wait at a full queue.
    pub(super) kept: usize,
}

impl Outgoing {
    pub(super) fn new(id: ShardId) -> Self {
        Self { id, remote: VecDeque::new(), requests: VecDeque::new(), deliveries: VecDeque::new(), kept: 0 }
    }

    pub(super) fn request(&mut self, to: ShardId, lane: LaneId, frame: LaneFrame) {
        if to == self.id {
            self.requests.push_back((lane, frame));
        } else {
            let message = MeshMessage { lane, from: self.id, bytes: frame.to_bytes() };
            self.remote.push_back(MeshOut::Request(to, message));
        }
    }

    pub(super) fn delivery(&mut self, to: ShardId, lane: LaneId, frame: ConnectionFrame) {
        if to == self.id {
            self.deliveries.push_back((lane, frame));
        } else {
            let message = MeshMessage { lane, from: self.id, bytes: frame.to_bytes() };
            self.remote.push_back(MeshOut::Delivery(to, message));
        }
    }

    pub(super) fn backlog(&self) -> usize {
        self.remote.len() + self.deliveries.len() + self.kept
    }

    /// Frames on their way to lanes, with all others for other shards.
    pub(super) fn requests_waiting(&self) -> usize {
        self.remote.len() + self.requests.len() + self.kept
    }

    /// Its own queues have room for a storm no longer than that lasts.
    pub(super) fn give_back_room(&mut self) {
        if self.requests.is_empty() && self.requests.capacity() > ROOM_KEPT {
            self.requests = VecDeque::new();
        }
        if self.deliveries.is_empty() && self.deliveries.capacity() > ROOM_KEPT {
            self.deliveries = VecDeque::new();
        }
    }

    pub(super) fn lanes_are_busy(&self) -> bool {
        self.requests_waiting() >= MESH_BACKLOG_MAX
    }
}
