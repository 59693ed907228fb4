//! Answers of shards as JSON.

use antiphon_wire::ids::ConversationId;
use serde_json::{Value, json};

use crate::core::{
    busiest::Busy,
    enquiry::{Direction, SessionAt, SlowConnection, TraceEvent, Waiting},
    mesh::{LaneId, MeshConnection, ShardId},
};

/// Hexadecimal digits of a conversation's id that are shown where it is redacted.
const DIGITS_SHOWN: usize = 8;

pub(super) fn busy(lane: LaneId, busy: Busy) -> Value {
    json!({
        "conversation": busy.conversation,
        "lane": lane.0,
        "messages_per_second": rounded(busy.messages_per_second),
        "pushes_per_second": rounded(busy.pushes_per_second),
    })
}

pub(super) fn slow(shard: ShardId, slow: &SlowConnection) -> Value {
    json!({
        "shard": shard.0,
        "connection": connection(slow.connection),
        "user": slow.session.as_ref().map(|(user, _)| user),
        "device": slow.session.as_ref().map(|(_, device)| device),
        "bytes": slow.bytes,
        "for_ms": slow.for_ms,
    })
}

pub(super) fn device(at: &SessionAt, waiting: Option<Waiting>) -> Value {
    json!({
        "device": at.device,
        "shard": at.shard.0,
        "connection": connection(at.connection),
        "waiting_bytes": waiting.map(|waiting| waiting.bytes),
        "heard_ms_ago": waiting.map(|waiting| waiting.heard_ms_ago),
    })
}

pub(super) fn event(number: u64, shard: ShardId, event: &TraceEvent, is_redacted: bool) -> Value {
    let direction = match event.direction {
        Direction::In => "in",
        Direction::Out => "out",
        Direction::Session => "session",
    };
    json!({
        "number": number,
        "time_ms": event.time,
        "shard": shard.0,
        "device": event.device,
        "direction": direction,
        "kind": event.kind,
        "request": event.request,
        "conversation": event.conversation.map(|conversation| conversation_text(conversation, is_redacted)),
        "bytes": event.bytes,
        "waiting_bytes": event.waiting_bytes,
    })
}

fn conversation_text(conversation: ConversationId, is_redacted: bool) -> String {
    let mut text = conversation.to_string();
    if is_redacted {
        // It has no other characters than digits and dashes.
        text.truncate(DIGITS_SHOWN);
    }
    text
}

/// A connection as its shard knows it: slot and generation.
fn connection(connection: MeshConnection) -> String {
    format!("{}.{}", connection.slot, connection.generation)
}

/// Two digits behind the point say all that a sketch knows.
fn rounded(rate: f64) -> f64 {
    (rate * 100.0).round() / 100.0
}
