//! What shards say to one another: archived frames in two classes, requests towards a lane and deliveries towards connections.
//!
//! The two classes travel in separate bounded queues, and a shard always drains its deliveries. A delivery ends at a connection; what a
//! session has held until then waits at its own shard, within the session's bounds. So a full queue of requests can never keep a delivery
//! from being taken: two shards that push back on each other cannot lock each other up.
#![allow(missing_docs, reason = "rkyv's derive makes undocumented twins of the fields of enum variants")]

use antiphon_wire::{
    frame::{Known, UserPresence},
    ids::{ConversationId, DeviceId, Epoch, LanePosition, Sequence, TimestampMs, UserId},
};
use rkyv::{Archive, Deserialize, Serialize, rancor::Error as RancorError};

use super::{io::ConnectionKey, privacy::Privacy};

/// A shard's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct ShardId(pub u16);

/// A log lane's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct LaneId(pub u8);

/// A connection, as the mesh names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct MeshConnection {
    /// Slot on its shard.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u32,
}

impl From<ConnectionKey> for MeshConnection {
    fn from(key: ConnectionKey) -> Self {
        Self { slot: key.slot, generation: key.generation }
    }
}

impl From<MeshConnection> for ConnectionKey {
    fn from(connection: MeshConnection) -> Self {
        Self { slot: connection.slot, generation: connection.generation }
    }
}

/// From a connection's shard to a lane's.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum LaneFrame {
    /// A session begins: catch it up, then deliver to it.
    Attach {
        /// Whose.
        user: UserId,
        /// Which device.
        device: DeviceId,
        /// When its token was issued; the home lane alone looks at it.
        issued: TimestampMs,
        /// Where it is.
        connection: MeshConnection,
        /// What the client was given by this lane; `None` if it starts afresh.
        since: Option<LanePosition>,
        /// Conversations of which it has more.
        known: Vec<Known>,
        /// What its user shows others; `None`: everything to everybody. The home lane knows itself.
        privacy: Option<Privacy>,
    },
    /// A session ended.
    Detach {
        /// Whose.
        user: UserId,
        /// Where it was.
        connection: MeshConnection,
    },
    /// A request, as a binary wire frame with the client's request id (0: none).
    Request {
        /// Whose.
        user: UserId,
        /// Where the answer goes.
        connection: MeshConnection,
        /// Not 0: the answer is one of several that the session gathers under this number.
        gather: u32,
        /// The binary wire frame.
        frame: Vec<u8>,
    },
    /// A request in a user's name without a session: a call of the HTTP API.
    Call {
        /// Whose.
        user: UserId,
        /// Where the answer goes.
        connection: MeshConnection,
        /// The binary wire frame.
        frame: Vec<u8>,
        /// What the user shows others, where they hear a receipt of it; `None`: everything to everybody.
        privacy: Option<Privacy>,
    },
    /// What a session's user shows others has changed.
    Privacy {
        /// Whose.
        user: UserId,
        /// Which.
        connection: MeshConnection,
        /// `None`: everything to everybody.
        privacy: Option<Privacy>,
    },
    /// A session asks which of these users, whose home the lane is, hide from its user how far they have read.
    AskReceipts {
        /// Whose session.
        user: UserId,
        /// Where the answer goes.
        connection: MeshConnection,
        /// The session gathers answers under this number.
        gather: u32,
        /// Whose receipts; at least one.
        of: Vec<UserId>,
    },
    /// A session asks about users whose home the lane is.
    Watch {
        /// Whose session.
        user: UserId,
        /// Where the answer goes, and what comes of it later.
        connection: MeshConnection,
        /// The session gathers answers under this number.
        gather: u32,
        /// From now on.
        watch: Vec<UserId>,
        /// Not any more.
        unwatch: Vec<UserId>,
    },
}

/// Why a session may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Barred {
    /// Its device was logged out.
    Revoked,
    /// So many devices of its user are connected as may be.
    TooManyDevices {
        /// As may be.
        most: u32,
    },
}

/// From a lane's shard to a connection's.
#[derive(Debug, Clone, PartialEq, Archive, Serialize, Deserialize)]
pub enum ConnectionFrame {
    /// One push for many connections: a binary wire frame.
    Push {
        /// What it is about: pushes of one conversation stay in order.
        conversation: ConversationId,
        /// To sessions that this lane has caught up.
        connections: Vec<MeshConnection>,
        /// Whether a later push with the same key makes this one worthless; 0: never.
        conflation_key: u64,
        /// The binary wire frame.
        frame: Vec<u8>,
    },
    /// The answer to a request: a binary wire frame.
    Reply {
        /// Where to.
        connection: MeshConnection,
        /// The request's.
        gather: u32,
        /// The binary wire frame, with the request's id.
        frame: Vec<u8>,
    },
    /// What the session's user shows others has changed.
    Privacy {
        /// Where to.
        connection: MeshConnection,
        /// `None`: everything to everybody.
        privacy: Option<Privacy>,
    },
    /// The answer to [`LaneFrame::AskReceipts`].
    Receipts {
        /// Where to.
        connection: MeshConnection,
        /// The request's.
        gather: u32,
        /// Who hides them; `None`: it cannot be told now.
        hidden: Option<Vec<UserId>>,
    },
    /// The answer to [`LaneFrame::Watch`].
    Watched {
        /// Where to.
        connection: MeshConnection,
        /// The request's.
        gather: u32,
        /// Those that are watched from now on, as they are.
        users: Vec<UserPresence>,
        /// How many of this lane's users the connection watches.
        watching: u32,
    },
    /// Users have come or gone.
    Present {
        /// They, as they are seen now.
        users: Vec<UserPresence>,
        /// Connections, and which of the users each is told of.
        connections: Vec<(MeshConnection, Vec<u32>)>,
    },
    /// What belongs to the answer that follows: a binary wire frame without an id.
    Beside {
        /// Where to.
        connection: MeshConnection,
        /// The binary wire frame.
        frame: Vec<u8>,
    },
    /// The home lane lets a session in that asks to be attached; its catch-up follows.
    Entered {
        /// Where to.
        connection: MeshConnection,
        /// Tokens of its device are refused that were issued then or before.
        refused_until: TimestampMs,
        /// What its user shows others; `None`: everything to everybody.
        privacy: Option<Privacy>,
    },
    /// The home lane does not let a session in, or not any longer.
    Barred {
        /// Which.
        connection: MeshConnection,
        /// Why.
        why: Barred,
    },
    /// The answer to [`LaneFrame::Attach`]; pushes of this lane follow.
    CaughtUp {
        /// Where to.
        connection: MeshConnection,
        /// Everything up to here came before or is in here.
        position: LanePosition,
        /// The position given was beyond this lane's: nothing can be resumed.
        reset: bool,
        /// Missing entries.
        entries: Vec<Vec<u8>>,
        /// What became of messages among them: binary wire frames.
        states: Vec<Vec<u8>>,
        /// Conversations of which too much is missing: id, epoch, first, last.
        too_far: Vec<(ConversationId, Epoch, Sequence, Sequence)>,
        /// The user's pointers where they may have moved: conversation, read, delivered.
        pointers: Vec<(ConversationId, Sequence, Sequence)>,
        /// Conversations that the user left since.
        left: Vec<(ConversationId, Sequence)>,
    },
    /// Everything up to here has been sent to this shard.
    Position {
        /// The lane's durable position.
        position: LanePosition,
    },
    /// The answer to [`LaneFrame::Attach`] when it can't be done: the session is to end, and its client comes back.
    AttachFailed {
        /// Which.
        connection: MeshConnection,
    },
    /// The same device connected elsewhere.
    Replaced {
        /// The connection to end.
        connection: MeshConnection,
    },
}

/// A frame's bytes on the mesh, and the lane that they go to or come from.
#[derive(Debug, Clone)]
pub struct MeshMessage {
    /// The lane concerned.
    pub lane: LaneId,
    /// The shard that the frame comes from.
    pub from: ShardId,
    /// The archived frame.
    pub bytes: Vec<u8>,
}

macro_rules! archived {
    ($name:ident) => {
        impl $name {
            /// The frame's archive.
            #[must_use]
            pub fn to_bytes(&self) -> Vec<u8> {
                rkyv::api::high::to_bytes_in::<_, RancorError>(self, Vec::new())
                    .expect("a mesh frame has no failing serializer")
            }

            /// Reads an archive that [`Self::to_bytes`] made on another shard of this process.
            #[must_use]
            pub fn from_bytes(bytes: &[u8]) -> Self {
                rkyv::from_bytes::<Self, RancorError>(bytes).expect("a shard of this process made these bytes")
            }
        }
    };
}

archived!(LaneFrame);
archived!(ConnectionFrame);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_went() {
        let frame = ConnectionFrame::Push {
            conversation: ConversationId([7; 16]),
            connections: vec![MeshConnection { slot: 7, generation: 1 }],
            conflation_key: 0,
            frame: vec![65, 0, 0, 0, 0, 0, 0, 0],
        };
        assert_eq!(ConnectionFrame::from_bytes(&frame.to_bytes()), frame);
        let frame = LaneFrame::Detach {
            user: UserId::new("alice").expect("a user id"),
            connection: MeshConnection { slot: 1, generation: 2 },
        };
        assert_eq!(LaneFrame::from_bytes(&frame.to_bytes()), frame);
    }
}
