//! Time: what ends connections of which nothing, or not enough, is heard, and when the shard wants its next turn.
//!
//! All deadlines are of monotonic time but one: a token ends by the wall clock, as its issuer wrote it. If that clock jumps, sessions whose
//! token is over by the new time end when they are looked at next, which is within the silence that ends a session; nothing else moves.

use antiphon_engine::seams::{Clock, Files, Random};
use antiphon_wire::{
    codes::{CloseCode, ErrorCode},
    frame::{ErrorFrame, ServerFrame},
};

use super::{
    super::{
        connection::Stage,
        io::{Command, ConnectionKey},
        lane::Lane,
        session::TokenAt,
    },
    ShardCore,
};

impl<F: Files, C: Clock, R: Random> ShardCore<F, C, R> {
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let closing = self.closing.front().map(|(deadline, _)| *deadline);
        // A lane tells its position once a second while there is anything to tell: the same beat serves.
        let lane = (!self.lanes.is_empty() && self.counters.connections > 0).then(|| self.now_ms + 1_000);
        let slices =
            |lane: &Lane<F, C, R>| lane.presence_wakes_at_ms().into_iter().chain(lane.hints_wake_at_ms()).min();
        let slices = self.lanes.iter().filter_map(slices).min();
        [closing, self.timers.next_ms(), self.turned_away.wake_at_ms(), self.drain_wakes_at_ms(), lane, slices]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn run_timers(&mut self) {
        while self.closing.front().is_some_and(|(deadline, _)| *deadline <= self.now_ms) {
            let Some((_, key)) = self.closing.pop_front() else { break };
            if self.connection(key).is_some() {
                self.commands.push_back(Command::Close { connection: key });
                self.forget(key);
            }
        }
        while let Some(connection) = self.turned_away.expire(self.now_ms) {
            self.commands.push_back(Command::Close { connection });
        }
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(self.now_ms, &mut due);
        for key in due.drain(..) {
            self.look(key);
        }
        self.due = due;
    }

    /// A connection's time has come, or only seems so: whatever came meanwhile has moved its deadline on.
    fn look(&mut self, key: ConnectionKey) {
        let (now_ms, now) = (self.now_ms, self.clock.now());
        let config = &self.view.config;
        let (head_ms, connect_ms, silence_ms) =
            (config.head_timeout_ms, config.connect_timeout_ms, config.silence_ms_max);
        let Some(connection) = self.connection(key) else { return };
        let heard_at_ms = connection.heard_at_ms;
        let mut tell = None;
        let (over_at_ms, look_at_ms, code) = match &mut connection.stage {
            Stage::Closing { .. } => return,
            Stage::Handshake { .. } => (heard_at_ms + head_ms, u64::MAX, None),
            Stage::Open { session, .. } => match session.token_at(now) {
                TokenAt::Absent => (heard_at_ms + connect_ms, u64::MAX, Some(CloseCode::ConnectTimeout)),
                TokenAt::Over => {
                    let text = ErrorCode::TokenExpired.text().into();
                    let error = ErrorFrame { code: ErrorCode::TokenExpired, text, retry_after_ms: None };
                    self.tell(key, None, &ServerFrame::Error(error));
                    return self.end(key, CloseCode::TokenExpired, None, false);
                }
                TokenAt::Good { tell: told, look_at } => {
                    tell = told;
                    let look_at_ms = now_ms.saturating_add(look_at.0 - now.0);
                    (heard_at_ms + silence_ms, look_at_ms, Some(CloseCode::Silent))
                }
            },
        };
        if now_ms < over_at_ms {
            if let Some(expiring) = tell {
                self.tell(key, None, &ServerFrame::Expiring(expiring));
                self.mark_dirty(key);
            }
            return self.timers.set(key, over_at_ms.min(look_at_ms));
        }
        match code {
            Some(CloseCode::Silent) => self.counters.silent += 1,
            Some(_) => {
                self.counters.connects_timed_out += 1;
                self.failed(key);
            }
            None => {
                self.counters.heads_timed_out += 1;
                self.failed(key);
            }
        }
        // Without a WebSocket there is nothing to say and no closing handshake; the code is of no use then.
        self.end(key, code.unwrap_or(CloseCode::ConnectTimeout), None, false);
    }
}
