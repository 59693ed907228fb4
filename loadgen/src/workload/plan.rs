//! What a run is to do, and each client thread's share of it. Made once, from the options; nothing here changes during a run.

use std::{net::SocketAddr, ops::Range};

use antiphon_wire::{
    codec::Encoding,
    ids::{ClientMessageId, TimestampMs, UserId},
};

use super::large::plan::LargePlan;
use crate::{
    arrivals::{Segment, Spread},
    clock::Nanoseconds,
    law::Sampler,
    layout::Layer,
    random::{Random, mix},
    token::Tokens,
    transport::Transport,
};

/// Connections that one thread holds: a ring's table of direct descriptors is capped by RLIMIT_NOFILE, and 20,000 is a usual
/// hard limit.
pub const CONNECTIONS_PER_THREAD_MAX: u32 = 18_000;

/// Most named parts of a run: each has histograms of its own on every thread.
pub const PARTS_MAX: usize = 16;

/// An end that is not planned: the run says when.
pub const OPEN_END_NS: Nanoseconds = 1 << 60;

/// What all threads know.
#[derive(Debug)]
pub struct Plan {
    /// The node.
    pub target: SocketAddr,
    /// Its name in the `Host` header.
    pub host: String,
    /// The path of the upgrade.
    pub path: String,
    /// How bytes travel.
    pub transport: Transport,
    /// How frames are encoded.
    pub encoding: Encoding,
    /// Where the token of a user comes from.
    pub tokens: Tokens,
    /// Decides names and arrivals.
    pub seed: u64,
    /// Tells this run's groups and messages from those of another run with the same seed on the same data.
    pub nonce: u32,
    /// How many connections; one a user.
    pub connections: u32,
    /// The number of the first user: several processes share a run.
    pub first_user: u32,
    /// Plain echoes instead of sessions.
    pub echo: Option<Echo>,
    /// One very large group, beside the conversations.
    pub large: Option<LargePlan>,
    /// The conversations; none: nothing is sent.
    pub layers: Vec<Layer>,
    /// Users who must be on one thread: a whole group, where groups are equal.
    pub unit: u32,
    /// Who sends.
    pub senders: Senders,
    /// Length of a message's text.
    pub text_bytes: Sampler,
    /// Messages a second, over all threads.
    pub rate_per_second: f64,
    /// How arrivals are spread.
    pub spread: Spread,
    /// At the load's beginning, the rate rises from nothing for so long.
    pub ramp_ns: Nanoseconds,
    /// The load's beginning that is checked but not measured.
    pub warmup_ns: Nanoseconds,
    /// The measured part of the load; [`OPEN_END_NS`] if the run decides.
    pub measured_ns: Nanoseconds,
    /// Named stretches of the load, measured apart. Those of a mix have rates and follow each other; those of `slow` and `storm`
    /// begin when the run says.
    pub parts: Vec<Part>,
    /// New connections a second, over all threads; `None`: as fast as they are answered.
    pub connects_per_second: Option<f64>,
    /// Attempts under way at once are limited; real clients that lost their node are not.
    pub limits_attempts: bool,
    /// Attempts a second of those who were lost, over all threads; `None`: as the shipped client waits.
    pub returns_per_second: Option<f64>,
    /// Histories are read at the end, and compared with what was acknowledged.
    pub verifies: bool,
    /// The share of connections that stop reading when the run says.
    pub slow_share: f64,
    /// SO_RCVBUF of these.
    pub slow_receive_bytes: Option<u32>,
    /// What the people of a mix do beside sending.
    pub habits: Habits,
    /// Length of a row of the timeline.
    pub row_ns: Nanoseconds,
}

/// `echo`: no sessions, only WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Messages of a connection that are on their way at once, each sent when one came back; `None`: an open loop.
    pub in_flight: Option<u32>,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Senders {
    /// Any active user.
    Anyone,
    /// Of each group the first member alone.
    First,
}

/// A named stretch of the load.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its name in reports.
    pub name: String,
    /// How long, if it is planned.
    pub length_ns: Nanoseconds,
    /// Messages a second at its beginning and end, over all threads.
    pub rates: Option<(f64, f64)>,
}

/// What the people of a mix do beside sending.
#[derive(Debug, Clone)]
pub struct Habits {
    /// The share of users who send at all.
    pub active_share: f64,
    /// The share of messages that go to direct conversations, where there are both kinds.
    pub direct_share: f64,
    /// The share of messages that somebody answers.
    pub reply_share: f64,
    /// How long they think before, in milliseconds.
    pub think_ms: Sampler,
    /// Connections that go away a second, over all threads.
    pub reconnects_per_second: f64,
    /// How long they stay away, in milliseconds.
    pub away_ms: Sampler,
    /// Of how many others each is told whether they are there.
    pub watch: u32,
}

/// One thread's part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Which thread.
    pub thread: u32,
    /// Its first connection among all.
    pub first: u32,
    /// How many it has.
    pub count: u32,
    /// Its part of all connections and their limits, 0 to 1.
    pub part: f64,
    /// Its part of the messages, 0 to 1.
    pub load_part: f64,
    /// What its connections are.
    pub role: Role,
}

/// What a thread's connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Users of the conversations.
    Chat,
    /// Members of the large group.
    Large,
}

impl Plan {
    /// Splits the connections among `threads`, whole groups each.
    #[must_use]
    pub fn shares(&self, threads: u32) -> Vec<Share> {
        let Some(large) = &self.large else { return self.split(0..self.connections, Role::Chat, 0, threads) };
        let chat_threads = threads_for(large.first);
        let mut shares = self.split(0..large.first, Role::Chat, 0, chat_threads);
        let large_threads = threads.saturating_sub(chat_threads).max(threads_for(large.connected));
        shares.extend(self.split(large.first..self.connections, Role::Large, chat_threads, large_threads));
        shares
    }

    fn split(&self, connections: Range<u32>, role: Role, first_thread: u32, threads: u32) -> Vec<Share> {
        let unit = if role == Role::Chat { self.unit.max(1) } else { 1 };
        let whole = connections.len() as u32;
        let units = whole.div_ceil(unit);
        let bound = |thread: u32| (u64::from(units) * u64::from(thread) / u64::from(threads)) as u32 * unit;
        let of = |count: u32, all: u32| f64::from(count) / f64::from(all.max(1));
        let share = |thread: u32| {
            let (first, end) = (bound(thread), bound(thread + 1).min(whole));
            let count = end.saturating_sub(first);
            let (part, load_part) = (of(count, self.connections), of(count, whole));
            Share { thread: first_thread + thread, first: connections.start + first, count, part, load_part, role }
        };
        (0..threads).map(share).filter(|share| share.count > 0).collect()
    }

    /// The rates of a thread with this part of the load, from the start on.
    #[must_use]
    pub fn segments(&self, start_ns: Nanoseconds, part: f64) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut from_ns = start_ns;
        let mut add = |length_ns: Nanoseconds, rate_from: f64, rate_to: f64| {
            let to_ns = from_ns.saturating_add(length_ns);
            segments.push(Segment { from_ns, to_ns, rate_from: rate_from * part, rate_to: rate_to * part });
            from_ns = to_ns;
        };
        if self.parts.iter().any(|part| part.rates.is_some()) {
            for phase in &self.parts {
                let (rate_from, rate_to) = phase.rates.unwrap_or_default();
                add(phase.length_ns, rate_from, rate_to);
            }
        } else {
            let whole_ns = self.warmup_ns.saturating_add(self.measured_ns);
            let ramp_ns = self.ramp_ns.min(whole_ns);
            if ramp_ns > 0 {
                add(ramp_ns, 0.0, self.rate_per_second);
            }
            add(whole_ns - ramp_ns, self.rate_per_second, self.rate_per_second);
        }
        segments
    }

    /// Whether a connection, counted over all threads, is one that stops reading: every so-manyth.
    #[must_use]
    pub fn is_slow(&self, connection: u32) -> bool {
        is_of_share(connection, self.slow_share)
    }

    /// Whether a user sends at all.
    #[must_use]
    pub fn is_active(&self, connection: u32) -> bool {
        self.habits.active_share >= 1.0 || is_of_share(connection, self.habits.active_share)
    }

    /// Length of a message's text: the same in every retry.
    #[must_use]
    pub fn text_bytes(&self, thread: u32, number: u32) -> usize {
        let mut random = Random::new(self.seed ^ u64::from(thread), u64::from(number));
        self.text_bytes.draw(&mut random).max(1) as usize
    }

    /// The user of a connection, counted over all threads.
    #[must_use]
    pub fn user(&self, connection: u32) -> UserId {
        if let Some(member) = self.large.as_ref().and_then(|large| connection.checked_sub(large.first)) {
            return self.large_member(member);
        }
        let connection = self.first_user + connection;
        UserId::new(&format!("load-{:x}-{connection}", self.seed)).expect("short and of plain characters")
    }

    /// A member of the large group, connected or not: the same in every run with this seed.
    #[must_use]
    pub fn large_member(&self, member: u32) -> UserId {
        UserId::new(&format!("load-{:x}-m{member}", self.seed)).expect("short and of plain characters")
    }

    /// The name of the request to create the large group: the same in every run with this seed and so many members, so that it is filled once.
    #[must_use]
    pub fn large_key(&self) -> ClientMessageId {
        let members = self.large.as_ref().map_or(0, |large| large.members);
        let high = mix(self.seed.rotate_left(17) ^ RequestKind::LargeGroup as u64);
        let low = (RequestKind::LargeGroup as u64) << 56 | u64::from(members);
        ClientMessageId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// The users of some connections.
    #[must_use]
    pub fn users(&self, connections: Range<u32>) -> Vec<UserId> {
        connections.map(|connection| self.user(connection)).collect()
    }

    /// The name of a request to create a group: unique in this run, the same in every retry.
    #[must_use]
    pub fn group_key(&self, thread: u32, number: u32) -> ClientMessageId {
        let high = self.mixed(RequestKind::Group, thread);
        let low = (RequestKind::Group as u64) << 56 | u64::from(number);
        ClientMessageId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// The id of a message that was due at this time: of version 7, as clients make them, unique in this run, the same in every retry.
    #[must_use]
    pub fn message_id(&self, thread: u32, number: u32, due: TimestampMs) -> ClientMessageId {
        let mixed = self.mixed(RequestKind::Message, thread);
        ClientMessageId::timed(due, u128::from(mixed) << 32 | u128::from(number))
    }

    fn mixed(&self, kind: RequestKind, thread: u32) -> u64 {
        mix((u64::from(self.nonce) << 32 | u64::from(thread)) ^ self.seed.rotate_left(17) ^ kind as u64)
    }

    /// The 16 bytes of a connection attempt's `Sec-WebSocket-Key`.
    #[must_use]
    pub fn upgrade_nonce(&self, connection: u32, attempt: u32) -> [u8; 16] {
        let value = u64::from(connection) << 32 | u64::from(attempt);
        let (high, low) = (mix(self.seed ^ value), mix(value ^ u64::from(self.nonce)));
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }
}

/// Threads that so many connections need.
#[must_use]
pub fn threads_for(connections: u32) -> u32 {
    connections.div_ceil(CONNECTIONS_PER_THREAD_MAX)
}

/// Every so-manyth: any stretch of connections has its share, give or take one.
fn is_of_share(connection: u32, share: f64) -> bool {
    (f64::from(connection + 1) * share).floor() > (f64::from(connection) * share).floor()
}

/// What a name is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum RequestKind {
    /// A group.
    Group = 1,
    /// A message.
    Message = 2,
    /// The large group.
    LargeGroup = 3,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{clock::SECOND_NS, law::Law};

    /// A plan for tests.
    pub(crate) fn plan(connections: u32, group_size: u32) -> Plan {
        let always = |value| Sampler::new(Law::Fixed(value));
        Plan {
            target: ([127, 0, 0, 1], 1).into(),
            host: "127.0.0.1:1".into(),
            path: "/".into(),
            transport: Transport::Plain,
            encoding: Encoding::Rkyv,
            tokens: Tokens::Development,
            seed: 7,
            nonce: 1,
            connections,
            first_user: 0,
            echo: None,
            large: None,
            layers: vec![Layer::Groups(always(group_size))],
            unit: group_size,
            senders: Senders::Anyone,
            text_bytes: always(100),
            rate_per_second: 100.0,
            spread: Spread::Poisson,
            ramp_ns: 0,
            warmup_ns: 0,
            measured_ns: SECOND_NS,
            parts: Vec::new(),
            connects_per_second: None,
            limits_attempts: true,
            returns_per_second: None,
            verifies: false,
            slow_share: 0.0,
            slow_receive_bytes: None,
            habits: Habits {
                active_share: 1.0,
                direct_share: 0.0,
                reply_share: 0.0,
                think_ms: always(0),
                reconnects_per_second: 0.0,
                away_ms: always(0),
                watch: 0,
            },
            row_ns: SECOND_NS,
        }
    }

    #[test]
    fn segments_follow_the_ramp_or_the_phases() {
        let mut plan = plan(10, 5);
        (plan.ramp_ns, plan.warmup_ns) = (SECOND_NS / 2, SECOND_NS);
        let of = |plan: &Plan| -> Vec<_> {
            let segments = plan.segments(SECOND_NS, 0.5);
            segments
                .iter()
                .map(|segment| (segment.from_ns, segment.to_ns, segment.rate_from, segment.rate_to))
                .collect()
        };
        let (half, second) = (SECOND_NS / 2, SECOND_NS);
        assert_eq!(of(&plan), [(second, 3 * half, 0.0, 50.0), (3 * half, 3 * second, 50.0, 50.0)]);
        let part = |name: &str, rates| Part { name: name.into(), length_ns: second, rates: Some(rates) };
        plan.parts = vec![part("morning", (0.0, 10.0)), part("noon", (10.0, 10.0))];
        assert_eq!(of(&plan), [(second, 2 * second, 0.0, 5.0), (2 * second, 3 * second, 5.0, 5.0)]);
    }

    #[test]
    fn shares_of_connections_are_exact_and_spread() {
        for share in [0.0, 0.01, 0.1, 0.25, 0.5, 1.0] {
            let of = |range: Range<u32>| range.filter(|&connection| is_of_share(connection, share)).count() as f64;
            assert_eq!(of(0..1_000), (1_000.0 * share).round());
            assert!((of(300..400) - 100.0 * share).abs() <= 1.0, "{share}");
        }
    }

    #[test]
    fn shares_hold_whole_groups_and_every_connection_once() {
        for (connections, group_size, threads) in
            [(2_000, 20, 3), (2_001, 20, 3), (7, 20, 4), (500_000, 20, 28), (10, 0, 3), (5, 1, 9)]
        {
            let shares = plan(connections, group_size).shares(threads);
            let mut next = 0;
            for share in &shares {
                assert_eq!((share.first, share.first % group_size.max(1)), (next, 0));
                next += share.count;
            }
            assert_eq!(next, connections);
            assert!((shares.iter().map(|share| share.part).sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn chat_and_the_large_group_have_threads_of_their_own() {
        for (chat, connected, threads) in [(500, 2_000, 1), (500, 100_000, 6), (0, 10, 1), (40_000, 10, 9)] {
            let mut plan = plan(chat + connected, 20);
            let mut large = LargePlan::new(200_000, connected, 1, 1, 1);
            large.first = chat;
            plan.large = Some(large);
            let shares = plan.shares(threads);
            let mut next = 0;
            for (thread, share) in shares.iter().enumerate() {
                let role = if share.first < chat { Role::Chat } else { Role::Large };
                assert_eq!((share.thread as usize, share.first, share.role), (thread, next, role));
                assert!(share.count <= CONNECTIONS_PER_THREAD_MAX, "{share:?}");
                next += share.count;
            }
            assert_eq!(next, chat + connected);
            let parts =
                |role| shares.iter().filter(|share| share.role == role).map(|share| share.load_part).sum::<f64>();
            assert!((parts(Role::Large) - 1.0).abs() < 1e-9 && (chat == 0 || (parts(Role::Chat) - 1.0).abs() < 1e-9));
            assert!((shares.iter().map(|share| share.part).sum::<f64>() - 1.0).abs() < 1e-9);
            assert_eq!((plan.user(chat), plan.user(chat + 7)), (plan.large_member(0), plan.large_member(7)));
        }
    }

    #[test]
    fn names_differ_and_those_of_messages_tell_when_they_were_made() {
        let plan = plan(10, 5);
        let made = TimestampMs(1_780_000_000_123);
        let names = [
            plan.group_key(0, 0),
            plan.group_key(0, 1),
            plan.message_id(0, 0, made),
            plan.message_id(1, 0, made),
            plan.message_id(0, 1, made),
            plan.message_id(0, u32::MAX, made),
        ];
        assert_eq!(std::collections::HashSet::from(names).len(), names.len());
        assert!(names[2..].iter().all(|id| id.made() == Some(made)));
        assert_eq!(plan.message_id(0, 7, made), plan.message_id(0, 7, made));
        let other_run = Plan { nonce: plan.nonce + 1, ..self::plan(10, 5) };
        assert_ne!(plan.message_id(0, 7, made), other_run.message_id(0, 7, made));
    }
}
