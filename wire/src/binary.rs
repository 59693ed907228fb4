//! The rkyv encoding: one frame is a header of eight bytes and the archive of that kind's own struct.
//!
//! ```text
//!  0       1       2       3       4                               8
//! +-------+-------+-------+-------+-------------------------------+----------------
//! | kind  |   0   |   0   |   0   | id, u32 little endian, 0 none | archive …
//! +-------+-------+-------+-------+-------------------------------+----------------
//! ```
//!
//! There is no enum over all frames, so a small frame stays small. Archives are unaligned, little endian, with relative pointers
//! of 32 bits; the root stands at the end. The payload of `message` is an entry's archive as the log holds it.
//!
//! Invariants: nothing is looked at before bytecheck has passed over it; archives hold no shared pointers and no type that
//! nests itself, so depth is bounded by the types and allocation by the frame's length. Must not do: encode an entry anew.

use rkyv::{
    Archive, Deserialize, Serialize,
    api::high::{HighDeserializer, HighSerializer, HighValidator},
    bytecheck::CheckBytes,
    rancor::Error as RancorError,
    ser::allocator::ArenaHandle,
};

use crate::{
    codec::DecodeError,
    codes::ErrorCode,
    frame::{EntryBytes, Request, Send, ServerFrame},
    ids::RequestId,
    limits::{CLIENT_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX},
    validate::{self, Problem},
};

/// Length of the header.
pub const HEADER_BYTES: usize = 8;

/// Numbers of kinds, for ever. An answer has its request's number; pushes begin at 64.
pub mod kind {
    /// `connect` and `welcome`.
    pub const CONNECT: u8 = 1;
    /// `ping` and `pong`.
    pub const PING: u8 = 2;
    /// `create` and its answer.
    pub const CREATE: u8 = 3;
    /// `members` and its answer.
    pub const MEMBERS: u8 = 4;
    /// `conversations` and its answer.
    pub const CONVERSATIONS: u8 = 5;
    /// `title` and its answer.
    pub const TITLE: u8 = 6;
    /// `send` and `ack`.
    pub const SEND: u8 = 7;
    /// `history` and its answer.
    pub const HISTORY: u8 = 8;
    /// `read` and its answer.
    pub const READ: u8 = 9;
    /// `delivered` and its answer.
    pub const DELIVERED: u8 = 10;
    /// `edit` and its answer.
    pub const EDIT: u8 = 11;
    /// `delete` and its answer.
    pub const DELETE: u8 = 12;
    /// `react` and its answer.
    pub const REACT: u8 = 13;
    /// `pin` and its answer.
    pub const PIN: u8 = 14;
    /// `retain` and its answer.
    pub const RETAIN: u8 = 15;
    /// `reactions` and its answer.
    pub const REACTIONS: u8 = 16;
    /// `pins` and its answer.
    pub const PINS: u8 = 17;
    /// `roles` and its answer.
    pub const ROLES: u8 = 18;
    /// `settings` and its answer.
    pub const SETTINGS: u8 = 19;
    /// `bans` and its answer.
    pub const BANS: u8 = 20;
    /// `event` and its answer.
    pub const EVENT: u8 = 21;
    /// `refresh` and its answer.
    pub const REFRESH: u8 = 22;
    /// `invites` and its answer.
    pub const INVITES: u8 = 23;
    /// `join` and its answer.
    pub const JOIN: u8 = 24;
    /// `account` and its answer.
    pub const ACCOUNT: u8 = 25;
    /// `presence` and its answer.
    pub const PRESENCE: u8 = 26;
    /// `view` and its answer.
    pub const VIEW: u8 = 27;
    /// `devices` and its answer.
    pub const DEVICES: u8 = 28;
    /// A request's or the connection's failure.
    pub const ERROR: u8 = 64;
    /// An entry.
    pub const MESSAGE: u8 = 65;
    /// Pointers moved.
    pub const RECEIPT: u8 = 66;
    /// No longer a member.
    pub const LEFT: u8 = 67;
    /// Too much is missing of a conversation.
    pub const TOO_FAR: u8 = 68;
    /// The resume is complete.
    pub const CAUGHT_UP: u8 = 69;
    /// The server closes.
    pub const GOODBYE: u8 = 70;
    /// What became of messages.
    pub const STATES: u8 = 71;
    /// Another member's event.
    pub const HAPPENED: u8 = 72;
    /// The session's token is about to be over.
    pub const EXPIRING: u8 = 73;
    /// Users have come or gone.
    pub const PRESENT: u8 = 74;
    /// A conversation has new entries.
    pub const ADVANCED: u8 = 75;
    /// An entry that means the user.
    pub const MENTIONED: u8 = 76;
}

/// Reads a client's frame.
pub fn decode_request(bytes: &[u8]) -> Result<(Option<RequestId>, Request), DecodeError> {
    let frame = Frame::split(bytes, CLIENT_FRAME_BYTES_MAX)?;
    let payload = frame.payload;
    let request = match frame.kind {
        kind::CONNECT => read(payload).map(Request::Connect),
        kind::PING => read(payload).map(Request::Ping),
        kind::CREATE => read(payload).map(Request::Create),
        kind::MEMBERS => read(payload).map(Request::Members),
        kind::CONVERSATIONS => read(payload).map(Request::Conversations),
        kind::TITLE => read(payload).map(Request::Title),
        kind::SEND => read(payload).map(Request::Send),
        kind::HISTORY => read(payload).map(Request::History),
        kind::READ => read(payload).map(Request::Read),
        kind::DELIVERED => read(payload).map(Request::Delivered),
        kind::EDIT => read(payload).map(Request::Edit),
        kind::DELETE => read(payload).map(Request::Delete),
        kind::REACT => read(payload).map(Request::React),
        kind::PIN => read(payload).map(Request::Pin),
        kind::RETAIN => read(payload).map(Request::Retain),
        kind::REACTIONS => read(payload).map(Request::Reactions),
        kind::PINS => read(payload).map(Request::Pins),
        kind::ROLES => read(payload).map(Request::Roles),
        kind::SETTINGS => read(payload).map(Request::Settings),
        kind::BANS => read(payload).map(Request::Bans),
        kind::EVENT => read(payload).map(Request::Event),
        kind::REFRESH => read(payload).map(Request::Refresh),
        kind::INVITES => read(payload).map(Request::Invites),
        kind::JOIN => read(payload).map(Request::Join),
        kind::ACCOUNT => read(payload).map(Request::Account),
        kind::PRESENCE => read(payload).map(Request::Presence),
        kind::VIEW => read(payload).map(Request::View),
        kind::DEVICES => read(payload).map(Request::Devices),
        other => Err(unknown(other)),
    };
    let checked = request.and_then(|mut request| validate::request(&mut request).map(|()| request));
    checked.map(|request| (frame.id, request)).map_err(|problem| problem.of(frame.id))
}

/// Writes a client's frame.
#[must_use]
pub fn encode_request(id: Option<RequestId>, request: &Request) -> Vec<u8> {
    match request {
        Request::Connect(frame) => write(kind::CONNECT, id, frame),
        Request::Ping(frame) => write(kind::PING, id, frame),
        Request::Create(frame) => write(kind::CREATE, id, frame),
        Request::Members(frame) => write(kind::MEMBERS, id, frame),
        Request::Conversations(frame) => write(kind::CONVERSATIONS, id, frame),
        Request::Title(frame) => write(kind::TITLE, id, frame),
        Request::Send(frame) => encode_send(id, frame),
        Request::History(frame) => write(kind::HISTORY, id, frame),
        Request::Read(frame) => write(kind::READ, id, frame),
        Request::Delivered(frame) => write(kind::DELIVERED, id, frame),
        Request::Edit(frame) => write(kind::EDIT, id, frame),
        Request::Delete(frame) => write(kind::DELETE, id, frame),
        Request::React(frame) => write(kind::REACT, id, frame),
        Request::Pin(frame) => write(kind::PIN, id, frame),
        Request::Retain(frame) => write(kind::RETAIN, id, frame),
        Request::Reactions(frame) => write(kind::REACTIONS, id, frame),
        Request::Pins(frame) => write(kind::PINS, id, frame),
        Request::Roles(frame) => write(kind::ROLES, id, frame),
        Request::Settings(frame) => write(kind::SETTINGS, id, frame),
        Request::Bans(frame) => write(kind::BANS, id, frame),
        Request::Event(frame) => write(kind::EVENT, id, frame),
        Request::Refresh(frame) => write(kind::REFRESH, id, frame),
        Request::Invites(frame) => write(kind::INVITES, id, frame),
        Request::Join(frame) => write(kind::JOIN, id, frame),
        Request::Account(frame) => write(kind::ACCOUNT, id, frame),
        Request::Presence(frame) => write(kind::PRESENCE, id, frame),
        Request::View(frame) => write(kind::VIEW, id, frame),
        Request::Devices(frame) => write(kind::DEVICES, id, frame),
    }
}

/// Writes a `send`.
pub(crate) fn encode_send(id: Option<RequestId>, send: &Send) -> Vec<u8> {
    write(kind::SEND, id, send)
}

/// Reads a server's frame.
pub fn decode_server(bytes: &[u8]) -> Result<(Option<RequestId>, ServerFrame), DecodeError> {
    let frame = Frame::split(bytes, SERVER_FRAME_BYTES_MAX)?;
    let payload = frame.payload;
    let server = match frame.kind {
        kind::CONNECT => read(payload).map(ServerFrame::Welcome),
        kind::PING => read(payload).map(ServerFrame::Pong),
        kind::CREATE => read(payload).map(ServerFrame::Created),
        kind::MEMBERS => read(payload).map(ServerFrame::MembersAnswer),
        kind::CONVERSATIONS => read(payload).map(ServerFrame::ConversationsAnswer),
        kind::TITLE => read(payload).map(ServerFrame::TitleAnswer),
        kind::SEND => read(payload).map(ServerFrame::Ack),
        kind::HISTORY => read(payload).map(ServerFrame::HistoryAnswer),
        kind::READ => read(payload).map(ServerFrame::ReadAnswer),
        kind::DELIVERED => read(payload).map(ServerFrame::DeliveredAnswer),
        kind::EDIT => read(payload).map(ServerFrame::EditAnswer),
        kind::DELETE => read(payload).map(ServerFrame::DeleteAnswer),
        kind::REACT => read(payload).map(ServerFrame::ReactAnswer),
        kind::PIN => read(payload).map(ServerFrame::PinAnswer),
        kind::RETAIN => read(payload).map(ServerFrame::RetainAnswer),
        kind::REACTIONS => read(payload).map(ServerFrame::ReactionsAnswer),
        kind::PINS => read(payload).map(ServerFrame::PinsAnswer),
        kind::ROLES => read(payload).map(ServerFrame::RolesAnswer),
        kind::SETTINGS => read(payload).map(ServerFrame::SettingsAnswer),
        kind::BANS => read(payload).map(ServerFrame::BansAnswer),
        kind::EVENT => read(payload).map(ServerFrame::EventAnswer),
        kind::REFRESH => read(payload).map(ServerFrame::RefreshAnswer),
        kind::INVITES => read(payload).map(ServerFrame::InvitesAnswer),
        kind::JOIN => read(payload).map(ServerFrame::JoinAnswer),
        kind::ACCOUNT => read(payload).map(ServerFrame::AccountAnswer),
        kind::PRESENCE => read(payload).map(ServerFrame::PresenceAnswer),
        kind::VIEW => read(payload).map(ServerFrame::ViewAnswer),
        kind::DEVICES => read(payload).map(ServerFrame::DevicesAnswer),
        kind::ERROR => read(payload).map(ServerFrame::Error),
        kind::MESSAGE => Ok(ServerFrame::Message(EntryBytes(payload.to_vec()))),
        kind::RECEIPT => read(payload).map(ServerFrame::Receipt),
        kind::LEFT => read(payload).map(ServerFrame::Left),
        kind::TOO_FAR => read(payload).map(ServerFrame::TooFar),
        kind::CAUGHT_UP => read(payload).map(ServerFrame::CaughtUp),
        kind::GOODBYE => read(payload).map(ServerFrame::Goodbye),
        kind::STATES => read(payload).map(ServerFrame::States),
        kind::HAPPENED => read(payload).map(ServerFrame::Event),
        kind::EXPIRING => read(payload).map(ServerFrame::Expiring),
        kind::PRESENT => read(payload).map(ServerFrame::Present),
        kind::ADVANCED => read(payload).map(ServerFrame::Advanced),
        kind::MENTIONED => Ok(ServerFrame::Mentioned(EntryBytes(payload.to_vec()))),
        other => Err(unknown(other)),
    };
    let checked = server.and_then(|server| validate::server(&server).map(|()| server));
    checked.map(|server| (frame.id, server)).map_err(|problem| problem.of(frame.id))
}

/// Writes a server's frame.
#[must_use]
pub fn encode_server(id: Option<RequestId>, frame: &ServerFrame) -> Vec<u8> {
    match frame {
        ServerFrame::Welcome(frame) => write(kind::CONNECT, id, frame),
        ServerFrame::Pong(frame) => write(kind::PING, id, frame),
        ServerFrame::Created(frame) => write(kind::CREATE, id, frame),
        ServerFrame::MembersAnswer(frame) => write(kind::MEMBERS, id, frame),
        ServerFrame::ConversationsAnswer(frame) => write(kind::CONVERSATIONS, id, frame),
        ServerFrame::TitleAnswer(frame) => write(kind::TITLE, id, frame),
        ServerFrame::Ack(frame) => write(kind::SEND, id, frame),
        ServerFrame::HistoryAnswer(frame) => write(kind::HISTORY, id, frame),
        ServerFrame::ReadAnswer(frame) => write(kind::READ, id, frame),
        ServerFrame::DeliveredAnswer(frame) => write(kind::DELIVERED, id, frame),
        ServerFrame::EditAnswer(frame) => write(kind::EDIT, id, frame),
        ServerFrame::DeleteAnswer(frame) => write(kind::DELETE, id, frame),
        ServerFrame::ReactAnswer(frame) => write(kind::REACT, id, frame),
        ServerFrame::PinAnswer(frame) => write(kind::PIN, id, frame),
        ServerFrame::RetainAnswer(frame) => write(kind::RETAIN, id, frame),
        ServerFrame::ReactionsAnswer(frame) => write(kind::REACTIONS, id, frame),
        ServerFrame::PinsAnswer(frame) => write(kind::PINS, id, frame),
        ServerFrame::RolesAnswer(frame) => write(kind::ROLES, id, frame),
        ServerFrame::SettingsAnswer(frame) => write(kind::SETTINGS, id, frame),
        ServerFrame::BansAnswer(frame) => write(kind::BANS, id, frame),
        ServerFrame::EventAnswer(frame) => write(kind::EVENT, id, frame),
        ServerFrame::RefreshAnswer(frame) => write(kind::REFRESH, id, frame),
        ServerFrame::InvitesAnswer(frame) => write(kind::INVITES, id, frame),
        ServerFrame::JoinAnswer(frame) => write(kind::JOIN, id, frame),
        ServerFrame::AccountAnswer(frame) => write(kind::ACCOUNT, id, frame),
        ServerFrame::PresenceAnswer(frame) => write(kind::PRESENCE, id, frame),
        ServerFrame::ViewAnswer(frame) => write(kind::VIEW, id, frame),
        ServerFrame::DevicesAnswer(frame) => write(kind::DEVICES, id, frame),
        ServerFrame::Error(frame) => write(kind::ERROR, id, frame),
        ServerFrame::Message(entry) => with_payload(kind::MESSAGE, id, &entry.0),
        ServerFrame::Receipt(frame) => write(kind::RECEIPT, id, frame),
        ServerFrame::Left(frame) => write(kind::LEFT, id, frame),
        ServerFrame::TooFar(frame) => write(kind::TOO_FAR, id, frame),
        ServerFrame::CaughtUp(frame) => write(kind::CAUGHT_UP, id, frame),
        ServerFrame::Goodbye(frame) => write(kind::GOODBYE, id, frame),
        ServerFrame::States(frame) => write(kind::STATES, id, frame),
        ServerFrame::Event(frame) => write(kind::HAPPENED, id, frame),
        ServerFrame::Expiring(frame) => write(kind::EXPIRING, id, frame),
        ServerFrame::Present(frame) => write(kind::PRESENT, id, frame),
        ServerFrame::Advanced(frame) => write(kind::ADVANCED, id, frame),
        ServerFrame::Mentioned(entry) => with_payload(kind::MENTIONED, id, &entry.0),
    }
}

/// Writes a `message` push: the header, and the entry's archive as it is.
#[must_use]
pub fn encode_message(archive: &[u8]) -> Vec<u8> {
    with_payload(kind::MESSAGE, None, archive)
}

/// Writes a `mentioned` push: the header, and the entry's archive as it is.
#[must_use]
pub fn encode_mentioned(archive: &[u8]) -> Vec<u8> {
    with_payload(kind::MENTIONED, None, archive)
}

/// The id of a frame that this process encoded, for passing it on unread.
#[must_use]
pub fn frame_id(bytes: &[u8]) -> Option<RequestId> {
    let id = bytes.get(4..HEADER_BYTES)?.try_into().ok()?;
    Some(RequestId(u32::from_le_bytes(id))).filter(|id| id.0 != 0)
}

/// Whether a frame that this process encoded is an `error`.
#[must_use]
pub fn is_error(bytes: &[u8]) -> bool {
    bytes.first() == Some(&kind::ERROR)
}

/// The entry's archive in a `message` that this process encoded; `None` for every other kind.
#[must_use]
pub fn message_archive(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(HEADER_BYTES..).filter(|_| bytes.first() == Some(&kind::MESSAGE))
}

struct Frame<'a> {
    kind: u8,
    id: Option<RequestId>,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn split(bytes: &'a [u8], bytes_max: usize) -> Result<Self, DecodeError> {
        let Some((&[kind, zero_1, zero_2, zero_3, id_0, id_1, id_2, id_3], payload)) =
            bytes.split_first_chunk::<HEADER_BYTES>()
        else {
            return Err(Problem::new(ErrorCode::Malformed, "shorter than a header").of(None));
        };
        let id = match u32::from_le_bytes([id_0, id_1, id_2, id_3]) {
            0 => None,
            id => Some(RequestId(id)),
        };
        if bytes.len() > bytes_max {
            return Err(Problem::new(ErrorCode::TooLarge, format!("a frame is at most {bytes_max} bytes long")).of(id));
        }
        if [zero_1, zero_2, zero_3] != [0; 3] {
            return Err(Problem::new(ErrorCode::Malformed, "bytes 1 to 3 of the header must be zero").of(id));
        }
        Ok(Self { kind, id, payload })
    }
}

fn unknown(kind: u8) -> Problem {
    Problem::new(ErrorCode::UnknownFrame, format!("kind {kind} is unknown here"))
}

fn read<T>(payload: &[u8]) -> Result<T, Problem>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RancorError>> + Deserialize<T, HighDeserializer<RancorError>>,
{
    let archived = rkyv::access::<T::Archived, RancorError>(payload)
        .map_err(|_| Problem::new(ErrorCode::Malformed, "not a valid archive of its kind"))?;
    // The bytes are sound; what can still fail is an id's own check.
    rkyv::deserialize::<T, RancorError>(archived).map_err(|error| Problem::new(ErrorCode::Invalid, error.to_string()))
}

fn write<T>(kind: u8, id: Option<RequestId>, frame: &T) -> Vec<u8>
where
    T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, RancorError>>,
{
    let out = header(kind, id, size_of::<T::Archived>() + 64);
    rkyv::api::high::to_bytes_in::<_, RancorError>(frame, out).expect("writing to memory does not fail")
}

fn with_payload(kind: u8, id: Option<RequestId>, payload: &[u8]) -> Vec<u8> {
    let mut out = header(kind, id, payload.len());
    out.extend_from_slice(payload);
    out
}

fn header(kind: u8, id: Option<RequestId>, payload_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + payload_bytes);
    out.extend([kind, 0, 0, 0]);
    out.extend(id.map_or(0, |id| id.0).to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::{Content, Create, Members, MembersAction, Ping, Read, Send},
        ids::{ClientMessageId, ConversationId, Sequence, UserId},
    };

    const CONVERSATION: ConversationId = ConversationId([7; 16]);

    fn refused(bytes: &[u8]) -> (Option<u32>, ErrorCode) {
        let error = decode_request(bytes).unwrap_err();
        (error.id.map(|id| id.0), error.code)
    }

    #[test]
    fn small_frames_are_small() {
        let id = Some(RequestId(1));
        let read = Request::Read(Read { conversation: CONVERSATION, sequence: Sequence(9) });
        assert_eq!(encode_request(id, &Request::Ping(Ping {})).len(), 8);
        assert_eq!(encode_request(id, &read).len(), 32);
        assert_eq!(encode_message(&[1, 2, 3]), [65, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
    }

    #[test]
    fn headers_are_checked() {
        assert_eq!(refused(&[]), (None, ErrorCode::Malformed));
        assert_eq!(refused(&[2, 0, 0, 0, 1, 0, 0]), (None, ErrorCode::Malformed));
        assert_eq!(refused(&[2, 0, 1, 0, 1, 0, 0, 0]), (Some(1), ErrorCode::Malformed));
        assert_eq!(refused(&[63, 0, 0, 0, 5, 1, 0, 0]), (Some(261), ErrorCode::UnknownFrame));
        assert_eq!(refused(&[65, 0, 0, 0, 5, 0, 0, 0]), (Some(5), ErrorCode::UnknownFrame));
        assert_eq!(refused(&vec![2; CLIENT_FRAME_BYTES_MAX + 1]).1, ErrorCode::TooLarge);
        assert_eq!(decode_request(&[2, 0, 0, 0, 0, 0, 0, 0]), Ok((None, Request::Ping(Ping {}))));
    }

    #[test]
    fn payloads_are_checked() {
        let read = Request::Read(Read { conversation: CONVERSATION, sequence: Sequence(9) });
        let mut bytes = encode_request(Some(RequestId(3)), &read);
        bytes.truncate(20);
        assert_eq!(refused(&bytes), (Some(3), ErrorCode::Malformed));

        // A text whose pointer leads out of the frame.
        let create = Request::Create(Create::Direct(UserId::new("a-name-that-is-not-inline").unwrap()));
        let bytes = encode_request(None, &create);
        assert_eq!(
            refused(&bytes[..8].iter().chain(&bytes[20..]).copied().collect::<Vec<_>>()).1,
            ErrorCode::Malformed
        );

        // An id whose bytes are sound UTF-8 but no id.
        let mut bytes = encode_request(Some(RequestId(4)), &create);
        bytes[8] = b' ';
        assert_eq!(refused(&bytes), (Some(4), ErrorCode::Invalid));

        // Contents are looked into.
        let send = |content| {
            let client_message_id = ClientMessageId([1; 16]);
            encode_request(None, &Request::Send(Send { conversation: CONVERSATION, client_message_id, content }))
        };
        assert!(decode_request(&send(Content::text("hi"))).is_ok());
        assert_eq!(refused(&send(Content(vec![1, 0xff]))).1, ErrorCode::Malformed);
        assert_eq!(refused(&send(Content(vec![9, b'x']))).1, ErrorCode::Invalid);
        assert_eq!(refused(&send(Content::text(&"x".repeat(16 * 1024 + 1)))).1, ErrorCode::TooLarge);

        // So are limits.
        let members = Members { conversation: CONVERSATION, action: MembersAction::Add(Vec::new()) };
        assert_eq!(refused(&encode_request(None, &Request::Members(members))).1, ErrorCode::Invalid);
    }

    #[test]
    fn entries_of_a_server_are_checked() {
        let error = decode_server(&encode_message(&[1, 2, 3])).unwrap_err();
        assert_eq!(error.code, ErrorCode::Malformed);
    }
}
