//! The JSON encoding: one frame a text, `{"id":7,"send":{…}}`, for any language.
//!
//! Invariants: fields that are not known are ignored at every level; a field that stands twice, and a second kind beside the
//! first, are refused, because which of them counts would differ from reader to reader. `null` is the same as an absent optional
//! field, but for `id`. Frames are read in one pass into their structs, without a tree in between. Must not do: know a limit (`validate`
//! does, for both encodings).

mod content;
mod entry;
mod envelope;
mod shapes;

use serde::{Deserialize, Deserializer};

use crate::{
    codec::DecodeError,
    codes::ErrorCode,
    frame::{Request, Send, ServerFrame},
    ids::RequestId,
    limits::{CLIENT_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX},
    validate::{self, Problem},
};

/// For optional fields that have a value of their own for "nothing".
pub(crate) fn absent_if_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Reads a client's frame.
pub fn decode_request(bytes: &[u8]) -> Result<(Option<RequestId>, Request), DecodeError> {
    let (id, mut request) = decode(bytes, CLIENT_FRAME_BYTES_MAX)?;
    validate::request(&mut request).map_err(|problem| problem.of(id))?;
    Ok((id, request))
}

/// Writes a client's frame.
#[must_use]
pub fn encode_request(id: Option<RequestId>, request: &Request) -> Vec<u8> {
    match request {
        Request::Connect(frame) => write("connect", id, frame),
        Request::Ping(frame) => write("ping", id, frame),
        Request::Create(frame) => write("create", id, frame),
        Request::Members(frame) => write("members", id, frame),
        Request::Conversations(frame) => write("conversations", id, frame),
        Request::Title(frame) => write("title", id, frame),
        Request::Send(frame) => encode_send(id, frame),
        Request::History(frame) => write("history", id, frame),
        Request::Read(frame) => write("read", id, frame),
        Request::Delivered(frame) => write("delivered", id, frame),
        Request::Edit(frame) => write("edit", id, frame),
        Request::Delete(frame) => write("delete", id, frame),
        Request::React(frame) => write("react", id, frame),
        Request::Pin(frame) => write("pin", id, frame),
        Request::Retain(frame) => write("retain", id, frame),
        Request::Reactions(frame) => write("reactions", id, frame),
        Request::Pins(frame) => write("pins", id, frame),
        Request::Roles(frame) => write("roles", id, frame),
        Request::Settings(frame) => write("settings", id, frame),
        Request::Bans(frame) => write("bans", id, frame),
        Request::Event(frame) => write("event", id, frame),
        Request::Refresh(frame) => write("refresh", id, frame),
        Request::Invites(frame) => write("invites", id, frame),
        Request::Join(frame) => write("join", id, frame),
        Request::Account(frame) => write("account", id, frame),
        Request::Presence(frame) => write("presence", id, frame),
        Request::View(frame) => write("view", id, frame),
        Request::Devices(frame) => write("devices", id, frame),
    }
}

/// Writes a `send`.
pub(crate) fn encode_send(id: Option<RequestId>, send: &Send) -> Vec<u8> {
    write("send", id, send)
}

/// Reads a server's frame.
pub fn decode_server(bytes: &[u8]) -> Result<(Option<RequestId>, ServerFrame), DecodeError> {
    let (id, frame) = decode(bytes, SERVER_FRAME_BYTES_MAX)?;
    validate::server(&frame).map_err(|problem| problem.of(id))?;
    Ok((id, frame))
}

/// Writes a server's frame.
///
/// # Panics
/// If it holds bytes that are not an entry: those come from the log, which checks what it reads.
#[must_use]
pub fn encode_server(id: Option<RequestId>, frame: &ServerFrame) -> Vec<u8> {
    match frame {
        ServerFrame::Welcome(frame) => write("connect", id, frame),
        ServerFrame::Pong(frame) => write("ping", id, frame),
        ServerFrame::Created(frame) => write("create", id, frame),
        ServerFrame::MembersAnswer(frame) => write("members", id, frame),
        ServerFrame::ConversationsAnswer(frame) => write("conversations", id, frame),
        ServerFrame::TitleAnswer(frame) => write("title", id, frame),
        ServerFrame::Ack(frame) => write("send", id, frame),
        ServerFrame::HistoryAnswer(frame) => write("history", id, frame),
        ServerFrame::ReadAnswer(frame) => write("read", id, frame),
        ServerFrame::DeliveredAnswer(frame) => write("delivered", id, frame),
        ServerFrame::EditAnswer(frame) => write("edit", id, frame),
        ServerFrame::DeleteAnswer(frame) => write("delete", id, frame),
        ServerFrame::ReactAnswer(frame) => write("react", id, frame),
        ServerFrame::PinAnswer(frame) => write("pin", id, frame),
        ServerFrame::RetainAnswer(frame) => write("retain", id, frame),
        ServerFrame::ReactionsAnswer(frame) => write("reactions", id, frame),
        ServerFrame::PinsAnswer(frame) => write("pins", id, frame),
        ServerFrame::RolesAnswer(frame) => write("roles", id, frame),
        ServerFrame::SettingsAnswer(frame) => write("settings", id, frame),
        ServerFrame::BansAnswer(frame) => write("bans", id, frame),
        ServerFrame::EventAnswer(frame) => write("event", id, frame),
        ServerFrame::RefreshAnswer(frame) => write("refresh", id, frame),
        ServerFrame::InvitesAnswer(frame) => write("invites", id, frame),
        ServerFrame::JoinAnswer(frame) => write("join", id, frame),
        ServerFrame::AccountAnswer(frame) => write("account", id, frame),
        ServerFrame::PresenceAnswer(frame) => write("presence", id, frame),
        ServerFrame::ViewAnswer(frame) => write("view", id, frame),
        ServerFrame::DevicesAnswer(frame) => write("devices", id, frame),
        ServerFrame::Error(frame) => write("error", id, frame),
        ServerFrame::Message(entry) => write("message", id, entry),
        ServerFrame::Receipt(frame) => write("receipt", id, frame),
        ServerFrame::Left(frame) => write("left", id, frame),
        ServerFrame::TooFar(frame) => write("too_far", id, frame),
        ServerFrame::CaughtUp(frame) => write("caught_up", id, frame),
        ServerFrame::Goodbye(frame) => write("goodbye", id, frame),
        ServerFrame::States(frame) => write("states", id, frame),
        ServerFrame::Event(frame) => write("happened", id, frame),
        ServerFrame::Expiring(frame) => write("expiring", id, frame),
        ServerFrame::Present(frame) => write("present", id, frame),
        ServerFrame::Advanced(frame) => write("advanced", id, frame),
        ServerFrame::Mentioned(entry) => write("mentioned", id, entry),
    }
}

/// Writes a `message` push, rendered from the entry's archive in place.
///
/// # Panics
/// If `archive` is not an entry's: it comes from the log, which checks what it reads.
#[must_use]
pub fn encode_message(archive: &[u8]) -> Vec<u8> {
    write("message", None, &entry::ArchiveAsJson(archive))
}

fn decode<F: envelope::Family>(bytes: &[u8], bytes_max: usize) -> Result<(Option<RequestId>, F), DecodeError> {
    if bytes.len() > bytes_max {
        // The id is not looked for: that would be reading what is too long to be read.
        return Err(Problem::new(ErrorCode::TooLarge, format!("a frame is at most {bytes_max} bytes long")).of(None));
    }
    envelope::read(bytes)
}

fn write<T: serde::Serialize + ?Sized>(name: &str, id: Option<RequestId>, frame: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(b"\"id\":");
        serde_json::to_writer(&mut out, &id).expect("writing to memory does not fail");
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    serde_json::to_writer(&mut out, frame)
        .expect("entries that are sent are valid, and writing to memory does not fail");
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::MembershipChange;

    const CONVERSATION: &str = "01020304-0506-8708-890a-0b0c0d0e0f10";

    fn check(text: &str, expect: &str) {
        let text = text.replace("$C", CONVERSATION);
        let got = match decode_request(text.as_bytes()) {
            Ok((id, request)) => String::from_utf8(encode_request(id, &request)).unwrap(),
            Err(error) => {
                let id = error.id.map_or("-".to_owned(), |id| id.to_string());
                let (text, _) = error.text.rsplit_once(" at line ").unwrap_or((&error.text, ""));
                format!("{id} {}: {text}", error.code.name())
            }
        };
        assert_eq!(got, expect.replace("$C", CONVERSATION), "for {text}");
    }

    #[test]
    fn requests_are_read() {
        check(r#"{"ping":{}}"#, r#"{"ping":{}}"#);
        check(r#" {"ping":{"later":[{}]},"trace":"x","id":4294967295} "#, r#"{"id":4294967295,"ping":{}}"#);
        check(r#"{"id":1,"create":{"direct":"bob","later":1}}"#, r#"{"id":1,"create":{"direct":"bob"}}"#);
        check(
            r#"{"id":1,"members":{"conversation":"$C","later":1,"add":["bob"]}}"#,
            r#"{"id":1,"members":{"conversation":"$C","add":["bob"]}}"#,
        );
        check(
            r#"{"id":1,"history":{"conversation":"$C","after":3,"before":null,"limit":100000}}"#,
            r#"{"id":1,"history":{"conversation":"$C","after":3,"limit":200}}"#,
        );
        check(
            r#"{"\u0069d":7,"s\u0065nd":{"conversation":"$C","client_message_id":"$C","text":"h\u0069 \"you\""}}"#,
            r#"{"id":7,"send":{"conversation":"$C","client_message_id":"$C","text":"hi \"you\""}}"#,
        );
    }

    #[test]
    fn wrong_frames_are_told_apart() {
        check("", "- malformed: EOF while parsing a value");
        check("[]", "- malformed: invalid type: sequence, expected an object with a key that names the frame's kind");
        check("{}", "- malformed: no key names the frame's kind");
        check(r#"{"id":7}"#, "7 malformed: no key names the frame's kind");
        check(r#"{"id":7,"dance":{},"x":1}"#, "7 unknown_frame: dance is unknown here");
        check(r#"{"id":7,"message":{}}"#, "7 unknown_frame: message is unknown here");
        check(r#"{"id":7,"ping":{},"ping":{}}"#, "7 malformed: `ping` is a second frame in one message");
        check(
            r#"{"ping":{},"read":{"conversation":"$C","sequence":1},"id":7}"#,
            "7 malformed: `read` is a second frame in one message",
        );
        check(r#"{"id":7,"ping":{}} x"#, "7 malformed: trailing characters");
        check(r#"{"id":7,"ping":{}"#, "7 malformed: EOF while parsing an object");
    }

    #[test]
    fn wrong_ids_are_refused() {
        let refused = |id: &str, what: &str| {
            let expect = format!("- malformed: invalid {what}, expected an id: an integer from 1 to 4294967295");
            check(&format!(r#"{{"id":{id},"ping":{{}}}}"#), &expect);
        };
        refused("0", "value: integer `0`");
        refused("4294967296", "value: integer `4294967296`");
        refused("-1", "type: integer `-1`");
        refused("1.5", "type: floating point `1.5`");
        refused("\"7\"", "type: string \"7\"");
        refused("null", "type: null");
        check(r#"{"id":1,"id":2,"ping":{}}"#, "1 malformed: duplicate field `id`");
    }

    #[test]
    fn wrong_values_are_told_apart() {
        check(
            r#"{"read":{"conversation":"$C","sequence":"x"},"id":9}"#,
            "9 malformed: invalid type: string \"x\", expected u64",
        );
        check(r#"{"id":9,"read":{"conversation":"$C"}}"#, "9 malformed: missing field `sequence`");
        check(r#"{"id":9,"read":{"conversation":"x","sequence":1}}"#, "9 invalid: is not a hyphenated UUID");
        check(
            r#"{"id":9,"create":{"direct":"b b"}}"#,
            "9 invalid: has a character outside visible ASCII, or one of \" ' \\ / , < >",
        );
        check(r#"{"id":9,"create":{}}"#, "9 malformed: create needs exactly one of direct and group");
        check(
            r#"{"id":9,"members":{"conversation":"$C","add":["a"],"remove":["b"]}}"#,
            "9 malformed: members needs exactly one of add, remove and list",
        );
        check(r#"{"id":9,"members":{"conversation":"$C","add":[]}}"#, "9 invalid: add must name a user");
        check(r#"{"id":9,"conversations":{"limit":0}}"#, "9 invalid: limit must be at least 1");
        check(
            r#"{"id":9,"history":{"conversation":"$C","before":1,"after":1}}"#,
            "9 invalid: at most one of before, after and around",
        );
        check(
            r#"{"id":9,"read":{"conversation":"$C","sequence":9007199254740992}}"#,
            "9 invalid: sequence is beyond 9007199254740991",
        );
        check(
            r#"{"id":9,"send":{"conversation":"$C","client_message_id":"$C","text":""}}"#,
            "9 invalid: content: the message says nothing",
        );
        check(
            r#"{"id":9,"connect":{"resume":{"position":"?"}}}"#,
            "9 invalid: is not a position of this protocol version",
        );
    }

    #[test]
    fn null_is_as_if_the_field_were_absent() {
        for (null, absent) in [
            (
                r#""send":{"conversation":"$C","client_message_id":"$C","text":"a","everybody":null,"mentions":null}"#,
                r#""send":{"conversation":"$C","client_message_id":"$C","text":"a"}"#,
            ),
            (r#""create":{"group":{"key":"$C","title":null,"members":null}}"#, r#""create":{"group":{"key":"$C"}}"#),
            (
                r#""connect":{"resume":{"position":"AQHvzauJZ0UjAU0AAAAAAAAA","known":null},"client":{"name":"a","version":null}}"#,
                r#""connect":{"resume":{"position":"AQHvzauJZ0UjAU0AAAAAAAAA"},"client":{"name":"a"}}"#,
            ),
            (
                r#""join":{"code":"Yrn5bMJ8iXuSQY4MEPOB1WEgc2VjcmV0IG9mIDE2IEI","look":null}"#,
                r#""join":{"code":"Yrn5bMJ8iXuSQY4MEPOB1WEgc2VjcmV0IG9mIDE2IEI"}"#,
            ),
        ] {
            let read =
                |text: &str| decode_request(format!("{{{}}}", text.replace("$C", CONVERSATION)).as_bytes()).unwrap();
            assert_eq!(read(null), read(absent), "{null}");
        }
    }

    /// As `json` it would be as if there were none.
    #[test]
    fn null_as_data_is_told_as_bytes() {
        let text = r#"{"id":9,"send":{"conversation":"$C","client_message_id":"$C","content_type":"application/json","data":"bnVsbA=="}}"#;
        check(text, &text.replace("$C", CONVERSATION));
    }

    #[test]
    fn what_a_message_cannot_say_is_told() {
        let send =
            |fields: &str| format!(r#"{{"id":9,"send":{{"conversation":"$C","client_message_id":"$C"{fields}}}}}"#);
        let far = u64::MAX;
        for (fields, error) in [
            ("", "9 malformed: missing field `text`"),
            (r#","reply_to":4"#, "9 invalid: content: the message says nothing"),
            (r#","text":7"#, "9 malformed: invalid type: integer `7`, expected a string"),
            (r#","text":"a","content_type":"a/b""#, "9 malformed: content_type needs data or json"),
            (r#","data":"AA==""#, "9 malformed: missing field `content_type`"),
            (r#","data":"A","content_type":"a/b""#, "9 malformed: data is not base64"),
            (r#","data":"","content_type":"a/b""#, "9 invalid: content: the message says nothing"),
            (
                r#","data":"AA==","content_type":"ab""#,
                "9 invalid: content: what the message says does not have its form",
            ),
            (r#","data":"AA==","content_type":"a/b","json":1"#, "9 malformed: needs one of data and json, not both"),
            (
                r#","data":"AA==","content_type":"application/json""#,
                "9 invalid: content: data of a JSON type is not one JSON value",
            ),
            (r#","json":1,"content_type":"a/b""#, "9 malformed: json needs a JSON type"),
            (r#","text":"a","thread":0"#, "9 invalid: content: what the message says does not have its form"),
            (r#","text":"a","mentions":[""]"#, "9 invalid: must be 1 to 64 bytes long"),
            (r#","text":"a","forwarded":{"conversation":"$C"}"#, "9 malformed: missing field `sequence`"),
        ] {
            check(&send(fields), error);
        }
        let many: Vec<String> = (0..=50).map(|number| format!("\"u{number}\"")).collect();
        let many = format!(r#","text":"a","mentions":[{}]"#, many.join(","));
        check(&send(&many), "9 too_large: content: more than 50 mentions");
        check(
            &send(&format!(r#","text":"a","reply_to":{far}"#)),
            "9 invalid: content: what the message says does not have its form",
        );
        let long = format!(r#","data":"{}","content_type":"a/b""#, "AAAA".repeat(16_384 / 3 + 1));
        check(
            &send(&long),
            "9 too_large: content: text is longer than 16384 bytes, data than 16384, or its type than 100",
        );
        let edit = r#"{"id":9,"edit":{"conversation":"$C","client_message_id":"$C","target":3,"text":"a","thread":2}}"#;
        let kept = "9 invalid: an edit keeps what the message answers, its thread and where it was forwarded from";
        check(edit, kept);
    }

    #[test]
    fn limits_are_checked() {
        let title = |bytes| {
            format!(r#"{{"id":9,"title":{{"conversation":"{CONVERSATION}","title":"{}"}}}}"#, "x".repeat(bytes))
        };
        check(&title(257), "9 too_large: title has a length of 257, beyond 256");
        assert!(decode_request(title(256).as_bytes()).is_ok());
        let long = format!(r#"{{"id":9,"dance":"{}"}}"#, "x".repeat(CLIENT_FRAME_BYTES_MAX));
        check(&long, "- too_large: a frame is at most 131072 bytes long");
        // What is ignored is skipped without recursion.
        let deep = format!(r#"{{"id":9,"ping":{{}},"later":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
        check(&deep, r#"{"id":9,"ping":{}}"#);
        // What an answer quotes of a request is bounded.
        let quoted = format!(r#"{{"id":9,"read":"{}"}}"#, "ä".repeat(1000));
        assert!(decode_request(quoted.as_bytes()).unwrap_err().text.len() <= 200);
    }

    #[test]
    fn errors_of_a_later_version_keep_what_matters() {
        let read = |text: &str| decode_server(text.as_bytes()).map(|(id, frame)| encode_server(id, &frame));
        let known = br#"{"id":7,"error":{"code":"not_found","text":"no","temporary":false}}"#;
        assert_eq!(read(std::str::from_utf8(known).unwrap()).unwrap(), known);
        let got = read(r#"{"error":{"code":"moon_phase","temporary":true,"retry_after_ms":5}}"#).unwrap();
        let expect = br#"{"error":{"code":"overloaded","text":"","temporary":true,"retry_after_ms":5}}"#;
        assert_eq!(got, expect);
    }
    #[test]
    fn entries_of_a_later_kind_have_their_place_and_say_nothing() {
        let of = |kind: &str| {
            format!(
                r#"{{"message":{{"conversation":"{CONVERSATION}","epoch":1,"sequence":7,"ordinal":3,"time_ms":5,
                "sender":"bob","kind":"{kind}","poll":{{"question":"when?"}}}}}}"#
            )
        };
        let (_, frame) = decode_server(of("poll").as_bytes()).unwrap();
        let ServerFrame::Message(entry) = frame else { panic!("{frame:?}") };
        let view = entry.view().unwrap();
        assert_eq!((view.sequence.0.to_native(), view.ordinal.0.to_native()), (7, 3));
        assert!(MembershipChange::from_body(&view.body).unwrap().is_of_nobody());
        assert!(decode_server(of("title").as_bytes()).is_err(), "a known kind has what it consists of");
    }
}
