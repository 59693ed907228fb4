//! A shard's counters. They are only told; nothing is decided by them but where that is said.

use super::super::admission::Refusal;

/// What a shard has done, for metrics. Only ever added to, but for the gauges at the end.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections not taken, by [`Refusal::index`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Those of them that were closed without an answer, because too many were being answered.
    pub refused_unanswered: u64,
    /// Connections of addresses that shared a bucket, because there was no place for one of their own.
    pub addresses_untracked: u64,
    /// What trusted proxies said of their clients and made no sense.
    pub forwarded_malformed: u64,
    /// HTTP requests that were not a good upgrade.
    pub http_refused: u64,
    /// Connections closed because their request's head was not whole in time.
    pub heads_timed_out: u64,
    /// Connections closed because `connect` did not succeed in time.
    pub connects_timed_out: u64,
    /// Tokens that were not accepted.
    pub tokens_refused: u64,
    /// Sessions that connected.
    pub sessions_started: u64,
    /// Frames from clients.
    pub frames_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Frames queued for clients.
    pub frames_out: u64,
    /// Bytes handed to the driver.
    pub bytes_out: u64,
    /// Messages and other pushes queued for clients.
    pub deliveries: u64,
    /// Connections closed for more frames a second than they may send.
    pub frames_limited: u64,
    /// WebSocket protocol violations.
    pub protocol_errors: u64,
    /// Sessions closed as slow consumers.
    pub slow_consumers: u64,
    /// Sessions that ended by silence.
    pub silent: u64,
    /// Sessions replaced by the same device.
    pub replaced: u64,
    /// Sessions ended, or not let in, because their device was logged out.
    pub revoked: u64,
    /// Sessions not let in because as many devices of their user were there as may be.
    pub too_many_devices: u64,
    /// Errors sent, by code.
    pub errors: [u64; 32],
    /// Now: open connections. The shard's bound on them is judged by it.
    pub connections: u64,
    /// Now: connected sessions.
    pub sessions: u64,
    /// Now: those of them that wait for a lane's catch-up. Whether more are accepted is judged by it.
    pub attaching: u64,
    /// Now: frames that wait for other shards.
    pub mesh_backlog: u64,
}
