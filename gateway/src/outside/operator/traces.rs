//! The traces of users that operators look at: shards note events, here they are numbered and kept until they are read.
//!
//! Invariants: so many traces at a time and so many events of each; what is dropped in a shard, or was not read in time, is counted. A
//! trace ends by itself.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use antiphon_wire::{codes::ErrorCode, ids::UserId};
use serde_json::{Value, json};

use super::shapes;
use crate::{
    core::{
        enquiry::{TRACE_EVENTS_MAX, TRACE_MS_MAX, TRACES_MAX, TraceEvent, Traced},
        mesh::ShardId,
    },
    outside::backend::problem::Problem,
};

/// What is asked of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// Events from this number on.
    pub(super) since: u64,
    /// Conversations are shown by the beginning of their ids only.
    pub(super) is_redacted: bool,
}

impl Asked {
    /// Reads a query.
    pub(super) fn read(query: &str) -> Result<Self, Problem> {
        let mut asked = Self { since: 0, is_redacted: true };
        for (name, value) in query.split('&').filter_map(|part| part.split_once('=')) {
            let wrong = || Problem::new(ErrorCode::Invalid, format!("{name} is not {value:?}"));
            match name {
                "since" => asked.since = value.parse().map_err(|_| wrong())?,
                "redact" => asked.is_redacted = value.parse().map_err(|_| wrong())?,
                _ => return Err(Problem::new(ErrorCode::Invalid, "a trace knows since and redact only")),
            }
        }
        Ok(asked)
    }
}

/// Those that there are.
#[derive(Default)]
pub(super) struct Traces {
    traces: Vec<Trace>,
    last: u64,
}

pub(super) struct Trace {
    number: u64,
    user: UserId,
    ends: Instant,
    events: VecDeque<(u64, ShardId, TraceEvent)>,
    /// The next event's number.
    next: u64,
    /// Events that shards had no place for.
    dropped: u64,
}

impl Traces {
    /// The number of a user's trace, and whether it is new.
    pub(super) fn begin(&mut self, user: &UserId, now: Instant) -> Result<(u64, bool), Problem> {
        if let Some(trace) = self.traces.iter().find(|trace| trace.user == *user) {
            return Ok((trace.number, false));
        }
        if self.traces.len() == TRACES_MAX {
            return Err(too_many());
        }
        self.last += 1;
        let ends = now + Duration::from_millis(TRACE_MS_MAX);
        let (number, user) = (self.last, user.clone());
        self.traces.push(Trace { number, user, ends, events: VecDeque::new(), next: 1, dropped: 0 });
        Ok((number, true))
    }

    pub(super) fn get(&mut self, user: &UserId) -> Result<&mut Trace, Problem> {
        let none = || Problem::new(ErrorCode::NotFound, "no such trace, or its time is up");
        self.traces.iter_mut().find(|trace| trace.user == *user).ok_or_else(none)
    }

    pub(super) fn number(&mut self, user: &UserId) -> Result<u64, Problem> {
        self.get(user).map(|trace| trace.number)
    }

    pub(super) fn ends_in(&self, user: &UserId, now: Instant) -> Option<Duration> {
        let trace = self.traces.iter().find(|trace| trace.user == *user)?;
        Some(trace.ends.saturating_duration_since(now))
    }

    pub(super) fn remove(&mut self, user: &UserId) {
        self.traces.retain(|trace| trace.user != *user);
    }

    /// Forgets those whose time is up; their numbers.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<u64> {
        let ended = self.traces.iter().filter(|trace| trace.ends <= now).map(|trace| trace.number).collect();
        self.traces.retain(|trace| trace.ends > now);
        ended
    }
}

impl Trace {
    /// What shards have noted since they were last asked, in the order of time.
    pub(super) fn take(&mut self, taken: impl Iterator<Item = (ShardId, Traced)>) {
        let mut events = Vec::new();
        for (shard, traced) in taken {
            self.dropped += traced.dropped;
            events.extend(traced.events.into_iter().map(|event| (shard, event)));
        }
        // Stable: what a shard says of one moment stays in order.
        events.sort_by_key(|(_, event)| event.time);
        for (shard, event) in events {
            if self.events.len() == TRACE_EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back((self.next, shard, event));
            self.next += 1;
        }
    }

    pub(super) fn shown(&self, asked: Asked, now: Instant) -> Value {
        let oldest = self.next - self.events.len() as u64;
        let missed = oldest.saturating_sub(asked.since.max(1));
        let events = self.events.iter().filter(|(number, ..)| *number >= asked.since);
        let events: Vec<Value> =
            events.map(|(number, shard, event)| shapes::event(*number, *shard, event, asked.is_redacted)).collect();
        json!({
            "user": self.user,
            "events": events,
            "next": self.next,
            "dropped": self.dropped,
            "missed": missed,
            "ends_in_ms": self.ends.saturating_duration_since(now).as_millis() as u64,
        })
    }
}

pub(super) fn too_many() -> Problem {
    Problem::new(ErrorCode::LimitReached, format!("{TRACES_MAX} users are traced already: end one of these"))
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::{ConversationId, DeviceId, TimestampMs};

    use super::*;
    use crate::core::enquiry::Direction;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn event(time_ms: u64) -> TraceEvent {
        TraceEvent {
            time: TimestampMs(time_ms),
            device: DeviceId::new("phone").unwrap(),
            direction: Direction::In,
            kind: "send".to_owned(),
            request: Some(7),
            conversation: Some(ConversationId([0xab; 16])),
            bytes: 120,
            waiting_bytes: 3,
        }
    }

    #[test]
    fn events_are_numbered_in_the_order_of_time_and_dropped_ones_counted() {
        let (mut traces, now) = (Traces::default(), Instant::now());
        assert_eq!(traces.begin(&user("alice"), now).unwrap(), (1, true));
        assert_eq!(traces.begin(&user("alice"), now).unwrap(), (1, false));
        let trace = traces.get(&user("alice")).unwrap();
        let of = |times: &[u64], dropped| Traced { events: times.iter().map(|time| event(*time)).collect(), dropped };
        trace.take([(ShardId(1), of(&[10, 30], 2)), (ShardId(0), of(&[20], 0))].into_iter());
        let shown = trace.shown(Asked::read("since=2").unwrap(), now);
        let times: Vec<&Value> = shown["events"].as_array().unwrap().iter().map(|event| &event["time_ms"]).collect();
        assert_eq!((times, &shown["next"], &shown["dropped"]), (vec![&json!(20), &json!(30)], &json!(4), &json!(2)));
        assert_eq!(shown["events"][0]["shard"], 0);
        trace.take([(ShardId(0), of(&vec![40; TRACE_EVENTS_MAX], 0))].into_iter());
        let shown = trace.shown(Asked::read("").unwrap(), now);
        assert_eq!(shown["events"].as_array().unwrap().len(), TRACE_EVENTS_MAX);
        assert_eq!(
            (&shown["events"][0]["number"], &shown["dropped"], &shown["missed"]),
            (&json!(4), &json!(2), &json!(3))
        );
        let told = |query: &str| trace.shown(Asked::read(query).unwrap(), now)["missed"].clone();
        assert_eq!((told("since=3"), told("since=4"), told("since=2000")), (json!(1), json!(0), json!(0)));
    }

    #[test]
    fn a_conversation_is_redacted_unless_it_is_asked_for() {
        let (mut traces, now) = (Traces::default(), Instant::now());
        traces.begin(&user("alice"), now).unwrap();
        let trace = traces.get(&user("alice")).unwrap();
        trace.take([(ShardId(0), Traced { events: vec![event(1)], dropped: 0 })].into_iter());
        let shown = |query: &str| trace.shown(Asked::read(query).unwrap(), now)["events"][0].clone();
        assert_eq!(shown("")["conversation"], "abababab");
        assert_eq!(shown("redact=true")["conversation"], "abababab");
        assert_eq!(shown("redact=false&since=1")["conversation"], "abababab-abab-abab-abab-abababababab");
        for wrong in ["redact=no", "since=-1", "since=", "content=true"] {
            assert!(Asked::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_trace_ends_by_itself_and_there_are_not_too_many() {
        let (mut traces, now) = (Traces::default(), Instant::now());
        for number in 0..TRACES_MAX {
            traces.begin(&user(&format!("u{number}")), now).unwrap();
        }
        assert!(traces.begin(&user("late"), now).is_err());
        traces.remove(&user("u0"));
        let later = now + Duration::from_secs(1);
        assert_eq!(traces.begin(&user("late"), later).unwrap(), (TRACES_MAX as u64 + 1, true));
        let over = now + Duration::from_millis(TRACE_MS_MAX);
        assert_eq!(traces.take_ended(over), [2, 3, 4]);
        assert!(traces.get(&user("u1")).is_err() && traces.get(&user("late")).is_ok());
    }
}
