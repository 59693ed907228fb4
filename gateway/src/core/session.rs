//! A session: one client's conversation with the node, from `connect` to `goodbye`. It does not know its transport: frames' bytes
//! come in, [`Action`]s go out.
//!
//! Invariants: nothing but an error is said before `connect` succeeded. A push of a lane reaches the client only after that lane's
//! catch-up, so that what was missed and what is live neither overlap nor leave a gap. A request with an id gets one answer.

mod beside;
mod entering;
mod members;

use antiphon_wire::{
    binary,
    codec::{DecodeError, Encoding},
    codes::{CloseCode, ErrorCode},
    frame::{
        CaughtUp, Connect, Create, ErrorFrame, Expiring, Left, Limits, MembersAction, Pong, PositionBytes, Receipt,
        Refresh, Refreshed, Request, Resume, ResumeOutcome, ServerFrame, TooFar, Welcome,
    },
    ids::{ConversationId, DeviceId, Epoch, LanePosition, RequestId, Sequence, TimestampMs, UserId},
    limits,
    position::Position,
};

pub(super) use self::entering::is_refused;
use self::{beside::Beside, entering::Entering};
use super::{
    mesh::{LaneFrame, LaneId, MeshConnection},
    placement::Placement,
};

/// Requests of one session that may wait for a lane at a time; beyond, `overloaded`. A page asks for a handful; a client that
/// pipelines a thousand sends gets the rest of its round trip's worth.
const OUTSTANDING_MAX: u16 = 512;

/// Who a token says is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The device that the token is bound to, if it is.
    pub device: Option<DeviceId>,
    /// When the token ends.
    pub expires: TimestampMs,
    /// When it was issued; 0 if it does not say.
    pub issued: TimestampMs,
}

/// Checks tokens.
pub trait Authenticate {
    /// Who a token says is there, or why it is not accepted.
    fn authenticate(&self, token: &str, now: TimestampMs) -> Result<Identity, (ErrorCode, String)>;
}

/// What a session needs to know of its node.
pub struct Environment<'a> {
    /// Wall-clock time.
    pub now: TimestampMs,
    /// Monotonic time.
    pub monotonic_ms: u64,
    /// The layout.
    pub placement: Placement,
    /// The store's identity.
    pub store: u64,
    /// Too much waits for the lanes already.
    pub lanes_are_busy: bool,
    /// By lane: everything up to here has been handed to this shard's sessions.
    pub positions: &'a [LanePosition],
    /// Checks tokens.
    pub authenticate: &'a dyn Authenticate,
    /// Requests a second that a session may make for long.
    pub requests_per_second_max: u32,
    /// Requests that it may make at once after a pause.
    pub requests_burst_max: u32,
    /// This session's connection.
    pub connection: MeshConnection,
    /// The number that logs know the session by.
    pub session_number: u64,
}

/// What a session wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Count the session: its token is good, and its home lane is asked whether it may be.
    Begin,
    /// Send a frame to the client.
    Send {
        /// The request's id, for an answer.
        id: Option<RequestId>,
        /// The frame.
        frame: ServerFrame,
    },
    /// Send a binary frame to the client, in its own encoding.
    SendBinary {
        /// The frame as the binary encoding has it.
        frame: Vec<u8>,
    },
    /// Hand a frame to a lane.
    ToLane {
        /// Which.
        lane: LaneId,
        /// What.
        frame: LaneFrame,
    },
    /// Say goodbye and close.
    End {
        /// Why.
        code: CloseCode,
    },
}

/// Who is connected, or is about to be; set by a `connect` with a good token.
#[derive(Debug)]
struct Connected {
    user: UserId,
    device: DeviceId,
    expires: TimestampMs,
    /// The client knows that this is soon.
    told: bool,
}

/// What a session's token is at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenAt {
    /// Nobody is connected.
    Absent,
    /// It was good once.
    Over,
    /// It is good.
    Good {
        /// What the client is to hear of it now.
        tell: Option<Expiring>,
        /// When it is to be looked at again.
        look_at: TimestampMs,
    },
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    encoding: Encoding,
    connected: Option<Connected>,
    /// Lanes that have caught up, as bits.
    live: u16,
    outstanding: u16,
    /// Token bucket: what may be spent now, in thousandths of a request, and when that was.
    allowance_milli: u32,
    allowance_at_ms: u32,
    beside: Option<Box<Beside>>,
    /// The node ends: what is under way is answered, and nothing more is taken.
    stopping: bool,
}

impl Session {
    /// A session that nobody has connected on.
    #[must_use]
    pub fn new(encoding: Encoding, environment: &Environment<'_>) -> Self {
        Self {
            encoding,
            connected: None,
            live: 0,
            outstanding: 0,
            allowance_milli: environment.requests_burst_max.saturating_mul(1_000),
            allowance_at_ms: environment.monotonic_ms as u32,
            beside: None,
            stopping: false,
        }
    }

    /// Takes no more requests for lanes.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether it takes no more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether no request waits for a lane's answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.outstanding == 0
    }

    /// How its frames are encoded.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whose session it is, or is about to be, and of which device.
    #[must_use]
    pub fn identity(&self) -> Option<(&UserId, &DeviceId)> {
        self.connected.as_ref().map(|connected| (&connected.user, &connected.device))
    }

    /// Whose session it is, or is about to be, once `connect` came with a good token.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.connected.as_ref().map(|connected| &connected.user)
    }

    /// Whether a lane's pushes are for this session.
    #[must_use]
    pub fn is_live(&self, lane: LaneId) -> bool {
        self.live & (1 << lane.0) != 0
    }

    /// Looks at the session's token. That it is about to be over is told once.
    pub fn token_at(&mut self, now: TimestampMs) -> TokenAt {
        let Some(connected) = &self.connected else { return TokenAt::Absent };
        let expires = connected.expires;
        if expires <= now {
            return TokenAt::Over;
        }
        let tell_at = TimestampMs(expires.0.saturating_sub(limits::TOKEN_EXPIRING_MS));
        if tell_at > now {
            return TokenAt::Good { tell: None, look_at: tell_at };
        }
        if self.is_entering() {
            return TokenAt::Good { tell: None, look_at: expires.min(TimestampMs(now.0 + 1_000)) };
        }
        let Some(connected) = &mut self.connected else { return TokenAt::Absent };
        let is_told = std::mem::replace(&mut connected.told, true);
        TokenAt::Good { tell: (!is_told).then_some(Expiring { expires_ms: expires }), look_at: expires }
    }

    /// A frame came from the client. `upgrade_token` is what a cookie or header of the upgrade carried.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        upgrade_token: Option<&str>,
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        if bytes.len() > limits::CLIENT_FRAME_BYTES_MAX {
            let text = format!("a frame is at most {} bytes long", limits::CLIENT_FRAME_BYTES_MAX);
            return refuse(actions, None, ErrorCode::TooLarge, text);
        }
        let (id, request) = match self.encoding.decode_request(bytes) {
            Ok(decoded) => decoded,
            Err(DecodeError { id, code, text }) => {
                // A flood of nonsense is a flood all the same.
                let _ = self.spend(environment);
                return refuse(actions, id, code, text);
            }
        };
        if let Err(retry_after_ms) = self.spend(environment) {
            let text = format!("at most {} requests a second", environment.requests_per_second_max);
            let error = ErrorFrame { code: ErrorCode::RateLimited, text, retry_after_ms: Some(retry_after_ms) };
            return actions.push(Action::Send { id, frame: ServerFrame::Error(error) });
        }
        match (request, &self.connected) {
            (Request::Connect(connect), None) => self.connect(id, connect, upgrade_token, environment, actions),
            (Request::Connect(_), Some(_)) => {
                refuse(actions, id, ErrorCode::AlreadyConnected, ErrorCode::AlreadyConnected.text());
            }
            (_, None) => refuse(actions, id, ErrorCode::NotConnected, ErrorCode::NotConnected.text()),
            (_, Some(_)) if self.is_entering() => self.hold_back(id, bytes, actions),
            (request, Some(_)) => self.serve(id, request, bytes, environment, actions),
        }
    }

    /// Does what a session asks that has been let in.
    fn serve(
        &mut self,
        id: Option<RequestId>,
        request: Request,
        bytes: &[u8],
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        match request {
            Request::Refresh(refresh) => self.refresh(id, &refresh, environment, actions),
            Request::Ping(_) => {
                let position = self.all_live(environment).then(|| position_bytes(environment));
                let pong = Pong { time_ms: environment.now, position };
                answer(actions, id, ServerFrame::Pong(pong));
            }
            _ if self.stopping => {
                refuse(actions, id, ErrorCode::ShuttingDown, ErrorCode::ShuttingDown.text());
            }
            Request::Conversations(list) if environment.placement.lanes > 1 => {
                self.gather(id, list, environment, actions);
            }
            Request::Presence(presence) => self.watch(id, presence, environment, actions),
            Request::Members(list) if matches!(list.action, MembersAction::List(_)) => {
                self.list_members(id, list, environment, actions);
            }
            request => self.forward(id, &request, bytes, environment, actions),
        }
    }

    /// A lane answered a request.
    pub fn reply(&mut self, gather: u32, frame: Vec<u8>, environment: &Environment<'_>, actions: &mut Vec<Action>) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if gather != 0 {
            return self.gathered(gather, &frame, environment, actions);
        }
        // A request without an id hears of its failure only.
        if binary::frame_id(&frame).is_some() || binary::is_error(&frame) {
            actions.push(Action::SendBinary { frame });
        }
    }

    /// What belongs to an answer that follows.
    pub fn beside(&self, frame: Vec<u8>, actions: &mut Vec<Action>) {
        actions.push(Action::SendBinary { frame });
    }

    /// A lane has caught the session up.
    pub fn caught_up(
        &mut self,
        lane: LaneId,
        caught_up: LaneCaughtUp,
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(user) = self.user().cloned() else { return };
        if caught_up.reset {
            let text = "the position is beyond what this store holds: list your conversations again".into();
            let error = ErrorFrame { code: ErrorCode::Invalid, text, retry_after_ms: None };
            actions.push(Action::Send { id: None, frame: ServerFrame::Error(error) });
        }
        for archive in caught_up.entries {
            actions.push(Action::SendBinary { frame: binary::encode_message(&archive) });
        }
        actions.extend(caught_up.states.into_iter().map(|frame| Action::SendBinary { frame }));
        for (conversation, epoch, first, last) in caught_up.too_far {
            let too_far = TooFar { conversation, epoch, first, last };
            actions.push(Action::Send { id: None, frame: ServerFrame::TooFar(too_far) });
        }
        for (conversation, read, delivered) in caught_up.pointers {
            let receipt = Receipt { conversation, user: user.clone(), read, delivered };
            actions.push(Action::Send { id: None, frame: ServerFrame::Receipt(receipt) });
        }
        for (conversation, sequence) in caught_up.left {
            actions.push(Action::Send { id: None, frame: ServerFrame::Left(Left { conversation, sequence }) });
        }
        self.live |= 1 << lane.0;
        if self.all_live(environment) {
            let position = position_bytes(environment);
            actions.push(Action::Send { id: None, frame: ServerFrame::CaughtUp(CaughtUp { position }) });
        }
    }

    /// The transport is gone: what to tell the lanes.
    pub fn detach(&mut self, environment: &Environment<'_>, actions: &mut Vec<Action>) {
        let Some(connected) = self.connected.take() else { return };
        for lane in environment.placement.lanes() {
            let frame = LaneFrame::Detach { user: connected.user.clone(), connection: environment.connection };
            actions.push(Action::ToLane { lane, frame });
        }
    }

    /// Whether it waits for a lane's catch-up.
    #[must_use]
    pub fn is_attaching(&self, environment: &Environment<'_>) -> bool {
        self.connected.is_some() && !self.all_live(environment)
    }

    fn all_live(&self, environment: &Environment<'_>) -> bool {
        self.connected.is_some() && self.live.count_ones() == u32::from(environment.placement.lanes)
    }

    /// Takes one request from the token bucket, or says when there will be one.
    fn spend(&mut self, environment: &Environment<'_>) -> Result<(), u32> {
        let rate = u64::from(environment.requests_per_second_max.max(1));
        let full = u64::from(environment.requests_burst_max.max(1)) * 1_000;
        // Milliseconds wrap after 49 days, and so does this difference: a quiet session gains at most a full bucket.
        let elapsed_ms = u64::from((environment.monotonic_ms as u32).wrapping_sub(self.allowance_at_ms));
        self.allowance_at_ms = environment.monotonic_ms as u32;
        let allowance = (u64::from(self.allowance_milli) + elapsed_ms * rate).min(full);
        match allowance.checked_sub(1_000) {
            Some(rest) => {
                self.allowance_milli = rest as u32;
                Ok(())
            }
            None => {
                self.allowance_milli = allowance as u32;
                Err(((1_000 - allowance).div_ceil(rate)) as u32)
            }
        }
    }

    fn connect(
        &mut self,
        id: Option<RequestId>,
        connect: Connect,
        upgrade_token: Option<&str>,
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(token) = connect.token.as_deref().or(upgrade_token) else {
            refuse(actions, id, ErrorCode::Unauthenticated, "connect has no token, nor had the upgrade");
            return actions.push(Action::End { code: CloseCode::Unauthenticated });
        };
        let identity = match environment.authenticate.authenticate(token, environment.now) {
            Ok(identity) => identity,
            Err((code, text)) => {
                refuse(actions, id, code, text);
                let expired = code == ErrorCode::TokenExpired;
                let code = if expired { CloseCode::TokenExpired } else { CloseCode::Unauthenticated };
                return actions.push(Action::End { code });
            }
        };
        let device = match (identity.device, connect.device) {
            (Some(bound), Some(named)) if bound != named => {
                refuse(actions, id, ErrorCode::Unauthenticated, "the token is for another device");
                return actions.push(Action::End { code: CloseCode::Unauthenticated });
            }
            (Some(device), _) | (None, Some(device)) => device,
            (None, None) => {
                let text = "connect needs a device: a name that this installation keeps";
                return refuse(actions, id, ErrorCode::Invalid, text);
            }
        };
        let (outcome, since) = resume_from(connect.resume.as_ref(), environment);
        let welcome = Welcome {
            user: identity.user.clone(),
            device: device.clone(),
            session: format!("{:x}", environment.session_number),
            time_ms: environment.now,
            heartbeat_interval_ms: limits::HEARTBEAT_INTERVAL_MS,
            resume: outcome,
            limits: Limits {
                frame_bytes_max: limits::CLIENT_FRAME_BYTES_MAX as u32,
                text_bytes_max: limits::TEXT_BYTES_MAX as u32,
                members_per_request_max: limits::MEMBERS_PER_REQUEST_MAX as u32,
                group_members_max: limits::GROUP_MEMBERS_MAX as u32,
                page_items_max: limits::PAGE_ITEMS_MAX,
                requests_per_second_max: environment.requests_per_second_max,
            },
        };
        actions.push(Action::Begin);
        let known = match connect.resume {
            Some(resume) if since.is_some() => resume.known,
            _ => Vec::new(),
        };
        let home = environment.placement.home_of(&identity.user);
        self.connected = Some(Connected { user: identity.user, device, expires: identity.expires, told: false });
        let mut entering = Entering::new(id, welcome, identity.issued, since, known);
        self.attach(home, &mut entering, None, environment, actions);
        self.enter(entering);
    }

    /// Takes another token for the same user and device. Of two that are good the later end counts; one that is not changes nothing.
    fn refresh(
        &mut self,
        id: Option<RequestId>,
        refresh: &Refresh,
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let refused_until = self.refused_until();
        let Some(connected) = &mut self.connected else { return };
        let identity = match environment.authenticate.authenticate(&refresh.token, environment.now) {
            Ok(identity) => identity,
            Err((code, text)) => return refuse(actions, id, code, text),
        };
        if identity.user != connected.user || identity.device.is_some_and(|device| device != connected.device) {
            return refuse(actions, id, ErrorCode::Unauthenticated, "the token is for another user or device");
        }
        if is_refused(identity.issued, refused_until) {
            return refuse(actions, id, ErrorCode::Revoked, ErrorCode::Revoked.text());
        }
        if identity.expires > connected.expires {
            (connected.expires, connected.told) = (identity.expires, false);
        }
        let expires_ms = Some(connected.expires).filter(|expires| expires.0 <= limits::JSON_INTEGER_MAX);
        answer(actions, id, ServerFrame::RefreshAnswer(Refreshed { expires_ms }));
    }

    /// Whether so many more requests may wait for lanes.
    fn reserve(&self, requests: u16, environment: &Environment<'_>) -> Result<(), String> {
        if environment.lanes_are_busy {
            return Err(ErrorCode::Overloaded.text().into());
        }
        if self.outstanding + requests > OUTSTANDING_MAX {
            return Err(format!("at most {OUTSTANDING_MAX} requests may wait for their answers"));
        }
        Ok(())
    }

    fn forward(
        &mut self,
        id: Option<RequestId>,
        request: &Request,
        bytes: &[u8],
        environment: &Environment<'_>,
        actions: &mut Vec<Action>,
    ) {
        let Some(connected) = &self.connected else { return };
        if let Err(text) = self.reserve(1, environment) {
            return refuse(actions, id, ErrorCode::Overloaded, text);
        }
        let Some(conversation) = conversation_of(request, &connected.user) else {
            return refuse(actions, id, ErrorCode::Invalid, "a direct conversation is with another user");
        };
        // The client's own bytes go on where they are binary: what it validated is what is stored.
        let frame = match self.encoding {
            Encoding::Rkyv => bytes.to_vec(),
            Encoding::Json => binary::encode_request(id, request),
        };
        let lane = match conversation {
            Some(conversation) => environment.placement.lane_of(conversation),
            None => LaneId(0),
        };
        let (user, connection) = (connected.user.clone(), environment.connection);
        let frame = LaneFrame::Request { user, connection, gather: 0, frame };
        self.outstanding += 1;
        actions.push(Action::ToLane { lane, frame });
    }
}

/// What a lane gives a session that it attaches.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneCaughtUp {
    /// The position given was beyond the lane's.
    pub reset: bool,
    /// Missing entries' archives.
    pub entries: Vec<Vec<u8>>,
    /// What became of messages among them, as binary frames.
    pub states: Vec<Vec<u8>>,
    /// Conversations of which too much is missing: id, epoch, first, last.
    pub too_far: Vec<(ConversationId, Epoch, Sequence, Sequence)>,
    /// The user's pointers where they may have moved: conversation, read, delivered.
    pub pointers: Vec<(ConversationId, Sequence, Sequence)>,
    /// Conversations that the user left.
    pub left: Vec<(ConversationId, Sequence)>,
}

fn position_bytes(environment: &Environment<'_>) -> PositionBytes {
    let position = Position { store: environment.store, lanes: environment.positions.to_vec() };
    PositionBytes(position.to_bytes())
}

/// What becomes of a resume, and from where each lane is to catch up.
fn resume_from(resume: Option<&Resume>, environment: &Environment<'_>) -> (ResumeOutcome, Option<Vec<LanePosition>>) {
    let Some(resume) = resume else { return (ResumeOutcome::Fresh, None) };
    match Position::from_bytes(&resume.position.0) {
        Ok(position)
            if position.store == environment.store
                && position.lanes.len() == usize::from(environment.placement.lanes) =>
        {
            (ResumeOutcome::Resuming, Some(position.lanes))
        }
        _ => (ResumeOutcome::Reset, None),
    }
}

/// The conversation that a request is about: `Some(None)` if it is about none, `None` if it makes no sense.
pub(crate) fn conversation_of(request: &Request, user: &UserId) -> Option<Option<ConversationId>> {
    Some(Some(match request {
        Request::Create(Create::Direct(peer)) if peer == user => return None,
        Request::Create(Create::Direct(peer)) => ConversationId::direct(user, peer),
        Request::Create(Create::Group(group)) => ConversationId::group(user, group.key),
        Request::Members(members) => members.conversation,
        Request::Title(title) => title.conversation,
        Request::Send(send) => send.conversation,
        Request::History(history) => history.conversation,
        Request::Read(read) => read.conversation,
        Request::Delivered(delivered) => delivered.conversation,
        Request::Edit(edit) => edit.conversation,
        Request::Delete(delete) => delete.conversation,
        Request::React(react) => react.conversation,
        Request::Pin(pin) => pin.conversation,
        Request::Retain(retain) => retain.conversation,
        Request::Reactions(list) => list.conversation,
        Request::Pins(pins) => pins.conversation,
        Request::Roles(roles) => roles.conversation,
        Request::Settings(settings) => settings.conversation,
        Request::Bans(bans) => bans.conversation,
        Request::Event(event) => event.conversation,
        Request::View(view) => view.conversation,
        Request::Invites(invites) => invites.conversation,
        Request::Join(join) => join.code.conversation,
        Request::Account(_) | Request::Devices(_) => ConversationId::account(user),
        Request::Conversations(_)
        | Request::Connect(_)
        | Request::Ping(_)
        | Request::Refresh(_)
        | Request::Presence(_) => return Some(None),
    }))
}

fn answer(actions: &mut Vec<Action>, id: Option<RequestId>, frame: ServerFrame) {
    if id.is_some() {
        actions.push(Action::Send { id, frame });
    }
}

fn refuse(actions: &mut Vec<Action>, id: Option<RequestId>, code: ErrorCode, text: impl Into<String>) {
    let retry_after_ms = (code == ErrorCode::Overloaded).then_some(1_000);
    let error = ErrorFrame { code, text: text.into(), retry_after_ms };
    actions.push(Action::Send { id, frame: ServerFrame::Error(error) });
}
