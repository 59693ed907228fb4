//! Where things live: conversations in partitions, partitions on lanes, lanes on shards.

use antiphon_engine::partitions::lane_of;
use antiphon_wire::ids::{ConversationId, UserId};

use super::mesh::{LaneId, ShardId};

/// How a node is laid out; the same on every shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Shards, at least one.
    pub shards: u16,
    /// Log lanes, at least one and at most one a shard.
    pub lanes: u8,
}

impl Placement {
    /// The lane that owns a conversation.
    #[must_use]
    pub fn lane_of(&self, conversation: ConversationId) -> LaneId {
        LaneId(lane_of(conversation, u16::from(self.lanes)) as u8)
    }

    /// The lane that keeps a user's devices apart and says who is there: the one that owns the user's account, which has rules on that.
    #[must_use]
    pub fn home_of(&self, user: &UserId) -> LaneId {
        if self.lanes == 1 { LaneId(0) } else { self.lane_of(ConversationId::account(user)) }
    }

    /// The shard that a lane lives on. Lanes spread evenly over the shards, so that with many shards a core they do not share one.
    #[must_use]
    pub fn shard_of(&self, lane: LaneId) -> ShardId {
        ShardId(u16::from(lane.0) * (self.shards / u16::from(self.lanes)))
    }

    /// The number by which the mesh knows the outside thread, which asks lanes as a shard does and is none: the one after the last shard's.
    #[must_use]
    pub fn outside(&self) -> ShardId {
        ShardId(self.shards)
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = LaneId> + use<> {
        (0..self.lanes).map(LaneId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_a_shard_of_its_own() {
        for shards in 1..70_u16 {
            for lanes in 1..=(shards.min(16) as u8) {
                let placement = Placement { shards, lanes };
                let mut homes: Vec<_> = placement.lanes().map(|lane| placement.shard_of(lane)).collect();
                homes.dedup();
                assert_eq!(homes.len(), lanes as usize);
                assert!(homes.iter().all(|shard| shard.0 < shards));
            }
        }
    }
}
