//! What a run is to do, and each client thread's share of it. Made once, from the options; nothing here changes during a run.

use std::{net::SocketAddr, ops::Range};

use antiphon_wire::{
    codec::Encoding,
    ids::{ClientMessageId, UserId},
};

use crate::{arrivals::Spread, clock::Nanoseconds, random::mix, token::Tokens};

/// Connections that one thread holds: a ring's table of direct descriptors is capped by RLIMIT_NOFILE, and 20,000 is a usual
/// hard limit.
pub const CONNECTIONS_PER_THREAD_MAX: u32 = 18_000;

/// What all threads know.
#[derive(Debug)]
pub struct Plan {
    /// The node.
    pub target: SocketAddr,
    /// Its name in the `Host` header.
    pub host: String,
    /// The path of the upgrade.
    pub path: String,
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
    /// Members of a group; each user is in one. 0: no groups, nothing is sent.
    pub group_size: u32,
    /// Length of a message's text.
    pub text_bytes: usize,
    /// Messages a second, over all threads.
    pub rate_per_second: f64,
    /// How arrivals are spread.
    pub spread: Spread,
    /// The load's beginning that is checked but not measured.
    pub warmup_ns: Nanoseconds,
    /// The measured part of the load.
    pub measured_ns: Nanoseconds,
    /// New connections a second, over all threads; `None`: as fast as they are answered.
    pub connects_per_second: Option<f64>,
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
    /// Its part of rates and limits, 0 to 1.
    pub part: f64,
}

impl Plan {
    /// Splits the connections among `threads`, whole groups each.
    #[must_use]
    pub fn shares(&self, threads: u32) -> Vec<Share> {
        let unit = self.group_size.max(1);
        let units = self.connections.div_ceil(unit);
        let bound = |thread: u32| (u64::from(units) * u64::from(thread) / u64::from(threads)) as u32 * unit;
        let share = |thread: u32| {
            let (first, end) = (bound(thread), bound(thread + 1).min(self.connections));
            let count = end.saturating_sub(first);
            Share { thread, first, count, part: f64::from(count) / f64::from(self.connections.max(1)) }
        };
        (0..threads).map(share).filter(|share| share.count > 0).collect()
    }

    /// The user of a connection, counted over all threads.
    #[must_use]
    pub fn user(&self, connection: u32) -> UserId {
        UserId::new(&format!("load-{:x}-{connection}", self.seed)).expect("short and of plain characters")
    }

    /// The users of some connections.
    #[must_use]
    pub fn users(&self, connections: Range<u32>) -> Vec<UserId> {
        connections.map(|connection| self.user(connection)).collect()
    }

    /// The name of a request to create a group, or of a message: unique in this run, the same in every retry.
    #[must_use]
    pub fn request_key(&self, kind: RequestKind, thread: u32, number: u32) -> ClientMessageId {
        let high = mix((u64::from(self.nonce) << 32 | u64::from(thread)) ^ self.seed.rotate_left(17) ^ kind as u64);
        let low = (kind as u64) << 56 | u64::from(number);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        ClientMessageId(bytes)
    }

    /// The 16 bytes of a connection attempt's `Sec-WebSocket-Key`.
    #[must_use]
    pub fn upgrade_nonce(&self, connection: u32, attempt: u32) -> [u8; 16] {
        let value = u64::from(connection) << 32 | u64::from(attempt);
        let (high, low) = (mix(self.seed ^ value), mix(value ^ u64::from(self.nonce)));
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }
}

/// What a request key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestKind {
    /// A group.
    Group = 1,
    /// A message.
    Message = 2,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plan for tests.
    pub(crate) fn plan(connections: u32, group_size: u32) -> Plan {
        Plan {
            target: ([127, 0, 0, 1], 1).into(),
            host: "127.0.0.1:1".into(),
            path: "/".into(),
            encoding: Encoding::Rkyv,
            tokens: Tokens::Development,
            seed: 7,
            nonce: 1,
            connections,
            group_size,
            text_bytes: 100,
            rate_per_second: 100.0,
            spread: Spread::Poisson,
            warmup_ns: 0,
            measured_ns: 1_000_000_000,
            connects_per_second: None,
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
    fn request_keys_differ() {
        let plan = plan(10, 5);
        let keys = [
            (RequestKind::Group, 0, 0),
            (RequestKind::Message, 0, 0),
            (RequestKind::Message, 1, 0),
            (RequestKind::Message, 0, 1),
        ];
        let keys: std::collections::HashSet<_> =
            keys.map(|(kind, thread, number)| plan.request_key(kind, thread, number)).into();
        assert_eq!(keys.len(), 4);
    }
}
