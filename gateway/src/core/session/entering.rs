//! A session between `connect` and the word of its user's home lane, which knows what devices are logged out.
//!
//! Invariant: until then no other lane hears of it, and nothing that it asks is done. What it asks meanwhile waits, within bounds, and is
//! done in its order afterwards.

use antiphon_wire::{
    codes::{CloseCode, ErrorCode},
    frame::{Known, ServerFrame, Welcome},
    ids::{LanePosition, RequestId, TimestampMs},
};

use super::{Action, Environment, Session, refuse};
use crate::core::{
    mesh::{Barred, LaneFrame, LaneId},
    privacy::Privacy,
};

/// What may wait: more than a client has to ask that knows nothing yet.
const HELD_MAX: usize = 64;
const HELD_BYTES_MAX: usize = 64 * 1024;

/// What a session is to be told and to do once it is let in.
#[derive(Debug)]
pub(super) struct Entering {
    id: Option<RequestId>,
    welcome: Welcome,
    issued: TimestampMs,
    since: Option<Vec<LanePosition>>,
    /// What the client has beyond its position, of lanes that have not been asked.
    known: Vec<Known>,
    held: Vec<Vec<u8>>,
    held_bytes: usize,
}

impl Entering {
    pub(super) fn new(
        id: Option<RequestId>,
        welcome: Welcome,
        issued: TimestampMs,
        since: Option<Vec<LanePosition>>,
        known: Vec<Known>,
    ) -> Self {
        Self { id, welcome, issued, since, known, held: Vec::new(), held_bytes: 0 }
    }
}

/// Whether a token is refused because its device was logged out after it was issued.
pub(in crate::core) fn is_refused(issued: TimestampMs, refused_until: TimestampMs) -> bool {
    refused_until > TimestampMs(0) && issued <= refused_until
}

impl Session {
    pub(super) fn enter(&mut self, entering: Entering) {
        self.beside.get_or_insert_default().entering = Some(Box::new(entering));
    }

    /// Whether its home lane has not let it in yet.
    pub(super) fn is_entering(&self) -> bool {
        self.beside.as_ref().is_some_and(|beside| beside.entering.is_some())
    }

    pub(super) fn refused_until(&self) -> TimestampMs {
        self.beside.as_ref().map_or(TimestampMs(0), |beside| beside.refused_until)
    }

    /// Keeps a request until the session is let in.
    pub(super) fn hold_back(&mut self, id: Option<RequestId>, bytes: &[u8], actions: &mut Vec<Action>) {
        let Some(entering) = self.beside.as_mut().and_then(|beside| beside.entering.as_deref_mut()) else { return };
        if entering.held.len() == HELD_MAX || entering.held_bytes + bytes.len() > HELD_BYTES_MAX {
            let text = format!("at most {HELD_MAX} requests and {HELD_BYTES_MAX} bytes wait for the answer to connect");
            return refuse(actions, id, ErrorCode::Overloaded, text);
        }
        entering.held_bytes += bytes.len();
        entering.held.push(bytes.to_vec());
    }

    /// Asks a lane to catch the session up; the home lane looks up itself what its user shows others.
    pub(super) fn attach(
        &self,
        lane: LaneId,
        entering: &mut Entering,
        privacy: Option<&Privacy>,
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(connected) = &self.connected else { return };
        let is_here = |known: &Known| environment.placement.lane_of(known.conversation) == lane;
        let (here, rest) = std::mem::take(&mut entering.known).into_iter().partition(is_here);
        entering.known = rest;
        let frame = LaneFrame::Attach {
            user: connected.user.clone(),
            device: connected.device.clone(),
            issued: entering.issued,
            connection: environment.connection,
            since: entering.since.as_ref().map(|since| since[usize::from(lane.0)]),
            known: here,
            privacy: privacy.cloned(),
        };
        actions.push(Action::ToLane { lane, frame });
    }

    /// The home lane `home` lets the session in; tokens of its device are refused that were issued at `refused_until` or before, and its user
    /// shows others what `privacy` says.
    pub fn entered(
        &mut self,
        home: LaneId,
        refused_until: TimestampMs,
        privacy: Option<&Privacy>,
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(beside) = &mut self.beside else { return };
        let Some(mut entering) = beside.entering.take() else { return };
        beside.refused_until = refused_until;
        beside.no_receipts = privacy.is_some_and(|privacy| !privacy.has_receipts());
        for lane in environment.placement.lanes().filter(|lane| *lane != home) {
            self.attach(lane, &mut entering, privacy, environment, actions);
        }
        self.tidy();
        let welcome = Welcome { time_ms: environment.now, ..entering.welcome };
        // Said even without an id: a client can do nothing before it knows this.
        actions.push(Action::Send { id: entering.id, frame: ServerFrame::Welcome(welcome) });
        for bytes in entering.held {
            let (id, request) = self.encoding.decode_request(&bytes).expect("it was decoded when it came");
            self.serve(id, request, &bytes, environment, actions);
        }
    }

    /// The home lane does not let the session in, or not any longer.
    pub fn barred(&mut self, why: Barred, actions: &mut Vec<Action>) {
        let (code, text, close) = match why {
            Barred::Revoked => (ErrorCode::Revoked, ErrorCode::Revoked.text().to_owned(), CloseCode::Revoked),
            Barred::TooManyDevices { most } => {
                let text = format!("at most {most} devices of a user are connected at a time");
                (ErrorCode::LimitReached, text, CloseCode::TooManyDevices)
            }
        };
        if let Some(entering) = self.beside.as_mut().and_then(|beside| beside.entering.take()) {
            refuse(actions, entering.id, code, text);
        }
        actions.push(Action::End { code: close });
    }
}
