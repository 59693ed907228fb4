//! Connections that do not keep up with what they are sent, found as it happens: no question about them looks through all connections.
//!
//! Invariants: a connection stands here exactly while [`Connection::is_slow`] says so; so many do at most, and what is beyond is counted.
//!
//! [`Connection::is_slow`]: crate::core::connection::Connection::is_slow

use std::{cmp::Reverse, collections::HashMap};

use antiphon_engine::seams::{Clock, Files, Random};

use super::{
    super::{
        enquiry::{SLOW_MAX, SlowConnection, SlowConnections},
        io::ConnectionKey,
    },
    ShardCore,
};

/// So much must wait for a connection: what a chat's client has on its way is far below, and a page of history is taken in a moment.
pub(super) const SLOW_BYTES_MIN: usize = 16 * 1024;

/// Connections that have a place.
const PLACES_MAX: usize = 1_024;

/// Those that do not keep up now.
#[derive(Default)]
pub(super) struct Slow {
    /// Since when, by monotonic time.
    since_ms: HashMap<ConnectionKey, u64>,
    uncounted: u64,
}

impl<F: Files, C: Clock, R: Random> ShardCore<F, C, R> {
    /// Much waits for a connection that is not listed yet.
    #[cold]
    pub(super) fn is_slow_now(&mut self, key: ConnectionKey) {
        if self.slow.since_ms.len() == PLACES_MAX {
            self.slow.uncounted += 1;
            return;
        }
        let now_ms = self.now_ms;
        if let Some(connection) = self.connection(key) {
            connection.is_slow = true;
            self.slow.since_ms.insert(key, now_ms);
        }
    }

    /// A connection that is listed has caught up, or has gone.
    #[cold]
    pub(super) fn is_slow_no_more(&mut self, key: ConnectionKey) {
        self.slow.since_ms.remove(&key);
        if let Some(connection) = self.connection(key) {
            connection.is_slow = false;
        }
    }

    pub(super) fn slow_connections(&mut self) -> SlowConnections {
        let listed: Vec<(ConnectionKey, u64)> = self.slow.since_ms.iter().map(|(key, since)| (*key, *since)).collect();
        let now_ms = self.now_ms;
        let found = listed.into_iter().filter_map(|(key, since_ms)| {
            let connection = self.connection(key)?;
            let bytes = connection.outbound.bytes();
            let session = connection.session().and_then(|session| session.identity());
            let session = session.map(|(user, device)| (user.clone(), device.clone()));
            let for_ms = now_ms.saturating_sub(since_ms);
            // One that was told to go has had its queue thrown away.
            let waits = bytes >= SLOW_BYTES_MIN;
            waits.then_some(SlowConnection { connection: key.into(), session, bytes: bytes as u64, for_ms })
        });
        let mut connections: Vec<SlowConnection> = found.collect();
        let count = connections.len() as u64;
        connections.sort_by_key(|slow| Reverse((slow.bytes, slow.for_ms)));
        connections.truncate(SLOW_MAX);
        SlowConnections { connections, count, uncounted: self.slow.uncounted }
    }
}
