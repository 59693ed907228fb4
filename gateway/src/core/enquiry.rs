//! What an operator may ask a shard, and what it answers: plain values, so that whoever carries them need not know a shard.
//!
//! Invariant: no answer holds what a message says, a conversation's title or a token. Every answer is bounded.

use antiphon_wire::ids::{ConversationId, DeviceId, TimestampMs, UserId};

use super::{
    busiest::Busy,
    mesh::{LaneId, MeshConnection, ShardId},
};

/// Most conversations that a lane names, by messages and by pushes each.
pub const BUSIEST_MAX: usize = 20;

/// Most connections that a shard names as slow.
pub const SLOW_MAX: usize = 50;

/// Users that are traced at a time.
pub const TRACES_MAX: usize = 4;

/// Events of one trace that a shard keeps until they are taken.
pub const TRACE_EVENTS_MAX: usize = 1_000;

/// A trace ends by itself: so long after it was asked for, at the latest.
pub const TRACE_MS_MAX: u64 = 5 * 60 * 1_000;

/// A question to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Which conversations of its lanes are the busiest?
    Busiest,
    /// Which of its connections do not keep up with what they are sent?
    Slow,
    /// Which sessions has this user, whose home lane is here?
    Sessions(UserId),
    /// How much waits for these connections?
    Waiting(Vec<MeshConnection>),
    /// From now on note what these connections of a user's, and those that the user makes, send and are sent. Asked again with the same
    /// number: these connections', too.
    Trace {
        /// A number that no other trace has.
        number: u64,
        /// Whose.
        user: UserId,
        /// Of those that there are.
        connections: Vec<MeshConnection>,
    },
    /// What was noted since it was last taken?
    TakeTrace(u64),
    /// Note no more.
    EndTrace(u64),
}

/// A shard's answer, of the same name as the question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// By lane, the busiest first.
    Busiest(Vec<(LaneId, Vec<Busy>)>),
    /// Those for which most waits first.
    Slow(SlowConnections),
    /// All of them, in no order.
    Sessions(Vec<SessionAt>),
    /// As they were asked for; `None` for one that has gone.
    Waiting(Vec<Option<Waiting>>),
    /// Whether there was room for a trace.
    Trace(bool),
    /// `None`: the trace has ended.
    TakeTrace(Option<Traced>),
    /// It is noted no more.
    EndTrace,
}

/// Connections that do not keep up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlowConnections {
    /// The slowest, at most [`SLOW_MAX`].
    pub connections: Vec<SlowConnection>,
    /// How many there are.
    pub count: u64,
    /// Times that one was not counted, for want of a place.
    pub uncounted: u64,
}

/// A connection that does not keep up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowConnection {
    /// Which, on its shard.
    pub connection: MeshConnection,
    /// Whose, and of which device.
    pub session: Option<(UserId, DeviceId)>,
    /// Bytes that wait or are in flight.
    pub bytes: u64,
    /// For how long so much has waited, in milliseconds.
    pub for_ms: u64,
}

/// Where a user's session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAt {
    /// Its device.
    pub device: DeviceId,
    /// Its connection's shard.
    pub shard: ShardId,
    /// Its connection there.
    pub connection: MeshConnection,
}

/// How a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Bytes that wait or are in flight.
    pub bytes: u64,
    /// Since something was last heard of it, in milliseconds.
    pub heard_ms_ago: u64,
}

/// Which way a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    In,
    /// To the client, or to its queue.
    Out,
    /// None: a session began or ended.
    Session,
}

/// Something that was noted of a traced session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// When, by the wall clock.
    pub time: TimestampMs,
    /// Of which device.
    pub device: DeviceId,
    /// Which way.
    pub direction: Direction,
    /// Which frame, by its name in the protocol's JSON; a name that no client chooses.
    pub kind: String,
    /// The id of the request, or of the one that is answered.
    pub request: Option<u64>,
    /// Which conversation it is about.
    pub conversation: Option<ConversationId>,
    /// Its bytes: from the client the frame's alone, to the client as it leaves.
    pub bytes: u64,
    /// Bytes that waited for the client afterwards.
    pub waiting_bytes: u64,
}

/// What was noted in a while.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traced {
    /// In order, at most [`TRACE_EVENTS_MAX`].
    pub events: Vec<TraceEvent>,
    /// Earlier ones that were dropped for want of a place.
    pub dropped: u64,
}
