//! Sessions on their way in: looked up by their user's home lane, caught up by the engine, and then delivered to.
//!
//! Invariants: once a logging out is answered, no session is let in by a token that it refuses: one is looked up before its catch-up is asked
//! for, and what was logged out, or hidden, between the two is found by a count when it has come. Its route is added in the step that hands on its catch-up.

use antiphon_engine::{
    door::{self, Command, Done, Refusal, Token},
    seams::{Clock, Files, Random},
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::Known,
    ids::{ConversationId, DeviceId, Epoch, LanePosition, Sequence, TimestampMs, UserId},
    limits::DEVICES_MAX,
};

use super::{Lane, Pending, Then, devices::known, privacy::ruling_items, states_frames};
use crate::core::{
    mesh::{Barred, ConnectionFrame, MeshConnection, ShardId},
    privacy::Privacy,
    registry::Route,
    session::is_refused,
};

/// Sessions whose catch-up the engine has at a time. When all of a node's clients come back at once, a message finds no more than these
/// before it. With far fewer, those that wait for the disk keep the others waiting (256: a third of the sessions a second).
const CATCH_UPS_MAX: usize = 4_096;

/// Sessions that wait for theirs: what a lane catches up in the ten seconds that a client waits for its welcome; those beyond are told to
/// come back. Turning away costs more than waiting, so not less (16,384: half a million attempts, and four times as long).
const ATTACHES_WAITING_MAX: usize = 65_536;

/// Users are counted together in so many groups: of a group one of whom logs devices out, or shows otherwise who may
/// see what, those who are being attached just then come back.
const GROUPS: usize = 1_024;

/// A session that is being attached.
pub(super) struct Attach {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) issued: TimestampMs,
    pub(super) shard: ShardId,
    pub(super) connection: MeshConnection,
    /// Of a session of whose user the lane is the home.
    pub(super) entering: Option<Entering>,
    /// The position given was refused; this catch-up starts afresh.
    pub(super) reset: bool,
    /// What its user shows others; the home lane looks it up.
    pub(super) privacy: Option<Privacy>,
}

/// A session that waits to be attached.
pub(super) struct Waiting {
    pub(super) attach: Attach,
    since: Option<LanePosition>,
    known: Vec<(ConversationId, Epoch, Sequence)>,
}

/// How far a session is that is not attached yet.
pub(super) enum Attaching {
    /// Among those that wait.
    Waits,
    /// The engine has its catch-up.
    Asked(Token),
}

/// What a lane knows of sessions beside who they are.
pub(super) struct Logins {
    pub(super) devices_max: u32,
    /// By group of users, how often one of them has changed what sessions are let in by: logged devices out, or said who may see what.
    changed: Box<[u32]>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { devices_max: DEVICES_MAX as u32, changed: vec![0; GROUPS].into() }
    }
}

impl Logins {
    /// How often users of the user's group have changed what sessions are let in by.
    fn changed(&mut self, user: &UserId) -> &mut u32 {
        let hash = user.as_str().bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31) + usize::from(byte));
        &mut self.changed[hash % GROUPS]
    }

    /// A user has changed that: sessions that were looked up before are to come back.
    pub(super) fn changes(&mut self, user: &UserId) {
        let count = self.changed(user);
        *count = count.wrapping_add(1);
    }
}

/// What was found of a session before its catch-up was asked for.
#[derive(Clone, Copy)]
pub(super) struct Entering {
    /// Tokens of its device are refused that were issued then or before.
    refused_until: TimestampMs,
    /// How often users of its user's group had changed what it was let in by.
    changed: u32,
}

impl<F: Files, C: Clock, R: Random> Lane<F, C, R> {
    /// A session asks to be attached: it waits for its turn.
    pub(super) fn attach(
        &mut self,
        attach: Attach,
        since: Option<LanePosition>,
        known: &[Known],
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let (shard, connection) = (attach.shard, attach.connection);
        if self.waiting.len() == ATTACHES_WAITING_MAX {
            return send(shard, ConnectionFrame::AttachFailed { connection });
        }
        let known = known.iter().map(|known| (known.conversation, known.epoch, known.sequence)).collect();
        self.privacies.set(&attach.user, (shard, connection), attach.privacy.clone());
        self.attaching.insert((shard, connection), Attaching::Waits);
        self.waiting.push_back(Waiting { attach, since, known });
    }

    /// Has the engine catch up those who wait, as many as it takes at a time. Once a turn, after the requests that came.
    pub fn catch_up(&mut self) {
        while self.has_catch_ups() {
            let Some(Waiting { attach, since, known }) = self.waiting.pop_front() else { break };
            // One that is not there has gone.
            if !self.attaching.contains_key(&(attach.shard, attach.connection)) {
                continue;
            }
            let waiting = Waiting { attach, since, known };
            if self.is_home_of(&waiting.attach.user) { self.ask_to_enter(waiting) } else { self.ask_catch_up(waiting) }
        }
    }

    /// Whether [`Self::catch_up`] has something to do.
    #[must_use]
    pub fn has_catch_ups(&self) -> bool {
        self.catch_ups < CATCH_UPS_MAX && !self.waiting.is_empty()
    }

    /// So many devices of a user may be connected at a time.
    pub fn set_devices_max(&mut self, most: u32) {
        self.logins.devices_max = most;
    }

    /// Looks up whether a session may be before it is caught up.
    fn ask_to_enter(&mut self, waiting: Waiting) {
        self.look_up_account(&waiting.attach.user.clone(), Pending::Enter(Box::new(waiting)));
    }

    fn ask_catch_up(&mut self, Waiting { attach, since, known }: Waiting) {
        let user = attach.user.clone();
        self.submit(Pending::Attach(attach), Command::CatchUp { user, since, known });
    }

    /// It is known which of the user's devices are logged out.
    pub(super) fn may_enter(
        &mut self,
        mut waiting: Waiting,
        result: Result<Done, Refusal>,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let Attach { user, device, issued, shard, connection, .. } = &waiting.attach;
        let (shard, connection) = (*shard, *connection);
        let found = ruling_items(result).and_then(|items| Ok((known(&items)?.0, Privacy::of(&items))));
        let (known, privacy) = match found {
            Ok(found) => found,
            // Who may not be is not known: nobody is let in.
            Err(_) => return send(shard, ConnectionFrame::AttachFailed { connection }),
        };
        let refused_until = known.refused_until(device);
        if is_refused(*issued, refused_until) {
            return send(shard, ConnectionFrame::Barred { connection, why: Barred::Revoked });
        }
        let changed = *self.logins.changed(user);
        (waiting.attach.entering, waiting.attach.privacy) = (Some(Entering { refused_until, changed }), privacy);
        self.ask_catch_up(waiting);
    }

    /// Whether a session that is caught up may still be; if so, and the lane is its user's home, it is told.
    fn is_let_in(&mut self, attach: &Attach, send: &mut impl FnMut(ShardId, ConnectionFrame)) -> bool {
        let Attach { user, device, shard, connection, entering, privacy, .. } = attach;
        let Some(Entering { refused_until, changed }) = *entering else { return true };
        let (shard, connection) = (*shard, *connection);
        if *self.logins.changed(user) != changed {
            send(shard, ConnectionFrame::AttachFailed { connection });
            return false;
        }
        let others = self.registry.routes(user).iter().filter(|route| route.device != *device).count();
        let most = self.logins.devices_max;
        if others >= most as usize {
            send(shard, ConnectionFrame::Barred { connection, why: Barred::TooManyDevices { most } });
            return false;
        }
        send(shard, ConnectionFrame::Entered { connection, refused_until, privacy: privacy.clone() });
        true
    }

    /// The engine has answered a catch-up.
    pub(super) fn attached(
        &mut self,
        attach: Attach,
        result: Result<Done, Refusal>,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let caught_up = match result {
            Ok(Done::CaughtUp(caught_up)) => caught_up,
            Ok(other) => unreachable!("the engine answers a catch-up with a catch-up, not {other:?}"),
            Err(Refusal { code: ErrorCode::Invalid, .. }) if !attach.reset => {
                let command = Command::CatchUp { user: attach.user.clone(), since: None, known: Vec::new() };
                return self.submit(Pending::Attach(Attach { reset: true, ..attach }), command);
            }
            // The session stays without this lane's pushes: it is ended, and its client comes back.
            Err(_) => {
                return send(attach.shard, ConnectionFrame::AttachFailed { connection: attach.connection });
            }
        };
        if !self.is_let_in(&attach, send) {
            return;
        }
        let Attach { user, device, shard, connection, reset, privacy, .. } = attach;
        let home = self.is_home_of(&user);
        if home && self.presence.came(&user) {
            self.look_up_rule(user.clone(), Then::Nothing);
        }
        if !self.registry.has(&user) {
            self.fanout.note(&user);
        }
        if home {
            self.privacies.set(&user, (shard, connection), privacy);
        }
        if let Some(replaced) = self.registry.attach(user, Route { device, shard, connection }, home) {
            send(replaced.shard, ConnectionFrame::Replaced { connection: replaced.connection });
        }
        let door::CaughtUp { position, entries, states, too_far, pointers, left } = *caught_up;
        self.touched[usize::from(shard.0)] = true;
        let frame = ConnectionFrame::CaughtUp {
            connection,
            position: self.told_position(position),
            reset,
            entries: entries.iter().map(|archive| archive.to_vec()).collect(),
            states: states.into_iter().flat_map(states_frames).collect(),
            too_far: too_far.into_iter().map(|far| (far.conversation, far.epoch, far.first, far.last)).collect(),
            pointers,
            left,
        };
        send(shard, frame);
    }
}

#[cfg(test)]
mod tests {
    use antiphon_engine::{
        Engine, EngineOptions,
        memory_files::{MemoryClock, MemoryFiles, MemoryRandom, block_on},
    };

    use super::*;
    use crate::core::{
        mesh::{LaneId, MeshConnection},
        placement::Placement,
    };

    #[test]
    fn who_was_looked_up_before_a_logging_out_is_not_let_in_after_it() {
        let options = EngineOptions { log_file_bytes: 2 << 20, ..EngineOptions::new(0) };
        let engine = Engine::open(MemoryFiles::new(1), MemoryClock::new(1_000), MemoryRandom::new(1), options);
        let placement = Placement { shards: 1, lanes: 1 };
        let mut lane = Lane::new(LaneId(0), placement, block_on(engine).expect("it opens").0);
        let user = |name: &str| UserId::new(name).expect("a user id");
        let attach = |slot, name: &str, changed| Attach {
            user: user(name),
            device: DeviceId::new("phone").expect("a device id"),
            issued: TimestampMs(5),
            shard: ShardId(0),
            connection: MeshConnection { slot, generation: 0 },
            entering: Some(Entering { refused_until: TimestampMs(0), changed }),
            privacy: None,
            reset: false,
        };
        let looked_up = [attach(1, "ann", 0), attach(2, "bob", 0)];
        // Ann logs a device out, and that is answered before what she missed has been read for the one that comes.
        lane.logins.changes(&user("ann"));
        let again = attach(3, "ann", *lane.logins.changed(&user("ann")));
        let mut told = Vec::new();
        let let_in = looked_up.iter().chain([&again]).map(|attach| {
            let is_let_in = lane.is_let_in(attach, &mut |_, frame| told.push(frame));
            (attach.connection.slot, is_let_in)
        });
        assert_eq!(let_in.collect::<Vec<_>>(), [(1, false), (2, true), (3, true)]);
        let connection = MeshConnection { slot: 1, generation: 0 };
        assert_eq!(told[0], ConnectionFrame::AttachFailed { connection });
    }
}
